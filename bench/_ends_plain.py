"""Plain TCP without encryption, as the limit: `blocking` sockets, and `trio` as its own streams do it."""

import socket
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final

import trio

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

READ_BYTES: Final = 256 * 1024


def serve_blocking(listener: socket.socket) -> None:
    """Serve one connection after the other."""
    while True:
        sock, _ = listener.accept()
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            size = int.from_bytes(sock.recv(HEADER_BYTES, socket.MSG_WAITALL), "big")
            held = 0
            while data := sock.recv(READ_BYTES):
                whole, held = divmod(held + len(data), size or 1)
                for _ in range(whole):
                    sock.send(ANSWER)


def exchange_blocking(sock: socket.socket, exchange: Exchange) -> float:
    """Return the seconds that an exchange takes."""
    message, sent, answered, rest = exchange.message(), 0, 0, 0
    began = perf_counter()
    while answered < exchange.count:
        while sent < exchange.count and sent - answered < exchange.window:
            sock.sendall(message)
            sent += 1
        whole, rest = divmod(rest + len(sock.recv(READ_BYTES)), SMALL)
        answered += whole
    return perf_counter() - began


def client_blocking(address: tuple[str, int], what: str, count: int) -> None:
    """Measure one thing."""

    def connect(size: int) -> socket.socket:
        sock = socket.create_connection(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.send(size.to_bytes(HEADER_BYTES, "big"))
        return sock

    if what == "setup":
        taken = []
        for _ in range(count):
            began = perf_counter()
            with connect(SMALL) as sock:
                exchange_blocking(sock, Exchange(SMALL, 1, 1))
                taken.append((perf_counter() - began) * 1e3)
        say(taken)
        return
    exchange = exchange_named(what, count)
    with connect(SMALL) as sock:
        exchange_blocking(sock, WARM)
    with connect(exchange.size) as sock:
        say(figure_of(exchange, exchange_blocking(sock, exchange)))


async def serve_trio(stream: trio.SocketStream) -> None:
    """Serve one connection."""
    async with stream:
        first = bytearray()
        while len(first) < HEADER_BYTES:
            data = await stream.receive_some(READ_BYTES)
            if not data:
                return
            first += data
        size = int.from_bytes(first[:HEADER_BYTES], "big")
        held = len(first) - HEADER_BYTES
        while True:
            whole, held = divmod(held, size)
            for _ in range(whole):
                await stream.send_all(ANSWER)
            data = await stream.receive_some(READ_BYTES)
            if not data:
                return
            held += len(data)


async def exchange_trio(stream: trio.SocketStream, exchange: Exchange) -> float:
    """Return the seconds that an exchange takes."""
    message, sent, answered, rest = exchange.message(), 0, 0, 0
    began = perf_counter()
    while answered < exchange.count:
        while sent < exchange.count and sent - answered < exchange.window:
            await stream.send_all(message)
            sent += 1
        whole, rest = divmod(rest + len(await stream.receive_some(READ_BYTES)), SMALL)
        answered += whole
    return perf_counter() - began


async def client_trio(address: tuple[str, int], what: str, count: int) -> None:
    """Measure one thing."""

    async def connect(size: int) -> trio.SocketStream:
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(size.to_bytes(HEADER_BYTES, "big"))
        return stream

    if what == "setup":
        taken = []
        for _ in range(count):
            began = perf_counter()
            async with await connect(SMALL) as stream:
                await exchange_trio(stream, Exchange(SMALL, 1, 1))
                taken.append((perf_counter() - began) * 1e3)
        say(taken)
    elif what == "hold":
        streams = [await connect(SMALL) for _ in range(count)]
        for stream in streams:
            await exchange_trio(stream, Exchange(SMALL, 1, 1))
        say("held")
        wait_for_end_of_input()
    else:
        exchange = exchange_named(what, count)
        async with await connect(SMALL) as stream:
            await exchange_trio(stream, WARM)
        async with await connect(exchange.size) as stream:
            say(figure_of(exchange, await exchange_trio(stream, exchange)))


def main(kind: str, arguments: list[str]) -> None:
    """Be one end."""
    if arguments[0] == "client":
        host, port = arguments[1].rsplit(":", 1)
        address, what, count = (host, int(port)), arguments[2], int(arguments[3])
        if kind == "trio":
            trio.run(client_trio, address, what, count)
        else:
            client_blocking(address, what, count)
        return
    serve: dict[str, Callable[[], None]] = {"trio": _run_trio, "blocking": _run_blocking}
    serve[kind]()


def _run_blocking() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        say(f"127.0.0.1:{listener.getsockname()[1]}")
        serve_blocking(listener)


def _run_trio() -> None:
    async def run() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        say(f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        await trio.serve_listeners(serve_trio, listeners)

    trio.run(partial(run))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
