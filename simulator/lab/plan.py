"""From a description to a plan of a lab: which programs run where and with what settings, and what happens when.

A plan is a value: everything is drawn, and nothing has been started. What chance gives is drawn by
`simulator.spec.draws`, as it is for a simulated world, so that the two are the same world. What real programs on this
kernel cannot be is found here, all of it at once, and raises `Unsupported` before anything runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from math import ceil
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from simulator.backend import CostModel
from simulator.events import Crash as Death
from simulator.lab.errors import NotOnLinux
from simulator.lab.routers import why_not
from simulator.net.link import Link
from simulator.net.weather import LINES
from simulator.spec import draws
from simulator.spec.draws import RELAY_PORT, DrawnMember, DrawnSite
from simulator.spec.faults import BadWeather, ClockSkew, Crash, Fault, NatReboot, Partition, Roam, SlowNode
from simulator.spec.load import AskSpec
from simulator.spec.units import microseconds
from simulator.spec.world_spec import Planted, WorldSpec, settled
from simulator.surroundings import NODE_PORT
from simulator.world import LAN_PORT, STUN_PORTS
from teale_proto.contract import Instant, Value
from teale_proto.inputs import RequestId

WORDS_MAX: Final = 12
"""Words of a prompt. The built-in model sees 256 tokens at once, of which a word of ours takes thirteen."""
PEERS_MAX: Final = 256
"""Of `wan_peers_max`: no node knows more."""
TIMEOUT_MAX: Final = 86_400
TINY: Final = "teale-tiny"
"""What the built-in model is called by real programs; descriptions call it `model-1`."""

MODEL_PORT: Final = 7480
"""Where a model server listens, on the loopback interface of its host."""

Setting: TypeAlias = bool | int | str | list[str]


class Unsupported(NotOnLinux):
    """What a description asks for that a lab cannot do; `reasons` are sentences."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


class Role(Enum):
    """What a program is."""

    NODE = "node"
    RELAY = "relay"
    STUN = "stun"
    """A `teale-relay` to which no node is sent."""
    MODELS = "models"
    """What answers beside a node."""


class Served(Enum):
    """What answers requests in a lab."""

    BUILTIN = "builtin"
    """The tiny model that comes with the package, with all that llama.cpp costs; its answers are short and quick."""
    DESCRIBED = "described"
    """Model servers that take the time, and give the answers, that the description says (`lab.model_server`)."""


class Server(Value):
    """A relay, or a STUN server, with addresses of its own on the internet."""

    name: str
    role: Role
    addresses: tuple[str, ...]
    line: Link
    region: str
    options: tuple[str, ...]
    """What `teale-relay` is started with."""


class NodePlan(Value):
    """A node, and what is in its configuration."""

    name: str
    site: str
    settings: dict[str, Setting]
    is_direct: bool
    models: tuple[str, ...] = ()
    """By the names that the description has for them."""
    inference: CostModel | None = None
    """What its model server goes by; None where it needs none."""


# What happens. An act names its host or site, and the instant of the lab's clock.


class Begin(Value):
    """A node is started for the first time."""

    at: Instant
    host: str


class Order(Value):
    """The application beside a node asks for something."""

    at: Instant
    host: str
    ask: AskSpec
    """With as many words as the model reads."""
    model: str
    """What real programs call the model."""

    @property
    def request(self) -> RequestId:
        """What the request is called in both worlds."""
        return draws.request_of(self.ask)

    @property
    def body(self) -> dict[str, Any]:
        """What is posted."""
        body = {**draws.body_of(self.ask), "model": self.model}
        return body if self.model != TINY else {**body, "temperature": 0}


class Kill(Value):
    """A host dies."""

    at: Instant
    host: str
    how: Death


class Revive(Value):
    """A host is switched on again, unless it is on; without its disk, where its identity is not kept."""

    at: Instant
    host: str
    keeps_identity: bool


class Leave(Value):
    """A node that comes and goes goes, unless it is dead."""

    at: Instant
    host: str
    properly: bool


class Return(Value):
    """It comes back, if it had gone."""

    at: Instant
    host: str


class Block(Value):
    """Nothing passes from some hosts to others until `until`."""

    at: Instant
    until: Instant
    sources: tuple[str, ...]
    targets: tuple[str, ...]


class Reboot(Value):
    """The NATs of a site forget everything; with `rebind` the outermost gets another address."""

    at: Instant
    site: str
    rebind: bool


class Weather(Value):
    """The line of a site is another one until `until`."""

    at: Instant
    until: Instant
    site: str
    line: Link


class Move(Value):
    """A host goes to another site."""

    at: Instant
    host: str
    site: str


Act: TypeAlias = Begin | Order | Kill | Revive | Leave | Return | Block | Reboot | Weather | Move


class Plan(Value):
    """A lab before it is built."""

    seed: int
    served: Served
    spec: WorldSpec
    """Settled, without what was left out."""
    lasts: Instant
    servers: tuple[Server, ...]
    sites: tuple[DrawnSite, ...]
    """Those that hosts roam to included."""
    nodes: tuple[NodePlan, ...]
    acts: tuple[Act, ...]
    """In the order of time."""
    notes: tuple[str, ...]
    """What is not as the description has it, in sentences."""

    @property
    def orders(self) -> tuple[Order, ...]:
        """The requests."""
        return tuple(act for act in self.acts if isinstance(act, Order))


def plan_of(spec: WorldSpec, seed: int, *, ignore_unsupported: bool = False, served: Served | None = None) -> Plan:
    """Return the plan of a description with a seed.

    What answers is by default what the description comes closest to: the built-in model, unless it says itself how
    long inference takes, or has several models. Raises Unsupported for what cannot be done; with `ignore_unsupported`
    the plan does without, where it can.
    """
    spec = settled(spec, seed)
    served = served or _served(spec)
    sites = draws.sites_of(spec, seed)
    roaming = _roaming(spec, seed, sites)
    kept, dropped = _without_unsupported(spec)
    impossible = list(_impossible(spec, served, (*sites.values(), *roaming.values())))
    if impossible or (dropped and not ignore_unsupported):
        raise Unsupported([*impossible, *dropped])
    members = list(draws.members_of(kept, seed))
    # By the description's own list of faults, whose numbers decide what is drawn for them.
    acts = sorted(_acts(spec, seed, served, members, sites, roaming), key=lambda act: act.at)
    lasts = microseconds(spec.lasts)
    return Plan(
        seed=seed,
        served=served,
        spec=kept,
        lasts=lasts,
        servers=tuple(_servers(kept)),
        sites=(*sites.values(), *roaming.values()),
        nodes=tuple(_node(kept, served, member) for member in members),
        acts=tuple(act for act in acts if act.at < lasts),
        notes=(*(f"left out: {each}" for each in dropped), *_notes(kept, served)),
    )


def _served(spec: WorldSpec) -> Served:
    says_how_long = any(each.inference != CostModel() for each in spec.populations)
    return Served.DESCRIBED if says_how_long or spec.models.count > 1 else Served.BUILTIN


# What cannot be.


def _impossible(spec: WorldSpec, served: Served, sites: Iterable[DrawnSite]) -> Iterator[str]:
    """Yield what nothing can be done without."""
    if spec.models.count > 1 and served is Served.BUILTIN:
        yield f"`models`: {spec.models.count} models, where only one comes with the package"
    if spec.planted is not Planted.NONE:
        yield f"`planted`: {spec.planted.value!r} is put into simulated programs only"
    seen: dict[str, list[str]] = {}
    for site in sites:
        for kind in site.access.nats:
            for reason in why_not(kind):
                seen.setdefault(reason, []).append(site.name)
    for reason, names in seen.items():
        yield f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}: {reason}"


def _without_unsupported(spec: WorldSpec) -> tuple[WorldSpec, list[str]]:
    """Return a description without what a lab can be run without, and what that was."""
    dropped = []
    faults = []
    for fault in spec.faults:
        if isinstance(fault, SlowNode):
            dropped.append(f"a slow node ({fault.host} at {fault.at:g} s): real programs are as quick as the machine")
        elif isinstance(fault, ClockSkew):
            dropped.append(f"a clock skew ({fault.host}): all programs go by this machine's clock")
        else:
            faults.append(fault)
    populations = []
    for each in spec.populations:
        if each.clock_error_ppm:
            dropped.append(f"`clock_error_ppm` of {each.name!r}: all programs go by this machine's clock")
        populations.append(replace(each, clock_error_ppm=0.0))
    return replace(spec, faults=tuple(faults), populations=tuple(populations)), dropped


def _notes(spec: WorldSpec, served: Served) -> Iterator[str]:
    """Yield how the run will differ from the description, though nothing is missing."""
    cut = served is Served.BUILTIN and sum(ask.words > WORDS_MAX for ask in spec.asks)
    if cut:
        yield f"{cut} of {len(spec.asks)} prompts are cut to {WORDS_MAX} words, as the built-in model reads no more"
    for each in spec.populations:
        timeouts = {ask.timeout for ask in spec.asks if ask.node in spec.groups[each.name]}
        if any(timeout != ceil(timeout) for timeout in timeouts) or len(timeouts) > 1:
            yield f"{each.name!r}: each node gives up its requests after the longest time that it is to allow one"
    if any(each.direct for each in spec.populations) and not _stun_endpoints(spec):
        yield "nobody answers STUN, so nobody finds a direct path"


# What there is.


def _servers(spec: WorldSpec) -> Iterator[Server]:
    for number, (name, relay) in enumerate(zip(spec.relay_names, spec.relays, strict=True)):
        address = draws.relay_address(number)
        stun = ("--stun", "--stun-port", str(STUN_PORTS[0])) if relay.answers_stun else ("--no-stun",)
        options = (
            *("--host", address, "--port", str(RELAY_PORT), "--name", address),
            *("--connections-per-address", str(relay.connections_per_address_max)),
            *stun,
        )
        yield Server(name, Role.RELAY, (address,), LINES[relay.line], relay.region, options)
    for number, stun_server in enumerate(spec.stun_servers):
        addresses = draws.stun_addresses(number, stun_server)
        other = (*("--stun-alternate", f"{addresses[1]}:{STUN_PORTS[1]}"),) if len(addresses) > 1 else ()
        options = (
            *("--host", addresses[0], "--port", str(RELAY_PORT)),
            *("--stun", "--stun-port", str(STUN_PORTS[0])),
            *other,
        )
        line = LINES[stun_server.line]
        yield Server(f"stun-{number}", Role.STUN, addresses, line, stun_server.region, options)


def _stun_endpoints(spec: WorldSpec) -> list[str]:
    """Return where STUN is answered, in the order in which a simulated world prefers them."""
    hosts = [draws.relay_address(number) for number, relay in enumerate(spec.relays) if relay.answers_stun]
    hosts += [draws.stun_addresses(number, stun)[0] for number, stun in enumerate(spec.stun_servers)]
    return [f"{host}:{STUN_PORTS[0]}" for host in hosts]


def _node(spec: WorldSpec, served: Served, member: DrawnMember) -> NodePlan:
    population = member.population
    has_lan = population.site_size > 1
    timeouts = [ask.timeout for ask in spec.asks if ask.node == member.name]
    settings: dict[str, Setting] = {
        "display_name": member.name,
        "identity_storage": "plain-file",
        "api_port": 0,
        "heartbeat_seconds": round(population.heartbeat),
        "lan_enabled": has_lan,
        "lan_port": LAN_PORT,
        "wan_enabled": True,
        "wan_relay_url": f"wss://{draws.relay_address(population.relay)}:{RELAY_PORT}/ws",
        "wan_peers_max": min(population.peers_max, PEERS_MAX),
        "wan_direct": population.direct,
        "wan_birthday": population.birthday,
        "wan_udp_port": NODE_PORT,
        "wan_stun": _stun_endpoints(spec),
        "max_concurrent_requests": min(population.slots, 1024),
        "request_timeout_seconds": min(TIMEOUT_MAX, ceil(max(timeouts, default=60.0))),
        "log_format": "json",
    }
    inference = None
    if member.models and served is Served.BUILTIN:
        settings["builtin_model"] = True
    elif member.models:
        settings["openai_urls"] = [f"http://127.0.0.1:{MODEL_PORT}/v1"]
        inference = population.inference
    return NodePlan(member.name, member.site, settings, population.direct, member.models, inference)


# What happens.


def _acts(
    spec: WorldSpec,
    seed: int,
    served: Served,
    members: Sequence[DrawnMember],
    sites: dict[str, DrawnSite],
    roaming: dict[int, DrawnSite],
) -> Iterator[Act]:
    """Yield everything that happens, in the order in which a simulated world schedules it."""
    home = {member.name: member.site for member in members}
    for member in members:
        yield Begin(member.starts, member.name)
        yield from _visits(spec, seed, member)
    yield from (_order(ask, served) for ask in spec.asks if ask.node in home)
    for number, fault in enumerate(spec.faults):
        yield from _broken(spec, fault, number, home, sites, roaming)


def _visits(spec: WorldSpec, seed: int, member: DrawnMember) -> Iterator[Act]:
    churn = member.population.churn
    if churn is None:
        return
    at = member.starts
    for stay in draws.stays_of(seed, member.name, churn):
        at += stay.online
        if at >= microseconds(spec.lasts):
            return
        yield Leave(at, member.name, stay.leaves_properly)
        at += stay.offline
        yield Return(at, member.name)


def _order(ask: AskSpec, served: Served) -> Order:
    at = microseconds(ask.at)
    if served is Served.DESCRIBED:
        return Order(at, ask.node, ask, ask.model)
    return Order(at, ask.node, replace(ask, words=min(ask.words, WORDS_MAX)), TINY)


def _broken(
    spec: WorldSpec,
    fault: Fault,
    number: int,
    home: dict[str, str],
    sites: dict[str, DrawnSite],
    roaming: dict[int, DrawnSite],
) -> Iterator[Act]:
    """Yield what a fault does; see `simulator.spec.build`, which has a simulated world do the same."""
    present = {*home, *spec.relay_names}
    if isinstance(fault, Partition):
        at, until = microseconds(fault.at), microseconds(fault.until)
        sources, targets = (_members(spec, names, present) for names in (fault.sources, fault.targets))
        if sources and targets:
            yield Block(at, until, sources, targets)
            if fault.both_ways:
                yield Block(at, until, targets, sources)
        return
    if fault.host not in present or isinstance(fault, SlowNode | ClockSkew):
        return
    at = microseconds(fault.at)
    if isinstance(fault, Crash):
        yield Kill(at, fault.host, fault.how)
        if fault.back_after is not None:
            yield Revive(at + microseconds(fault.back_after), fault.host, fault.keeps_identity)
    elif fault.host in home:
        # A relay has no access line, and does not roam.
        site = sites[home[fault.host]]
        if isinstance(fault, NatReboot):
            yield Reboot(at, site.name, fault.rebind and site.access.is_behind_nat)
        elif isinstance(fault, BadWeather):
            yield Weather(at, microseconds(fault.until), site.name, draws.worse(site.line, fault))
        else:
            yield Move(at, fault.host, roaming[number].name)


def _roaming(spec: WorldSpec, seed: int, sites: dict[str, DrawnSite]) -> dict[int, DrawnSite]:
    """Return the sites that hosts roam to, by the number of the fault."""
    home = {member.name: member.site for member in draws.members_of(spec, seed)}
    return {
        number: draws.roaming_site(seed, number, sites[home[fault.host]].region)
        for number, fault in enumerate(spec.faults)
        if isinstance(fault, Roam) and fault.host in home
    }


def _members(spec: WorldSpec, names: Sequence[str], present: set[str]) -> tuple[str, ...]:
    """Return the hosts that names of hosts and populations stand for, as far as they are there."""
    groups = spec.groups
    members = (member for name in names for member in groups.get(name, (name,)))
    return tuple(member for member in members if member in present)
