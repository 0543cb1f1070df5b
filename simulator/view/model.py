"""What the page is made of, as values; their JSON is the data that the page's program reads.

Rows that come in thousands are arrays, so that a page with many of them stays small. Instants are in microseconds of
the run; those of a step count from the ask of its request. Hosts are named by their place in `World.hosts`.
"""

from enum import IntEnum
from typing import Final

from teale_proto.contract import Duration, Instant, Value

PAGE_BYTES_MAX: Final = 10_000_000
NOBODY: Final = -1
UNKNOWN: Final = -1
"""An instant or a size that there is not."""
UNTOLD: Final = -2
"""An instant that there may have been; the trace does not tell."""


class Between(IntEnum):
    """How two hosts reach each other, the least preferred last."""

    NOTHING = 0
    LAN = 1
    DIRECT = 2
    RELAY = 3


ONE_SIDED: Final = 4
"""Added to a Between where only one of the two holds the other for reachable."""


class Box(Value):
    """What stands between hosts and the internet."""

    code: str
    """In the terms of RFC 4787; "" for nothing."""
    title: str
    words: str


class Host(Value):
    """A host, as the topology shows it."""

    name: str
    role: str
    """`node`, `relay` or `server`."""
    site: str
    """The segment that it shares with its neighbours; "" on the open internet."""
    box: int
    """Its place in `World.boxes`."""
    addresses: tuple[str, ...]
    is_shown: bool
    """Whether the topology has it; of a large world, only some."""


class Life(Value, array_like=True):
    """A host began to live, or ended."""

    at: Instant
    host: int
    is_alive: bool


class PathChange(Value, array_like=True):
    """From now on, two hosts reach each other like this."""

    at: Instant
    one: int
    other: int
    between: int
    """A Between, and ONE_SIDED on top."""


class Happening(Value):
    """What was done to the world."""

    at: Instant
    host: str
    """A host or a site; "" for nobody in particular."""
    kind: str
    detail: str


class Step(Value, array_like=True):
    """One message from one host to another, or one thing that happened at a host, while a request was under way."""

    at: Duration
    host: int
    """NOBODY for what befell the world."""
    to: int
    """NOBODY for what is no message."""
    arrived: Duration
    """When all of it had arrived; UNKNOWN for what did not, and for what is no message; or UNTOLD."""
    size_bytes: int
    label: int
    """Its place in `World.labels`."""
    is_own: bool
    """Whether it is known to be of this request, and not just of the same hosts at the same time."""


class Request(Value):
    """One request, with all that happened for it."""

    name: str
    asker: int
    nth: int
    """Which of its asker's requests this is, from 0: the same in both worlds."""
    model: str
    streaming: bool
    asked_at: Instant
    first_at: Instant
    ended_at: Instant
    outcome: str
    path: str
    server: int
    attempts: int
    tokens_in: int
    tokens_out: int
    marks: tuple[int, ...]
    """How long after the ask the server began, had the first piece, and had the last; UNKNOWN where it did not."""
    steps: tuple[Step, ...]
    cut_at: int = NOBODY
    """Before which step some are missing."""
    cut: int = 0
    """How many are missing there."""
    prompt: str = ""
    answer: str = ""


class World(Value):
    """One run."""

    label: str
    """`simulated` or `lab`."""
    scenario: str
    seed: int
    command: str
    made_by: str
    checks: int
    checks_failed: int
    lasts: Duration
    boxes: tuple[Box, ...]
    hosts: tuple[Host, ...]
    lives: tuple[Life, ...]
    paths: tuple[PathChange, ...]
    happenings: tuple[Happening, ...]
    labels: tuple[str, ...]
    requests: tuple[Request, ...]
    asked: int
    """How many requests there were, also those that are not here."""
    left_out: tuple[str, ...]
    """What is not here, in sentences."""


class View(Value):
    """Everything that the page shows: one world, or two beside each other."""

    with_texts: bool
    worlds: tuple[World, ...]
