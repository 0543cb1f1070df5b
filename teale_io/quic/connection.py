"""One QUIC connection to one node: who it is with, how it stands, and its streams.

The library does the protocol; this decides. A connection is worth something once both sides have proved who they
are: the server by its certificate, the client by the first stream that it opens. Until then nothing that came in
is handed on, and nothing goes out but what the caller has called idempotent.

It ends for the caller as soon as it is known to: the library keeps it a little longer, to answer late packets.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final

import trio

from teale_io.quic.errors import Code, NoAnswer, QuicError, WrongNode, error_of
from teale_io.quic.introduction import PROOF_STREAM, Introduction
from teale_io.quic.owner import Info, Owner
from teale_io.quic.stack import Core, PeerAddress
from teale_io.quic.states import State, Trigger, after
from teale_io.quic.stream import QuicStream
from teale_io.quic.streams import Streams, is_one_way
from teale_proto.errors import LocalError
from teale_proto.inputs import Address, NodeId

CHECK_EVERY: Final = 256
"""After so many datagrams it is looked how much waits to be put in order."""


class QuicConnection:
    """A connection as its users see it; made by an Endpoint."""

    def __init__(
        self, owner: Owner, core: Core, *, expected: NodeId | None, remote: PeerAddress, scope: int, now: float
    ) -> None:
        self.core: Final = core
        self.introduction: Final = Introduction(owner.identity, expected)
        self.peer: NodeId | None = None
        """Who the other side has proved to be."""
        self.state = State.CONNECTING
        self.error: QuicError | None = None
        """Why it has ended; None while it has not."""
        self.remote = remote
        self.scope = scope
        """The interface of a link-local IPv6 address."""
        self.resumed = False
        self.early_data_accepted = False
        self.armed = inf
        """When the endpoint will look at it next."""
        self.closes_when_unused = False
        """Whether it is to be closed when the last of its streams has ended."""
        self.dirty = False
        self.is_over = False
        """Whether the library is done with it too."""
        self.ids: set[bytes] = {core.host_cid}
        self.deadline = inf
        self._owner: Final = owner
        self._streams: Final = Streams(self, is_client=self.is_client, streams_max=owner.limits.streams_max)
        self._comings = trio.lowlevel.ParkingLot()
        self._changes = trio.lowlevel.ParkingLot()
        self._is_complete = False
        self.may_send = False
        """Whether more may be sent than what is early."""
        self._ticket: Any = None
        """What came before it was known who gave it."""
        self._datagrams = 0
        self._waiting = 0
        self._heard_at = now
        self._settle_until = now + owner.limits.handshake_seconds
        self._linger_until = inf
        self._parting: tuple[int, str] | None = None

    def __repr__(self) -> str:
        return f"<QuicConnection {self.state.value} {(self.peer or '?')[:8]}>"

    @property
    def is_client(self) -> bool:
        """Whether we opened it."""
        return self.expected is not None

    @property
    def expected(self) -> NodeId | None:
        """The node that was dialled; None where somebody came to us."""
        return self.introduction.expected

    @property
    def is_live(self) -> bool:
        """Whether it can be used, now or when it is connected."""
        return self.state in (State.CONNECTING, State.CONNECTED, State.IDLE)

    @property
    def info(self) -> Info:
        """What is known of it now."""
        path = self._owner.stack.path(self.core)
        return Info(
            self.state,
            self.peer,
            Address(*self.remote),
            self.is_client,
            *path,
            len(self._streams),
            self.resumed,
            self.early_data_accepted,
        )

    def is_fresh(self, now: float) -> bool:
        """Return whether the other side was heard, or asked for the first time, not long ago."""
        return now < self._heard_at + self._owner.limits.fresh_seconds and self.state is not State.IDLE

    # What its users do.

    async def wait_connected(self) -> None:
        """Wait until both sides know each other; raises QuicError where it ends instead.

        One that is to end with its last stream ends as well when nobody waits for it any more.
        """
        self._waiting += 1
        try:
            while self.state is State.CONNECTING:
                await self._changes.park()
        except trio.Cancelled:
            if self._waiting == 1:
                self.unused()
            raise
        finally:
            self._waiting -= 1
        if self.error is not None:
            raise self.error

    async def wait_sendable(self) -> None:
        """Wait until more can be sent than what is early; raises QuicError where it ends instead."""
        while self.error is None and not self.may_send:
            await self._changes.park()
        if self.error is not None:
            raise self.error

    async def wait_closed(self) -> None:
        """Wait until it has ended, for whatever reason."""
        while self.state is not State.CLOSED:
            await self._changes.park()

    async def wait_changed(self) -> None:
        """Wait until its state may have changed."""
        await self._changes.park()

    def open_stream(self, *, early: bytes = b"") -> QuicStream:
        """Open a stream; raises QuicError where that cannot be.

        `early` is what the stream begins with, and must be idempotent: on a repeat connection it leaves with the very
        first packet, before the other side can tell it from a recording.
        """
        if not self.is_live:
            raise self.error or QuicError("the connection is being closed")
        return self._streams.open(early=early, is_early=bool(early) and not self._is_complete)

    async def accept_stream(self) -> QuicStream:
        """Wait for a stream that the other side opens; raises QuicError when there will be none any more."""
        while True:
            stream = None if self.state is State.CONNECTING else self._streams.next_opened()
            if stream is not None:
                return stream
            if self.error is not None:
                raise self.error
            await self._comings.park()

    def close(self, code: int = Code.DONE, reason: str = "") -> None:
        """End it once what was sent has been delivered, or after a bounded time; nothing new is taken."""
        if not self.is_live:
            return
        was_connecting = self.state is State.CONNECTING
        self._move(Trigger.CLOSE)
        self._parting = (code, reason)
        self._linger_until = 0.0 if was_connecting else trio.current_time() + self._owner.limits.linger_seconds
        for stream in self._streams:
            stream.finish()
        self._owner.touch(self)

    def abort(self, error: QuicError, code: int) -> None:
        """End it at once; `error` is what its users get."""
        if self.error is None:
            self._guarded(lambda: self.core.close(code, None, str(error)))
            self._end(error)
            self._owner.touch(self)

    # What its endpoint does.

    def begin(self, now: float) -> None:
        """Open it; what is early must be given before the endpoint has its turn."""
        self._guarded(lambda: self.core.connect(self.remote, now))

    def prove_early(self) -> None:
        """Say who we are with the first packet, to a server that only the right node can be."""
        self._prove()

    def take_ticket(self, ticket: Any) -> None:
        """Keep a ticket of the server's, once it is known to be the node that was dialled and no other."""
        if self.peer is None:
            self._ticket = ticket
        else:
            self._owner.keep_ticket(self.peer, ticket)

    def receive(self, datagrams: Sequence[bytes], address: PeerAddress, scope: int, now: float) -> None:
        """Take datagrams that came together."""
        self._heard_at = now
        if address == self.remote:
            self.scope = scope
        self._datagrams += len(datagrams)
        self._guarded(lambda: self._owner.stack.receive(self.core, datagrams, address, now))
        if self.state is State.IDLE:
            self._move(Trigger.HEARD)
        self._take_events()
        if self._datagrams >= CHECK_EVERY:
            self._datagrams = 0
            most = min(self._owner.limits.unordered_bytes_max, self._unread_bytes_max)
            if self._owner.stack.unordered_bytes(self.core) > most:
                self.abort(QuicError("the other side leaves too many gaps in what it sends"), Code.TOO_SLOW)

    def fire(self, now: float) -> None:
        """Do what is due."""
        timer = self._timer()
        if timer is not None and timer <= now:
            self._guarded(lambda: self.core.handle_timer(now))
            self._take_events()
        if self.state is State.CONNECTING and now >= self._settle_until:
            seconds = self._owner.limits.handshake_seconds
            self.abort(NoAnswer(f"no connection within {seconds:g} s"), Code.TOO_LATE)
        elif self._is_silent(now):
            self._move(Trigger.SILENCE)
            self._heard_at = now  # asks again after as long
            self._guarded(lambda: self.core.send_ping(1))

    def transmit(self, now: float) -> list[tuple[bytes, Any]]:
        """Return what must be sent, and note when to look again."""
        found: list[tuple[bytes, Any]] = []
        if not self.is_over:
            found = self._guarded(lambda: self._owner.stack.to_send(self.core, now)) or []
            if self._parting is not None and (now >= self._linger_until or self._is_delivered()):
                code, reason = self._parting
                self._parting = None
                self._guarded(lambda: self.core.close(code, None, reason))
                found += self._guarded(lambda: self._owner.stack.to_send(self.core, now)) or []
                self._end(QuicError(reason or "closed"))
            if self._streams.are_awaited:
                self._streams.refill()
        self.deadline = self._next_deadline()
        return found

    def drop(self, error: QuicError) -> None:
        """Forget it without a word to the other side."""
        self._end(error)
        self.is_over = True

    # What its streams do.

    def give(self, stream_id: int, data: bytes, *, ends: bool) -> None:
        """Hand bytes to the library."""
        self._guarded(lambda: self.core.send_stream_data(stream_id, data, ends))
        self._owner.touch(self)

    def held_bytes(self, stream_id: int) -> int:
        """Return how much of a stream waits in the library to be sent."""
        return self._owner.stack.unsent_bytes(self.core, stream_id)

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the other side to send no more on a stream."""
        self._quietly(lambda: self.core.stop_stream(stream_id, code))

    def reset(self, stream_id: int, code: int) -> None:
        """Send nothing more on a stream, not even what waits."""
        self._quietly(lambda: self.core.reset_stream(stream_id, code))

    def unused(self) -> None:
        """Take note that there is no stream any more, or nobody who would open the first."""
        if self.closes_when_unused and not len(self._streams):
            self.close()

    # Events of the library.

    def _take_events(self) -> None:
        while (event := self.core.next_event()) is not None:
            handler = _ON.get(type(event).__name__)
            if handler is not None:
                handler(self, event)
        if not self.may_send and self.peer is not None and self._owner.stack.may_send(self.core):
            self._let_go()
        closing = self._owner.stack.closing(self.core)
        if closing is not None and self.error is None:
            self._end(error_of(closing))

    def _on_handshake(self, event: Any) -> None:
        self._is_complete = True
        self.resumed = bool(event.session_resumed)
        self.early_data_accepted = bool(event.early_data_accepted)
        if self.expected is None:
            return
        try:
            certificate = self._owner.stack.certificate_der(self.core)
            found = self.introduction.check_server(certificate, resumed=self.resumed)
        except WrongNode as error:
            self.abort(error, Code.WRONG_NODE)
            return
        if not self.introduction.has_spoken:
            self._prove()
        self._settle(found)

    def _on_data(self, event: Any) -> None:
        stream_id: int = event.stream_id
        if is_one_way(stream_id):
            self._on_one_way(stream_id, event.data, ends=event.end_stream)
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams.opened(stream_id, is_early=not self._is_complete)
            self._comings.unpark()
        if stream is None or self.error is not None:
            return
        self._streams.arrive(stream, event.data, ends=event.end_stream)
        if self._streams.unread_bytes > self._unread_bytes_max:
            self.abort(QuicError(f"{self._streams.unread_bytes} bytes wait to be read"), Code.TOO_SLOW)

    def _on_one_way(self, stream_id: int, data: bytes, *, ends: bool) -> None:
        """Take the client's proof; nothing else is said on streams of one direction."""
        if self.is_client or stream_id != PROOF_STREAM or self.peer is not None:
            if not ends:
                self.stop(stream_id, Code.BROKEN)
            return
        try:
            first_id = self.core.original_destination_connection_id
            peer = self.introduction.hear_client(data, ends=ends, first_id=first_id)
        except WrongNode as error:
            self.abort(error, Code.WRONG_NODE)
            return
        if peer is not None:
            self._settle(peer)

    def _on_reset(self, event: Any) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.break_off("the other side gave the stream up")

    def _on_stop(self, event: Any) -> None:
        if stream := self._streams.get(event.stream_id):
            self._streams.stopped(stream, event.error_code)

    def _on_issued(self, event: Any) -> None:
        self._owner.add_id(self, event.connection_id)

    def _on_retired(self, event: Any) -> None:
        self._owner.remove_id(self, event.connection_id)

    def _on_terminated(self, event: Any) -> None:
        self.is_over = True
        self._end(error_of(event))

    # Helpers.

    def _prove(self) -> None:
        # The stream stays open: qh3 2.1 fails when it has to repeat something of a stream that has ended.
        proof = self.introduction.speak(self.core.original_destination_connection_id)
        self.give(PROOF_STREAM, proof, ends=False)

    def _settle(self, peer: NodeId) -> None:
        self.peer = peer
        self._move(Trigger.PROVEN)
        if self._ticket is not None:
            self._owner.keep_ticket(peer, self._ticket)
        self._owner.settled(self)

    def _let_go(self) -> None:
        """Let out what had to wait for the end of the handshake."""
        self.may_send = True
        self._streams.let_go()
        self._changes.unpark_all()

    def _quietly(self, act: Callable[[], object]) -> None:
        """Do something to a stream that may have ended meanwhile."""
        try:
            act()
        except Exception:  # the libraries disagree on what they raise for a stream that is no more
            return
        self._owner.touch(self)

    def _guarded(self, act: Callable[[], Any]) -> Any:
        """Do something with the library; what it fails at ends this connection and no other."""
        try:
            return act()
        except LocalError:
            raise
        except Exception as error:  # bytes of a stranger led it there
            self.drop(QuicError(f"the QUIC library failed: {type(error).__name__}"))
            self._owner.touch(self)

    @property
    def _unread_bytes_max(self) -> int:
        limits = self._owner.limits
        return limits.unproven_bytes_max if self.peer is None else limits.unread_bytes_max

    def _is_delivered(self) -> bool:
        return bool(self._guarded(lambda: self._owner.stack.is_delivered(self.core)))

    def _is_silent(self, now: float) -> bool:
        limits = self._owner.limits
        return self.state in (State.CONNECTED, State.IDLE) and now >= self._heard_at + limits.keep_alive_seconds

    def _timer(self) -> float | None:
        timer: float | None = self._guarded(self.core.get_timer)
        return timer

    def _next_deadline(self) -> float:
        if self.is_over:
            return inf
        timer = self._timer()
        found = inf if timer is None else timer
        if self.state is State.CONNECTING:
            found = min(found, self._settle_until)
        elif self.state in (State.CONNECTED, State.IDLE):
            found = min(found, self._heard_at + self._owner.limits.keep_alive_seconds)
        elif self._parting is not None:
            found = min(found, self._linger_until)
        return found

    def _move(self, trigger: Trigger) -> None:
        self.state = after(self.state, trigger)
        self._changes.unpark_all()
        self._comings.unpark_all()

    def _end(self, error: QuicError) -> None:
        """Take note, once, that nothing goes in or out any more."""
        if self.error is not None:
            return
        self.error = error
        self._parting = None
        self._move(Trigger.ENDED)
        self._streams.break_off(str(error))
        self._owner.ended(self)


_ON: Final[dict[str, Callable[[QuicConnection, Any], None]]] = {
    "HandshakeCompleted": QuicConnection._on_handshake,  # noqa: SLF001  (the class's own table)
    "StreamDataReceived": QuicConnection._on_data,  # noqa: SLF001
    "StreamReset": QuicConnection._on_reset,  # noqa: SLF001
    "StopSendingReceived": QuicConnection._on_stop,  # noqa: SLF001
    "ConnectionIdIssued": QuicConnection._on_issued,  # noqa: SLF001
    "ConnectionIdRetired": QuicConnection._on_retired,  # noqa: SLF001
    "ConnectionTerminated": QuicConnection._on_terminated,  # noqa: SLF001
}
