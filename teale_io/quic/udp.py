"""Datagrams in batches: one system call for many, where the system can.

Linux joins datagrams of one sender into one buffer (UDP_GRO) and cuts one buffer into datagrams (UDP_SEGMENT);
`qh3` brings a socket state that also reads several buffers at once. Without either, datagrams go one by one, and
nothing else changes. Datagrams are never fragmented, as RFC 9000, section 14 demands.
"""

import errno
import importlib
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

SocketName: TypeAlias = tuple[Any, ...]
Arrived: TypeAlias = tuple[bytes, SocketName]

BUFFER_BYTES: Final = 64 * 1024
SOCKET_BUFFER_BYTES: Final = 4 << 20
READS_PER_TURN: Final = 32
"""So many system calls read before what they brought is worked on."""

SEGMENTS_MAX: Final = 64
SEGMENTED_BYTES_MAX: Final = 65_000

_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_SIZE: Final = struct.Struct("@i")
_SEGMENT_SIZE: Final = struct.Struct("@H")
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_NEVER_FRAGMENT: Final = 3
"""IP_PMTUDISC_PROBE: set the bit that forbids it, and let us find out what fits."""

_WAIT: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS)
_NO_SEGMENTATION: Final = (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT)


class Udp(Protocol):
    """A bound UDP socket."""

    @property
    def sock(self) -> socket.socket:
        """The socket itself."""

    def read(self) -> list[Arrived]:
        """Return what has arrived, up to a bound; nothing where there is no more. Raises nothing."""

    def write(self, datagrams: Sequence[bytes], name: SocketName) -> int:
        """Send datagrams and return how many the system took; those that it can never take count as taken."""


def prepare(sock: socket.socket) -> None:
    """Set what every socket for QUIC needs, as far as the system knows of it."""
    sock.setblocking(False)
    _try(sock, socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    _try(sock, socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    if sys.platform == "linux":
        _try(sock, socket.IPPROTO_IP, _IP_MTU_DISCOVER, _NEVER_FRAGMENT)
        if sock.family == socket.AF_INET6:
            _try(sock, socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _NEVER_FRAGMENT)


def _try(sock: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


class PlainUdp:
    """UDP through the standard library, with the kernel's own batching where it is there."""

    def __init__(self, sock: socket.socket, *, offload: bool = True) -> None:
        prepare(sock)
        self.sock: Final = sock
        linux = offload and sys.platform == "linux"
        self._joins = linux and _try(sock, socket.IPPROTO_UDP, _UDP_GRO, 1)
        self._cuts = linux and _try(sock, socket.IPPROTO_UDP, _UDP_SEGMENT, 0)
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)

    def read(self) -> list[Arrived]:
        """Return what has arrived, up to a bound; nothing where there is no more."""
        found: list[Arrived] = []
        for _ in range(READS_PER_TURN):
            try:
                if self._joins:
                    size, ancillary, _, name = self.sock.recvmsg_into([self._buffer], socket.CMSG_SPACE(_SIZE.size))
                else:
                    size, name = self.sock.recvfrom_into(self._buffer)
                    ancillary = []
            except OSError:  # nothing more; or the news that an earlier datagram was not wanted
                break
            step = _joined_size(ancillary) or size
            found += [(bytes(self._view[at : min(at + step, size)]), name) for at in range(0, size, step or 1)]
        return found

    def write(self, datagrams: Sequence[bytes], name: SocketName) -> int:
        """Send datagrams and return how many the system took; those that it can never take count as taken."""
        sent = 0
        while sent < len(datagrams):
            count = _equal_run(datagrams, sent) if self._cuts else 1
            try:
                if count > 1:
                    size = _SEGMENT_SIZE.pack(len(datagrams[sent]))
                    cut = [(socket.IPPROTO_UDP, _UDP_SEGMENT, size)]
                    self.sock.sendmsg(datagrams[sent : sent + count], cut, 0, name)
                else:
                    self.sock.sendto(datagrams[sent], name)
            except OSError as error:
                if error.errno in _WAIT:
                    return sent
                if count > 1 and error.errno in _NO_SEGMENTATION:
                    self._cuts = False
                    continue
                # Too large for the path, or no way there: lost, as datagrams may be.
            sent += count
        return sent


class FastUdp:
    """UDP through qh3's socket state: several joined buffers with one system call."""

    def __init__(self, sock: socket.socket) -> None:
        prepare(sock)
        self.sock: Final = sock
        self._state: Any = importlib.import_module("qh3._hazmat").UdpSocketState(sock.fileno())

    def read(self) -> list[Arrived]:
        """Return what has arrived, up to a bound; nothing where there is no more."""
        try:
            found: list[Arrived] = self._state.recv()
        except OSError:
            return []
        return found

    def write(self, datagrams: Sequence[bytes], name: SocketName) -> int:
        """Send datagrams and return how many the system took; those that it can never take count as taken."""
        sent = 0
        while sent < len(datagrams):
            try:
                taken: int = self._state.send(list(datagrams[sent:]) if sent else datagrams, name)
            except OSError as error:
                sent += getattr(error, "datagrams_sent", 0)
                if error.errno in _WAIT:
                    return sent
                sent += 1  # too large for the path, or no way there: lost, as datagrams may be
                continue
            if not taken:
                return sent
            sent += taken
        return sent


def _joined_size(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_UDP and kind == _UDP_GRO and len(data) >= _SIZE.size:
            size: int = _SIZE.unpack_from(data)[0]
            return size
    return 0


def _equal_run(datagrams: Sequence[bytes], start: int) -> int:
    """Return how many datagrams from `start` on can leave as one buffer: all as long as the first, the last shorter."""
    size = len(datagrams[start])
    most = min(SEGMENTS_MAX, SEGMENTED_BYTES_MAX // max(size, 1), len(datagrams) - start)
    for count in range(1, most):
        following = len(datagrams[start + count])
        if following != size:
            return count + 1 if 0 < following < size else count
    return max(most, 1)


def open_udp(sock: socket.socket, stack: str) -> Udp:
    """Return the best way to use a bound socket with a QUIC library; the socket belongs to it from then on."""
    if stack == "qh3" and sys.platform != "win32":
        return FastUdp(sock)
    return PlainUdp(sock)


def bind_udp(host: str, port: int) -> socket.socket:
    """Return a bound UDP socket; "" is every interface in IPv4 and IPv6, port 0 a free one. Raises OSError."""
    if not host and socket.has_dualstack_ipv6():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        name: SocketName = ("::", port)
    else:
        family, *_, name = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_DGRAM)[0]  # noqa: S104
        sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if not host and sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(name)
    except OSError:
        sock.close()
        raise
    return sock
