"""A GGUF model on this machine, in a child process of its own.

llama.cpp aborts the whole process on a wrong call, so it may not be ours. When the child dies, hangs or answers
nonsense, the request that it was working on fails, a new child is started, and requests that came in the meantime
wait for it. A child that cannot load its model leaves `problem` behind and is tried again from time to time.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Final

import msgspec
import structlog
import trio

from teale_io.inference.base import Changed, Emit, GenerationError, Usage
from teale_io.inference.llama_process import WORKER_COMMAND, ModelProcess, open_process
from teale_io.inference.requests import parse_request
from teale_io.inference.worker_protocol import (
    Cancel,
    Done,
    Generate,
    LlamaParameters,
    Load,
    Loaded,
    LoadFailed,
    Piece,
    Refused,
    Working,
)
from teale_proto.backoff import Backoff
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.inputs import Failure, Task

log = structlog.get_logger()

RESTART_FIRST: Final = 50 * MILLISECOND
RESTART_LAST: Final = 30 * SECOND

_PIECE: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class LlamaBackend:
    """One model; `silence`, `patience`, `cancel_grace`, `load_retry` and `load_max` are seconds.

    A child that says nothing of its job for `silence` hangs, and is replaced. A request waits up to `patience` for
    a child that is (re)starting. A cancelled child that goes on for longer than `cancel_grace` is killed. A model
    that could not be loaded, within `load_max`, is tried again every `load_retry`. `command` starts the child.
    """

    def __init__(
        self,
        parameters: LlamaParameters,
        *,
        silence: float = 120,
        patience: float = 60,
        cancel_grace: float = 5,
        load_retry: float = 60,
        load_max: float = 600,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self.name = parameters.name or Path(parameters.path).stem
        self._parameters = parameters
        self._silence = silence
        self._patience = patience
        self._cancel_grace = cancel_grace
        self._load_retry = load_retry
        self._load_max = load_max
        self._command = tuple(command)
        self._models: tuple[str, ...] = ()
        self._problem = ""
        self._interruption = ""
        self._child: ModelProcess | None = None
        self._nursery: trio.Nursery | None = None
        self._waiting = trio.lowlevel.ParkingLot()
        self._backoff = Backoff(SystemRandom(), first=RESTART_FIRST, last=RESTART_LAST)

    @property
    def models(self) -> tuple[str, ...]:
        """The one name, once the model has been loaded; it stays while a dead child is replaced."""
        return self._models

    @property
    def problem(self) -> str:
        """Why the model could not be loaded, or why it is being loaded again, or ""."""
        return self._problem or self._interruption

    @property
    def process_id(self) -> int | None:
        """The child's, while it is ready."""
        return self._child.process.pid if self._child else None

    # A request.

    async def generate(self, task: Task, model: str, body: bytes, *, streaming: bool, emit: Emit) -> Usage:
        """Answer a request; see `Backend`. Requests of several tasks take turns."""
        if model != self.name:
            raise GenerationError(Failure.MODEL_NOT_LOADED, f"The model '{model}' is not loaded here.")
        request = parse_request(task, body)
        child = await self._take_turn()
        job = child.next_job()
        prefix = {Task.CHAT: "chatcmpl", Task.COMPLETION: "cmpl", Task.EMBEDDING: "embd"}[task]
        reply_id = f"{prefix}-{secrets.token_hex(12)}"
        with self._conversation(child, job) as conversation:
            child.send(Generate(job, reply_id, task, request, streaming))
            usage = await conversation.follow(emit, self._silence)
        self._backoff.reset()
        return usage

    async def _take_turn(self) -> ModelProcess:
        while True:
            child = await self._ready_child()
            await child.turn.acquire()
            if not child.dead:
                return child
            child.turn.release()

    async def _ready_child(self) -> ModelProcess:
        with trio.move_on_after(self._patience):
            while True:
                if self._child is not None and not self._child.dead:
                    return self._child
                if self._problem:
                    raise GenerationError(Failure.MODEL_NOT_LOADED, self._problem)
                await self._waiting.park()
        raise GenerationError(Failure.UNAVAILABLE, f"The model '{self.name}' is still being loaded.")

    @contextmanager
    def _conversation(self, child: ModelProcess, job: int) -> Iterator["_Conversation"]:
        """Hold the turn until the child is done with `job`, even if the asker is gone before."""
        conversation = _Conversation(child, job)
        try:
            yield conversation
        finally:
            if conversation.ended or child.dead or self._nursery is None:
                child.turn.release()
            else:
                self._nursery.start_soon(self._quieten, conversation)

    async def _quieten(self, conversation: "_Conversation") -> None:
        child = conversation.child
        try:
            child.send(Cancel(conversation.job))
            with trio.move_on_after(self._cancel_grace):
                while not conversation.ended:
                    await conversation.next()
            if not conversation.ended:
                child.kill(because="it did not stop when a request was cancelled")
        finally:
            child.turn.release()

    # The life of the child.

    async def run(self, changed: Changed, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a child alive; see `Backend`. Reports that it has started before the model is loaded."""
        task_status.started()
        while True:
            was_ready = await self._live(changed)
            # The first restart is nearly immediate; a model that dies again and again is given time.
            await trio.sleep(self._backoff.next_delay() / SECOND if was_ready else self._load_retry)

    async def _live(self, changed: Changed) -> bool:
        """Live through one child; return whether it ever became ready."""
        try:
            child = await open_process(self._command)
        except OSError as error:
            self._fail(f"The model process cannot be started: {error.strerror}", changed)
            return False
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(child.write)
            nursery.start_soon(child.listen_to_errors)
            try:
                ready = await self._load(child, changed)
                if ready:
                    await child.process.wait()
                    self._interruption = f"The model process of '{self.name}' {child.how_it_ended()}; it is restarted."
            finally:
                self._child = None
                await child.end()
                self._nursery = None
                nursery.cancel_scope.cancel()
        if ready:
            self._log_death(child)
        return ready

    async def _load(self, child: ModelProcess, changed: Changed) -> bool:
        child.send(Load(self._parameters, self.name))
        began_at = trio.current_time()
        message = None
        with trio.move_on_after(self._load_max) as limit:
            message = await child.receive()
        if limit.cancelled_caught:
            child.kill(because=f"it was still loading after {self._load_max:g} s")
        match message:
            case Loaded(context=context):
                took = round(trio.current_time() - began_at, 3)
                log.info("model loaded", model=self.name, context=context, took_seconds=took)
                self._child = child
                self._interruption = ""
                self._become(models=(self.name,), problem="", changed=changed)
                return True
            case LoadFailed(reason=reason):
                self._fail(reason, changed)
            case _:
                if message is not None:
                    child.kill(because="it answered nonsense")
                with trio.move_on_after(1):
                    await child.process.wait()
                self._log_death(child)
                self._fail(f"While it was loading '{self.name}', the model process {child.how_it_ended()}.", changed)
        return False

    def _fail(self, problem: str, changed: Changed) -> None:
        if problem != self._problem:
            log.error("model cannot be loaded", model=self.name, problem=problem)
        self._become(models=(), problem=problem, changed=changed)

    def _become(self, *, models: tuple[str, ...], problem: str, changed: Changed) -> None:
        before, self._models, self._problem = self._models, models, problem
        self._waiting.unpark_all()
        if models != before:
            changed()

    def _log_death(self, child: ModelProcess) -> None:
        log.error(
            "the model process ended",
            model=self.name,
            how=child.how_it_ended(),
            last_words=child.last_words.decode("utf-8", "replace").strip(),
        )


class _Conversation:
    """One job of one child, from the request to its last message."""

    def __init__(self, child: ModelProcess, job: int) -> None:
        self.child = child
        self.job = job
        self.ended = False

    async def follow(self, emit: Emit, silence: float) -> Usage:
        """Pass on the pieces and return the usage. Raises GenerationError, also after `silence` seconds without a word.

        A child that is silent, or whose answer is none, is killed: nobody knows what it would say next.
        """
        while True:
            said: Piece | Working | Done | Refused | None = None
            with trio.move_on_after(silence) as patience:
                said = await self.next()
            if patience.cancelled_caught:
                self.child.kill(because=f"it said nothing for {silence:g} s")
                raise GenerationError(
                    Failure.UNAVAILABLE, f"The model said nothing for {silence:g} s and is being restarted."
                )
            match said:
                case Working():
                    pass
                case Piece(data=data):
                    self._check(data)
                    emit(data)
                case Done(tokens_in=tokens_in, tokens_out=tokens_out):
                    return Usage(tokens_in, tokens_out)
                case Refused(failure=failure, message=message):
                    raise GenerationError(failure, message)
                case None:
                    with trio.move_on_after(1):
                        await self.child.process.wait()
                    raise GenerationError(
                        Failure.INTERNAL_ERROR,
                        f"The model process {self.child.how_it_ended()} and is being restarted.",
                    )

    def _check(self, data: bytes) -> None:
        """Keep what is no JSON object from the node, whose other connections it would break."""
        try:
            data.decode()
            _PIECE.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.child.kill(because="it answered nonsense")
            raise GenerationError(
                Failure.INTERNAL_ERROR, "The model process answered nonsense and is being restarted."
            ) from None

    async def next(self) -> Piece | Working | Done | Refused | None:
        """Return the next message about this job; None when the child is gone."""
        while True:
            message = await self.child.receive()
            if message is None:
                self.ended = True
                return None
            if isinstance(message, Piece | Working | Done | Refused) and message.job == self.job:
                self.ended = isinstance(message, Done | Refused)
                return message
