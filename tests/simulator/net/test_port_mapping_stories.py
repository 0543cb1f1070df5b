"""Hosts with the shipping port mapping client, behind simulated gateways, and strangers on the internet."""

from collections.abc import Sequence
from typing import Any

import pytest

from simulator.engine import Engine
from simulator.net import igd
from simulator.net.datagrams import HOME as CABLE
from simulator.net.datagrams import Internet
from simulator.net.datagrams import Uplink as Link
from simulator.net.gateway import Services, attach_gateway
from simulator.net.nat import Allocation, NatKind
from teale_proto.contract import MILLISECOND, SECOND, Duration, Instant, Value
from teale_proto.effects import SendDatagram
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat import pcp
from teale_proto.nat.kinds import Filtering, Mapping
from teale_proto.nat.port_mapping import PortMapping
from teale_proto.nat.port_mapping_values import (
    MappingUnwanted,
    MappingWanted,
    Patience,
    Protocol,
    ReportPortMapped,
    ReportPortRefused,
    ReportPortReleased,
    ReportPortUnavailable,
    Setting,
)
from tests.simulator.net.test_gateway import SEARCH
from tests.simulator.toys import Diary, Order, obey

OUTSIDE = "203.0.113.1"
OWN = "10.0.0.1"
CLIENT, INSIDE = Address("10.0.0.2", 5555), Address("10.0.0.2", 40000)
STRANGER = Address("198.51.100.7", 7)
HOUR = 3600 * SECOND
HARD = NatKind(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)


class Listening:
    """The client, on a host where something listens at the port too."""

    def __init__(self, client: PortMapping) -> None:
        self.heard: list[DatagramReceived] = []
        self.client = client

    @property
    def deadline(self) -> Instant:
        return self.client.deadline

    def handle(self, event: Any, now: Instant) -> Sequence[Value]:
        if isinstance(event, DatagramReceived) and event.local == INSIDE:
            self.heard.append(event)
            return ()
        return self.client.handle(event, now)


class Home:
    """A home with a gateway, a host that wants a port, and a stranger outside; a carrier may be in between."""

    def __init__(
        self,
        services: Services | None = None,
        kind: NatKind | None = None,
        *,
        carrier: bool = False,
        line: Link = CABLE,
        gateway: bool = True,
        check_every: Duration = 300 * SECOND,
    ) -> None:
        self.engine = Engine()
        self.internet = Internet(self.engine, seed=1)
        behind = self.internet.add_realm("carrier", NatKind(), ["203.0.113.200"]) if carrier else None
        outside = "100.64.0.7" if carrier else OUTSIDE
        self.realm = self.internet.add_realm("home", kind or NatKind(), [outside], behind=behind)
        if gateway:
            attach_gateway(self.internet, self.realm, [OWN], services)
        patience = Patience(check_every=check_every)
        client = PortMapping(Setting(CLIENT, OWN, INSIDE.port), self.internet.entropy("host"), patience=patience)
        self.listening = Listening(client)
        self.host = self.internet.add_host("host", [INSIDE.host], self.listening, realm=self.realm, uplink=line)
        self.stranger_heard = Diary(obey)
        self.stranger = self.internet.add_host("stranger", [STRANGER.host], self.stranger_heard)
        self.host.feed(MappingWanted())

    def run(self, duration: Duration) -> None:
        self.engine.run_until(self.engine.now + duration)

    @property
    def news(self) -> list[Value]:
        return [report for _, report in self.host.reports]

    @property
    def external(self) -> Address:
        return [report.external for report in self.news if isinstance(report, ReportPortMapped)][-1]

    def is_reached(self, at: Address) -> bool:
        """Return whether a stranger's datagram to an address arrives at the port."""
        known = len(self.listening.heard)
        self.stranger.feed(Order((SendDatagram(STRANGER, at, b"hello"),)))
        self.run(SECOND)
        return self.listening.heard[known:] == [DatagramReceived(INSIDE, STRANGER, b"hello")]


@pytest.mark.parametrize("services", [Services(), Services(nat_pmp=False), Services(pcp=False)])
@pytest.mark.parametrize("kind", [NatKind(), HARD, NatKind(filtering=Filtering.ADDRESS_DEPENDENT)])
def test_a_stranger_reaches_a_host_that_has_asked_for_a_port(services: Services, kind: NatKind) -> None:
    home = Home(services, kind)
    home.run(SECOND)
    by = Protocol.PCP if services.pcp else Protocol.NAT_PMP
    assert home.news == [ReportPortMapped(CLIENT, Address(OUTSIDE, INSIDE.port), 2 * HOUR, by, routable=True)]
    assert home.is_reached(home.external)


def test_a_port_stays_open_for_as_long_as_it_is_wanted_and_no_longer() -> None:
    home = Home()
    home.run(50 * HOUR)
    assert home.is_reached(home.external)
    assert len(home.news) == 1
    home.host.feed(MappingUnwanted())
    home.run(SECOND)
    assert home.news[1:] == [ReportPortReleased(CLIENT)]
    assert not home.is_reached(home.external)


def test_a_port_that_nobody_renews_closes_at_the_end_of_its_lifetime() -> None:
    home = Home()
    home.run(SECOND)
    (opened,) = home.realm.nat.forwardings(home.engine.now)
    home.listening.client = PortMapping(Setting(CLIENT, OWN, INSIDE.port), home.internet.entropy("nobody"))
    home.run(opened.expires_at - home.engine.now - 2 * SECOND)
    assert home.is_reached(opened.outside)
    home.run(2 * SECOND)
    assert not home.is_reached(opened.outside)


def test_a_gateway_that_restarts_is_noticed_and_the_port_opened_again() -> None:
    home = Home()
    home.run(HOUR // 4)
    home.realm.nat.reboot()
    assert not home.is_reached(home.external)
    home.run(400 * SECOND)
    assert home.is_reached(home.external)
    assert len(home.news) == 1


def test_a_gateway_with_a_new_address_is_noticed_and_reported() -> None:
    home = Home()
    home.run(HOUR // 4)
    home.realm.rebind(["203.0.113.77"])
    home.run(400 * SECOND)
    assert home.external == Address("203.0.113.77", INSIDE.port)
    assert home.is_reached(home.external)


def test_behind_a_carrier_the_port_is_open_and_said_to_be_of_no_use_to_strangers() -> None:
    home = Home(carrier=True)
    home.run(SECOND)
    (report,) = home.news
    assert isinstance(report, ReportPortMapped)
    assert (report.external, report.routable) == (Address("100.64.0.7", INSIDE.port), False)
    assert not home.is_reached(home.external)
    assert not home.is_reached(Address("203.0.113.200", INSIDE.port))


def test_a_line_that_loses_a_third_of_all_packets_costs_time_and_nothing_else() -> None:
    home = Home(line=Link(latency=20 * MILLISECOND, loss=0.3, duplication=0.1), check_every=60 * SECOND)
    home.run(20 * HOUR)
    assert isinstance(home.news[-1], ReportPortMapped)
    assert home.realm.nat.forwardings(home.engine.now)


def test_a_home_without_these_services_is_told_apart_from_one_that_refuses() -> None:
    home = Home(gateway=False)
    home.run(200 * SECOND)
    assert [type(report) for report in home.news] == [ReportPortUnavailable]
    home = Home(Services(ports_per_host_max=0))
    home.run(SECOND)
    assert [type(report) for report in home.news] == [ReportPortRefused]


def test_a_hostile_gateway_a_neighbour_and_a_stranger_are_ignored() -> None:
    """They send what a gateway would, and garbage; only the nonce of the question makes an answer."""
    home = Home(gateway=False)
    forged = pcp.encode(pcp.MapResponse(0, 7200, 5, bytes(12), pcp.UDP, INSIDE.port, Address(STRANGER.host, 1)))
    gateway = home.internet.add_host("evil", [OWN], Diary(obey), realm=home.realm)
    neighbour = home.internet.add_host("neighbour", ["10.0.0.9"], Diary(obey), realm=home.realm)
    for data in (forged, forged[:30], b"", b"\0", b"\xff" * 1100, b"\2\x81" + bytes(58)):
        gateway.feed(Order((SendDatagram(Address(OWN, 5351), CLIENT, data),)))
        neighbour.feed(Order((SendDatagram(Address("10.0.0.9", 5351), CLIENT, data),)))
        home.stranger.feed(Order((SendDatagram(STRANGER, Address(OUTSIDE, CLIENT.port), data),)))
        home.run(SECOND)
    assert home.news == []


def test_the_services_of_a_gateway_are_not_reached_from_outside() -> None:
    home = Home()
    home.run(SECOND)
    request = pcp.encode(pcp.AnnounceRequest(STRANGER.host))
    for target in (Address(OUTSIDE, 5351), Address(OWN, 5351)):
        home.stranger.feed(Order((SendDatagram(STRANGER, target, request),)))
    home.run(SECOND)
    assert home.stranger_heard.of(DatagramReceived) == []


def test_a_search_of_the_whole_network_finds_the_gateway() -> None:
    home = Home()
    found = Diary(obey)
    searcher = home.internet.add_host("searcher", ["10.0.0.5"], found, realm=home.realm)
    searcher.feed(Order((SendDatagram(Address("10.0.0.5", 1), Address(igd.SSDP_GROUP, 1900), SEARCH),)))
    home.run(SECOND)
    (answer,) = [event for _, event in found.heard if isinstance(event, DatagramReceived)]
    assert answer.remote == Address(OWN, 1900)
    assert answer.data.startswith(b"HTTP/1.1 200 OK\r\n")
