"""Whose connection is whose: what one host dialled, put together with what another accepted.

A trace names connections by numbers that mean something to one host only. Which two belong together follows from the
address that was dialled, from who came from where, and on a relay from who registered; between several that fit, the
one that dialled first.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from simulator.results.model import HostInfo
from simulator.results.traces import Line
from simulator.view import lines
from teale_proto.errors import PeerError
from teale_proto.wire.binary import decode_binary, is_binary

_SESSION: Final = re.compile(rb'"sessionI[dD]"\s*:\s*"([^"\\]{1,200})"')
_KIND: Final = re.compile(rb'\A\s*\{\s*"type"\s*:\s*"([A-Za-z]{1,40})"')
_NODE: Final = re.compile(rb'"nodeI[dD]"\s*:\s*"([0-9a-f]{64})"')
_REGISTER: Final = b"register"
_LATEST: Final = 64
"""Of so many connections, the one that is looked for is among the latest."""


class RelayMessage(NamedTuple):
    """What can be seen of a message between a node and a relay."""

    kind: str
    session: str
    """"" where it is about none."""


def relay_message(data: bytes) -> RelayMessage:
    """Return what a WebSocket message is, without reading more of it than its head."""
    if is_binary(data):
        try:
            return RelayMessage("relayData", decode_binary(data).session_id)
        except PeerError:
            return RelayMessage("malformed", "")
    kind, session = _KIND.search(data), _SESSION.search(data[:2000])
    return RelayMessage(kind[1].decode() if kind else "message", session[1].decode(errors="replace") if session else "")


class Ends(NamedTuple):
    """What came out: who is at the other end of each connection."""

    nodes: dict[str, str]
    """The host of each node id."""
    dialled: tuple[str, ...]
    """The host that each Connect of the trace, in order, was meant for; "" where that is not known."""
    is_relayed: tuple[bool, ...]
    """Whether that Connect was to a relay, for whole messages."""
    accepted: tuple[int, ...]
    """Which Connect each ConnectionAccepted, in order, came from; -1 where that is not known."""
    sessions: dict[str, frozenset[str]]
    """The hosts, other than relays, that were seen to speak in each session through a relay."""


class _Dialled:
    """One Connect."""

    __slots__ = ("connection", "host", "is_over", "is_taken", "target")

    def __init__(self, host: str, opened: lines.Opened) -> None:
        self.host = host
        self.connection = opened.connection
        self.target = opened.target
        self.is_taken = False
        self.is_over = False


class EndsSurvey:
    """Looks at every line of a trace; `ends` then says what is known."""

    def __init__(self, hosts: Iterable[HostInfo]) -> None:
        self._segments: dict[str, frozenset[str]] = {}
        self._at: dict[str, list[str]] = defaultdict(list)
        for host in hosts:
            self._segments[host.name] = frozenset(place.segment for place in host.places)
            for place in host.places:
                self._at[place.address].append(host.name)
        self._nodes: dict[str, str] = {}
        self._dialled: list[_Dialled] = []
        self._of: dict[str, list[int]] = defaultdict(list)
        """By host, its Connects."""
        self._pending: dict[str, list[int]] = defaultdict(list)
        """By host that is meant, the Connects that nobody accepted yet."""
        self._unmet: list[int] = []
        """Those to a node whose host is not known yet."""
        self._open: dict[tuple[str, int], int] = {}
        self._accepted: list[int] = []
        self._silent: dict[tuple[str, int], int] = {}
        """What was accepted and said nothing yet, as a place in `_accepted`."""
        self._outside: dict[str, set[str]] = defaultdict(set)
        self._from: dict[int, str] = {}
        self._sessions: dict[str, set[str]] = defaultdict(set)

    def observe(self, line: Line) -> None:
        """Take note of a line."""
        value = line.value
        if isinstance(value, lines.Opened):
            self._connect(line.host, value)
        elif isinstance(value, lines.Accepted):
            self._accept(line.host, value)
        elif isinstance(value, lines.Data):
            self._said(line, value.connection, (value.data,))
        elif isinstance(value, lines.Several):
            self._said(line, value.connection, value.messages)
        elif isinstance(value, lines.Advertised) and value.record.node:
            self._nodes[value.record.node] = line.host
        elif line.kind == "ConnectFailed" or line.kind in {"ConnectionClosed", "CloseConnection"}:
            self._end(line.host, value.connection)
        elif line.kind in {"HostCrashed", "HostStopped"}:
            for key in [key for key in self._open if key[0] == line.host]:
                self._end(*key)

    def named(self, node: str, host: str) -> None:
        """Take note of a node's host that is known from elsewhere."""
        self._nodes.setdefault(node, host)

    def ends(self) -> Ends:
        """Return what is known after the last line."""
        return Ends(
            self._nodes,
            tuple(self._meant(each) for each in self._dialled),
            tuple("url" in each.target for each in self._dialled),
            tuple(self._accepted),
            {session: frozenset(hosts) for session, hosts in self._sessions.items()},
        )

    def _connect(self, host: str, opened: lines.Opened) -> None:
        dialled = _Dialled(host, opened)
        number = len(self._dialled)
        self._dialled.append(dialled)
        self._of[host].append(number)
        self._open[host, opened.connection] = number
        if "url" in opened.target:
            node = parse_qs(urlsplit(str(opened.target["url"])).query).get("node", [""])[0]
            if node:
                self._nodes[node] = host
        meant = self._meant(dialled)
        if meant:
            self._pending[meant].append(number)
        else:
            self._unmet.append(number)

    def _meant(self, dialled: _Dialled) -> str:
        target = dialled.target
        if "url" in target:
            return self._known(urlsplit(str(target["url"])).hostname or "", dialled.host)
        if "node" in target:
            return self._nodes.get(str(target["node"]), "")
        return self._known(str(target.get("host", "")), dialled.host)

    def _known(self, address: str, near: str) -> str:
        """Return the host of a name or an address; private addresses are those of the neighbours of `near`."""
        if address in self._segments:
            return address
        there = self._at.get(address, [])
        mine = self._segments.get(near, frozenset())
        return next((host for host in there if self._segments[host] & mine), there[0] if len(there) == 1 else "")

    def _accept(self, host: str, accepted: lines.Accepted) -> None:
        for number in self._unmet:
            meant = self._meant(self._dialled[number])
            if meant:
                self._pending[meant].append(number)
        self._unmet = [number for number in self._unmet if not self._meant(self._dialled[number])]
        pending = self._pending[host] = [
            each for each in self._pending[host] if not (self._dialled[each].is_taken or self._dialled[each].is_over)
        ]
        remote = accepted.remote.host
        place = len(self._accepted)
        best = max(pending, key=lambda each: self._fits(self._dialled[each].host, remote), default=-1)
        self._take(place, best, remote)
        self._silent[host, accepted.connection] = place

    def _fits(self, host: str, remote: str) -> int:
        """Return how well a host fits what came from an address; of equals, the first is taken."""
        return 2 * (host in self._at.get(remote, ())) + (remote in self._outside[host])

    def _take(self, place: int, number: int, remote: str) -> None:
        self._accepted.append(number)
        self._from[place] = remote
        if number >= 0:
            self._dialled[number].is_taken = True

    def _said(self, line: Line, connection: int, messages: tuple[bytes, ...]) -> None:
        key = (line.host, connection)
        if line.kind in {"DataReceived", "MessagesReceived"}:
            place = self._silent.pop(key, None)
            if place is not None:
                self._registered(line.host, place, messages[0] if messages else b"")
        number = self._open.get(key)
        if number is None or "url" not in self._dialled[number].target:
            return
        for data in messages:
            session = relay_message(data).session
            if session:
                self._sessions[session].add(line.host)

    def _registered(self, relay: str, place: int, data: bytes) -> None:
        """Put right who is at the other end, now that he has said who he is."""
        kind, node = _KIND.search(data), _NODE.search(data)
        host = self._nodes.get(node[1].decode()) if kind and node and kind[1] == _REGISTER else None
        if host is None:
            return
        former = self._accepted[place]
        if former < 0 or self._dialled[former].host != host:
            self._accepted[place] = self._mine(relay, host)
            for other in self._silent.values():
                # Who else was taken for him has not said anything yet: he gets what this one was taken for.
                if other != place and self._accepted[other] == self._accepted[place]:
                    self._accepted[other] = former
            if former >= 0 and former not in self._accepted[-_LATEST:]:
                self._dialled[former].is_taken = False
                self._pending[relay].insert(0, former)
        if self._accepted[place] >= 0:
            self._dialled[self._accepted[place]].is_taken = True
            self._outside[host].add(self._from[place])

    def _mine(self, relay: str, host: str) -> int:
        """Return a host's latest Connect to a relay, one that is not over where there is one; -1 for none."""
        mine = [each for each in reversed(self._of[host][-_LATEST:]) if self._meant(self._dialled[each]) == relay]
        return next((each for each in mine if not self._dialled[each].is_over), mine[0] if mine else -1)

    def _end(self, host: str, connection: int) -> None:
        self._silent.pop((host, connection), None)
        number = self._open.pop((host, connection), None)
        if number is not None:
            self._dialled[number].is_over = True
