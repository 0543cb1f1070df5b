"""A capsule: everything that it takes to see one broken rule again, in one JSON file.

The settled description and the seed are the whole truth about a run, so they are what replays it; the rest says what
to look for and which code it was. A capsule comes from anywhere (an issue, a mail), so a file is believed as little as
a peer: its size and the size of its world are bounded before anything is built from it.
"""

import re
from functools import cache
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from simulator.fuzz.values import Broken, Size
from simulator.results.folder import check_writable, replace_file
from simulator.spec.world_spec import FORMAT as SPEC_FORMAT
from simulator.spec.world_spec import WorldSpec
from teale_proto.contract import Value

FORMAT: Final = 1
"""The version of this form; a file of a later one is refused."""

CAPSULE_BYTES_MAX: Final = 8 << 20
HOSTS_MAX: Final = 10_000
SECONDS_MAX: Final = 7 * 86_400.0
ITEMS_MAX: Final = 100_000
"""Requests, faults or trace lines that one capsule may hold."""

TAIL: Final = 60
"""Entries of the trace that are kept for people to read."""

PACKAGES: Final = ("teale_proto", "simulator")
"""Whose source decides what a run does."""


class CapsuleError(Exception):
    """A capsule that cannot be read or written; the text says which, and what was expected."""


class Code(Value):
    """Which program it was."""

    version: str
    commit: str | None
    """The commit of the working tree, where there is one; it may have been changed since."""
    source: str
    """A digest of the source itself, which tells changes that are in no commit."""


class Capsule(Value, forbid_unknown_fields=True, kw_only=True):
    """One broken rule, and the world that breaks it."""

    format: int = FORMAT
    seed: int
    spec: WorldSpec
    """Settled, and shrunk where there was time for it."""
    broken: Broken
    digest: str
    """The digest of the trace up to and including the violation."""
    entries: int
    """How many entries the trace has by then."""
    found: Size
    """The world in which it was found, before shrinking."""
    code: Code
    tail: tuple[str, ...] = ()

    def json(self) -> bytes:
        """Return the capsule as JSON."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

    @property
    def file_name(self) -> str:
        """A name for its file: which seed broke which rule."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.broken.rule.lower()).strip("-")[:60]
        return f"seed-{self.seed}-{slug}.json"


def check_folder(folder: Path) -> None:
    """Raise CapsuleError unless capsules can be written into a folder, or it can be made: before it is needed."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise CapsuleError(f"{there}: is not a directory")
    try:
        check_writable(there)
    except OSError as error:
        raise CapsuleError(f"{folder}: cannot be written: {error.strerror}") from error


def save(capsule: Capsule, folder: Path) -> Path:
    """Write a capsule into a folder, which is made where it is missing; returns the file. Raises CapsuleError."""
    path = folder / capsule.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, capsule.json())
    except OSError as error:
        raise CapsuleError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def load(path: Path) -> Capsule:
    """Return the capsule in a file.

    Raises CapsuleError for a file that cannot be read, is too large, is no capsule or of a later version, or that
    describes a world larger than a capsule may.
    """
    try:
        with path.open("rb") as file:
            data = file.read(CAPSULE_BYTES_MAX + 1)
    except OSError as error:
        raise CapsuleError(f"{path}: {error.strerror or error}") from error
    try:
        return decode(data)
    except CapsuleError as error:
        raise CapsuleError(f"{path}: {error}") from error


def decode(data: bytes) -> Capsule:
    """Return the capsule that some bytes are; raises CapsuleError as `load` does."""
    if len(data) > CAPSULE_BYTES_MAX:
        raise CapsuleError(f"too large for a capsule; at most {CAPSULE_BYTES_MAX} bytes")
    try:
        raw = msgspec.json.decode(data)
        _check(raw)
        return msgspec.convert(raw, Capsule)
    except RecursionError as error:
        raise CapsuleError("not a capsule: too deeply nested") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CapsuleError(f"not a capsule: {error}") from error


def _check(raw: Any) -> None:
    """Refuse what would take too much to be built, before the types of the description count its hosts."""
    if not isinstance(raw, dict):
        raise CapsuleError("not a capsule: expected a JSON object")
    spec = raw.get("spec")
    for place, version, newest in (
        ("format", raw.get("format"), FORMAT),
        ("spec.format", spec.get("format", SPEC_FORMAT) if isinstance(spec, dict) else SPEC_FORMAT, SPEC_FORMAT),
    ):
        if type(version) is not int or version < 1:
            raise CapsuleError(f"not a capsule: `{place}` must be a positive integer")
        if version > newest:
            raise CapsuleError(f"`{place}` is {version}, and this program reads up to {newest}: a newer one is needed")
    if not isinstance(spec, dict):
        raise CapsuleError("not a capsule: `spec` must be an object")
    hosts = len(_items(spec, "relays"))
    for number, population in enumerate(_items(spec, "populations")):
        count = population.get("count", 10) if isinstance(population, dict) else 0
        if type(count) is not int:
            raise CapsuleError(f"not a capsule: `spec.populations[{number}].count` must be an integer")
        hosts += count
    for field, size, size_max in (
        ("hosts", hosts, HOSTS_MAX),
        ("models", _number(spec.get("models"), "count"), ITEMS_MAX),
        ("words of one request", max((_number(ask, "words") for ask in _items(spec, "asks")), default=0), ITEMS_MAX),
        ("seconds", spec.get("lasts", 0.0), SECONDS_MAX),
        ("requests", len(_items(spec, "asks")), ITEMS_MAX),
        ("faults", len(_items(spec, "faults")), ITEMS_MAX),
        ("lines of trace", len(_items(raw, "tail")), ITEMS_MAX),
    ):
        if isinstance(size, int | float) and size > size_max:
            raise CapsuleError(f"{size:g} {field} are too many for a capsule; at most {size_max:g}")
    if spec.get("requests") is not None or spec.get("random_faults") is not None:
        raise CapsuleError("not a capsule: its description is not settled, and leaves something to chance")


def _number(table: object, field: str) -> float:
    found = table.get(field) if isinstance(table, dict) else 0
    return found if isinstance(found, int | float) else 0


def _items(table: dict[str, Any], field: str) -> list[Any]:
    found = table.get(field)
    return found if isinstance(found, list) else []


# Which program this is.


@cache
def this_code() -> Code:
    """Return what identifies the code that is running."""
    root = Path(__file__).resolve().parents[2]
    try:
        version = metadata.version("teale")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return Code(version, commit_of(root), _source_digest(root))


def commit_of(root: Path) -> str | None:
    """Return the commit that is checked out in a folder, read from its `.git`; None where there is none."""
    try:
        git = root / ".git"
        if git.is_file():
            # A worktree's `.git` is a file that says where the real one is.
            git = (root / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        name = head.removeprefix("ref:").strip()
        if name == head:
            return _as_commit(head)
        common = git / "commondir"
        shared = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else git
        for place in (git, shared):
            if (place / name).is_file():
                return _as_commit((place / name).read_text(encoding="utf-8").strip())
        for line in (shared / "packed-refs").read_text(encoding="utf-8").splitlines():
            if line.endswith(f" {name}"):
                return _as_commit(line.split(" ", 1)[0])
    except (OSError, UnicodeDecodeError):
        pass
    return None


def _as_commit(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", text) else None


def _source_digest(root: Path) -> str:
    digest = blake2b(digest_size=16)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            text = path.read_bytes()
            name = path.relative_to(root).as_posix().encode()
            digest.update(len(name).to_bytes(4, "big") + name + len(text).to_bytes(8, "big") + text)
    return digest.hexdigest()
