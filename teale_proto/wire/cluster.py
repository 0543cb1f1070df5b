"""The messages between two nodes, the same over the LAN and through a relay.

`passcodeStart`, `passcodeConfirm`, `inferenceCancel`, `goodbye`, and the fields `task` and `timeoutMs` of
`inferenceRequest` are ours; a deployed node ignores what it does not know.
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


class Goodbye(Message):
    """This node stops; its requests go elsewhere at once."""

    reason: Text = ""


ClusterMessage: TypeAlias = (
    Hello
    | HelloAck
    | PasscodeStart
    | PasscodeConfirm
    | Heartbeat
    | HeartbeatAck
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
    | Goodbye
)

CLUSTER_CODEC: Final[Codec[ClusterMessage]] = Codec(get_args(ClusterMessage))
