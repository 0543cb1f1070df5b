"""A gateway that speaks nothing but UPnP, in a world: the node's own core wants a port, and its host gets it."""

import pytest

from simulator.events import CoreMisused, Crash
from simulator.fidelity import Fidelity
from simulator.gateways import add_gateway
from simulator.net.gateway import Services
from simulator.net.link import CABLE, Link
from simulator.net.nat import NatKind
from simulator.world import World
from teale_proto.contract import MILLISECOND, SECOND, Value
from teale_proto.effects import MapPort, UnmapPort
from teale_proto.inputs import Address, PortMapFailed, PortMapped
from teale_proto.node import Node, NodeConfig

OUTSIDE = "60.1.1.1"
HOME = "10.0.0.2"
UPNP = Services(pcp=False, nat_pmp=False)


class Home:
    """A node behind one NAT, and what its core and its host say of ports."""

    def __init__(self, services: Services, fidelity: Fidelity = Fidelity.WIRE, *, crowd: int = 0) -> None:
        self.world = World(1, fidelity=fidelity)
        site = self.world.add_site("home", [NatKind()], outside=[OUTSIDE])
        self.nat = site.nat
        self.world.add_stun("stun")
        for number in range(crowd):
            self.nat.open_port(Address("10.0.0.9", number + 1), 7475 + number, 3600 * SECOND, 0, exact=True)
        add_gateway(self.world, site, services)
        self.seen: list[Value] = []
        self.world.trace.subscribe(lambda entry: self.seen.append(entry.value))
        config = NodeConfig("node", lan_enabled=False, wan_enabled=True, wan_relay_url="ws://relay/ws")
        self.host = self.world.add_node("node", config, site=site, addresses=[HOME], cable=Link(latency=MILLISECOND))
        self.host.start()

    def said(self, *kinds: type[Value]) -> list[Value]:
        assert not [each for each in self.seen if isinstance(each, CoreMisused)]
        return [each for each in self.seen if isinstance(each, kinds)]

    @property
    def addresses(self) -> tuple[str, ...]:
        assert isinstance(self.host.core, Node)
        return tuple(f"{each.host}:{each.port}" for each in self.host.core.status().direct_addresses)


@pytest.mark.parametrize("fidelity", list(Fidelity))
def test_a_node_has_its_port_opened_by_upnp_where_nothing_else_is_spoken(fidelity: Fidelity) -> None:
    home = Home(UPNP, fidelity)
    home.world.run_until(30 * SECOND)
    (asked,) = home.said(MapPort)
    assert asked == MapPort(1, "10.0.0.1", Address(HOME, 7475), 3600 * SECOND)
    assert home.said(PortMapped, PortMapFailed) == [PortMapped(1, Address(OUTSIDE, 7475), 3600 * SECOND)]
    assert home.nat.forwarding(Address(HOME, 7475), home.world.engine.now) is not None
    assert f"{OUTSIDE}:7475" in home.addresses


def test_what_is_renewed_in_time_stays_open_and_after_a_reboot_it_is_opened_again() -> None:
    home = Home(UPNP)
    home.world.run_until(3 * 3600 * SECOND)
    assert len(home.said(MapPort)) == len(home.said(PortMapped)) >= 6
    assert home.nat.forwarding(Address(HOME, 7475), home.world.engine.now) is not None
    home.nat.reboot()
    home.world.run_until(3 * 3600 * SECOND + 1800 * SECOND)
    assert home.nat.forwarding(Address(HOME, 7475), home.world.engine.now) is not None


def test_a_port_that_somebody_has_is_not_fought_over() -> None:
    home = Home(UPNP, crowd=2)
    home.world.run_until(30 * SECOND)
    assert home.said(PortMapped, PortMapFailed) == [PortMapped(1, Address(OUTSIDE, 7477), 3600 * SECOND)]
    crowded = Home(UPNP, crowd=4)
    crowded.world.run_until(30 * SECOND)
    assert crowded.said(PortMapped, PortMapFailed) == [PortMapFailed(1, "the gateway refuses")]


def test_a_gateway_that_speaks_pcp_is_not_asked_by_upnp_and_one_that_speaks_nothing_refuses() -> None:
    home = Home(Services())
    home.world.run_until(60 * SECOND)
    assert home.said(MapPort) == []
    mute = Home(Services(pcp=False, nat_pmp=False, upnp=False))
    mute.world.run_until(60 * SECOND)
    assert mute.said(MapPort) == []


def test_a_crash_in_the_middle_leaves_nothing_for_the_next_life() -> None:
    home = Home(UPNP)
    while not home.said(MapPort):
        home.world.run_until(home.world.engine.now + MILLISECOND)
    home.host.crash(Crash.RESET)
    home.host.start()
    home.world.run_until(home.world.engine.now + 60 * SECOND)
    assert home.said(PortMapped, PortMapFailed) == [PortMapped(1, Address(OUTSIDE, 7475), 3600 * SECOND)]
    assert len(home.said(MapPort)) == 2


def test_the_port_of_a_network_that_was_left_is_wanted_no_more() -> None:
    home = Home(UPNP)
    home.world.run_until(30 * SECOND)
    other = home.world.add_site("other", [NatKind()], outside=["60.2.2.2"])
    add_gateway(home.world, other, UPNP)
    home.host.move(other, (HOME,), CABLE)
    home.world.run_until(90 * SECOND)
    assert home.said(UnmapPort) == [UnmapPort(1)]
    assert home.said(PortMapped)[1:] == [PortMapped(2, Address("60.2.2.2", 7475), 3600 * SECOND)]
    assert "60.2.2.2:7475" in home.addresses
