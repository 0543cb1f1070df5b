"""iroh's Python package over loopback, without relays and discovery; the calls and answers of bench/_ends.py."""

import asyncio
import ctypes
import importlib
import sys
from time import perf_counter
from typing import Any, Final

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

ALPN: Final = b"teale-bench/1"
READ_BYTES: Final = 256 * 1024

iroh: Final[Any] = importlib.import_module("iroh")


def _write_at_once(builder: Any, value: bytes) -> None:
    """Copy in one piece what the binding, as it is shipped, copies byte by byte, at some 5 MB/s."""
    with builder._reserve(len(value)):  # noqa: SLF001
        ctypes.memmove(ctypes.addressof(builder.rbuf.data.contents) + builder.rbuf.len, value, len(value))


iroh.iroh_ffi._UniffiRustBufferBuilder.write = _write_at_once  # noqa: SLF001


async def endpoint() -> Any:
    """Return an endpoint that is bound to loopback and asks nobody on the internet for anything."""
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(), relay_mode=iroh.RelayMode.disabled(), bind_addr="127.0.0.1:0", alpns=[ALPN]
    )
    return await iroh.Endpoint.bind(options)


async def serve() -> None:
    """Serve until killed."""
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    node = await endpoint()
    say(f"{node.id()}@{node.bound_sockets()[0]}")
    tasks = set()
    while (incoming := await node.accept_next()) is not None:
        task = asyncio.create_task(attend(incoming))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def attend(incoming: Any) -> None:
    """Answer the streams of one connection."""
    connection = await (await incoming.accept()).connect()
    try:
        while True:
            stream = await connection.accept_bi()
            await answer(stream.send(), stream.recv())
    except iroh.IrohError:
        return  # the client has gone


async def answer(out: Any, incoming: Any) -> None:
    """Answer the messages of one stream."""
    size = int.from_bytes(await incoming.read_exact(HEADER_BYTES), "big")
    held = 0
    while data := await incoming.read(READ_BYTES):
        whole, held = divmod(held + len(data), size)
        for _ in range(whole):
            await out.write_all(ANSWER)


class Opened:
    """A stream of a connection that we dialled."""

    def __init__(self, connection: Any, stream: Any) -> None:
        self.connection = connection
        self.out = stream.send()
        self.incoming = stream.recv()

    async def exchange(self, exchange: Exchange) -> float:
        """Return the seconds that an exchange takes."""
        message, sent, answered, rest = exchange.message(), 0, 0, 0
        began = perf_counter()
        while answered < exchange.count:
            while sent < exchange.count and sent - answered < exchange.window:
                await self.out.write_all(message)
                sent += 1
            whole, rest = divmod(rest + len(await self.incoming.read(READ_BYTES)), SMALL)
            answered += whole
        return perf_counter() - began

    async def close(self) -> None:
        """End stream and connection."""
        await self.out.finish()
        self.connection.close(0, b"done")


async def dial(node: Any, address: str, size: int) -> Opened:
    """Open a connection and a stream on it."""
    name, _, place = address.partition("@")
    where = iroh.EndpointAddr(iroh.EndpointId.from_string(name), None, [place])
    connection = await node.connect(where, ALPN)
    opened = Opened(connection, await connection.open_bi())
    await opened.out.write_all(size.to_bytes(HEADER_BYTES, "big"))
    return opened


async def client(address: str, what: str, count: int) -> None:
    """Measure one thing."""
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    if what == "setup":
        taken = []
        for _ in range(count):
            node = await endpoint()
            began = perf_counter()
            opened = await dial(node, address, SMALL)
            await opened.exchange(Exchange(SMALL, 1, 1))
            taken.append((perf_counter() - began) * 1e3)
            await opened.close()
            await node.close()
        say(taken)
    elif what == "hold":
        node = await endpoint()
        held = [await dial(node, address, SMALL) for _ in range(count)]
        for each in held:
            await each.exchange(Exchange(SMALL, 1, 1))
        say("held")
        await asyncio.to_thread(wait_for_end_of_input)
    else:
        node = await endpoint()
        exchange = exchange_named(what, count)
        warm = await dial(node, address, SMALL)
        await warm.exchange(WARM)
        opened = await dial(node, address, exchange.size)
        say(figure_of(exchange, await opened.exchange(exchange)))
        await warm.close()
        await opened.close()


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "serve" else client(sys.argv[2], sys.argv[3], int(sys.argv[4])))
