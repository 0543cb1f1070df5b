"""For how long a NAT remembers a mapping that nobody uses, by binary search (RFC 5780, section 4.6).

Two sockets ask one STUN server. The first makes a mapping and is silent for a while; then the second asks, and wants
the answer at the first one's mapping (RESPONSE-PORT). If the answer arrives there, the mapping was still alive, and
the next silence is longer; otherwise it is shorter. Each silence begins with a fresh question of the first socket,
since an answer that came in may have kept the mapping alive.

Three things could pass for a mapping that is gone, and are told apart: a server that answers to no other port, or a
NAT that gives the two sockets different addresses, which a try without any silence shows at the beginning; and a line
that is down, which an ordinary question of the second socket shows each time.

Which silence to try next, and for how long it can go on, are pure functions of what is known.
"""

from collections.abc import Sequence
from enum import Enum
from ipaddress import ip_address
from math import isqrt
from typing import Final, TypeAlias

from teale_proto.contract import MILLISECOND, SECOND, Duration, Instant, Sink, Value
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address, DatagramReceived, Woken
from teale_proto.nat.behaviour import Retransmission
from teale_proto.nat.stun import (
    TRANSACTION_BYTES,
    Attribute,
    MappedAddress,
    Message,
    MessageClass,
    ResponsePort,
    XorMappedAddress,
    decode,
    encode,
)
from teale_proto.rng import Rng
from teale_proto.timers import Timers

RETRANSMISSION: Final = Retransmission(first=500 * MILLISECOND, requests=4, patience=4)
"""5.5 s until a question counts as unanswered."""


class LifetimeWanted(Value):
    """Find out now; legal again once the report is out."""


class LifetimeOutcome(Enum):
    """How a search ended."""

    FOUND = "found"
    """As exactly as was wanted, or as time allowed."""
    NO_ANSWER = "no answer"
    """The server, or the line, is silent."""
    REFUSED = "refused"
    """The server answers to no other port than the one that asks."""
    UNREACHABLE = "unreachable"
    """What the second socket asks for does not arrive at the first one even at once."""


class Bounds(Value):
    """What is known of a lifetime: it is longer than `at_least`, and not longer than `at_most`."""

    at_least: Duration = 0
    at_most: Duration | None = None
    """None where every silence that was tried was survived."""


class ReportSilence(Value):
    """One silence is over: the progress of a search."""

    local: Address
    silence: Duration
    survived: bool
    known: Bounds
    left_at_most: Duration
    """For how long the search can still go on."""


class ReportLifetime(Value):
    """The search is over; every LifetimeWanted leads to exactly one of these."""

    local: Address
    outcome: LifetimeOutcome
    known: Bounds
    silences: int
    """How many were tried."""


LifetimeInput: TypeAlias = Woken | LifetimeWanted | DatagramReceived
LifetimeEffect: TypeAlias = SendDatagram | ReportSilence | ReportLifetime


class Setting(Value):
    """Whom to ask, from where, and how exactly the answer is wanted. `local` and `second` are two of our sockets."""

    local: Address
    second: Address
    server: Address
    shortest: Duration = 10 * SECOND
    longest: Duration = 300 * SECOND
    resolution: Duration = 10 * SECOND
    silences_max: int = 12
    total_max: Duration = 1500 * SECOND
    """No silence is begun that would end later than this."""


def next_silence(known: Bounds, setting: Setting) -> Duration | None:
    """Return which silence to try next, or None where more would not be more exact than is wanted.

    The geometric mean, as it costs less to find that a short silence is survived than that a long one is not.
    """
    longest = setting.longest if known.at_most is None else known.at_most
    if longest <= setting.shortest or longest - known.at_least <= setting.resolution:
        return None
    if known.at_least < setting.shortest and longest <= 2 * setting.shortest:
        return setting.shortest
    return isqrt(max(known.at_least, setting.shortest) * longest)


def longest_search(known: Bounds, setting: Setting, silences: int = 0) -> Duration:
    """Return the sum of the silences that are yet to be tried if each ends in the worst way."""
    silence = next_silence(known, setting) if silences < setting.silences_max else None
    if silence is None:
        return 0
    outcomes = (_with(known, silence, survived=survived) for survived in (True, False))
    return silence + max(longest_search(each, setting, silences + 1) for each in outcomes)


class _Wait(Enum):
    """What there is to wait for: answers to three questions, and the end of a silence."""

    REFRESH = "the first socket asks for its mapping"
    SILENCE = "nobody asks anything"
    REACH = "the second socket asks for an answer at the first one's mapping"
    ALIVE = "the second socket asks for an answer of its own, to see whether the line is up"


class _Transaction:
    """One question under way."""

    __slots__ = ("data", "id", "local", "sent")

    def __init__(self, transaction: bytes, local: Address, attributes: tuple[Attribute, ...]) -> None:
        self.id = transaction
        self.local = local
        self.sent = 0
        self.data = encode(Message(MessageClass.REQUEST, transaction, attributes, fingerprinted=True))


class LifetimeSearch:
    """A core that finds out the lifetime of one socket's mapping, once for every LifetimeWanted.

    Raises LocalError for a server that is not given by IP address, and for bounds that leave nothing to search.
    """

    __slots__ = (
        "_asked",
        "_began_at",
        "_known",
        "_line_is_up",
        "_mapped_port",
        "_now",
        "_retransmission",
        "_rng",
        "_setting",
        "_silence",
        "_silences",
        "_silent_since",
        "_timers",
    )

    def __init__(self, setting: Setting, rng: Rng, *, retransmission: Retransmission = RETRANSMISSION) -> None:
        self._setting = _checked(setting)
        self._rng = rng
        self._retransmission = retransmission
        self._timers: Timers[_Wait] = Timers()
        self._asked: dict[_Wait, _Transaction] = {}
        self._known = Bounds()
        self._silence: Duration | None = None
        """The one that is being tried, None while no search is under way."""
        self._silences = 0
        self._line_is_up = False
        self._mapped_port = 0
        """Of the first socket."""
        self._silent_since: Instant = 0
        self._began_at: Instant = 0
        self._now: Instant = 0

    @property
    def deadline(self) -> Instant:
        """When the next question is due."""
        return self._timers.deadline

    def handle(self, event: LifetimeInput, now: Instant) -> Sequence[LifetimeEffect]:
        """Take one input; raises LocalError for a LifetimeWanted while a search is under way."""
        if now < self._now:
            raise LocalError(f"time ran backwards, from {self._now} to {now}")
        if isinstance(event, LifetimeWanted) and self._silence is not None:
            raise LocalError("a search is under way")
        self._now = now
        out: list[LifetimeEffect] = []
        if isinstance(event, LifetimeWanted):
            self._known, self._silences, self._silence, self._began_at = Bounds(), 0, 0, now
            self._ask(_Wait.REFRESH, now, out)
        elif isinstance(event, DatagramReceived):
            self._received(event, now, out)
        else:
            while (due := self._timers.pop_due(now)) is not None:
                self._act(due, now, out)
        return out

    def _act(self, due: _Wait, now: Instant, out: Sink[LifetimeEffect]) -> None:
        if due is _Wait.SILENCE:
            self._break_silence(now, out)
        elif self._asked[due].sent < self._retransmission.requests:
            self._send(due, now, out)
        else:
            del self._asked[due]
            self._unanswered(due, now, out)

    def _break_silence(self, now: Instant, out: Sink[LifetimeEffect]) -> None:
        # It may have been longer than was meant: a machine that sleeps wakes nobody.
        self._silence = now - self._silent_since
        self._line_is_up = False
        self._ask(_Wait.REACH, now, out)
        self._ask(_Wait.ALIVE, now, out)

    # Questions.

    def _ask(self, what: _Wait, now: Instant, out: Sink[LifetimeEffect]) -> None:
        local = self._setting.local if what is _Wait.REFRESH else self._setting.second
        attributes = (ResponsePort(self._mapped_port),) if what is _Wait.REACH else ()
        self._asked[what] = _Transaction(self._rng.randbytes(TRANSACTION_BYTES), local, attributes)
        self._send(what, now, out)

    def _send(self, what: _Wait, now: Instant, out: Sink[LifetimeEffect]) -> None:
        transaction = self._asked[what]
        transaction.sent += 1
        self._timers.set(what, now + self._retransmission.wait_after(transaction.sent))
        out.append(SendDatagram(transaction.local, self._setting.server, transaction.data))

    def _forget(self, what: _Wait) -> None:
        self._asked.pop(what, None)
        self._timers.cancel(what)

    def _unanswered(self, what: _Wait, now: Instant, out: Sink[LifetimeEffect]) -> None:
        if what is _Wait.REFRESH:
            self._end(LifetimeOutcome.NO_ANSWER, out)
        elif not self._asked:
            # Both questions of the second socket are over, and the one for the first one's mapping was in vain.
            self._heard_nothing(now, out)

    # Answers.

    def _received(self, event: DatagramReceived, now: Instant, out: Sink[LifetimeEffect]) -> None:
        if event.remote != self._setting.server or event.local not in (self._setting.local, self._setting.second):
            return
        try:
            message = decode(event.data)
        except PeerError:
            return
        for what, transaction in self._asked.items():
            if transaction.id == message.transaction:
                self._answered(what, message, event.local, now, out)
                return

    def _answered(self, what: _Wait, message: Message, local: Address, now: Instant, out: Sink[LifetimeEffect]) -> None:
        at_first = local == self._setting.local
        is_success = message.message_class is MessageClass.SUCCESS
        if not is_success and message.message_class is not MessageClass.ERROR:
            return
        if what is _Wait.REFRESH and at_first:
            self._refreshed(message, now, out)
        elif what is _Wait.ALIVE and not at_first:
            self._line_is_up = True
            self._forget(_Wait.ALIVE)
            if not self._asked:
                self._heard_nothing(now, out)
        elif what is _Wait.REACH and at_first and is_success:
            self._settle(survived=True, now=now, out=out)
        elif what is _Wait.REACH and not at_first:
            if is_success and self._silence:
                # The first socket's port is free again, and the second one has been given it.
                self._settle(survived=False, now=now, out=out)
            else:
                self._end(LifetimeOutcome.REFUSED, out)

    def _refreshed(self, message: Message, now: Instant, out: Sink[LifetimeEffect]) -> None:
        mapped = message.get(XorMappedAddress) or message.get(MappedAddress)
        if message.message_class is MessageClass.ERROR or mapped is None or not mapped.address.port:
            self._end(LifetimeOutcome.NO_ANSWER, out)
            return
        assert self._silence is not None, "nothing is asked for where nothing is searched for"
        self._forget(_Wait.REFRESH)
        self._mapped_port = mapped.address.port
        self._silent_since = now
        if self._silence:
            self._timers.set(_Wait.SILENCE, now + self._silence)
        else:
            self._break_silence(now, out)

    def _heard_nothing(self, now: Instant, out: Sink[LifetimeEffect]) -> None:
        if not self._line_is_up:
            self._end(LifetimeOutcome.NO_ANSWER, out)
        elif self._silence == 0:
            self._end(LifetimeOutcome.UNREACHABLE, out)
        else:
            self._settle(survived=False, now=now, out=out)

    def _settle(self, *, survived: bool, now: Instant, out: Sink[LifetimeEffect]) -> None:
        """Draw the conclusion from one silence, and begin the next one."""
        assert self._silence is not None, "nothing is asked for where nothing is searched for"
        self._forget(_Wait.REACH)
        self._forget(_Wait.ALIVE)
        silence, known = self._silence, self._known
        if silence:
            self._known = _with(known, silence, survived=survived)
            self._silences += 1
        left = self._left(now)
        if silence:
            out.append(ReportSilence(self._setting.local, silence, survived, self._known, left))
        following = next_silence(self._known, self._setting) if left else None
        if following is None:
            self._end(LifetimeOutcome.FOUND, out)
            return
        self._silence = following
        self._ask(_Wait.REFRESH, now, out)

    def _left(self, now: Instant) -> Duration:
        """Return for how long it can still go on, without the time that answers take; 0 where it is over."""
        left = self._setting.total_max - (now - self._began_at)
        following = next_silence(self._known, self._setting)
        if following is None or following > left or self._silences == self._setting.silences_max:
            return 0
        return min(left, longest_search(self._known, self._setting, self._silences))

    def _end(self, outcome: LifetimeOutcome, out: Sink[LifetimeEffect]) -> None:
        for what in _Wait:
            self._forget(what)
        self._silence = None
        out.append(ReportLifetime(self._setting.local, outcome, self._known, self._silences))


def _with(known: Bounds, silence: Duration, *, survived: bool) -> Bounds:
    """Return what is known after one more silence."""
    if not survived:
        return Bounds(known.at_least, silence)
    # Whoever slept through a silence that is said to be too long has refuted that.
    return Bounds(silence, None if known.at_most is not None and known.at_most <= silence else known.at_most)


def _checked(setting: Setting) -> Setting:
    """Return the setting with its server as a socket would name it."""
    try:
        server = Address(str(ip_address(setting.server.host)), setting.server.port)
    except ValueError:
        raise LocalError("a STUN server is asked at an IP address") from None
    if setting.local == setting.second:
        raise LocalError("one socket cannot be silent and ask at the same time")
    if not 0 < setting.shortest < setting.longest or setting.resolution < MILLISECOND or setting.silences_max < 1:
        raise LocalError("such bounds leave nothing to search for")
    return Setting(
        setting.local,
        setting.second,
        server,
        setting.shortest,
        setting.longest,
        setting.resolution,
        setting.silences_max,
        setting.total_max,
    )
