"""The messages between two nodes, the same over the LAN and through a relay.

`passcodeStart`, `passcodeConfirm`, `pathSignal`, `inferenceCancel`, `received`, `goodbye`, the field `delivery` of the
greetings, and the fields `task` and `timeoutMs` of `inferenceRequest` are ours; a deployed node ignores what it does
not know.
"""

from typing import Annotated, Final, TypeAlias, get_args

from msgspec import Meta, Raw

from teale_proto.wire.codec import Codec
from teale_proto.wire.fields import Amount, Count, Hex, Label, Message, ModelId, Models, Text, Token, written
from teale_proto.wire.relay import Hardware


class DeviceInfo(Message):
    """A node as it introduces itself."""

    id: Label
    name: Label
    hardware: Hardware
    registered_at: float = written(0.0)
    last_seen_at: float = written(0.0)
    is_current_device: bool = written(False)
    loaded_models: Models = written(())


class _Greeting(Message):
    device_info: DeviceInfo
    protocol_version: Count = written(1)
    cluster_passcode_hash: Hex | None = None
    loaded_models: Models = written(())
    max_concurrent_requests: Count | None = None
    delivery: Count | None = None
    """Says that its sender numbers what it says of requests, and under which count of what it has given up: where that
    has changed, it remembers nothing of what was said before."""


class Hello(_Greeting):
    """First message of the side that connected."""


class HelloAck(_Greeting):
    """The answer to `hello`; from now on both sides may ask."""


class PasscodeStart(Message):
    """Our share of the passcode exchange, in hexadecimal; empty from the side that was dialled and has no passcode."""

    share: Hex


class PasscodeConfirm(Message):
    """The proof, in hexadecimal, that its sender has the passcode."""

    proof: Hex


class _Beat(Message):
    device_id: Label
    timestamp: float
    thermal_level: Label = written("nominal")
    throttle_level: Annotated[int, Meta(ge=0, le=100)] = written(100)
    loaded_models: Models = written(())
    is_generating: bool = written(False)
    queue_depth: Count = written(0)
    ewma_tokens_per_second: Amount | None = None


class Heartbeat(_Beat):
    """I am alive, and this is how I am."""


class HeartbeatAck(_Beat):
    """So am I."""


class PathSignal(Message):
    """What two nodes tell each other to open a direct path; `round` names one series of attempts."""

    round: Token
    signal: Raw
    secret: Hex | None = None
    """With the first proposal of a round: 32 bytes that nobody else learns, by which both know each other's probes."""
    pad: Text = ""
    """Makes what begins an attempt longer than what the attempt may send to a wrong address."""


class InferenceRequest(Message):
    """Answer this; `task` is the path below `/v1/` and chat completions where it is absent."""

    request_id: Token
    request: Raw
    streaming: bool
    task: Label = "chat/completions"
    timeout_ms: Count | None = None


class InferenceChunk(Message):
    """One piece of an answer, a JSON object in the shape of OpenAI's API."""

    request_id: Token
    chunk: Raw


class InferenceComplete(Message):
    """The answer is complete."""

    request_id: Token
    tokens_in: Count | None = None
    tokens_out: Count | None = None


class InferenceError(Message):
    """The answer will not come, or not to its end."""

    request_id: Token
    error_message: Text
    code: Label | None = None


class InferenceCancel(Message):
    """The answer is no longer wanted."""

    request_id: Token


class LoadModel(Message):
    """Load this model, please."""

    request_id: Token
    model_id: ModelId


class ModelLoaded(Message):
    """It is loaded."""

    request_id: Token
    model_id: ModelId
    load_time_ms: Count = written(0)


class ModelLoadError(Message):
    """It is not going to be loaded."""

    request_id: Token
    model_id: ModelId
    reason: Text = written("")


class ModelQuery(Message):
    """Ask whether the other side has a model."""

    model_id: ModelId


class ModelQueryResponse(Message):
    """Say yes or no; the size is that of all its files."""

    model_id: ModelId
    available: bool
    total_size_bytes: Count | None = None


class ModelTransferRequest(Message):
    """Send me this model. No issue has asked for transfers yet: the messages are read, and nobody answers."""

    transfer_id: Token
    model_id: ModelId


class ModelTransferChunk(Message):
    """A piece of one of its files."""

    transfer_id: Token
    model_id: ModelId
    file_name: Label
    offset: Count
    data: bytes
    is_last_chunk: bool


class ModelTransferComplete(Message):
    """That was all."""

    transfer_id: Token
    model_id: ModelId


class Received(Message):
    """Every numbered message up to this one has arrived, over whichever conversation."""

    up_to: Count


class Goodbye(Message):
    """This node stops, and its requests go elsewhere at once; or, where it stays, only this conversation ends."""

    reason: Text = ""
    stays: bool = False


ClusterMessage: TypeAlias = (
    Hello
    | HelloAck
    | PasscodeStart
    | PasscodeConfirm
    | Heartbeat
    | HeartbeatAck
    | PathSignal
    | InferenceRequest
    | InferenceChunk
    | InferenceComplete
    | InferenceError
    | InferenceCancel
    | LoadModel
    | ModelLoaded
    | ModelLoadError
    | ModelQuery
    | ModelQueryResponse
    | ModelTransferRequest
    | ModelTransferChunk
    | ModelTransferComplete
    | Received
    | Goodbye
)

CLUSTER_CODEC: Final[Codec[ClusterMessage]] = Codec(get_args(ClusterMessage))

DELIVERED: Final = frozenset(
    {
        InferenceRequest,
        InferenceChunk,
        InferenceComplete,
        InferenceError,
        InferenceCancel,
        LoadModel,
        ModelLoaded,
        ModelLoadError,
        ModelQuery,
        ModelQueryResponse,
        ModelTransferRequest,
        ModelTransferChunk,
        ModelTransferComplete,
    }
)
"""Kinds that are numbered between nodes that both know how; any other is about the conversation that it comes over."""
