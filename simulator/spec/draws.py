"""What chance gives to each part of a description, as values: who is where, with what, and when he comes and goes.

Everything derives from the seed and from the own name of whom it is given to, so one member more changes nothing for
the others. Whoever makes a world of a description asks here, be the world simulated (`simulator.spec.build`) or of
real programs (`simulator.lab`): so both are given the same.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec.structs import replace

from simulator.net.link import Link
from simulator.net.weather import LINES
from simulator.rng import SplitMix64, stream, weighted
from simulator.spec.access import CELLULAR, Access
from simulator.spec.faults import BadWeather
from simulator.spec.load import AskSpec
from simulator.spec.population import Churn, Population
from simulator.spec.units import microseconds
from simulator.spec.world_spec import StunSpec, WorldSpec
from teale_proto.contract import Instant, Value
from teale_proto.inputs import RequestId

PROMPT_MARKER: Final = "simulated-prompt-word"
"""What every word of every prompt contains."""

RELAY_PORT: Final = 443
"""Where public relays are, since it is the one port that leaves every network."""

LAN: Final = Link(latency=100, uplink_bytes_per_second=125_000_000, downlink_bytes_per_second=125_000_000)
"""The cable from a host to its own router: 100 µs and a gigabit each way."""


class DrawnSite(Value):
    """One access line, and what stands between it and the internet."""

    name: str
    access: Access
    region: str
    has_lan: bool
    """Whether its hosts find each other."""

    @property
    def line(self) -> Link:
        """The line itself."""
        return LINES[self.access.line]


class DrawnMember(Value):
    """One node of a population."""

    name: str
    population: Population
    site: str
    models: tuple[str, ...]
    clock_ppm: int
    starts: Instant


class Stay(Value):
    """How long somebody who comes and goes stays, how he leaves, and how long he is away then."""

    online: Instant
    offline: Instant
    leaves_properly: bool


def relay_address(number: int) -> str:
    """Return the address of the relay with a number."""
    return f"192.0.2.{number + 1}"


def stun_addresses(number: int, stun: StunSpec) -> tuple[str, ...]:
    """Return the addresses of the STUN server with a number."""
    return tuple(f"198.51.{100 + which}.{number + 1}" for which in range(1 if stun.has_one_address else 2))


def sites_of(spec: WorldSpec, seed: int) -> dict[str, DrawnSite]:
    """Return the sites in which members live from the start, by name, in the order in which they are needed."""
    sites: dict[str, DrawnSite] = {}
    for population in spec.populations:
        for number in population.numbers:
            name = site_name(population, number)
            if name not in sites:
                sites[name] = _site(seed, name, population)
    return sites


def site_name(population: Population, number: int) -> str:
    """Return the name of the site in which a member lives."""
    return f"{population.name} site {number // population.site_size}"


def members_of(spec: WorldSpec, seed: int) -> Iterator[DrawnMember]:
    """Yield all members that are there, population by population."""
    popularity = spec.models.weights()
    for population in spec.populations:
        for number in population.numbers:
            name = population.member(number)
            rng = stream(seed, name, "population")
            models = _models(rng, population, popularity)
            ppm = round(population.clock_error_ppm * (2 * rng.random() - 1))
            starts = microseconds(population.starts_at + population.starts_within * rng.random())
            yield DrawnMember(name, population, site_name(population, number), models, ppm, starts)


def stays_of(seed: int, name: str, churn: Churn) -> Iterator[Stay]:
    """Yield the stays of a node that comes and goes, without end."""
    rng = stream(seed, name, "churn")
    while True:
        online = microseconds(churn.session(rng))
        offline, properly = microseconds(churn.gap(rng)), rng.random() < churn.leaves_properly
        yield Stay(online, offline, properly)


def roaming_site(seed: int, number: int, region: str) -> DrawnSite:
    """Return the cellular access that the fault with a number takes a host of a region to."""
    name = f"roam {number}"
    return DrawnSite(name, CELLULAR.draw(stream(seed, name, "access")), region, has_lan=False)


def worse(line: Link, fault: BadWeather) -> Link:
    """Return a line as it is while the weather is bad."""
    return replace(
        line,
        loss=max(line.loss, fault.loss),
        corruption=fault.corruption,
        duplication=fault.duplication,
        reordering=fault.reordering,
    )


def request_of(ask: AskSpec) -> RequestId:
    """Return the name of a request."""
    # After when and who, not after a place in the list, which changes when a fuzzer cuts the list down.
    return RequestId(f"ask-{ask.node}-{microseconds(ask.at)}")


def body_of(ask: AskSpec) -> dict[str, Any]:
    """Return what is asked, in the form of OpenAI's API."""
    words = " ".join(f"{PROMPT_MARKER}-{word}" for word in range(ask.words))
    messages = [{"role": "user", "content": words}]
    body = {"model": ask.model, "messages": messages, "stream": ask.streaming, "user": request_of(ask)}
    return body if ask.tokens_max is None else {**body, "max_tokens": ask.tokens_max}


def _site(seed: int, name: str, population: Population) -> DrawnSite:
    rng = stream(seed, name, "access")
    region = weighted(rng, population.regions)
    return DrawnSite(name, population.mixture.draw(rng), region, has_lan=population.site_size > 1)


def _models(rng: SplitMix64, population: Population, popularity: Mapping[str, float]) -> tuple[str, ...]:
    """Return what a member holds: nothing, or distinct models, the popular ones more often."""
    if rng.random() >= population.holders:
        return ()
    left = dict(popularity)
    held = []
    for _ in range(min(population.models_each, len(left))):
        model = weighted(rng, left)
        del left[model]
        held.append(model)
    return tuple(sorted(held))
