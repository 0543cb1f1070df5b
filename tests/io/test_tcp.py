"""TCP connections over real sockets on loopback."""

import errno
import os
import resource
import socket
import struct

import pytest
import trio
import trio.testing

from teale_io.connections import Connections, Opened
from teale_io.listener import Listener, bind
from teale_io.outbox import BATCH_BYTES, Outbox
from teale_io.stream import address_of
from teale_io.tcp import serve_tcp
from teale_proto.effects import CloseConnection, Connect, SendData, SendPing
from teale_proto.errors import LocalError
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionOpened,
    DataReceived,
)

from .journal import Host, hosts, read_to_end, visitor

PATTERN = bytes(range(256)) * 64 * 1024


async def test_bytes_arrive_in_order_however_they_were_split() -> None:
    async with hosts() as nursery:
        near, far = Host(nursery), Host(nursery)
        near.do(Connect(1, far.listen()))
        await near.journal.next(ConnectionOpened)
        accepted = await far.journal.next(ConnectionAccepted)
        sizes = [0, 1, 2, 3, 100, 5000, 70_000, 300_000, 5_000_000]
        pieces = [PATTERN[:size] for size in sizes]
        near.do(*(SendData(1, piece) for piece in pieces))
        assert await far.journal.data(accepted.connection, sum(sizes)) == b"".join(pieces)


async def test_an_echo_of_many_megabytes_comes_back_whole() -> None:
    async with hosts() as nursery:
        near, far = Host(nursery), Host(nursery, echoes=True)
        near.do(Connect(1, far.listen()))
        await near.journal.next(ConnectionOpened)
        near.do(SendData(1, PATTERN))
        assert await near.journal.data(1, len(PATTERN)) == PATTERN


async def test_accepted_connections_have_even_ids_and_say_both_ends() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        address = host.listen()
        streams = [await visitor(address) for _ in range(3)]
        accepted = [await host.journal.next(ConnectionAccepted) for _ in streams]
        assert [event.connection for event in accepted] == [2, 4, 6]
        assert {event.local for event in accepted} == {address}
        assert {event.remote for event in accepted} == {stream.local for stream in streams}
        for stream in streams:
            await stream.aclose()


async def test_small_pieces_of_one_turn_leave_together() -> None:
    async with hosts() as nursery:
        near, far = Host(nursery), Host(nursery)
        near.do(Connect(1, far.listen()))
        await near.journal.next(ConnectionOpened)
        near.do(*(SendData(1, b"piece") for _ in range(100)))
        assert (await far.journal.next(DataReceived)).data == b"piece" * 100


async def test_the_other_sides_close_is_told_once_after_its_last_bytes() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        stream = await visitor(host.listen())
        await stream.send_all(b"the end")
        await stream.send_eof()
        assert await read_to_end(stream) == b""
        assert [type(event) for event in host.journal.inputs] == [ConnectionAccepted, DataReceived, ConnectionClosed]
        assert host.journal.inputs[-1] == ConnectionClosed(2, "closed by the other side")
        await stream.aclose()


async def test_our_own_close_flushes_first_and_is_not_told() -> None:
    async with hosts() as nursery:
        near, far = Host(nursery), Host(nursery)
        near.do(Connect(1, far.listen()))
        await near.journal.next(ConnectionOpened)
        near.do(SendData(1, PATTERN), CloseConnection(1, "done"))
        assert await far.journal.data(2, len(PATTERN)) == PATTERN
        assert await far.journal.next(ConnectionClosed) == ConnectionClosed(2, "closed by the other side")
        await near.connections.wait_empty()
        assert near.journal.inputs == []


async def test_an_answer_to_unread_bytes_survives_our_close() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        host.journal.on_input = [SendData(2, b"go away"), CloseConnection(2, "refused")]
        stream = await visitor(host.listen())
        with trio.move_on_after(10):
            await stream.send_all(PATTERN)
        await stream.send_eof()
        assert await read_to_end(stream) == b"go away"
        await stream.aclose()


async def test_connections_from_an_address_that_has_gone_end_at_once_and_no_others() -> None:
    async with hosts() as nursery:
        near, far = Host(nursery), Host(nursery)
        near.do(Connect(1, far.listen()))
        await near.journal.next(ConnectionOpened)
        near.connections.break_from(["192.0.2.1"])
        near.do(SendData(1, b"still there"))
        accepted = await far.journal.next(ConnectionAccepted)
        assert await far.journal.data(accepted.connection, 11) == b"still there"
        near.connections.break_from(["127.0.0.1"])
        closed = await near.journal.next(ConnectionClosed)
        assert closed == ConnectionClosed(1, "this machine has lost the address that it came from")
        await far.journal.next(ConnectionClosed)
        near.connections.break_from(["127.0.0.1"])
        assert near.journal.inputs == []


async def test_a_reset_is_told_once() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        address = host.listen()
        sock = socket.create_connection((address.host, address.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await host.journal.next(ConnectionAccepted)
        sock.close()
        await host.journal.next(ConnectionClosed)
        host.do(SendData(2, b"too late"), CloseConnection(2, "too late"))
        await host.connections.wait_empty()
        assert host.journal.inputs == []


async def test_a_refused_dial_says_why_and_frees_the_id() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nobody = address_of(closed.getsockname())
        host.do(Connect(1, nobody))
        assert await host.journal.next(ConnectFailed) == ConnectFailed(1, "connection refused")
        host.do(Connect(1, host.listen()))
        assert await host.journal.next(ConnectionOpened) == ConnectionOpened(1)


async def test_a_dial_that_is_no_longer_wanted_is_not_told() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        address = host.listen()
        host.do(Connect(1, address), CloseConnection(1, "never mind"))
        await host.connections.wait_empty()
        host.do(Connect(1, address))
        assert await host.journal.next(ConnectionOpened) == ConnectionOpened(1)
        assert not [event for event in host.journal.inputs if isinstance(event, ConnectFailed)]


async def test_a_dial_that_nobody_answers_fails_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async def dial(target: Address) -> Opened:
        await trio.sleep_forever()
        raise AssertionError

    told: list[object] = []
    async with trio.open_nursery() as nursery:
        connections = Connections(feed=told.append, nursery=nursery, dialers={Address: dial})
        connections.performers[Connect](Connect(1, Address("silent", 1)))
        await connections.wait_empty()
        nursery.cancel_scope.cancel()
    assert told == [ConnectFailed(1, "no answer within 10 s")]


async def test_a_reader_that_is_too_slow_is_closed_and_told_once() -> None:
    async with hosts() as nursery:
        host = Host(nursery, unsent_bytes_max=1 << 20)
        stream = await visitor(host.listen())
        await host.journal.next(ConnectionAccepted)
        while not host.journal.inputs:
            host.do(SendData(2, bytes(1 << 16)))
            await trio.lowlevel.checkpoint()
        closed = await host.journal.next(ConnectionClosed)
        assert closed.reason.startswith("too slow: ")
        await host.connections.wait_empty()
        assert host.journal.inputs == []
        await stream.aclose()


async def test_what_overflows_and_is_closed_in_one_turn_is_not_told() -> None:
    async with hosts() as nursery:
        host = Host(nursery, unsent_bytes_max=1000)
        stream = await visitor(host.listen())
        await host.journal.next(ConnectionAccepted)
        host.do(SendData(2, bytes(1001)), CloseConnection(2, "enough"))
        await host.connections.wait_empty()
        assert host.journal.inputs == []
        await stream.aclose()


async def test_two_connections_do_not_wait_for_each_other() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        address = host.listen()
        stuck, quick = await visitor(address), await visitor(address)
        await host.journal.next(ConnectionAccepted)
        await host.journal.next(ConnectionAccepted)
        host.do(SendData(2, PATTERN), SendData(4, b"hello"))
        assert await quick.receive_some() == b"hello"
        await stuck.aclose()
        await quick.aclose()


async def test_one_connection_too_many_is_turned_away_until_another_ends() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        address = host.listen(connections_max=1)
        first = await visitor(address)
        await host.journal.next(ConnectionAccepted)
        second = await visitor(address)
        assert await read_to_end(second) == b""
        await first.aclose()
        await host.journal.next(ConnectionClosed)
        await host.connections.wait_empty()
        third = await visitor(address)
        await host.journal.next(ConnectionAccepted)
        for stream in (second, third):
            await stream.aclose()


async def test_running_out_of_file_descriptors_stops_nobody_who_is_there() -> None:
    async with hosts() as nursery:
        host = Host(nursery, echoes=True)
        address = host.listen()
        present = await visitor(address)
        await host.journal.next(ConnectionAccepted)
        waiting = socket.socket()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = socket.socket()
        try:
            # Descriptors below the limit may be free or not: from here on no new one can be had.
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free.fileno(), limits[1]))
            waiting.connect((address.host, address.port))
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                socket.socket()
            await present.send_all(b"still there?")
            assert await present.receive_some() == b"still there?"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            lowest_free.close()
        await host.journal.next(ConnectionAccepted)
        waiting.close()
        await present.aclose()


async def test_a_stream_has_no_messages() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        stream = await visitor(host.listen())
        await host.journal.next(ConnectionAccepted)
        with pytest.raises(LocalError, match="no pings"):
            host.connections.performers[SendPing](SendPing(2))
        await stream.aclose()


async def test_a_listener_on_every_interface_shows_addresses_of_ipv4_as_such() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        listener = Listener(bind("", 0), connections_max=1)
        nursery.start_soon(serve_tcp, host.connections, listener)
        stream = await visitor(Address("127.0.0.1", listener.address.port))
        accepted = await host.journal.next(ConnectionAccepted)
        assert (accepted.local.host, accepted.remote.host) == ("127.0.0.1", "127.0.0.1")
        await stream.aclose()


def test_a_port_in_use_is_an_error_of_the_system() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        bind("127.0.0.1", taken.getsockname()[1])


def test_an_outbox_joins_small_pieces_and_leaves_large_ones_alone() -> None:
    outbox = Outbox()
    large = bytes(BATCH_BYTES)
    for piece in (b"a", b"b", large, b"", b"c"):
        outbox.put(piece)
    assert outbox.size_bytes == BATCH_BYTES + 3
    assert outbox.take() == b"ab"
    assert outbox.take() is large
    assert outbox.take() == b"c"
    assert outbox.take() == b""


def test_what_waits_can_be_dropped_without_tearing_a_piece_apart() -> None:
    outbox = Outbox()
    outbox.put(b"begun", bulk=True)
    outbox.settle(outbox.take(), 2)
    outbox.put(b"first")
    outbox.put(b"bulk", bulk=True)
    outbox.drop_waiting()
    outbox.put(b"bye")
    assert outbox.size_bytes == 6
    assert bytes(outbox.take()) + bytes(outbox.take()) == b"gunbye"


def test_bulk_lets_everything_else_go_first_and_keeps_its_own_order() -> None:
    outbox = Outbox()
    outbox.put(b"bulk, ", bulk=True)
    outbox.put(b"more, ", bulk=True)
    outbox.put(b"first, ")
    outbox.settle(taken := outbox.take(), len(b"first, bu"))
    assert taken == b"first, bulk, more, "
    outbox.put(b"too late for the rest")
    assert bytes(outbox.take()) == b"lk, more, too late for the rest"


def test_what_was_not_sent_waits_in_front() -> None:
    outbox = Outbox()
    outbox.put(b"hello")
    outbox.settle(outbox.take(), 2)
    outbox.put(b" world")
    assert outbox.size_bytes == 9
    assert bytes(outbox.take()) == b"llo world"
