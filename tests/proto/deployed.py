"""The programs that are deployed today, as `spec/deployed-dialect.md` describes them: a relay and a node, as cores.

They are foreign peers, not models of ours: what they do wrong is part of what must be got along with.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from teale_proto.contract import NEVER, SECOND, Instant, Value
from teale_proto.effects import CloseConnection, Connect, SendPing, SendText, WebSocketUrl
from teale_proto.inputs import (
    ConnectionClosed,
    ConnectionId,
    ConnectionOpened,
    DataReceived,
    NodeId,
    Started,
    Woken,
)
from teale_proto.secure.identity import Identity
from teale_proto.wire.codec import Flavour

FORWARDED = ("offer", "answer", "iceCandidate", "relayOpen", "relayReady", "relayData", "relayClose")
PING_EVERY = 25 * SECOND
CAPABILITIES = {
    "hardware": {
        "chipFamily": "m3",
        "chipName": "Apple M3",
        "totalRAMGB": 16,
        "gpuCoreCount": 10,
        "memoryBandwidthGBs": 100,
        "tier": 2,
    },
    "loadedModels": [],
    "maxModelSizeGB": 12,
    "isAvailable": True,
}


def unwrapped(data: bytes) -> tuple[str, Any]:
    """Return kind and payload of a deployed message, in either flavour; only the first key counts."""
    kind, payload = next(iter(msgspec.json.decode(data).items()))
    return kind, payload["_0"] if isinstance(payload, dict) and "_0" in payload else payload


def wrapped(kind: str, payload: Any, flavour: Flavour = Flavour.DEPLOYED) -> bytes:
    """Return a deployed message."""
    return msgspec.json.encode({kind: {"_0": payload} if flavour is Flavour.SWIFT else payload})


class DeployedRelay:
    """Believes what it is told, forwards what it is given, and tells everybody of everybody."""

    deadline: Instant = NEVER

    def __init__(self) -> None:
        self.peers: dict[str, tuple[ConnectionId, dict[str, Any]]] = {}
        self.kinds: list[str] = []

    def handle(self, event: Any, now: Instant) -> Sequence[Any]:
        match event:
            case DataReceived(connection, data):
                return self._take(connection, data)
            case ConnectionClosed(connection):
                gone = [node for node, (other, _) in self.peers.items() if other == connection]
                for node in gone:
                    del self.peers[node]
                return [self._to(c, "peerLeft", {"nodeID": n, "displayName": ""}) for n in gone for c in self._all()]
        return []

    def _all(self, besides: str = "") -> list[ConnectionId]:
        return [connection for node, (connection, _) in self.peers.items() if node != besides]

    def _to(self, connection: ConnectionId, kind: str, payload: Any) -> SendText:
        return SendText(connection, wrapped(kind, payload))

    def _take(self, connection: ConnectionId, data: bytes) -> list[Any]:
        kind, payload = unwrapped(data)
        self.kinds.append(kind)
        if kind == "register":
            node = payload["nodeID"]
            former = self.peers.get(node)
            self.peers[node] = (connection, payload)
            ack = {"nodeID": node, "registeredAt": 721692800.25, "ttlSeconds": 300}
            joined = {"nodeID": node, "displayName": payload["displayName"]}
            replaced = former is not None and former[0] != connection
            return [
                *([CloseConnection(former[0], "Replaced by newer session")] if former and replaced else []),
                self._to(connection, "registerAck", ack),
                *(self._to(other, "peerJoined", joined) for other in self._all(node) if former is None or replaced),
            ]
        if kind == "discover":
            found = [self._listing(p) for n, (_, p) in self.peers.items() if n != payload["requestingNodeID"]]
            return [self._to(connection, "discoverResponse", {"peers": found})]
        if kind in FORWARDED:
            target = self.peers.get(payload["toNodeID"])
            if target is None:
                error = {"code": "peer_not_found", "message": f"Peer {payload['toNodeID']} is not connected"}
                return [self._to(connection, "error", error)]
            return [self._to(target[0], kind, payload)]
        error = {"code": "unsupported_message", "message": f"Unsupported relay message: {kind}"}
        return [self._to(connection, "error", error)]

    @staticmethod
    def _listing(register: dict[str, Any]) -> dict[str, Any]:
        return {
            **{name: register[name] for name in ("nodeID", "publicKey", "displayName", "capabilities")},
            "wgPublicKey": register.get("wgPublicKey"),
            "lastSeen": 721692801.5,
            "natType": "unknown",
            "endpoints": [],
        }


class OpenSession(Value):
    """Have a deployed node open a relay session."""

    peer: NodeId


class Tell(Value):
    """Have a deployed node send a cluster message in its latest session, or bytes that are none."""

    message: dict[str, Any] | bytes


class DeployedNode:
    """A node of the deployed system, which encrypts in its own way (`key`) or not at all."""

    DEVICE = "5F0C6A0E-7C39-4B0E-9C58-0B9C0F4A7C11"

    def __init__(
        self,
        who: Identity,
        *,
        flavour: Flavour = Flavour.DEPLOYED,
        models: Sequence[str] = (),
        key: bool = False,
    ) -> None:
        self.identity = who
        self.flavour = flavour
        self.models = list(models)
        self.key = key
        self.relay_said: list[str] = []
        self.heard: list[tuple[str, Any]] = []
        """Cluster messages, in order."""
        self.raw: list[bytes] = []
        self.listed: list[dict[str, Any]] = []
        self.sessions: dict[str, str] = {}
        self.deadline: Instant = NEVER
        self._opened = 0

    @property
    def node_id(self) -> NodeId:
        return self.identity.node_id

    def handle(self, event: Any, now: Instant) -> Sequence[Any]:
        match event:
            case Started():
                return [Connect(1, WebSocketUrl(f"ws://relay.test/ws?node={self.node_id}"))]
            case Woken() if now >= self.deadline:
                self.deadline = now + PING_EVERY
                return [SendPing(1)]
            case ConnectionClosed():
                self.deadline = NEVER
            case ConnectionOpened():
                self.deadline = now + PING_EVERY
                return [self._relay("register", self._registration())]
            case OpenSession(peer):
                self._opened += 1
                session = f"session-{self.node_id[:4]}-{self._opened}"
                self.sessions[session] = peer
                return [self._relay("relayOpen", self._ids(session))]
            case Tell(message):
                return [self._tell(next(reversed(self.sessions)), message)]
            case DataReceived(_, data):
                return self._hear(*unwrapped(data))
        return []

    def _relay(self, kind: str, payload: Any) -> SendText:
        return SendText(1, wrapped(kind, payload, self.flavour))

    def _ids(self, session: str) -> dict[str, str]:
        return {"fromNodeID": self.node_id, "toNodeID": self.sessions[session], "sessionID": session}

    def _registration(self) -> dict[str, Any]:
        register = {
            "nodeID": self.node_id,
            "publicKey": self.node_id,
            "displayName": "Mac",
            "capabilities": CAPABILITIES | {"loadedModels": self.models},
            "signature": self.identity.sign(self.node_id.encode()).hex(),
        }
        return register | ({"wgPublicKey": self.identity.static_public.hex()} if self.key else {})

    def _tell(self, session: str, message: dict[str, Any] | bytes) -> SendText:
        if isinstance(message, dict):
            [(kind, payload)] = message.items()
            message = wrapped(kind, payload, self.flavour)
        return self._relay("relayData", self._ids(session) | {"data": b64encode(message).decode()})

    def _hear(self, kind: str, payload: Any) -> list[Any]:
        self.relay_said.append(kind)
        if kind == "discoverResponse":
            self.listed = payload["peers"]
        elif kind == "registerAck":
            return [self._relay("discover", {"requestingNodeID": self.node_id})]
        elif kind == "relayOpen":
            self.sessions[payload["sessionID"]] = payload["fromNodeID"]
            return [self._relay("relayReady", self._ids(payload["sessionID"]))]
        elif kind == "relayReady":
            hello: dict[str, Any] | bytes = {"hello": self._greeting()}
            return [self._tell(payload["sessionID"], b"\x01" + bytes(96) if self.key else hello)]
        elif kind == "relayData":
            self.sessions.setdefault(payload["sessionID"], payload["fromNodeID"])
            return self._hear_peer(payload["sessionID"], b64decode(payload["data"]))
        return []

    def _hear_peer(self, session: str, data: bytes) -> list[Any]:
        self.raw.append(data)
        if self.key:
            return [self._tell(session, b"\x02" + bytes(48))] if data[:1] != b"\x02" else []
        if not data.startswith(b"{"):
            return [self._tell(session, {"helloAck": self._greeting()})]
        kind, payload = unwrapped(data)
        self.heard.append((kind, payload))
        answers: list[dict[str, Any]] = []
        if kind == "hello":
            answers = [{"helloAck": self._greeting()}]
        elif kind == "heartbeat":
            answers = [{"heartbeatAck": self._beat()}]
        elif kind == "inferenceRequest":
            request = payload["requestID"].upper()
            answers = [
                {"inferenceChunk": {"requestID": request, "chunk": self._chunk("hello")}},
                {"inferenceChunk": {"requestID": request, "chunk": self._chunk(" world")}},
                {"inferenceComplete": {"requestID": request, "tokensIn": None, "tokensOut": 2}},
            ]
        return [self._tell(session, answer) for answer in answers]

    def _greeting(self) -> dict[str, Any]:
        device = {
            "id": self.DEVICE,
            "name": "Mac",
            "hardware": CAPABILITIES["hardware"],
            "registeredAt": 1.5,
            "lastSeenAt": 2.5,
            "isCurrentDevice": True,
            "loadedModels": self.models,
        }
        return {
            "deviceInfo": device,
            "protocolVersion": 1,
            "clusterPasscodeHash": None,
            "loadedModels": self.models,
            "ownerUserID": None,
        }

    def _beat(self) -> dict[str, Any]:
        return {
            "deviceID": self.DEVICE,
            "timestamp": 721692801.5,
            "thermalLevel": "fair",
            "throttleLevel": 100,
            "loadedModels": self.models,
            "isGenerating": False,
            "queueDepth": 0,
        }

    @staticmethod
    def _chunk(text: str) -> dict[str, Any]:
        return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
