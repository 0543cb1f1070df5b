"""Where a node keeps its files, and how they are written so that a crash leaves the old or the new one.

`$TEALE_HOME` puts everything below one folder, so that several nodes can run on one machine; without it the
operating system's customary places are used. Files are private to their owner: mode 0600 in folders of 0700.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import platformdirs

from teale_proto.wire.fields import Id, Port

_LOOPBACK_OF: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - translated, never bound
"""Where to reach a server that listens on every address."""


class Paths(msgspec.Struct, frozen=True):
    """The files of one node."""

    home: Path
    """The folder that makes this node another one than its neighbour on the same machine."""
    config_file: Path
    identity_marker: Path
    """Public: which node this is and where its secret is kept. It is never written before the secret is safe."""
    identity_secret: Path
    runtime_file: Path
    log_file: Path

    @classmethod
    def find(cls, environ: Mapping[str, str] | None = None) -> "Paths":
        """Return the places for `environ`, by default that of the process; nothing is created."""
        chosen = (os.environ if environ is None else environ).get("TEALE_HOME", "")
        if chosen:
            return cls.below(Path(chosen))
        dirs = platformdirs.PlatformDirs("teale", appauthor=False)
        home = dirs.user_data_path
        return cls(
            home=home,
            config_file=dirs.user_config_path / "config.toml",
            identity_marker=home / "identity.json",
            identity_secret=home / "identity.key",
            runtime_file=dirs.user_state_path / "node.json",
            log_file=dirs.user_log_path / "node.log",
        )

    @classmethod
    def below(cls, home: Path) -> "Paths":
        """Return the places for a node that keeps everything below `home`."""
        home = Path(os.path.abspath(home.expanduser()))
        return cls(
            home=home,
            config_file=home / "config.toml",
            identity_marker=home / "identity.json",
            identity_secret=home / "identity.key",
            runtime_file=home / "node.json",
            log_file=home / "node.log",
        )


class Runtime(msgspec.Struct, frozen=True):
    """What a running node says of itself in the runtime file, once its API is up."""

    pid: int
    api_host: str
    api_port: Port
    node_id: Id

    @property
    def api_url(self) -> str:
        """The root of the local API, as seen from this machine."""
        host = _LOOPBACK_OF.get(self.api_host, self.api_host)
        return f"http://[{host}]:{self.api_port}" if ":" in host else f"http://{host}:{self.api_port}"


def write_runtime(paths: Paths, runtime: Runtime) -> None:
    """Publish where the running node is reached."""
    write_atomically(paths.runtime_file, msgspec.json.encode(runtime) + b"\n")


def read_runtime(paths: Paths) -> Runtime | None:
    """Return what the last node said of itself, or None; a file that makes no sense counts as none."""
    try:
        return msgspec.json.decode(read_bounded(paths.runtime_file, size_max=4096), type=Runtime)
    except (OSError, ValueError, msgspec.DecodeError):
        return None


def remove_runtime(paths: Paths) -> None:
    """Forget the running node; it is no error if it was forgotten already."""
    paths.runtime_file.unlink(missing_ok=True)


def make_private_folder(folder: Path) -> None:
    """Create `folder` and what is missing above it; the new folders are for their owner alone."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


def read_bounded(file: Path, *, size_max: int) -> bytes:
    """Return the content of `file`; raises ValueError where it is larger than `size_max` bytes, and OSError."""
    with file.open("rb") as stream:
        content = stream.read(size_max + 1)
    if len(content) > size_max:
        raise ValueError(f"{file} is larger than {size_max} bytes")
    return content


def write_atomically(file: Path, content: bytes) -> None:
    """Replace `file` by `content`, mode 0600: whoever reads, and whatever crashes, it is the old or the new one.

    A symbolic link stays one: what it points to is replaced.
    """
    target = Path(os.path.realpath(file))
    make_private_folder(target.parent)
    descriptor, name = tempfile.mkstemp(prefix=unfinished_prefix(target), dir=target.parent)  # makes mode 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    _sync_folder(target.parent)


def unfinished_prefix(file: Path) -> str:
    """Return how the names of files begin that are to become `file` and may have been left by a crash."""
    return f".{file.name}.unfinished-"


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut; Windows cannot open folders and needs no such thing."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold(file: Path) -> bool:
    """Lock `file` for as long as this process lives; return False where another process holds it."""
    make_private_folder(file.parent)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    return True


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep other processes out of a read-modify-write of `file`; the lock goes with the process that holds it."""
    make_private_folder(file.parent)
    descriptor = os.open(file.with_name(f".{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
