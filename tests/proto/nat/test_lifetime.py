"""How long a NAT remembers: the search finds it, asks little, and is not fooled by what only looks like forgetting."""

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from simulator.net.nat import Allocation, Nat, NatKind
from simulator.rng import stream
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Duration, Instant
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Address, DatagramReceived
from teale_proto.nat.kinds import Filtering, Mapping
from teale_proto.nat.lifetime import (
    Bounds,
    LifetimeEffect,
    LifetimeOutcome,
    LifetimeSearch,
    LifetimeWanted,
    ReportLifetime,
    ReportSilence,
    Setting,
    longest_search,
    next_silence,
)
from teale_proto.nat.stun import ErrorCode, Message, MessageClass, ResponsePort, XorMappedAddress, decode, encode
from teale_proto.nat.stun_server import StunServer
from tests.proto.nat.journals import Line

FIRST, SECOND_SOCKET = Address("10.0.1.2", 40000), Address("10.0.1.2", 40001)
SERVER = Address("192.0.2.1", 3478)
SETTING = Setting(FIRST, SECOND_SOCKET, SERVER)
MAPPED = Address("203.0.113.1", 50000)
HOUR = 3600 * SECOND
ROUND_TRIP = 60 * MILLISECOND

PLAIN = NatKind()
KINDS = {
    "home router": PLAIN,
    "open": NatKind(filtering=Filtering.ENDPOINT_INDEPENDENT),
    "hard": NatKind(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM),
    "sequential": NatKind(allocation=Allocation.SEQUENTIAL),
    "refreshed from the inside only": NatKind(inbound_refreshes=False),
    "firewall": NatKind(translates=False),
}


def with_lifetime(kind: NatKind, lifetime: Duration) -> NatKind:
    fields = {name: getattr(kind, name) for name in kind.__struct_fields__}
    return NatKind(**{**fields, "lifetime": lifetime})


class Searched(NamedTuple):
    """A search that has come to its end."""

    report: ReportLifetime
    took: Duration
    progress: list[tuple[Instant, ReportSilence]]


def searched(kind: NatKind, setting: Setting = SETTING, *, loss: float = 0) -> Searched:
    nat = Nat(kind, ["203.0.113.1"] if kind.translates else [], stream(1, "nat", "nat"))
    line = Line(LifetimeSearch(setting, Random(1)), StunServer(SERVER), nat, loss=loss)
    line.feed("client", LifetimeWanted())
    line.run(HOUR)
    told = [(at, each) for at, _, effects in line.journals["client"] for each in effects]
    ((took, report),) = [(at, each) for at, each in told if isinstance(each, ReportLifetime)]
    return Searched(report, took, [(at, each) for at, each in told if isinstance(each, ReportSilence)])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("seconds", [12, 30, 61, 120, 180, 239, 285])
def test_the_lifetime_of_every_nat_is_found_as_exactly_as_was_wanted(kind: NatKind, seconds: int) -> None:
    report = searched(with_lifetime(kind, seconds * SECOND)).report
    assert report.outcome is LifetimeOutcome.FOUND
    known = report.known
    assert known.at_most is not None
    assert known.at_most - known.at_least <= SETTING.resolution
    # The NAT's clock begins with a question or its answer, and the next answer takes a way there and back.
    assert known.at_least <= seconds * SECOND <= known.at_most + 2 * ROUND_TRIP
    assert report.silences <= SETTING.silences_max


def test_what_outlives_the_longest_silence_has_no_upper_bound() -> None:
    report = searched(with_lifetime(PLAIN, HOUR)).report
    assert report.outcome is LifetimeOutcome.FOUND
    assert report.known.at_most is None
    assert report.known.at_least >= SETTING.longest - SETTING.resolution


def test_what_does_not_survive_the_shortest_silence_is_no_longer_than_that() -> None:
    report = searched(with_lifetime(PLAIN, 3 * SECOND)).report
    assert report.known == Bounds(0, SETTING.shortest)


@given(st.integers(1, 400), st.integers(1, 30), st.integers(1, 12), st.integers(60, 2000))
@hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
def test_a_search_is_bounded_in_silences_and_in_time(lifetime: int, resolution: int, silences: int, total: int) -> None:
    setting = Setting(
        FIRST,
        SECOND_SOCKET,
        SERVER,
        resolution=resolution * SECOND,
        silences_max=silences,
        total_max=total * SECOND,
    )
    report, took, _ = searched(with_lifetime(PLAIN, lifetime * SECOND), setting)
    assert report.silences <= silences
    # Beside the silences there is the time that answers take, or do not come in.
    assert took <= total * SECOND + (report.silences + 1) * 6 * SECOND
    assert report.known.at_least <= lifetime * SECOND
    assert report.known.at_most is None or lifetime * SECOND <= report.known.at_most + ROUND_TRIP


@pytest.mark.parametrize("seconds", [20, 45, 90, 200, 1000])
def test_the_estimate_is_never_too_short(seconds: int) -> None:
    report, took, progress = searched(with_lifetime(PLAIN, seconds * SECOND))
    answers = (report.silences + 1) * 6 * SECOND
    assert took <= longest_search(Bounds(), SETTING) + answers
    assert len(progress) == report.silences
    for at, each in progress:
        assert took - at <= each.left_at_most + answers
    assert progress[-1][1].left_at_most == 0


def test_lost_packets_make_no_mapping_look_forgotten() -> None:
    for seconds in (40, 100, 170):
        report = searched(with_lifetime(PLAIN, seconds * SECOND), loss=0.05).report
        assert report.outcome is LifetimeOutcome.FOUND
        assert report.known.at_most is not None
        assert report.known.at_least <= seconds * SECOND <= report.known.at_most + 6 * SECOND


def test_which_silence_comes_next_follows_from_what_is_known() -> None:
    assert next_silence(Bounds(), SETTING) == 54_772_255
    assert next_silence(Bounds(0, 15 * SECOND), SETTING) == 10 * SECOND
    assert next_silence(Bounds(100 * SECOND, 110 * SECOND), SETTING) is None
    assert next_silence(Bounds(100 * SECOND, 111 * SECOND), SETTING) == 105_356_537
    assert next_silence(Bounds(291 * SECOND), SETTING) is None
    assert next_silence(Bounds(0, 10 * SECOND), SETTING) is None


@given(st.integers(0, 300), st.one_of(st.none(), st.integers(1, 300)), st.integers(1, 60))
def test_a_silence_lies_between_what_is_known(at_least: int, more: int | None, resolution: int) -> None:
    known = Bounds(at_least * SECOND, None if more is None else (at_least + more) * SECOND)
    setting = Setting(FIRST, SECOND_SOCKET, SERVER, resolution=resolution * SECOND)
    silence = next_silence(known, setting)
    if silence is not None:
        assert setting.shortest <= silence
        assert known.at_least < silence < (known.at_most or setting.longest)


# With hand-made answers.


class Searching:
    """A search with hand-made answers."""

    def __init__(self) -> None:
        self.core = LifetimeSearch(SETTING, Random(1))
        self.now: Instant = 0
        self.asked: list[SendDatagram] = []
        self.reports: list[LifetimeEffect] = []
        self._note(self.core.handle(LifetimeWanted(), 0))

    def answer(
        self,
        to: SendDatagram,
        at: Address,
        by: Address = SERVER,
        as_class: MessageClass = MessageClass.SUCCESS,
        mapped: Address = MAPPED,
    ) -> None:
        attribute = XorMappedAddress(mapped) if as_class is MessageClass.SUCCESS else ErrorCode(420)
        data = encode(Message(as_class, decode(to.data).transaction, (attribute,)))
        self._note(self.core.handle(DatagramReceived(at, by, data), self.now))

    def wake_to(self, at: Instant) -> None:
        while self.core.deadline <= at:
            self.now = self.core.deadline
            self._note(self.core.handle(WAKE, self.now))

    def begun(self) -> tuple[SendDatagram, SendDatagram]:
        """Answer the first question; return the two that follow."""
        self.answer(self.asked[-1], FIRST)
        reach, alive = self.asked[-2:]
        return reach, alive

    def _note(self, effects: Sequence[LifetimeEffect]) -> None:
        for effect in effects:
            if isinstance(effect, SendDatagram):
                self.asked.append(effect)
            else:
                self.reports.append(effect)

    @property
    def outcome(self) -> LifetimeOutcome:
        report = self.reports[-1]
        assert isinstance(report, ReportLifetime)
        return report.outcome


def test_the_second_socket_asks_for_an_answer_at_the_first_ones_mapping() -> None:
    """RFC 5780, section 4.6."""
    searching = Searching()
    (first,) = searching.asked
    assert (first.local, first.remote, decode(first.data).attributes) == (FIRST, SERVER, ())
    reach, alive = searching.begun()
    assert {(each.local, each.remote) for each in (reach, alive)} == {(SECOND_SOCKET, SERVER)}
    assert decode(reach.data).get(ResponsePort) == ResponsePort(MAPPED.port)
    assert decode(alive.data).attributes == ()


def test_a_mapping_is_refreshed_before_each_silence() -> None:
    searching = Searching()
    reach, _ = searching.begun()
    searching.answer(reach, FIRST)
    assert searching.asked[-1].local == FIRST
    searching.answer(searching.asked[-1], FIRST)
    asked = len(searching.asked)
    searching.wake_to(54 * SECOND)
    assert len(searching.asked) == asked, "silence"
    searching.wake_to(55 * SECOND)
    assert [each.local for each in searching.asked[asked:]] == [SECOND_SOCKET, SECOND_SOCKET]


def test_a_silent_server_ends_the_search_at_once() -> None:
    searching = Searching()
    searching.wake_to(HOUR)
    assert (searching.outcome, searching.now, len(searching.asked)) == (LifetimeOutcome.NO_ANSWER, 5_500_000, 4)
    assert searching.core.deadline == NEVER


def refuses(searching: Searching, reach: SendDatagram, alive: SendDatagram) -> None:
    searching.answer(reach, SECOND_SOCKET, as_class=MessageClass.ERROR)


def ignores(searching: Searching, reach: SendDatagram, alive: SendDatagram) -> None:
    searching.answer(reach, SECOND_SOCKET)


def answers_elsewhere(searching: Searching, reach: SendDatagram, alive: SendDatagram) -> None:
    searching.answer(alive, SECOND_SOCKET)


def is_gone(searching: Searching, reach: SendDatagram, alive: SendDatagram) -> None:
    pass


@pytest.mark.parametrize(
    ("server", "outcome"),
    [
        (refuses, LifetimeOutcome.REFUSED),
        (ignores, LifetimeOutcome.REFUSED),
        (answers_elsewhere, LifetimeOutcome.UNREACHABLE),
        (is_gone, LifetimeOutcome.NO_ANSWER),
    ],
)
def test_what_shows_at_once_is_no_lifetime(
    server: Callable[[Searching, SendDatagram, SendDatagram], None], outcome: LifetimeOutcome
) -> None:
    searching = Searching()
    server(searching, *searching.begun())
    searching.wake_to(HOUR)
    assert searching.outcome is outcome
    assert searching.now < 10 * SECOND


def test_a_line_that_is_down_when_the_silence_ends_is_not_taken_for_a_mapping_that_is_gone() -> None:
    searching = Searching()
    reach, _ = searching.begun()
    searching.answer(reach, FIRST)
    searching.answer(searching.asked[-1], FIRST)
    searching.wake_to(HOUR)
    assert searching.reports == [ReportLifetime(FIRST, LifetimeOutcome.NO_ANSWER, Bounds(), 0)]


def test_a_port_that_the_second_socket_has_been_given_is_gone_from_the_first() -> None:
    searching = Searching()
    reach, _ = searching.begun()
    searching.answer(reach, FIRST)
    searching.answer(searching.asked[-1], FIRST)
    searching.wake_to(60 * SECOND)
    searching.answer(
        next(each for each in searching.asked[-2:] if ResponsePort(50000) in decode(each.data).attributes),
        SECOND_SOCKET,
    )
    (progress,) = searching.reports
    assert isinstance(progress, ReportSilence)
    assert not progress.survived


def test_whoever_oversleeps_has_tried_a_longer_silence() -> None:
    searching = Searching()
    reach, _ = searching.begun()
    searching.answer(reach, FIRST)
    searching.answer(searching.asked[-1], FIRST)
    searching.now = 200 * SECOND
    searching._note(searching.core.handle(WAKE, searching.now))
    searching.answer(searching.asked[-2], FIRST)
    (progress,) = searching.reports
    assert isinstance(progress, ReportSilence)
    assert (progress.silence, progress.known.at_least) == (200 * SECOND, 200 * SECOND)


def test_strangers_and_other_sockets_are_not_believed() -> None:
    searching = Searching()
    (first,) = searching.asked
    searching.answer(first, FIRST, by=Address(SERVER.host, 1))
    searching.answer(first, SECOND_SOCKET)
    searching.answer(first, Address("10.0.1.2", 9))
    searching._note(searching.core.handle(DatagramReceived(FIRST, SERVER, b"noise"), 0))
    searching._note(searching.core.handle(DatagramReceived(FIRST, SERVER, first.data), 0))
    assert (len(searching.asked), searching.reports) == (1, [])
    searching.answer(first, FIRST, mapped=Address(MAPPED.host, 0))
    assert searching.outcome is LifetimeOutcome.NO_ANSWER


def test_one_search_at_a_time_and_another_afterwards() -> None:
    searching = Searching()
    with pytest.raises(LocalError, match="under way"):
        searching.core.handle(LifetimeWanted(), 0)
    searching.wake_to(HOUR)
    effects = searching.core.handle(LifetimeWanted(), searching.now)
    assert [type(each) for each in effects] == [SendDatagram]


@pytest.mark.parametrize(
    "setting",
    [
        Setting(FIRST, SECOND_SOCKET, Address("stun.example.org", 3478)),
        Setting(FIRST, FIRST, SERVER),
        Setting(FIRST, SECOND_SOCKET, SERVER, shortest=0),
        Setting(FIRST, SECOND_SOCKET, SERVER, shortest=300 * SECOND),
        Setting(FIRST, SECOND_SOCKET, SERVER, resolution=1),
        Setting(FIRST, SECOND_SOCKET, SERVER, silences_max=0),
    ],
)
def test_a_setting_that_leads_nowhere_is_refused(setting: Setting) -> None:
    with pytest.raises(LocalError):
        LifetimeSearch(setting, Random(1))
