"""Strangers: any datagrams, forged addresses, too many connections, peers that send what they should not."""

import os
import random
import socket
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from teale_io.quic.admission import Admission, Admitted, Answer, Ignored
from teale_io.quic.credentials import Credentials, client_proof, node_of_certificate, node_of_proof
from teale_io.quic.endpoint import Endpoint
from teale_io.quic.errors import ClosedByPeer, Code, NoAnswer, QuicError, WrongNode
from teale_io.quic.limits import DEFAULT, Limits
from teale_io.quic.packets import destination_of, long_header, version_negotiation
from teale_io.quic.stack import Stack
from teale_io.quic.tickets import Tickets
from teale_io.quic.tokens import LIFETIME_SECONDS, RetryTokens
from teale_io.quic.udp import bind_udp
from teale_proto.errors import PeerError

from .pair import ALICE, BOB, CAROL, PATTERN, Forwarder, Side, read_to_end, send_and_end, sides

SOMEWHERE = ("192.0.2.1", 4433)


def initial(destination: bytes = b"d" * 8, token: bytes = b"", version: int = 1, size: int = 1200) -> bytes:
    """The beginning of a client's first packet, with nonsense in place of what is encrypted."""
    head = b"\xc0" + version.to_bytes(4, "big") + bytes([len(destination)]) + destination + b"\x08" + b"s" * 8
    head += (0x4000 | len(token)).to_bytes(2, "big") + token
    rest = size - len(head) - 2
    return head + (0x4000 | rest).to_bytes(2, "big") + bytes(rest)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_destination_and_a_header_or_none(datagram: bytes) -> None:
    assert len(destination_of(datagram)) <= 20
    header = long_header(datagram)
    assert header is None or len(header.destination) <= 20


@given(st.binary(max_size=60))
def test_any_end_of_an_initial_packet_is_a_header_or_none(rest: bytes) -> None:
    header = long_header(b"\xc0\x00\x00\x00\x01\x08" + b"d" * 8 + rest)
    assert header is None or header.destination == b"d" * 8


def test_an_initial_packet_is_read(stack: Stack) -> None:
    header = long_header(initial(b"12345678", b"token"))
    assert header is not None
    assert header.is_initial
    assert (header.destination, header.source, header.token) == (b"12345678", b"s" * 8, b"token")


def test_a_stranger_gets_a_retry_and_less_than_a_tenth_of_what_he_sent(stack: Stack) -> None:
    admission = Admission(stack, DEFAULT)
    sent = initial()
    answer = admission.decide(sent, SOMEWHERE, 0.0)
    assert isinstance(answer, Answer)
    assert len(answer.datagram) < len(sent) / 10
    assert admission.is_empty


def test_whoever_shows_the_token_from_the_same_address_in_time_is_let_in(stack: Stack) -> None:
    tokens = RetryTokens()
    token = tokens.make(SOMEWHERE, first=b"d" * 8, ours=b"o" * 8, now=100.0)
    assert tokens.first_destination(token, SOMEWHERE, ours=b"o" * 8, now=101.0) == b"d" * 8
    assert tokens.first_destination(token, ("192.0.2.2", 4433), ours=b"o" * 8, now=101.0) is None
    assert tokens.first_destination(token, ("192.0.2.1", 4434), ours=b"o" * 8, now=101.0) is None
    assert tokens.first_destination(token, SOMEWHERE, ours=b"x" * 8, now=101.0) is None
    assert tokens.first_destination(token, SOMEWHERE, ours=b"o" * 8, now=100.1 + LIFETIME_SECONDS) is None
    assert RetryTokens().first_destination(token, SOMEWHERE, ours=b"o" * 8, now=101.0) is None
    for size in range(len(token)):
        assert tokens.first_destination(token[:size], SOMEWHERE, ours=b"o" * 8, now=101.0) is None


def test_an_address_that_was_validated_by_other_means_needs_no_retry(stack: Stack) -> None:
    admission = Admission(stack, DEFAULT)
    admission.trust(SOMEWHERE)
    assert isinstance(admission.decide(initial(), SOMEWHERE, 0.0), Admitted)
    assert isinstance(admission.decide(initial(), ("192.0.2.1", 4434), 0.0), Answer)


def test_only_so_many_addresses_are_remembered_as_validated(stack: Stack) -> None:
    admission = Admission(stack, Limits(trusted_max=2))
    for port in (1, 2, 3):
        admission.trust(("192.0.2.1", port))
    decided = [admission.decide(initial(), ("192.0.2.1", port), 0.0) for port in (1, 2, 3)]
    assert [type(each) for each in decided] == [Answer, Admitted, Admitted]


def test_where_it_is_allowed_newcomers_are_validated_only_under_load(stack: Stack) -> None:
    admission = Admission(stack, Limits(validate_above=2))
    for _ in range(2):
        assert isinstance(admission.decide(initial(), SOMEWHERE, 0.0), Admitted)
        admission.came(SOMEWHERE)
    assert isinstance(admission.decide(initial(), SOMEWHERE, 0.0), Answer)
    admission.proved()
    assert isinstance(admission.decide(initial(), SOMEWHERE, 0.0), Admitted)


@pytest.mark.parametrize(
    ("limits", "room"),
    [(Limits(connections_max=3), 3), (Limits(per_address_max=2), 2), (Limits(unproven_max=1), 1)],
)
def test_there_is_room_for_so_many(stack: Stack, limits: Limits, room: int) -> None:
    admission = Admission(stack, limits)
    admission.trust(SOMEWHERE)
    sources = []
    while isinstance(admission.decide(initial(), SOMEWHERE, 0.0), Admitted):
        sources.append(admission.came(SOMEWHERE))
    assert len(sources) == room
    assert admission.refused == 1
    admission.left(sources.pop(), proven=False)
    assert isinstance(admission.decide(initial(), SOMEWHERE, 0.0), Admitted)
    for source in sources:
        admission.left(source, proven=False)
    assert admission.is_empty


def test_small_or_foreign_first_packets_are_not_answered(stack: Stack) -> None:
    admission = Admission(stack, DEFAULT)
    for datagram in (b"", b"\x00", initial(size=1199), initial(version=0), initial(b"short"), b"\x40" + bytes(1300)):
        assert isinstance(admission.decide(datagram, SOMEWHERE, 0.0), Ignored)


def test_another_version_is_answered_with_ours_in_fewer_bytes(stack: Stack) -> None:
    asked = initial(version=0x1A2A3A4A)
    answer = Admission(stack, DEFAULT).decide(asked, SOMEWHERE, 0.0)
    header = long_header(asked)
    assert header is not None
    assert answer == Answer(version_negotiation(header))
    assert len(version_negotiation(header)) < len(asked) / 10


def test_a_proof_is_good_for_one_connection_to_one_server() -> None:
    proof = client_proof(ALICE, server=BOB.node_id, first_id=b"first id")
    assert node_of_proof(proof, server=BOB.node_id, first_id=b"first id") == ALICE.node_id
    for server, first_id in ((CAROL.node_id, b"first id"), (BOB.node_id, b"other id")):
        with pytest.raises(PeerError):
            node_of_proof(proof, server=server, first_id=first_id)
    for wrong in (b"", b"\x02" + proof[1:], proof[:-1], proof[:33] + bytes(64), b"\x01" + bytes(96)):
        with pytest.raises(PeerError):
            node_of_proof(wrong, server=BOB.node_id, first_id=b"first id")


@given(st.binary(max_size=300))
def test_any_bytes_are_no_certificate(data: bytes) -> None:
    with pytest.raises(PeerError):
        node_of_certificate(data)


def test_tickets_are_bounded_and_the_oldest_makes_room() -> None:
    tickets = Tickets(given_max=2)
    for number in range(3):
        tickets.given.put(bytes([number]), number)
    assert [tickets.given.take(bytes([number])) for number in range(3)] == [None, 1, 2]
    assert len(tickets.given) == 0


async def test_garbage_ends_no_endpoint_and_no_connection(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Side(nursery, ALICE, stack=stack), Side(nursery, BOB, stack=stack, echoes=True)
        between = Forwarder(nursery, bob.address, mischief=_Garbles(random.Random(7)))
        connection = await alice.endpoint.connect(BOB.node_id, between.address)
        stream = connection.open_stream()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for datagram in _nonsense(random.Random(5)):
                for side in (alice, bob):
                    stranger.sendto(datagram, (side.address.host, side.address.port))
        nursery.start_soon(send_and_end, stream, PATTERN[:300_000])
        assert await read_to_end(stream) == PATTERN[:300_000]
        assert bob.endpoint.connections == 1


class _Garbles:
    """Sends beside every tenth datagram what has become of it: torn, grown, or with a bit turned."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, datagram: bytes, number: int) -> list[bytes]:
        if number % 10:
            return [datagram]
        wrong = bytearray(datagram)
        wrong[self._rng.randrange(len(wrong))] ^= 1 << self._rng.randrange(8)
        cut = datagram[: self._rng.randrange(len(datagram))]
        return [bytes(wrong), cut, datagram + b"\0" * 50, datagram]


def _nonsense(rng: random.Random) -> list[bytes]:
    sizes = [*range(64), 100, 1199, 1200, 1201, 1500, 9000]
    found = [rng.randbytes(size) for size in sizes]
    found += [bytes([first]) + rng.randbytes(1250) for first in range(256)]
    return found + [initial(rng.randbytes(20), rng.randbytes(40), version) for version in (0, 1, 2, 0xFACEB00C)]


async def test_a_first_packet_that_is_none_leaves_nothing_behind(stack: Stack) -> None:
    async with sides() as nursery:
        bob = Side(nursery, BOB, stack=stack)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            from_here = stranger.getsockname()
            bob.endpoint.trust(type(bob.address)(*from_here))
            for number in range(50):
                stranger.sendto(initial(bytes([number]) * 8), (bob.address.host, bob.address.port))
        alice = Side(nursery, ALICE, stack=stack)
        await alice.endpoint.connect(BOB.node_id, bob.address)
        assert bob.endpoint.connections == 1


async def test_a_client_that_proves_to_be_nobody_is_turned_away(stack: Stack) -> None:
    async with sides() as nursery:
        bob = Side(nursery, BOB, stack=stack)
        alice = Side(nursery, ALICE, stack=stack)
        connection = alice.endpoint.dial(BOB.node_id, bob.address)
        connection.introduction.has_spoken = True
        connection.core.send_stream_data(2, b"\x01" + os.urandom(96), True)
        await connection.wait_closed()
        assert isinstance(connection.error, ClosedByPeer)
        assert connection.error.code == Code.WRONG_NODE
        assert bob.accepted == []


async def test_a_ticket_of_whoever_is_not_the_dialled_node_is_not_kept(stack: Stack) -> None:
    async with sides() as nursery:
        alice, carol = Side(nursery, ALICE, stack=stack), Side(nursery, CAROL, stack=stack)
        connection = alice.endpoint.dial(BOB.node_id, carol.address)
        connection.take_ticket("one that came together with the end of the handshake")
        with pytest.raises(WrongNode):
            await connection.wait_connected()
        # With it, she could resume a session the next time, in which nobody shows a certificate.
        assert len(alice.endpoint.tickets.kept) == 0


async def test_a_certificate_is_of_no_use_to_whoever_has_not_its_key(stack: Stack) -> None:
    stolen = Credentials(BOB)
    stolen.key = Credentials(CAROL).key  # type: ignore[misc]  # a thief cares little
    async with sides() as nursery:
        carol = Endpoint(bind_udp("127.0.0.1", 0), CAROL, on_accept=print, stack=Stack("aioquic"), credentials=stolen)
        nursery.start_soon(carol.run)
        alice = Side(nursery, ALICE, stack=stack)
        connection = alice.endpoint.dial(BOB.node_id, carol.local)
        with pytest.raises(QuicError):
            await connection.wait_connected()
        assert connection.peer is None


async def test_a_client_that_never_says_who_it_is_gets_no_further(stack: Stack) -> None:
    async with sides() as nursery:
        bob = Side(nursery, BOB, stack=stack, limits=Limits(handshake_seconds=0.3))
        alice = Side(nursery, ALICE, stack=stack)
        connection = alice.endpoint.dial(BOB.node_id, bob.address)
        connection.introduction.has_spoken = True
        connection.open_stream(early=b"let me in")
        await connection.wait_closed()
        assert isinstance(connection.error, ClosedByPeer)
        assert bob.accepted == []


async def test_a_client_that_says_much_before_it_says_who_it_is_is_cut_off(stack: Stack) -> None:
    async with sides() as nursery:
        bob, alice = Side(nursery, BOB, stack=stack), Side(nursery, ALICE, stack=stack)
        connection = alice.endpoint.dial(BOB.node_id, bob.address)
        connection.introduction.has_spoken = True
        connection.open_stream(early=PATTERN[:100_000])
        await connection.wait_closed()
        assert isinstance(connection.error, ClosedByPeer)
        assert connection.error.code == Code.TOO_SLOW
        assert bob.accepted == []


async def test_a_server_that_is_full_answers_nobody_and_serves_on(stack: Stack) -> None:
    async with sides() as nursery:
        bob = Side(nursery, BOB, stack=stack, limits=Limits(connections_max=1))
        alice = Side(nursery, ALICE, stack=stack)
        first = await alice.endpoint.connect(BOB.node_id, bob.address)
        carol = Side(nursery, CAROL, stack=stack, limits=Limits(handshake_seconds=0.3))
        with pytest.raises(NoAnswer):
            await carol.endpoint.connect(BOB.node_id, bob.address)
        assert bob.endpoint.refused > 0
        first.close()
        await first.wait_closed()
        await (await bob.accept()).wait_closed()
        await Side(nursery, CAROL, stack=stack).endpoint.connect(BOB.node_id, bob.address)


async def test_a_peer_that_is_not_read_is_cut_off_before_it_fills_the_memory(stack: Stack) -> None:
    async with sides() as nursery:
        bob = Side(nursery, BOB, stack=stack, limits=Limits(unread_bytes_max=1 << 20))
        alice = Side(nursery, ALICE, stack=stack)
        connection = await alice.endpoint.connect(BOB.node_id, bob.address)
        stream = connection.open_stream()
        with pytest.raises(trio.BrokenResourceError):
            await send_and_end(stream, PATTERN * 8)
        accepted = await bob.accept()
        assert isinstance(accepted.error, QuicError)
        assert isinstance(connection.error, ClosedByPeer)
        assert connection.error.code == Code.TOO_SLOW


async def test_a_peer_that_leaves_a_gap_for_ever_is_cut_off_before_it_fills_the_memory() -> None:
    stack = Stack("aioquic")  # the other library keeps no more than a stream's window
    async with sides() as nursery:
        bob = Side(nursery, BOB, stack=stack, limits=Limits(unordered_bytes_max=200_000))
        alice = Side(nursery, ALICE, stack=stack)
        connection = await alice.endpoint.connect(BOB.node_id, bob.address)
        stream = connection.open_stream(early=PATTERN * 2)
        sender = connection.core._streams[stream.id].sender  # type: ignore[attr-defined]  # aioquic's own
        sender._pending.subtract(0, 1)
        await connection.wait_closed()
        assert isinstance(connection.error, ClosedByPeer)
        assert connection.error.code == Code.TOO_SLOW


async def test_what_is_not_quic_is_handed_on(stack: Stack) -> None:
    seen: list[tuple[bytes, Any]] = []
    came = trio.Event()

    def take(datagram: bytes, name: Any) -> None:
        seen.append((datagram, name))
        came.set()

    async with sides() as nursery:
        endpoint = Endpoint(bind_udp("127.0.0.1", 0), ALICE, stack=stack, not_quic=take)
        nursery.start_soon(endpoint.run)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.sendto(b"\x00\x01\x00\x00 STUN", (endpoint.local.host, endpoint.local.port))
            await came.wait()
            assert seen == [(b"\x00\x01\x00\x00 STUN", stranger.getsockname())]
