"""What an OpenAI-compatible server sends, checked and made into what a node passes on.

Chunks stay as the server wrote them, unknown fields included, but compact, and without usage: the node that
was asked adds that itself.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from teale_io.inference.base import GenerationError, Usage
from teale_io.inference.replies import usage_body
from teale_proto.inputs import Failure, Task

MESSAGE_CHARACTERS_MAX: Final = 500

_FAILURES: Final[Mapping[int, Failure]] = {
    400: Failure.INVALID_REQUEST,
    401: Failure.UNAVAILABLE,
    403: Failure.UNAVAILABLE,
    404: Failure.MODEL_NOT_LOADED,
    408: Failure.TIMEOUT,
    413: Failure.INVALID_REQUEST,
    422: Failure.INVALID_REQUEST,
    429: Failure.UNAVAILABLE,
    502: Failure.UNAVAILABLE,
    503: Failure.UNAVAILABLE,
    504: Failure.TIMEOUT,
}


class _UsageBody(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def as_usage(self) -> Usage:
        return Usage(max(0, self.prompt_tokens or 0), max(0, self.completion_tokens or 0))


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _UsageBody | None = None
    error: Any = None


def upstream_request(task: Task, model: str, body: bytes, *, streaming: bool) -> bytes:
    """Return `body` as it goes to the server: every field as it was written, but for how the answer travels.

    Raises GenerationError(INVALID_REQUEST).
    """
    try:
        body.decode("utf-8")
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise GenerationError(Failure.INVALID_REQUEST, "The body of the request is not a JSON object.") from None
    changed: dict[str, Any] = {**fields, "model": model}
    changed.pop("stream", None)
    changed.pop("stream_options", None)
    if streaming and task is not Task.EMBEDDING:
        changed |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(changed)


class StreamedAnswer:
    """Follows one streamed answer, event by event."""

    def __init__(self) -> None:
        self.complete = False
        """A reason to finish, or the end mark, has been seen."""
        self.ended = False
        """The end mark has been seen: nothing follows."""
        self._usage: _UsageBody | None = None
        self._chunks = 0

    @property
    def usage(self) -> Usage:
        """What the server counted; where it did not, a chunk is taken for a token."""
        if self._usage is None:
            return Usage(0, self._chunks)
        return self._usage.as_usage()

    def take(self, data: bytes) -> bytes | None:
        """Take the data of an event and return the chunk to pass on, if it holds one. Raises GenerationError."""
        if data.strip() == b"[DONE]":
            self.complete = self.ended = True
            return None
        reply, fields = _decoded(data)
        if reply.error:
            raise GenerationError(Failure.INTERNAL_ERROR, error_message(data) or "The model server reported an error.")
        self._usage = reply.usage or self._usage
        if not reply.choices:
            return None
        if any(choice.finish_reason for choice in reply.choices):
            self.complete = True
        else:
            self._chunks += 1
        fields.pop("usage", None)
        return _compact(fields)


def whole_answer(task: Task, data: bytes) -> tuple[bytes, Usage]:
    """Return a response that is not streamed, compact and with `usage`, and its usage. Raises GenerationError."""
    reply, fields = _decoded(data)
    if reply.error or ("data" if task is Task.EMBEDDING else "choices") not in fields:
        raise GenerationError(Failure.INTERNAL_ERROR, error_message(data) or "The model server sent no answer.")
    usage = (reply.usage or _UsageBody()).as_usage()
    if reply.usage is None:
        fields["usage"] = msgspec.Raw(msgspec.json.encode(usage_body(usage)))
    return _compact(fields), usage


def status_error(status: int, data: bytes) -> GenerationError:
    """Return the error for an HTTP status other than 200; `data` is the start of the body."""
    failure = _FAILURES.get(status, Failure.INTERNAL_ERROR)
    if status in (401, 403):
        # The server's own words may quote the key.
        return GenerationError(failure, "The model server refused this node's API key.")
    return GenerationError(failure, error_message(data) or f"The model server answered with status {status}.")


def error_message(data: bytes) -> str:
    """Return the message of an error in one of the shapes in use, or "": printable and short."""
    try:
        body: Any = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail")
    if not isinstance(error, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in error[:MESSAGE_CHARACTERS_MAX]).strip()


def _decoded(data: bytes) -> tuple[_Reply, dict[str, msgspec.Raw]]:
    try:
        # Fields are passed on undecoded, so their text is checked here.
        data.decode("utf-8")
        return msgspec.json.decode(data, type=_Reply), msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise GenerationError(Failure.INTERNAL_ERROR, "The model server sent something malformed.") from None


def _compact(fields: dict[str, msgspec.Raw]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(fields), indent=-1)
