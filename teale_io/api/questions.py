"""What the API has to know of a request in order to route it; all else is the serving node's business."""

import re
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Raw

from teale_io.api.errors import Problem
from teale_proto.contract import Value
from teale_proto.inputs import Task


class Question(Value):
    """A request as the router sees it; the body goes to the serving node byte for byte."""

    model: str
    body: bytes
    streaming: bool
    usage_wanted: bool
    """Whether a stream is to end with a chunk that tells the usage."""


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Fields(msgspec.Struct):
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None


_Several: TypeAlias = Annotated[list[Raw], Meta(min_length=1)]


class _Chat(_Fields, kw_only=True):
    messages: _Several


class _Completion(_Fields, kw_only=True):
    prompt: str | _Several


class _Embedding(_Fields, kw_only=True):
    input: str | _Several


_DECODERS: Final[dict[Task, msgspec.json.Decoder[_Fields]]] = {
    Task.CHAT: msgspec.json.Decoder(_Chat),
    Task.COMPLETION: msgspec.json.Decoder(_Completion),
    Task.EMBEDDING: msgspec.json.Decoder(_Embedding),
}

_FIELD: Final = re.compile(r"`\$\.(?P<path>\w+)|required field `(?P<missing>\w+)`")
"""Where msgspec names the field at fault."""


def read_question(task: Task, body: bytes) -> Question:
    """Return what routing needs of `body`; raise Problem, status 400, when it cannot be a request for `task`."""
    try:
        body.decode()  # msgspec passes over the text of fields that it does not decode.
        fields = _DECODERS[task].decode(body)
    except msgspec.ValidationError as error:
        found = _FIELD.search(str(error))
        raise _invalid(str(error), found and (found["path"] or found["missing"])) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(f"the request is not valid JSON: {error}") from error
    except RecursionError as error:
        raise _invalid("the request is nested too deeply") from error
    if fields.n not in (None, 1):
        raise _invalid("this API gives one answer a request: leave `n` away or set it to 1", "n")
    streaming = fields.stream is True and task is not Task.EMBEDDING
    options = fields.stream_options
    return Question(
        model=fields.model,
        body=body,
        streaming=streaming,
        usage_wanted=streaming and options is not None and options.include_usage is True,
    )


def _invalid(message: str, param: str | None = None) -> Problem:
    return Problem(400, message, code="invalid_request", param=param)
