"""The two ends of a conversation in processes of their own, for one stack of protocols after the other.

The server answers every message with ANSWER. So one exchange measures everything: messages of a mebibyte with a
few in flight are bulk, small ones are rate, and one at a time is the round trip. On a stack that carries bytes and
not messages, a connection begins with the size of its messages as four bytes.

An end is called as `END serve`, and says on its first line where it is reached; or as `END client ADDRESS WHAT
[COUNT …]`, and says in JSON what came of it. `hold` keeps connections open until its input ends.
"""

import sys
from typing import Final

import msgspec

SMALL: Final = 100
LARGE: Final = 1 << 20
ANSWER: Final = b'"' + b"a" * (SMALL - 2) + b'"'
"""A JSON string, so that it can be part of any message."""
HEADER_BYTES: Final = 4


class Exchange(msgspec.Struct, frozen=True):
    """So many messages of one size, at most `window` of which wait for their answers."""

    size: int
    count: int
    window: int

    def message(self) -> bytes:
        """Return what is sent again and again."""
        return ANSWER if self.size == SMALL else ANSWER * (self.size // SMALL) + b"z" * (self.size % SMALL)


WARM: Final = Exchange(SMALL, 200, 4)


def exchange_named(what: str, count: int) -> Exchange:
    """Return the exchange that measures `bulk`, `ping` or `rate`."""
    size, window = {"bulk": (LARGE, 8), "ping": (SMALL, 1), "rate": (SMALL, 64)}[what]
    return Exchange(size, count, window)


def figure_of(exchange: Exchange, seconds: float) -> float:
    """Return MB/s of bulk, µs of a round trip, or messages a second."""
    if exchange.size == LARGE:
        return exchange.size * exchange.count / seconds / 1e6
    return seconds / exchange.count * 1e6 if exchange.window == 1 else exchange.count / seconds


def say(value: object) -> None:
    """Print one line of JSON at once."""
    print(msgspec.json.encode(value).decode(), flush=True)


def wait_for_end_of_input() -> None:
    """Block until whoever started this process is done with it."""
    sys.stdin.read()
