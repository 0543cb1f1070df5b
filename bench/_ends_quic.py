"""QUIC ends: ours over either library, and aioquic's own asyncio driver.

`setup` is a connection between nodes that have not met, `resume` one between nodes that have: in both the first
message leaves as early as the stack can send it, and is answered.
"""

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, Final

import trio
from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

from bench._ends import (
    ANSWER,
    HEADER_BYTES,
    SMALL,
    WARM,
    Exchange,
    exchange_named,
    figure_of,
    say,
    wait_for_end_of_input,
)
from teale_io.memory import keep_freed_memory
from teale_io.quic.connection import QuicConnection
from teale_io.quic.credentials import Credentials
from teale_io.quic.endpoint import Endpoint
from teale_io.quic.limits import Limits
from teale_io.quic.stack import ALPN, CONNECTION_WINDOW, STREAM_WINDOW, Stack
from teale_io.quic.stream import QuicStream
from teale_io.quic.tickets import Tickets
from teale_io.quic.udp import SOCKET_BUFFER_BYTES, bind_udp
from teale_proto.inputs import Address
from teale_proto.secure.identity import Identity

SERVER: Final = Identity.from_seed(b"s" * 32)
CLIENT: Final = Identity.from_seed(b"c" * 32)
ANSWERS_AT_ONCE: Final = 256
READ_BYTES: Final = 256 * 1024


def sizes(data: bytes) -> tuple[int, int]:
    """Return the size of the messages of a stream, and how much of its first bytes belongs to messages."""
    return int.from_bytes(data[:HEADER_BYTES], "big"), len(data) - HEADER_BYTES


# Ours.


async def serve_ours(stack: Stack) -> None:
    """Answer every message, until killed."""
    keep_freed_memory()
    async with trio.open_nursery() as nursery:

        async def streams_of(connection: QuicConnection) -> None:
            try:
                while True:
                    nursery.start_soon(answer_ours, await connection.accept_stream())
            except OSError:
                return

        endpoint = Endpoint(
            bind_udp("127.0.0.1", 0),
            SERVER,
            on_accept=lambda connection: nursery.start_soon(streams_of, connection),
            limits=Limits(connections_max=10_000, per_address_max=10_000),
            stack=stack,
        )
        say(f"127.0.0.1:{endpoint.local.port}")
        await endpoint.run()


async def answer_ours(stream: QuicStream) -> None:
    """Answer the messages of one stream."""
    try:
        first = await stream.receive_some()
        while len(first) < HEADER_BYTES:
            first += await stream.receive_some()
        size, held = sizes(first)
        while True:
            whole, held = divmod(held, size)
            while whole:
                await stream.send_all(ANSWER * min(whole, ANSWERS_AT_ONCE))
                whole -= min(whole, ANSWERS_AT_ONCE)
            data = await stream.receive_some()
            if not data:
                return
            held += len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def exchange_ours(stream: QuicStream, exchange: Exchange) -> float:
    """Return the seconds that an exchange takes."""
    message, sent, answered, rest = exchange.message(), 0, 0, 0
    began = perf_counter()
    while answered < exchange.count:
        while sent < exchange.count and sent - answered < exchange.window:
            await stream.send_all(message)
            sent += 1
        whole, rest = divmod(rest + len(await stream.receive_some()), SMALL)
        answered += whole
    return perf_counter() - began


@asynccontextmanager
async def endpoint_ours(stack: Stack) -> AsyncIterator[Endpoint]:
    """An endpoint for clients."""
    keep_freed_memory()
    async with trio.open_nursery() as nursery:
        endpoint = Endpoint(bind_udp("127.0.0.1", 0), CLIENT, stack=stack)
        nursery.start_soon(endpoint.run)
        yield endpoint
        nursery.cancel_scope.cancel()


def begin(size: int) -> bytes:
    """Return what a stream of messages of that size begins with."""
    return size.to_bytes(HEADER_BYTES, "big")


async def client_ours(stack: Stack, address: Address, what: str, count: int) -> None:
    """Measure one thing."""
    async with endpoint_ours(stack) as endpoint:
        if what in ("setup", "resume"):
            say([await first_byte_ours(endpoint, address, resumes=what == "resume") for _ in range(count)])
        elif what == "hold":
            for _ in range(count):
                connection = endpoint.dial(SERVER.node_id, address, fresh=True)
                await read_answer(connection.open_stream(early=begin(SMALL) + ANSWER))
            say("held")
            await trio.to_thread.run_sync(wait_for_end_of_input)
        else:
            exchange = exchange_named(what, count)
            connection = await endpoint.connect(SERVER.node_id, address)
            stream = connection.open_stream(early=begin(SMALL))
            await exchange_ours(stream, WARM)
            stream = connection.open_stream(early=begin(exchange.size))
            say(figure_of(exchange, await exchange_ours(stream, exchange)))


async def read_answer(stream: QuicStream) -> None:
    """Wait for one answer."""
    size = 0
    while size < SMALL:
        size += len(await stream.receive_some())


async def first_byte_ours(endpoint: Endpoint, address: Address, *, resumes: bool) -> float:
    """Return the milliseconds from nothing to an answer."""
    if not resumes:
        endpoint.tickets.kept.take(SERVER.node_id)
    began = perf_counter()
    connection = endpoint.dial(SERVER.node_id, address)
    await read_answer(connection.open_stream(early=begin(SMALL) + ANSWER))
    taken = (perf_counter() - began) * 1e3
    await connection.wait_sendable()  # by then the next ticket has come
    connection.close()
    await connection.wait_closed()
    return taken


# aioquic's own driver, with windows and buffers as large as ours.


def stock_configuration(*, is_client: bool, **more: Any) -> QuicConfiguration:
    """Return what both ends of the stock driver have in common."""
    return QuicConfiguration(
        alpn_protocols=[ALPN],
        is_client=is_client,
        max_data=CONNECTION_WINDOW,
        max_stream_data=STREAM_WINDOW,
        verify_mode=ssl.CERT_NONE,
        **more,
    )


async def serve_stock() -> None:
    """Answer every message, until killed."""
    credentials = Credentials(SERVER)
    configuration = stock_configuration(
        is_client=False, certificate=credentials.certificate, private_key=credentials.key
    )
    tickets = Tickets()
    tasks: set[asyncio.Task[None]] = set()

    def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(answer_stock(reader, writer)))

    server = await serve(
        "127.0.0.1",
        0,
        configuration=configuration,
        stream_handler=came,
        session_ticket_fetcher=tickets.given.take,
        session_ticket_handler=lambda ticket: tickets.given.put(ticket.ticket, ticket),
    )
    transport: Any = server._transport  # noqa: SLF001  (it has no name in public)
    _enlarge(transport)
    say(f"127.0.0.1:{transport.get_extra_info('sockname')[1]}")
    await asyncio.Event().wait()


def _enlarge(transport: Any) -> None:
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)


async def answer_stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the messages of one stream."""
    size, held = sizes(await reader.readexactly(HEADER_BYTES))
    while data := await reader.read(READ_BYTES):
        whole, held = divmod(held + len(data), size)
        if whole:
            writer.write(ANSWER * whole)


async def exchange_stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, exchange: Exchange) -> float:
    """Return the seconds that an exchange takes."""
    message, sent, answered, rest = exchange.message(), 0, 0, 0
    began = perf_counter()
    while answered < exchange.count:
        while sent < exchange.count and sent - answered < exchange.window:
            writer.write(message)
            sent += 1
        whole, rest = divmod(rest + len(await reader.read(READ_BYTES)), SMALL)
        answered += whole
    return perf_counter() - began


async def client_stock(port: int, what: str, count: int) -> None:
    """Measure one thing."""
    tickets: list[Any] = []

    def connection() -> Any:
        resumes = tickets.pop() if tickets and what == "resume" else None
        tickets.clear()
        return connect(
            "127.0.0.1",
            port,
            configuration=stock_configuration(is_client=True, session_ticket=resumes),
            session_ticket_handler=tickets.append,
            wait_connected=resumes is None,
        )

    if what in ("setup", "resume"):
        taken = []
        for _ in range(count):
            began = perf_counter()
            async with connection() as client:
                reader, writer = await client.create_stream()
                writer.write(begin(SMALL))
                await exchange_stock(reader, writer, Exchange(SMALL, 1, 1))
                taken.append((perf_counter() - began) * 1e3)
                await client.ping()
        say(taken)
    elif what == "hold":
        held = []
        for _ in range(count):
            opened = connection()
            client = await opened.__aenter__()
            reader, writer = await client.create_stream()
            writer.write(begin(SMALL))
            await exchange_stock(reader, writer, Exchange(SMALL, 1, 1))
            held.append((opened, reader, writer))
        say("held")
        await asyncio.to_thread(wait_for_end_of_input)
    else:
        exchange = exchange_named(what, count)
        async with connection() as client:
            _enlarge(client._transport)  # noqa: SLF001  (it has no name in public)
            for each in (WARM, exchange):
                reader, writer = await client.create_stream()
                writer.write(begin(each.size))
                seconds = await exchange_stock(reader, writer, each)
            say(figure_of(exchange, seconds))


def main(kind: str, arguments: list[str]) -> None:
    """Be one end."""
    if arguments[0] != "client":
        if kind == "stock":
            asyncio.run(serve_stock())
        else:
            trio.run(serve_ours, Stack(kind))
        return
    host, port = arguments[1].rsplit(":", 1)
    what, count = arguments[2], int(arguments[3])
    if kind == "stock":
        asyncio.run(client_stock(int(port), what, count))
    else:
        trio.run(client_ours, Stack(kind), Address(host, int(port)), what, count)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
