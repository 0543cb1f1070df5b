"""A gateway in a world: found by the shipping client, told by UPnP over a stream, and forgetful when it reboots."""

from collections.abc import Sequence
from typing import Any

from simulator.gateways import INSIDE, add_gateway
from simulator.host import Host
from simulator.net import igd
from simulator.net.gateway import Services
from simulator.net.nat import NatKind
from simulator.rng import SplitMix64
from simulator.world import World
from teale_proto.contract import SECOND, Instant, Value
from teale_proto.effects import Connect, SendData, SendDatagram
from teale_proto.inputs import Address, ConnectionOpened, DatagramReceived
from teale_proto.nat.port_mapping import PortMapping
from teale_proto.nat.port_mapping_values import MappingWanted, ReportPortMapped, Setting
from tests.simulator.net.test_gateway import add
from tests.simulator.toys import Diary, Order, obey

OUTSIDE = "60.1.1.1"
HOME = "10.0.0.2"
PORT = 40000


def home(services: Services | None = None) -> World:
    world = World(1)
    site = world.add_site("home", [NatKind()], outside=[OUTSIDE])
    add_gateway(world, site, services)
    return world


def join(world: World, name: str, core: Any, *, at: str | None = None) -> Host:
    site = world.network.internet if at is None else world.network.sites[at]
    host = world.add_host(name, lambda rng, now: core, site=site, addresses=() if at is None else [HOME])
    host.start()
    return host


def test_the_client_opens_a_port_and_opens_it_again_after_a_reboot() -> None:
    world = home()
    reports: list[Value] = []
    world.trace.subscribe(lambda entry: reports.append(entry.value))

    def core(rng: SplitMix64, now: Instant) -> PortMapping:
        return PortMapping(Setting(Address(HOME, 5555), INSIDE, PORT), rng)

    world.add_host("host", core, site=world.network.sites["home"], addresses=[HOME], birth=(MappingWanted(),)).start()
    world.run_until(SECOND)
    assert [report.external for report in reports if isinstance(report, ReportPortMapped)] == [Address(OUTSIDE, PORT)]
    nat = world.network.sites["home"].nat
    assert nat.forwarding(Address(HOME, PORT), world.engine.now) is not None
    world.reboot_nat("home", at=2 * SECOND)
    world.run_until(3 * SECOND)
    assert nat.forwardings(world.engine.now) == ()
    world.run_until(400 * SECOND)
    assert nat.forwarding(Address(HOME, PORT), world.engine.now) is not None


def test_upnp_over_a_stream_lets_a_stranger_in() -> None:
    world = home()

    def browse(event: Value, now: Instant) -> Sequence[Value]:
        return [SendData(1, add())] if isinstance(event, ConnectionOpened) else obey(event, now)

    browser, stranger = Diary(browse), Diary(obey)
    join(world, "browser", browser, at="home").feed(Order((Connect(1, Address(INSIDE, igd.HTTP_PORT)),)))
    outside = join(world, "stranger", stranger)
    world.run_until(SECOND)
    assert browser.data.startswith(b"HTTP/1.1 200")
    outside.feed(Order((SendDatagram(Address(outside.addresses[0], 7), Address(OUTSIDE, 1234), b"hello"),)))
    world.run_until(2 * SECOND)
    assert [event for _, event in browser.of(DatagramReceived)] == [
        DatagramReceived(Address(HOME, PORT), Address(outside.addresses[0], 7), b"hello")
    ]


def test_every_home_has_a_gateway_of_its_own_at_the_same_address() -> None:
    world = home()
    other = world.add_site("other", [NatKind()])
    add_gateway(world, other)
    firewalled = world.add_site("firewalled", [NatKind(translates=False)])
    add_gateway(world, firewalled, addresses=["60.2.2.1"])
    world.run_until(SECOND)
    assert [world.hosts[f"{name} gateway"].alive for name in ("home", "other", "firewalled")] == [True] * 3
