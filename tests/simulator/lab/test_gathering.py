"""From journals to the trace of one world: all that happened, in its order, with the cores as they were."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from msgspec.structs import replace

from simulator.events import HostCrashed, HostStarted, NatRebooted
from simulator.journals import read
from simulator.lab.gathering import LabWorld, name_in
from simulator.lab.plan import Role
from simulator.lab.results import Judged
from simulator.trace import Entry
from teale_proto.contract import NEVER, SECOND
from teale_proto.effects import PeerState, ReportFinished, ReportPeer
from teale_proto.inputs import Ask, ConnectionAccepted, DataReceived, MessagesReceived
from teale_proto.journal import Fed
from teale_proto.node import Node
from tests.proto.world import World
from tests.simulator.journals.lives import LIVES, Life, recorded
from tests.simulator.lab.runs import BEGAN, SPEC, program, ran


def played(world: LabWorld) -> list[Entry]:
    entries: list[Entry] = []
    world.trace.subscribe(entries.append)
    world.play()
    return entries


def test_the_journals_of_all_programs_become_one_trace_on_the_clock_of_the_lab(tmp_path: Path) -> None:
    world = LabWorld(ran(tmp_path))
    entries = played(world)
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
    started = [entry.host for entry in entries if isinstance(entry.value, HostStarted)]
    assert Counter(started) == Counter(("relay-0", "a-0", "b-0"))
    for name in ("relay-0", "a-0", "b-0"):
        mine = [entry for entry in entries if entry.host == name][1:]
        expected = read(tmp_path / f"{name}.journal").replayed().entries
        assert [type(entry.value) for entry in mine] == [type(entry.value) for entry in expected]
        assert mine[-1].at == expected[-1].at - world.ran.unix_zero
    world.finish()
    assert world.differences == world.unread == []


def test_what_was_before_zero_was_at_zero(tmp_path: Path) -> None:
    entries = played(LabWorld(ran(tmp_path)))
    assert min(entry.at for entry in entries) == 0
    first = next(step.now for step in read(tmp_path / "a-0.journal").steps() if isinstance(step, Fed))
    assert first < BEGAN


def test_whoever_watches_sees_the_cores_as_they_were(tmp_path: Path) -> None:
    world = LabWorld(ran(tmp_path))
    seen: list[int] = []

    def look(entry: Entry) -> None:
        host, report = world.hosts[entry.host], entry.value
        assert isinstance(report, ReportPeer)
        assert isinstance(host.core, Node)
        # Neither as it was at the beginning of its journal, nor as it is at the end.
        known = {peer.node_id for peer in host.core.peers()}
        assert (report.node in known) is (report.state is not PeerState.LOST)
        seen.append(host.clock.local(entry.at))

    world.trace.subscribe(look, (ReportPeer,))
    world.play()
    assert seen
    assert all(at >= BEGAN for at in seen)
    assert set(world.node_ids) == {"a-0", "b-0"}
    assert set(world.first_ids.values()) == {"a-0", "b-0"}


def test_a_host_that_was_killed_is_dead_from_its_last_word_on(tmp_path: Path) -> None:
    world = LabWorld(ran(tmp_path, killed={"b-0": 1}))
    entries = played(world)
    [death] = [entry for entry in entries if isinstance(entry.value, HostCrashed)]
    last = max(entry.at for entry in entries if entry.host == "b-0" and entry is not death)
    # The clock that stamped the kill may be a little off.
    assert death.at == last
    assert not world.hosts["b-0"].alive
    assert world.hosts["a-0"].alive


def test_a_program_that_was_started_again_has_another_life(tmp_path: Path) -> None:
    run = ran(tmp_path, killed={"b-0": 1})
    second = recorded(LIVES["node behind a relay, answering"], tmp_path / "b-0.second")
    lives = program("b-0", tmp_path, [tmp_path / "b-0.journal", second]).lives
    run.programs["b-0"].lives.append(lives[1])
    starts = [
        entry.value for entry in played(LabWorld(run)) if entry.host == "b-0" and type(entry.value) is HostStarted
    ]
    assert starts == [HostStarted(1), HostStarted(2)]


def test_the_trace_ends_with_the_time_of_the_lab_but_cores_are_tried_to_their_end(tmp_path: Path) -> None:
    short = replace(SPEC, lasts=0.01)
    world = LabWorld(ran(tmp_path, spec=short))
    entries = played(world)
    assert all(entry.at < 10_000 for entry in entries)
    steps = world.steps
    world.finish()
    assert world.steps > steps
    assert world.differences == []


def test_what_befell_the_internet_is_in_its_place(tmp_path: Path) -> None:
    run = ran(tmp_path)
    run.happened.append(Entry(5 * SECOND, "home site 0", NatRebooted()))
    entries = played(LabWorld(run))
    place = next(number for number, entry in enumerate(entries) if isinstance(entry.value, NatRebooted))
    assert entries[place - 1].at <= 5 * SECOND <= entries[place + 1].at


def test_a_journal_that_was_tampered_with_is_found_out(tmp_path: Path) -> None:
    run = ran(tmp_path)
    path = tmp_path / "a-0.journal"
    data = path.read_bytes()
    digests = [step.digest for step in read(path).steps() if isinstance(step, Fed) and step.digest]
    path.write_bytes(data.replace(digests[-1], bytes(len(digests[-1]))))
    world = LabWorld(run)
    world.play()
    world.finish()
    [difference] = world.differences
    assert difference.startswith("a-0.journal: step ")


@pytest.mark.parametrize("content", [b"", b"teale journal 1\n", b"something else altogether"])
def test_a_journal_that_cannot_be_read_is_named_and_the_rest_is_played(tmp_path: Path, content: bytes) -> None:
    run = ran(tmp_path)
    (tmp_path / "b-0.journal").write_bytes(content)
    world = LabWorld(run)
    assert played(world)
    assert [what.partition(":")[0] for what in world.unread] == ["b-0.journal"]


def test_a_program_that_was_killed_before_it_began_has_not_lived(tmp_path: Path) -> None:
    run = ran(tmp_path)
    (tmp_path / "b-0.journal").unlink()
    world = LabWorld(run)
    assert {entry.host for entry in played(world)} == {"a-0", "relay-0"}
    assert world.unread == []


def test_messages_that_came_in_together_are_entries_of_their_own(tmp_path: Path) -> None:
    accepted = next(each.event for each in read_relay(tmp_path) if isinstance(each.event, ConnectionAccepted))
    assert isinstance(accepted, ConnectionAccepted)
    together = MessagesReceived(accepted.connection, (b"{}", b"[]", b"1"))
    path = recorded(without_more(LIVES["relay"]), tmp_path / "together", first=(accepted, together))
    run = ran(tmp_path)
    run.programs["relay-0"] = program("relay-0", tmp_path, [path])
    heard = [entry.value for entry in played(LabWorld(run)) if type(entry.value) is DataReceived]
    mine = [value.data for value in heard if value.connection == accepted.connection]
    assert mine[:3] == [b"{}", b"[]", b"1"]


def read_relay(tmp_path: Path) -> list[Fed]:
    path = recorded(LIVES["relay"], tmp_path / "once")
    return [step for step in read(path).steps() if isinstance(step, Fed)]


def without_more(life: Life) -> Life:
    """Return a life in which nothing happens but what it is fed first."""
    nothing = cast("World", SimpleNamespace(journals={life.name: ()}))
    return life._replace(world=lambda: nothing)


def test_requests_go_by_the_names_that_the_plan_has_for_them(tmp_path: Path) -> None:
    asking = LIVES["node behind a relay, asking"]
    body = msgspec.json.encode({"model": "m", "messages": [], "user": "ask-a-0-7"})
    ask = next(event for _, event, _ in asking.steps if isinstance(event, Ask))
    start = [event for _, event, _ in asking.steps][:1]
    path = recorded(without_more(asking), tmp_path / "named", first=(*start, replace(ask, body=body)))
    run = ran(tmp_path)
    run.programs["a-0"] = program("a-0", tmp_path, [path])
    [named] = [entry.value for entry in played(LabWorld(run)) if isinstance(entry.value, Ask)]
    assert named.request == "ask-a-0-7"


def test_only_what_bears_a_name_is_renamed() -> None:
    assert name_in(b'{"user": "ask-x-1", "messages": []}') == "ask-x-1"
    assert name_in(b'{"messages": []}') is None
    assert name_in(b"not JSON") is None
    assert name_in(b'{"user": 7}') is None


def test_a_report_sums_it_up_and_says_what_was_not_judged(tmp_path: Path) -> None:
    judged = Judged(ran(tmp_path))
    finished: list[Entry] = []
    judged.world.trace.subscribe(finished.append, (ReportFinished,))
    report = judged.play()
    assert report.requests.finished == len(finished) > 0
    assert report.events == judged.world.steps
    assert "every core did the same again when it was fed its journal" in [check.rule for check in report.checks]
    info = judged.info()
    assert info.replayed_alike
    assert "DeadlinesAreKept" in info.rules_left_out
    relay = next(each for each in info.programs if each.role is Role.RELAY)
    assert relay.messages_in > 0 < relay.bytes_out
    assert msgspec.json.encode(info)


def test_never_is_no_instant_of_a_lab(tmp_path: Path) -> None:
    world = LabWorld(ran(tmp_path))
    world.play()
    assert world.hosts["a-0"].clock.true(NEVER) == NEVER
