"""A client of a relay on a blocking socket: enough WebSocket to register and to open sessions.

It works against ours, which asks for proof of the key, and against relays of the deployed design, which do not.
What it leaves behind is an open socket that a load generator can take over.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from bench._harness import Skipped, pinned
from teale_proto.inputs import NodeId
from teale_proto.secure.identity import Identity
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Capabilities,
    Error,
    Hardware,
    Register,
    RegisterAck,
    RegisterChallenge,
    RegisterProof,
    RelayMessage,
    RelayOpen,
    RelayReady,
    legacy_registration,
    registration_proof,
)

MASK: Final = b"\x5a\xc3\x19\x7e"
PLENTY: Final = 10**9
ANSWER_SECONDS: Final = 30.0


def ws_frame(payload: bytes, *, binary: bool = False) -> bytes:
    """Return one masked frame (RFC 6455, section 5.2)."""
    size = len(payload)
    head = bytes([0x82 if binary else 0x81])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    repeated = MASK * (size // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:size], "big")
    return head + MASK + masked.to_bytes(size, "big")


class Relay:
    """A relay in a process of its own, which ends with the context; its first line says where it listens."""

    def __init__(self, name: str, command: Sequence[str], **environ: str) -> None:
        self.name = name
        self._command = command
        self._environ = environ
        self.address = ("127.0.0.1", 0)

    def __enter__(self) -> "Relay":
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | self._environ,
            text=True,
            preexec_fn=pinned(0),
        )
        assert self._process.stdout is not None
        found = re.search(r"ws://127\.0\.0\.1:(\d+)/ws", self._process.stdout.readline())
        if found is None:
            self.__exit__(None, None, None)
            raise Skipped(f"{self.name} did not start")
        self.address = ("127.0.0.1", int(found[1]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # SIGKILL: nothing is to be kept, and a goodbye to ten thousand clients takes its time.
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid


def our_relay() -> Relay:
    """Return our relay on a free port, as people run it but for its rates: it counts, and never says no."""
    program = Path(sys.executable).parent / "teale-relay"
    rates = [f"--{whose}-{what}={PLENTY}" for whose in ("client", "address", "total") for what in ("messages", "bytes")]
    return Relay("teale-relay", [str(program), "--port=0", "--log-level=error", *rates])


class Client:
    """One registered node."""

    def __init__(
        self, relay: Relay, number: int, *, flavour: Flavour = Flavour.DOCUMENTED, binary: bool = False
    ) -> None:
        self.identity = Identity.from_seed(number.to_bytes(32, "big"))
        self._flavour = flavour
        self._binary = binary
        self._buffer = b""
        # A relay may allow one address only so many connections; the whole of 127.0.0.0/8 is loopback.
        source = f"127.1.{number // 200 % 200}.{number % 200 + 1}"
        self.socket = socket.create_connection(relay.address, ANSWER_SECONDS, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._upgrade()
        self._register()

    @property
    def node(self) -> NodeId:
        """Its id."""
        return self.identity.node_id

    def send(self, message: RelayMessage) -> None:
        """Send one message."""
        self.socket.sendall(ws_frame(RELAY_CODEC.encode(message, self._flavour)))

    def receive(self) -> Any:
        """Return the next message of the relay; raises Skipped when it is an error."""
        message, _ = RELAY_CODEC.decode(self._frame())
        if isinstance(message, Error):
            raise Skipped(f"the relay answered {message.code}: {message.message}")
        return message

    def _upgrade(self) -> None:
        request = (
            f"GET /ws?node={self.node} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.socket.sendall(request.encode())
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise Skipped(f"the relay refused a WebSocket: {head[:80]!r}")

    def _register(self) -> None:
        hardware = Hardware(chip_name="bench", total_ram_gb=16.0)
        signature = self.identity.sign(legacy_registration(self.node)).hex()
        self.send(Register(self.node, self.node, "bench", Capabilities(hardware), signature, binary=self._binary))
        while not isinstance(answer := self.receive(), RegisterAck):
            if isinstance(answer, RegisterChallenge):
                proof = registration_proof(self.node, "127.0.0.1", bytes.fromhex(answer.challenge))
                self.send(RegisterProof(self.node, self.identity.sign(proof).hex()))

    def _frame(self) -> bytes:
        """Return the payload of the next frame, which the relay has not masked."""
        payload_at = 2
        self._need(2)
        size = self._buffer[1] & 127
        if size == 126:
            payload_at = 4
        elif size == 127:
            payload_at = 10
        self._need(payload_at)
        if payload_at > 2:
            size = int.from_bytes(self._buffer[2:payload_at], "big")
        self._need(payload_at + size)
        payload = self._buffer[payload_at : payload_at + size]
        self._buffer = self._buffer[payload_at + size :]
        return payload

    def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            self._fill()

    def _fill(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise Skipped("the relay closed a connection")
        self._buffer += data


def open_session(opener: Client, target: Client, session: str) -> None:
    """Open a relay session between two clients; it is asked for and taken up."""
    opener.send(RelayOpen(opener.node, target.node, session))
    while not isinstance(target.receive(), RelayOpen):
        pass
    target.send(RelayReady(target.node, opener.node, session))
    while not isinstance(opener.receive(), RelayReady):
        pass


def told(line: bytes) -> dict[str, Any]:
    """Return what a load generator has printed."""
    decoded: dict[str, Any] = msgspec.json.decode(line)
    return decoded
