"""Server-sent events out of a byte stream, after the event stream format of the HTML standard (section 9.2.6).

Works on bytes, so that neither a line end nor a character that is split between two reads is seen as anything
else. Only the data of events is of interest here.
"""

import re
from typing import Final

from teale_proto.errors import PeerError

EVENT_BYTES_MAX: Final = 4 * 2**20

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class EventReader:
    """Cuts a stream into the data of its events. Raises PeerError for one of more than `size_max` bytes."""

    __slots__ = ("_at_start", "_data", "_line", "_size", "_skip_newline", "size_max")

    def __init__(self, size_max: int = EVENT_BYTES_MAX) -> None:
        self.size_max = size_max
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._skip_newline = False
        self._at_start = True

    def feed(self, data: bytes) -> list[bytes]:
        """Take more of the stream and return the data of the events that it completes."""
        if not data:
            return []
        if self._skip_newline:
            # The line ended with the carriage return of the last read; this is the other half of its end.
            data = data.removeprefix(b"\n")
            self._skip_newline = False
        *lines, rest = _LINE_END.split(data)
        # A carriage return at the very end may be half of a line end.
        self._skip_newline = data.endswith(b"\r")
        events: list[bytes] = []
        for line in lines:
            self._extend(line)
            self._end_line(events)
        self._extend(rest)
        return events

    def finish(self) -> list[bytes]:
        """Return the data of a last event that the end of the stream cut short of its empty line."""
        events: list[bytes] = []
        self._end_line(events)
        self._end_event(events)
        return events

    def _extend(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self.size_max:
            raise PeerError(f"an event of more than {self.size_max} bytes")
        self._line += piece

    def _end_line(self, events: list[bytes]) -> None:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._at_start = False
        if not line:
            self._end_event(events)
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        else:
            # Comments and other fields count for nothing, so that keep-alives never add up.
            self._size -= len(line)

    def _end_event(self, events: list[bytes]) -> None:
        if self._data:
            events.append(b"\n".join(self._data))
        self._data = []
        self._size = 0
