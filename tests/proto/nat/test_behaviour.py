"""How a socket finds out what NAT it is behind: what it asks, how often, and whom it believes."""

from collections.abc import Sequence
from random import Random

import pytest

from teale_proto.contract import MILLISECOND, NEVER, SECOND, Instant
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Address, DatagramReceived
from teale_proto.nat.behaviour import (
    REFUSED,
    SILENT,
    BehaviourDiscovery,
    DiscoveryEffect,
    DiscoveryStarted,
    Finding,
    Probe,
    ReportBehaviour,
    ReportMapped,
    Retransmission,
    Setting,
    conclude,
    next_probes,
    origin,
    target,
)
from teale_proto.nat.kinds import Behaviour, Filtering, Hairpinning, Mapping
from teale_proto.nat.stun import (
    Attribute,
    ChangeRequest,
    ErrorCode,
    MappedAddress,
    Message,
    MessageClass,
    OtherAddress,
    XorMappedAddress,
    decode,
    encode,
)

LOCAL = Address("10.0.0.2", 40000)
SERVER = Address("192.0.2.1", 3478)
OTHER = Address("198.51.100.1", 3479)
SECOND_SERVER = Address("198.51.100.9", 3478)
MAPPED, MAPPED_TWICE, MAPPED_THRICE = (Address("203.0.113.1", port) for port in (1, 2, 3))
SETTING = Setting(LOCAL, SERVER, hairpin=False)


def seen(mapped: Address | None, other: Address | None = OTHER) -> Finding:
    return Finding(answered=True, mapped=mapped, other=other)


EVERYTHING_ANSWERED = {
    Probe.REACH: seen(MAPPED),
    Probe.FILTER_BOTH: seen(MAPPED),
    Probe.FILTER_PORT: REFUSED,
    Probe.REACH_AGAIN: seen(MAPPED),
    Probe.MAP_ADDRESS: seen(MAPPED),
}


# Which conclusions follow from which findings.


@pytest.mark.parametrize(
    ("again", "address", "both", "mapping", "varies"),
    [
        (MAPPED, MAPPED, None, Mapping.ENDPOINT_INDEPENDENT, False),
        (MAPPED_TWICE, MAPPED_TWICE, None, Mapping.ENDPOINT_INDEPENDENT, False),
        (MAPPED, MAPPED_TWICE, MAPPED_TWICE, Mapping.ADDRESS_DEPENDENT, True),
        (MAPPED, MAPPED_TWICE, MAPPED_THRICE, Mapping.ADDRESS_AND_PORT_DEPENDENT, True),
        (MAPPED, MAPPED_TWICE, None, None, True),
        (MAPPED, None, None, None, None),
        (None, MAPPED, None, None, None),
    ],
)
def test_the_mapping_follows_from_three_mapped_addresses(
    again: Address | None, address: Address | None, both: Address | None, mapping: Mapping | None, varies: bool | None
) -> None:
    found = EVERYTHING_ANSWERED | {
        Probe.REACH_AGAIN: seen(again),
        Probe.MAP_ADDRESS: seen(address),
        Probe.MAP_BOTH: seen(both),
    }
    behaviour = conclude(found, SETTING)
    assert (behaviour.mapping, behaviour.mapping_varies) == (mapping, varies)


@pytest.mark.parametrize(
    ("both", "port", "filtering"),
    [
        (seen(MAPPED), SILENT, Filtering.ENDPOINT_INDEPENDENT),
        (seen(MAPPED), REFUSED, Filtering.ENDPOINT_INDEPENDENT),
        (SILENT, seen(MAPPED), Filtering.ADDRESS_DEPENDENT),
        (SILENT, SILENT, Filtering.ADDRESS_AND_PORT_DEPENDENT),
        (REFUSED, REFUSED, None),
        (REFUSED, SILENT, None),
        (SILENT, REFUSED, None),
    ],
)
def test_the_filtering_follows_from_two_answers_or_their_absence(
    both: Finding, port: Finding, filtering: Filtering | None
) -> None:
    found = EVERYTHING_ANSWERED | {Probe.FILTER_BOTH: both, Probe.FILTER_PORT: port}
    assert conclude(found, SETTING).filtering is filtering


@pytest.mark.parametrize(
    ("came_from", "hairpinning"),
    [
        (MAPPED, Hairpinning.EXTERNAL_SOURCE),
        (MAPPED_TWICE, Hairpinning.EXTERNAL_SOURCE),
        (LOCAL, Hairpinning.INTERNAL_SOURCE),
        (None, Hairpinning.NONE),
    ],
)
def test_the_hairpin_follows_from_where_our_own_packet_comes_from(
    came_from: Address | None, hairpinning: Hairpinning
) -> None:
    found = EVERYTHING_ANSWERED | {Probe.HAIRPIN: seen(came_from, None) if came_from else SILENT}
    assert conclude(found, SETTING).hairpinning is hairpinning


def test_silence_is_udp_blocked_and_a_refusal_is_not() -> None:
    assert conclude({Probe.REACH: SILENT}, SETTING) == Behaviour(udp_blocked=True)
    assert conclude({Probe.REACH: REFUSED}, SETTING) == Behaviour(udp_blocked=False)


def test_of_a_server_with_one_address_nothing_follows_but_the_mapped_address() -> None:
    found = {Probe.REACH: seen(MAPPED, None)}
    assert next_probes(found, SETTING) == ()
    assert conclude(found, SETTING) == Behaviour(udp_blocked=False, mapped=MAPPED, translated=True)


def test_two_ordinary_servers_tell_whether_the_mapping_varies_and_nothing_of_the_filtering() -> None:
    setting = Setting(LOCAL, SERVER, SECOND_SERVER, hairpin=False)
    found = {Probe.REACH: seen(MAPPED, None)}
    for probe, mapped in ((Probe.REACH_AGAIN, MAPPED), (Probe.MAP_ADDRESS, MAPPED_TWICE)):
        assert next_probes(found, setting) == (probe,)
        found[probe] = seen(mapped, None)
    assert target(Probe.MAP_ADDRESS, found, setting) == SECOND_SERVER
    assert next_probes(found, setting) == ()
    behaviour = conclude(found, setting)
    assert (behaviour.mapping_varies, behaviour.mapping, behaviour.filtering) == (True, None, None)


def test_a_socket_without_nat_asks_for_its_firewall_alone() -> None:
    found = {Probe.REACH: seen(LOCAL)}
    setting = Setting(LOCAL, SERVER)
    assert next_probes(found, setting) == (Probe.FILTER_BOTH, Probe.FILTER_PORT)
    found |= {Probe.FILTER_BOTH: SILENT, Probe.FILTER_PORT: seen(LOCAL)}
    assert next_probes(found, setting) == ()
    assert conclude(found, setting) == Behaviour(
        udp_blocked=False,
        mapped=LOCAL,
        translated=False,
        mapping=Mapping.ENDPOINT_INDEPENDENT,
        mapping_varies=False,
        filtering=Filtering.ADDRESS_DEPENDENT,
    )


def test_every_probe_goes_and_is_answered_where_rfc_5780_says() -> None:
    found = {Probe.REACH: seen(MAPPED)}
    routes = {probe: (target(probe, found, SETTING), origin(probe, found, SETTING)) for probe in Probe}
    over_there = Address(OTHER.host, SERVER.port)
    assert routes == {
        Probe.REACH: (SERVER, SERVER),
        Probe.FILTER_BOTH: (SERVER, OTHER),
        Probe.FILTER_PORT: (SERVER, Address(SERVER.host, OTHER.port)),
        Probe.HAIRPIN: (MAPPED, MAPPED),
        Probe.REACH_AGAIN: (SERVER, SERVER),
        Probe.MAP_ADDRESS: (over_there, over_there),
        Probe.MAP_BOTH: (OTHER, OTHER),
    }


# The core.


class Socket:
    """A discovery with hand-made answers."""

    def __init__(self, setting: Setting = SETTING, retransmission: Retransmission | None = None) -> None:
        self.core = BehaviourDiscovery(setting, Random(1), retransmission=retransmission)
        self.now: Instant = 0
        self.asked: list[SendDatagram] = []
        self.reports: list[DiscoveryEffect] = []
        self._note(self.core.handle(DiscoveryStarted(), 0))

    def answer(
        self,
        *attributes: Attribute,
        to: SendDatagram,
        by: Address,
        as_class: MessageClass = MessageClass.SUCCESS,
    ) -> None:
        data = encode(Message(as_class, decode(to.data).transaction, attributes))
        self._note(self.core.handle(DatagramReceived(LOCAL, by, data), self.now))

    def wake_to(self, at: Instant) -> None:
        while self.core.deadline <= at:
            self.now = self.core.deadline
            self._note(self.core.handle(WAKE, self.now))

    def _note(self, effects: Sequence[DiscoveryEffect]) -> None:
        for effect in effects:
            if isinstance(effect, SendDatagram):
                self.asked.append(effect)
            else:
                self.reports.append(effect)

    def reached(self) -> tuple[SendDatagram, SendDatagram]:
        """Answer the first test, and return the two requests of the filtering tests."""
        self.answer(XorMappedAddress(MAPPED), OtherAddress(OTHER), to=self.asked[-1], by=SERVER)
        both, port = self.asked[-2:]
        return both, port


def test_the_first_request_goes_to_the_server_and_carries_nothing_but_a_fingerprint() -> None:
    (request,) = Socket().asked
    assert (request.local, request.remote) == (LOCAL, SERVER)
    message = decode(request.data)
    assert (message.message_class, message.attributes, message.fingerprinted) == (MessageClass.REQUEST, (), True)


def test_seven_requests_go_out_in_31500_ms_and_all_is_given_up_after_39500_ms() -> None:
    """RFC 8489, section 6.2.1."""
    socket = Socket()
    sent_at = [0]
    while not socket.reports:
        before = len(socket.asked)
        socket.wake_to(socket.core.deadline)
        sent_at += [socket.now // MILLISECOND] * (len(socket.asked) - before)
    assert sent_at == [0, 500, 1500, 3500, 7500, 15500, 31500]
    assert len({request.data for request in socket.asked}) == 1
    assert socket.now == 39500 * MILLISECOND
    assert socket.reports == [ReportBehaviour(LOCAL, Behaviour(udp_blocked=True))]
    assert socket.core.deadline == NEVER


def test_how_often_to_ask_can_be_chosen() -> None:
    socket = Socket(retransmission=Retransmission(first=100 * MILLISECOND, requests=3, patience=4))
    socket.wake_to(60 * SECOND)
    assert (len(socket.asked), socket.now) == (3, 700 * MILLISECOND)


def test_the_mapped_address_is_reported_before_the_long_wait_for_the_filter() -> None:
    socket = Socket()
    both, port = socket.reached()
    assert socket.reports == [ReportMapped(LOCAL, MAPPED)]
    assert decode(both.data).get(ChangeRequest) == ChangeRequest(address=True, port=True)
    assert decode(port.data).get(ChangeRequest) == ChangeRequest(address=False, port=True)
    assert {both.remote, port.remote} == {SERVER}


def test_an_answer_from_everywhere_spares_the_second_filtering_test() -> None:
    socket = Socket()
    both, _ = socket.reached()
    socket.answer(XorMappedAddress(MAPPED), to=both, by=OTHER)
    again = socket.asked[-1]
    assert (again.remote, decode(again.data).attributes) == (SERVER, ())


def test_an_old_server_that_knows_no_xor_is_understood() -> None:
    socket = Socket()
    socket.answer(MappedAddress(MAPPED), to=socket.asked[0], by=SERVER)
    assert socket.reports[0] == ReportMapped(LOCAL, MAPPED)


def test_a_server_that_ignores_what_it_should_change_makes_no_filter_look_open() -> None:
    socket = Socket()
    both, _ = socket.reached()
    socket.answer(XorMappedAddress(MAPPED), to=both, by=SERVER)
    socket.wake_to(100 * SECOND)
    report = socket.reports[-1]
    assert isinstance(report, ReportBehaviour)
    assert report.behaviour.filtering is None


def test_a_server_that_refuses_to_change_leaves_the_filtering_unknown() -> None:
    socket = Socket()
    both, _ = socket.reached()
    socket.answer(ErrorCode(420), to=both, by=SERVER, as_class=MessageClass.ERROR)
    socket.wake_to(100 * SECOND)
    report = socket.reports[-1]
    assert isinstance(report, ReportBehaviour)
    assert report.behaviour.filtering is None


def test_a_server_that_answers_with_an_error_proves_only_that_udp_passes() -> None:
    socket = Socket()
    socket.answer(ErrorCode(500), to=socket.asked[0], by=SERVER, as_class=MessageClass.ERROR)
    assert socket.reports == [ReportBehaviour(LOCAL, Behaviour(udp_blocked=False))]


@pytest.mark.parametrize(
    "other",
    [
        Address(SERVER.host, OTHER.port),
        Address(OTHER.host, SERVER.port),
        Address(OTHER.host, 0),
        Address("224.0.0.1", 9),
        Address("0.0.0.0", 9),
        Address("2001:db8::1", 9),
    ],
)
def test_an_other_address_of_no_use_is_as_good_as_none(other: Address) -> None:
    socket = Socket()
    socket.answer(XorMappedAddress(MAPPED), OtherAddress(other), to=socket.asked[0], by=SERVER)
    assert socket.reports[-1] == ReportBehaviour(LOCAL, Behaviour(udp_blocked=False, mapped=MAPPED, translated=True))
    assert len(socket.asked) == 1


def test_strangers_are_not_believed() -> None:
    socket = Socket()
    request = socket.asked[0]
    socket.answer(XorMappedAddress(OTHER), to=request, by=OTHER)
    guessed = encode(Message(MessageClass.SUCCESS, b"guessed wrong"[:12], (XorMappedAddress(OTHER),)))
    assert socket.core.handle(DatagramReceived(LOCAL, SERVER, guessed), 0) == []
    assert socket.core.handle(DatagramReceived(LOCAL, SERVER, b"noise"), 0) == []
    assert socket.core.handle(DatagramReceived(Address("10.0.0.2", 9), SERVER, guessed), 0) == []
    socket.answer(to=request, by=SERVER)
    assert (socket.reports, len(socket.asked)) == ([], 1)


def test_only_our_own_request_proves_a_hairpin() -> None:
    socket = Socket(Setting(LOCAL, SERVER))
    socket.answer(XorMappedAddress(MAPPED), to=socket.asked[0], by=SERVER)
    (probe,) = socket.asked[1:]
    assert probe.remote == MAPPED
    socket.answer(XorMappedAddress(MAPPED), to=probe, by=MAPPED)
    assert socket.reports == [ReportMapped(LOCAL, MAPPED)]
    socket._note(socket.core.handle(DatagramReceived(LOCAL, MAPPED, probe.data), 0))
    report = socket.reports[-1]
    assert isinstance(report, ReportBehaviour)
    assert report.behaviour.hairpinning is Hairpinning.EXTERNAL_SOURCE


def test_one_discovery_at_a_time_and_another_afterwards() -> None:
    socket = Socket()
    with pytest.raises(LocalError, match="under way"):
        socket.core.handle(DiscoveryStarted(), 0)
    socket.answer(XorMappedAddress(MAPPED), to=socket.asked[0], by=SERVER)
    (again,) = socket.core.handle(DiscoveryStarted(), 1)
    assert isinstance(again, SendDatagram)
    assert again.data != socket.asked[0].data


@pytest.mark.parametrize(
    "setting",
    [
        Setting(LOCAL, Address("stun.example.org", 3478)),
        Setting(LOCAL, SERVER, Address(SERVER.host, 3479)),
    ],
)
def test_servers_are_given_by_different_ip_addresses(setting: Setting) -> None:
    with pytest.raises(LocalError):
        BehaviourDiscovery(setting, Random(1))
