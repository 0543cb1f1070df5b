"""A core that is taken through its journal does again all that it did, and where it does not, that is told."""

from pathlib import Path
from typing import Any

import pytest

from simulator.events import CoreMisused
from simulator.journals import Ending, Journal, JournalError, read
from simulator.journals.reading import holds_journal
from simulator.journals.replaying import DIFFERENCES_MAX
from simulator.trace import Entry
from teale_proto.inputs import Address, Ask, ConnectionAccepted, Started
from teale_proto.journal import LENGTH_BYTES, Header, RelayMade, beginning, records
from teale_proto.node import Node
from teale_proto.relay.server import RelayServer, RelayServerConfig
from tests.proto.test_laws import ASK
from tests.proto.world import UNIX_TIME_AT_ZERO, identity
from tests.simulator.journals.lives import ASKING, LIVES, Life, recorded

every_life = pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())


@every_life
def test_a_replayed_journal_gives_every_input_and_effect_at_unix_time(life: Life, tmp_path: Path) -> None:
    result = read(recorded(life, tmp_path / "j", host="somebody")).replayed()
    assert result.differences == []
    assert result.is_equal
    expected = [
        Entry(UNIX_TIME_AT_ZERO + now, "somebody", value)
        for now, event, effects in life.steps
        for value in (event, *effects)
    ]
    assert result.entries == expected
    assert result.steps == len(life.steps) == result.inputs.total()
    assert result.effects.total() == len(expected) - result.steps
    assert (result.first_at, result.last_at) == (expected[0].at, expected[-1].at)
    assert result.ending is Ending.STOPPED


def test_a_journal_knows_whose_it_is(tmp_path: Path) -> None:
    node = read(recorded(ASKING, tmp_path / "node"))
    assert (node.host, node.kind, node.header.version) == ("a", "node", "0.1.0")
    relay = read(recorded(LIVES["relay"], tmp_path / "relay"))
    assert (relay.host, relay.kind) == ("relay.test", "relay")


def test_the_core_is_as_it_was_at_the_end(tmp_path: Path) -> None:
    core = read(recorded(ASKING, tmp_path / "node")).replayed().core
    assert isinstance(core, Node)
    assert core.node_id == identity(1).node_id
    assert isinstance(read(recorded(LIVES["relay"], tmp_path / "relay")).replayed().core, RelayServer)


def test_entries_can_be_taken_as_they_come(tmp_path: Path) -> None:
    journal = read(recorded(ASKING, tmp_path / "j"))
    taken: list[Entry] = []
    assert journal.replayed(taken.append).entries == []
    assert taken == journal.replayed().entries


@pytest.mark.parametrize("end", [Ending.FULL, None])
def test_a_journal_says_how_it_ended_unless_its_program_was_killed(tmp_path: Path, end: Ending | None) -> None:
    assert read(recorded(ASKING, tmp_path / "j", end=end)).replayed().ending is end


def test_a_journal_that_was_cut_off_is_replayed_up_to_there(tmp_path: Path) -> None:
    path = recorded(ASKING, tmp_path / "j")
    whole = read(path).replayed()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    cut = read(path).replayed()
    assert cut.is_equal
    assert cut.ending is None
    assert 0 < cut.steps < whole.steps
    assert cut.entries == whole.entries[: len(cut.entries)]


def test_what_was_refused_is_refused_again_and_is_no_entry(tmp_path: Path) -> None:
    result = read(recorded(ASKING, tmp_path / "j", illegal=[ASK, ASK])).replayed()
    assert result.is_equal
    assert result.refused == 2
    assert result.inputs["Ask"] == sum(isinstance(step[1], Ask) for step in ASKING.steps) + 2
    # `a` asks after it has started, and only then.
    kinds = [type(entry.value) for entry in result.entries]
    assert kinds.index(Started) < kinds.index(Ask)


def rewritten(path: Path, change: Any) -> Path:
    """Write a journal again, with each of its raw records changed; the header is the first of them."""
    data, place, raw = path.read_bytes(), len(beginning(read(path).header)), []
    while place < len(data):
        size = int.from_bytes(data[place : place + LENGTH_BYTES], "big")
        raw.append(data[place + LENGTH_BYTES : place + LENGTH_BYTES + size])
        place += LENGTH_BYTES + size
    out = beginning(read(path).header)
    for record in change(raw):
        out += len(record).to_bytes(LENGTH_BYTES, "big") + record
    path.write_bytes(out)
    return path


def test_a_step_that_is_missing_makes_a_difference(tmp_path: Path) -> None:
    path = recorded(ASKING, tmp_path / "j")
    started = next(number for number, step in enumerate(ASKING.steps) if isinstance(step[1], Started))
    result = read(rewritten(path, lambda raw: raw[:started] + raw[started + 1 :])).replayed()
    assert not result.is_equal
    assert result.differing >= len(result.differences) > 1
    assert len(result.differences) <= DIFFERENCES_MAX
    assert any("Ask: LocalError('this node has not started')" in each for each in result.differences)


def test_entropy_that_differs_makes_a_difference(tmp_path: Path) -> None:
    path = recorded(ASKING, tmp_path / "j")
    [instance] = [draw for draw in read(path).header.draws if isinstance(draw, bytes)]
    path.write_bytes(path.read_bytes().replace(instance, bytes(reversed(instance)), 1))
    assert "other effects than recorded, now SendData" in read(path).replayed().differences[0]


def test_a_core_that_is_made_otherwise_differs(tmp_path: Path) -> None:
    path = recorded(LIVES["relay"], tmp_path / "j")
    header = read(path).header
    rest = path.read_bytes()[len(beginning(header)) :]
    other = Header("r", "2", header.unix_time_at_zero, RelayMade(RelayServerConfig(names=("elsewhere",))), header.draws)
    path.write_bytes(beginning(other) + rest)
    assert not read(path).replayed().is_equal


def test_a_core_that_raised_raises_again_and_is_told_as_one_that_broke_the_contract(tmp_path: Path) -> None:
    # No driver gives one number to two connections, and nothing that a driver may do is known to make a core raise.
    twice = ConnectionAccepted(2, Address("a", 1), Address("b", 1))
    path = recorded(LIVES["node on a LAN, asking"], tmp_path / "j", first=[twice], breaks=[twice])
    result = read(path).replayed()
    assert result.differences == []
    told = [entry.value for entry in result.entries if isinstance(entry.value, CoreMisused)]
    assert told == [CoreMisused("the core raised on ConnectionAccepted: AssertionError()")]


def test_a_core_that_raises_no_more_is_a_difference(tmp_path: Path) -> None:
    path = recorded(ASKING, tmp_path / "j")

    def as_if_refused(raw: list[bytes]) -> list[bytes]:
        assert raw[0].endswith(b"\xa0")
        return [raw[0][:-1] + b"\xaaLocalError", *raw[1:]]

    result = read(rewritten(path, as_if_refused)).replayed()
    assert result.differences == [
        f"{result.differences[0].split(':')[0]}: nothing was raised, where LocalError was raised"
    ]


def test_an_input_of_another_kind_is_an_error(tmp_path: Path) -> None:
    path = recorded(ASKING, tmp_path / "j")
    strange = rewritten(path, lambda raw: [record.replace(b"\xa7Started", b"\xa8Startled") for record in raw])
    with pytest.raises(JournalError, match=r"/j: record .* 'Startled' is no input of such a core"):
        read(strange).replayed()


# Files that are none.


def test_a_file_that_is_no_journal_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"{}")
    with pytest.raises(JournalError, match=r"/j: not a journal of this version"):
        read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


def test_files_are_told_apart_by_how_they_begin(tmp_path: Path) -> None:
    (tmp_path / "capsule").write_text("{}")
    assert not holds_journal(tmp_path / "capsule")
    assert holds_journal(recorded(ASKING, tmp_path / "j"))


def test_a_suite_that_is_not_known_here_cannot_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(beginning(Header("r", "1", 0, RelayMade(RelayServerConfig()), (), "enigma")))
    with pytest.raises(JournalError, match="made with the suite 'enigma'"):
        read(path).replayed()


def test_a_configuration_that_makes_no_core_cannot_be_replayed(tmp_path: Path) -> None:
    path = recorded(ASKING, tmp_path / "j")
    path.write_bytes(path.read_bytes().replace(b"\xa9queue_max\xcd\x01\x00", b"\xa9queue_max\xcd\x00\x00"))
    with pytest.raises(JournalError, match="makes no core"):
        read(path).replayed()


def test_a_journal_is_read_as_often_as_wanted(tmp_path: Path) -> None:
    journal = read(recorded(ASKING, tmp_path / "j"))
    assert isinstance(journal, Journal)
    assert list(journal.steps()) == list(journal.steps())
    with journal.path.open("rb") as file:
        assert list(records(file.read))[1:] == list(journal.steps())
