"""Which pairs of endpoints are tried, and which of them carries both ways: the datagrams of one punch.

All pairs race and the first that is proven wins. It is the initiator who settles on one, so that both sides end up
with the same; the responder only proves pairs to it. A pair is proven when a token comes back that could only be
learnt at its far end.

Nothing that comes in makes more than one datagram go out at once, and that one is shorter. Further datagrams
go only to hosts that the peer has named over the authenticated session; and to one where the relay does not see the
peer, fewer bytes in an attempt than the peer has spent on proposing it: it may be somebody else's.
"""

from typing import Final, NamedTuple

from teale_proto.contract import Sink
from teale_proto.effects import SendDatagram
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat.probe import OPENER, Probe, ProbeKeys, ProbeKind, TakenOnce

PAIRS_MAX: Final = 16
HEARD_MAX: Final = 64
PROBES_PER_PAIR: Final = 40
UNVOUCHED_BYTES_MAX: Final = 1200
"""Sent in one attempt to hosts that nobody vouches for; a signal that begins an attempt is longer."""

OPENER_HOPS: Final = 4
"""Far enough to have left a home and its carrier's NAT, and hardly as far as the peer's."""


class Pair(NamedTuple):
    """Two endpoints, as one side sees them."""

    local: Address
    remote: Address


class Proven(NamedTuple):
    """A pair that carries both ways, and the peer's token for it."""

    pair: Pair
    token: bytes
    by_peer: bool
    """Whether it was the peer that confirmed it, rather than an answer to our own probe."""


class Race:
    """The pairs of one punch; it lasts over all its attempts, so that a late answer still counts."""

    __slots__ = ("_heard", "_keys", "_number", "_pairs", "_taken", "_unvouched_bytes", "sent", "trusted", "vouched")

    def __init__(self, keys: ProbeKeys) -> None:
        self._keys = keys
        self._taken = TakenOnce()
        self._number = 0
        self._pairs: dict[Pair, int] = {}
        self._heard: dict[Pair, bytes] = {}
        self.sent = 0
        """How many datagrams were sent."""
        self.trusted: tuple[str, ...] = ()
        """The hosts that have been named over the authenticated session."""
        self.vouched: str | None = None
        """From which address the relay sees the peer come."""
        self._unvouched_bytes = 0

    def begin(self, trusted: tuple[str, ...]) -> None:
        """Forget the pairs of an earlier attempt."""
        self._pairs.clear()
        self._unvouched_bytes = 0
        self.trusted = trusted

    def stop(self) -> None:
        """Try no pair any more; go on listening."""
        self._pairs.clear()

    def add(self, pair: Pair) -> None:
        """Try a pair from the next round on, unless there are too many."""
        if len(self._pairs) < PAIRS_MAX:
            self._pairs.setdefault(pair, 0)

    def open_nat(self, out: Sink[SendDatagram]) -> None:
        """Let something leave for each pair that dies before it arrives."""
        for pair in self._pairs:
            self._send(pair, OPENER, out, hop_limit=OPENER_HOPS)

    def round(self, out: Sink[SendDatagram]) -> None:
        """Probe every pair once."""
        for pair, probes in self._pairs.items():
            if probes < PROBES_PER_PAIR:
                self._pairs[pair] = probes + 1
                self.probe(pair, out)

    def probe(self, pair: Pair, out: Sink[SendDatagram]) -> None:
        """Ask whether the peer hears us at the far end of a pair."""
        self._seal(pair, ProbeKind.PROBE, out, token=self._keys.token(*pair))

    def opener(self, pair: Pair, out: Sink[SendDatagram]) -> None:
        """Let something leave that dies before it arrives."""
        self._send(pair, OPENER, out, hop_limit=OPENER_HOPS)

    def confirm(self, proven: Proven, out: Sink[SendDatagram]) -> None:
        """Prove a pair to the peer; from the initiator it means that this is the one."""
        self._seal(proven.pair, ProbeKind.CONFIRM, out, echo=proven.token)

    def find(self, token: bytes) -> Pair | None:
        """Return the pair that has this token of ours."""
        known = (*self._heard, *self._pairs)
        return next((pair for pair in known if self._keys.token(*pair) == token), None)

    def received(self, event: DatagramReceived, out: Sink[SendDatagram]) -> Proven | None:
        """Take a datagram, answer it if it asks for that, and return what it proves."""
        probe = self._keys.open(event.data)
        if probe is None or not event.remote.port or not self._taken.take(probe.number):
            return None
        pair = Pair(event.local, event.remote)
        echoed = probe.kind is not ProbeKind.PROBE and probe.echo == self._keys.token(*pair)
        if probe.kind is ProbeKind.CONFIRM:
            token = self._heard.get(pair)
            return Proven(pair, token, by_peer=True) if echoed and token is not None else None
        self._remember(pair, probe)
        if probe.kind is ProbeKind.PROBE:
            self._seal(pair, ProbeKind.ANSWER, out, token=self._keys.token(*pair), echo=probe.token)
        return Proven(pair, probe.token, by_peer=False) if echoed else None

    def _remember(self, pair: Pair, probe: Probe) -> None:
        self._heard.pop(pair, None)
        self._heard[pair] = probe.token
        if len(self._heard) > HEARD_MAX:
            del self._heard[next(iter(self._heard))]
        if pair.remote.host in self.trusted:
            # Here the peer really is, wherever it was expected (ICE's peer-reflexive candidates).
            self.add(pair)

    def _seal(
        self, pair: Pair, kind: ProbeKind, out: Sink[SendDatagram], *, token: bytes = b"", echo: bytes = b""
    ) -> None:
        self._number += 1
        data = self._keys.seal(Probe(kind, self._number, token, echo))
        if kind is ProbeKind.PROBE:
            self._send(pair, data, out)
        else:
            # Shorter than what it answers.
            self._put(pair, data, out)

    def _send(self, pair: Pair, data: bytes, out: Sink[SendDatagram], *, hop_limit: int | None = None) -> None:
        """Send what nobody has asked for, unless it would be too much for somebody who may not be the peer."""
        if pair.remote.host != self.vouched:
            if self._unvouched_bytes + len(data) > UNVOUCHED_BYTES_MAX:
                return
            self._unvouched_bytes += len(data)
        self._put(pair, data, out, hop_limit=hop_limit)

    def _put(self, pair: Pair, data: bytes, out: Sink[SendDatagram], *, hop_limit: int | None = None) -> None:
        self.sent += 1
        out.append(SendDatagram(pair.local, pair.remote, data, hop_limit))
