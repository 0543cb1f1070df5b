"""Nodes that find a way beside the relay: the core alone, over an internet without NATs and without time."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Raw

from teale_proto.contract import SECOND
from teale_proto.door import Join
from teale_proto.effects import (
    CloseSockets,
    Connect,
    DirectTarget,
    OpenSockets,
    Path,
    ReportFinished,
    ReportRefusal,
    SendDatagram,
)
from teale_proto.errors import LocalError
from teale_proto.exchange import SendMessage
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionOpened,
    DatagramReceived,
    DataReceived,
    NetworkChanged,
    NodeId,
    PeerWanted,
    SocketsOpened,
    StopRequested,
)
from teale_proto.nat.signals import SIGNAL_BYTES_MAX
from teale_proto.nat.stun_server import StunServer
from teale_proto.node_out import NodeOut
from teale_proto.wire.cluster import PathSignal
from tests.proto.world import World
from tests.proto.worlds import WAN, ask

PORT = 7475
PRIMARY, ALTERNATE = Address("192.0.2.1", 3478), Address("198.51.100.1", 3479)
STRANGER = NodeId("ab" * 32)


class OpenAir(World):
    """Nodes with public addresses, a relay, and a STUN server; what `blocked` names gets no datagrams."""

    def __init__(self, *names: str, serving: str = "", **config: Any) -> None:
        super().__init__()
        self.stun = StunServer(PRIMARY, ALTERNATE)
        self.blocked: set[str] = set()
        self.closed: list[CloseSockets] = []
        self.hosts = {name: f"203.0.113.{number}" for number, name in enumerate(names, 1)}
        self.add_relay()
        for number, name in enumerate(names, 1):
            self.add_node(name, number, models=("m",) if name in serving else (), **WAN, **config)
        self.start(*names)

    def network(self, *names: str, stun: tuple[Address, ...] = (PRIMARY,)) -> "OpenAir":
        """Tell nodes of their network, and let a minute pass."""
        for name in names:
            self.feed(name, NetworkChanged((Address(self.hosts[name], PORT),), stun))
        self.run_for(60 * SECOND)
        return self

    def way(self, name: str, other: str) -> tuple[Path, str]:
        """Return how a node reaches another one, and why."""
        [status] = [status for status in self.node(name).peers() if status.node_id == self.id(other)]
        return status.path, status.path_reason

    def _perform(self, name: str, effects: Sequence[Any]) -> None:
        others = []
        for effect in effects:
            match effect:
                case SendDatagram():
                    self._carry(name, effect)
                case OpenSockets():
                    ports = tuple(range(50_000, 50_000 + effect.count))
                    self._queue.append((name, SocketsOpened(effect.request, ports)))
                case CloseSockets():
                    self.closed.append(effect)
                case Connect(connection, DirectTarget() as target):
                    self._join(name, connection, target)
                case _:
                    others.append(effect)
        super()._perform(name, others)

    def _carry(self, name: str, sent: SendDatagram) -> None:
        if name in self.blocked or sent.hop_limit is not None:
            return
        if sent.remote in (PRIMARY, ALTERNATE):
            for answer in self.stun.handle(DatagramReceived(sent.remote, sent.local, sent.data), self.now):
                self._queue.append((name, DatagramReceived(answer.remote, answer.local, answer.data)))
            return
        for other, host in self.hosts.items():
            if host == sent.remote.host and other not in self.blocked:
                self._queue.append((other, DatagramReceived(sent.remote, sent.local, sent.data)))

    def _join(self, name: str, connection: int, target: DirectTarget) -> None:
        other = next((each for each, host in self.hosts.items() if host == target.remote.host), None)
        if other is None or other in self.blocked or self.id(other) != target.node:
            self._queue.append((name, ConnectFailed(connection, "timed out")))
            return
        accepted = self._accept_id(other)
        self._wires[name, connection] = (other, accepted)
        self._wires[other, accepted] = (name, connection)
        self._queue.append((other, ConnectionAccepted(accepted, target.local, target.remote, direct=True)))
        self._queue.append((other, DataReceived(accepted, target.opening)))
        self._queue.append((name, ConnectionOpened(connection)))


def test_two_that_the_relay_introduced_go_on_without_it_and_answer_each_other() -> None:
    world = OpenAir("a", "b", serving="b").network("a", "b")
    assert world.way("a", "b")[0] is world.way("b", "a")[0] is Path.DIRECT
    assert world.way("a", "b")[1].startswith("direct: ")
    assert world.node("a").status().nat_type == "public"
    assert world.node("a").status().direct_addresses == (Address(world.hosts["a"], PORT),)
    world.answering.add("b")
    world.feed("a", ask())
    [finished] = world.of("a", ReportFinished)
    assert finished.path is Path.DIRECT


def test_a_network_that_comes_after_the_peers_is_made_use_of() -> None:
    world = OpenAir("a", "b", serving="b")
    world.run_for(60 * SECOND)
    assert world.way("a", "b") == (Path.RELAY, "")
    world.network("a", "b")
    # The first proposal came to a node that had no network yet.
    world.run_for(60 * SECOND)
    assert world.way("a", "b")[0] is Path.DIRECT


@pytest.mark.parametrize("config", [{"wan_direct": False}, {"blocked": True}])
def test_where_udp_is_off_or_blocked_the_relay_carries_everything(config: dict[str, bool]) -> None:
    world = OpenAir("a", "b", serving="b", wan_direct=config.get("wan_direct", True))
    world.blocked.update("ab" if config.get("blocked") else "")
    world.network("a", "b")
    assert world.way("a", "b")[0] is Path.RELAY
    expected = "UDP blocked" if config.get("blocked") else "unknown"
    assert world.node("a").status().nat_type == expected


def test_a_direct_path_that_ends_is_opened_anew_while_the_relay_carries_on() -> None:
    world = OpenAir("a", "b", serving="b").network("a", "b")
    [direct] = [end for end in world._wires if end[0] == "a" and world._wires[end][0] == "b"]
    other = world._wires[direct]
    world.cut("a", between="b")
    assert other not in world._wires
    assert world.way("a", "b")[0] is Path.RELAY
    world.run_for(30 * SECOND)
    assert world.way("a", "b")[0] is Path.DIRECT


def test_a_node_that_somebody_named_is_dialled_at_its_addresses_until_one_answers() -> None:
    world = OpenAir("a", "b")  # neither has a model, so that the relay gives them no reason to meet
    world.network("a", "b", stun=())
    assert not world.node("a").peers()
    nowhere = Address("203.0.113.200", PORT)
    ipv6 = Address("2001:db8::1", PORT)
    world.feed("a", PeerWanted(world.id("b"), (nowhere, ipv6, Address(world.hosts["b"], PORT))))
    assert {status.path for status in world.node("a").peers()} >= {Path.DIRECT} or world.way("a", "b")
    world.run_for(SECOND)
    assert world.way("a", "b")[0] is Path.DIRECT


def test_a_named_node_that_is_nowhere_is_given_up() -> None:
    world = OpenAir("a").network("a")
    world.feed("a", PeerWanted(STRANGER, (Address("203.0.113.200", PORT),)))
    world.run_for(60 * SECOND)
    assert not world.node("a").peers()


def test_only_who_may_join_is_dialled_and_never_the_node_itself() -> None:
    world = OpenAir("a", wan_join=Join.PAIRED).network("a")
    for node, why in ((world.id("a"), "the node itself"), (STRANGER, "not among the trusted_nodes")):
        with pytest.raises(LocalError, match=why):
            world.feed("a", PeerWanted(node))
        world._busy = False
        world._queue.clear()


def test_a_peer_whose_signals_are_none_is_refused() -> None:
    world = OpenAir("a", "b", serving="b").network("a", "b")
    peer = world.node("b")._peers.get(world.id("a"))
    assert peer is not None
    handle = peer.conversations[Path.RELAY].handle
    node = world.node("b")
    out = NodeOut(node._peers, node._relay, node._connection_ids, world.now)
    signal = Raw(b'"' + b"x" * SIGNAL_BYTES_MAX + b'"')
    out.append(SendMessage(handle, PathSignal("00" * 8, signal)))
    world._perform("b", out.effects)
    world.run_for(30 * SECOND)
    assert "too long" in world.of("a", ReportRefusal)[-1].reason


def test_a_node_that_stops_stops_looking() -> None:
    world = OpenAir("a", "b", serving="b")
    world.feed("a", NetworkChanged((Address(world.hosts["a"], PORT),), (PRIMARY,)))
    world.feed("a", StopRequested())
    before = len(world.journals["a"])
    world.run_for(60 * SECOND)
    sent = [effect for _, _, effects in world.journals["a"][before:] for effect in effects]
    assert not [effect for effect in sent if isinstance(effect, SendDatagram)]
