"""QUIC streams as connections of a core: what `Connections` makes of them."""

from typing import Any

import pytest
import trio
import trio.testing

from teale_io.connections import Connections, Opened
from teale_io.quic.connection import QuicConnection
from teale_io.quic.dialing import QuicStreams
from teale_io.quic.endpoint import Endpoint
from teale_io.quic.stack import Stack
from teale_io.quic.udp import bind_udp
from teale_io.runner import Runner
from teale_proto.effects import CloseConnection, Connect, DirectTarget, SendData
from teale_proto.inputs import Address, ConnectFailed, ConnectionAccepted, ConnectionClosed, ConnectionOpened
from teale_proto.secure.identity import Identity

from ..journal import Do, Effect, Journal
from .pair import ALICE, BOB, CAROL, PATTERN, Forwarder, Loses, Mischief, Reorders, sides


class Node:
    """A journal with QUIC around it."""

    def __init__(self, nursery: trio.Nursery, identity: Identity, stack: Stack, *, streams_max: int = 8) -> None:
        self.journal = Journal()
        self._runner: Runner[Any, Any] = Runner(self.journal, Effect.__args__)
        self.endpoint = Endpoint(bind_udp("127.0.0.1", 0), identity, on_accept=self._accept, stack=stack)
        self.connections = Connections(
            feed=self._runner.feed,
            nursery=nursery,
            dialers={DirectTarget: self._dial},
        )
        self._streams = QuicStreams(self.connections, streams_max=streams_max)
        self._runner.perform_with(self.connections.performers)
        nursery.start_soon(self._runner.run)
        nursery.start_soon(self.endpoint.run)

    async def _dial(self, target: DirectTarget) -> Opened:
        return await self._streams.dial(self.endpoint, target.local, target.node, target.remote, target.opening)

    def _accept(self, connection: QuicConnection) -> None:
        self._streams.serve(connection, self.endpoint.local)

    def do(self, *effects: Any) -> None:
        self._runner.feed(Do(*effects))

    def dial(
        self, number: int, other: "Node", who: Identity, opening: bytes = b"", *, via: Address | None = None
    ) -> None:
        remote = via or other.endpoint.local
        self.do(Connect(number, DirectTarget(who.node_id, self.endpoint.local, remote, opening)))

    @property
    def connection(self) -> QuicConnection:
        """The one to Bob."""
        found = self.endpoint.connection_to(BOB.node_id)
        assert found is not None
        return found


async def test_a_core_talks_over_quic_as_over_tcp(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Node(nursery, ALICE, stack), Node(nursery, BOB, stack)
        alice.dial(1, bob, BOB)
        assert await alice.journal.next(ConnectionOpened) == ConnectionOpened(1)
        alice.do(SendData(1, b"urgent"), SendData(1, PATTERN, bulk=True))
        accepted = await bob.journal.next(ConnectionAccepted)
        assert accepted.remote == alice.endpoint.local
        assert accepted.local == bob.endpoint.local
        assert accepted.direct
        assert await bob.journal.data(accepted.connection, 6 + len(PATTERN)) == b"urgent" + PATTERN
        bob.do(SendData(accepted.connection, b"the answer"))
        assert await alice.journal.data(1, 10) == b"the answer"


async def test_what_was_sent_before_a_close_arrives_and_the_connection_goes_with_its_last_stream(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Node(nursery, ALICE, stack), Node(nursery, BOB, stack)
        accepted = []
        for number in (1, 3):
            alice.dial(number, bob, BOB)
            await alice.journal.next(ConnectionOpened)
            alice.do(SendData(number, b"hello"))
            accepted.append((await bob.journal.next(ConnectionAccepted)).connection)
            assert await bob.journal.data(accepted[-1], 5) == b"hello"
        first, second = accepted
        connection = alice.endpoint.connection_to(BOB.node_id)
        assert connection is not None
        assert connection.info.streams == 2
        alice.do(SendData(1, PATTERN), CloseConnection(1, "done"))
        assert await bob.journal.data(first, len(PATTERN)) == PATTERN
        assert (await bob.journal.next(ConnectionClosed)).connection == first
        assert connection.is_live
        alice.do(CloseConnection(3, "done"))
        assert (await bob.journal.next(ConnectionClosed)).connection == second
        await connection.wait_closed()


async def test_another_node_than_the_dialled_one_is_a_failed_dial(stack: Stack) -> None:
    async with sides() as nursery:
        alice, carol = Node(nursery, ALICE, stack), Node(nursery, CAROL, stack)
        alice.dial(1, carol, BOB)
        failed = await alice.journal.next(ConnectFailed)
        assert failed == ConnectFailed(1, "another node than the one that was dialled answered")


async def test_the_end_of_the_other_endpoint_is_told_once(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Node(nursery, ALICE, stack), Node(nursery, BOB, stack)
        alice.dial(1, bob, BOB)
        await alice.journal.next(ConnectionOpened)
        alice.do(SendData(1, b"hello"))
        await bob.journal.next(ConnectionAccepted)
        accepted = bob.endpoint.connection_to(ALICE.node_id)
        assert accepted is not None
        accepted.close(0, "bob has to go")
        assert (await alice.journal.next(ConnectionClosed)).connection == 1
        assert [event for event in alice.journal.inputs if isinstance(event, ConnectionClosed)] == []


async def test_more_streams_than_there_is_room_for_are_refused_and_the_others_live(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Node(nursery, ALICE, stack), Node(nursery, BOB, stack, streams_max=1)
        alice.dial(1, bob, BOB)
        await alice.journal.next(ConnectionOpened)
        alice.do(SendData(1, b"first"))
        first = (await bob.journal.next(ConnectionAccepted)).connection
        alice.dial(3, bob, BOB)
        await alice.journal.next(ConnectionOpened)
        alice.do(SendData(3, b"second"))
        assert (await alice.journal.next(ConnectionClosed)).connection == 3
        bob.do(SendData(first, b"still here"))
        assert await alice.journal.data(1, 10) == b"still here"


async def test_a_dial_that_is_called_off_leaves_no_connection_behind(stack: Stack) -> None:
    async with sides() as nursery:
        alice, silent = Node(nursery, ALICE, stack), bind_udp("127.0.0.1", 0)
        with silent:
            where = Address(*silent.getsockname())
            alice.do(Connect(1, DirectTarget(BOB.node_id, alice.endpoint.local, where)))
            connection = None
            while connection is None:
                await trio.testing.wait_all_tasks_blocked()
                connection = alice.endpoint.connection_to(BOB.node_id)
            alice.do(CloseConnection(1, "no longer wanted"))
            await connection.wait_closed()


HELLO, ANSWER = b"h" * 98, b"a" * 200
MORE_BYTES = 10_000


async def meet(alice: Node, bob: Node, number: int, *, via: Address | None = None) -> QuicConnection:
    """Have Alice dial with an opening and Bob answer it, once; return her connection."""
    alice.dial(number, bob, BOB, HELLO, via=via)
    accepted = await bob.journal.next(ConnectionAccepted)
    assert await bob.journal.data(accepted.connection, len(HELLO)) == HELLO
    bob.do(SendData(accepted.connection, ANSWER))
    assert await alice.journal.next(ConnectionOpened) == ConnectionOpened(number)
    assert await alice.journal.data(number, len(ANSWER)) == ANSWER
    # What follows is in order behind both.
    alice.do(SendData(number, PATTERN[:MORE_BYTES]))
    assert await bob.journal.data(accepted.connection, MORE_BYTES) == PATTERN[:MORE_BYTES]
    return alice.connection


async def part(alice: Node, number: int) -> None:
    connection = alice.connection
    while not len(alice.endpoint.tickets.kept):
        await trio.testing.wait_all_tasks_blocked(0.001)
    alice.do(CloseConnection(number, "done"))
    await connection.wait_closed()


async def test_a_repeat_dial_has_its_opening_in_the_first_packet(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Node(nursery, ALICE, stack), Node(nursery, BOB, stack)
        first = await meet(alice, bob, 1)
        assert not first.early_data_accepted
        await part(alice, 1)
        again = await meet(alice, bob, 3)
        assert again.early_data_accepted
        # A further stream of a live connection begins so too, and at once.
        assert await meet(alice, bob, 5) is again


@pytest.mark.parametrize("mischief", [Loses(0.1), Reorders(5)], ids=["loss", "disorder"])
async def test_a_repeat_dial_comes_through_a_bad_network(stack: Stack, mischief: Mischief) -> None:
    async with sides() as nursery:
        alice, bob = Node(nursery, ALICE, stack), Node(nursery, BOB, stack)
        network = Forwarder(nursery, bob.endpoint.local, mischief=mischief)
        for number in (1, 3, 5, 7):
            await meet(alice, bob, number, via=network.address)
            await part(alice, number)


async def test_what_was_recorded_of_a_repeat_dial_opens_nothing_when_it_is_said_again(stack: Stack) -> None:
    async with sides() as nursery:
        alice, bob = Node(nursery, ALICE, stack), Node(nursery, BOB, stack)
        recorded: list[bytes] = []
        network = Forwarder(nursery, bob.endpoint.local)
        await meet(alice, bob, 1, via=network.address)
        await part(alice, 1)

        def record(datagram: bytes, number: int) -> list[bytes]:
            recorded.append(datagram)
            return [datagram]

        network.mischief = record
        again = await meet(alice, bob, 3, via=network.address)
        assert again.early_data_accepted
        await part(alice, 3)
        await bob.journal.next(ConnectionClosed)
        for datagram in recorded:
            bob.endpoint.take([(datagram, ("127.0.0.1", again.remote[1]))])
        await meet(alice, bob, 5)
        assert [each for each in bob.journal.inputs if isinstance(each, ConnectionAccepted)] == []


async def test_a_dial_with_an_opening_that_is_called_off_or_fails_leaves_no_connection_behind(stack: Stack) -> None:
    async with sides() as nursery:
        alice, carol = Node(nursery, ALICE, stack), Node(nursery, CAROL, stack)
        silent = bind_udp("127.0.0.1", 0)
        with silent:
            alice.dial(1, carol, BOB, HELLO, via=Address(*silent.getsockname()))
            await trio.testing.wait_all_tasks_blocked()
            connection = alice.connection
            alice.do(CloseConnection(1, "no longer wanted"))
            await connection.wait_closed()
        alice.dial(3, carol, BOB, HELLO)
        assert (await alice.journal.next(ConnectFailed)).connection == 3
        assert [each for each in carol.journal.inputs if isinstance(each, ConnectionAccepted)] == []
