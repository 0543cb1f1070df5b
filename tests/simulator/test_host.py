"""The driver of one core."""

from collections.abc import Sequence

import pytest

from simulator.events import CoreMisused, Crash, HostCrashed, HostStarted, HostStopped
from simulator.host import CoreError
from simulator.journal import replay
from teale_proto.contract import NEVER, SECOND, Instant, Value
from teale_proto.effects import CloseConnection, Connect, RelayState, ReportRelay, SendData, SendPing, SendText
from teale_proto.inputs import WAKE, Address, StopRequested, Woken
from tests.simulator.net.test_network import BOB, pair
from tests.simulator.toys import Diary, Order, Town, obey


def misuses(town: Town) -> list[str]:
    return [entry.value.what for entry in town.trace.tail if isinstance(entry.value, CoreMisused)]


class Alarm(Diary):
    """A core that wants to be woken at each of some instants."""

    def __init__(self, *instants: Instant) -> None:
        super().__init__()
        self._instants = list(instants)
        self.deadline = self._instants[0]

    def handle(self, event: Value, now: Instant) -> Sequence[Value]:
        while self._instants and self._instants[0] <= now:
            self._instants.pop(0)
        self.deadline = self._instants[0] if self._instants else NEVER
        return super().handle(event, now)


def living(town: Town, core: Diary) -> None:
    """Have a host drive `core`."""
    host, _ = town.add("alice", "10.0.0.1")
    host.crash(Crash.RESET)
    host.make_core = lambda rng, now: core
    host.start()


def test_a_core_is_woken_at_its_deadlines_and_at_no_other_time() -> None:
    town, core = Town(), Alarm(3, 5, 9)
    living(town, core)
    town.engine.run_until(SECOND)
    assert core.heard == [(3, WAKE), (5, WAKE), (9, WAKE)]


def test_a_deadline_that_moved_later_is_kept_and_one_that_moved_earlier_too() -> None:
    town, core = Town(), Diary()
    core.deadline = 100

    def answer(event: Value, now: Instant) -> Sequence[Value]:
        core.deadline = {0: 50, 10: 70, 70: NEVER}[now]
        return ()

    core._answer = answer
    living(town, core)
    town.hosts["alice"].feed(Order(()))
    town.engine.run_until(10)
    town.hosts["alice"].feed(Order(()))
    town.engine.run_until(SECOND)
    assert [at for at, event in core.heard if isinstance(event, Woken)] == [70]


def test_a_core_that_never_lets_time_go_on_is_found_out() -> None:
    town, core = Town(), Diary()
    core.deadline = 5
    living(town, core)
    with pytest.raises(CoreError, match="alice asks at 5 µs to be woken again at once"):
        town.engine.run_until(SECOND)


def test_an_error_in_a_core_says_where_and_when_and_keeps_its_cause() -> None:
    town = Town()

    def stumble(event: Value, now: Instant) -> Sequence[Value]:
        raise KeyError("gone")

    host, _ = town.add("alice", "10.0.0.1", stumble)
    with pytest.raises(CoreError, match="the core of alice raised at 0 µs on Woken: KeyError") as caught:
        host.feed(WAKE)
    assert isinstance(caught.value.__cause__, KeyError)


def test_effects_are_performed_in_order_and_reports_are_only_recorded() -> None:
    town = Town()
    town.add("alice", "10.0.0.1", obey)
    report = ReportRelay(RelayState.CONNECTED)
    town.order("alice", report, Connect(1, BOB))
    assert [entry.value for entry in town.trace.tail][-3:] == [
        Order((report, Connect(1, BOB))),
        report,
        Connect(1, BOB),
    ]
    assert misuses(town) == []


@pytest.mark.parametrize(
    ("effect", "what"),
    [
        (SendData(7, b""), "SendData on connection 7, which is not open"),
        (SendPing(7), "SendPing on connection 7, which is not open"),
        (CloseConnection(7, ""), "CloseConnection on connection 7, which does not exist"),
        (SendText(1, b""), "SendText on connection 1, which is a stream"),
        (SendPing(1), "SendPing on connection 1, which is a stream"),
        (Connect(1, BOB), "connection 1 is not a free odd number"),
        (Connect(4, BOB), "connection 4 is not a free odd number"),
        (Order(()), "no driver performs Order"),
    ],
)
def test_what_a_driver_cannot_do_is_held_against_the_core(effect: Value, what: str) -> None:
    town = Town()
    pair(town)
    town.order("alice", effect)
    assert misuses(town) == [what]


def test_a_dead_host_hears_nothing_and_is_not_woken() -> None:
    town, core = Town(), Diary()
    core.deadline = 10
    living(town, core)
    town.hosts["alice"].crash(Crash.VANISH)
    town.hosts["alice"].feed(WAKE)
    town.engine.run_until(SECOND)
    assert core.heard == []


def test_each_life_has_a_core_and_entropy_of_its_own() -> None:
    town = Town()
    host, _ = town.add("alice", "10.0.0.1")
    drawn = []

    def core(rng: object, now: Instant) -> Diary:
        drawn.append((now, rng.next64()))  # type: ignore[attr-defined]  # SplitMix64
        return Diary()

    host.make_core = core
    for _ in range(2):
        host.crash(Crash.RESET)
        town.engine.run_until(town.engine.now + 5)
        host.start()
    assert drawn == [(5, host.entropy(2).next64()), (10, host.entropy(3).next64())]
    assert drawn[0][1] != drawn[1][1]


def test_one_more_host_changes_no_others_entropy() -> None:
    alone, crowded = Town(), Town()
    host, _ = alone.add("alice", "10.0.0.1")
    crowded.add("aaron", "10.0.0.9")
    same, _ = crowded.add("alice", "10.0.0.1")
    assert host.entropy(1).randbytes(64) == same.entropy(1).randbytes(64)


def test_the_trace_tells_of_births_and_deaths() -> None:
    town = Town()
    host, _ = town.add("alice", "10.0.0.1", birth=(WAKE,))
    host.crash(Crash.VANISH)
    host.start()
    host.stop()
    assert [entry.value for entry in town.trace.tail] == [
        HostStarted(1),
        WAKE,
        HostCrashed(Crash.VANISH),
        HostStarted(2),
        WAKE,
        StopRequested(),
        HostStopped(),
    ]


def test_a_journal_replays_on_a_like_core_and_shows_where_another_differs() -> None:
    town = Town()
    pair(town)
    town.order("alice", SendData(1, b"x"))
    (steps,) = town.hosts["alice"].steps
    assert replay(steps, Diary(obey)) == []
    differences = replay(steps, Diary())
    assert len(differences) == 2
    assert differences[0].startswith("step 0 at 0 µs, Order: ()")


def test_a_host_without_a_network_reaches_nobody() -> None:
    town = Town()
    town.add("alice", "10.0.0.1", obey)
    town.hosts["alice"].machine.ports = ()
    town.order("alice", Connect(1, Address("10.0.0.1", 80)))
    town.engine.run_until(SECOND)
    assert misuses(town) == []
    assert town.trace.tail[-1].kind == "ConnectFailed"
