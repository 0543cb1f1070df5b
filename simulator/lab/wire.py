"""What lies between all sites: distance, weather and queues for IP packets, without a clock or a device.

A packet goes in with the time, waits in a heap and comes out when it is due. It meets what a datagram meets in the
simulator (`simulator.net.packets`), in the same order: the queue of its sender's line, that line's distance and
weather, the way between two regions, and the same once more downwards. Lines, bursts and queues are the simulator's
own; only the rest of chance is drawn from here, for on real kernels no run is like another anyway.

What is damaged has one bit of its payload turned over while the checksums stay as they were, so that the receiving
kernel drops it. A line with a smaller MTU than 1500 takes that out of the handshakes of TCP, as routers do.
"""

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from random import Random
from socket import inet_aton
from typing import Final, TypeAlias

from simulator.net.link import Link, Port
from simulator.net.packets import HOPS_ACROSS
from simulator.net.regions import Regions
from simulator.rng import stream
from teale_proto.contract import Instant

_WEATHER: Final = 0
"""The next thing to happen to a packet: it meets the weather of the line that it comes down by."""
_QUEUE: Final = 1
"""It takes its place before that line."""
_DELIVERY: Final = 2

HEADERS_BYTES: Final = 28
"""IPv4's and UDP's; what comes after them is payload, of TCP too but for a few bytes (RFC 791, RFC 768)."""

_TCP: Final = 6
_SYN: Final = 2
_MSS: Final = 2
_MTU_USUAL: Final = 1500


class Line(Port):
    """The line of a site or of a server, with the addresses that are found at its end."""

    __slots__ = ("addresses", "number")

    def __init__(self, number: int, name: str, link: Link, *, region: str = "") -> None:
        super().__init__(name, link, region=region)
        self.number: Final = number
        self.addresses: tuple[str, ...] = ()


_Entry: TypeAlias = tuple[Instant, int, int, Line, Line, bytes]
Delivery: TypeAlias = tuple[Instant, Line, bytes]
"""When it was due, where to, and the packet."""


class Wire:
    """All packets on their way, and counts of what became of those before them."""

    __slots__ = (
        "_blocked",
        "_distances",
        "_heap",
        "_random",
        "_regions",
        "_routes",
        "_seed",
        "_serial",
        "blocked",
        "corrupted",
        "delivered",
        "duplicated",
        "expired",
        "lost",
        "overflowed",
        "sent",
        "too_large",
        "unreachable",
    )

    def __init__(self, seed: int, regions: Regions) -> None:
        self._seed = seed
        self._regions = regions
        self._random = Random(stream(seed, "lab", "weather").next64())
        self._heap: list[_Entry] = []
        self._serial = 0
        self._routes: dict[bytes, Line] = {}
        self._distances: dict[tuple[str, str], int] = {}
        self._blocked: frozenset[tuple[int, int]] = frozenset()
        self.sent = self.delivered = self.lost = self.overflowed = self.too_large = self.blocked = 0
        self.expired = self.unreachable = self.corrupted = self.duplicated = 0

    # What there is.

    def route(self, line: Line, addresses: Iterable[str]) -> None:
        """Have these addresses, and no others, found at the end of a line."""
        for host in line.addresses:
            if self._routes.get(inet_aton(host)) is line:
                del self._routes[inet_aton(host)]
        line.addresses = tuple(addresses)
        for host in line.addresses:
            self._routes[inet_aton(host)] = line

    def block(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Stop what goes from one numbered line to another, for these pairs and no others, at the end of its way."""
        self._blocked = frozenset(pairs)

    # What happens.

    @property
    def next_at(self) -> Instant | None:
        """When the next thing happens to any packet."""
        return self._heap[0][0] if self._heap else None

    def send(self, source: Line, data: bytes, now: Instant) -> None:
        """Take an IP packet that comes up a line."""
        self.sent += 1
        target = self._routes.get(data[16:20])
        if target is None or data[0] >> 4 != 4 or not source.powered:
            self.unreachable += 1
            return
        if target is source:
            # A hairpin, which is the router's own matter and does not go down the line.
            self._push(now, _DELIVERY, source, target, data)
            return
        if data[8] <= HOPS_ACROSS:
            self.expired += 1
            return
        link = source.link
        if min(link.mtu_bytes, target.link.mtu_bytes) < _MTU_USUAL:
            data = with_segments_for(data, min(link.mtu_bytes, target.link.mtu_bytes))
        if len(data) > link.mtu_bytes:
            self.too_large += 1
            return
        regions = (source.region, target.region)
        between = self._distances.get(regions)
        if between is None:
            self._distances[regions] = between = self._regions.between(*regions)
        if source.is_plain and link.uplink_bytes_per_second is None:
            self._lower(now + link.latency + between, source, target, data)
            return
        for piece in (data,) if source.is_plain else self._weathered(source, data, now, upwards=True):
            departs = self._queued(source, len(piece), now, upwards=True)
            if departs is not None:
                self._lower(self._reaches(source, departs, upwards=True) + between, source, target, piece)

    def pop(self, now: Instant) -> Delivery | None:
        """Return the next packet that is due, if there is one; to be called until there is none."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, stage, source, target, data = heappop(heap)
            if stage == _QUEUE:
                out_at = self._queued(target, len(data), at, upwards=False)
                if out_at is not None:
                    self._push(out_at, _DELIVERY, source, target, data)
            elif stage == _WEATHER:
                for piece in self._weathered(target, data, at, upwards=False):
                    reaches = self._reaches(target, at, upwards=False)
                    self._push(reaches, _QUEUE, source, target, piece)
            elif self._blocked and (source.number, target.number) in self._blocked:
                self.blocked += 1
            elif not target.powered:
                self.unreachable += 1
            else:
                self.delivered += 1
                return at, target, data
        return None

    def _lower(self, at: Instant, source: Line, target: Line, data: bytes) -> None:
        """Have a packet come to the upper end of the line that it goes down by."""
        link = target.link
        if len(data) > link.mtu_bytes:
            self.too_large += 1
        elif not target.is_plain:
            self._push(at, _WEATHER, source, target, data)
        elif link.downlink_bytes_per_second is None:
            self._push(at + link.latency, _DELIVERY, source, target, data)
        else:
            self._push(at + link.latency, _QUEUE, source, target, data)

    def _push(self, at: Instant, stage: int, source: Line, target: Line, data: bytes) -> None:
        # The serial number keeps packets that are due at once in order, and lines from being compared.
        self._serial += 1
        heappush(self._heap, (at, self._serial, stage, source, target, data))

    # Over one line.

    def _weathered(self, line: Line, data: bytes, at: Instant, *, upwards: bool) -> Iterator[bytes]:
        """Yield what chance leaves of a packet: nothing, the packet, or two of it, whole or damaged."""
        link, random = line.link, self._random.random
        if (link.loss and random() < link.loss) or (
            link.burst is not None and random() < line.burst_loss(at, self._seed, upwards=upwards)
        ):
            self.lost += 1
            return
        copies = 1
        if link.duplication and random() < link.duplication:
            self.duplicated += 1
            copies = 2
        for _ in range(copies):
            if link.corruption and random() < link.corruption and len(data) > HEADERS_BYTES:
                self.corrupted += 1
                yield self._damaged(data)
            else:
                yield data

    def _damaged(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        place = HEADERS_BYTES + self._random.randrange(len(data) - HEADERS_BYTES)
        damaged[place] ^= 1 << self._random.randrange(8)
        return bytes(damaged)

    def _queued(self, line: Line, size_bytes: int, at: Instant, *, upwards: bool) -> Instant | None:
        """Return when a packet has gone through the queue of a line, or None where it finds no room."""
        link = line.link
        rate = link.uplink_bytes_per_second if upwards else link.downlink_bytes_per_second
        if rate is None:
            return at
        way = line.up if upwards else line.down
        if not way.has_room(at, size_bytes, rate, link.buffer_bytes):
            self.overflowed += 1
            return None
        return way.passes_at(at, size_bytes, rate)

    def _reaches(self, line: Line, departs: Instant, *, upwards: bool) -> Instant:
        """Return when a packet gets to the other end of a line, in the order of packets unless it is held back."""
        link = line.link
        reaches = departs + link.latency
        if line.is_plain:
            return reaches
        way = line.up if upwards else line.down
        if link.jitter:
            reaches += int(self._random.random() * (link.jitter + 1))
        reaches = max(reaches, way.reached)
        if link.reordering and self._random.random() < link.reordering:
            return reaches + int(self._random.random() * (link.reordered_by + 1))
        way.reached = reaches
        return reaches


def with_segments_for(data: bytes, mtu_bytes: int) -> bytes:
    """Return a packet that, where it opens a TCP connection, asks for segments that fit (RFC 9293, section 3.7.1)."""
    start = 4 * (data[0] & 15)
    if data[9] != _TCP or len(data) < start + 20 or not data[start + 13] & _SYN:
        return data
    end = min(start + 4 * (data[start + 12] >> 4), len(data))
    place = start + 20
    while place + 1 < end and data[place]:
        length = 1 if data[place] == 1 else max(data[place + 1], 2)
        if data[place] == _MSS and place + 4 <= end:
            return _with_number(data, place + 2, mtu_bytes - 40, checksum_at=start + 16)
        place += length
    return data


def _with_number(data: bytes, place: int, most: int, *, checksum_at: int) -> bytes:
    """Return a packet where a 16-bit number is no more than `most`, with its checksum mended (RFC 1624)."""
    number = int.from_bytes(data[place : place + 2], "big")
    if number <= most:
        return data
    changed = bytearray(data)
    changed[place : place + 2] = most.to_bytes(2, "big")
    # At an odd place the two bytes belong to two words; they then count swapped in the sum.
    old, new = (number, most) if place % 2 == 0 else (_swapped(number), _swapped(most))
    checksum = int.from_bytes(data[checksum_at : checksum_at + 2], "big")
    total = (~checksum & 0xFFFF) + (~old & 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    changed[checksum_at : checksum_at + 2] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(changed)


def _swapped(number: int) -> int:
    return (number & 0xFF) << 8 | number >> 8
