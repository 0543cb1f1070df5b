"""`teale-relay` as people run it: a process of its own, and clients that are not ours."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from websockets.exceptions import ConnectionClosed as Closed
from websockets.sync.client import ClientConnection, connect

from teale_proto.secure.identity import Identity
from teale_proto.wire.relay import registration_proof

from .certificates import self_signed
from .journal import DEADLINE_SECONDS

MAIN = "from teale_io.relay_app import main; main()"
ALICE = Identity.from_seed(bytes(31) + b"a")
BOB = Identity.from_seed(bytes(31) + b"b")


class Relay:
    """A running relay, the line it printed, and what it logged once it has ended."""

    def __init__(self, process: trio.Process, line: str) -> None:
        self.process = process
        self.url = line.removeprefix("listening on ")
        self.http = self.url.replace("ws", "http", 1).removesuffix("/ws")


@contextlib.asynccontextmanager
async def relay(*arguments: str, log: Path | None = None) -> AsyncIterator[Relay]:
    """Run a relay on a free port until the block ends; what it logs goes to `log`, if there is one."""
    command = [sys.executable, "-c", MAIN, "--port", "0", *arguments]
    with contextlib.ExitStack() as files:
        stderr = None if log is None else files.enter_context(log.open("wb"))
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=stderr)
    assert process.stdout is not None
    try:
        line = b""
        with trio.fail_after(3 * DEADLINE_SECONDS):
            while not line.endswith(b"\n"):
                some = await process.stdout.receive_some()
                assert some, "the relay ended before it listened"
                line += some
        yield Relay(process, line.decode().strip())
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(DEADLINE_SECONDS):
            if process.returncode is None:
                process.kill()
            await process.wait()
        await process.stdout.aclose()


async def with_client(url: str, use: Callable[[ClientConnection], Any], **options: Any) -> Any:
    """Run the `websockets` package's own client in a thread."""

    def run() -> Any:
        with connect(url, open_timeout=DEADLINE_SECONDS, close_timeout=DEADLINE_SECONDS, **options) as client:
            return use(client)

    return await trio.to_thread.run_sync(run)


def say(client: ClientConnection, kind: str, **payload: Any) -> None:
    client.send(json.dumps({"type": kind, "payload": payload}))


def hear(client: ClientConnection, kind: str) -> dict[str, Any]:
    message = json.loads(client.recv(timeout=DEADLINE_SECONDS))
    assert message["type"] == kind, message
    payload: dict[str, Any] = message["payload"]
    return payload


def register(client: ClientConnection, who: Identity, *, host: str = "127.0.0.1") -> None:
    """Go through the challenge as any program could that knows the protocol's description."""
    node = who.node_id
    say(
        client,
        "register",
        nodeID=node,
        publicKey=node,
        displayName="somebody",
        capabilities={"hardware": {}, "loadedModels": ["tiny"]},
        signature=who.sign(node.encode()).hex(),
    )
    challenge = bytes.fromhex(hear(client, "registerChallenge")["challenge"])
    say(client, "registerProof", nodeID=node, signature=who.sign(registration_proof(node, host, challenge)).hex())
    assert hear(client, "registerAck")["nodeID"] == node


async def get(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_SECONDS) as client:
        return await client.get(url, headers=headers)


async def test_nodes_register_find_each_other_and_are_counted() -> None:
    async with relay() as running:
        assert (await get(f"{running.http}/health")).json() == {"ok": True, "peers": 0}

        def meet(alice: ClientConnection) -> None:
            register(alice, ALICE)
            with connect(running.url) as bob:
                register(bob, BOB)
                say(bob, "discover", requestingNodeID=BOB.node_id)
                assert [peer["nodeID"] for peer in hear(bob, "peers")["peers"]] == [ALICE.node_id]
                session = {"fromNodeID": BOB.node_id, "toNodeID": ALICE.node_id, "sessionID": "s"}
                say(bob, "relayOpen", **session)
                assert hear(alice, "relayOpen") == session
                shown = json.loads(urllib.request.urlopen(f"{running.http}/peers").read())
                assert [peer["nodeID"] for peer in shown] == [ALICE.node_id[:16], BOB.node_id[:16]]
                assert shown[0]["loadedModels"] == ["tiny"]

        await with_client(running.url, meet)
        metrics = (await get(f"{running.http}/metrics", accept="application/json")).json()
        assert metrics.keys() == {
            "peers",
            "messagesPerMinute",
            "relaySessionsActive",
            "uptimeSeconds",
            "totalMessages",
        }
        assert metrics["totalMessages"] >= 6
        assert (await get(f"{running.http}/")).status_code == 404


async def test_a_forged_proof_does_not_register() -> None:
    async with relay() as running:

        def forge(client: ClientConnection) -> None:
            with pytest.raises(AssertionError, match="invalid_register"):
                register(client, ALICE, host="another.example")

        await with_client(running.url, forge)
        assert (await get(f"{running.http}/health")).json()["peers"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_has_the_relay_say_good_bye_and_exit_0(number: signal.Signals) -> None:
    async with relay() as running:

        def stay(client: ClientConnection) -> str:
            register(client, ALICE)
            os.kill(running.process.pid, number)
            assert hear(client, "error")["code"] == "shutting_down"
            with pytest.raises(Closed) as closed:
                client.recv(timeout=DEADLINE_SECONDS)
            assert closed.value.rcvd is not None
            return closed.value.rcvd.reason

        assert await with_client(running.url, stay) == "the relay is stopping"
        with trio.fail_after(DEADLINE_SECONDS):
            assert await running.process.wait() == 0


async def test_an_encrypted_relay_is_reached_by_wss(tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path)
    async with relay("--tls-cert", str(certificate), "--tls-key", str(tmp_path / "key.pem")) as running:
        assert running.url.startswith("wss://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=certificate)
        await with_client(running.url, lambda client: register(client, ALICE), ssl=trusting)


async def test_a_public_name_is_accepted_when_the_operator_gave_it() -> None:
    async with relay("--name", "relay.example", "--name", "other.example") as running:
        port = running.url.rpartition(":")[2]

        def come_by_name(client: ClientConnection) -> None:
            register(client, ALICE, host="relay.example")

        with socket.create_connection(("127.0.0.1", int(port.removesuffix("/ws")))) as sock:
            await with_client("ws://relay.example/ws", come_by_name, sock=sock)


async def run_to_end(*arguments: str) -> tuple[int | None, str]:
    command = [sys.executable, "-c", MAIN, *arguments]
    with trio.fail_after(3 * DEADLINE_SECONDS):
        ended = await trio.run_process(command, capture_stderr=True, check=False)
    return ended.returncode, ended.stderr.decode().strip()


async def test_a_port_in_use_is_one_clear_sentence_and_exit_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert await run_to_end("--port", str(port)) == (
            1,
            f"teale-relay: cannot listen on 127.0.0.1:{port}: address already in use",
        )


async def test_a_certificate_that_is_not_there_is_one_clear_sentence(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    status, said = await run_to_end("--port", "0", "--tls-cert", missing)
    assert (status, said) == (1, "teale-relay: the certificate or its key cannot be read: no such file or directory")


async def test_a_key_without_a_certificate_is_a_mistake_in_the_command(tmp_path: Path) -> None:
    status, said = await run_to_end("--tls-key", str(tmp_path / "key.pem"))
    assert (status, said.splitlines()[-1]) == (2, "Error: --tls-key needs --tls-cert")
