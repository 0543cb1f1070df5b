"""What goes into a punch and comes out of it, and what two punches tell each other through the relay."""

from ipaddress import ip_address
from typing import Final, TypeAlias

from teale_proto.contract import Duration, Value
from teale_proto.effects import CloseSockets, OpenSockets, SendDatagram
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, DatagramReceived, SocketsOpened, Woken
from teale_proto.nat.probe import TOKEN_BYTES
from teale_proto.nat.strategy import CandidateKind, Plan, Side

ATTEMPTS_MAX: Final = 3
CANDIDATES_MAX: Final = 8
PORTS_FORETOLD: Final = 8

# Signals: they travel inside the peers' encrypted session over the relay, which loses and reorders nothing.


class Candidate(Value):
    """One address at which a peer may be reached."""

    kind: CandidateKind
    address: Address


class Propose(Value, tag="propose"):
    """The initiator wants to try; `ports` are those that its NAT should give it next."""

    attempt: int
    side: Side
    candidates: tuple[Candidate, ...]
    ports: tuple[int, ...] = ()


class Accept(Value, tag="accept"):
    """The responder's half of a proposal."""

    attempt: int
    side: Side
    candidates: tuple[Candidate, ...]
    ports: tuple[int, ...] = ()


class Begin(Value, tag="begin"):
    """The sync message: the responder begins when it gets this, the initiator half a round trip after sending it."""

    attempt: int
    round_trip: Duration


class Opened(Value, tag="opened"):
    """The initiator has settled on the pair of endpoints that the responder's `token` belongs to."""

    token: bytes


Signal: TypeAlias = Propose | Accept | Begin | Opened


def checked(signal: Signal) -> Signal:
    """Return a signal that keeps its bounds; raises PeerError for any other."""
    if isinstance(signal, Opened):
        if len(signal.token) != TOKEN_BYTES:
            raise PeerError("token of a wrong length")
        return signal
    if not 1 <= signal.attempt <= ATTEMPTS_MAX:
        raise PeerError("no such attempt")
    if isinstance(signal, Propose | Accept):
        if len(signal.candidates) > CANDIDATES_MAX:
            raise PeerError("too many candidates")
        if len(signal.ports) > PORTS_FORETOLD or not all(0 < port < 0x10000 for port in signal.ports):
            raise PeerError("foretold ports out of range")
    return signal


_BROADCAST: Final = ip_address("255.255.255.255")


def is_usable(address: Address) -> bool:
    """Return whether a peer may have us send there at all."""
    try:
        host = ip_address(address.host)
    except ValueError:
        return False
    nowhere = host.is_multicast or host.is_unspecified or host.is_loopback or host == _BROADCAST
    return not nowhere and 0 < address.port < 0x10000


# Inputs.


class PunchStarted(Value):
    """The relayed session is up and our side is known; only for the initiator, and once."""


class SignalReceived(Value):
    """The peer said something through the relay."""

    signal: Signal
    vouched: str | None = None
    """From which address the relay sees the peer come; nothing in bulk is sent to any other."""


class PeerVouched(Value):
    """The relay sees the peer come from this address, and nobody else of its name."""

    host: str


class PunchCancelled(Value):
    """Nobody needs the path any more."""


PunchInput: TypeAlias = (
    Woken | PunchStarted | SignalReceived | PeerVouched | SocketsOpened | DatagramReceived | PunchCancelled
)

# Effects.


class SendSignal(Value):
    """Tell the peer through the relay."""

    signal: Signal


class ReportOpened(Value):
    """The peers reach each other directly between `local` and `remote`; whatever else was opened is closed."""

    local: Address
    remote: Address
    plan: Plan
    attempt: int


class ReportRelayed(Value):
    """There is no direct path, for the reason that the plan tells; one may still open by itself later."""

    plan: Plan | None
    """None where the peer never told what it is behind."""
    attempts: int
    """How many were made."""


PunchEffect: TypeAlias = SendDatagram | SendSignal | OpenSockets | CloseSockets | ReportOpened | ReportRelayed
