"""What packets meet between sites, without any: packets in, packets out, and the time as a number."""

import struct
from itertools import pairwise
from socket import inet_aton

import pytest
from msgspec.structs import replace

from simulator.lab.wire import HEADERS_BYTES, Line, Wire, with_segments_for
from simulator.net.link import Burst, Link
from simulator.net.packets import HOPS_ACROSS
from simulator.net.regions import WORLD
from teale_proto.contract import MILLISECOND, SECOND

PLAIN = Link(latency=10 * MILLISECOND)
ALICE, BOB = "60.0.0.1", "60.0.0.2"


def packet(size: int = 100, *, source: str = ALICE, target: str = BOB, hops: int = 64, tag: int = 0) -> bytes:
    """Return an IPv4 packet with a UDP header; checksums are nobody's matter here."""
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, tag, 0, hops, 17, 0, inet_aton(source), inet_aton(target))
    return header + bytes(size - len(header))


def tag_of(data: bytes) -> int:
    return int.from_bytes(data[4:6], "big")


class Pair:
    """Two lines and what is between them."""

    def __init__(self, up: Link = PLAIN, down: Link = PLAIN, *, regions: tuple[str, str] = ("", "")) -> None:
        self.wire = Wire(1, WORLD)
        self.alice, self.bob = (
            Line(number, name, link, region=region)
            for number, (name, link, region) in enumerate((("alice", up, regions[0]), ("bob", down, regions[1])))
        )
        self.wire.route(self.alice, [ALICE])
        self.wire.route(self.bob, [BOB])

    def arrivals(self) -> list[tuple[int, int, bytes]]:
        """Return when each packet comes to Bob, in its order, with its tag, as if somebody looked at once."""
        arrived = []
        while (now := self.wire.next_at) is not None:
            while (delivery := self.wire.pop(now)) is not None:
                at, line, data = delivery
                assert line is self.bob
                arrived.append((at, tag_of(data), data))
        return arrived


def test_a_packet_takes_both_lines_and_the_way_between_regions() -> None:
    pair = Pair(regions=("europe-west", "us-east"))
    pair.wire.send(pair.alice, packet(), 5)
    [(at, _, data)] = pair.arrivals()
    assert at == 5 + 20 * MILLISECOND + WORLD.between("europe-west", "us-east")
    assert data == packet()


def test_a_hairpin_turns_at_once_however_few_hops_it_has_left() -> None:
    pair = Pair()
    pair.wire.send(pair.bob, packet(source=BOB, hops=3), 7)
    assert [at for at, _, _ in pair.arrivals()] == [7]


def test_what_may_not_pass_so_many_routers_is_gone() -> None:
    pair = Pair()
    pair.wire.send(pair.alice, packet(hops=HOPS_ACROSS), 0)
    pair.wire.send(pair.alice, packet(hops=HOPS_ACROSS + 1), 0)
    assert len(pair.arrivals()) == 1
    assert pair.wire.expired == 1


def test_nobody_gets_what_is_for_nobody_or_no_ipv4() -> None:
    pair = Pair()
    pair.wire.send(pair.alice, packet(target="60.0.0.9"), 0)
    pair.wire.send(pair.alice, b"\x60" + packet()[1:], 0)
    pair.wire.route(pair.bob, ["60.0.0.9"])
    pair.wire.send(pair.alice, packet(), 0)
    pair.wire.send(pair.alice, b"", 0)
    assert pair.arrivals() == []
    assert pair.wire.unreachable == 4
    pair.wire.send(pair.alice, packet(target="60.0.0.9"), 0)
    assert len(pair.arrivals()) == 1


def test_packets_wait_for_each_other_at_both_ends_and_overflow() -> None:
    slow = Link(latency=0, uplink_bytes_per_second=1000, downlink_bytes_per_second=500, buffer_bytes=300)
    pair = Pair(slow, slow)
    for tag in range(5):
        pair.wire.send(pair.alice, packet(100, tag=tag), 0)
    assert [(at, tag) for at, tag, _ in pair.arrivals()] == [
        (3 * SECOND // 10, 0),
        (5 * SECOND // 10, 1),
        (7 * SECOND // 10, 2),
    ]
    assert pair.wire.overflowed == 2


def test_a_packet_from_far_away_does_not_hold_up_those_that_come_before_it() -> None:
    narrow = replace(PLAIN, downlink_bytes_per_second=1000)
    pair = Pair(Link(latency=SECOND), narrow)
    near = Line(2, "near", Link(latency=0))
    pair.wire.send(pair.alice, packet(tag=1), 0)
    pair.wire.send(near, packet(tag=2), 1)
    assert [tag for _, tag, _ in pair.arrivals()] == [2, 1]


def test_jitter_delays_and_keeps_the_order() -> None:
    pair = Pair(replace(PLAIN, jitter=5 * MILLISECOND), replace(PLAIN, jitter=5 * MILLISECOND))
    for tag in range(200):
        pair.wire.send(pair.alice, packet(tag=tag), tag * MILLISECOND)
    arrived = pair.arrivals()
    assert [tag for _, tag, _ in arrived] == list(range(200))
    took = [at - tag * MILLISECOND for at, tag, _ in arrived]
    assert min(took) >= 20 * MILLISECOND
    assert max(took) <= 30 * MILLISECOND
    assert max(took) - min(took) > 5 * MILLISECOND


def test_reordered_packets_are_overtaken() -> None:
    pair = Pair(replace(PLAIN, reordering=0.2))
    for tag in range(200):
        pair.wire.send(pair.alice, packet(tag=tag), tag * MILLISECOND)
    tags = [tag for _, tag, _ in pair.arrivals()]
    assert sorted(tags) == list(range(200)) != tags


@pytest.mark.parametrize(
    ("up", "down"), [(replace(PLAIN, loss=0.3), PLAIN), (PLAIN, replace(PLAIN, loss=0.3))], ids=["upwards", "downwards"]
)
def test_loss_takes_its_share(up: Link, down: Link) -> None:
    pair = Pair(up, down)
    for tag in range(1000):
        pair.wire.send(pair.alice, packet(tag=tag), tag)
    assert 600 < len(pair.arrivals()) < 800
    assert pair.wire.lost + pair.wire.delivered == 1000


def test_bursts_take_packets_in_a_row() -> None:
    pair = Pair(replace(PLAIN, burst=Burst(good=SECOND // 10, bad=SECOND // 10)))
    for tag in range(1000):
        pair.wire.send(pair.alice, packet(tag=tag), tag * 10 * MILLISECOND)
    tags = [tag for _, tag, _ in pair.arrivals()]
    assert 200 < len(tags) < 800
    # Were every packet's fate its own, every other one would be followed by a loss.
    gaps = sum(after - before > 1 for before, after in pairwise(tags))
    assert gaps < 100


def test_duplicates_come_twice_and_the_damaged_differ_by_one_bit_of_payload() -> None:
    pair = Pair(replace(PLAIN, duplication=1.0), replace(PLAIN, corruption=0.999999))
    pair.wire.send(pair.alice, packet(), 0)
    arrived = [data for _, _, data in pair.arrivals()]
    assert len(arrived) == 2
    for data in arrived:
        assert data[:HEADERS_BYTES] == packet()[:HEADERS_BYTES]
        wrong = (one ^ other for one, other in zip(data, packet(), strict=True))
        assert sum(each.bit_count() for each in wrong) == 1


@pytest.mark.parametrize(("up", "down"), [(1280, 1500), (1500, 1280)])
def test_what_is_larger_than_a_line_takes_vanishes(up: int, down: int) -> None:
    pair = Pair(replace(PLAIN, mtu_bytes=up), replace(PLAIN, mtu_bytes=down))
    pair.wire.send(pair.alice, packet(1280), 0)
    pair.wire.send(pair.alice, packet(1281), 0)
    assert len(pair.arrivals()) == 1
    assert pair.wire.too_large == 1


def test_a_block_and_a_cut_catch_what_is_on_its_way() -> None:
    pair = Pair()
    pair.wire.send(pair.alice, packet(), 0)
    pair.wire.block([(0, 1)])
    assert pair.arrivals() == []
    pair.wire.send(pair.bob, packet(source=BOB, target=ALICE), 0)
    delivery = pair.wire.pop(SECOND)
    assert delivery is not None
    assert delivery[1] is pair.alice
    pair.wire.block([])
    pair.wire.send(pair.alice, packet(), 0)
    pair.bob.powered = False
    assert pair.arrivals() == []
    assert (pair.wire.blocked, pair.wire.unreachable) == (1, 1)


# Segments of TCP.


def syn(mss: int, *, shifted: bool) -> bytes:
    """Return an IPv4 packet that opens a TCP connection, with right checksum."""
    options = (b"\x01" if shifted else b"") + struct.pack("!BBH", 2, 4, mss) + (b"\x01\x01\x01" if shifted else b"")
    length = 20 + len(options)
    tcp = struct.pack("!HHIIBBHHH", 1234, 443, 1, 0, length // 4 << 4, 2, 64240, 0, 0) + options
    tcp = tcp[:16] + checksum(tcp).to_bytes(2, "big") + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, 6, 0, inet_aton(ALICE), inet_aton(BOB))
    return ip + tcp


def checksum(tcp: bytes) -> int:
    """Return the checksum of a TCP header with its pseudo header (RFC 9293, section 3.1)."""
    summed = inet_aton(ALICE) + inet_aton(BOB) + struct.pack("!BBH", 0, 6, len(tcp)) + tcp
    total: int = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("asked", "gets"), [(1460, 1240), (1240, 1240), (536, 536)])
def test_a_handshake_over_a_narrow_line_asks_for_what_fits(asked: int, gets: int, shifted: bool) -> None:
    changed = with_segments_for(syn(asked, shifted=shifted), 1280)
    assert changed == syn(gets, shifted=shifted)
    assert checksum(changed[20:]) == 0


def test_what_is_no_handshake_or_cut_off_is_left_alone() -> None:
    for data in (packet(), syn(1460, shifted=False)[:30], syn(1460, shifted=False)[:42]):
        assert with_segments_for(data, 1280) == data
