"""Any OpenAI-compatible server by its URL: llama-server, Ollama, vLLM, or another.

Its models are asked for every half minute, and sooner while it is away. The API key is read from an environment
variable whenever it is needed and kept nowhere.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import SystemRandom
from typing import Final

import httpx
import msgspec
import structlog
import trio

from teale_io.inference.base import Changed, Emit, GenerationError, Usage
from teale_io.inference.sse import EventReader
from teale_io.inference.upstream_chunks import (
    StreamedAnswer,
    error_message,
    status_error,
    upstream_request,
    whole_answer,
)
from teale_proto.backoff import Backoff
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Failure, Task

log = structlog.get_logger()

ANSWER_BYTES_MAX: Final = 256 * 2**20
LIST_BYTES_MAX: Final = 4 * 2**20
ERROR_BYTES_MAX: Final = 64 * 2**10
MODELS_MAX: Final = 256
MODEL_NAME_CHARACTERS_MAX: Final = 256
POLL_TIMEOUT: Final = 10.0
WHOLE_ANSWER_SECONDS: Final = 3600.0
"""How long an answer may be computed that is sent whole; the node gives the request up sooner."""

LINGER: Final = 0.05
"""Seconds for a server to end its response after the last of it that matters."""


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


class OpenAIUpstream:
    """The models of the server at `url`; `poll_interval`, `poll_first` and `silence` are seconds.

    `url` may end in `/v1` or not. `only` narrows the models down to those that it names. `api_key_env` names the
    environment variable with the key, if one is needed. `silence` bounds the time between two pieces of a
    streamed answer; one that comes whole may take as long as whoever asked is willing to wait. While the server is
    away, it is asked again after `poll_first`, then ever more slowly. Raises LocalError for a URL that is not one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str = "",
        only: Sequence[str] = (),
        poll_interval: float = 30,
        poll_first: float = 1,
        silence: float = 120,
    ) -> None:
        self._base = _base_url(url)
        self._api_key_env = api_key_env
        self._only = frozenset(only)
        self._poll_interval = poll_interval
        self._models: tuple[str, ...] = ()
        self._problem = ""
        self._poll_now = trio.Event()
        self._backoff = Backoff(
            SystemRandom(),
            first=max(MILLISECOND, round(poll_first * SECOND)),
            last=max(MILLISECOND, round(poll_interval * SECOND)),
        )
        self._silence = silence
        self._client = _new_client()

    @property
    def models(self) -> tuple[str, ...]:
        """What the server listed when it was last asked."""
        return self._models

    @property
    def problem(self) -> str:
        """Why the server could not be asked for its models, or ""."""
        return self._problem

    # A request.

    async def generate(self, task: Task, model: str, body: bytes, *, streaming: bool, emit: Emit) -> Usage:
        """Have the server answer; see `Backend`."""
        content = upstream_request(task, model, body, streaming=streaming)
        streaming = streaming and task is not Task.EMBEDDING
        try:
            async with self._post(task, content, streaming=streaming) as response:
                if response.status_code != httpx.codes.OK:
                    raise status_error(response.status_code, await _read(response, ERROR_BYTES_MAX, cut=True))
                if streaming:
                    return await _follow(response, emit)
                chunk, usage = whole_answer(task, await _read(response, ANSWER_BYTES_MAX))
        except GenerationError as error:
            if error.failure is Failure.MODEL_NOT_LOADED:
                self._poll_now.set()
            raise
        emit(chunk)
        return usage

    @asynccontextmanager
    async def _post(self, task: Task, content: bytes, *, streaming: bool) -> AsyncIterator[httpx.Response]:
        """Open the request; what goes wrong on the way becomes a GenerationError."""
        headers = {**self._headers(), "Content-Type": "application/json"}
        silence = self._silence if streaming else WHOLE_ANSWER_SECONDS
        timeout = httpx.Timeout(silence, connect=POLL_TIMEOUT)
        answered = False
        try:
            async with self._client.stream(
                "POST", f"{self._base}/{task.value}", content=content, headers=headers, timeout=timeout
            ) as response:
                answered = True
                yield response
        except (httpx.HTTPError, httpx.StreamError) as error:
            if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
                message = f"The model server said nothing for {silence:g} s."
                raise GenerationError(Failure.UNAVAILABLE, message) from None
            if answered:
                raise _dropped() from None
            self._poll_now.set()
            raise GenerationError(Failure.UNAVAILABLE, "The model server cannot be reached.") from None

    def _headers(self) -> dict[str, str]:
        if not self._api_key_env:
            return {}
        key = os.environ.get(self._api_key_env, "")
        if not key:
            raise GenerationError(Failure.UNAVAILABLE, f"The environment variable {self._api_key_env} is not set.")
        if not (key.isascii() and key.isprintable()):
            raise GenerationError(Failure.UNAVAILABLE, f"{self._api_key_env} does not hold an API key.")
        return {"Authorization": f"Bearer {key}"}

    # The list of models.

    async def run(self, changed: Changed, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the list of models fresh; see `Backend`."""
        task_status.started()
        if self._client.is_closed:  # this is not the first run
            self._client = _new_client()
        async with self._client:
            while True:
                self._poll_now = trio.Event()
                await self._poll(changed)
                if self._problem:
                    # No shortcut here, or a request for every failure would become a poll for every failure.
                    await trio.sleep(self._backoff.next_delay() / SECOND)
                else:
                    self._backoff.reset()
                    with trio.move_on_after(self._poll_interval):
                        await self._poll_now.wait()

    async def _poll(self, changed: Changed) -> None:
        before = self._models
        try:
            models, problem = await self._listed_models(), ""
        except GenerationError as error:
            models, problem = (), error.message
        if problem and problem != self._problem:
            log.warning("model server unavailable", url=self._base, problem=problem)
        self._models, self._problem = models, problem
        if models != before:
            log.info("models of the model server", url=self._base, models=models)
            changed()

    async def _listed_models(self) -> tuple[str, ...]:
        try:
            async with self._client.stream(
                "GET", f"{self._base}/models", headers=self._headers(), timeout=POLL_TIMEOUT
            ) as response:
                if response.status_code != httpx.codes.OK:
                    error = status_error(response.status_code, await _read(response, ERROR_BYTES_MAX, cut=True))
                    raise GenerationError(error.failure, f"{self._base}: {error.message}")
                data = await _read(response, LIST_BYTES_MAX)
        except (httpx.HTTPError, httpx.StreamError) as error:
            reason = f"{self._base} cannot be reached ({type(error).__name__})."
            raise GenerationError(Failure.UNAVAILABLE, reason) from None
        try:
            listed = msgspec.json.decode(data, type=_ModelList).data
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            reason = error_message(data) or "its list of models is malformed."
            raise GenerationError(Failure.UNAVAILABLE, f"{self._base}: {reason}") from None
        names = dict.fromkeys(
            model.id
            for model in listed
            if 1 <= len(model.id) <= MODEL_NAME_CHARACTERS_MAX and (not self._only or model.id in self._only)
        )
        return tuple(names)[:MODELS_MAX]


async def _follow(response: httpx.Response, emit: Emit) -> Usage:
    """Pass on the chunks of a stream of events and return the usage."""
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "text/event-stream":
        message = error_message(await _read(response, ERROR_BYTES_MAX, cut=True))
        raise GenerationError(Failure.INTERNAL_ERROR, message or "The model server does not stream.")
    answer, reader = StreamedAnswer(), EventReader()

    def take(data: bytes) -> bool:
        _pass_on(reader.feed(data), answer, emit)
        return not answer.ended

    try:
        await _consume(response, take)
        _pass_on(reader.finish(), answer, emit)
    except httpx.TransportError:
        # After the last chunk only the usage is missing, and the answer is whole.
        if not answer.complete:
            raise
    except PeerError:
        raise GenerationError(Failure.INTERNAL_ERROR, "The model server sent an event that is too long.") from None
    if not answer.complete:
        raise _dropped()
    return answer.usage


def _pass_on(events: list[bytes], answer: StreamedAnswer, emit: Emit) -> None:
    for event in events:
        chunk = answer.take(event)
        if chunk is not None:
            emit(chunk)


async def _read(response: httpx.Response, size_max: int, *, cut: bool = False) -> bytes:
    """Return the body; one of more than `size_max` bytes is cut, or an error."""
    body = bytearray()

    def take(data: bytes) -> bool:
        body.extend(data)
        return len(body) <= size_max

    await _consume(response, take)
    if len(body) > size_max and not cut:
        raise GenerationError(Failure.INTERNAL_ERROR, "The model server sent too much.")
    return bytes(body[:size_max])


async def _consume(response: httpx.Response, take: Callable[[bytes], bool]) -> None:
    """Hand the body to `take`, piece by piece, until it returns False or raises."""
    # httpx reads through nested generators, which trio wants run to their end and nobody can close from outside.
    # So the loop is never left early: it is cancelled, after a moment in which an honest server ends its response
    # and the connection stays in use.
    enough = False
    failure: Exception | None = None
    with trio.CancelScope() as scope:
        try:
            async for data in response.aiter_bytes():
                if enough:
                    continue
                try:
                    enough = not take(data)
                except Exception as error:
                    enough, failure = True, error
                if enough:
                    scope.deadline = trio.current_time() + LINGER
        except httpx.TransportError:
            if not enough:
                raise
    if failure is not None:
        raise failure


def _dropped() -> GenerationError:
    return GenerationError(Failure.INTERNAL_ERROR, "The model server dropped the answer in the middle.")


def _new_client() -> httpx.AsyncClient:
    # Proxies of the environment are for the internet, and .netrc for other people's programs.
    return httpx.AsyncClient(
        trust_env=False,
        timeout=POLL_TIMEOUT,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
    )


def _base_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise LocalError("the URL of a model server must look like http://HOST:PORT/v1") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise LocalError("the URL of a model server must look like http://HOST:PORT/v1")
    if parsed.userinfo:
        raise LocalError("a URL is no place for a password; name an environment variable with the API key instead")
    base = str(parsed).rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"
