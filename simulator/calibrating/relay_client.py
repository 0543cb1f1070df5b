"""A node's side of a relay on a blocking socket: it registers with proof of a key, opens sessions and sends data."""

import socket
import ssl
from collections import deque
from typing import Any, Final

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from simulator.calibrating.programs import LOOPBACK, CalibrationError, Relay
from teale_proto.inputs import NodeId
from teale_proto.secure.identity import Identity
from teale_proto.wire.binary import decode_binary, encode_binary, is_binary
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Capabilities,
    Discover,
    DiscoverFilter,
    DiscoverResponse,
    Error,
    Hardware,
    Register,
    RegisterAck,
    RegisterChallenge,
    RegisterProof,
    RelayClose,
    RelayMessage,
    RelayOpen,
    RelayReady,
    legacy_registration,
    registration_proof,
)

ANSWER_SECONDS: Final = 20.0
_HARDWARE: Final = Hardware(chip_name="calibration", total_ram_gb=16.0)


class RelayClient:
    """One registered node."""

    def __init__(self, relay: Relay, identity: Identity) -> None:
        self.identity: Final = identity
        self.relay: Final = relay
        self._got: deque[bytes] = deque()
        self._pongs = 0
        self._websocket: Final = ClientProtocol(parse_uri(f"{relay.url}?node={identity.node_id}"), max_size=None)
        plain = socket.create_connection((LOOPBACK, relay.port), ANSWER_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trust = ssl.create_default_context(cafile=str(relay.ca_file))
        self.socket: Final = trust.wrap_socket(plain, server_hostname=relay.host)
        try:
            self._upgrade()
            self._register()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Go without a word."""
        self.socket.close()

    # Messages.

    def say(self, message: RelayMessage) -> None:
        """Send one message as JSON."""
        self._websocket.send_text(RELAY_CODEC.encode(message))
        self._flush()

    def send(self, session: str, data: bytes) -> None:
        """Send data of a session."""
        self._websocket.send_binary(encode_binary(session, data))
        self._flush()

    def framed(self, session: str, data: bytes, count: int) -> bytes:
        """Return the bytes of so many messages, to be sent at once."""
        for _ in range(count):
            self._websocket.send_binary(encode_binary(session, data))
        return b"".join(self._websocket.data_to_send())

    def receive(self) -> Any:
        """Return the next message of the relay; data is what `decode_binary` returns. Raises CalibrationError."""
        while not self._got:
            self._fill()
        payload = self._got.popleft()
        if is_binary(payload):
            return decode_binary(payload)
        message, _ = RELAY_CODEC.decode(payload)
        if isinstance(message, Error):
            raise CalibrationError(f"the relay answered {message.code}: {message.message}")
        return message

    def expect(self, kind: type[Any]) -> Any:
        """Return the next message of a kind; others are passed over."""
        while not isinstance(message := self.receive(), kind):
            pass
        return message

    def ping(self) -> None:
        """Send a ping and wait for its answer."""
        self._websocket.send_ping(b"")
        self._flush()
        before = self._pongs
        while self._pongs == before:
            self._fill()

    def discover(self, at_most: int | None = None) -> int:
        """Ask for nodes; return how many are listed."""
        self.say(Discover(self.identity.node_id, DiscoverFilter(max_peers=at_most)))
        return len(self.expect(DiscoverResponse).peers)

    # Beginning.

    def _upgrade(self) -> None:
        self._websocket.send_request(self._websocket.connect())
        self._flush()
        answered = False
        while not answered:
            for event in self._events():
                answered = answered or isinstance(event, Response)
        if self._websocket.handshake_exc is not None:
            raise CalibrationError(f"the relay refused a WebSocket: {self._websocket.handshake_exc}")

    def _register(self) -> None:
        node = self.identity.node_id
        signature = self.identity.sign(legacy_registration(node)).hex()
        self.say(Register(node, node, "calibration", Capabilities(_HARDWARE), signature, binary=True))
        while not isinstance(answer := self.receive(), RegisterAck):
            if isinstance(answer, RegisterChallenge):
                proof = registration_proof(node, LOOPBACK, bytes.fromhex(answer.challenge))
                self.say(RegisterProof(node, self.identity.sign(proof).hex()))

    # Bytes.

    def _flush(self) -> None:
        for data in self._websocket.data_to_send():
            self.socket.sendall(data)

    def _fill(self) -> None:
        for event in self._events():
            if isinstance(event, Frame):
                if event.opcode is Opcode.PONG:
                    self._pongs += 1
                elif event.opcode in (Opcode.TEXT, Opcode.BINARY):
                    self._got.append(bytes(event.data))
        # A ping of the relay has been answered by the protocol.
        self._flush()

    def _events(self) -> list[Any]:
        data = self.socket.recv(1 << 18)
        if not data:
            raise CalibrationError("the relay closed a connection")
        self._websocket.receive_data(data)
        return list(self._websocket.events_received())


def open_session(opener: RelayClient, target: RelayClient, session: str) -> None:
    """Open a relay session between two clients; it is asked for and taken up."""
    opener.say(RelayOpen(opener.identity.node_id, target.identity.node_id, session))
    target.expect(RelayOpen)
    target.say(RelayReady(target.identity.node_id, opener.identity.node_id, session))
    opener.expect(RelayReady)


def open_session_with(opener: RelayClient, node: NodeId, session: str) -> None:
    """Open a relay session with a node that takes it up by itself."""
    opener.say(RelayOpen(opener.identity.node_id, node, session))
    opener.expect(RelayReady)


def close_session(opener: RelayClient, target: RelayClient, session: str) -> None:
    """Close a session, and wait until the other side has heard of it."""
    opener.say(RelayClose(opener.identity.node_id, target.identity.node_id, session))
    target.expect(RelayClose)
