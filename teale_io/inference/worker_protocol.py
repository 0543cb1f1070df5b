"""What a node and its model process say to each other: msgpack in length-prefixed frames over two pipes.

The node sends `Load` first, then one `Generate` at a time; it is answered by any number of `Piece`s and `Working`s
and exactly one `Done` or `Refused`, also after a `Cancel`. End of file ends the process. A worker that breaks these
rules is ended by the node, so what it may say is bounded here.
"""

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from teale_io.inference.requests import Request
from teale_proto.contract import Value
from teale_proto.inputs import Failure, Task

FRAME_BYTES_MAX: Final = 256 * 2**20
"""Room for the largest answer there is: 2 048 embeddings in JSON."""


WORKING_SECONDS: Final = 1.0
"""How often a worker that has nothing else to say says that it is at work."""

WORDS_MAX: Final = 4096
_Words: TypeAlias = Annotated[str, Meta(max_length=WORDS_MAX)]
_Tokens: TypeAlias = Annotated[int, Meta(ge=0, le=2**31)]


class LlamaParameters(Value):
    """A GGUF file and how to run it; None leaves the choice to the model or to llama.cpp."""

    path: str
    name: str = ""
    """The model's name; the stem of the file's where it is empty."""
    context: int | None = None
    """Tokens; by default what the model was trained for, at most 8 192."""
    n_threads: int | None = None
    n_threads_batch: int | None = None
    embedding: bool = True
    """Whether to serve embeddings too, from a second context that is opened when first asked for."""
    gpu_layers: int = -1
    """How many layers go to a GPU, if llama.cpp was built for one; -1 is all."""


class Load(Value, tag=True):
    """Load this model."""

    parameters: LlamaParameters
    model: str


class Generate(Value, tag=True):
    """Answer this; `reply_id` is the `id` that the answer carries."""

    job: int
    reply_id: str
    task: Task
    request: Request
    streaming: bool


class Cancel(Value, tag=True):
    """Stop this job."""

    job: int


class Loaded(Value, tag=True):
    """The model is ready."""

    context: _Tokens


class LoadFailed(Value, tag=True):
    """The model cannot be loaded; `reason` is meant for people."""

    reason: _Words


class Working(Value, tag=True):
    """The job goes on, though there is nothing to show for it yet: the prompt is long, or the answer is sent whole."""

    job: int


class Piece(Value, tag=True):
    """One piece of the answer, as JSON."""

    job: int
    data: bytes


class Done(Value, tag=True):
    """The answer is complete."""

    job: int
    tokens_in: _Tokens
    tokens_out: _Tokens


class Refused(Value, tag=True):
    """There is no answer, or no more of it."""

    job: int
    failure: Failure
    message: _Words


ToWorker: TypeAlias = Load | Generate | Cancel
FromWorker: TypeAlias = Loaded | LoadFailed | Working | Piece | Done | Refused

encode: Final = msgspec.msgpack.Encoder().encode
decode_to_worker: Final = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker: Final = msgspec.msgpack.Decoder(FromWorker).decode
