"""Two punches that talk to each other in memory, and strangers who try to join in.

The wire between them is a function that says whether a datagram arrives; what NATs do with them is tested in
`tests.simulator.test_nat_grid`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.rng import SplitMix64
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Duration, Instant, Value
from teale_proto.effects import CloseSockets, OpenSockets, SendDatagram
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Address, DatagramReceived, SocketsOpened
from teale_proto.nat.allocation import Allocation, Pattern
from teale_proto.nat.kinds import Behaviour, Filtering, Mapping
from teale_proto.nat.probe import OPENER, SIZES, Probe, ProbeKeys, ProbeKind, TakenOnce
from teale_proto.nat.punch import Punch, PunchSetting
from teale_proto.nat.punch_messages import (
    ATTEMPTS_MAX,
    CANDIDATES_MAX,
    PORTS_FORETOLD,
    Accept,
    Begin,
    Candidate,
    Opened,
    Propose,
    PunchCancelled,
    PunchInput,
    PunchStarted,
    ReportOpened,
    ReportRelayed,
    SendSignal,
    SignalReceived,
)
from teale_proto.nat.punch_states import ON, PunchState
from teale_proto.nat.race import HEARD_MAX, PAIRS_MAX
from teale_proto.nat.strategy import CandidateKind, Effort, PlanKind, Side

SECRET = bytes(range(32))
A, B = Address("203.0.113.1", 1000), Address("203.0.113.2", 2000)
VICTIM = Address("198.51.100.7", 53)
SERVER = Address("192.0.2.1", 3478)
LATENCY: Duration = 30 * MILLISECOND
EFFORT = Effort(sockets=8, birthday_for=2 * SECOND)

EASY = Behaviour(False, A, True, Mapping(0), False, Filtering(2))
HARD = Behaviour(False, A, True, Mapping(2), True, Filtering(2))
BLOCKED = Behaviour(udp_blocked=True)


class Step(NamedTuple):
    now: Instant
    event: PunchInput
    effects: list[Value]


def setting(
    ours: Address, behaviour: Behaviour, *, initiator: bool, allocation: Allocation | None = None
) -> PunchSetting:
    mapped = Behaviour(
        behaviour.udp_blocked, ours, True, behaviour.mapping, behaviour.mapping_varies, behaviour.filtering
    )
    side = Side(mapped, allocation, birthday_allowed=True)
    return PunchSetting(initiator, (ours,), side, (Candidate(CandidateKind.REFLEXIVE, ours),), SERVER, EFFORT)


class Table:
    """Two punches, the wire between them, and everything that happened."""

    def __init__(self, *settings_: PunchSetting, arrives: Callable[[SendDatagram], bool] = lambda _: True) -> None:
        self.now: Instant = 0
        self.settings = settings_ or (setting(A, EASY, initiator=True), setting(B, EASY, initiator=False))
        self.cores = [self.make(number) for number in (0, 1)]
        self.journals: tuple[list[Step], list[Step]] = ([], [])
        self.arrives = arrives
        self.vouched: tuple[str | None, str | None] = (A.host, B.host)
        self.sockets_max = 256
        self._queue: list[tuple[Instant, int, int, PunchInput]] = []
        self._serial = 0

    def make(self, number: int) -> Punch:
        return Punch(self.settings[number], SECRET, SplitMix64(number))

    def feed(self, number: int, event: PunchInput) -> Sequence[Value]:
        effects: list[Value] = [*self.cores[number].handle(event, self.now)]
        self.journals[number].append(Step(self.now, event, effects))
        for effect in effects:
            other = self.settings[1 - number].locals[0]
            match effect:
                case SendDatagram() if effect.remote.host == other.host and self.arrives(effect):
                    self._later(LATENCY, 1 - number, DatagramReceived(effect.remote, effect.local, effect.data))
                case SendSignal():
                    self._later(LATENCY, 1 - number, SignalReceived(effect.signal, self.vouched[number]))
                case OpenSockets():
                    ports = tuple(range(40000, 40000 + min(effect.count, self.sockets_max)))
                    self._later(0, number, SocketsOpened(effect.request, ports))
        return effects

    def _later(self, after: Duration, number: int, event: PunchInput) -> None:
        self._serial += 1
        self._queue.append((self.now + after, self._serial, number, event))

    def run(self, until: Instant) -> None:
        while True:
            at, _, number, event = min(self._queue, default=(NEVER, 0, 0, WAKE))
            woken = min((0, 1), key=lambda each: self.cores[each].deadline)
            deadline = self.cores[woken].deadline
            if min(at, deadline) > until:
                self.now = until
                return
            if at <= deadline:
                self._queue.remove(min(self._queue))
                self.now = max(self.now, at)
                self.feed(number, event)
            else:
                self.now = max(self.now, deadline)
                self.feed(woken, WAKE)

    def start(self, until: Instant = 60 * SECOND) -> "Table":
        self.feed(0, PunchStarted())
        self.run(until)
        return self

    def said(self, number: int, *kinds: type[Value]) -> list[tuple[Instant, Value]]:
        return [(step.now, each) for step in self.journals[number] for each in step.effects if isinstance(each, kinds)]

    def datagrams(self, number: int) -> list[tuple[Instant, SendDatagram]]:
        said = self.said(number, SendDatagram)
        return [(at, each) for at, each in said if isinstance(each, SendDatagram)]

    def reports(self, number: int) -> list[Value]:
        return [report for _, report in self.said(number, ReportOpened, ReportRelayed)]


def nothing_arrives(_: SendDatagram) -> bool:
    return False


def opened_at(table: Table, number: int) -> tuple[Address, Address]:
    (report,) = table.reports(number)
    assert isinstance(report, ReportOpened)
    return report.local, report.remote


def keys(*, initiator: bool, secret: bytes = SECRET) -> ProbeKeys:
    return ProbeKeys(secret, bytes(32), initiator=initiator)


def test_both_sides_end_up_with_the_same_pair() -> None:
    table = Table().start()
    assert opened_at(table, 0) == (A, B)
    assert opened_at(table, 1) == (B, A)


def test_both_begin_half_a_round_trip_after_the_sync_message() -> None:
    table = Table().start()
    begun = [next(at for at, sent in table.datagrams(number) if sent.data != OPENER) for number in (0, 1)]
    (sync_at, _) = next(entry for entry in table.said(0, SendSignal) if isinstance(entry[1].signal, Begin))  # type: ignore[attr-defined]
    assert begun == [sync_at + LATENCY] * 2


def test_openers_die_on_the_way_and_say_nothing() -> None:
    table = Table().start()
    openers = [sent for _, sent in table.datagrams(0) if sent.hop_limit is not None]
    assert [sent.data for sent in openers] == [OPENER]
    core = Table().start(LATENCY * 3).cores[1]
    assert core.handle(DatagramReceived(B, A, OPENER), SECOND) == []


def test_after_three_attempts_it_stays_relayed_and_says_so_once() -> None:
    table = Table(arrives=nothing_arrives).start()
    for number in (0, 1):
        (report,) = table.reports(number)
        assert isinstance(report, ReportRelayed)
        assert report.attempts == ATTEMPTS_MAX
        assert table.cores[number].deadline == NEVER
    proposals = [each.signal for _, each in table.said(0, SendSignal) if isinstance(each.signal, Propose)]  # type: ignore[attr-defined]
    assert [proposal.attempt for proposal in proposals] == [1, 2, 3]


def test_a_late_answer_upgrades_a_relayed_path() -> None:
    table = Table(arrives=nothing_arrives).start()
    probe = next(each for _, each in table.datagrams(0) if len(each.data) == SIZES[ProbeKind.PROBE])
    answers = table.feed(1, DatagramReceived(B, A, probe.data))
    assert [len(each.data) for each in answers] == [SIZES[ProbeKind.ANSWER]]  # type: ignore[attr-defined]
    table.feed(0, DatagramReceived(A, B, answers[0].data))  # type: ignore[attr-defined]
    table.run(table.now + SECOND)
    assert [isinstance(table.reports(number)[-1], ReportOpened) for number in (0, 1)] == [True, True]


def test_without_hope_nothing_is_sent_at_all() -> None:
    table = Table(setting(A, BLOCKED, initiator=True), setting(B, EASY, initiator=False)).start()
    for number in (0, 1):
        (report,) = table.reports(number)
        assert isinstance(report, ReportRelayed)
        assert (report.plan and report.plan.kind, report.attempts) == (PlanKind.RELAY, 0)
        assert table.datagrams(number) == []


def test_a_peer_that_never_answers_leaves_the_path_relayed() -> None:
    table = Table()
    table.feed(0, PunchStarted())
    core = table.cores[0]
    assert core.handle(WAKE, core.deadline) == [ReportRelayed(None, 1)]
    assert core.deadline == NEVER


# The birthday.


def birthday_table(**more: Callable[[SendDatagram], bool]) -> Table:
    return Table(setting(A, EASY, initiator=True), setting(B, HARD, initiator=False), **more)


def test_a_birthday_is_paced_and_bounded_and_closes_what_it_opened() -> None:
    table = birthday_table(arrives=nothing_arrives).start()
    guesses = table.datagrams(0)
    assert 3 * EFFORT.guesses == len(guesses)
    for number in (0, 1):
        sent = [at for at, _ in table.datagrams(number)]
        assert all(late - early >= SECOND for early, late in zip(sent, sent[EFFORT.probes_per_second :], strict=False))
    opened = [each.count for _, each in table.said(1, OpenSockets)]  # type: ignore[attr-defined]
    closed = [len(each.ports) for _, each in table.said(1, CloseSockets)]  # type: ignore[attr-defined]
    assert opened == closed == [EFFORT.sockets] * 3
    assert {each.remote.host for _, each in guesses} == {B.host}


def test_a_hit_keeps_its_socket_and_closes_the_others() -> None:
    table = birthday_table(arrives=lambda sent: sent.remote.port in (A.port, *range(40000, 40008)))
    # The ports that the test gives are in the range that is guessed: with luck that the seed decides one is hit,
    # or a packet from them is, as nothing filters here.
    table.start()
    local, remote = opened_at(table, 1)
    assert (remote, opened_at(table, 0)) == (A, (A, local))
    assert local.port in range(40000, 40008)
    (closing,) = [each for _, each in table.said(1, CloseSockets)]
    assert local.port not in closing.ports  # type: ignore[attr-defined]
    assert len(closing.ports) == EFFORT.sockets - 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("vouched", [None, VICTIM.host])
def test_nothing_in_bulk_goes_where_the_relay_has_not_seen_the_peer(vouched: str | None) -> None:
    table = birthday_table(arrives=nothing_arrives)
    table.vouched = (vouched, vouched)
    table.start()
    assert table.datagrams(0) == table.said(1, OpenSockets) == []


def test_where_no_socket_can_be_opened_it_goes_on_without() -> None:
    table = birthday_table(arrives=nothing_arrives)
    table.sockets_max = 0
    table.start()
    assert isinstance(table.reports(1)[-1], ReportRelayed)


def test_a_cancelled_punch_closes_its_sockets_and_sends_no_more() -> None:
    table = birthday_table(arrives=nothing_arrives)
    table.feed(0, PunchStarted())
    table.run(SECOND)
    for number in (0, 1):
        table.feed(number, PunchCancelled())
        assert table.cores[number].deadline == NEVER
        assert table.feed(number, PunchCancelled()) == []
    assert len(table.said(1, CloseSockets)) == 1
    # Sockets that come after that are closed again.
    assert table.feed(1, SocketsOpened(9, (7,))) == [CloseSockets(B.host, (7,))]


def test_a_nat_that_counts_is_asked_right_before_each_attempt() -> None:
    counting = setting(B, HARD, initiator=False, allocation=Allocation(Pattern.SEQUENTIAL, 1))
    table = Table(setting(A, EASY, initiator=True), counting, arrives=nothing_arrives).start()
    asked = [each for _, each in table.datagrams(1) if each.remote == SERVER]
    assert asked
    assert all(each.local.port == 40000 for each in asked)


# Strangers.


def waiting() -> Table:
    """Return two punches in the middle of an attempt, of which nothing has arrived."""
    table = Table(arrives=nothing_arrives)
    table.feed(0, PunchStarted())
    table.run(500 * MILLISECOND)
    return table


STRANGERS = {
    "another secret": keys(initiator=True, secret=bytes(32)).seal(Probe(ProbeKind.PROBE, 1, b"t" * 8)),
    "our own, sent back": keys(initiator=False).seal(Probe(ProbeKind.PROBE, 1, b"t" * 8)),
    "a changed bit": bytes([*keys(initiator=True).seal(Probe(ProbeKind.PROBE, 1, b"t" * 8))[:-1], 0]),
    "cut short": keys(initiator=True).seal(Probe(ProbeKind.PROBE, 1, b"t" * 8))[:-1],
    "nothing": b"",
    "no such kind": b"\x09\x07" + bytes(38),
}


@pytest.mark.parametrize("data", STRANGERS.values(), ids=STRANGERS)
def test_what_the_peer_did_not_make_for_us_is_ignored(data: bytes) -> None:
    table = waiting()
    assert table.feed(1, DatagramReceived(B, A, data)) == []
    table.run(60 * SECOND)
    assert isinstance(table.reports(1)[0], ReportRelayed)


def test_a_probe_of_one_session_means_nothing_in_another() -> None:
    table = waiting()
    core = Punch(table.settings[1], bytes(32), SplitMix64(3))
    for _, sent in table.datagrams(0):
        assert core.handle(DatagramReceived(B, A, sent.data), 0) == []


def test_a_copied_probe_is_answered_once() -> None:
    table, data = waiting(), keys(initiator=True).seal(Probe(ProbeKind.PROBE, 10**6, b"t" * 8))
    assert len(table.feed(1, DatagramReceived(B, A, data))) == 1
    assert table.feed(1, DatagramReceived(B, A, data)) == []
    assert table.feed(1, DatagramReceived(B, VICTIM, data)) == []


def test_a_forged_source_gets_less_than_was_spent_on_it_and_no_more_later() -> None:
    table, spent = waiting(), 0
    for number in range(100):
        data = keys(initiator=True).seal(Probe(ProbeKind.PROBE, 10**6 + number, b"t" * 8))
        spent += len(data)
        table.feed(1, DatagramReceived(B, VICTIM, data))
    table.run(60 * SECOND)
    got = [each for _, each in table.datagrams(1) if each.remote == VICTIM]
    assert len(got) == 100
    assert sum(len(each.data) for each in got) < spent
    assert SIZES[ProbeKind.PROBE] > SIZES[ProbeKind.ANSWER] > SIZES[ProbeKind.CONFIRM]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", [ProbeKind.ANSWER, ProbeKind.CONFIRM])
def test_even_the_peer_cannot_name_a_path_that_it_is_not_at(number: int, kind: ProbeKind) -> None:
    """It has our token for its own address, and claims to be at another."""
    table = waiting()
    sent = [each for _, each in table.datagrams(number)]
    probe = next(each for each in sent if len(each.data) == SIZES[ProbeKind.PROBE])
    ours = keys(initiator=number == 0)
    token = probe.data[6:14]
    assert ours.seal(Probe(ProbeKind.PROBE, 1, token))[6:14] == token
    theirs, local = keys(initiator=number == 1), (A, B)[number]
    data = theirs.seal(Probe(kind, 10**6, b"t" * 8 if kind is ProbeKind.ANSWER else b"", token))
    assert table.feed(number, DatagramReceived(local, VICTIM, data)) == []
    table.run(60 * SECOND)
    assert not [each for _, each in table.datagrams(number) if each.remote == VICTIM]
    assert isinstance(table.reports(number)[-1], ReportRelayed)


def test_what_a_peer_can_make_us_remember_is_bounded() -> None:
    table = waiting()
    for number in range(500):
        data = keys(initiator=True).seal(Probe(ProbeKind.PROBE, 10**6 + number, b"t" * 8))
        table.feed(1, DatagramReceived(B, Address(A.host, 1 + number), data))
    race = table.cores[1]._race
    assert (len(race._heard), len(race._pairs)) == (HEARD_MAX, PAIRS_MAX)


def test_a_window_takes_each_number_once() -> None:
    window = TakenOnce()
    assert [window.take(number) for number in (5, 5, 3, 4, 3, 2000, 1500, 1500, 5)] == [
        True, False, True, True, False, True, True, False, False,
    ]  # fmt: skip
    assert window.take(2**32 - 1)
    assert not window.take(2000)


NOWHERE = ("0.0.0.0", "224.0.0.1", "127.0.0.1", "255.255.255.255", "::", "ff02::1", "::1", "example.org", "")


def test_candidates_that_nobody_may_be_sent_to_are_left_out() -> None:
    bad = tuple(Candidate(CandidateKind.REFLEXIVE, Address(host, 9)) for host in NOWHERE[:CANDIDATES_MAX])
    more: tuple[Candidate, ...] = (Candidate(CandidateKind.REFLEXIVE, Address(NOWHERE[-1], 9)),)
    more += tuple(Candidate(CandidateKind.REFLEXIVE, Address(B.host, port)) for port in (0, -1, 65536))
    side = setting(B, EASY, initiator=False).side
    for candidates in (bad, more):
        table = Table()
        table.feed(0, PunchStarted())
        effects = [
            *table.feed(0, SignalReceived(Accept(1, side, candidates), B.host)),
        ]
        assert not [each for each in effects if isinstance(each, SendDatagram)]


def side_of(address: Address) -> Side:
    return setting(address, EASY, initiator=False).side


ONE = Candidate(CandidateKind.REFLEXIVE, A)
BAD_SIGNALS = {
    "attempt 0": Propose(0, side_of(A), (ONE,)),
    "attempt beyond the last": Propose(ATTEMPTS_MAX + 1, side_of(A), (ONE,)),
    "too many candidates": Propose(1, side_of(A), (ONE,) * (CANDIDATES_MAX + 1)),
    "too many ports": Propose(1, side_of(A), (ONE,), (1,) * (PORTS_FORETOLD + 1)),
    "port 0": Propose(1, side_of(A), (ONE,), (0,)),
    "an answer to the responder": Accept(1, side_of(A), (ONE,)),
    "sync before a proposal": Begin(1, 0),
    "sync of another attempt": Begin(2, 0),
    "opened before anything": Opened(b"t" * 8),
    "a short token": Opened(b""),
}


@pytest.mark.parametrize("signal", BAD_SIGNALS.values(), ids=BAD_SIGNALS)
def test_signals_out_of_bounds_or_out_of_turn_change_nothing(signal: Propose | Accept | Begin | Opened) -> None:
    core = Punch(setting(B, EASY, initiator=False), SECRET, SplitMix64(1))
    assert core.handle(SignalReceived(signal, A.host), 0) == []
    assert core.state is PunchState.IDLE


def test_a_repeated_sync_does_not_begin_an_attempt_again() -> None:
    table = waiting()
    signals = [each.signal for _, each in table.said(0, SendSignal) if isinstance(each, SendSignal)]
    begin = next(each for each in signals if isinstance(each, Begin))
    table.run(3 * SECOND)
    sent = len(table.datagrams(1))
    for _ in range(50):
        table.feed(1, SignalReceived(begin, A.host))
    assert len(table.datagrams(1)) == sent


def test_secrets_are_not_shown() -> None:
    shown = repr(keys(initiator=True)) + repr(Table().cores[0])
    assert SECRET.hex() not in shown
    assert str(SECRET) not in shown


# The laws.

TABLES = {
    "opened": lambda: Table().start(),
    "relayed": lambda: Table(arrives=nothing_arrives).start(),
    "birthday": lambda: birthday_table(arrives=nothing_arrives).start(),
    "counting": lambda: Table(
        setting(A, EASY, initiator=True),
        setting(B, HARD, initiator=False, allocation=Allocation(Pattern.SEQUENTIAL, 1)),
        arrives=nothing_arrives,
    ).start(),
}
every_table = pytest.mark.parametrize("name", TABLES)
both = pytest.mark.parametrize("number", [0, 1])


@every_table
@both
def test_laws_1_3_4_5_and_7(name: str, number: int) -> None:
    table = TABLES[name]()
    core, steps = table.make(number), table.journals[number]
    assert len(steps) > 3
    for now, event, effects in steps:
        if core.deadline > now:
            assert core.handle(WAKE, now) == []
        assert core.handle(event, now) == effects
        if event == WAKE:
            assert core.deadline > now
        assert all(type(each.data) is bytes for each in effects if isinstance(each, SendDatagram))
    with pytest.raises(LocalError):
        core.handle(WAKE, steps[-1].now - 1)


@every_table
@both
def test_law_2_an_illegal_command_changes_nothing(name: str, number: int) -> None:
    table = TABLES[name]()
    core = table.make(number)
    for now, event, effects in table.journals[number]:
        if number or core.state is not PunchState.IDLE:
            with pytest.raises(LocalError):
                core.handle(PunchStarted(), now)
        assert core.handle(event, now) == effects


@both
def test_law_2_nothing_that_comes_in_makes_it_raise(number: int) -> None:
    table = TABLES["birthday"]()
    steps = table.journals[number]
    signals = st.one_of(
        st.builds(Propose, st.integers(0, 4), st.just(side_of(A)), st.lists(st.just(ONE), max_size=9).map(tuple)),
        st.builds(Accept, st.integers(0, 4), st.just(side_of(B)), st.lists(st.just(ONE), max_size=9).map(tuple)),
        st.builds(Begin, st.integers(0, 4), st.integers(-(2**70), 2**70)),
        st.builds(Opened, st.binary(max_size=9)),
    )
    own = keys(initiator=number == 1)
    probes = st.builds(
        lambda kind, count, token: own.seal(Probe(kind, count, token, token if kind is ProbeKind.ANSWER else b"")),
        st.sampled_from(ProbeKind),
        st.integers(0, 2**32 - 1),
        st.binary(min_size=8, max_size=8),
    )
    events = st.one_of(
        st.builds(SignalReceived, signals, st.sampled_from([None, A.host, B.host])),
        st.builds(DatagramReceived, st.sampled_from([A, B]), st.sampled_from([A, B, VICTIM]), probes | st.binary()),
        st.builds(SocketsOpened, st.integers(0, 3), st.sampled_from([(), (7,), (7, 8)])),
    )

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.integers(0, min(len(steps), 120)), st.lists(events, max_size=8))
    def garbled(length: int, more: list[PunchInput]) -> None:
        core, now = table.make(number), 0
        for step in steps[:length]:
            core.handle(step.event, step.now)
            now = step.now
        for event in more:
            core.handle(event, now)
        for _ in range(5000):
            if core.deadline == NEVER:
                break
            now = max(now, core.deadline)
            core.handle(WAKE, now)
            assert core.deadline > now
        assert core.deadline == NEVER

    garbled()


def test_law_6_a_punch_that_hears_nothing_comes_to_an_end() -> None:
    table = Table()
    core = table.cores[0]
    core.handle(PunchStarted(), 0)
    while core.deadline != NEVER:
        effects = core.handle(WAKE, core.deadline)
    assert isinstance(effects[-1], ReportRelayed)


def test_the_state_table_leads_everywhere_and_nowhere_out_of_cancelled() -> None:
    assert {*ON.values()} | {PunchState.IDLE} == set(PunchState)
    assert not [state for state, _ in ON if state is PunchState.CANCELLED]


@pytest.mark.parametrize("secret", [b"", bytes(31)])
def test_a_secret_has_its_length(secret: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Punch(setting(A, EASY, initiator=True), secret, SplitMix64(1))
