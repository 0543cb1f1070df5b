"""Capsules: there and back again, and what is refused."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulator.fuzz.capsule import (
    CAPSULE_BYTES_MAX,
    Capsule,
    CapsuleError,
    Code,
    commit_of,
    decode,
    load,
    save,
    this_code,
)
from simulator.fuzz.replaying import compared
from simulator.fuzz.trial import Trial
from simulator.fuzz.values import Broken, Size
from simulator.spec.faults import Crash
from simulator.spec.load import AskSpec
from simulator.spec.world_spec import WorldSpec

SPEC = WorldSpec(name="w", asks=(AskSpec(1.0, "node-0"),), faults=(Crash("node-1", 5.0),))
BROKEN = Broken("nobody gave up a healthy peer", 12_000_000, "node-1", "reported node-0 as lost")
CAPSULE = Capsule(
    seed=7,
    spec=SPEC,
    broken=BROKEN,
    digest="d1",
    entries=99,
    found=Size.of(SPEC),
    code=Code("1.0", "c" * 40, "s"),
    tail=("one", "two"),
)


def test_a_capsule_comes_back_as_it_went(tmp_path: Path) -> None:
    path = save(CAPSULE, tmp_path / "new" / "folder")
    assert path.name == "seed-7-nobody-gave-up-a-healthy-peer.json"
    assert load(path) == CAPSULE


def altered(**fields: Any) -> bytes:
    """A capsule's JSON with some fields replaced, dots leading inwards."""
    raw = msgspec.json.decode(CAPSULE.json())
    for path, value in fields.items():
        *outer, last = path.split("__")
        place = raw
        for step in outer:
            place = place[step]
        place[last] = value
    return msgspec.json.encode(raw)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a capsule"),
        (b"\xff\xfe", "not a capsule"),
        (b"[]", "expected a JSON object"),
        (b'{"format":1}', "`spec` must be an object"),
        (b"[" * 100_000, "not a capsule"),
        (CAPSULE.json()[:-40], "not a capsule"),
        (altered(format=2), "`format` is 2, and this program reads up to 1"),
        (altered(format="1"), "`format` must be a positive integer"),
        (altered(spec__format=99), "`spec.format` is 99"),
        (altered(spec=[]), "`spec` must be an object"),
        (altered(seed="x"), r"\$.seed"),
        (altered(more=1), "unknown field"),
        (altered(spec__populations=[{"count": 10**12}]), "1e+12 hosts are too many".replace("+", r"\+")),
        (altered(spec__populations=[{"count": 6000}, {"count": 6000, "name": "x"}]), "12001 hosts are too many"),
        (altered(spec__populations=[{"count": "many"}]), r"populations\[0\].count` must be an integer"),
        (altered(spec__lasts=1e12), "seconds are too many"),
        (altered(spec__models={"count": 10**9}), "models are too many"),
        (altered(spec__asks=[{"at": 1, "node": "node-0", "words": 10**9}]), "words of one request are too many"),
        (altered(spec__requests={}), "not settled"),
        (altered(spec__random_faults={}), "not settled"),
        (altered(spec__faults=[{"kind": "crash", "host": "stranger", "at": 1}]), "no host 'stranger'"),
    ],
)
def test_what_is_no_capsule_is_refused_with_a_reason(data: bytes, why: str) -> None:
    with pytest.raises(CapsuleError, match=why):
        decode(data)


def test_a_file_that_is_not_there_or_too_large_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "capsule.json"
    with pytest.raises(CapsuleError, match=r"capsule\.json: No such file"):
        load(path)
    with path.open("wb") as file:
        file.truncate(CAPSULE_BYTES_MAX + 1)
    with pytest.raises(CapsuleError, match=r"capsule\.json: too large"):
        load(path)


def test_a_capsule_that_cannot_be_written_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CapsuleError, match="cannot be written"):
        save(CAPSULE, tmp_path / "file" / "folder")


# Which code.


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "files",
    [
        {"HEAD": f"{COMMIT}\n"},
        {"HEAD": "ref: refs/heads/main\n", "refs/heads/main": f"{COMMIT}\n"},
        {"HEAD": "ref: refs/heads/main\n", "packed-refs": f"# pack-refs\n{COMMIT} refs/heads/main\n"},
    ],
)
def test_the_commit_is_read_from_git_s_own_files(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = tmp_path / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert commit_of(tmp_path) == COMMIT


def test_a_worktree_is_followed_to_where_its_refs_are(tmp_path: Path) -> None:
    inner = tmp_path / "repo" / ".git" / "worktrees" / "w"
    inner.mkdir(parents=True)
    (inner / "HEAD").write_text("ref: refs/heads/side\n")
    (inner / "commondir").write_text("../..\n")
    (tmp_path / "repo" / ".git" / "packed-refs").write_text(f"{COMMIT} refs/heads/side\n")
    (tmp_path / ".git").write_text(f"gitdir: {inner}\n")
    assert commit_of(tmp_path) == COMMIT


def test_where_there_is_no_git_there_is_no_commit(tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("nonsense")
    assert commit_of(tmp_path) is None


def test_this_code_is_known_by_its_source() -> None:
    code = this_code()
    assert code == this_code()
    assert len(code.source) == 32


# What a replay comes to.


def trial(broken: Broken | None, digest: str) -> Trial:
    return Trial(broken, digest, 1, 1.0, at_end=False)


ELSEWHERE = Broken(BROKEN.rule, 13_000_000, "node-1", "reported node-0 as lost")
OTHER = Broken("another rule", 1, "node-1", "what")


@pytest.mark.parametrize(
    ("broken", "digest", "same_code", "reproduced", "explained"),
    [
        (BROKEN, "d1", True, True, "the same event"),
        (BROKEN, "d1", False, True, "the same event"),
        (BROKEN, "d2", True, False, "depends on something besides its seed"),
        (ELSEWHERE, "d2", True, False, "depends on something besides its seed"),
        (ELSEWHERE, "d2", False, True, "the code has changed .* cccccccccccc.*the same rule is broken"),
        (OTHER, "d2", False, False, "another rule is broken: another rule"),
        (None, "d2", False, False, "no rule is broken any more"),
        (None, "d2", True, False, "came to something else"),
    ],
)
def test_a_replay_says_whether_it_came_to_the_same_event(
    broken: Broken | None, digest: str, same_code: bool, reproduced: bool, explained: str
) -> None:
    report = compared("p", CAPSULE, trial(broken, digest), same_code=same_code)
    assert report.reproduced is reproduced
    assert report.same_event is (broken == BROKEN and digest == "d1")
    assert re.search(explained, report.explanation)
    assert msgspec.json.decode(report.json())["expected"]["rule"] == BROKEN.rule
