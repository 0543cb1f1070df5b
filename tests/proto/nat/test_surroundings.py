"""What a node finds out about its network: several STUN servers at once, and the port that its gateway opens."""

from collections import Counter
from itertools import count
from typing import Any

import pytest

from simulator.rng import stream
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Instant
from teale_proto.effects import MapPort, SendDatagram, UnmapPort
from teale_proto.inputs import Address, DatagramReceived, NetworkChanged, PortMapFailed, PortMapped
from teale_proto.nat import nat_pmp, pcp
from teale_proto.nat.kinds import Filtering
from teale_proto.nat.punch_messages import Candidate
from teale_proto.nat.strategy import CandidateKind
from teale_proto.nat.stun_server import StunServer
from teale_proto.nat.surroundings import FRESH_FOR, SERVERS_MAX, Surroundings
from teale_proto.nat.upnp_mapping import ANSWER_MAX, LIFETIME, UpnpMapping
from tests.proto.nat.test_traversal import ALTERNATE, DEAD_SERVER, LATENCY, PRIMARY, Town

ONE, OTHER = Address("192.0.2.20", 3478), Address("192.0.2.30", 3478)
SOCKET = Address("10.0.0.2", 7475)
GATEWAY = Address("10.0.0.1", pcp.SERVER_PORT)
OUTSIDE = "203.0.113.1"
MAPPED = PortMapped(1, Address(OUTSIDE, 7475), 3600 * SECOND)


# STUN servers.


def explored(kind: str, *stun: Address, seconds: float = 12) -> tuple[Town, Instant]:
    """Return a town after its first node has explored, and how long that took."""
    town = Town(kind, "public", stun=stun)
    for server in (ONE, OTHER):
        town.internet.add_host(str(server), [server.host], StunServer(server))
    town.hosts[0].feed(NetworkChanged((town.walkers[0].local,), stun))
    end = town.engine.now + round(seconds * SECOND)
    while town.walkers[0].traversal.surroundings.side is None and town.engine.now < end:
        town.engine.run_until(town.engine.now + MILLISECOND)
    return town, town.engine.now


@pytest.mark.parametrize("kind", ["public", "EIM+EIF", "EIM+ADF", "EIM+APDF", "APDM+APDF"])
def test_a_server_that_is_gone_costs_no_time_and_no_knowledge(kind: str) -> None:
    near, alone = explored(kind, PRIMARY)
    town, beside = explored(kind, DEAD_SERVER, PRIMARY)
    assert town.walkers[0].traversal.surroundings.server == PRIMARY
    assert beside <= alone + MILLISECOND
    sides = [each.walkers[0].traversal.surroundings.side for each in (near, town)]
    assert len({side and str(side.behaviour) for side in sides}) == 1


@pytest.mark.parametrize(
    ("kind", "known"), [("EIM+EIF", "EIM+?"), ("APDM+APDF", "varies+?"), ("public", "firewall, ?")]
)
def test_two_servers_with_one_address_each_tell_the_mapping_and_leave_the_filtering_unknown(
    kind: str, known: str
) -> None:
    town, _ = explored(kind, ONE, OTHER)
    side = town.walkers[0].traversal.surroundings.side
    assert side is not None
    assert str(side.behaviour) == known


@pytest.mark.parametrize("stun", [(ONE, PRIMARY), (PRIMARY, ONE)])
def test_of_two_servers_that_answer_the_one_that_knows_more_is_asked_for_more(stun: tuple[Address, ...]) -> None:
    town, _ = explored("EIM+ADF", *stun)
    side = town.walkers[0].traversal.surroundings.side
    assert side is not None
    assert str(side.behaviour) == "EIM+ADF"
    assert town.walkers[0].traversal.surroundings.server == PRIMARY


def test_what_both_addresses_of_one_server_were_asked_says_nothing_about_filtering() -> None:
    town, _ = explored("EIM+ADF", PRIMARY, Address(ALTERNATE.host, PRIMARY.port))
    side = town.walkers[0].traversal.surroundings.side
    assert side is not None
    assert side.behaviour.filtering is None
    assert side.behaviour.filtering is not Filtering.ENDPOINT_INDEPENDENT


def test_silence_is_told_after_two_pairs_of_servers_and_no_more() -> None:
    dead = tuple(Address(f"192.0.2.{number}", 3478) for number in range(40, 50))
    town, took = explored("EIM+APDF", *dead)
    side = town.walkers[0].traversal.surroundings.side
    assert side is not None
    assert side.behaviour.udp_blocked
    assert took == 5 * SECOND
    assert len(town.walkers[0].sent) == SERVERS_MAX
    assert set(town.walkers[0].sent.values()) == {4 * 28}, "four questions to each"


def test_a_refresh_asks_all_that_answered_and_goes_on_with_who_still_does() -> None:
    town, _ = explored("EIM+APDF", ONE, OTHER)
    around = town.walkers[0].traversal.surroundings
    assert around.server == ONE
    now, out = town.engine.now + FRESH_FOR, list[Any]()
    assert around.refresh(now, out)
    assert [effect.remote for effect in out] == [ONE, OTHER]
    for answer in StunServer(OTHER).handle(DatagramReceived(OTHER, Address(OUTSIDE, 999), out[1].data), now):
        assert isinstance(answer, SendDatagram)
        around.received(DatagramReceived(out[1].local, OTHER, answer.data), now + 2 * LATENCY, out)
    assert not around.refresh(now + 2 * LATENCY, out)
    assert around.server == OTHER
    assert around.candidates[-1] == Candidate(CandidateKind.REFLEXIVE, Address(OUTSIDE, 999))


# The gateway.


class Place:
    """A node's surroundings where nobody but the gateway matters, and that speaks only UPnP, if anything."""

    def __init__(self) -> None:
        self.around = Surroundings(stream(1, "surroundings", "test"), birthday_allowed=False)
        self.now: Instant = 0
        self.out: list[Any] = []
        self.sent: Counter[type[Any]] = Counter()

    def enter(self, *, gateway: Address | None = GATEWAY) -> "Place":
        self.around.network_changed(NetworkChanged((SOCKET,), (), gateway), self.now, self.out)
        return self

    def asked(self, within: int = 60 * SECOND) -> list[MapPort | UnmapPort]:
        """Let time pass until something is asked of the driver, and return what."""
        end = self.now + within
        while not (found := [each for each in self.out if isinstance(each, MapPort | UnmapPort)]):
            if self.around.deadline > end:
                self.now = end
                return []
            self.now = self.around.deadline
            self.around.fired(self.now, self.out)
        self.out.clear()
        return found

    def answer(self, event: PortMapped | PortMapFailed) -> list[Any]:
        self.around.port_answered(event, self.now, self.out)
        found, self.out[:] = self.out[:], []
        return found

    @property
    def mapped(self) -> list[Address]:
        return [each.address for each in self.around.candidates if each.kind is CandidateKind.MAPPED]


def test_upnp_is_asked_for_when_a_gateway_speaks_nothing_else_and_its_port_is_a_candidate() -> None:
    place = Place().enter()
    assert place.asked() == [MapPort(1, GATEWAY.host, SOCKET, LIFETIME)]
    assert 10 * SECOND < place.now < 20 * SECOND
    assert place.answer(MAPPED) == []
    assert place.mapped == [MAPPED.external]
    assert place.around.side is not None
    assert place.around.side.port_mapped


def test_a_port_is_renewed_before_its_end_and_lost_at_it() -> None:
    place = Place().enter()
    place.asked()
    place.answer(MAPPED)
    began = place.now
    for _ in range(3):
        assert place.asked(LIFETIME) == [MapPort(1, GATEWAY.host, SOCKET, LIFETIME)]
        assert place.answer(PortMapFailed(1, "no")) == []
    assert place.mapped
    assert place.now < began + LIFETIME
    while UnmapPort(1) not in place.asked(LIFETIME):
        place.answer(PortMapFailed(1, "no"))
    assert place.now == began + LIFETIME
    assert place.mapped == []
    assert place.asked(1100 * SECOND) == [MapPort(2, GATEWAY.host, SOCKET, LIFETIME)]


def test_a_gateway_that_refuses_is_asked_again_after_a_while_and_a_driver_that_says_nothing_is_not_waited_for() -> None:
    place = Place().enter()
    place.asked()
    assert place.answer(PortMapFailed(1, "no")) == [UnmapPort(1)]
    at = place.now
    assert place.asked(1100 * SECOND) == [MapPort(2, GATEWAY.host, SOCKET, LIFETIME)]
    assert place.now > at + 900 * SECOND
    at = place.now
    assert place.asked(1100 * SECOND) == [UnmapPort(2)]
    assert place.now == at + ANSWER_MAX
    assert place.answer(PortMapped(2, Address(OUTSIDE, 1), LIFETIME)) == []
    assert place.mapped == []


@pytest.mark.parametrize("host", ["10.1.2.3", "100.64.0.1", "127.0.0.1", "gateway.example", "0.0.0.0"])
def test_a_port_at_an_address_that_the_internet_does_not_route_is_none(host: str) -> None:
    place = Place().enter()
    place.asked()
    place.answer(PortMapped(1, Address(host, 7475), LIFETIME))
    assert place.mapped == []


def test_a_port_at_an_address_that_is_not_ours_is_none() -> None:
    place = Place().enter()
    place.around.outside = "203.0.113.9"
    place.asked()
    place.answer(MAPPED)
    assert place.mapped == [], "the gateway names somebody else"
    place.around.outside = OUTSIDE
    assert place.mapped == [MAPPED.external]
    place.around.outside = "10.9.9.9"
    assert place.mapped == [MAPPED.external], "a relay next door says nothing about the internet"


def test_it_is_given_back_at_the_end_and_asked_for_anew_in_another_network() -> None:
    place = Place().enter()
    place.asked()
    place.answer(MAPPED)
    place.enter()
    assert UnmapPort(1) in place.out
    place.out.clear()
    assert place.mapped == []
    assert place.asked() == [MapPort(2, GATEWAY.host, SOCKET, LIFETIME)]
    assert place.answer(MAPPED) == [], "the answer of another network"
    assert place.mapped == []
    place.around.leave(place.now, place.out)
    assert UnmapPort(2) in place.out
    assert Place().enter(gateway=None).asked() == []


def test_what_pcp_opens_after_all_replaces_what_upnp_has_opened() -> None:
    place = Place().enter()
    first = next(each for each in place.out if isinstance(each, SendDatagram))
    place.asked()
    place.answer(MAPPED)
    request = pcp.decode_request(first.data)
    assert isinstance(request, pcp.MapRequest)
    answer = pcp.MapResponse(0, 7200, 5, request.nonce, pcp.UDP, SOCKET.port, Address(OUTSIDE, 4321))
    place.around.received(DatagramReceived(SOCKET, GATEWAY, pcp.encode(answer)), place.now, place.out)
    assert UnmapPort(1) in place.out
    assert place.mapped == [Address(OUTSIDE, 4321)]


def test_a_gateway_that_refuses_by_nat_pmp_is_not_asked_by_upnp() -> None:
    place = Place().enter()
    for code in (nat_pmp.ResultCode.UNSUPPORTED_VERSION, nat_pmp.ResultCode.NOT_AUTHORIZED):
        refusal = nat_pmp.encode(nat_pmp.Refused(0, code, 5))
        place.around.received(DatagramReceived(SOCKET, GATEWAY, refusal), place.now, place.out)
    assert place.asked(900 * SECOND) == []


def test_a_lifetime_that_nobody_can_keep_up_with_is_taken_for_a_longer_one() -> None:
    core, out = UpnpMapping(GATEWAY.host, SOCKET, count(1), stream(1, "upnp", "test")), list[Any]()
    assert core.deadline == NEVER
    core.want(0, out)
    core.want(0, out)
    core.answered(PortMapped(1, MAPPED.external, 1), 0, out)
    assert len(out) == 1
    assert 30 * SECOND < core.deadline < 120 * SECOND
    core.release(out)
    core.release(out)
    assert out[1:] == [UnmapPort(1)]
    core.answered(MAPPED, 0, out)
    assert core.external is None
