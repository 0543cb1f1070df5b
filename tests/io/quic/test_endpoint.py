"""Connections between two endpoints: set-up, bytes in both directions, streams, early data, silence and ends."""

import pytest
import trio
import trio.testing

from teale_io.quic.connection import QuicConnection
from teale_io.quic.errors import ClosedByPeer, Code, NoAnswer, QuicError, TooMany, WrongNode
from teale_io.quic.limits import Limits
from teale_io.quic.stack import Stack
from teale_io.quic.states import State
from teale_io.quic.udp import bind_udp
from teale_proto.inputs import Address

from .pair import (
    ALICE,
    BOB,
    CAROL,
    PATTERN,
    Forwarder,
    Loses,
    Reorders,
    Side,
    read_exactly,
    read_to_end,
    send_and_end,
    sides,
)


async def test_both_sides_know_each_other_when_they_are_connected(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        dialled = await alice.endpoint.connect(BOB.node_id, bob.address)
        accepted = await bob.accept()
        assert (dialled.peer, accepted.peer) == (BOB.node_id, ALICE.node_id)
        assert (dialled.state, accepted.state) == (State.CONNECTED, State.CONNECTED)
        assert accepted.info.remote == alice.address
        assert dialled.info.rtt_seconds > 0
        assert dialled.info.window_bytes > 0


async def test_bytes_go_in_both_directions_at_once_and_in_order(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Side(nursery, ALICE, stack=stack), Side(nursery, BOB, stack=stack, echoes=True)
        connection = await alice.endpoint.connect(BOB.node_id, bob.address)
        stream = connection.open_stream()
        nursery.start_soon(send_and_end, stream, PATTERN * 3)
        assert await read_to_end(stream) == PATTERN * 3


async def test_a_server_can_open_streams_too(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        dialled = await alice.endpoint.connect(BOB.node_id, bob.address)
        await send_and_end((await bob.accept()).open_stream(), b"from the server")
        assert await read_to_end(await dialled.accept_stream()) == b"from the server"


async def test_both_ends_dial_and_accept_on_one_port(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack, echoes=True) for who in (ALICE, BOB))
        there = alice.endpoint.dial(BOB.node_id, bob.address)
        back = bob.endpoint.dial(ALICE.node_id, alice.address)
        for connection in (there, back):
            await connection.wait_connected()
            stream = connection.open_stream()
            await send_and_end(stream, b"hello")
            assert await read_to_end(stream) == b"hello"
        # Of two that crossed, both sides keep the same one.
        kept = alice.endpoint.connection_to(BOB.node_id)
        other = bob.endpoint.connection_to(ALICE.node_id)
        assert kept is not None
        assert other is not None
        assert kept.is_client != other.is_client


async def test_there_is_one_connection_to_a_node_however_often_it_is_dialled(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        first = alice.endpoint.dial(BOB.node_id, bob.address)
        assert alice.endpoint.dial(BOB.node_id, bob.address) is first
        await first.wait_connected()
        assert await alice.endpoint.connect(BOB.node_id, bob.address) is first
        assert alice.endpoint.connection_to(BOB.node_id) is first
        first.close()
        assert alice.endpoint.connection_to(BOB.node_id) is None
        await first.wait_closed()
        assert alice.endpoint.dial(BOB.node_id, bob.address) is not first


async def test_many_streams_one_after_the_other_and_at_once(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Side(nursery, ALICE, stack=stack), Side(nursery, BOB, stack=stack, echoes=True)
        connection = await alice.endpoint.connect(BOB.node_id, bob.address)
        done = []

        async def ask(number: int) -> None:
            stream = connection.open_stream()
            question = b"%d" % number * 50
            await send_and_end(stream, question)
            assert await read_to_end(stream) == question
            done.append(number)

        for start in range(0, 400, 80):
            async with trio.open_nursery() as asking:
                for number in range(start, start + 80):
                    asking.start_soon(ask, number)
        assert sorted(done) == list(range(400))
        assert connection.info.streams == 0


async def test_more_streams_than_allowed_are_an_error_of_the_caller(stack: Stack) -> None:
    async with sides() as nursery:
        alice = Side(nursery, ALICE, stack=stack, limits=Limits(streams_max=3))
        bob = Side(nursery, BOB, stack=stack)
        connection = await alice.endpoint.connect(BOB.node_id, bob.address)
        for _ in range(3):
            connection.open_stream()
        with pytest.raises(TooMany):
            connection.open_stream()


# Where a fifth is lost, one run in a thousand takes a minute: timeouts double (RFC 9002, section 6.2.1).
@pytest.mark.parametrize("share", [0.05, 0.1])
async def test_loss_loses_nothing(stack: Stack, share: float) -> None:
    async with sides() as nursery:
        alice, bob = Side(nursery, ALICE, stack=stack), Side(nursery, BOB, stack=stack, echoes=True)
        between = Forwarder(nursery, bob.address, mischief=Loses(share))
        connection = await alice.endpoint.connect(BOB.node_id, between.address)
        stream = connection.open_stream()
        nursery.start_soon(send_and_end, stream, PATTERN[:200_000])
        assert await read_to_end(stream) == PATTERN[:200_000]


async def test_reordered_and_doubled_datagrams_change_nothing(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Side(nursery, ALICE, stack=stack), Side(nursery, BOB, stack=stack, echoes=True)
        between = Forwarder(nursery, bob.address, mischief=Reorders(7))
        connection = await alice.endpoint.connect(BOB.node_id, between.address)
        stream = connection.open_stream()
        nursery.start_soon(send_and_end, stream, PATTERN)
        assert await read_to_end(stream) == PATTERN


async def test_a_nat_that_rebinds_under_load_loses_and_doubles_nothing(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Side(nursery, ALICE, stack=stack), Side(nursery, BOB, stack=stack, echoes=True)
        between = Forwarder(nursery, bob.address)
        connection = await alice.endpoint.connect(BOB.node_id, between.address)
        server = await bob.accept()
        before = server.info.remote
        stream = connection.open_stream()
        nursery.start_soon(send_and_end, stream, PATTERN * 2)
        received = await read_exactly(stream, len(PATTERN) // 2)
        between.rebind()
        received += await read_exactly(stream, len(PATTERN) // 2)
        between.rebind()
        received += await read_to_end(stream)
        assert received == PATTERN * 2
        assert server.info.remote != before


async def test_a_client_that_gets_another_socket_goes_on(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Side(nursery, ALICE, stack=stack), Side(nursery, BOB, stack=stack, echoes=True)
        connection = await alice.endpoint.connect(BOB.node_id, bob.address)
        server = await bob.accept()
        stream = connection.open_stream()
        await stream.send_all(PATTERN)
        assert await read_exactly(stream, len(PATTERN)) == PATTERN
        alice.endpoint.rebind(bind_udp("127.0.0.1", 0))
        await send_and_end(stream, PATTERN)
        assert await read_to_end(stream) == PATTERN
        assert server.info.remote == alice.address


async def test_whoever_answers_in_place_of_the_node_that_was_dialled_learns_nothing(stack: Stack) -> None:
    async with sides() as nursery:
        alice, carol = Side(nursery, ALICE, stack=stack), Side(nursery, CAROL, stack=stack)
        connection = alice.endpoint.dial(BOB.node_id, carol.address)
        connection.open_stream(early=b"for Bob only")
        with pytest.raises(WrongNode):
            await connection.wait_connected()
        assert connection.peer is None
        assert carol.accepted == []


async def test_a_node_that_lets_nobody_in_says_nothing(stack: Stack) -> None:
    async with sides() as nursery:
        alice = Side(nursery, ALICE, stack=stack, limits=Limits(handshake_seconds=0.2))
        bob = Side(nursery, BOB, stack=stack, accepts=False)
        with pytest.raises(NoAnswer):
            await alice.endpoint.connect(BOB.node_id, bob.address)
        assert bob.endpoint.connections == 0


async def test_a_repeat_connection_says_the_idempotent_part_before_it_is_connected(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        await _visit(alice, bob)
        again = alice.endpoint.dial(BOB.node_id, bob.address)
        stream = again.open_stream(early=b"idempotent")
        assert stream.early
        await stream.send_all(b" and not")
        assert again.state is State.CONNECTED
        accepted = await bob.accept()
        assert accepted.peer == ALICE.node_id
        assert again.early_data_accepted
        assert again.resumed
        arrived = await accepted.accept_stream()
        assert arrived.early
        assert await read_exactly(arrived, 18) == b"idempotent and not"
        assert accepted.early_data_accepted


async def test_early_data_that_a_server_has_forgotten_how_to_read_arrives_late_but_once(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        await _visit(alice, bob)
        for ticket in bob.endpoint.tickets.given:
            bob.endpoint.tickets.given.take(ticket)
        again = alice.endpoint.dial(BOB.node_id, bob.address)
        stream = again.open_stream(early=b"idempotent")
        await stream.send_eof()
        accepted = await bob.accept()
        assert await read_to_end(await accepted.accept_stream()) == b"idempotent"
        assert not accepted.early_data_accepted
        assert not again.early_data_accepted


async def test_early_data_survives_that_the_address_must_first_be_validated(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        await _visit(alice, bob)
        alice.endpoint.rebind(bind_udp("127.0.0.1", 0))
        again = alice.endpoint.dial(BOB.node_id, bob.address)
        stream = again.open_stream(early=b"idempotent")
        await stream.send_eof()
        assert await read_to_end(await (await bob.accept()).accept_stream()) == b"idempotent"


async def test_a_ticket_is_good_for_one_connection(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        await _visit(alice, bob)
        assert len(alice.endpoint.tickets.kept) == 1
        alice.endpoint.dial(BOB.node_id, bob.address)
        assert len(alice.endpoint.tickets.kept) == 0


async def _visit(alice: Side, bob: Side) -> None:
    """Connect once, until there is a ticket, and part."""
    connection = await alice.endpoint.connect(BOB.node_id, bob.address)
    accepted = await bob.accept()
    await send_and_end(accepted.open_stream(), b"by now the ticket has come")
    await read_to_end(await connection.accept_stream())
    connection.close()
    await connection.wait_closed()
    await accepted.wait_closed()


async def test_what_was_said_before_the_end_arrives(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        connection = await alice.endpoint.connect(BOB.node_id, bob.address)
        accepted = await bob.accept()
        stream = connection.open_stream()
        await stream.send_all(PATTERN[:500_000])
        connection.close(Code.DONE, "that is all")
        assert connection.state is State.CLOSING
        assert await read_to_end(await accepted.accept_stream()) == PATTERN[:500_000]
        await accepted.wait_closed()
        assert isinstance(accepted.error, ClosedByPeer)
        assert str(accepted.error) == "that is all"
        assert accepted.error.code == Code.DONE


async def test_nothing_can_be_said_on_a_connection_that_has_ended(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        connection = await alice.endpoint.connect(BOB.node_id, bob.address)
        stream = connection.open_stream()
        accepted = await bob.accept()
        accepted.close(Code.REFUSED, "go away")
        await connection.wait_closed()
        with pytest.raises(ClosedByPeer):
            connection.open_stream()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"too late")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_a_silent_connection_is_asked_for_a_sign_of_life_and_stays(stack: Stack) -> None:
    async with sides() as nursery:
        alice = Side(nursery, ALICE, stack=stack, limits=Limits(keep_alive_seconds=0.05))
        bob = Side(nursery, BOB, stack=stack)
        between = Forwarder(nursery, bob.address)
        connection = await alice.endpoint.connect(BOB.node_id, between.address)
        for state in (State.IDLE, State.CONNECTED, State.IDLE):
            await _wait_for(connection, state)


async def _wait_for(connection: QuicConnection, state: State) -> None:
    while connection.state is not state:
        await connection.wait_changed()


async def test_a_connection_whose_path_is_cut_ends_as_not_answered(stack: Stack) -> None:
    async with sides() as nursery:
        limits = Limits(keep_alive_seconds=0.1, idle_seconds=0.5)
        alice, bob = Side(nursery, ALICE, stack=stack, limits=limits), Side(nursery, BOB, stack=stack)
        between = Forwarder(nursery, bob.address)
        connection = await alice.endpoint.connect(BOB.node_id, between.address)
        stream = connection.open_stream()
        between.is_cut = True
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert isinstance(connection.error, NoAnswer)


async def test_an_endpoint_that_ends_tells_its_peers(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        connection = await alice.endpoint.connect(BOB.node_id, bob.address)
        bob.scope.cancel()
        await connection.wait_closed()
        assert isinstance(connection.error, ClosedByPeer)


async def test_a_stream_that_is_given_up_breaks_at_the_other_side(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        connection = await alice.endpoint.connect(BOB.node_id, bob.address)
        stream = connection.open_stream()
        await stream.send_all(b"a beginning")
        arrived = await (await bob.accept()).accept_stream()
        assert await read_exactly(arrived, 11) == b"a beginning"
        stream.reset()
        with pytest.raises(trio.BrokenResourceError):
            await arrived.receive_some()
        assert connection.state is State.CONNECTED


async def test_a_sender_waits_for_a_path_that_does_not_take_more(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = (Side(nursery, who, stack=stack) for who in (ALICE, BOB))
        between = Forwarder(nursery, bob.address)
        connection = await alice.endpoint.connect(BOB.node_id, between.address)
        stream = connection.open_stream()
        between.is_cut = True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as sending:
                sending.start_soon(stream.send_all, PATTERN * 4)
                await trio.testing.wait_all_tasks_blocked()
                assert connection.held_bytes(stream.id) < 2 * len(PATTERN)
                scope.cancel()
        assert scope.cancelled_caught


async def test_ipv4_and_ipv6_share_a_socket(stack: Stack) -> None:
    async with sides() as nursery:
        bob = Side(nursery, BOB, stack=stack, host="", echoes=True)
        for host, mine in (("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("127.0.0.1", "")):
            alice = Side(nursery, ALICE, stack=stack, host=mine)
            connection = await alice.endpoint.connect(BOB.node_id, Address(host, bob.address.port))
            stream = connection.open_stream()
            await send_and_end(stream, b"hello")
            assert await read_to_end(stream) == b"hello"


async def test_an_address_that_the_socket_cannot_reach_is_an_error(stack: Stack) -> None:
    async with sides() as nursery:
        alice = Side(nursery, ALICE, stack=stack)
        with pytest.raises(QuicError):
            alice.endpoint.dial(BOB.node_id, Address("::1", 9))
