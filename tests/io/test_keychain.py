import json
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import KeyringLocked

from teale_io.keychain import SERVICE, IdentityError, Kdf, StorageChoice, load_or_create_identity, read_marker
from teale_io.paths import Paths
from teale_proto.secure.identity import Identity

CHEAP = Kdf(passes=1, memory_bytes=8192)


class MemoryKeychain(KeyringBackend):
    """A keychain that can be locked, and that can die before or after it kept something."""

    priority: float = 5

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # keyring has no annotations there
        self.kept: dict[tuple[str, str], str] = {}
        self.is_locked = False
        self.dies = ""

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked("locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.is_locked:
            raise KeyringLocked("locked")
        if self.dies == "before":
            raise KeyboardInterrupt
        self.kept[service, username] = password
        if self.dies == "after":
            raise KeyboardInterrupt

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


class WeakKeychain(MemoryKeychain):
    """Keeps secrets, but not safely."""

    priority = 0.5


def use(backend: type[KeyringBackend]) -> None:
    keyring.set_keyring(backend())


@pytest.fixture(autouse=True)
def former_keychain_comes_back() -> Iterator[None]:
    former = keyring.get_keyring()
    use(fail.Keyring)
    yield
    keyring.set_keyring(former)


@pytest.fixture
def keychain() -> MemoryKeychain:
    backend = MemoryKeychain()
    keyring.set_keyring(backend)
    return backend


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.below(tmp_path / "home")


def identity(paths: Paths, storage: StorageChoice = "auto", passphrase: str = "", seed: int = 1) -> Identity:
    """Start a node: every one would make another identity, were it allowed to."""
    return load_or_create_identity(
        paths, storage, passphrase=lambda: passphrase, entropy=random.Random(seed), kdf=CHEAP
    )


def refusal(paths: Paths, storage: StorageChoice = "auto", passphrase: str = "") -> str:
    before = files(paths)
    with pytest.raises(IdentityError) as caught:
        identity(paths, storage, passphrase, seed=2)
    assert files(paths) == before, "a refusal changes nothing"
    return str(caught.value)


def files(paths: Paths) -> dict[str, bytes]:
    if not paths.home.exists():
        return {}
    return {file.name: file.read_bytes() for file in paths.home.iterdir() if not file.name.endswith(".lock")}


def edit(file: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(file.read_bytes())
    change(document)
    file.write_text(json.dumps(document))


# What is made the first time.


def test_where_there_is_a_keychain_the_secret_goes_into_it_and_nowhere_else(
    paths: Paths, keychain: MemoryKeychain
) -> None:
    first = identity(paths)
    assert identity(paths, seed=2).node_id == first.node_id
    assert list(keychain.kept) == [(SERVICE, str(paths.home))]
    assert list(files(paths)) == ["identity.json"]
    marker = read_marker(paths)
    assert marker is not None
    assert (marker.storage, marker.node_id) == ("keychain", first.node_id)


def test_two_homes_have_two_identities_in_one_keychain(tmp_path: Path, keychain: MemoryKeychain) -> None:
    one, other = Paths.below(tmp_path / "one"), Paths.below(tmp_path / "other")
    assert identity(one, seed=1).node_id != identity(other, seed=2).node_id
    assert len(keychain.kept) == 2


def test_a_home_that_is_moved_finds_its_identity_in_the_keychain(tmp_path: Path, keychain: MemoryKeychain) -> None:
    first = identity(Paths.below(tmp_path / "one"))
    (tmp_path / "one").rename(tmp_path / "moved")
    assert identity(Paths.below(tmp_path / "moved"), seed=2).node_id == first.node_id


@pytest.mark.parametrize("backend", [fail.Keyring, WeakKeychain])
def test_without_a_safe_keychain_and_passphrase_the_error_says_both_ways_out(
    paths: Paths, backend: type[KeyringBackend]
) -> None:
    use(backend)
    message = refusal(paths)
    assert "TEALE_PASSPHRASE" in message
    assert "teale config set identity_storage plain-file" in message


def test_without_a_keychain_a_passphrase_encrypts_the_secret_in_a_file(paths: Paths) -> None:
    first = identity(paths, passphrase="correct horse")
    seed = random.Random(1).randbytes(32)
    content = paths.identity_secret.read_bytes()
    assert json.loads(content)["storage"] == "encrypted-file"
    assert seed not in content
    assert seed.hex().encode() not in content
    assert stat.S_IMODE(paths.identity_secret.stat().st_mode) == 0o600
    assert identity(paths, passphrase="correct horse", seed=2).node_id == first.node_id


def test_a_passphrase_is_asked_for_once_and_only_where_it_is_needed(paths: Paths, tmp_path: Path) -> None:
    asked = []

    def ask() -> str:
        asked.append(1)
        return "correct horse"

    load_or_create_identity(paths, "auto", passphrase=ask, entropy=random.Random(1), kdf=CHEAP)
    assert len(asked) == 1
    load_or_create_identity(paths, "auto", passphrase=ask, entropy=random.Random(1), kdf=CHEAP)
    assert len(asked) == 2
    load_or_create_identity(Paths.below(tmp_path / "plain"), "plain-file", passphrase=ask, entropy=random.Random(1))
    assert len(asked) == 2


def test_a_passphrase_is_the_same_however_its_accents_were_typed(paths: Paths) -> None:
    first = identity(paths, passphrase="caf\u00e9")
    assert identity(paths, passphrase="cafe\u0301", seed=2).node_id == first.node_id


def test_a_plain_file_is_made_where_it_was_asked_for(paths: Paths) -> None:
    first = identity(paths, "plain-file")
    assert stat.S_IMODE(paths.identity_secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.home.stat().st_mode) == 0o700
    assert identity(paths, seed=2).node_id == first.node_id


def test_a_keychain_that_keeps_nothing_is_noticed(paths: Paths) -> None:
    use(null.Keyring)
    assert "does not keep" in refusal(paths, "keychain")


def test_a_keychain_that_was_asked_for_is_not_replaced_by_a_file(paths: Paths) -> None:
    assert "identity_storage encrypted-file" in refusal(paths, "keychain", passphrase="there is one")


def test_a_locked_keychain_makes_no_new_identity_even_at_the_first_start(
    paths: Paths, keychain: MemoryKeychain
) -> None:
    keychain.is_locked = True
    assert "Unlock it" in refusal(paths, passphrase="there is one")


# An identity that cannot be read is never replaced.


def test_a_keychain_that_is_locked_later_is_an_error(paths: Paths, keychain: MemoryKeychain) -> None:
    identity(paths)
    keychain.is_locked = True
    assert "Unlock it" in refusal(paths)


def test_a_keychain_that_is_gone_is_an_error(paths: Paths, keychain: MemoryKeychain) -> None:
    identity(paths)
    use(fail.Keyring)
    assert "there is none here" in refusal(paths, passphrase="there is one")


def test_a_secret_that_was_deleted_from_the_keychain_is_an_error(paths: Paths, keychain: MemoryKeychain) -> None:
    node_id = identity(paths).node_id
    keychain.kept.clear()
    message = refusal(paths)
    assert node_id in message
    assert "Restore it from a backup" in message
    assert keychain.kept == {}


def test_a_damaged_entry_in_the_keychain_is_an_error(paths: Paths, keychain: MemoryKeychain) -> None:
    identity(paths)
    keychain.kept[SERVICE, str(paths.home)] = "half an ent"
    assert "damaged" in refusal(paths)


def test_another_nodes_secret_in_the_keychain_is_an_error(
    paths: Paths, tmp_path: Path, keychain: MemoryKeychain
) -> None:
    identity(paths)
    other = Paths.below(tmp_path / "other")
    identity(other, seed=2)
    keychain.kept[SERVICE, str(paths.home)] = keychain.kept[SERVICE, str(other.home)]
    assert "is not the secret key of node" in refusal(paths)


def test_a_wrong_passphrase_is_an_error(paths: Paths) -> None:
    identity(paths, passphrase="correct horse")
    assert "does not open" in refusal(paths, passphrase="wrong horse")


def test_a_missing_passphrase_is_an_error(paths: Paths) -> None:
    identity(paths, passphrase="correct horse")
    assert "TEALE_PASSPHRASE" in refusal(paths)


@pytest.mark.parametrize("storage", ["plain-file", "encrypted-file"])
def test_a_secret_file_that_was_deleted_is_an_error(paths: Paths, storage: StorageChoice) -> None:
    identity(paths, storage, "correct horse")
    paths.identity_secret.unlink()
    assert "no longer in" in refusal(paths, storage, "correct horse")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff" * 9000, b'{"storage":"plain-file","version":2}'])
@pytest.mark.parametrize("storage", ["plain-file", "encrypted-file"])
def test_a_damaged_secret_file_is_an_error(paths: Paths, storage: StorageChoice, content: bytes) -> None:
    identity(paths, storage, "correct horse")
    paths.identity_secret.write_bytes(content)
    assert "damaged" in refusal(paths, storage, "correct horse")


def test_a_secret_of_another_node_id_is_an_error(paths: Paths) -> None:
    identity(paths, "plain-file")
    edit(paths.identity_secret, lambda secret: secret.update(node_id="ab" * 32))
    assert "is not the secret key of node" in refusal(paths)


def test_a_secret_with_one_wrong_byte_is_an_error(paths: Paths, tmp_path: Path) -> None:
    other = Paths.below(tmp_path / "other")
    identity(other, "plain-file", seed=2)
    strange = json.loads(other.identity_secret.read_bytes())["seed"]
    identity(paths, "plain-file")
    edit(paths.identity_secret, lambda secret: secret.update(seed=strange))
    assert "damaged" in refusal(paths)


def test_an_encrypted_secret_that_was_replaced_by_a_plain_one_is_an_error(paths: Paths, tmp_path: Path) -> None:
    identity(paths, passphrase="correct horse")
    other = Paths.below(tmp_path / "other")
    identity(other, "plain-file")
    paths.identity_secret.write_bytes(other.identity_secret.read_bytes())
    assert "is not the secret key of node" in refusal(paths, passphrase="correct horse")


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff" * 9000])
def test_a_damaged_marker_is_an_error(paths: Paths, content: bytes) -> None:
    identity(paths, "plain-file")
    paths.identity_marker.write_bytes(content)
    assert "is damaged" in refusal(paths, "plain-file")


def test_a_marker_that_was_deleted_is_made_again_from_the_secret(paths: Paths) -> None:
    first = identity(paths, "plain-file")
    paths.identity_marker.unlink()
    assert identity(paths, "plain-file", seed=2).node_id == first.node_id
    assert read_marker(paths) is not None


def test_a_plain_file_that_others_may_read_is_refused_with_the_remedy(paths: Paths) -> None:
    identity(paths, "plain-file")
    for mode in (0o640, 0o604, 0o620):
        paths.identity_secret.chmod(mode)
        assert f"chmod 600 '{paths.identity_secret}'" in refusal(paths)
    paths.identity_secret.chmod(0o600)
    identity(paths)


@pytest.mark.parametrize("wanted", ["keychain", "encrypted-file"])
def test_another_storage_than_the_one_in_use_is_an_error_and_moves_nothing(paths: Paths, wanted: StorageChoice) -> None:
    identity(paths, "plain-file")
    assert "teale config set identity_storage plain-file" in refusal(paths, wanted, "correct horse")


@pytest.mark.parametrize(
    ("passes", "memory_bytes"), [(1, 1 << 40), (1, (512 << 20) + 1), (17, 8192), (1 << 60, 8192), (0, 8192), (1, 0)]
)
def test_a_hostile_file_cannot_have_all_memory_or_time(paths: Paths, passes: int, memory_bytes: int) -> None:
    identity(paths, passphrase="correct horse")
    edit(paths.identity_secret, lambda secret: secret.update(kdf={"passes": passes, "memory_bytes": memory_bytes}))
    assert "damaged" in refusal(paths, passphrase="correct horse")


def test_a_home_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, where a folder belongs")
    with pytest.raises(IdentityError, match=r"cannot be (kept|read)"):
        identity(Paths.below(tmp_path / "home"), "plain-file")


def test_no_secret_is_in_an_error_or_its_causes(paths: Paths, keychain: MemoryKeychain) -> None:
    identity(paths)
    entry = keychain.kept[SERVICE, str(paths.home)]
    keychain.kept[SERVICE, str(paths.home)] = entry[:-2]
    with pytest.raises(IdentityError) as caught:
        identity(paths)
    assert json.loads(entry)["seed"] not in repr(caught.value) + repr(caught.value.__cause__)


# A start that is killed loses nothing.


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_start_killed_around_the_keychains_write_is_taken_up_by_the_next(
    paths: Paths, keychain: MemoryKeychain, moment: str
) -> None:
    keychain.dies = moment
    with pytest.raises(KeyboardInterrupt):
        identity(paths, seed=1)
    keychain.dies = ""
    second = identity(paths, seed=2)
    assert second.node_id == Identity.from_seed(random.Random(1 if moment == "after" else 2).randbytes(32)).node_id
    assert len(keychain.kept) == 1
    assert identity(paths, seed=3).node_id == second.node_id


def kill_at_every_step(root: str, storage: StorageChoice) -> None:
    """Print, for every step that touches the file system, what a start that was killed there left and led to."""
    for step in range(100):
        paths = Paths.below(Path(root) / str(step))
        child = os.fork()
        if child == 0:
            _exit_at(step, root)
            identity(paths, storage, "correct horse", seed=1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        kept = paths.identity_secret.exists()
        next_start = identity(paths, storage, "correct horse", seed=2)
        print(
            json.dumps(
                {
                    "killed": status == 9,
                    "secret_kept": kept,
                    "node_id": next_start.node_id,
                    "later": identity(paths, storage, "correct horse", seed=3).node_id,
                    "files": sorted(files(paths)),
                }
            )
        )
        if status == 0:
            return


def _exit_at(step: int, root: str) -> None:
    """End this process, without any clean-up, at the given step from now."""
    left = step

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        touches = event in ("open", "os.mkdir", "os.rename", "os.remove") and str(arguments[0]).startswith(root)
        if touches or event == "fcntl.flock":
            left -= 1
            if left < 0:
                os._exit(9)

    sys.addaudithook(watch)


@pytest.mark.parametrize("storage", ["plain-file", "encrypted-file"])
def test_a_start_killed_at_any_step_loses_nothing_and_leaves_no_half_identity(
    tmp_path: Path, storage: StorageChoice
) -> None:
    code = f"from tests.io.test_keychain import *; kill_at_every_step({str(tmp_path)!r}, {storage!r})"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    starts = [json.loads(line) for line in done.stdout.splitlines()]
    first, second = (Identity.from_seed(random.Random(seed).randbytes(32)).node_id for seed in (1, 2))
    assert [start["killed"] for start in starts] == [True] * (len(starts) - 1) + [False]
    assert len(starts) > 6
    assert {start["secret_kept"] for start in starts} == {True, False}
    for start in starts:
        assert start["node_id"] == start["later"] == (first if start["secret_kept"] else second)
        assert start["files"] == ["identity.json", "identity.key"]
