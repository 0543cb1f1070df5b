"""WebSockets between our own two sides, and with programs that are not ours."""

import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed as Closed
from websockets.sync.client import ClientConnection, connect

from teale_io.listener import Listener, bind
from teale_io.stream import PlainStream, address_of
from teale_io.websocket import WebSocketDialer
from teale_io.websocket_server import Page, WebSocketServer
from teale_proto.effects import CloseConnection, Connect, SendData, SendPing, SendText, WebSocketUrl
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionOpened,
    DataReceived,
    PingReceived,
    PongReceived,
)

from .certificates import self_signed
from .journal import Host, hosts, read_to_end, visitor

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: relay.example:99\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, BINARY, PING = 0x81, 0x82, 0x89


def serve(
    nursery: trio.Nursery,
    host: Host,
    *,
    tls: ssl.SSLContext | None = None,
    message_bytes_max: int = 1 << 20,
    handshake_seconds: float = 10,
) -> Address:
    """Serve WebSockets and one page on loopback."""
    listener = Listener(bind("127.0.0.1", 0), connections_max=100)
    server = WebSocketServer(
        host.connections,
        page=lambda visit: Page(b'{"ok": true}') if visit.path == "/health" else None,
        tls=None if tls is None else lambda: tls,
        message_bytes_max=message_bytes_max,
        handshake_seconds=handshake_seconds,
    )
    nursery.start_soon(server.serve, listener)
    return listener.address


def url_of(address: Address, scheme: str = "ws", path: str = "/ws?node=ab") -> WebSocketUrl:
    return WebSocketUrl(f"{scheme}://{address.host}:{address.port}{path}")


def frame(first: int, payload: bytes) -> bytes:
    """Return a client's frame of less than 126 bytes, masked with zeros."""
    return bytes((first, 0x80 | len(payload))) + bytes(4) + payload


async def upgraded(address: Address) -> PlainStream:
    """Connect as a client that is about to misbehave."""
    stream = await visitor(address)
    await stream.send_all(UPGRADE)
    answer = await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 101 ")
    return stream


async def in_thread(use: Callable[[ClientConnection], None], address: Address) -> None:
    """Run the `websockets` package's own client."""

    def run() -> None:
        with connect(url_of(address).url, open_timeout=20, close_timeout=20) as client:
            use(client)

    await trio.to_thread.run_sync(run)


async def test_messages_arrive_whole_and_in_order_both_ways() -> None:
    async with hosts() as nursery:
        near, far = Host(nursery), Host(nursery)
        near.do(Connect(1, url_of(serve(nursery, far))))
        await near.journal.next(ConnectionOpened)
        accepted = await far.journal.next(ConnectionAccepted)
        assert (accepted.connection, accepted.host) == (2, "127.0.0.1")
        messages = [bytes((number,)) * size for number, size in enumerate([0, 1, 125, 126, 65535, 65536, 1 << 20])]
        near.do(*(SendData(1, message) for message in messages), SendText(1, "schön".encode()))
        far.do(*(SendData(2, message) for message in messages), SendText(2, "schön".encode()))
        for host, connection in ((near, 1), (far, 2)):
            for message in (*messages, "schön".encode()):
                assert await host.journal.next(DataReceived) == DataReceived(connection, message)


async def test_pings_are_answered_and_both_sides_hear_of_it() -> None:
    async with hosts() as nursery:
        near, far = Host(nursery), Host(nursery)
        near.do(Connect(1, url_of(serve(nursery, far))))
        await near.journal.next(ConnectionOpened)
        near.do(SendPing(1))
        assert await far.journal.next(PingReceived) == PingReceived(2)
        assert await near.journal.next(PongReceived) == PongReceived(1)


@pytest.mark.parametrize("client_closes", [True, False])
async def test_a_close_is_told_to_the_other_side_with_its_reason(client_closes: bool) -> None:
    async with hosts() as nursery:
        near, far = Host(nursery), Host(nursery)
        near.do(Connect(1, url_of(serve(nursery, far))))
        await near.journal.next(ConnectionOpened)
        await far.journal.next(ConnectionAccepted)
        closing, connection, told, its = (near, 1, far, 2) if client_closes else (far, 2, near, 1)
        closing.do(SendText(connection, b"last words"), CloseConnection(connection, "so\nlong"))
        assert await told.journal.next(DataReceived) == DataReceived(its, b"last words")
        expected = ConnectionClosed(its, "closed by the other side (1000: so\ufffdlong)")
        assert await told.journal.next(ConnectionClosed) == expected
        await near.connections.wait_empty()
        await far.connections.wait_empty()
        assert near.journal.inputs == far.journal.inputs == []


async def test_a_frame_that_comes_with_the_servers_answer_is_not_lost() -> None:
    async with hosts() as nursery:
        near, far = Host(nursery), Host(nursery)
        far.journal.on_input = [SendText(2, b"welcome")]
        near.do(Connect(1, url_of(serve(nursery, far))))
        assert await near.journal.next(DataReceived) == DataReceived(1, b"welcome")
        assert near.journal.inputs == [ConnectionOpened(1)]


async def test_an_independent_client_is_understood() -> None:
    async with hosts() as nursery:
        host = Host(nursery, echoes=True)

        def use(client: ClientConnection) -> None:
            client.send("text")
            assert client.recv(timeout=20) == b"text"
            client.send([b"frag", b"", b"ments"])
            assert client.recv(timeout=20) == b"fragments"
            assert client.ping().wait(timeout=20)

        await in_thread(use, serve(nursery, host))
        await host.journal.next(PingReceived)
        assert await host.journal.next(ConnectionClosed) == ConnectionClosed(2, "closed by the other side (1000)")


async def test_a_message_beyond_the_limit_ends_the_connection() -> None:
    async with hosts() as nursery:
        host = Host(nursery, echoes=True)
        codes: list[int] = []

        def use(client: ClientConnection) -> None:
            client.send(bytes(1000))
            assert client.recv(timeout=20) == bytes(1000)
            # The end of the message may already meet the answer.
            with contextlib.suppress(Closed):
                client.send([bytes(500), bytes(501)])
            with pytest.raises(Closed) as closed:
                client.recv(timeout=20)
            assert closed.value.rcvd is not None
            codes.append(closed.value.rcvd.code)

        await in_thread(use, serve(nursery, host, message_bytes_max=1000))
        assert codes == [1009]
        assert await host.journal.next(ConnectionClosed) == ConnectionClosed(2, "sent a message that is too big")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (frame(TEXT, b"\xff"), "sent text that is not UTF-8"),
        (frame(0x83, b""), "broke the WebSocket protocol"),
        (b"\x81\x00", "broke the WebSocket protocol"),
        (frame(0x80, b"x"), "broke the WebSocket protocol"),
        (b"\x81\xff" + 8 * b"\xff", "sent a message that is too big"),
        (b"", "closed by the other side"),
    ],
    ids=["not UTF-8", "unknown opcode", "not masked", "nothing to continue", "huge", "no good-bye"],
)
async def test_a_client_that_breaks_the_rules_is_closed_after_what_it_said_before(sent: bytes, reason: str) -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        stream = await upgraded(serve(nursery, host))
        await stream.send_all(frame(BINARY, b"before") + sent)
        await stream.send_eof()
        await read_to_end(stream)
        assert await host.journal.next(DataReceived) == DataReceived(2, b"before")
        assert await host.journal.next(ConnectionClosed) == ConnectionClosed(2, reason)
        await host.connections.wait_empty()
        assert [type(event) for event in host.journal.inputs] == [ConnectionAccepted]
        await stream.aclose()


async def test_any_number_of_empty_fragments_costs_nothing_and_arrives() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        stream = await upgraded(serve(nursery, host))
        await stream.send_all(frame(0x02, b"a") + 20_000 * frame(0x00, b"") + frame(0x80, b"z"))
        assert await host.journal.next(DataReceived) == DataReceived(2, b"az")
        await stream.aclose()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /health HTTP/1.1", b"200"),
        (b"GET /health?x=1 HTTP/1.0", b"200"),
        (b"GET /nothing HTTP/1.1", b"404"),
        (b"POST /health HTTP/1.1", b"405"),
        (b"GET /ws HTTP/1.1", b"426"),
        (b"GET /" + 9000 * b"x" + b" HTTP/1.1", b"414"),
    ],
)
async def test_plain_requests_are_answered(request_line: bytes, status: bytes) -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        stream = await visitor(serve(nursery, host))
        await stream.send_all(request_line + b"\r\nHost: x\r\n\r\n")
        answer = await read_to_end(stream)
        assert answer.split(b" ")[1] == status
        assert (b'{"ok": true}' in answer) is (status == b"200")
        assert host.journal.inputs == []
        await stream.aclose()


@pytest.mark.parametrize(
    ("host_header", "host_name"),
    [
        (b"Host: Relay.Example:11437", "relay.example"),
        (b"Host: [::1]:80", "::1"),
        (b"Host: [::1", ""),
        (b"X: y", ""),
        (b"Host: a\r\nHost: b", ""),
    ],
)
async def test_the_host_that_the_client_named_is_passed_on(host_header: bytes, host_name: str) -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        stream = await visitor(serve(nursery, host))
        await stream.send_all(UPGRADE.replace(b"Host: relay.example:99", host_header))
        assert (await host.journal.next(ConnectionAccepted)).host == host_name
        await stream.aclose()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", "not a WebSocket request: InvalidMessage"),
        (b"GET /ws HTTP/1.1\r\n" + 300 * b"X-Y: zzz\r\n", "not a WebSocket request: TooManyHeaders"),
        (b"GET /ws HTTP/1.1\r\n" + 9 * (b"X-Y: " + 8000 * b"z" + b"\r\n"), "a request of more than 32768 bytes"),
        (UPGRADE[:-30], "closed before it asked for anything"),
        (UPGRADE + frame(PING, b""), "sent frames before the handshake was answered"),
    ],
    ids=["garbage", "too many headers", "oversized headers", "half a request", "hasty"],
)
async def test_a_bad_handshake_is_refused_with_a_reason_in_the_log(sent: bytes, reason: str) -> None:
    with capture_logs() as logs:
        async with hosts() as nursery:
            host = Host(nursery)
            stream = await visitor(serve(nursery, host))
            await stream.send_all(sent)
            with contextlib.suppress(trio.BrokenResourceError):  # refused before all of it was read
                await stream.send_eof()
                await read_to_end(stream)
            assert host.journal.inputs == []
            await stream.aclose()
    assert [(line["event"], line["reason"]) for line in logs] == [("connection refused", reason)]


async def test_a_handshake_that_trickles_is_cut_off() -> None:
    with capture_logs() as logs:
        async with hosts() as nursery:
            stream = await visitor(serve(nursery, Host(nursery), handshake_seconds=0.05))
            await stream.send_all(b"G")
            assert await read_to_end(stream) == b""
            await stream.aclose()
    assert [line["reason"] for line in logs] == ["no complete request within 0.05 s"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/ws", "not a WebSocket address: scheme isn't ws or wss"),
        ("ws://127.0.0.1:99999/ws", "not a WebSocket address"),
        ("ws:///ws", "not a WebSocket address: hostname isn't provided"),
        (f"ws://{70 * 'a'}.example/ws", "not a host name"),
    ],
)
async def test_an_impossible_address_is_refused_without_dialling(url: str, reason: str) -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        host.do(Connect(1, WebSocketUrl(url)))
        assert await host.journal.next(ConnectFailed) == ConnectFailed(1, reason)


async def test_a_server_that_speaks_something_else_is_a_failed_connection() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        host.do(Connect(1, url_of(serve(nursery, Host(nursery)), path="/health")))
        host.do(Connect(3, url_of(host.listen())))
        answers = {event.connection: event.reason for event in [await host.journal.next(ConnectFailed)]}
        assert answers == {1: "the server answered 200 to a WebSocket request"}
        accepted = await host.journal.next(ConnectionAccepted)
        host.do(SendData(accepted.connection, b"220 mail.example ESMTP\r\n"))
        refused = await host.journal.next(ConnectFailed)
        assert refused == ConnectFailed(3, "the answer is not that of a WebSocket server")


async def test_nobody_listening_is_a_failed_connection() -> None:
    async with hosts() as nursery:
        host = Host(nursery)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nobody = address_of(closed.getsockname())
        host.do(Connect(1, url_of(nobody)))
        assert await host.journal.next(ConnectFailed) == ConnectFailed(1, "connection refused")


async def test_an_encrypted_websocket_carries_messages_and_closes_cleanly(tmp_path: Path) -> None:
    async with hosts() as nursery:
        certificate, tls = self_signed(tmp_path)
        far = Host(nursery, echoes=True)
        near = Host(nursery, websockets=WebSocketDialer(ca_file=certificate))
        near.do(Connect(1, url_of(serve(nursery, far, tls=tls), "wss")))
        await near.journal.next(ConnectionOpened)
        large = bytes(range(256)) * 4000
        near.do(SendData(1, b"hello"), SendData(1, large))
        assert await near.journal.next(DataReceived) == DataReceived(1, b"hello")
        assert await near.journal.next(DataReceived) == DataReceived(1, large)
        near.do(CloseConnection(1, "done"))
        assert await far.journal.next(ConnectionClosed) == ConnectionClosed(2, "closed by the other side (1000: done)")
        await near.connections.wait_empty()
        await far.connections.wait_empty()


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with hosts() as nursery:
            _, tls = self_signed(tmp_path)
            near, far = Host(nursery), Host(nursery)
            near.do(Connect(1, url_of(serve(nursery, far, tls=tls), "wss")))
            failed = await near.journal.next(ConnectFailed)
            assert failed.reason.startswith("its certificate is not trusted: ")
            await near.connections.wait_empty()
            assert far.journal.inputs == []
    assert len(logs) <= 1


async def test_plain_text_to_an_encrypted_port_is_refused(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with hosts() as nursery:
            _, tls = self_signed(tmp_path)
            stream = await visitor(serve(nursery, Host(nursery), tls=tls))
            await stream.send_all(UPGRADE)
            await read_to_end(stream)
            await stream.aclose()
    assert [line["event"] for line in logs] == ["connection refused"]
