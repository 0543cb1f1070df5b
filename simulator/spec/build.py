"""From a description to a world: hosts on their access lines, requests, comings and goings, faults, and the rules.

What chance gives to each of them is in `simulator.spec.draws`.
"""

from collections.abc import Sequence
from functools import partial

import msgspec

from simulator.backend import ANSWER_MARKER
from simulator.checkers import Checker, NothingInPlain
from simulator.clock import Clock
from simulator.costs import MachineProfile, is_described
from simulator.events import Crash as Death
from simulator.fidelity import Fidelity
from simulator.gateways import add_gateway
from simulator.invariants import watch
from simulator.net.site import Site
from simulator.net.weather import LINES
from simulator.pacing import NodePace, RelayPace, Scatter
from simulator.planted import plant
from simulator.relay_cost import OURS, ProgramProfile
from simulator.rng import stream
from simulator.scenario import Scenario
from simulator.spec import draws
from simulator.spec.draws import LAN, PROMPT_MARKER, RELAY_PORT, DrawnMember, DrawnSite, Stay
from simulator.spec.faults import BadWeather, ClockSkew, Crash, Fault, NatReboot, Partition, Roam, SlowNode
from simulator.spec.load import AskSpec
from simulator.spec.population import Churn
from simulator.spec.units import microseconds
from simulator.spec.world_spec import RelaySpec, StunSpec, WorldSpec, settled
from simulator.trace import Entry
from simulator.turns import Pace
from simulator.world import World
from teale_proto.contract import Instant
from teale_proto.effects import ReportFinished
from teale_proto.inputs import Ask, Task
from teale_proto.node import NodeConfig
from teale_proto.relay.server import RelayServerConfig
from teale_proto.wire.relay import Hardware


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
    _populate(world, spec)
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
    world.add_relay(
        name,
        draws.relay_address(number),
        LINES[relay.line],
        config,
        region=relay.region,
        port=RELAY_PORT,
        pace=_relay_pace(world, spec, name, relay),
        answers_stun=relay.answers_stun,
    )
    world.start(name, at=0)


def _add_stun(world: World, number: int, stun: StunSpec) -> None:
    name = f"stun-{number}"
    world.add_stun(name, draws.stun_addresses(number, stun), LINES[stun.line], region=stun.region)
    world.start(name, at=0)


def _relay_pace(world: World, spec: WorldSpec, name: str, relay: RelaySpec) -> Pace | None:
    """Return how long a relay is busy with what comes in; None is no time at all."""
    if spec.costs is not None:
        return RelayPace(spec.costs.relay, _scatter(world, name, spec.costs.relay))
    return RelayPace(OURS) if relay.has_cost else None


def _scatter(world: World, name: str, profile: ProgramProfile) -> Scatter:
    rng = stream(world.seed, name, "pace")
    return Scatter(rng, spread=profile.spread, drift=profile.drift, measured_us=profile.alone_us)


def _populate(world: World, spec: WorldSpec) -> None:
    drawn = draws.sites_of(spec, world.seed)
    sites: dict[str, Site] = {}
    for member in draws.members_of(spec, world.seed):
        if member.site not in sites:
            sites[member.site] = _add_site(world, drawn[member.site])
        _add_member(world, spec, member, sites[member.site])


def _add_member(world: World, spec: WorldSpec, member: DrawnMember, site: Site) -> None:
    name, population, models = member.name, member.population, member.models
    config = NodeConfig(
        display_name=name,
        hardware=_hardware(spec.costs, has_models=bool(models)),
        heartbeat=microseconds(population.heartbeat),
        lan_enabled=population.site_size > 1,
        wan_enabled=True,
        wan_relay_url=f"wss://{spec.relay_names[population.relay]}:{RELAY_PORT}/ws",
        wan_peers_max=population.peers_max,
        wan_direct=population.direct,
        wan_birthday=population.birthday,
        max_concurrent_requests=population.slots,
    )
    cost = population.inference
    pace: Pace | None = None
    if spec.costs is not None:
        scatter = _scatter(world, name, spec.costs.node)
        pace = NodePace(spec.costs.node, scatter, has_upstream=is_described(cost))
        cost = spec.costs.inference_of(cost)
    clock = Clock(member.clock_ppm)
    world.add_node(name, config, site=site, cable=LAN, models=models, cost=cost, clock=clock, pace=pace)
    world.start(name, at=member.starts)
    if population.churn is not None:
        _Visitor(world, name, population.churn, member.starts)


def _hardware(costs: MachineProfile | None, *, has_models: bool) -> Hardware:
    if costs is not None and costs.hardware is not None:
        return costs.hardware.told()
    return Hardware(chip_name="simulated", total_ram_gb=16.0, tier=2 if has_models else 4)


def _add_site(world: World, drawn: DrawnSite) -> Site:
    access = drawn.access
    site = world.add_site(
        drawn.name,
        access.nats,
        drawn.line,
        region=drawn.region,
        discovery=drawn.has_lan,
        only_tcp_443=access.only_tcp_443,
    )
    if access.offers_port_mapping and access.is_behind_nat and world.fidelity is Fidelity.WIRE:
        add_gateway(world, site)
    return site


# What happens.


class _Visitor:
    """A node that comes and goes; what a fault has killed, it leaves to the fault."""

    __slots__ = ("_away", "_name", "_stays", "_world")

    def __init__(self, world: World, name: str, churn: Churn, starts: Instant) -> None:
        self._world = world
        self._name = name
        self._stays = draws.stays_of(world.seed, name, churn)
        self._away = False
        self._come(starts)

    def _come(self, at: Instant) -> None:
        stay = next(self._stays)
        self._world.engine.call_at(at + stay.online, self._leave, stay)

    def _leave(self, stay: Stay) -> None:
        host, engine = self._world.hosts[self._name], self._world.engine
        if host.alive:
            self._away = True
            if stay.leaves_properly:
                host.stop()
            else:
                host.crash(Death.VANISH)
        engine.call_at(engine.now + stay.offline, self._return)

    def _return(self) -> None:
        host, engine = self._world.hosts[self._name], self._world.engine
        if self._away and not host.alive:
            host.start()
        self._away = False
        self._come(engine.now)


def _ask(world: World, ask: AskSpec) -> None:
    if ask.node not in world.hosts:
        return
    encoded = msgspec.json.encode(draws.body_of(ask))
    request, timeout = draws.request_of(ask), microseconds(ask.timeout)
    order = Ask(request, Task.CHAT, ask.model, encoded, streaming=ask.streaming, timeout=timeout)
    world.ask(ask.node, order, at=microseconds(ask.at))


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
        until = microseconds(fault.until)
        world.change_weather(site.name, draws.worse(site.link, fault), at=at, until=until)
    else:
        drawn = draws.roaming_site(world.seed, number, site.region)
        world.move(fault.host, _add_site(world, drawn), at=at)


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
