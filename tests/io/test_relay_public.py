"""`teale-relay` among strangers: tokens, certificates that change, limits, slow readers, and an orderly end."""

import base64
import json
import os
import signal
import socket
import ssl
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed as Closed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from teale_io.connections import DialFailed
from teale_io.websocket import WebSocketDialer
from teale_proto.effects import WebSocketUrl
from teale_proto.secure.identity import Identity

from .certificates import self_signed
from .journal import DEADLINE_SECONDS
from .test_relay_app import ALICE, BOB, get, hear, register, relay, run_to_end, say, with_client

CAROL, DAVE = (Identity.from_seed(bytes(31) + letter) for letter in (b"c", b"d"))
TOKEN, OTHER = "0123456789abcdef", "fedcba9876543210"
JSON_LOG = ("--log-format", "json")


def bearer(token: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {token}"}}


def status_of(url: str, **options: Any) -> int:
    """Return with what status the relay answers a WebSocket request; 101 when it opens one."""
    try:
        with connect(url, open_timeout=DEADLINE_SECONDS, **options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def status(url: str, **options: Any) -> int:
    return await trio.to_thread.run_sync(lambda: status_of(url, **options))


async def until(is_so: Callable[[], Any]) -> Any:
    """Ask in a thread until the answer is yes."""
    with trio.fail_after(DEADLINE_SECONDS):
        while not (answer := await trio.to_thread.run_sync(is_so)):
            await trio.lowlevel.checkpoint()
    return answer


def lines(log: Path, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in found if line["event"] == event]


def closing(client: ClientConnection) -> tuple[int, str]:
    """Read to the end; return the close code and reason."""

    def read_on() -> None:
        while True:
            client.recv(timeout=DEADLINE_SECONDS)

    with pytest.raises(Closed) as closed:
        read_on()
    assert closed.value.rcvd is not None, closed.value
    return closed.value.rcvd.code, closed.value.rcvd.reason


def open_session(
    initiator: ClientConnection, target: ClientConnection, who: Identity, whom: Identity, name: str = "s"
) -> Callable[..., None]:
    """Open a session; return what says something in it."""
    there = {"fromNodeID": who.node_id, "toNodeID": whom.node_id, "sessionID": name}
    say(initiator, "relayOpen", **there)
    hear(target, "relayOpen")
    say(target, "relayReady", fromNodeID=whom.node_id, toNodeID=who.node_id, sessionID=name)
    hear(initiator, "relayReady")

    def tell(kind: str, **payload: Any) -> None:
        say(initiator, kind, **there, **payload)

    return tell


# Tokens.


async def test_a_relay_with_tokens_lets_in_who_has_one(tmp_path: Path) -> None:
    file, log = tmp_path / "tokens", tmp_path / "log"
    file.write_text(f"# friends\n{TOKEN} laptop\n")
    async with relay("--token-file", str(file), *JSON_LOG, log=log) as running:
        assert await status(running.url) == 401
        assert await status(running.url, **bearer(OTHER)) == 401
        await with_client(running.url, lambda client: register(client, ALICE), **bearer(TOKEN))
        assert (await get(f"{running.http}/health")).status_code == 200

        with pytest.raises(DialFailed, match="the server wants an access token"):
            await WebSocketDialer()(WebSocketUrl(running.url))
        with pytest.raises(DialFailed, match="the server does not accept our access token"):
            await WebSocketDialer(token=OTHER)(WebSocketUrl(running.url))
        stream, _ = await WebSocketDialer(token=TOKEN)(WebSocketUrl(running.url))
        await trio.aclose_forcefully(stream)
    assert TOKEN not in log.read_text()
    assert OTHER not in log.read_text()


@pytest.mark.parametrize("from_environment", [False, True])
async def test_a_node_shows_its_token(tmp_path: Path, from_environment: bool) -> None:
    home, file, log = tmp_path / "home", tmp_path / "tokens", tmp_path / "log"
    home.mkdir()
    file.write_text(TOKEN)
    async with relay("--token-file", str(file)) as running:
        settings = [
            f'wan_relay_url = "{running.url}"\nwan_enabled = true\nlan_enabled = false\napi_port = 0',
            'identity_storage = "plain-file"\nlog_level = "debug"',
            f'wan_relay_token = "{OTHER if from_environment else TOKEN}"',
        ]
        (home / "config.toml").write_text("\n".join(settings))
        environment = {**os.environ, "TEALE_HOME": str(home)}
        if from_environment:
            environment["TEALE_RELAY_TOKEN"] = TOKEN
        with log.open("wb") as said:
            node = await trio.lowlevel.open_process(
                [sys.executable, "-m", "teale_io.node_app"], env=environment, stdout=said, stderr=said
            )
        try:
            await until(lambda: json.load(urllib.request.urlopen(f"{running.http}/health"))["peers"])
        finally:
            node.terminate()
            with trio.CancelScope(shield=True), trio.fail_after(DEADLINE_SECONDS):
                await node.wait()
    assert TOKEN not in log.read_text()


async def test_pages_that_name_nodes_need_the_token_from_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(TOKEN)
    async with relay("--token-file", str(file), "--trusted-proxy", "127.0.0.1") as running:
        elsewhere = {"X-Forwarded-For": "203.0.113.5"}
        for page in ("/peers", "/metrics"):
            assert (await get(running.http + page)).status_code == 200
            refused = await get(running.http + page, **elsewhere)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"].startswith("Bearer")
            shown = await get(running.http + page, **elsewhere, Authorization=f"Bearer {TOKEN}")
            assert shown.status_code == 200
        assert (await get(f"{running.http}/health", **elsewhere)).status_code == 200


async def test_tokens_change_without_a_restart_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    file, log = tmp_path / "tokens", tmp_path / "log"
    file.write_text(TOKEN)
    arguments = ("--token-file", str(file), "--reload-seconds", "3600", *JSON_LOG)
    async with relay(*arguments, log=log) as running:
        file.write_text(OTHER)
        os.kill(running.process.pid, signal.SIGHUP)
        await until(lambda: status_of(running.url, **bearer(OTHER)) == 101)
        assert await status(running.url, **bearer(TOKEN)) == 401
        file.write_text("short\n")
        os.kill(running.process.pid, signal.SIGHUP)
        await until(lambda: lines(log, "reload failed, the old one stays in use"))
        assert await status(running.url, **bearer(OTHER)) == 101


async def test_a_token_file_that_cannot_be_used_is_one_clear_sentence(tmp_path: Path) -> None:
    missing = await run_to_end("--port", "0", "--token-file", str(tmp_path / "none"))
    assert missing == (1, "teale-relay: the token file cannot be read: no such file or directory")


# Certificates.


async def test_a_renewed_certificate_is_used_for_new_connections_and_a_broken_one_is_not(tmp_path: Path) -> None:
    log = tmp_path / "log"
    chain, _ = self_signed(tmp_path)
    files = ("--tls-cert", str(chain), "--tls-key", str(tmp_path / "key.pem"))
    async with relay(*files, "--reload-seconds", "0.1", *JSON_LOG, log=log) as running:
        port = int(running.url.removesuffix("/ws").rpartition(":")[2])

        def shown() -> str:
            return ssl.get_server_certificate(("127.0.0.1", port), timeout=DEADLINE_SECONDS)

        first = chain.read_text()
        assert await trio.to_thread.run_sync(shown) == first

        trusting_the_first = ssl.create_default_context(cafile=chain)
        self_signed(tmp_path)

        def stay(client: ClientConnection) -> None:
            register(client, ALICE)
            say(client, "discover", requestingNodeID=ALICE.node_id)
            hear(client, "peers")

        second = chain.read_text()
        assert second != first
        await until(lambda: shown() == second)
        with pytest.raises(ssl.SSLCertVerificationError):
            await with_client(running.url, stay, ssl=trusting_the_first)
        await with_client(running.url, stay, ssl=ssl.create_default_context(cafile=chain))

        chain.write_text("nonsense")
        await until(lambda: lines(log, "reload failed, the old one stays in use"))
        assert await trio.to_thread.run_sync(shown) == second


# The end.


async def test_sessions_may_end_in_their_own_time_and_nobody_new_comes() -> None:
    async with relay("--drain-seconds", "60") as running:

        def talk(alice: ClientConnection) -> None:
            register(alice, ALICE)
            with connect(running.url) as bob, connect(running.url) as carol:
                register(bob, BOB)
                register(carol, CAROL)
                tell = open_session(alice, bob, ALICE, BOB)
                os.kill(running.process.pid, signal.SIGTERM)
                for client in (alice, bob, carol):
                    error = hear(client, "error")
                    assert (error["code"], error["retryAfterSeconds"]) == ("shutting_down", 5)
                assert closing(carol) == (1012, "the relay is stopping")
                with pytest.raises(InvalidStatus) as refused, connect(running.url):
                    pass
                assert refused.value.response.status_code == 503
                assert refused.value.response.headers["Retry-After"] == "5"
                tell("relayData", data=base64.b64encode(b"the rest").decode())
                assert base64.b64decode(hear(bob, "relayData")["data"]) == b"the rest"
                tell("relayClose")
                hear(bob, "relayClose")
                assert closing(alice) == closing(bob) == (1012, "the relay is stopping")

        await with_client(running.url, talk)
        with trio.fail_after(DEADLINE_SECONDS):
            assert await running.process.wait() == 0


async def test_health_says_that_a_relay_is_about_to_end() -> None:
    async with relay("--drain-seconds", "60") as running:
        async with trio.open_nursery() as nursery:
            asked = trio.Event()

            async def look() -> None:
                await asked.wait()
                answer = await get(f"{running.http}/health")
                assert (answer.status_code, answer.json()) == (503, {"ok": False, "peers": 2})
                os.kill(running.process.pid, signal.SIGTERM)

            def talk(alice: ClientConnection) -> None:
                register(alice, ALICE)
                with connect(running.url) as bob:
                    register(bob, BOB)
                    open_session(alice, bob, ALICE, BOB)
                    os.kill(running.process.pid, signal.SIGTERM)
                    hear(alice, "error")
                    trio.from_thread.run_sync(asked.set)
                    assert closing(alice) == (1001, "the relay is stopping"), "a second signal ends all patience"

            nursery.start_soon(look)
            await with_client(running.url, talk)
        with trio.fail_after(DEADLINE_SECONDS):
            assert await running.process.wait() == 0


async def test_patience_ends_with_the_sessions_that_did_not() -> None:
    async with relay("--drain-seconds", "0.1") as running:

        def talk(alice: ClientConnection) -> None:
            register(alice, ALICE)
            with connect(running.url) as bob:
                register(bob, BOB)
                open_session(alice, bob, ALICE, BOB)
                os.kill(running.process.pid, signal.SIGTERM)
                assert closing(alice) == closing(bob) == (1012, "the relay is stopping")

        await with_client(running.url, talk)
        with trio.fail_after(DEADLINE_SECONDS):
            assert await running.process.wait() == 0


# Limits.


async def test_an_address_gets_so_many_connections_and_others_notice_nothing() -> None:
    async with relay("--connections-per-address", "2", "--trusted-proxy", "127.0.0.0/8") as running:

        def come(first: ClientConnection) -> None:
            def from_address(address: str) -> ClientConnection:
                return connect(running.url, additional_headers={"X-Forwarded-For": address})

            register(first, ALICE)
            with from_address("203.0.113.5") as a, from_address("203.0.113.5") as b:
                register(a, BOB)
                register(b, CAROL)
                with from_address("203.0.113.5") as third:
                    assert closing(third) == (1013, "too many connections from one address")
                with from_address("203.0.113.6") as elsewhere:
                    register(elsewhere, DAVE)
            with from_address("203.0.113.5") as again:
                register(again, BOB)

        await with_client(running.url, come, additional_headers={"X-Forwarded-For": "203.0.113.7"})


async def test_silent_sockets_of_one_address_do_not_keep_another_one_out() -> None:
    async with relay("--connections-per-address", "1") as running:
        port = int(running.url.removesuffix("/ws").rpartition(":")[2])

        def crowd() -> None:
            silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(65)]
            late = socket.create_connection(("127.0.0.1", port))
            late.settimeout(DEADLINE_SECONDS)
            assert late.recv(1) == b"", "one more than may shake hands at a time"
            with connect(running.url, source_address=("127.0.0.2", 0)) as elsewhere:
                register(elsewhere, ALICE)
            for each in (*silent, late):
                each.close()

        await trio.to_thread.run_sync(crowd)


async def test_who_is_too_fast_is_told_when_to_go_on_and_the_others_are_served() -> None:
    async with relay("--client-messages", "10") as running:

        def flood(alice: ClientConnection) -> None:
            register(alice, ALICE)
            with connect(running.url) as bob:
                register(bob, BOB)
                for _ in range(200):
                    say(alice, "unheardOf")
                kinds = [json.loads(alice.recv(timeout=DEADLINE_SECONDS))["payload"]["code"]]
                while kinds[-1] != "rate_limited":
                    message = json.loads(alice.recv(timeout=DEADLINE_SECONDS))["payload"]
                    kinds.append(message["code"])
                assert set(kinds) == {"unsupported_message", "rate_limited"}
                assert 38 <= len(kinds) <= 60, "a burst of four seconds, two of them spent, and what came back since"
                assert 0 < message["retryAfterSeconds"] <= 0.1
                say(bob, "discover", requestingNodeID=BOB.node_id)
                hear(bob, "peers")

        await with_client(running.url, flood)


# Slow readers.


def chunk(number: int) -> str:
    return base64.b64encode(number.to_bytes(4, "big") + bytes(48_000)).decode()


async def test_the_slow_reader_pays_and_nobody_else_notices() -> None:
    async with relay("--unsent-bytes-max", "1000000", *JSON_LOG) as running:

        def talk(alice: ClientConnection) -> None:
            register(alice, ALICE)
            with (
                connect(running.url, max_queue=1, close_timeout=0.1) as bob,
                connect(running.url) as carol,
                connect(running.url) as dave,
            ):
                for client, who in ((bob, BOB), (carol, CAROL), (dave, DAVE)):
                    register(client, who)
                tell = open_session(alice, bob, ALICE, BOB)
                other = open_session(carol, dave, CAROL, DAVE, "t")
                for number in range(1000):
                    tell("relayData", data=chunk(number))
                    if number % 10 == 0:
                        other("relayData", data="aGk=")
                        assert hear(dave, "relayData")["data"] == "aGk="
                    try:
                        message = json.loads(alice.recv(timeout=0))
                    except TimeoutError:
                        continue
                    assert message["type"] == "relayClose", message
                    assert message["payload"]["fromNodeID"] == BOB.node_id
                    break
                else:
                    raise AssertionError("bob never reads, and yet nothing ends")
                say(alice, "discover", requestingNodeID=ALICE.node_id)
                ids = {peer["nodeID"] for peer in hear_next(alice, "peers")["peers"]}
                assert ids == {CAROL.node_id, DAVE.node_id}
                code, reason = closing(bob)
                assert code == 1013, "it reads on, and learns why"
                assert reason.startswith("too slow: ")

        await with_client(running.url, talk)


async def test_signalling_overtakes_data_that_waits() -> None:
    async with relay("--unsent-bytes-max", str(1 << 26)) as running:

        def talk(alice: ClientConnection) -> None:
            register(alice, ALICE)
            with connect(running.url, max_queue=1) as bob:
                register(bob, BOB)
                tell = open_session(alice, bob, ALICE, BOB)
                for number in range(400):
                    tell("relayData", data=chunk(number))
                tell("relayClose")
                say(alice, "relayOpen", fromNodeID=ALICE.node_id, toNodeID=BOB.node_id, sessionID="urgent")
                say(alice, "discover", requestingNodeID=ALICE.node_id)
                hear(alice, "peers")  # so the relay has taken everything in
                heard = [json.loads(bob.recv(timeout=DEADLINE_SECONDS)) for _ in range(402)]
                kinds = [message["type"] for message in heard]
                data = [message["payload"]["data"] for message in heard if message["type"] == "relayData"]
                assert data == [chunk(number) for number in range(400)], "in order, and whole"
                assert kinds[-1] == "relayClose", "the end of a session does not overtake its data"
                assert kinds.index("relayOpen") < 350

        await with_client(running.url, talk)


def hear_next(client: ClientConnection, kind: str) -> dict[str, Any]:
    """Return the next message of a kind, whatever comes before it."""
    while True:
        message = json.loads(client.recv(timeout=DEADLINE_SECONDS))
        if message["type"] == kind:
            payload: dict[str, Any] = message["payload"]
            return payload


# What it says of itself.


async def test_prometheus_reads_the_metrics_and_learns_no_node() -> None:
    async with relay() as running:

        def talk(client: ClientConnection) -> None:
            register(client, ALICE)
            say(client, "unheardOf")
            hear(client, "error")
            trio.from_thread.run(look)

        async def look() -> None:
            answer = await get(f"{running.http}/metrics", accept="text/plain;version=0.0.4")
            assert answer.headers["Content-Type"].startswith("text/plain")
            samples = {
                (sample.name, *sample.labels.values()): sample.value
                for family in text_string_to_metric_families(answer.text)
                for sample in family.samples
            }
            assert samples["teale_relay_nodes",] == 1
            assert samples["teale_relay_messages_total",] == 3
            assert samples["teale_relay_complaints_total", "unsupported_message"] == 1
            assert samples["teale_relay_too_fast_total", "client"] == 0
            assert samples["teale_relay_draining",] == 0
            assert samples["process_open_fds",] > 0
            assert ALICE.node_id[:8] not in answer.text
            assert "somebody" not in answer.text

        await with_client(running.url, talk)


async def test_a_connection_is_one_line_and_a_message_is_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with relay("--no-stun", *JSON_LOG, log=log) as running:

        def talk(client: ClientConnection) -> None:
            register(client, ALICE)
            for _ in range(20):
                say(client, "unheardOf", secret="payload")

        await with_client(running.url, talk)
        with socket.create_connection(running.url.removeprefix("ws://").removesuffix("/ws").rsplit(":", 1)) as silent:  # type: ignore[arg-type]  # the system takes a port as text
            silent.sendall(b"GET /ws HTTP/1.1\r\n\r\n")
            assert await trio.to_thread.run_sync(silent.recv, 10)
        [ended] = await until(lambda: lines(log, "connection ended"))
        await until(lambda: lines(log, "connection refused"))
    assert (ended["node"], ended["messages"]) == (ALICE.node_id[:16], 22)
    assert ended["bytes"] > 500
    assert ended["remote"] == "127.0.0.1"
    assert ended["reason"] == "closed by the other side (1000)"
    assert 0 < ended["open_seconds"] < DEADLINE_SECONDS
    text = log.read_text()
    assert len(text.splitlines()) == 2
    for secret in ("payload", ALICE.node_id, "somebody"):
        assert secret not in text
