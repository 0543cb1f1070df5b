"""Requests in the shape of OpenAI's API, made into values that a local model can carry out.

What is malformed, or asks for something that would change the answer and cannot be done here, is refused with
a message that names the field. Fields that do not concern a local model (`user`, `store`, …) are ignored.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from teale_io.inference.base import GenerationError
from teale_proto.contract import Value
from teale_proto.inputs import Failure, Task

COMPLETION_TOKENS_DEFAULT: Final = 16
"""OpenAI's default of `max_tokens` for text completions; a chat may fill the context."""

STOPS_MAX: Final = 16
STOP_CHARACTERS_MAX: Final = 256
EMBEDDING_INPUTS_MAX: Final = 2048


class Message(Value):
    """One turn of a conversation, as a chat template sees it."""

    role: str
    content: str


class Sampling(Value):
    """How tokens are chosen; the defaults are llama.cpp's."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    """None draws a fresh one."""


class ChatRequest(Value, tag=True):
    """Continue a conversation."""

    messages: tuple[Message, ...]
    sampling: Sampling
    stop: tuple[str, ...]
    max_tokens: int | None


class CompletionRequest(Value, tag=True):
    """Continue a text."""

    prompt: str
    sampling: Sampling
    stop: tuple[str, ...]
    max_tokens: int | None


class EmbeddingRequest(Value, tag=True):
    """Map texts to vectors."""

    inputs: tuple[str, ...]
    base64: bool
    """Whether vectors are written as base64 of little-endian 32-bit floats, which OpenAI's client asks for."""
    dimensions: int | None


TextRequest: TypeAlias = ChatRequest | CompletionRequest
Request: TypeAlias = TextRequest | EmbeddingRequest


def parse_request(task: Task, body: bytes) -> Request:
    """Return what `body` asks for; raises GenerationError(INVALID_REQUEST) with a message for the asker."""
    match task:
        case Task.CHAT:
            return _chat(_decoded(body, _ChatBody))
        case Task.COMPLETION:
            return _completion(_decoded(body, _CompletionBody))
        case Task.EMBEDDING:
            return _embedding(_decoded(body, _EmbeddingBody))


def invalid(message: str) -> GenerationError:
    """Return the error that says what is wrong with a request."""
    return GenerationError(Failure.INVALID_REQUEST, message)


# The bodies as they arrive. `Any` fields are those that only their neutral values may have.


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Turn(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: Any = None
    function_call: Any = None


_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Positive = Annotated[int, Meta(ge=1)]


class _TextBody(msgspec.Struct):
    max_tokens: _Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Any = None
    best_of: Any = None
    echo: Any = None
    suffix: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    logit_bias: Any = None
    tools: Any = None
    functions: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None


class _ChatBody(_TextBody, kw_only=True):
    messages: list[_Turn]
    max_completion_tokens: _Positive | None = None


class _CompletionBody(_TextBody, kw_only=True):
    prompt: str | list[Any]


class _EmbeddingBody(msgspec.Struct):
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: _Positive | None = None


_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
}
"""Fields that would change the answer in ways that a local model cannot follow, and what they may say."""

_B = TypeVar("_B", bound=msgspec.Struct)


def _decoded(body: bytes, shape: type[_B]) -> _B:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise invalid(f"Invalid request: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("The body of the request is not valid JSON.") from None


def _chat(body: _ChatBody) -> ChatRequest:
    if not body.messages:
        raise invalid("'messages' must hold at least one message.")
    return ChatRequest(
        messages=tuple(_message(turn) for turn in body.messages),
        sampling=_sampling(body),
        stop=_stops(body.stop),
        max_tokens=body.max_completion_tokens or body.max_tokens,
    )


def _message(turn: _Turn) -> Message:
    if turn.tool_calls or turn.function_call:
        raise invalid("Tool calls are not supported by this model.")
    # Templates know OpenAI's newer name of the role by its older one.
    role = "system" if turn.role == "developer" else turn.role
    if isinstance(turn.content, list):
        return Message(role, "".join(_text(part) for part in turn.content))
    return Message(role, turn.content or "")


def _text(part: _Part) -> str:
    if part.type != "text" or part.text is None:
        raise invalid("Only text is supported in the content of a message.")
    return part.text


def _completion(body: _CompletionBody) -> CompletionRequest:
    prompt = body.prompt
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise invalid("'prompt' must be one string.")
    return CompletionRequest(
        prompt=prompt,
        sampling=_sampling(body),
        stop=_stops(body.stop),
        max_tokens=body.max_tokens or COMPLETION_TOKENS_DEFAULT,
    )


def _embedding(body: _EmbeddingBody) -> EmbeddingRequest:
    inputs = [body.input] if isinstance(body.input, str) else body.input
    if not 1 <= len(inputs) <= EMBEDDING_INPUTS_MAX:
        raise invalid(f"'input' must hold 1 to {EMBEDDING_INPUTS_MAX} strings.")
    if not all(isinstance(text, str) and text for text in inputs):
        raise invalid("'input' must be a string or a list of strings, none of them empty.")
    return EmbeddingRequest(tuple(inputs), body.encoding_format == "base64", body.dimensions)


def _sampling(body: _TextBody) -> Sampling:
    for name, neutral in _NEUTRAL.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            raise invalid(f"'{name}' is not supported by this model.")
    given = {name: value for name in Sampling.__struct_fields__ if (value := getattr(body, name)) is not None}
    return Sampling(**given)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > STOPS_MAX:
        raise invalid(f"'stop' may hold at most {STOPS_MAX} sequences.")
    if not all(1 <= len(text) <= STOP_CHARACTERS_MAX for text in stops):
        raise invalid(f"Each stop sequence must have 1 to {STOP_CHARACTERS_MAX} characters.")
    return stops
