"""Who may join: the rules for strangers, and the memory of those who guessed.

    open       anybody
    passcode   whoever has the passcode of this LAN
    paired     the nodes that the owner of this one has named

Every attempt at a passcode is charged, to the address that it came from and to the node that made it, before it
is computed; the charge is taken back when the passcode was right, or when we gave up for a reason of our own.
Five charges close the door to that address or node for a minute from the last of them. What is not full is
forgotten a minute after its last charge. Where all places of the table are taken, the door is closed to
whoever is not in it, so that many addresses gain an attacker no more than the table's size.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Final

from teale_proto.contract import SECOND, Duration, Instant
from teale_proto.effects import Path
from teale_proto.errors import LocalError
from teale_proto.inputs import NodeId
from teale_proto.secure.identity import Secret
from teale_proto.secure.passcode import Passcode

WRONG_MAX: Final = 5
CLOSED_FOR: Final[Duration] = 60 * SECOND
CHARGED_MAX: Final = 256
"""Addresses, and nodes, whose charges are remembered at once."""

PROVED_MAX: Final = 4096
"""Nodes that are remembered to be able to encrypt."""


class Join(Enum):
    """Whom a node lets join it."""

    OPEN = "open"
    PASSCODE = "passcode"
    PAIRED = "paired"


class Charges:
    """Attempts that have not been taken back, by whoever made them."""

    __slots__ = ("_charged",)

    def __init__(self) -> None:
        self._charged: dict[str, tuple[int, Instant]] = {}
        """How many, and when they are forgotten; in the order of that instant."""

    def __len__(self) -> int:
        return len(self._charged)

    def closed_until(self, who: str, now: Instant) -> Instant:
        """Return when `who` may try again; an instant that is not after `now` means that it may now."""
        count, until = self._charged.get(who, (0, 0))
        if count:
            return until if count >= WRONG_MAX else now
        self._forget(now)
        return now if len(self._charged) < CHARGED_MAX else next(iter(self._charged.values()))[1]

    def charge(self, who: str, now: Instant) -> None:
        """Note an attempt."""
        count, until = self._charged.pop(who, (0, 0))
        self._charged[who] = (count + 1 if until > now else 1, now + CLOSED_FOR)

    def take_back(self, who: str) -> None:
        """Undo one charge."""
        count, until = self._charged.get(who, (0, 0))
        if count > 1:
            self._charged[who] = (count - 1, until)
        else:
            self._charged.pop(who, None)

    def acquit(self, who: str) -> None:
        """Forget all charges."""
        self._charged.pop(who, None)

    def _forget(self, now: Instant) -> None:
        while self._charged and next(iter(self._charged.values()))[1] <= now:
            del self._charged[next(iter(self._charged))]


class Door(Secret):
    """The rules of one node, and what it remembers of those who came."""

    __slots__ = (
        "_addresses",
        "_nodes",
        "_plaintext_legacy",
        "_proved",
        "_trusted",
        "lan_join",
        "passcode",
        "wan_join",
    )

    def __init__(
        self,
        *,
        lan_join: Join = Join.OPEN,
        wan_join: Join = Join.OPEN,
        passcode: Passcode | None = None,
        trusted: Iterable[NodeId] = (),
        plaintext_legacy: bool = False,
    ) -> None:
        """Raise LocalError for rules that cannot be kept."""
        if lan_join is Join.PASSCODE and passcode is None:
            raise LocalError("lan_join is passcode, but no LAN passcode is set")
        if wan_join is Join.PASSCODE:
            raise LocalError("the passcode is for the LAN; through the relay nodes join by being paired, or all may")
        self.lan_join = lan_join
        self.wan_join = wan_join
        self.passcode = passcode
        """What is offered to the nodes that we dial, and asked of those that dial us."""
        self._trusted = frozenset(trusted)
        self._plaintext_legacy = plaintext_legacy
        self._addresses = Charges()
        self._nodes = Charges()
        self._proved: dict[NodeId, None] = {}

    def _join(self, path: Path) -> Join:
        return self.lan_join if path is Path.LAN else self.wan_join

    def wants_passcode(self, path: Path) -> bool:
        """Whether nobody joins over `path` without the passcode."""
        return self._join(path) is Join.PASSCODE

    def admits(self, path: Path, node: NodeId) -> bool:
        """Whether `node`, once it has proved its name, may go on to join over `path`."""
        return self._join(path) is not Join.PAIRED or node in self._trusted

    def check_wanted(self, node: NodeId, own: NodeId) -> None:
        """Raise LocalError where a node that somebody named is not to be talked to."""
        if node == own:
            raise LocalError("this is the node itself")
        if not self.admits(Path.DIRECT, node):
            raise LocalError("wan_join is paired, and that node is not among the trusted_nodes")

    # Guesses.

    def closed_for(self, node: NodeId, host: str, now: Instant) -> Duration:
        """Return how long the door stays closed to attempts of `node` from `host`; 0 when it is open."""
        until = max(self._nodes.closed_until(node, now), self._addresses.closed_until(host, now))
        return max(0, until - now)

    def charge(self, node: NodeId, host: str, now: Instant) -> None:
        """Note that an attempt begins."""
        self._nodes.charge(node, now)
        self._addresses.charge(host, now)

    def take_back(self, node: NodeId, host: str) -> None:
        """Note that the attempt was broken off by ourselves."""
        self._nodes.take_back(node)
        self._addresses.take_back(host)

    def passed(self, node: NodeId, host: str) -> None:
        """Note that the passcode was right; others at the same address gain nothing by it."""
        self._nodes.acquit(node)
        self._addresses.take_back(host)

    # Those who do not encrypt.

    def proved(self, node: NodeId) -> None:
        """Note that `node` has encrypted, so that whoever comes in its name without that is not believed."""
        if len(self._proved) < PROVED_MAX:
            self._proved[node] = None

    def has_proved(self, node: NodeId) -> bool:
        """Whether `node` may have encrypted before: of more nodes than can be remembered, all may."""
        return node in self._proved or len(self._proved) >= PROVED_MAX

    def admits_plaintext(self, path: Path, node: NodeId) -> bool:
        """Whether a deployed node that does not encrypt may talk through the relay; the LAN has its own switch."""
        return (
            path is Path.RELAY and self._plaintext_legacy and self.wan_join is Join.OPEN and not self.has_proved(node)
        )
