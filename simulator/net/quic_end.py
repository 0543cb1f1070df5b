"""One side of a simulated QUIC connection: how it opens, sends, receives, wakes and ends.

What is modelled, and what is not, is told in `simulator.net.quic`, which finds the side that a packet is for.
"""

from typing import TYPE_CHECKING, Final

from simulator.net.connection import Kind, State, Traffic
from simulator.net.machine import HostPort, Machine, Owner
from simulator.net.nat import Packet
from simulator.net.quic_flow import Incoming, Outgoing, Segment
from simulator.net.quic_packets import (
    CLOSE,
    FIN,
    HELLO,
    PING,
    RANGES_MAX,
    SEGMENT_BYTES,
    WELCOME,
    LongPacket,
    ShortPacket,
    encode_long,
    encode_short,
)
from simulator.rng import SplitMix64
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Duration, Instant
from teale_proto.inputs import Address, ConnectionId

if TYPE_CHECKING:
    from simulator.net.quic import QuicEndpoint

HANDSHAKE_TIMEOUT: Final[Duration] = 10 * SECOND
HELLO_AGAIN: Final[Duration] = SECOND
"""When the first flight is sent again; the pause doubles (RFC 9002, section 6.2.2)."""
ACK_DELAY: Final[Duration] = 25 * MILLISECOND
"""How long an acknowledgement waits for company (RFC 9000, section 18.2)."""
KEEP_ALIVE: Final[Duration] = 30 * SECOND
IDLE_TIMEOUT: Final[Duration] = 75 * SECOND
LINGER: Final[Duration] = 5 * SECOND
"""How long a closing connection still tries to deliver what was said."""
PROBES: Final = 2
"""Packets that leave when a timer goes off, for one might be lost as well (RFC 9002, section 6.2.4)."""
PROOF: Final = bytes(97)
"""What a client's stream begins with: a version, a key and a signature."""

TIMED_OUT: Final = "timed out"
CLOSED_BY_PEER: Final = "closed by the other side"


class QuicEnd:
    """One side of a connection; its host sends through it."""

    __slots__ = (
        "_ack_due_at",
        "_armed_at",
        "_attempts",
        "_began_at",
        "_chance",
        "_endpoint",
        "_expected",
        "_flushes",
        "_heard_at",
        "_incoming",
        "_is_gone",
        "_lingers_until",
        "_local",
        "_opening",
        "_outgoing",
        "_own_id",
        "_peer_id",
        "_proof",
        "_remote",
        "_serial",
        "_unanswered",
        "id",
        "is_client",
        "state",
    )

    def __init__(
        self,
        endpoint: "QuicEndpoint",
        own_id: int,
        local: Address,
        remote: Address,
        *,
        expected: str | None,
        opening: bytes = b"",
    ) -> None:
        self.id: ConnectionId = 0
        self.state = State.CONNECTING
        self.is_client = expected is not None
        self._expected = expected
        """The node that a client wants."""
        self._opening = opening
        """What its stream begins with."""
        self._endpoint = endpoint
        self._own_id = own_id
        self._peer_id = 0
        self._local = local
        self._remote = remote
        self._serial = 0
        """What listeners to the network know the connection by; both ends agree."""
        self._outgoing = Outgoing(ack_delay=ACK_DELAY)
        self._incoming = Incoming()
        self._chance: SplitMix64 | None = None
        self._proof = 0
        """How much of the client's proof a server has."""
        self._began_at: Instant = endpoint.now
        self._heard_at: Instant = endpoint.now
        self._attempts = 0
        self._unanswered = 0
        """Packets to be acknowledged that came since an acknowledgement left."""
        self._ack_due_at: Instant = NEVER
        self._lingers_until: Instant = NEVER
        self._armed_at: Instant = NEVER
        self._flushes = False
        self._is_gone = False

    @property
    def kind(self) -> Kind:
        """A stream, always."""
        return Kind.STREAM

    @property
    def remote(self) -> Address:
        """Where the other side is, as far as this one knows."""
        return self._remote

    @property
    def machine(self) -> Machine:
        """The host at this side."""
        return self._endpoint.machine

    # What its host does.

    def send(self, data: bytes) -> None:
        """Send bytes of the stream; what is sent in one instant travels together."""
        assert self.state is State.OPEN, f"{self.machine.name} sends on a connection that is {self.state.value}"
        self._show(data)
        self._outgoing.write(data)
        self._flush_soon()

    def ping(self) -> None:
        """Never called: a stream has no pings."""
        raise AssertionError("a stream has no pings")

    def close(self, reason: str) -> None:
        """Close behind everything that was sent, which is still delivered if it can be in a while."""
        del reason  # there is no room for it at the end of a stream
        was_open = self.state is State.OPEN
        self.state = State.CLOSED
        if not was_open:
            self._vanish()
            return
        self._outgoing.end()
        self._lingers_until = self._endpoint.now + LINGER
        self._flush_soon()

    # What happens to its host.

    def die(self) -> None:
        """Stop existing, without a word."""
        self.state = State.DEAD
        self._is_gone = True
        self._armed_at = NEVER

    def leave(self) -> None:
        """Say that this is the end, once, as far as the process that ends here still can."""
        self._flush()
        if self._peer_id:
            self._transmit(self._short(CLOSE, Segment(0, b"", ends=False)))
        self.die()

    # Opening.

    def greet(self) -> None:
        """Begin the handshake, as the client."""
        assert self._expected is not None, "only clients begin"
        self._attempts += 1
        self._serial = self._own_id
        self._transmit(encode_long(LongPacket(HELLO, 0, self._own_id, self._expected)))
        self._arm()

    def welcome(self, peer_id: int) -> None:
        """Answer the client's first flight, or its repetition."""
        self._peer_id = self._serial = peer_id
        self._transmit(encode_long(LongPacket(WELCOME, peer_id, self._own_id, self.machine.node)))
        self._arm()

    def welcomed(self, packet: LongPacket, remote: Address) -> None:
        """Be open, as a client that has its answer."""
        if self.state is not State.CONNECTING or not self.is_client or remote != self._remote:
            return
        self._peer_id = packet.source
        self._heard_at = self._endpoint.now
        if packet.node != self._expected:
            self._transmit(self._short(CLOSE, Segment(0, b"", ends=False)))
            self._fail("another node than the expected one answered")
            return
        self.state = State.OPEN
        if self._attempts == 1:
            self._outgoing.measured(self._endpoint.now - self._began_at)
        # In front of all that its owner says.
        self._outgoing.write(PROOF)
        if self._opening:
            self.send(self._opening)
        self._flush_soon()
        self._arm()
        self._owner().opened(self)

    # What arrives.

    def receive(self, packet: ShortPacket, local: Address, remote: Address) -> None:
        """Take a packet that came after the handshake."""
        if self.is_client and (self.state is State.CONNECTING or remote != self._remote):
            return
        now = self._endpoint.now
        if remote != self._remote and packet.number > self._incoming.highest:
            self._remote, self._local = remote, local
            self._outgoing.on_new_way()
        self._heard_at = now
        if packet.flags & CLOSE:
            self._end(CLOSED_BY_PEER)
            return
        in_turn = self._incoming.note(packet.number)
        self._outgoing.acknowledged(packet.acknowledged, now)
        if packet.asks_for_answer:
            self._owe_answer(at_once=not in_turn)
        if self.state is State.CLOSED:
            self._flush_soon()
        else:
            segment = Segment(packet.offset, packet.data, bool(packet.flags & FIN))
            self._deliver(self._incoming.take(segment))
        if not self._outgoing.is_idle:
            self._flush_soon()
        self._arm()

    def _deliver(self, data: bytes) -> None:
        if self.state is State.CONNECTING and data:
            missing = len(PROOF) - self._proof
            self._proof += min(missing, len(data))
            data = data[missing:]
            if self._proof == len(PROOF):
                self.state = State.OPEN
                self._owner().accepted(self, self._remote, self._local, "", direct=True)
        if data and self.state is State.OPEN:
            self._owner().received(self, data)
        if self._incoming.ended and self.state in (State.OPEN, State.CONNECTING):
            self._acknowledge()
            self._end(CLOSED_BY_PEER)

    def _owe_answer(self, *, at_once: bool) -> None:
        """Acknowledge: after two packets, or where one is missing, else in a while (RFC 9000, section 13.2)."""
        self._unanswered += 1
        if at_once or self._unanswered >= 2:
            self._ack_due_at = self._endpoint.now
            self._flush_soon()
        elif self._ack_due_at == NEVER:
            self._ack_due_at = self._endpoint.now + ACK_DELAY

    # What leaves.

    def _flush_soon(self) -> None:
        """Send at the end of this instant, when its host has said all that it has to say in it."""
        if not self._flushes:
            self._flushes = True
            self._endpoint.call_at(self._endpoint.now, QuicEnd._flush_now, self)

    def _flush_now(self) -> None:
        if self._flushes:
            self._flush()
            self._arm()

    def _flush(self) -> None:
        self._flushes = False
        if self._is_gone or not self._peer_id:
            return
        while (segment := self._outgoing.next(size_max=self._size())) is not None:
            self._send(segment)
        if self._ack_due_at <= self._endpoint.now:
            self._acknowledge()
        if self._lingers_until != NEVER and self._outgoing.is_idle:
            self._vanish()

    def _send(self, segment: Segment) -> None:
        flags = (FIN if segment.ends else 0) | (0 if segment.data or segment.ends else PING)
        self._outgoing.sent(segment, self._endpoint.now)
        self._transmit(self._short(flags, segment))

    def _acknowledge(self) -> None:
        self._transmit(self._short(0, Segment(0, b"", ends=False)))

    def _short(self, flags: int, segment: Segment) -> bytes:
        number = self._outgoing.number
        self._outgoing.number += 1
        self._unanswered = 0
        self._ack_due_at = NEVER
        ranges = self._incoming.ranges(RANGES_MAX)
        return encode_short(ShortPacket(flags, self._peer_id, number, ranges, segment.offset, segment.data))

    def _transmit(self, data: bytes) -> None:
        """Have a packet leave from where the host is now; without a socket or a network it is lost."""
        machine = self.machine
        sockets = machine.sockets
        if sockets is not None and self._local.port not in sockets:
            return
        port = machine.port_of(self._local.host)
        if port is None:
            found = _port_like(machine, self._remote.host)
            if found is None:
                return
            port, host = found
            self._local = Address(host, self._local.port)
        self._endpoint.send(port, Packet(self._local, self._remote, data))

    def _size(self) -> int:
        """Return how much the next packet carries: as much as it can, or, by chance, less."""
        cut_chance = self._endpoint.medium.cut_chance
        if not cut_chance:
            return SEGMENT_BYTES
        if self._chance is None:
            self._chance = self._endpoint.chance(self._own_id)
        whole = self._chance.random() >= cut_chance
        return SEGMENT_BYTES if whole else self._chance.between(1, SEGMENT_BYTES)

    # Waking.

    def _arm(self) -> None:
        due = self._due_at()
        if due < self._armed_at:
            self._armed_at = due
            self._endpoint.call_at(max(due, self._endpoint.now), QuicEnd._wake, self, due)

    def _due_at(self) -> Instant:
        if self._is_gone:
            return NEVER
        if self.state is State.CONNECTING:
            gives_up_at = self._began_at + HANDSHAKE_TIMEOUT
            return min(gives_up_at, self._hello_again_at) if self.is_client else gives_up_at
        outgoing = self._outgoing
        due = min(outgoing.timeout_at, self._ack_due_at, self._lingers_until, self._heard_at + IDLE_TIMEOUT)
        return due if outgoing.is_waiting else min(due, self._heard_at + KEEP_ALIVE)

    @property
    def _hello_again_at(self) -> Instant:
        return self._began_at + HELLO_AGAIN * ((1 << self._attempts) - 1)

    def _wake(self, at: Instant) -> None:
        # A wake-up that was overtaken by an earlier one finds another instant armed.
        if at != self._armed_at:
            return
        self._armed_at = NEVER
        now = self._endpoint.now
        if self.state is State.CONNECTING:
            if now >= self._began_at + HANDSHAKE_TIMEOUT:
                self._fail(TIMED_OUT)
            elif self.is_client and now >= self._hello_again_at:
                self.greet()
        elif now >= self._lingers_until:
            self.leave()
            self._vanish()
        elif now >= self._heard_at + IDLE_TIMEOUT:
            self._end(TIMED_OUT)
        else:
            self._keep_going(now)
        self._arm()

    def _keep_going(self, now: Instant) -> None:
        outgoing = self._outgoing
        if now >= outgoing.timeout_at:
            outgoing.timed_out()
            probe = outgoing.probe()
            for _ in range(PROBES):
                self._send(probe)
        elif now >= self._heard_at + KEEP_ALIVE and not outgoing.is_waiting:
            self._send(outgoing.probe())
        if now >= self._ack_due_at:
            self._acknowledge()

    # The end.

    def _fail(self, reason: str) -> None:
        self.state = State.CLOSED
        self._vanish()
        if self.is_client:
            self._owner().failed(self, reason)

    def _end(self, reason: str) -> None:
        was = self.state
        if was is State.CONNECTING:
            self._fail(reason)
            return
        self.state = State.CLOSED
        self._vanish()
        if was is State.OPEN:
            self._owner().closed(self, reason)

    def _vanish(self) -> None:
        """Be known to nobody any more."""
        self._is_gone = True
        self._endpoint.forget(self._own_id, self._peer_id)

    def _owner(self) -> Owner:
        owner = self.machine.owner
        assert owner is not None
        return owner

    def _show(self, data: bytes) -> None:
        medium = self._endpoint.medium
        if not medium.taps:
            return
        names = (self.machine.name, self._endpoint.name_of(self._peer_id))
        ends = (self._local, self._remote) if self.is_client else (self._remote, self._local)
        seen = Traffic(
            medium.engine.now, *names, -self._serial, False, data, *ends, self.is_client, in_datagrams=True
        )  # fmt: skip
        for tap in medium.taps:
            tap(seen)


def _port_like(machine: Machine, host: str) -> tuple[HostPort, str] | None:
    """Return where a host sends to addresses like `host` from, and under which of its own."""
    version = ":" in host
    found = ((port, each) for port in machine.ports for each in port.addresses if (":" in each) == version)
    return next(found, None)
