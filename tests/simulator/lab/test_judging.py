"""Every rule of a lab finds what was planted for it, and nothing where nothing is wrong."""

from pathlib import Path

import pytest

from simulator.checkers import Checker
from simulator.events import HostStarted
from simulator.lab import judging
from simulator.lab.gathering import LabWorld
from simulator.lab.judging import (
    ApplicationsHeardTheSame,
    CoresDoTheSameAgain,
    LabFinished,
    NothingReadableAtRelays,
    ProgramsEndWhenTold,
)
from simulator.lab.load import Heard, Reply
from simulator.lab.plan import Served, plan_of
from simulator.lab.run import Ran
from simulator.spec.draws import PROMPT_MARKER
from simulator.trace import Entry
from teale_proto.contract import SECOND, Value
from teale_proto.effects import Path as PathKind
from teale_proto.effects import ReportFailed, ReportFinished, SendData
from teale_proto.inputs import Ask, DataReceived, Failure, NodeId, Task
from tests.simulator.lab.runs import SPEC, ran

NODE = NodeId("ab" * 32)
ASK = Ask("r", Task.CHAT, "m", b"{}", True, 10 * SECOND)
FINISHED = ReportFinished("r", NODE, PathKind.RELAY, 1, 1, 1)
FAILED = ReportFailed("r", Failure.TIMEOUT, "", 1)


def judged(checker: Checker, *values: Value, now: int = 60 * SECOND) -> list[str]:
    for number, value in enumerate(values):
        if checker.kinds is None or type(value) in checker.kinds:
            checker.observe(Entry(number, "a-0", value))
    checker.finish(now)
    return [violation.what for violation in checker.violations]


def reply(heard: Heard, ended_at: int = 5) -> Reply:
    return Reply("r", "a-0", heard, 0, ended_at, error="so it was said")


@pytest.mark.parametrize(
    ("values", "heard", "agrees"),
    [
        ((ASK, FINISHED), Heard.ANSWERED, True),
        ((ASK, FAILED), Heard.REFUSED, True),
        ((ASK,), Heard.CUT_OFF, True),
        ((ASK, FINISHED), Heard.CUT_OFF, True),
        ((), Heard.NOT_ASKED, True),
        ((ASK, FAILED), Heard.ANSWERED, False),
        ((ASK,), Heard.ANSWERED, False),
        ((), Heard.ANSWERED, False),
        ((ASK, FINISHED), Heard.REFUSED, False),
        ((ASK, FINISHED), Heard.NOT_ASKED, False),
        ((), Heard.CUT_OFF, False),
    ],
)
def test_an_application_heard_what_the_journal_says(values: tuple[Value, ...], heard: Heard, agrees: bool) -> None:
    found = judged(ApplicationsHeardTheSame([reply(heard)]), *values)
    assert (not found) is agrees, found


def test_what_was_not_over_in_time_says_nothing() -> None:
    assert not judged(ApplicationsHeardTheSame([reply(Heard.ANSWERED, 61 * SECOND)]), ASK)


def test_relays_are_sent_nothing_readable() -> None:
    def found(data: bytes, host: str = "relay-0") -> int:
        checker = NothingReadableAtRelays(["relay-0"])
        checker.observe(Entry(1, host, DataReceived(2, b"sealed")))
        checker.observe(Entry(1, host, SendData(4, data)))
        return checker.count

    assert found(b"..." + PROMPT_MARKER.encode()) == 1
    assert found(b"sealed as well") == 0
    assert found(PROMPT_MARKER.encode(), host="a-0") == 0


def test_a_request_is_overdue_a_moment_later_than_in_virtual_time() -> None:
    assert not judged(LabFinished(), ASK, now=10 * SECOND + 1)
    assert judged(LabFinished(), ASK, now=14 * SECOND)


def test_programs_that_end_by_themselves_and_cores_that_differ_are_violations() -> None:
    world = LabWorld(Ran(plan_of(SPEC, 1), 0))
    world.ran.failures.append("node-1 ended by itself")
    world.unread.append("node-2.journal: it is damaged")
    world.differences.append("step 7")
    assert judged(ProgramsEndWhenTold(world)) == ["node-1 ended by itself", "node-2.journal: it is damaged"]
    assert judged(CoresDoTheSameAgain(world)) == ["step 7"]


def test_a_run_is_judged_by_what_its_journals_say(tmp_path: Path) -> None:
    world = LabWorld(ran(tmp_path))
    checkers = judging.watch(world)
    world.play()
    world.finish()
    for checker in checkers:
        checker.finish(60 * SECOND)
    broken = {type(checker).__name__ for checker in checkers if checker.count}
    # A third node is there whose journal is missing, and the relay goes, which nobody planned.
    assert {"Identities", "AnswersAreHonest", "TheHealthyAreKept"} <= broken
    kept = {
        "CoresDoTheSameAgain",
        "ProgramsEndWhenTold",
        "ConnectionsEndOnce",
        "NothingReadableAtRelays",
        "LabFinished",
    }
    assert not broken & kept


def test_numbered_words_are_counted_where_model_servers_say_them() -> None:
    described = Ran(plan_of(SPEC, 1, served=Served.DESCRIBED), 0)
    builtin = Ran(plan_of(SPEC, 1), 0)
    rules = [{checker.rule for checker in judging.watch(LabWorld(run))} for run in (described, builtin)]
    assert rules[0] - rules[1] == {"every answer came in order, without a gap and without a double"}


def test_the_rules_that_read_cores_are_among_them(tmp_path: Path) -> None:
    world = LabWorld(ran(tmp_path))
    seen = []
    world.trace.subscribe(lambda entry: seen.append(world.hosts[entry.host].core is not None), (HostStarted,))
    names = {type(checker).__name__ for checker in judging.watch(world)}
    world.play()
    assert {"HeartbeatsAreAnswered", "AllHaveMet", "NothingGrows", "Identities"} <= names
    assert seen == [True, True, True]
