"""Our endpoint with aioquic's own asyncio client and server, which run in a thread."""

import asyncio
import ssl

import pytest
import trio
from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

from teale_io.quic.credentials import PROOF_BYTES, Credentials, client_proof, node_of_proof
from teale_io.quic.stack import ALPN, Stack
from teale_proto.inputs import Address

from .pair import ALICE, BOB, PATTERN, Side, read_to_end, send_and_end, sides


async def test_aioquics_own_client_talks_to_our_server(stack: Stack) -> None:
    async with sides() as nursery:
        bob = Side(nursery, BOB, stack=stack, echoes=True)
        answer = await trio.to_thread.run_sync(_ask, bob.address.port, PATTERN[:300_000])
        assert answer == PATTERN[:300_000]
        assert (await bob.accept()).peer == ALICE.node_id


def _ask(port: int, question: bytes) -> bytes:
    """Ask with the stock client, which proves to be Alice."""

    async def ask() -> bytes:
        configuration = QuicConfiguration(alpn_protocols=[ALPN], verify_mode=ssl.CERT_NONE)
        async with connect("127.0.0.1", port, configuration=configuration) as client:
            first_id = client._quic.original_destination_connection_id
            _, proof = await client.create_stream(is_unidirectional=True)
            proof.write(client_proof(ALICE, server=BOB.node_id, first_id=first_id))
            proof.write_eof()
            reader, writer = await client.create_stream()
            writer.write(question)
            writer.write_eof()
            return await reader.read()

    return asyncio.run(ask())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it never closes one-way streams
async def test_our_client_talks_to_aioquics_own_server(stack: Stack) -> None:
    async with sides() as nursery:
        server = _StockServer()
        port = await nursery.start(server.run)
        alice = Side(nursery, ALICE, stack=stack)
        connection = await alice.endpoint.connect(BOB.node_id, Address("127.0.0.1", port))
        stream = connection.open_stream()
        nursery.start_soon(send_and_end, stream, PATTERN[:300_000])
        assert await read_to_end(stream) == PATTERN[:300_000]
        connection.close()
        await connection.wait_closed()
        server.stop()
        assert len(server.proofs) == 1
        first_id = connection.core.original_destination_connection_id
        assert node_of_proof(server.proofs[0], server=BOB.node_id, first_id=first_id) == ALICE.node_id


class _StockServer:
    """The stock server as Bob, which sends back what comes in on streams in both directions."""

    def __init__(self) -> None:
        self.proofs: list[bytes] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Event | None = None

    async def run(self, task_status: "trio.TaskStatus[int]") -> None:
        await trio.to_thread.run_sync(lambda: asyncio.run(self._serve(task_status)), abandon_on_cancel=True)

    def stop(self) -> None:
        assert self._loop is not None
        assert self._done is not None
        self._loop.call_soon_threadsafe(self._done.set)

    async def _serve(self, task_status: "trio.TaskStatus[int]") -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        configuration = Stack("aioquic").configuration(
            is_client=False, credentials=Credentials(BOB), idle_seconds=30, datagram_bytes=1200
        )
        server = await serve("127.0.0.1", 0, configuration=configuration, stream_handler=self._came)
        assert server._transport is not None
        port: int = server._transport.get_extra_info("sockname")[1]
        trio.from_thread.run_sync(task_status.started, port)
        await self._done.wait()
        server.close()

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._task = asyncio.ensure_future(self._answer(reader, writer))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer.get_extra_info("stream_id") & 2:
            self.proofs.append(await reader.readexactly(PROOF_BYTES))
            return
        received = await reader.read()
        writer.write(received)
        writer.write_eof()
