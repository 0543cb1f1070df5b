"""A relay against a model of what it should know: any course of events, and both agree on it."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from teale_proto.contract import SECOND
from teale_proto.inputs import WAKE
from teale_proto.relay.server import RelayServerConfig
from teale_proto.wire.relay import Error, RegisterAck, RelayClose, RelayData, RelayOpen, RelayReady
from tests.proto.relay.relays import HOST, RawNode, Relay, identity, registration

NODES = [identity(number) for number in range(40, 44)]
SESSIONS = ["s1", "s2", "s3"]

node_numbers = st.integers(0, len(NODES) - 1)
session_ids = st.sampled_from(SESSIONS)


class ModelSession:
    def __init__(self, initiator: RawNode, target: RawNode, now: int) -> None:
        self.initiator, self.target, self.is_open, self.heard_at = initiator, target, False, now

    def is_between(self, one: RawNode, other: RawNode) -> bool:
        return (one, other) in ((self.initiator, self.target), (self.target, self.initiator))

    def ends_at(self) -> int:
        return self.heard_at + (120 if self.is_open else 15) * SECOND


class RelayModel(RuleBasedStateMachine):
    """What is registered and which sessions exist, kept twice."""

    connections: Bundle[RawNode] = Bundle("connections")

    def __init__(self) -> None:
        super().__init__()
        self.relay = Relay(RelayServerConfig(names=(HOST,), silence=10**9 * SECOND, ttl=10**9 * SECOND))
        self.strangers: dict[RawNode, int] = {}
        self.registered: dict[str, RawNode] = {}
        self.sessions: dict[str, ModelSession] = {}

    # What happens.

    @rule(target=connections, number=node_numbers)
    def connect(self, number: int) -> RawNode:
        return self.connected(number)

    def connected(self, number: int) -> RawNode:
        node = RawNode(self.relay, NODES[number])
        self.strangers[node] = self.relay.now
        return node

    @rule(target=connections, number=node_numbers)
    def connect_and_register(self, number: int) -> RawNode:
        node = self.connected(number)
        self.register(node, honest=True)
        return node

    @rule(node=connections, honest=st.booleans())
    def register(self, node: RawNode, honest: bool) -> None:
        if node.closed is not None:
            return
        node.say(registration(node.identity))
        if node not in self.strangers:
            assert isinstance(node.last, RegisterAck)
            return
        if not honest:
            node.prove(node.last.challenge, signature="00" * 64)
            assert node.closed is not None
            del self.strangers[node]
            return
        node.prove(node.last.challenge)
        assert isinstance(node.last, RegisterAck)
        former = self.registered.get(node.id)
        if former is not None:
            assert former.closed is not None
            self.gone(former)
        del self.strangers[node]
        self.registered[node.id] = node

    @rule(node=consumes(connections))
    def hang_up(self, node: RawNode) -> None:
        if node.closed is None:
            node.hang_up()
            node.closed = "hung up"
            if node in self.strangers:
                del self.strangers[node]
            else:
                self.gone(node)

    @rule(node=connections, number=node_numbers, session=session_ids)
    def open(self, node: RawNode, number: int, session: str) -> None:
        peer = self.registered.get(NODES[number].node_id)
        former = self.sessions.get(session)
        answer, passed = self.say(node, RelayOpen(node.id, NODES[number].node_id, session), peer)
        if not self.is_registered(node):
            assert passed is None
        elif peer is node:
            assert answer is not None
            assert answer.code == "invalid_message"
        elif peer is None:
            assert answer is not None
            assert answer.code == "peer_not_found"
        elif former is not None and (former.initiator, former.target) != (node, peer):
            assert answer is not None
            assert answer.code == "session_refused"
        else:
            assert passed == RelayOpen(node.id, peer.id, session)
            self.sessions[session] = ModelSession(node, peer, self.relay.now)

    @rule(node=connections, number=node_numbers, session=session_ids)
    def take_up(self, node: RawNode, number: int, session: str) -> None:
        peer = self.registered.get(NODES[number].node_id)
        known = self.between(node, peer, session)
        _, passed = self.say(node, RelayReady(node.id, NODES[number].node_id, session), peer)
        if known is not None and known.target is node and not known.is_open:
            assert passed == RelayReady(node.id, NODES[number].node_id, session)
            known.is_open = True
            known.heard_at = self.relay.now
        else:
            assert passed is None

    @rule(node=connections, number=node_numbers, session=session_ids, data=st.binary(max_size=4))
    def send(self, node: RawNode, number: int, session: str, data: bytes) -> None:
        peer = self.registered.get(NODES[number].node_id)
        known = self.between(node, peer, session)
        _, passed = self.say(node, RelayData(node.id, NODES[number].node_id, session, data), peer)
        if known is not None and known.is_open:
            assert passed == RelayData(node.id, NODES[number].node_id, session, data)
            known.heard_at = self.relay.now
        else:
            assert passed is None

    @rule(node=connections, number=node_numbers, session=session_ids)
    def close(self, node: RawNode, number: int, session: str) -> None:
        peer = self.registered.get(NODES[number].node_id)
        known = self.between(node, peer, session)
        _, passed = self.say(node, RelayClose(node.id, NODES[number].node_id, session), peer)
        if known is None:
            assert passed is None
        else:
            assert passed == RelayClose(node.id, NODES[number].node_id, session)
            del self.sessions[session]

    @rule(node=connections, sender=node_numbers, number=node_numbers, session=session_ids)
    def forge(self, node: RawNode, sender: int, number: int, session: str) -> None:
        forged = NODES[sender].node_id
        if forged != node.id:
            peer = self.registered.get(NODES[number].node_id)
            answer, passed = self.say(node, RelayData(forged, NODES[number].node_id, session, b"forged"), peer)
            assert passed is None
            assert node.closed is not None or answer is not None

    @rule(seconds=st.sampled_from([1, 5, 15, 119, 120]))
    def wait(self, seconds: int) -> None:
        self.relay.advance(seconds * SECOND)
        now = self.relay.now
        self.strangers = {node: since for node, since in self.strangers.items() if since + 10 * SECOND > now}
        self.sessions = {key: session for key, session in self.sessions.items() if session.ends_at() > now}

    # What must be true.

    @invariant()
    def both_know_the_same(self) -> None:
        server = self.relay.server
        assert [listing.node_id for listing in server.listings()] == [node[:16] for node in self.registered]
        assert server.metrics(self.relay.now).sessions == len(self.sessions)
        assert set(server._strangers) == {node.connection for node in self.strangers}
        for node in (*self.registered.values(), *self.strangers):
            assert node.closed is None

    @invariant()
    def a_spurious_wake_does_nothing(self) -> None:
        deadline = self.relay.server.deadline
        assert deadline > self.relay.now
        assert self.relay.feed(WAKE) == []
        assert self.relay.server.deadline == deadline

    # The model's own machinery.

    def is_registered(self, node: RawNode) -> bool:
        return self.registered.get(node.id) is node

    def between(self, node: RawNode, peer: RawNode | None, session: str) -> ModelSession | None:
        known = self.sessions.get(session)
        if known is None or peer is None or not self.is_registered(node) or not known.is_between(node, peer):
            return None
        return known

    def say(self, node: RawNode, message: Any, peer: RawNode | None) -> tuple[Error | None, Any]:
        """Let a node speak; return the relay's complaint and what reached the peer."""
        heard = 0 if peer is None else len(peer.inbox)
        answered = len(node.inbox)
        was_open = node.closed is None
        node.say(message)
        if was_open and node.closed is not None:
            # Too many offences.
            assert isinstance(node.last, Error)
            if self.strangers.pop(node, None) is None:
                self.gone(node)
            return None, None
        answer = next((item for item in node.inbox[answered:] if isinstance(item, Error)), None)
        passed = [] if peer is None else [item for item in peer.inbox[heard:] if not isinstance(item, Error)]
        assert len(passed) <= 1
        return answer, passed[0] if passed else None

    def gone(self, node: RawNode) -> None:
        if self.is_registered(node):
            del self.registered[node.id]
        for key, session in list(self.sessions.items()):
            if node in (session.initiator, session.target):
                other = session.target if session.initiator is node else session.initiator
                assert RelayClose(node.id, other.id, key) in other.inbox
                del self.sessions[key]


TestRelayModel = RelayModel.TestCase
TestRelayModel.settings = settings(derandomize=True, deadline=None, max_examples=60, stateful_step_count=40)
