"""Real programs write journals, one of them is killed in the middle of its work, and all are replayed exactly."""

import stat
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

from simulator.journals import Ending, Replayed, read
from simulator.trace import Entry
from teale_proto.effects import Path as Way
from teale_proto.effects import ReportChunk, ReportFinished, SendData, SendText
from teale_proto.inputs import Ask, DataReceived, MessagesReceived
from tests.e2e.harness import QUESTION, SENTENCE, TINY, Node, Relay, Reply, Stage, eventually, write_config
from tests.e2e.test_direct import EASY, at_home, path_to

CLOCK_SLACK = 5
"""Microseconds by which two programs of one machine may disagree on the time."""


class Story(NamedTuple):
    """What was left when all had ended."""

    folder: Path
    reply: Reply
    journals: dict[str, Replayed]
    logs: dict[str, str]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """`a` asks `b` through a relay; then `b` is killed while it answers again, and the others end properly."""
    folder = tmp_path_factory.mktemp("journals")
    with Stage(folder) as stage:
        relay = stage.relay(options=("--journal", str(folder / "relay.journal"), "--journal-name", "the relay"))
        wan = {"wan_enabled": True, "wan_relay_url": relay.url, "wan_direct": False}
        write_config(stage.home("a"), display_name="a", **wan)
        write_config(stage.home("b"), display_name="b", builtin_model=True, **wan)
        options = ("--journal", str(folder / "{pid}.journal"))
        a, b = stage.up([stage.start(name, options=options) for name in "ab"])
        a.wait_for_peers(b, model=TINY)
        reply = a.chat(QUESTION)
        _kill_in_the_middle(relay, a, b)
        a.stop()
        relay.stop()
        journals = {
            "a": folder / f"{a.pid}.journal",
            "b": folder / f"{b.pid}.journal",
            "relay": folder / "relay.journal",
        }
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in journals.values())
        yield Story(
            folder,
            reply,
            {name: read(path).replayed() for name, path in journals.items()},
            {program.name: program.log for program in stage.programs},
        )


def _kill_in_the_middle(relay: Relay, a: Node, b: Node) -> None:
    with a.follow() as events:
        with a.openai() as client:
            stream = client.chat.completions.create(
                model=TINY, messages=[{"role": "user", "content": QUESTION}], temperature=0, stream=True
            )
            next(stream)
            b.kill()
            stream.close()
        events.wait_for("ReportPeer", state="lost")
    eventually(lambda: len(relay.get("/peers")) == 1, "the relay has noticed")


@pytest.mark.parametrize("name", ["a", "b", "relay"])
def test_every_journal_is_replayed_exactly(story: Story, name: str) -> None:
    assert story.journals[name].differences == []
    assert story.journals[name].steps > 20
    assert story.journals[name].refused == 0


def test_who_was_killed_says_nothing_at_the_end_and_the_others_say_that_they_ended(story: Story) -> None:
    endings = {name: journal.ending for name, journal in story.journals.items()}
    assert endings == {"a": Ending.STOPPED, "b": None, "relay": Ending.STOPPED}


def test_entries_go_by_the_name_that_was_given_or_the_programs_own(story: Story) -> None:
    hosts = {name: {entry.host for entry in journal.entries} for name, journal in story.journals.items()}
    assert hosts == {"a": {"a"}, "b": {"b"}, "relay": {"the relay"}}


def test_the_answer_that_was_read_is_in_the_trace(story: Story) -> None:
    assert story.reply.text == SENTENCE
    values = [entry.value for entry in story.journals["a"].entries]
    asked = [value for value in values if isinstance(value, Ask)]
    assert len(asked) == 2
    assert QUESTION.encode() in asked[0].body
    finished = [value for value in values if isinstance(value, ReportFinished)]
    assert [each.request for each in finished][:1] == [asked[0].request]
    chunks = [value for value in values if isinstance(value, ReportChunk) and value.request == asked[0].request]
    assert len(chunks) >= len(story.reply.chunks) - 1


def sent(entries: list[Entry]) -> dict[bytes, int]:
    """Return what a program sent, and when first."""
    found: dict[bytes, int] = {}
    for entry in entries:
        if isinstance(entry.value, SendData | SendText):
            found.setdefault(entry.value.data, entry.at)
    return found


def test_what_a_killed_program_let_out_is_in_its_journal_and_was_sent_before_it_came_in(story: Story) -> None:
    of_nodes = sent(story.journals["b"].entries) | sent(story.journals["a"].entries)
    came_in = 0
    for entry in story.journals["relay"].entries:
        match entry.value:
            case DataReceived(data=data):
                messages: tuple[bytes, ...] = (data,)
            case MessagesReceived(messages=messages):
                pass
            case _:
                continue
        for message in messages:
            came_in += 1
            assert message in of_nodes
            assert of_nodes[message] <= entry.at + CLOCK_SLACK
    assert came_in > 40


def test_all_journals_together_are_in_the_order_of_time(story: Story) -> None:
    for journal in story.journals.values():
        times = [at for at, _ in groupby(journal.entries, key=lambda entry: entry.at)]
        assert times == sorted(times)


def test_the_log_warns_of_a_journal_and_has_none_of_its_secrets(story: Story) -> None:
    for log in story.logs.values():
        assert "recording a journal: whoever reads it has" in log
        assert QUESTION not in log


def test_a_journal_that_exists_keeps_a_program_from_starting(story: Story, stage: Stage) -> None:
    write_config(stage.home("c"), display_name="c")
    node = stage.start("c", options=("--journal", str(story.folder / "relay.journal")))
    assert node.wait() == 1
    assert "relay.journal exists: a journal is of one start" in node.log


def test_nodes_that_found_a_direct_path_through_their_nats_are_replayed_exactly(tmp_path: Path) -> None:
    relay, nodes = str(tmp_path / "relay.journal"), str(tmp_path / "node-{pid}.journal")
    with at_home(tmp_path, {"alice": EASY, "bob": EASY}, ("--journal", relay), node_options=("--journal", nodes)) as (
        _,
        [alice, bob],
    ):
        eventually(lambda: path_to(alice, bob).get("path") == "direct", "alice has a direct path")
        eventually(lambda: TINY in alice.models(), "the model is known")
        assert alice.chat(QUESTION).text == SENTENCE
        bob.kill()
        eventually(lambda: not path_to(alice, bob), "alice has noticed")
        alice.stop()
    replayed = {path.name: read(path).replayed() for path in tmp_path.glob("*.journal")}
    assert len(replayed) == 3
    assert {name: journal.differences for name, journal in replayed.items() if journal.differences} == {}
    of_alice = next(journal for journal in replayed.values() if journal.header.host == "alice")
    assert {"DatagramReceived", "NetworkChanged"} <= set(of_alice.inputs)
    assert any(isinstance(entry.value, ReportFinished) and entry.value.path is Way.DIRECT for entry in of_alice.entries)
