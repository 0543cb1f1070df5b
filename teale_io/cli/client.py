"""The running node, seen through its local API.

What goes wrong on the way becomes a `CliError` with the exit code that fits, so that commands read as if nothing
could.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import httpx
import msgspec

from teale_io.cli.exits import CliError, Exit
from teale_proto.wire.fields import wire_name

T = TypeVar("T")

REQUEST_SECONDS: Final = 10.0

_EXIT_ON_CODE: Final = {
    "model_not_loaded": Exit.NOT_FOUND,
    "model_not_found": Exit.NOT_FOUND,
    "timeout": Exit.TIMEOUT,
}
"""Codes of OpenAI-shaped errors that have an exit code of their own."""

_EXIT_ON_STATUS: Final = {404: Exit.NOT_FOUND, 408: Exit.TIMEOUT, 504: Exit.TIMEOUT}


class Chat(msgspec.Struct):
    """An answer to a chat request on its way: who gives it, and its chunks."""

    served_by: str
    path: str
    attempts: int
    chunks: Iterator[Any]


class NodeApi:
    """The local API of one node; close it after use, or use it as a context."""

    def __init__(self, url: str, *, request_seconds: float = REQUEST_SECONDS) -> None:
        self.url = url
        # A proxy from the environment has no business between this machine and itself.
        self._http = httpx.Client(base_url=url, timeout=request_seconds, trust_env=False)

    def __enter__(self) -> "NodeApi":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: str) -> bytes:
        """Return the body of an answer; raises CliError."""
        with _failures_told(self.url):
            response = self._http.get(path, params=query)
        _check(response)
        return response.content

    def post(self, path: str, document: dict[str, Any] | None = None) -> None:
        """Have something done; raises CliError."""
        with _failures_told(self.url):
            response = self._http.post(path, json=document or {})  # the API takes only what is declared as JSON
        _check(response)

    def model_ids(self) -> list[str]:
        """Return the models that can be asked now."""
        return [model.id for model in decoded(self.get("/v1/models"), _ModelList).data]

    @contextmanager
    def chat(self, body: dict[str, Any], *, silence_seconds: float) -> Iterator[Chat]:
        """Stream the answer to a chat request; leaving the context cancels it. Raises CliError.

        `silence_seconds` is how long nothing may come before it counts as a timeout.
        """
        timeout = httpx.Timeout(REQUEST_SECONDS, read=silence_seconds)
        request = self._http.build_request("POST", "/v1/chat/completions", json=body, timeout=timeout)
        with _failures_told(self.url):
            response = self._http.send(request, stream=True)
            try:
                if response.is_error:
                    response.read()
                _check(response)
                headers = response.headers
                yield Chat(
                    served_by=headers.get("x-teale-served-by", ""),
                    path=headers.get("x-teale-path", ""),
                    attempts=_number(headers.get("x-teale-attempts", "")),
                    chunks=_chunks(response.iter_lines()),
                )
            finally:
                response.close()


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


class _ErrorBody(msgspec.Struct):
    message: str
    code: str | int | None = None


class _ErrorDocument(msgspec.Struct):
    error: _ErrorBody


def decoded(document: bytes, kind: type[T]) -> T:
    """Return an API document as `kind`; raises CliError where this node speaks another version of the API."""
    try:
        return msgspec.convert(_with_wire_names(msgspec.json.decode(document)), kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CliError(
            Exit.REQUEST_FAILED,
            f"The node's answer makes no sense here ({error}). Is it of another version? Try: teale down, teale up",
        ) from None


def _with_wire_names(document: Any) -> Any:
    """Return `document` with hardware, a wire message that the API spells as Python does, spelt as on the wire."""
    if isinstance(document, list):
        return [_with_wire_names(each) for each in document]
    if not isinstance(document, dict):
        return document
    return {
        name: {wire_name(inner): each for inner, each in value.items()}
        if name == "hardware" and isinstance(value, dict)
        else _with_wire_names(value)
        for name, value in document.items()
    }


def sse_events(lines: Iterable[str]) -> Iterator[str]:
    """Return the data of each server-sent event (WHATWG HTML, 9.2.6); an event cut off at the end is dropped."""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield "\n".join(data)
            data = []
            continue
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))


def error_of(code: str | int | None, status: int, message: str) -> CliError:
    """Return what an OpenAI-shaped error with this code, or this HTTP status, means here."""
    exit_code = _EXIT_ON_CODE.get(str(code)) or _EXIT_ON_STATUS.get(status) or Exit.REQUEST_FAILED
    return CliError(exit_code, message)


def _chunks(lines: Iterable[str]) -> Iterator[Any]:
    for data in sse_events(lines):
        if data == "[DONE]":
            return
        chunk = decoded(data.encode("utf-8", "replace"), dict[str, Any])
        if "error" in chunk:
            broken = decoded(msgspec.json.encode(chunk), _ErrorDocument).error
            raise error_of(broken.code, 0, f"The answer broke off: {broken.message}")
        yield chunk
    raise CliError(Exit.REQUEST_FAILED, "The answer broke off: the node ended it without saying that it is complete.")


def _check(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        error = msgspec.json.decode(response.content, type=_ErrorDocument).error
    except msgspec.DecodeError:
        error = _ErrorBody(message=f"The node answered with HTTP status {response.status_code}.")
    raise error_of(error.code, response.status_code, error.message)


@contextmanager
def _failures_told(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectError:
        raise CliError(Exit.NOT_RUNNING, f"The node does not answer at {url}. Start it with: teale up") from None
    except httpx.TimeoutException:
        raise CliError(
            Exit.TIMEOUT, f"The node at {url} took too long to answer. Look at it with: teale status"
        ) from None
    except httpx.HTTPError as error:
        raise CliError(
            Exit.REQUEST_FAILED,
            f"The connection to the node broke ({type(error).__name__}). Look at it with: teale status",
        ) from None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1
