"""The messages of the study, as real nodes would write them: the event simulation sends them, the model asks for sizes.

What nodes tell each other under encryption has the right size and nothing in it: its bytes are noughts.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from teale_proto.inputs import NodeId
from teale_proto.wire.binary import encode_binary
from teale_proto.wire.cluster import CLUSTER_CODEC, Heartbeat, HeartbeatAck
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Answer,
    Candidate,
    Capabilities,
    ConnectionInfo,
    Discover,
    DiscoverFilter,
    DiscoverResponse,
    Hardware,
    IceCandidate,
    Offer,
    PeerJoined,
    PeerListing,
    Register,
    RegisterAck,
    RegisterChallenge,
    RegisterProof,
    RelayClose,
    RelayData,
    RelayOpen,
    RelayReady,
)

SEAL_BYTES: Final = 17
"""A record's kind and its tag: what encryption adds to a message between nodes."""
CHUNK_BYTES: Final = 290
"""One token of a streamed answer: `inferenceChunk` around a `chat.completion.chunk`, before it is sealed."""
REQUEST_BYTES: Final = 260
"""`inferenceRequest` around a request without its prompt."""
WORD_BYTES: Final = 6
GREETING_MESSAGES: Final = 4
"""A handshake of two messages, `hello` and `helloAck`."""
GREETING_BYTES: Final = 300
"""Their mean size."""

_NODE: Final = NodeId("0" * 64)
_SESSION: Final = "0" * 32
_KEY: Final = "0" * 64
_SIGNATURE: Final = "0" * 128
_HARDWARE: Final = Hardware("m2", "Apple M2 Pro", 32.0, 19, 200.0, 2)


def model_name(number: int) -> str:
    """Return the name of a model, the most popular being 0."""
    return f"llama-3-8b-instruct-{number:05}"


def capabilities(model: int | None) -> Capabilities:
    """Return what a node that serves one model, or none, says of itself."""
    return Capabilities(
        _HARDWARE, () if model is None else (model_name(model),), 20.0 if model is not None else 0.0, True, 4
    )


def register(node: NodeId, model: int | None, *, binary: bool, key: str = _KEY) -> Register:
    """Return a node's registration; its old signature, which ours does not read, is noughts."""
    return Register(node, node, f"node-{node[:8]}", capabilities(model), _SIGNATURE, key, binary)


@lru_cache(maxsize=2)
def heartbeat_bytes(*, holds_model: bool) -> int:
    """Return the size of a sealed heartbeat of a node that serves a model, or none; the answer to one is like it."""
    models = (model_name(0),) if holds_model else ()
    speed = 41.7 if holds_model else None
    beats = [
        kind(_NODE, 790_000_000.123456, loaded_models=models, ewma_tokens_per_second=speed)
        for kind in (Heartbeat, HeartbeatAck)
    ]
    return round(sum(len(CLUSTER_CODEC.encode(beat)) for beat in beats) / len(beats)) + SEAL_BYTES


def question(asks_for: int | None, model: int | None = None) -> DiscoverFilter | None:
    """Return what a node's `discover` asks for, which may be nothing in particular."""
    if asks_for is None and model is None:
        return None
    return DiscoverFilter(model_id=None if model is None else model_name(model), max_peers=asks_for)


def request_bytes(words: int) -> int:
    """Return the size of a sealed request."""
    return REQUEST_BYTES + words * WORD_BYTES + SEAL_BYTES


def chunk_bytes() -> int:
    """Return the size of a sealed piece of an answer."""
    return CHUNK_BYTES + SEAL_BYTES


def data(sender: NodeId, receiver: NodeId, session: str, size_bytes: int, *, binary: bool) -> bytes:
    """Return a message to the relay that carries so many sealed bytes."""
    if binary:
        return encode_binary(session, bytes(size_bytes))
    return RELAY_CODEC.encode(RelayData(sender, receiver, session, bytes(size_bytes)), Flavour.DEPLOYED)


def data_bytes(size_bytes: int, *, binary: bool) -> int:
    """Return the size of what `data` returns."""
    return _data_head(binary=binary) + (size_bytes if binary else 4 * -(-size_bytes // 3))


@lru_cache(maxsize=2)
def _data_head(*, binary: bool) -> int:
    return len(data(_NODE, _NODE, _SESSION, 0, binary=binary))


def attempt(
    sender: NodeId, receiver: NodeId, session: str, candidates: int
) -> tuple[list[Offer | Answer | IceCandidate], ...]:
    """Return what the two sides of an attempt at a direct path tell each other: the first side's, then the second's."""
    info = ConnectionInfo("203.0.113.77", 51_234, "192.168.1.23", 51_234, "portRestricted", "0" * 64)
    offer = Offer(sender, receiver, session, info, _SIGNATURE)
    answer = Answer(receiver, sender, session, info, _SIGNATURE)
    candidate = Candidate("203.0.113.77", 51_234, "serverReflexive", 1_694_498_815)
    return (
        [offer, *(IceCandidate(sender, receiver, session, candidate) for _ in range(candidates))],
        [answer, *(IceCandidate(receiver, sender, session, candidate) for _ in range(candidates))],
    )


class Sizes(NamedTuple):
    """The sizes of messages, in bytes, in the dialect of one design."""

    register: int
    challenge: int
    proof: int
    ack: int
    discover: int
    discover_for: int
    """Asking for a model."""
    listing: int
    """An empty answer."""
    entry: int
    """One node in it that serves a model, with its comma."""
    entry_bare: int
    """One that serves none."""
    notice: int
    offer: int
    candidate: int
    session: int
    """`relayOpen`, `relayReady` and `relayClose`, which differ by a byte or two: their mean."""
    heartbeat: int
    """Of a node that serves a model."""
    heartbeat_bare: int
    """Of one that serves none."""
    chunk: int
    data_head: int


@lru_cache(maxsize=8)
def sizes(*, binary: bool, asks_for: int | None) -> Sizes:
    """Return the sizes; `binary` is our dialect, otherwise it is the deployed one. `asks_for` is that of the design."""
    flavour = Flavour.DOCUMENTED if binary else Flavour.DEPLOYED

    def size(message: object) -> int:
        return len(RELAY_CODEC.encode(message, flavour))  # type: ignore[arg-type]  # every caller is below

    entry, bare = (
        PeerListing(_NODE, _NODE, "node-01234567", capabilities(model), 790_000_000.123456, _KEY) for model in (0, None)
    )
    (offer, candidate, *_), _ = attempt(_NODE, _NODE, _SESSION, 1)
    ends = (RelayOpen(_NODE, _NODE, _SESSION), RelayReady(_NODE, _NODE, _SESSION), RelayClose(_NODE, _NODE, _SESSION))
    empty = size(DiscoverResponse(()))
    return Sizes(
        register=size(register(_NODE, 0, binary=binary)),
        challenge=size(RegisterChallenge("0" * 64)) if binary else 0,
        proof=size(RegisterProof(_NODE, _SIGNATURE)) if binary else 0,
        ack=size(RegisterAck(_NODE, 790_000_000.123456, 300, binary)),
        discover=size(Discover(_NODE, question(asks_for))),
        discover_for=size(Discover(_NODE, question(asks_for, 0))),
        listing=empty,
        entry=size(DiscoverResponse((entry, entry))) - size(DiscoverResponse((entry,))),
        entry_bare=size(DiscoverResponse((bare, bare))) - size(DiscoverResponse((bare,))),
        notice=size(PeerJoined(_NODE, "node-01234567")),
        offer=size(offer),
        candidate=size(candidate),
        session=round(sum(map(size, ends)) / len(ends)),
        heartbeat=data_bytes(heartbeat_bytes(holds_model=True), binary=binary),
        heartbeat_bare=data_bytes(heartbeat_bytes(holds_model=False), binary=binary),
        chunk=data_bytes(chunk_bytes(), binary=binary),
        data_head=_data_head(binary=binary),
    )
