"""Where requests meet work: what this machine asks of others, and what it does for them and for itself.

The local backend is one more server and this machine one more asker, so both directions go through the same
queue and the same rules. A request without a node sets `unsettled`; the owner then places it, or knows that
a node for it may still turn up, or gives it up.
"""

from typing import Any, Final

import msgspec

from teale_proto.asking import ATTEMPTS_MAX, BODY_MAX, AskDue, Asked, Asking, AskState
from teale_proto.contract import MILLISECOND, SECOND, Duration, Instant, Sink, Value
from teale_proto.effects import NodeEffect, Path
from teale_proto.inputs import (
    LOCAL,
    Ask,
    Failure,
    GenerationChunk,
    GenerationFailed,
    GenerationFinished,
    NodeId,
    PeerHandle,
    RequestId,
    Task,
    Whom,
)
from teale_proto.pool import Pool
from teale_proto.rng import Rng
from teale_proto.routing import Standing, decide, ineligible
from teale_proto.serving import JobDue, Origin, Serving
from teale_proto.status import Explanation
from teale_proto.timers import Timers
from teale_proto.wire.cluster import (
    ClusterMessage,
    Heartbeat,
    HeartbeatAck,
    InferenceCancel,
    InferenceChunk,
    InferenceComplete,
    InferenceError,
    InferenceRequest,
    LoadModel,
    ModelLoaded,
    ModelLoadError,
    ModelQuery,
    ModelQueryResponse,
)
from teale_proto.wire.fields import wire_date

TIMEOUT_DEFAULT: Final[Duration] = 300 * SECOND
"""For a peer that sets none."""

_FAILURES: Final = {failure.value: failure for failure in Failure}


class SendMessage(Value):
    """Send a message to a peer, or over a conversation; the node has its peers do it."""

    handle: Whom
    message: ClusterMessage


class _Addressed(msgspec.Struct):
    """The one field of a request that this node reads itself."""

    model: str


_ADDRESSED: Final = msgspec.json.Decoder(_Addressed)
_Out = Sink[NodeEffect | SendMessage]


class Exchange:
    """The requests of this machine and the jobs of all, and their dealings with each other."""

    __slots__ = (
        "_asking",
        "_display_name",
        "_missing",
        "_node",
        "_pool",
        "_queue_max",
        "_rng",
        "_serving",
        "models",
        "unsettled",
    )

    def __init__(
        self,
        node: NodeId,
        display_name: str,
        *,
        running_max: int,
        queue_max: int,
        timers: Timers[Any],
        rng: Rng,
    ) -> None:
        self._node = node
        self._display_name = display_name
        self._queue_max = queue_max
        self._rng = rng
        self._pool = Pool()
        self._asking = Asking(timers)
        self._serving = Serving(timers, running_max=running_max, queue_max=queue_max)
        self._missing: dict[PeerHandle, None] = {}
        self.models: tuple[str, ...] = ()
        """What the local backend can serve; the owner keeps it true."""
        self.unsettled = False
        """Whether requests may have to be placed: one has no node, or the nodes have changed."""

    @property
    def asking(self) -> Asking:
        """The requests of this machine, to be read."""
        return self._asking

    @property
    def serving(self) -> Serving:
        """The work of this machine, to be read."""
        return self._serving

    def is_busy(self, handle: Whom) -> bool:
        """Whether a request or a job hangs on a peer, or on a conversation."""
        return bool(self._asking.on(handle)) or any(job.origin.handle == handle for job in self._serving)

    # Placing the requests of this machine.

    def begin(self, ask: Ask, now: Instant) -> None:
        """Take a request of the local application. Raises LocalError as `Asking.begin` does."""
        self._asking.begin(ask, now)
        self.unsettled = True

    def waiting(self) -> list[Asked]:
        """Return the requests that nobody is working on, oldest first."""
        return self._asking.waiting()

    def explain(self, model: str, rng: Rng) -> Explanation:
        """Return how a request for `model` would be placed now."""
        return self._decide(model, {}, rng)

    def node_changed(self, node: NodeId, standing: Standing | None) -> None:
        """Take what is new about a node, or with None that it is gone."""
        if standing is None:
            self._pool.remove(node)
        else:
            if isinstance(standing.handle, PeerHandle):
                self._missing.pop(standing.handle, None)
            self._pool.put(standing, self._asking.in_flight.get(node, 0))

    def place(self, asked: Asked, now: Instant, out: _Out) -> bool:
        """Give a request to the best node, or to this one; return False if it still waits for one."""
        while asked.state is AskState.WAITING and self._asking.get(asked.ask.request) is asked:
            standing = self._choose(asked)
            if standing is None:
                return False
            if standing.path is Path.LOCAL:
                self._place_here(asked, now, out)
            else:
                self._place_there(asked, standing, now, out)
        return True

    def give_up(self, asked: Asked, excuse: str, out: _Out) -> None:
        """End a request that no node can take, and say why; `excuse` is why one that could is out of reach."""
        model = asked.ask.model
        if asked.tried:
            message = "; ".join(f"{node[:8]}: {why}" for node, why in asked.tried.items())
            failure = Failure.QUEUE_FULL if asked.busy_only else Failure.UNAVAILABLE
            self._asking.end(asked, failure, f"no node could answer ({message})", out)
        elif any(model in standing.loaded_models for standing in (self._own_standing(), *self._pool)):
            self._asking.end(asked, Failure.QUEUE_FULL, f"every node that serves {model!r} is too busy", out)
        elif excuse:
            self._asking.end(asked, Failure.UNAVAILABLE, f"no connected node serves {model!r}: {excuse}", out)
        else:
            self._asking.end(asked, Failure.MODEL_NOT_LOADED, f"no reachable node serves the model {model!r}", out)

    def cancel(self, request: RequestId, now: Instant, out: _Out) -> None:
        """End a request that the local application no longer wants."""
        self._call_off(request, Failure.CANCELLED, "cancelled by the asker", now, out)

    def stop(self, reason: str, now: Instant, out: _Out) -> None:
        """End all requests of this machine."""
        for asked in self._asking:
            self._call_off(asked.ask.request, Failure.UNAVAILABLE, reason, now, out)

    def _choose(self, asked: Asked) -> Standing | None:
        own = self._own_standing()
        in_flight = self._asking.in_flight
        for node in self._asking.changed:
            self._pool.count(node, in_flight.get(node, 0))
        self._asking.changed.clear()
        if not asked.tried:
            return self._pool.choose(asked.ask.model, own, in_flight.get(self._node, 0), self._rng)
        # A retry is rare enough to look at everybody.
        winner = self._decide(asked.ask.model, asked.tried, self._rng).winner
        return next((standing for standing in (own, *self._pool) if standing.node == winner), None)

    def _decide(self, model: str, tried: dict[NodeId, str], rng: Rng) -> Explanation:
        standings = (self._own_standing(), *self._pool)
        return decide(model, standings, in_flight=self._asking.in_flight, excluded=tried, rng=rng)

    def _own_standing(self) -> Standing:
        return Standing(
            node=self._node,
            display_name=self._display_name,
            path=Path.LOCAL,
            handle=LOCAL,
            loaded_models=self.models,
            queue_depth=self._serving.queue_depth,
            queue_max=self._queue_max,
            tokens_per_second=self._serving.tokens_per_second,
        )

    def _place_here(self, asked: Asked, now: Instant, out: _Out) -> None:
        ask = asked.ask
        wire_id = self._asking.assign(asked, self._node, Path.LOCAL, LOCAL, out)
        failure = self._serving.submit(
            Origin(self._node, LOCAL, wire_id),
            ask.task,
            ask.model,
            ask.body,
            streaming=ask.streaming,
            timeout=asked.remaining(now),
            now=now,
            out=out,
        )
        if failure is not None:
            self._asking.failed(LOCAL, wire_id, failure, "the queue is full", out)

    def _place_there(self, asked: Asked, standing: Standing, now: Instant, out: _Out) -> None:
        ask = asked.ask
        wire_id = self._asking.assign(asked, standing.node, standing.path, standing.handle, out)
        request = InferenceRequest(
            request_id=wire_id,
            request=msgspec.Raw(ask.body),
            streaming=ask.streaming,
            task=ask.task.value,
            timeout_ms=-(-asked.remaining(now) // MILLISECOND),
        )
        out.append(SendMessage(standing.handle, request))

    def _call_off(self, request: RequestId, failure: Failure, reason: str, now: Instant, out: _Out) -> None:
        """End a request from our side and tell whoever is answering that nobody listens any more."""
        asked = self._asking.get(request)
        if asked is None:
            return
        wire_id, handle = self._asking.wire_id(asked), asked.handle
        self._asking.end(asked, failure, reason, out)
        if handle == LOCAL:
            self._serving.cancel(LOCAL, wire_id, now, out)
        elif handle is not None:
            out.append(SendMessage(handle, InferenceCancel(wire_id)))

    # What happens to requests and jobs.

    def fired(self, key: AskDue | JobDue, now: Instant, out: _Out) -> None:
        """End a request or a job whose time is up."""
        if isinstance(key, AskDue):
            self._call_off(key.request, Failure.TIMEOUT, "no complete answer within the time allowed", now, out)
        else:
            self._abandon(key.job, Failure.TIMEOUT, "no complete answer within the time allowed", now, out)

    def beat(self, kind: type[Heartbeat] | type[HeartbeatAck], unix_time: int) -> Heartbeat | HeartbeatAck:
        """Return what a heartbeat says of this node, at so many microseconds since 1970."""
        return kind(
            device_id=self._node,
            timestamp=wire_date(unix_time),
            loaded_models=self.models,
            is_generating=self.serving.running > 0,
            queue_depth=self.serving.queue_depth,
            ewma_tokens_per_second=self.serving.tokens_per_second,
        )

    def conversation_ended(self, handle: Whom, reason: str, now: Instant, out: _Out) -> None:
        """Drop the jobs of a peer that is gone, or of a conversation that is over, and take back the requests."""
        if isinstance(handle, PeerHandle):
            self._missing.pop(handle, None)
        self._serving.asker_gone(handle, now, out)
        self._asking.lost(handle, reason, out)
        self.unsettled = True

    def peer_away(self, peer: PeerHandle) -> None:
        """Note that a peer cannot be reached, and may come back."""
        if self.is_busy(peer):
            self._missing[peer] = None
            self.unsettled = True

    def missing(self) -> list[PeerHandle]:
        """Return the peers that cannot be reached, and on which requests or jobs hung when they left."""
        return list(self._missing)

    def leave_missing(self, out: _Out) -> None:
        """Take requests that can be started over elsewhere from peers that cannot be reached."""
        for peer in self._missing:
            for asked in self._asking.on(peer):
                if asked.state is AskState.SENT and asked.attempts < ATTEMPTS_MAX and self._has_another(asked):
                    # What it makes of this when it comes back, nobody waits for.
                    out.append(SendMessage(peer, InferenceCancel(self._asking.wire_id(asked))))
                    self._asking.leave(asked, "it cannot be reached", out)

    def _has_another(self, asked: Asked) -> bool:
        """Whether there is a node that could answer, other than those that were tried and the one that is at it."""
        return any(
            not ineligible(standing, asked.ask.model)
            for standing in (self._own_standing(), *self._pool)
            if standing.node != asked.server and standing.node not in asked.tried
        )

    def told(self, node: NodeId, handle: Whom, message: ClusterMessage, now: Instant, out: _Out) -> None:
        """Take a message of a peer; one that is not about requests is ignored."""
        match message:
            case InferenceChunk():
                self._asking.chunk(handle, message.request_id, bytes(message.chunk), out)
            case InferenceRequest():
                self._serve(node, handle, message, now, out)
            case InferenceComplete(request_id=wire_id, tokens_in=tokens_in, tokens_out=tokens_out):
                self._asking.completed(handle, wire_id, tokens_in or 0, tokens_out or 0, out)
            case InferenceError(request_id=wire_id, error_message=why, code=code):
                failure = _FAILURES.get(code or "", Failure.INTERNAL_ERROR)
                self._asking.failed(handle, wire_id, failure, why, out)
                self.unsettled = True
            case InferenceCancel():
                self._serving.cancel(handle, message.request_id, now, out)
            case LoadModel():
                out.append(SendMessage(handle, self._load(message)))
            case ModelQuery(model_id=model):
                out.append(SendMessage(handle, ModelQueryResponse(model, model in self.models)))
            case _:
                pass

    def generated(
        self, event: GenerationChunk | GenerationFinished | GenerationFailed, now: Instant, out: _Out
    ) -> None:
        """Pass on what the local backend says; what it says of a job that has ended is ignored."""
        if isinstance(event, GenerationChunk):
            if len(event.chunk) > BODY_MAX:
                self._abandon(event.job, Failure.INTERNAL_ERROR, "the backend's answer is too large", now, out)
            else:
                self._deliver(event, out)
        elif isinstance(event, GenerationFinished):
            self._complete(event, now, out)
        else:
            origin = self._serving.failed(event.job, now, out)
            if origin is not None:
                self._tell_failure(origin, event.failure, event.message, out)

    # Work.

    def _serve(self, node: NodeId, handle: Whom, message: InferenceRequest, now: Instant, out: _Out) -> None:
        body = bytes(message.request)
        try:
            task, model = Task(message.task), _ADDRESSED.decode(body).model
        except (ValueError, RecursionError):
            # ValueError covers msgspec's errors, broken UTF-8, and an unknown task.
            failure: Failure | None = Failure.INVALID_REQUEST
            why = "the request names no model, or a task that this node does not know"
        else:
            why = "the queue of this node is full"
            failure = Failure.MODEL_NOT_LOADED
            if model not in self.models:
                why = "this node has not loaded the model"
            elif self._serving.is_under_way(handle, message.request_id):
                # An error under this id would end the request that it belongs to.
                return
            else:
                failure = self._serving.submit(
                    Origin(node, handle, message.request_id),
                    task,
                    model,
                    body,
                    streaming=message.streaming,
                    timeout=message.timeout_ms * MILLISECOND if message.timeout_ms else TIMEOUT_DEFAULT,
                    now=now,
                    out=out,
                )
        if failure is not None:
            out.append(SendMessage(handle, InferenceError(message.request_id, why, failure.value)))

    def _load(self, message: LoadModel) -> ModelLoaded | ModelLoadError:
        if message.model_id in self.models:
            return ModelLoaded(message.request_id, message.model_id)
        return ModelLoadError(message.request_id, message.model_id, "this node loads no models on request")

    def _deliver(self, event: GenerationChunk, out: _Out) -> None:
        origin = self._serving.chunk(event.job)
        if origin is None:
            return
        if origin.handle == LOCAL:
            self._asking.chunk(LOCAL, origin.wire_id, event.chunk, out)
        else:
            out.append(SendMessage(origin.handle, InferenceChunk(origin.wire_id, msgspec.Raw(event.chunk))))

    def _complete(self, event: GenerationFinished, now: Instant, out: _Out) -> None:
        origin = self._serving.finished(event.job, event.tokens_out, now, out)
        if origin is None:
            return
        if origin.handle == LOCAL:
            self._asking.completed(LOCAL, origin.wire_id, event.tokens_in, event.tokens_out, out)
        else:
            done = InferenceComplete(origin.wire_id, event.tokens_in, event.tokens_out)
            out.append(SendMessage(origin.handle, done))

    def _abandon(self, job: int, failure: Failure, why: str, now: Instant, out: _Out) -> None:
        origin = self._serving.abandon(job, now, out)
        if origin is not None:
            self._tell_failure(origin, failure, why, out)

    def _tell_failure(self, origin: Origin, failure: Failure, why: str, out: _Out) -> None:
        if origin.handle == LOCAL:
            self._asking.failed(LOCAL, origin.wire_id, failure, why, out)
            self.unsettled = True
        else:
            out.append(SendMessage(origin.handle, InferenceError(origin.wire_id, why[:4096], failure.value)))
