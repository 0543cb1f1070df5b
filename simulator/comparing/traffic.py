"""What goes through relays: messages and bytes, in and out, and of those that come in, how many of each kind."""

import re
from collections import Counter
from typing import Any, Final

from simulator.comparing.cast import Cast
from simulator.comparing.measured import Figure, Measure
from simulator.trace import Entry
from teale_proto.effects import SendData, SendText
from teale_proto.inputs import DataReceived, MessagesReceived

BINARY: Final = "binary"
_KIND: Final = re.compile(rb'^\{"type":"(\w{1,40})"')


class Traffic:
    """Counts what relays receive and send."""

    KINDS: Final = (DataReceived, MessagesReceived, SendData, SendText)

    def __init__(self, cast: Cast) -> None:
        self._relays = cast.relays
        self._counts: Counter[Figure] = Counter()

    def observe(self, entry: Entry) -> None:
        """Count an entry."""
        relay, value = entry.host, entry.value
        if relay not in self._relays:
            return
        if isinstance(value, DataReceived):
            self._came_in(relay, value.data)
        elif isinstance(value, MessagesReceived):
            for data in value.messages:
                self._came_in(relay, data)
        else:
            sent: Any = value
            self._counts[Figure(Measure.MESSAGES_OUT, relay)] += 1
            self._counts[Figure(Measure.BYTES_OUT, relay)] += len(sent.data)

    def samples(self) -> dict[Figure, list[int]]:
        """Return what was counted so far."""
        return {figure: [count] for figure, count in sorted(self._counts.items(), key=lambda each: each[0].what)}

    def _came_in(self, relay: str, data: bytes) -> None:
        found = _KIND.match(data)
        kind = BINARY if found is None else found[1].decode()
        self._counts[Figure(Measure.MESSAGES_IN, relay)] += 1
        self._counts[Figure(Measure.MESSAGE_KINDS, f"{relay}, {kind}")] += 1
        self._counts[Figure(Measure.BYTES_IN, relay)] += len(data)
