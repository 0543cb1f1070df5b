"""Who a node is: made once, kept for ever, and never replaced because it could not be read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import Node, Stage

EVERYBODYS = 0o644


def contents(home: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in home.iterdir() if file.is_file()}


def test_an_identity_is_made_once_for_its_owner_alone_and_stays_over_restarts(stage: Stage) -> None:
    first = stage.node("node")
    kept = contents(first.home)
    for name in ("identity.json", "identity.key"):
        assert (first.home / name).stat().st_mode & 0o777 == 0o600
    assert json.loads(kept["identity.json"])["node_id"] == first.id == first.get("/api/status")["node_id"]
    assert first.stop() == 0
    assert not (first.home / "node.json").exists()
    [second] = stage.up([stage.start("node")])
    assert second.id == first.id
    assert contents(second.home)["identity.key"] == kept["identity.key"]
    assert stage.node("another").id != first.id


def garble_secret(home: Path) -> None:
    (home / "identity.key").write_bytes(b"\x00garbage")


def cut_secret(home: Path) -> None:
    text = (home / "identity.key").read_text()
    (home / "identity.key").write_text(text[: len(text) // 2])


def change_secret(home: Path) -> None:
    secret = json.loads((home / "identity.key").read_text())
    secret["seed"] = "A" * 43 + "="
    (home / "identity.key").write_text(json.dumps(secret))


def lose_secret(home: Path) -> None:
    (home / "identity.key").unlink()


def garble_marker(home: Path) -> None:
    (home / "identity.json").write_text("{")


def expose_secret(home: Path) -> None:
    (home / "identity.key").chmod(EVERYBODYS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a node that has been up once."""
    with Stage(tmp_path_factory.mktemp("identity")) as stage:
        node = stage.node("node")
        assert node.stop() == 0
        return node.home


@pytest.mark.parametrize(
    ("damage", "advice"),
    [
        (garble_secret, "is damaged. Restore it from a backup."),
        (cut_secret, "is damaged. Restore it from a backup."),
        (change_secret, "is damaged. Restore it from a backup."),
        (lose_secret, "Restore it from a backup"),
        (garble_marker, "is damaged. Restore it from a backup"),
        (expose_secret, "chmod 600"),
    ],
)
def test_an_identity_that_cannot_be_read_is_one_clear_sentence_and_never_a_new_identity(
    damage: Callable[[Path], None], advice: str, whole: Path, stage: Stage
) -> None:
    home = stage.home("node")
    shutil.copytree(whole, home)
    damage(home)
    before = contents(home)
    node: Node = stage.start("node")
    assert node.wait() == 1
    said = node.log.splitlines()[len((whole / "logs" / "node.err").read_text().splitlines()) :]
    assert len(said) == 1
    assert said[0].startswith("teale-node: ")
    assert advice in said[0]
    assert str(home) in said[0]
    assert "seed" not in said[0]
    assert contents(home) == before
