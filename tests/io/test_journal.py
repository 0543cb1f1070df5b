"""The file of a journal: whose it is, how large it gets, and that nothing about it stops a program."""

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from teale_io.journal import JournalFile, create_journal, entropy, require_private
from teale_proto.contract import NEVER, Instant, Value
from teale_proto.effects import SendData
from teale_proto.errors import TealeError
from teale_proto.inputs import WAKE, DataReceived
from teale_proto.journal import Ended, Ending, Fed, Header, NodeMade, RelayMade, records
from teale_proto.node_config import NodeConfig
from teale_proto.relay.limits import RelayServerConfig
from teale_proto.secure.identity import Identity

MADE = NodeMade(NodeConfig("alice"), Identity.from_seed(bytes(32)))


class Echo:
    """A core that looks at the journal when it is fed, and echoes."""

    deadline: Instant = NEVER

    def handle(self, event: Value, now: Instant) -> Sequence[Value]:
        return [SendData(event.connection, event.data)] if isinstance(event, DataReceived) else []


def created(path: Path, **options: Any) -> JournalFile:
    journal = create_journal(path, **options)
    assert journal is not None
    return journal


def read(path: Path) -> list[Header | Fed | Ended]:
    with path.open("rb") as file:
        return list(records(file.read))


def test_a_journal_is_for_its_owner_alone(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        created(tmp_path / "a.journal").close()
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "a.journal").stat().st_mode) == 0o600


def test_a_journal_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Some file systems know no owners; here somebody opens the file to others."""
    path = tmp_path / "a.journal"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        require_private(descriptor, path)
        for mode in (0o640, 0o604, 0o620):
            os.fchmod(descriptor, mode)
            with pytest.raises(TealeError, match="others could read"):
                require_private(descriptor, path)
    finally:
        os.close(descriptor)


def test_a_journal_never_touches_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    path.write_text("precious")
    with pytest.raises(TealeError, match=r"a\.journal exists: .* with \{pid\} for example"):
        create_journal(path)
    link = tmp_path / "link.journal"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TealeError, match="exists"):
        create_journal(link)
    assert path.read_text() == "precious"


def test_the_name_of_a_journal_may_have_the_number_of_the_process(tmp_path: Path) -> None:
    created(tmp_path / "a-{pid}.journal").close()
    assert [each.name for each in tmp_path.iterdir()] == [f"a-{os.getpid()}.journal"]


def test_a_journal_that_cannot_be_created_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(TealeError, match=r"cannot be written: no such file or directory"):
        create_journal(tmp_path / "nowhere" / "a.journal")


def test_without_a_journal_there_is_none_and_entropy_is_the_systems() -> None:
    assert create_journal(None) is None
    assert len(entropy(None).randbytes(8)) == 8


def test_a_step_is_in_the_file_before_anybody_learns_its_effects(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = created(path, host="bob")
    core = journal.recording(Echo(), MADE, unix_time_at_zero=5)
    for number in range(3):
        core.handle(DataReceived(2, b"x"), number)
        # Not closed, not flushed: what a killed process leaves behind.
        header, *steps = read(path)
        assert isinstance(header, Header)
        assert (header.host, header.unix_time_at_zero) == ("bob", 5)
        assert [step.now for step in steps if isinstance(step, Fed)] == list(range(number + 1))
    journal.close()
    assert read(path)[-1] == Ended(Ending.STOPPED)


@pytest.mark.parametrize(("made", "name"), [(MADE, "alice"), (RelayMade(RelayServerConfig()), "relay")])
def test_a_program_without_another_name_goes_by_its_own(tmp_path: Path, made: NodeMade | RelayMade, name: str) -> None:
    journal = created(tmp_path / "a.journal")
    journal.recording(Echo(), made, unix_time_at_zero=0)
    journal.close()
    header, _ = read(tmp_path / "a.journal")
    assert isinstance(header, Header)
    assert header.host == name


def test_what_is_drawn_is_in_the_journal(tmp_path: Path) -> None:
    journal = created(tmp_path / "a.journal")
    drawn = entropy(journal).randbytes(8)
    journal.recording(Echo(), MADE, unix_time_at_zero=0)
    journal.close()
    header, _ = read(tmp_path / "a.journal")
    assert isinstance(header, Header)
    assert header.draws == (drawn,)


def test_a_journal_gets_no_larger_than_it_may(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = created(path, size_max=4000)
    core = journal.recording(Echo(), MADE, unix_time_at_zero=0)
    with structlog.testing.capture_logs() as logs:
        for number in range(20):
            assert core.handle(DataReceived(2, bytes(500)), number)
    _, *steps, ended = read(path)
    assert 3 <= len(steps) < 8
    assert ended == Ended(Ending.FULL)
    assert path.stat().st_size < 4000 + 50
    assert [line["event"] for line in logs] == ["the journal is as large as it may get, and ends here"]
    journal.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_once_and_the_program_goes_on() -> None:
    journal = JournalFile(os.open("/dev/full", os.O_WRONLY), "a.journal")
    with structlog.testing.capture_logs() as logs:
        core = journal.recording(Echo(), MADE, unix_time_at_zero=0)
        for number in range(3):
            assert core.handle(DataReceived(2, b"x"), number) == [SendData(2, b"x")]
    assert not journal.is_open
    journal.close()
    errors = [line for line in logs if line["log_level"] == "error"]
    assert errors == [
        {
            "event": "the journal ends here",
            "log_level": "error",
            "file": "a.journal",
            "reason": "no space left on device",
        }
    ]


def test_what_cannot_be_recorded_is_told_once_and_the_program_goes_on(tmp_path: Path) -> None:
    journal = created(tmp_path / "a.journal")
    core = journal.recording(Echo(), MADE, unix_time_at_zero=0)
    with structlog.testing.capture_logs() as logs:
        journal.give_up("for a reason")
        journal.give_up("for another")
        assert core.handle(WAKE, 1) == []
    assert [line["reason"] for line in logs] == ["for a reason"]
    assert len(read(tmp_path / "a.journal")) == 1


@pytest.mark.parametrize(
    ("made", "held"),
    [(MADE, "this node's secret key"), (RelayMade(RelayServerConfig()), "everything that passes through this relay")],
)
def test_the_log_warns_of_what_is_in_a_journal(tmp_path: Path, made: NodeMade | RelayMade, held: str) -> None:
    journal = created(tmp_path / "a.journal")
    with structlog.testing.capture_logs() as logs:
        journal.recording(Echo(), made, unix_time_at_zero=0)
    (line,) = logs
    assert line["log_level"] == "warning"
    assert held in line["event"]
    journal.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_step_that_went_to_disk_in_part_is_left_out(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "a.journal"
    journal = created(path)
    core = journal.recording(Echo(), MADE, unix_time_at_zero=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        for number in range(20):
            core.handle(DataReceived(2, bytes(500)), number)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not journal.is_open
    assert path.stat().st_size == 5000
    _, *steps = read(path)
    assert [step.now for step in steps if isinstance(step, Fed)] == list(range(len(steps)))
    assert 5 <= len(steps) < 10
