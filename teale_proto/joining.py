"""How a stranger on the LAN joins: between the handshake, which tells who it is, and the greeting.

Whoever has a passcode offers it when it dials. The other side goes along if it has one too, says with an empty
share that it has none, or, where it wants one and is greeted without, closes. Each side's own rule decides:
two nodes with different rules talk if both are content. The steps of the exchange itself are told in
`secure.passcode`.

An attempt is charged (see `door`) before anything is computed for it, and whatever ends it but the right
passcode leaves the charge: a wrong proof, a connection that breaks, silence. A dialler has to prove itself first
and learns nothing before; one that we dial has our proof and could try one guess on it, so that we charge
it in the same way.
"""

from enum import Enum
from typing import Final, TypeAlias

from teale_proto.contract import SECOND, Instant, Sink
from teale_proto.door import Door
from teale_proto.effects import Path
from teale_proto.errors import PeerError
from teale_proto.inputs import NodeId
from teale_proto.rng import Rng
from teale_proto.secure.passcode import PasscodeExchange
from teale_proto.wire.cluster import ClusterMessage, PasscodeConfirm, PasscodeStart

PasscodeMessage: TypeAlias = PasscodeStart | PasscodeConfirm
Messages: TypeAlias = Sink[ClusterMessage]

NO_SHARE: Final = PasscodeStart("")
"""I have no passcode."""


class Unwelcome(PeerError):
    """The other side may not join; `told` is what it is told of that, `reason` what we note."""

    def __init__(self, reason: str, told: str) -> None:
        super().__init__(reason)
        self.told = told


class Stage(Enum):
    """How far an exchange has come."""

    NOT_BEGUN = "not begun"
    OFFERED = "offered"
    """A dialler's share is out."""
    SHARED = "shared"
    """Both shares are known; the other side's proof is awaited, and the attempt is charged."""
    PASSED = "passed"
    DECLINED = "declined"
    """One side has no passcode, and the other one does not insist."""


class Joining:
    """One conversation on the LAN, from the handshake to the greeting."""

    __slots__ = ("_dialler", "_door", "_exchange", "_handshake_hash", "_host", "_own", "_peer", "_rng", "stage")

    def __init__(
        self,
        door: Door,
        *,
        dialler: bool,
        own: NodeId,
        peer: NodeId,
        host: str,
        handshake_hash: bytes,
        rng: Rng,
    ) -> None:
        self._door = door
        self._dialler = dialler
        self._own = own
        self._peer = peer
        self._host = host
        self._handshake_hash = handshake_hash
        self._rng = rng
        self._exchange: PasscodeExchange | None = None
        self.stage = Stage.NOT_BEGUN

    @property
    def may_greet(self) -> bool:
        """Whether a dialler has done what there was to do before its greeting."""
        return self.stage in (Stage.PASSED, Stage.DECLINED)

    def begin(self, now: Instant, messages: Messages) -> None:
        """Offer the passcode to the node that we dialled, if we have one. Raises Unwelcome while the door is closed."""
        if self._door.passcode is None:
            self.stage = Stage.DECLINED
            return
        self._require_open(now)
        self.stage = Stage.OFFERED
        messages.append(PasscodeStart(self._begun_exchange().share.hex()))

    def take(self, message: PasscodeMessage, now: Instant, messages: Messages) -> None:
        """Take the next step. Raises Unwelcome for a wrong passcode, and PeerError for what makes no sense."""
        if isinstance(message, PasscodeStart):
            if self.stage is not (Stage.OFFERED if self._dialler else Stage.NOT_BEGUN):
                raise PeerError("a passcode message out of turn")
            if self._dialler:
                self._take_answer(message, now, messages)
            else:
                self._take_offer(message, now, messages)
        else:
            self._take_proof(message, messages)

    def check_greeting(self) -> None:
        """Raise Unwelcome where a dialler greets us without the passcode that we want."""
        if self.stage is Stage.SHARED:
            raise PeerError("a greeting in the middle of the passcode exchange")
        if self.stage is not Stage.PASSED and self._door.wants_passcode(Path.LAN):
            raise Unwelcome(
                "it offers no LAN passcode, and lan_join is passcode here", "this node asks for the LAN passcode"
            )

    def break_off(self) -> None:
        """Take the charge back: the conversation ends for a reason of our own."""
        if self.stage is Stage.SHARED:
            self._door.take_back(self._peer, self._host)

    def _take_offer(self, message: PasscodeStart, now: Instant, messages: Messages) -> None:
        if self._door.passcode is None or not message.share:
            self.stage = Stage.DECLINED
            messages.append(NO_SHARE)
            return
        self._charge(now)
        exchange = self._begun_exchange()
        exchange.take_share(bytes.fromhex(message.share))
        messages.append(PasscodeStart(exchange.share.hex()))

    def _take_answer(self, message: PasscodeStart, now: Instant, messages: Messages) -> None:
        if not message.share:
            if self._door.wants_passcode(Path.LAN):
                raise Unwelcome(
                    "it has no LAN passcode, and lan_join is passcode here", "this node asks for the LAN passcode"
                )
            self.stage = Stage.DECLINED
            return
        assert self._exchange is not None
        self._charge(now)
        self._exchange.take_share(bytes.fromhex(message.share))
        messages.append(PasscodeConfirm(self._exchange.proof().hex()))

    def _take_proof(self, message: PasscodeConfirm, messages: Messages) -> None:
        if self.stage is not Stage.SHARED:
            raise PeerError("a passcode message out of turn")
        assert self._exchange is not None
        if not self._exchange.is_proof(bytes.fromhex(message.proof)):
            raise Unwelcome("it used a wrong LAN passcode", "wrong LAN passcode")
        self.stage = Stage.PASSED
        self._door.passed(self._peer, self._host)
        if not self._dialler:
            messages.append(PasscodeConfirm(self._exchange.proof().hex()))

    def _begun_exchange(self) -> PasscodeExchange:
        assert self._door.passcode is not None
        self._exchange = PasscodeExchange(
            self._door.passcode,
            dialler=self._dialler,
            own=self._own,
            peer=self._peer,
            handshake_hash=self._handshake_hash,
            rng=self._rng,
        )
        return self._exchange

    def _charge(self, now: Instant) -> None:
        self._require_open(now)
        self._door.charge(self._peer, self._host, now)
        self.stage = Stage.SHARED

    def _require_open(self, now: Instant) -> None:
        closed_for = self._door.closed_for(self._peer, self._host, now)
        if closed_for:
            seconds = -(-closed_for // SECOND)
            raise Unwelcome(
                f"too many wrong LAN passcodes from its node or address; the door is closed for {seconds} s more",
                f"too many wrong LAN passcodes; try again in {seconds} s",
            )
