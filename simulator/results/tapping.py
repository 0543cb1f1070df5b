"""From what the network shows of itself to a capture."""

from collections.abc import Iterable

from simulator.net.connection import Traffic
from simulator.results.capture import Capture
from teale_proto.contract import Instant
from teale_proto.inputs import Address


class Tap:
    """Passes what hosts send on to a capture, until its file fails; then `failure` says how."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self.failure: OSError | None = None
        self.is_done = False

    @property
    def skipped(self) -> int:
        """What the capture left out."""
        return self._capture.skipped

    def finish(self, names: Iterable[tuple[str, str]]) -> None:
        """Add what addresses are called, and no more; raises OSError as the file does."""
        self.is_done = True
        if self.failure is None:
            self._capture.finish(names)

    def stream(self, traffic: Traffic) -> None:
        """Add a write or a message, and the beginning of its connection when it is the first of it."""
        if self.is_done or self.failure is not None or traffic.in_datagrams:
            return
        capture, connection = self._capture, traffic.connection
        try:
            if not capture.knows(connection):
                to = traffic.target if traffic.by_client else traffic.source
                host = to if traffic.whole else ""
                capture.open(traffic.at, connection, traffic.client, traffic.server, websocket_host=host)
            add = capture.message if traffic.whole else capture.stream
            add(traffic.at, connection, from_client=traffic.by_client, data=traffic.data)
        except OSError as error:
            self.failure = error

    def datagram(self, at: Instant, source: Address, target: Address, data: bytes) -> None:
        """Add a datagram, as its sender sees it."""
        if self.is_done or self.failure is not None:
            return
        try:
            self._capture.datagram(at, source, target, data)
        except OSError as error:
            self.failure = error
