"""From a description to a world: hosts on their access lines, requests, comings and goings, faults, and the rules.

What a member of a population is given derives from its own name and the seed. Each site's line and NATs belong to
the site, and so derive from the site's name.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from simulator.backend import ANSWER_MARKER
from simulator.checkers import Checker, NothingInPlain
from simulator.clock import Clock
from simulator.events import Crash as Death
from simulator.fidelity import Fidelity
from simulator.gateways import add_gateway
from simulator.host import Pace
from simulator.invariants import watch
from simulator.net.link import Link
from simulator.net.site import Site
from simulator.net.weather import LINES
from simulator.planted import plant
from simulator.relay_cost import OURS, RelayProfile
from simulator.rng import SplitMix64, stream, weighted
from simulator.scenario import Scenario
from simulator.spec.access import CELLULAR, Access
from simulator.spec.faults import BadWeather, ClockSkew, Crash, Fault, NatReboot, Partition, Roam, SlowNode
from simulator.spec.load import AskSpec
from simulator.spec.population import Churn, Population
from simulator.spec.units import microseconds
from simulator.spec.world_spec import RelaySpec, StunSpec, WorldSpec, settled
from simulator.trace import Entry
from simulator.world import World
from teale_proto.contract import Duration, Instant, Value
from teale_proto.effects import ReportFinished
from teale_proto.inputs import Ask, ConnectionAccepted, DataReceived, PingReceived, RequestId, Task
from teale_proto.node import NodeConfig
from teale_proto.relay.server import RelayServerConfig
from teale_proto.wire.relay import Hardware

PROMPT_MARKER: Final = "simulated-prompt-word"

RELAY_PORT: Final = 443
"""Where public relays are, since it is the one port that leaves every network."""

LAN: Final = Link(latency=100, uplink_bytes_per_second=125_000_000, downlink_bytes_per_second=125_000_000)
"""The cable from a host to its own router: 100 µs and a gigabit each way."""


def scenario_of(spec: WorldSpec) -> Scenario:
    """Return the scenario that builds what is described; it is settled with the seed of the world."""
    return Scenario(spec.name, spec.summary, microseconds(spec.lasts), partial(build, spec), spec)


def build(spec: WorldSpec, world: World) -> None:
    """Fill an empty world and schedule what happens."""
    spec = settled(spec, world.seed)
    for name, relay in zip(spec.relay_names, spec.relays, strict=True):
        _add_relay(world, spec, name, relay)
    for number, stun in enumerate(spec.stun_servers):
        _add_stun(world, number, stun)
    for population in spec.populations:
        _populate(world, spec, population)
    for ask in spec.asks:
        _ask(world, ask)
    for number, fault in enumerate(spec.faults):
        _break(world, spec, fault, number)
    plant(world, spec.planted)
    watch(spec, world)
    if spec.fidelity is Fidelity.WIRE:
        world.check(NothingInPlain((PROMPT_MARKER, ANSWER_MARKER)))
    if spec.served_at_least:
        world.check(ShareServed(spec.served_at_least))


# What there is.


def _add_relay(world: World, spec: WorldSpec, name: str, relay: RelaySpec) -> None:
    number = spec.relay_names.index(name)
    config = RelayServerConfig(
        names=(name,), connections_per_address_max=relay.connections_per_address_max, registrations_max=1 << 20
    )
    pace = _pace_of(OURS) if relay.has_cost else None
    world.add_relay(
        name,
        f"192.0.2.{number + 1}",
        LINES[relay.line],
        config,
        region=relay.region,
        port=RELAY_PORT,
        pace=pace,
        answers_stun=relay.answers_stun,
    )
    world.start(name, at=0)


def _add_stun(world: World, number: int, stun: StunSpec) -> None:
    addresses = [f"198.51.{100 + which}.{number + 1}" for which in range(1 if stun.has_one_address else 2)]
    name = f"stun-{number}"
    world.add_stun(name, addresses, LINES[stun.line], region=stun.region)
    world.start(name, at=0)


def _pace_of(profile: RelayProfile) -> Pace:
    """Return how long a relay is busy with what comes in, in whole microseconds.

    A message is charged as one to be passed on, whatever it says: `discover` costs more, but comes once in many.
    """

    def pace(event: Value) -> Duration:
        if isinstance(event, DataReceived):
            return round(profile.forward_us(len(event.data), alone=True))
        if isinstance(event, PingReceived):
            return round(profile.ping_us)
        return round(profile.registration_us) if isinstance(event, ConnectionAccepted) else 0

    return pace


def _populate(world: World, spec: WorldSpec, population: Population) -> None:
    popularity = spec.models.weights()
    sites: dict[int, Site] = {}
    for number in population.numbers:
        name = population.member(number)
        rng = stream(world.seed, name, "population")
        place = number // population.site_size
        if place not in sites:
            sites[place] = _add_site(world, f"{population.name} site {place}", population)
        models = _models(rng, population, popularity)
        ppm = round(population.clock_error_ppm * (2 * rng.random() - 1))
        starts = microseconds(population.starts_within * rng.random())
        config = NodeConfig(
            display_name=name,
            hardware=Hardware(chip_name="simulated", total_ram_gb=16.0, tier=2 if models else 4),
            heartbeat=microseconds(population.heartbeat),
            lan_enabled=population.site_size > 1,
            wan_enabled=True,
            wan_relay_url=f"wss://{spec.relay_names[population.relay]}:{RELAY_PORT}/ws",
            wan_peers_max=population.peers_max,
            wan_direct=population.direct,
            wan_birthday=population.birthday,
            max_concurrent_requests=population.slots,
        )
        world.add_node(
            name, config, site=sites[place], cable=LAN, models=models, cost=population.inference, clock=Clock(ppm)
        )
        world.start(name, at=starts)
        if population.churn is not None:
            _Visitor(world, name, population.churn, starts)


def _add_site(world: World, name: str, population: Population) -> Site:
    rng = stream(world.seed, name, "access")
    region = weighted(rng, population.regions)
    return _site_of(world, name, population.mixture.draw(rng), region, has_lan=population.site_size > 1)


def _site_of(world: World, name: str, access: Access, region: str, *, has_lan: bool) -> Site:
    site = world.add_site(
        name,
        access.nats,
        LINES[access.line],
        region=region,
        discovery=has_lan,
        only_tcp_443=access.only_tcp_443,
    )
    if access.offers_port_mapping and access.is_behind_nat and world.fidelity is Fidelity.WIRE:
        add_gateway(world, site)
    return site


def _models(rng: SplitMix64, population: Population, popularity: dict[str, float]) -> tuple[str, ...]:
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


# What happens.


class _Visitor:
    """A node that comes and goes; what a fault has killed, it leaves to the fault."""

    __slots__ = ("_away", "_churn", "_name", "_rng", "_world")

    def __init__(self, world: World, name: str, churn: Churn, starts: Instant) -> None:
        self._world = world
        self._name = name
        self._churn = churn
        self._rng = stream(world.seed, name, "churn")
        self._away = False
        world.engine.call_at(starts + microseconds(churn.session(self._rng)), self._leave)

    def _leave(self) -> None:
        host, engine = self._world.hosts[self._name], self._world.engine
        gap, properly = microseconds(self._churn.gap(self._rng)), self._rng.random() < self._churn.leaves_properly
        if host.alive:
            self._away = True
            if properly:
                host.stop()
            else:
                host.crash(Death.VANISH)
        engine.call_at(engine.now + gap, self._return)

    def _return(self) -> None:
        host, engine = self._world.hosts[self._name], self._world.engine
        if self._away and not host.alive:
            host.start()
        self._away = False
        engine.call_at(engine.now + microseconds(self._churn.session(self._rng)), self._leave)


def _ask(world: World, ask: AskSpec) -> None:
    at = microseconds(ask.at)
    words = " ".join(f"{PROMPT_MARKER}-{word}" for word in range(ask.words))
    messages = [{"role": "user", "content": words}]
    # Named after when and who, not after a place in the list, which changes when a fuzzer cuts the list down.
    request = RequestId(f"ask-{ask.node}-{at}")
    body = {"model": ask.model, "messages": messages, "stream": ask.streaming, "user": request}
    timeout = microseconds(ask.timeout)
    if ask.node in world.hosts:
        encoded = msgspec.json.encode(body)
        order = Ask(request, Task.CHAT, ask.model, encoded, streaming=ask.streaming, timeout=timeout)
        world.ask(ask.node, order, at=at)


def _break(world: World, spec: WorldSpec, fault: Fault, number: int) -> None:
    at = 0 if isinstance(fault, ClockSkew) else microseconds(fault.at)
    if isinstance(fault, Partition):
        sources, targets = _members(world, spec, fault.sources), _members(world, spec, fault.targets)
        until = microseconds(fault.until)
        if sources and targets:
            world.block(sources, targets, at=at, until=until)
            if fault.both_ways:
                world.block(targets, sources, at=at, until=until)
    elif fault.host not in world.hosts:
        return
    elif isinstance(fault, Crash):
        world.crash(fault.host, fault.how, at=at)
        if fault.back_after is not None:
            world.restart(fault.host, at=at + microseconds(fault.back_after), keep_identity=fault.keeps_identity)
    elif isinstance(fault, SlowNode):
        world.slow_down(fault.host, microseconds(fault.delay), at=at, until=microseconds(fault.until))
    elif isinstance(fault, ClockSkew):
        world.drift(fault.host, round(fault.ppm), at=0)
    else:
        site = world.hosts[fault.host].site
        # A relay has no access line whose NATs could restart, and it does not walk out of the house.
        if site is not None:
            _break_site(world, fault, site, number)


def _break_site(world: World, fault: NatReboot | BadWeather | Roam, site: Site, number: int) -> None:
    at = microseconds(fault.at)
    if isinstance(fault, NatReboot):
        if fault.rebind and any(each.outside for each in world.stack(site.name)):
            world.rebind_nat(site.name, at=at)
        else:
            world.reboot_nat(site.name, at=at)
    elif isinstance(fault, BadWeather):
        worse = msgspec.structs.replace(
            site.link,
            loss=max(site.link.loss, fault.loss),
            corruption=fault.corruption,
            duplication=fault.duplication,
            reordering=fault.reordering,
        )
        world.change_weather(site.name, worse, at=at, until=microseconds(fault.until))
    else:
        name = f"roam {number}"
        access = CELLULAR.draw(stream(world.seed, name, "access"))
        world.move(fault.host, _site_of(world, name, access, site.region, has_lan=False), at=at)


def _members(world: World, spec: WorldSpec, names: Sequence[str]) -> list[str]:
    """Return the hosts that names of hosts and populations stand for, as far as they are there."""
    groups = spec.groups
    members = (member for name in names for member in groups.get(name, (name,)))
    return [member for member in members if member in world.hosts]


# What must hold.


class ShareServed(Checker):
    """Of all requests, so large a share must end well; where none was asked, nothing is said."""

    kinds = (Ask, ReportFinished)

    def __init__(self, share: float) -> None:
        super().__init__()
        self.rule = f"at least {share:.0%} of the requests were served"
        self._share = share
        self._asked = 0
        self._served = 0

    def observe(self, entry: Entry) -> None:
        """Count."""
        self._asked += isinstance(entry.value, Ask)
        self._served += isinstance(entry.value, ReportFinished)

    def finish(self, now: Instant) -> None:
        """Compare."""
        if self._served < self._share * self._asked:
            self.violated(now, "", f"{self._served} of {self._asked} were")
