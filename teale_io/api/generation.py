"""The endpoints that ask a model: chat completions, completions, embeddings.

The status line waits for the first piece of the answer, so that a request that fails before has an honest
status. After that a failure is an event of the stream, which then ends without `[DONE]`: clients must not
take a piece of an answer for the whole.
"""

import secrets
import time
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from teale_io.api.answers import (
    Stamp,
    join_pieces,
    read_embeddings,
    read_piece,
    stream_chunk,
    usage_chunk,
    usage_of,
)
from teale_io.api.errors import SERVER, Problem, json_response, problem_of
from teale_io.api.iterating import iterating
from teale_io.api.limits import Limits
from teale_io.api.questions import Question, read_question
from teale_io.api.sse import EventStream
from teale_io.service import Answer, AnswerFailed, NodeService
from teale_proto.effects import Path, ReportAttempt, ReportFinished
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Task


class Generation:
    """The endpoint of one task, as an ASGI application."""

    def __init__(self, service: NodeService, task: Task, *, limits: Limits) -> None:
        self._service = service
        self._task = task
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; being cancelled leaves the answer's context, which cancels it at its server."""
        question = read_question(self._task, await Request(scope, receive).body())
        try:
            async with self._service.ask(
                self._task, question.model, question.body, streaming=question.streaming
            ) as answer:
                # Nothing may be raised through the service's own context, which is free to wrap it.
                problem = await self._deliver(question, answer, scope, receive, send)
        except LocalError as error:
            raise Problem(503, str(error), code="unavailable", type_=SERVER) from error
        if problem is not None:
            raise problem

    async def _deliver(
        self, question: Question, answer: Answer, scope: Scope, receive: Receive, send: Send
    ) -> Problem | None:
        if question.streaming:
            stamp = self._stamp(question)
            return await _Streaming(stamp, question, answer, EventStream(send)).run()
        try:
            body = await self._collect(question, answer)
        except (AnswerFailed, PeerError) as error:
            return _problem(error, answer)
        await json_response(body, headers=_trail(answer))(scope, receive, send)
        return None

    async def _collect(self, question: Question, answer: Answer) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async with iterating(answer) as arriving:
            async for data in arriving:
                size += len(data)
                if size > self._limits.answer_bytes_max:
                    raise PeerError("the serving node sent an answer that is too long")
                pieces.append(data)
        if self._task is Task.EMBEDDING:
            return read_embeddings(pieces)
        return join_pieces(self._stamp(question), map(read_piece, pieces), _finished(answer))

    def _stamp(self, question: Question) -> Stamp:
        return Stamp(self._task, question.model, token=secrets.token_hex(12), created=int(time.time()))


class _Streaming:
    """One answer on its way to a client as server-sent events."""

    def __init__(self, stamp: Stamp, question: Question, answer: Answer, stream: EventStream) -> None:
        self._stamp = stamp
        self._question = question
        self._answer = answer
        self._stream = stream
        self._begun = False

    async def run(self) -> Problem | None:
        """Send the whole answer; return what went wrong when nothing has been sent yet."""
        try:
            await self._pass_on()
        except (AnswerFailed, PeerError) as error:
            problem = _problem(error, self._answer)
            if not self._begun:
                return problem
            await self._stream.event(problem.encode())
        await self._stream.end()
        return None

    async def _pass_on(self) -> None:
        told: dict[str, Any] | None = None
        async with iterating(self._answer) as arriving:
            async for data in arriving:
                piece = read_piece(data)
                told = piece.usage or told
                chunk = stream_chunk(self._stamp, piece, usage_wanted=self._question.usage_wanted)
                if chunk is not None:
                    await self._send(chunk)
        finished = _finished(self._answer)
        if self._question.usage_wanted:
            await self._send(usage_chunk(self._stamp, usage_of(finished, told)))
        await self._send(b"[DONE]")

    async def _send(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            await self._stream.start(_trail(self._answer))
        await self._stream.event(data)


def _finished(answer: Answer) -> ReportFinished:
    if answer.finished is None:
        raise PeerError("the answer ended without being complete")
    return answer.finished


def _problem(error: AnswerFailed | PeerError, answer: Answer) -> Problem:
    last = _last_attempt(answer)
    if isinstance(error, AnswerFailed):
        problem = problem_of(error.report, served_here=last is None or last.path is Path.LOCAL)
    else:
        problem = Problem(502, error.reason, code="internal_error", type_=SERVER)
    problem.headers.update(_trail(answer))
    return problem


def _trail(answer: Answer) -> dict[str, str]:
    """Return the headers that say who served, over which path, at which attempt."""
    last = _last_attempt(answer)
    if last is None:
        return {}
    return {
        "x-teale-served-by": last.server,
        "x-teale-path": last.path.value,
        "x-teale-attempts": str(len(answer.attempts)),
    }


def _last_attempt(answer: Answer) -> ReportAttempt | None:
    return answer.attempts[-1] if answer.attempts else None
