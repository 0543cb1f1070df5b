"""Text out of a stream of token bytes: characters whole, stop sequences unseen.

A token may end in the middle of a character, and a stop sequence may spread over many tokens. What could
still become either is held back until it has shown what it is.
"""

import codecs
from collections.abc import Sequence


class StoppingText:
    """Turns pieces of UTF-8 into text that ends before the first stop sequence."""

    __slots__ = ("_decoder", "_held", "_stops", "stopped")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        """A stop sequence has been met: nothing more comes."""

    def feed(self, piece: bytes) -> str:
        """Take the bytes of one token and return the text that is certain now."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(piece)
        return self._release(self._undecided())

    def finish(self) -> str:
        """Return what was held back, at the end of the tokens."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(b"", final=True)
        return self._release(0)

    def _release(self, keep: int) -> str:
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def _undecided(self) -> int:
        """Return the length of the longest tail that is the beginning of a stop sequence."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
