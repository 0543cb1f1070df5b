"""UDP sockets for cores that speak in datagrams: all of them in one task, and none of them ever waits.

A datagram that the system does not take at once is lost, as one that got lost on its way: whoever waits for the
answer sends again. ICMP errors, which arrive as errors of some later call, say nothing that a forger could not
say, and are dropped too.

A socket that is bound to all addresses still tells at which of them a datagram came in, and answers from there:
behind several addresses, or a NAT, an answer from another one would go astray.
"""

import selectors
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from struct import Struct
from typing import Any, Final, TypeAlias

import trio

from teale_io.runner import Performers
from teale_io.stream import address_of
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError
from teale_proto.inputs import Address, DatagramReceived

DATAGRAM_BYTES_MAX: Final = 2048
"""More than any path carries in one piece; what is longer is dropped."""
READS_PER_TURN: Final = 64
"""So many datagrams are read before other tasks have their turn."""
BUFFER_BYTES: Final = 1 << 20
"""What the kernel is asked to keep for each direction while somebody else has his turn."""

ANY_V4: Final = "0.0.0.0"  # noqa: S104 - to be compared with
ANY_V6: Final = "::"

_IP_PKTINFO: Final[int | None] = getattr(socket, "IP_PKTINFO", {"linux": 8, "darwin": 26}.get(sys.platform))
"""From <netinet/in.h>; Python's `socket` names it from 3.14 on."""
_PKTINFO_V4: Final = Struct("=I4s4s")
"""`struct in_pktinfo`: the interface, the address to send from, the address in the header."""
_PKTINFO_V6: Final = Struct("=16sI")
"""`struct in6_pktinfo`: the address and the interface (RFC 3542, section 6.1)."""
_ANCILLARY_BYTES: Final = 128

Feed: TypeAlias = Callable[[DatagramReceived], object]


class _Bound:
    """One socket, and its name."""

    __slots__ = ("address", "is_any", "is_v6", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.is_v6 = sock.family == socket.AF_INET6
        self.address = address_of(sock.getsockname())
        self.is_any = self.address.host in (ANY_V4, ANY_V6)


class DatagramSockets:
    """The UDP sockets of one core; a context that closes them.

    Use: `bind`, hand `performers` to the runner, start `run` as a task. Where `pause_seconds` is not 0, it is how
    long nothing is read after every full turn: in a flood the kernel then drops what is too much, which costs us
    nothing, and others have their share of the time.
    """

    def __init__(self, feed: Feed, *, pause_seconds: float = 0) -> None:
        self._feed: Final = feed
        self._pause_seconds: Final = pause_seconds
        self._selector: Final = selectors.DefaultSelector()
        self._bound: dict[Address, _Bound] = {}
        self.unsent = 0
        """How many datagrams the system did not take."""

    def __enter__(self) -> "DatagramSockets":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def performers(self) -> Performers:
        """What carries out the effects that concern datagrams."""
        return {SendDatagram: self.send}

    def bind(self, address: Address) -> Address:
        """Open a socket at an IP address, port 0 being a free one, and return its name.

        The unspecified address of a version is all addresses of that version, and of no other. Raises OSError, and
        LocalError for what is no IP address.
        """
        bound = _Bound(_bound_socket(address))
        self._bound[bound.address] = bound
        self._selector.register(bound.sock, selectors.EVENT_READ, bound)
        return bound.address

    def __contains__(self, address: Address) -> bool:
        """Return whether a socket of that name is open."""
        return address in self._bound

    def __len__(self) -> int:
        return len(self._bound)

    def __iter__(self) -> Iterator[Address]:
        """Iterate over the names of the sockets, in the order in which they were bound."""
        return iter(tuple(self._bound))

    def unbind(self, address: Address) -> None:
        """Close the socket of that name; what still waits in it is lost."""
        self.release(address).close()

    def release(self, address: Address) -> socket.socket:
        """Hand the socket of that name over to somebody else, as it is."""
        bound = self._bound.pop(address)
        self._selector.unregister(bound.sock)
        return bound.sock

    def close(self) -> None:
        """Close all sockets; may be called again."""
        for address in tuple(self._bound):
            self.unbind(address)
        self._selector.close()

    def send(self, effect: SendDatagram) -> None:
        """Send a datagram, or lose it; raises LocalError where no socket has its local address."""
        self.unsent += not _sent(self._socket_at(effect.local), effect)

    def _socket_at(self, local: Address) -> _Bound:
        bound = self._bound.get(local)
        if bound is None:
            bound = self._bound.get(Address(ANY_V6 if ":" in local.host else ANY_V4, local.port))
        if bound is None:
            raise LocalError(f"no socket is bound to {local.host} port {local.port}")
        return bound

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._selector.fileno())
            left = READS_PER_TURN
            ready: list[tuple[Any, int]] = self._selector.select(0)
            for key, _ in ready:
                # Each gets its part of the turn, so that none of them can starve another.
                left -= self._read(key.data, max(1, READS_PER_TURN // len(ready)))
            if left <= 0 and self._pause_seconds:
                await trio.sleep(self._pause_seconds)

    def _read(self, bound: _Bound, limit: int) -> int:
        """Read up to `limit` datagrams; return how many there were."""
        count = 0
        while count < limit and self._bound.get(bound.address) is bound:
            try:
                received = _receive(bound)
            except BlockingIOError:
                break
            except OSError:
                # The news of an earlier datagram that nobody took.
                received = None
            count += 1
            if received is not None:
                self._feed(received)
        return count


def _bound_socket(address: Address) -> socket.socket:
    name = _name(address)
    is_v6 = len(name) == 4
    sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if ip_address(address.host).is_unspecified:
            _tell_local_address(sock, is_v6=is_v6)
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        sock.bind(name)
    except BaseException:
        sock.close()
        raise
    return sock


def _tell_local_address(sock: socket.socket, *, is_v6: bool) -> None:
    if is_v6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    elif _IP_PKTINFO is None:
        raise OSError(None, "this system does not say to which address a datagram came; name the addresses")
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _receive(bound: _Bound) -> DatagramReceived | None:
    """Return the next datagram; None for one that is too long, or came to nobody knows which address of ours."""
    if not bound.is_any:
        data, name = bound.sock.recvfrom(DATAGRAM_BYTES_MAX + 1)
        if len(data) > DATAGRAM_BYTES_MAX:
            return None
        return DatagramReceived(bound.address, address_of(name), data)
    data, ancillary, flags, name = bound.sock.recvmsg(DATAGRAM_BYTES_MAX, _ANCILLARY_BYTES)
    host = _local_host(ancillary)
    if flags & socket.MSG_TRUNC or not host:
        return None
    return DatagramReceived(Address(host, bound.address.port), address_of(name), data)


def _local_host(ancillary: list[tuple[int, int, bytes]]) -> str:
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= _PKTINFO_V4.size:
            return socket.inet_ntop(socket.AF_INET, _PKTINFO_V4.unpack_from(data)[2])
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(data) >= _PKTINFO_V6.size:
            packed, interface = _PKTINFO_V6.unpack_from(data)
            host = socket.inet_ntop(socket.AF_INET6, packed)
            return f"{host}%{interface}" if packed[:2] == b"\xfe\x80" else host
    return ""


def _send(bound: _Bound, effect: SendDatagram, name: tuple[Any, ...]) -> None:
    if not bound.is_any or effect.local == bound.address:
        bound.sock.sendto(effect.data, name)
        return
    packed, scope = _source(effect.local.host)
    if bound.is_v6:
        control = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO_V6.pack(packed, scope)
    else:
        assert _IP_PKTINFO is not None, "else it could not have been bound"
        control = socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO_V4.pack(0, packed, packed)
    bound.sock.sendmsg((effect.data,), (control,), 0, name)


def send_from(sock: socket.socket, effect: SendDatagram) -> bool:
    """Send a datagram from a socket that somebody else reads; return whether the system took it.

    The system chooses the address that it comes from, where the socket is bound to several.
    """
    bound = _Bound(sock)
    bound.is_any = False
    return _sent(bound, effect)


def _sent(bound: _Bound, effect: SendDatagram) -> bool:
    name = _name(effect.remote)
    if bound.is_v6 is not (len(name) == 4):
        return False
    try:
        if effect.hop_limit is None:
            _send(bound, effect, name)
        else:
            _send_near(bound, effect, name, effect.hop_limit)
    except (OSError, OverflowError):
        # EAGAIN, a refusal that came by ICMP, no route, too long, no such scope: in any case one datagram is lost.
        return False
    return True


def _send_near(bound: _Bound, effect: SendDatagram, name: tuple[Any, ...], hop_limit: int) -> None:
    """Send with a hop limit of its own, which holds for the moment of the call; every system has it in this form."""
    level = socket.IPPROTO_IPV6 if bound.is_v6 else socket.IPPROTO_IP
    option = socket.IPV6_UNICAST_HOPS if bound.is_v6 else socket.IP_TTL
    usual = bound.sock.getsockopt(level, option)
    bound.sock.setsockopt(level, option, hop_limit)
    try:
        _send(bound, effect, name)
    finally:
        bound.sock.setsockopt(level, option, usual)


# Addresses are few and come again and again; to parse one takes longer than to send it a datagram.
@lru_cache(maxsize=4096)
def _name(address: Address) -> tuple[Any, ...]:
    """Return an address as the system wants it, of four parts for IPv6; raises LocalError for a host name."""
    try:
        parsed = ip_address(address.host)
    except ValueError:
        raise LocalError("datagrams are sent to IP addresses, not to names") from None
    if not isinstance(parsed, IPv6Address):
        return address.host, address.port
    host, _, scope = address.host.partition("%")
    return host, address.port, 0, _interface(scope)


@lru_cache(maxsize=256)
def _source(host: str) -> tuple[bytes, int]:
    name, _, scope = host.partition("%")
    return ip_address(name).packed, _interface(scope)


def _interface(scope: str) -> int:
    """Return the number of an interface that a scope names, 0 where there is none of that name."""
    if not scope or scope.isdecimal():
        return int(scope or 0)
    try:
        return socket.if_nametoindex(scope)
    except OSError:
        return 0
