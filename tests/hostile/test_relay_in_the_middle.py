"""A relay that does anything, in any order, against a reference: what was really asked and really answered.

Whatever it drops, doubles, reorders, alters, replays, forges or invents: a node works on nothing that its asker did
not ask, an asker hears nothing that its server did not say, in the order in which it was said; every request ends
at most once and in time; nothing readable passes; nothing grows without bound.
"""

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from teale_proto.contract import SECOND
from teale_proto.effects import ReportChunk, ReportFailed, ReportFinished, SendText, StartGeneration
from teale_proto.inputs import Ask, NodeId, Task
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Capabilities,
    DiscoverResponse,
    Error,
    Hardware,
    PeerListing,
    RegisterAck,
    RegisterChallenge,
    RelayClose,
    RelayData,
    RelayOpen,
    RelayReady,
)
from tests.hostile.puppets import MARK, Do, EvilRelay, is_bounded, question, stranger
from tests.proto.world import RELAY_URL, World, chunk, identity

RELAY = "relay.test"
NODES = {"a": "", "b": "m", "c": "m"}
IDS = {name: identity(number).node_id for number, name in enumerate(NODES, 1)}
ASK_SECONDS = 40
names = st.sampled_from(sorted(NODES))
node_ids = st.sampled_from([*IDS.values(), stranger(1).node_id, stranger(2).node_id])
places = st.integers(0, 1000)


class RelayInTheMiddle(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.relay = EvilRelay()
        self.relay.holds = True
        self.world = World()
        self.world.add(RELAY, self.relay)
        for number, (name, model) in enumerate(NODES.items(), 1):
            models = (model,) if model else ()
            self.world.add_node(
                name, number, models=models, lan_enabled=False, wan_enabled=True, wan_relay_url=RELAY_URL
            )
        self.world.start(*NODES)
        self.past: list[SendText] = []
        self.asked: dict[str, tuple[str, bytes, int]] = {}
        """Every request: who asked, what, and when its time is up."""
        self.said: dict[bytes, list[list[bytes]]] = {}
        """What was answered to each body, by every generation of it."""
        self.answered: set[tuple[str, int]] = set()

    # Honest life.

    @initialize(seconds=st.sampled_from([0, 20, 45, 60]))
    def meet(self, seconds: int) -> None:
        """Let the nodes have met, or be about to; without this little would ever happen."""
        for _ in range(seconds // 5):
            self.world.run_for(5 * SECOND)
            self.deliver_all()

    @rule(name=st.sampled_from("aaab"))
    def ask(self, name: str) -> None:
        number = len(self.asked)
        request = f"r{number}"
        self.asked[request] = (name, question(number), self.world.now + ASK_SECONDS * SECOND)
        self.world.feed(name, Ask(request, Task.CHAT, "m", question(number), timeout=ASK_SECONDS * SECOND))

    @rule()
    def answer(self) -> None:
        for name, generation in self._waiting():
            self.answered.add((name, generation.job))
            pieces = [f"{MARK} {name} {generation.job} {piece}" for piece in range(3)]
            self.said.setdefault(generation.body, []).append([chunk(piece) for piece in pieces])
            self.world.answer(name, generation, *pieces)

    def _waiting(self) -> list[tuple[str, StartGeneration]]:
        generations = ((name, each) for name in NODES for each in self.world.generations[name])
        return [(name, each) for name, each in generations if (name, each.job) not in self.answered]

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds: int) -> None:
        self.world.run_for(seconds * SECOND)

    @rule(count=st.integers(1, 12))
    def deliver(self, count: int) -> None:
        for _ in range(min(count, len(self.relay.mail))):
            self._send(self.relay.mail.pop(0))

    @rule()
    def deliver_all(self) -> None:
        """Do for once what an honest relay would."""
        while self.relay.mail:
            self._send(self.relay.mail.pop(0))

    @rule(name=st.sampled_from("aaab"), before=st.integers(0, 12), after=st.integers(0, 12))
    def converse(self, name: str, before: int, after: int) -> None:
        """Ask and answer, while the operator has let so many messages through, or all of them."""
        self.ask(name)
        for count in (before, after):
            self.deliver(count or len(self.relay.mail))
            self.answer()
        self.deliver_all()

    # The other kind.

    def _send(self, effect: SendText) -> None:
        self.past = [*self.past[-200:], effect]
        self.world.feed(RELAY, Do((effect,)))

    @precondition(lambda self: self.relay.mail)
    @rule(place=places)
    def drop(self, place: int) -> None:
        del self.relay.mail[place % len(self.relay.mail)]

    @precondition(lambda self: len(self.relay.mail) > 1)
    @rule(place=places)
    def overtake(self, place: int) -> None:
        self._send(self.relay.mail.pop(place % len(self.relay.mail)))

    @precondition(lambda self: self.past)
    @rule(place=places)
    def replay(self, place: int) -> None:
        self._send(self.past[place % len(self.past)])

    @precondition(lambda self: self.past)
    @rule(place=places, count=st.integers(1, 20))
    def replay_many(self, place: int, count: int) -> None:
        start = place % len(self.past)
        for effect in self.past[start : start + count]:
            self._send(effect)

    @precondition(lambda self: self.relay.mail)
    @rule(place=places, bit=st.integers(0, 10_000))
    def alter(self, place: int, bit: int) -> None:
        effect = self.relay.mail.pop(place % len(self.relay.mail))
        message, _ = RELAY_CODEC.decode(effect.data)
        if isinstance(message, RelayData) and message.data:
            data = bytearray(message.data)
            data[bit // 8 % len(data)] ^= 1 << bit % 8
            message = msgspec.structs.replace(message, data=bytes(data))
            effect = SendText(effect.connection, RELAY_CODEC.encode(message))
        self._send(effect)

    @precondition(lambda self: self.relay.mail)
    @rule(place=places, sender=node_ids, victim=names, field=st.sampled_from(["from_node_id", "session_id", "to"]))
    def forge(self, place: int, sender: NodeId, victim: str, field: str) -> None:
        """Send what one node sent as if it were another's, or in another session, or to somebody else."""
        effect = self.relay.mail[place % len(self.relay.mail)]
        message: Any = RELAY_CODEC.decode(effect.data)[0]
        other: Any = RELAY_CODEC.decode(self.relay.mail[-1].data)[0]
        changes: dict[str, Any] = {"from_node_id": sender}
        if field == "session_id":
            changes = {"session_id": other.session_id}
        elif field == "to":
            changes = {"to_node_id": IDS[victim]}
        forged = msgspec.structs.replace(message, **changes)
        if IDS[victim] in self.relay.wires:
            self.relay.say(self.world, RELAY, IDS[victim], forged)

    @rule(
        victim=names,
        sender=node_ids,
        session=st.sampled_from(["s", "t"]),
        kind=st.sampled_from([RelayOpen, RelayReady, RelayClose, RelayData, Error, RegisterAck, RegisterChallenge]),
        data=st.binary(max_size=60) | st.binary(max_size=60).map(b"\0TL1\x01".__add__),
        flavour=st.sampled_from(Flavour),
    )
    def invent(self, victim: str, sender: NodeId, session: str, kind: type[Any], data: bytes, flavour: Flavour) -> None:
        message: Any
        if kind is Error:
            message = Error("peer_not_found", "x", session_id=session)
        elif kind is RegisterAck:
            message = RegisterAck(IDS[victim], 0.0, 300)
        elif kind is RegisterChallenge:
            message = RegisterChallenge("00" * 32)
        else:
            more = (data,) if kind is RelayData else ()
            message = kind(sender, IDS[victim], session, *more)
        if IDS[victim] in self.relay.wires:
            self.relay.say_bytes(self.world, RELAY, IDS[victim], RELAY_CODEC.encode(message, flavour))

    @rule(victim=names, shown=st.lists(node_ids, max_size=4))
    def show(self, victim: str, shown: list[NodeId]) -> None:
        """Answer, asked or not, with peers of the operator's choice, all of whom offer the model."""
        offered = Capabilities(Hardware(tier=1), loaded_models=("m",))
        listing = tuple(PeerListing(node, node, "shown", offered, 0.0) for node in shown)
        if IDS[victim] in self.relay.wires:
            self.relay.say(self.world, RELAY, IDS[victim], DiscoverResponse(listing))

    @rule(victim=names, data=st.binary(max_size=80))
    def babble(self, victim: str, data: bytes) -> None:
        if IDS[victim] in self.relay.wires:
            self.relay.say_bytes(self.world, RELAY, IDS[victim], data)

    @rule(victim=names)
    def hang_up(self, victim: str) -> None:
        self.world.cut(victim)

    # What stays true.

    @invariant()
    def nothing_readable_passed(self) -> None:
        assert MARK.encode() not in self.relay.readable()

    @invariant()
    def nobody_works_on_what_was_not_asked(self) -> None:
        bodies = {body for _, body, _ in self.asked.values()}
        for name in NODES:
            worked_on = [generation.body for generation in self.world.generations[name]]
            assert bodies.issuperset(worked_on)
            # A node is asked a second time only by an attempt of its own, and never twice by one attempt.
            assert all(worked_on.count(body) == 1 for body in worked_on)
            for job in self.world.node(name)._exchange.serving:
                # A running job has given its body to the backend.
                started = {each.job: each.body for each in self.world.generations[name]}
                asker = next(who for who, body, _ in self.asked.values() if body == (job.body or started[job.job]))
                assert job.origin.asker == IDS[asker]

    @invariant()
    def nobody_hears_what_was_not_said(self) -> None:
        for name in NODES:
            heard: dict[str, list[bytes]] = {}
            for report in self.world.of(name, ReportChunk):
                heard.setdefault(report.request, []).append(report.chunk)
            for request, chunks in heard.items():
                assert self.asked[request][0] == name
                answers = self.said[self.asked[request][1]]
                assert any(answer[: len(chunks)] == chunks for answer in answers)
            for finished in self.world.of(name, ReportFinished):
                assert heard[finished.request] in self.said[self.asked[finished.request][1]]

    @invariant()
    def every_request_ends_once_and_in_time(self) -> None:
        for name in NODES:
            reports = [*self.world.of(name, ReportFinished), *self.world.of(name, ReportFailed)]
            ended = [report.request for report in reports]
            assert len(ended) == len(set(ended))
            for request, (who, _, due_at) in self.asked.items():
                assert who != name or request in ended or due_at > self.world.now

    @invariant()
    def nothing_grows(self) -> None:
        assert all(is_bounded(self.world, name) for name in NODES)


RelayInTheMiddle.TestCase.settings = settings(max_examples=60, stateful_step_count=40, derandomize=True, deadline=None)
TestRelayInTheMiddle = RelayInTheMiddle.TestCase
