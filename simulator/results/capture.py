"""What a run sent, as a capture that Wireshark opens.

The simulator carries writes and messages, not segments, so the packets are made up around them: every connection gets
a handshake at the instant of its first bytes, then segments with running sequence numbers at the instant at which
they were handed to the network. There is no loss, no retransmission and no closing here; those have no bytes of their
own in the simulator, and what happened to a connection is in the trace. A WebSocket gets its upgrade and its frames.
"""

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha1
from typing import BinaryIO, Final

from simulator.results.packets import (
    ACK,
    PSH,
    SYN,
    UDP_DATA_MAX,
    IpAddress,
    parsed,
    tcp,
    udp,
    websocket,
)
from simulator.results.pcapng import PcapngWriter
from teale_proto.contract import Instant
from teale_proto.inputs import Address

FLOWS_MAX: Final = 65_536
"""Connections whose sequence numbers are remembered; one that was forgotten begins anew."""

_SEGMENT_BYTES: Final = 1440
"""What fits into 1 500 bytes beside the headers of IPv6 and TCP."""

_WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class _Flow:
    """One connection: who opened it, and how far each direction has come."""

    __slots__ = ("client", "sent", "server")

    def __init__(self, client: Address, server: Address) -> None:
        self.client = client
        self.server = server
        self.sent = {client: 0, server: 0}


class Capture:
    """Writes packets to an open file; raises OSError as the file does."""

    def __init__(self, file: BinaryIO, *, unix_time_at_zero: Instant, flows_max: int = FLOWS_MAX) -> None:
        self._writer = PcapngWriter(file, application="teale-sim")
        self._epoch = unix_time_at_zero
        self._flows_max = flows_max
        self._flows: dict[int, _Flow] = {}
        self.skipped = 0
        """What was left out: what has no IP address or fits into no packet."""

    def datagram(self, at: Instant, source: Address, target: Address, data: bytes) -> None:
        """Add a UDP datagram."""
        ends = _ends(source, target)
        if ends is None or len(data) > UDP_DATA_MAX:
            self.skipped += 1
        else:
            self._writer.packet(self._epoch + at, udp(ends[0], source.port, ends[1], target.port, data))

    def knows(self, connection: int) -> bool:
        """Return whether a connection was opened here, and not forgotten since."""
        return connection in self._flows

    def open(self, at: Instant, connection: int, client: Address, server: Address, *, websocket_host: str = "") -> None:
        """Add the handshake of a connection, and the upgrade of a WebSocket (a host other than "")."""
        if len(self._flows) >= self._flows_max:
            del self._flows[next(iter(self._flows))]
        flow = self._flows[connection] = _Flow(client, server)
        self._segment(at, flow, client, SYN)
        flow.sent[client] += 1
        self._segment(at, flow, server, SYN | ACK)
        flow.sent[server] += 1
        self._segment(at, flow, client, ACK)
        if websocket_host:
            key = b64encode(connection.to_bytes(16, "big"))
            self._stream(at, flow, client, _upgrade(websocket_host.encode(), key))
            self._stream(at, flow, server, _upgraded(key))

    def stream(self, at: Instant, connection: int, *, from_client: bool, data: bytes) -> None:
        """Add what one side wrote on a connection that is known."""
        flow = self._flows[connection]
        self._stream(at, flow, flow.client if from_client else flow.server, data)

    def message(self, at: Instant, connection: int, *, from_client: bool, data: bytes) -> None:
        """Add a message on a WebSocket that is known."""
        text = not data[:1] or data[:1] in b"{["
        self.stream(at, connection, from_client=from_client, data=websocket(data, masked=from_client, text=text))

    def finish(self, names: Iterable[tuple[str, str]]) -> None:
        """Add what addresses are called, and no more; the file stays open."""
        known = ((parsed(host), name) for host, name in names)
        self._writer.names([(address, name) for address, name in known if address is not None])

    def _stream(self, at: Instant, flow: _Flow, source: Address, data: bytes) -> None:
        for start in range(0, len(data), _SEGMENT_BYTES):
            piece = data[start : start + _SEGMENT_BYTES]
            last = start + _SEGMENT_BYTES >= len(data)
            self._segment(at, flow, source, ACK | PSH if last else ACK, piece)
            flow.sent[source] += len(piece)

    def _segment(self, at: Instant, flow: _Flow, source: Address, flags: int, data: bytes = b"") -> None:
        target = flow.server if source is flow.client else flow.client
        ends = _ends(source, target)
        if ends is None:
            self.skipped += bool(data)
            return
        packet = tcp(
            ends[0],
            source.port,
            ends[1],
            target.port,
            sequence=flow.sent[source] & 0xFFFFFFFF,
            acknowledged=flow.sent[target] & 0xFFFFFFFF if flags & ACK else 0,
            flags=flags,
            data=data,
        )
        self._writer.packet(self._epoch + at, packet)


def _ends(source: Address, target: Address) -> tuple[IpAddress, IpAddress] | None:
    """Return both addresses, or None where they are no two of one IP version."""
    here, there = parsed(source.host), parsed(target.host)
    if here is None or there is None or here.version != there.version:
        return None
    return here, there


def _upgrade(host: bytes, key: bytes) -> bytes:
    head = b"GET /ws HTTP/1.1\r\nHost: " + host + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head + b"Sec-WebSocket-Key: " + key + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"


def _upgraded(key: bytes) -> bytes:
    accept = b64encode(sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
