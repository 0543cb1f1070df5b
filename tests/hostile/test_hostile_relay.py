"""What a relay that means harm can do to nodes that trust it with nothing, and what it cannot."""

from typing import Any

import pytest

from teale_proto.asking import PATIENCE
from teale_proto.contract import SECOND
from teale_proto.effects import (
    CloseConnection,
    Path,
    RelayState,
    ReportAttempt,
    ReportFailed,
    ReportFinished,
    ReportRefusal,
    SendText,
)
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, Ask, ConnectionAccepted, DataReceived, NodeId, Task
from teale_proto.link import Link
from teale_proto.wire.codec import Unknown
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Capabilities,
    DiscoverResponse,
    Hardware,
    PeerListing,
    RegisterChallenge,
    RegisterProof,
    RelayData,
    RelayMessage,
    RelayOpen,
    RelayReady,
)
from tests.hostile.puppets import MALLORY, MARK, Do, EvilRelay, is_bounded, question, stranger
from tests.proto.world import LAN_PORT, RELAY_URL, World, identity, make_relay

RELAY = "relay.test"
WAN: dict[str, Any] = {"lan_enabled": False, "wan_enabled": True, "wan_relay_url": RELAY_URL}
ANSWER = f"{MARK} answer"


def around(relay: EvilRelay, **nodes: str) -> World:
    """Return a world of nodes that know each other through `relay`; the letters name them, the value their models."""
    world = World()
    world.add(RELAY, relay)
    for number, (name, model) in enumerate(nodes.items(), 1):
        world.add_node(name, number, models=(model,) if model else (), **WAN)
    world.start(*nodes)
    world.run_for(60 * SECOND)
    return world


def ask(world: World, name: str = "a", request: str = "r", number: int = 1) -> None:
    world.feed(name, Ask(request, Task.CHAT, "m", question(number)))


def ask_and_answer(world: World, request: str = "r") -> None:
    ask(world, request=request)
    world.answer("b", world.generations["b"][-1], ANSWER)


def test_a_relay_that_reads_everything_learns_who_and_how_much_and_not_a_word() -> None:
    relay = EvilRelay()
    world = around(relay, a="", b="m")
    ask_and_answer(world)
    assert [report.path for report in world.of("a", ReportFinished)] == [Path.RELAY]
    assert MARK.encode() not in relay.readable()
    # The limits of that: who talks with whom, when, how often, and how much.
    said = [(message.from_node_id, message.to_node_id, len(message.data)) for message in relay.relayed()]
    assert {(one, other) for one, other, _ in said} == {
        (world.id("a"), world.id("b")),
        (world.id("b"), world.id("a")),
    }
    assert max(size for one, _, size in said if one == world.id("a")) > len(question(1))


@pytest.mark.parametrize("number", range(12))
def test_one_altered_bit_ends_the_conversation_and_nothing_false_arrives(number: int) -> None:
    """Of the first dozen data messages between two nodes, handshake and greeting among them, one is altered."""
    relay, count = EvilRelay(), iter(range(1000))

    def alter(effect: SendText, message: RelayMessage | Unknown) -> list[Any]:
        if not isinstance(message, RelayData) or next(count) != number:
            return [effect]
        data = bytearray(message.data)
        data[len(data) * 2 // 3] ^= 1
        altered = RelayData(message.from_node_id, message.to_node_id, message.session_id, bytes(data))
        return [SendText(effect.connection, RELAY_CODEC.encode(altered))]

    relay.censor = alter
    world = around(relay, a="", b="m")
    world.answering.add("b")
    for each in range(6):
        ask(world, request=f"r{each}", number=each)
    world.run_for(400 * SECOND)
    refusals = [*world.of("a", ReportRefusal), *world.of("b", ReportRefusal)]
    assert refusals
    assert all(generation.body in {question(each) for each in range(6)} for generation in world.generations["b"])
    ended = [*world.of("a", ReportFinished), *world.of("a", ReportFailed)]
    assert sorted(report.request for report in ended) == [f"r{each}" for each in range(6)]
    # It was an accident for one conversation, not for the nodes.
    ask(world, request="after")
    world.run_for(60 * SECOND)
    assert world.of("a", ReportFinished)[-1].request == "after"


@pytest.mark.parametrize("mischief", ["doubled", "swapped", "dropped"])
def test_records_that_are_doubled_swapped_or_dropped_are_never_acted_on(mischief: str) -> None:
    """They end the session; what they said is said again in another one, and answered once."""
    relay = EvilRelay()
    world = around(relay, a="", b="m")
    relay.holds = True
    for each in range(2):
        ask(world, request=f"r{each}", number=each)
    first, second = (each for each in relay.mail if each.connection == relay.wires[world.id("b")])
    relay.holds = False
    order = {"doubled": (first, first), "swapped": (second, first), "dropped": (second,)}[mischief]
    for effect in order:
        relay.say_bytes(world, RELAY, world.id("b"), effect.data)
    assert "altered, replayed, lost or is out of order" in world.of("b", ReportRefusal)[0].reason
    world.run_for(60 * SECOND)
    for each in range(2):
        assert [generation.body for generation in world.generations["b"]] == [question(0), question(1)][: each + 1]
        world.answer("b", world.generations["b"][each])
    world.run_for(60 * SECOND)
    assert [(report.request, report.attempts) for report in world.of("a", ReportFinished)] == [("r0", 1), ("r1", 1)]
    assert len(world.generations["b"]) == 2


def test_a_whole_conversation_that_is_replayed_makes_a_node_do_nothing() -> None:
    relay = EvilRelay()
    world = around(relay, a="", b="m")
    ask_and_answer(world)
    recorded = [data for data in relay.seen if isinstance(RELAY_CODEC.decode(data)[0], RelayOpen | RelayData)]
    to_bob = [data for data in recorded if RELAY_CODEC.decode(data)[0].to_node_id == world.id("b")]  # type: ignore[union-attr]  # only such are recorded
    assert len(to_bob) > 3
    world.vanish("a")
    world.run_for(120 * SECOND)
    for data in to_bob:
        relay.say_bytes(world, RELAY, world.id("b"), data)
    world.run_for(60 * SECOND)
    assert len(world.generations["b"]) == 1
    assert len(world.node("b").peers()) == 0
    assert world.of("b", ReportRefusal)


def test_a_relay_cannot_pass_itself_off_as_a_node() -> None:
    """It takes a session up in Bob's name, and begins one in Alice's; it has the key of neither."""
    relay = EvilRelay()
    world = around(relay, a="", b="m")
    mallory, alice, bob = identity(MALLORY), identity(1), identity(2)
    open_to_bob = RelayOpen(alice.node_id, bob.node_id, "forged")
    relay.say(world, RELAY, bob.node_id, open_to_bob)
    forged = Link.relayed(mallory, initiator=True, peer=bob.node_id, session="forged", instance=bytes(8), rng=world.rng)
    pieces: list[bytes] = []
    forged.start(pieces)
    relay.say(world, RELAY, bob.node_id, RelayData(alice.node_id, bob.node_id, "forged", pieces[0]))
    assert "handshake failed" in world.of("b", ReportRefusal)[-1].reason
    # The other way round: what Alice says to Bob cannot be understood with another key than Bob's.
    opening = next(message for message in relay.relayed() if message.from_node_id == alice.node_id)
    impostor = Link.relayed(
        mallory, initiator=False, peer=alice.node_id, session=opening.session_id, instance=bytes(8), rng=world.rng
    )
    with pytest.raises(PeerError, match="handshake failed"):
        list(impostor.receive(opening.data, []))


@pytest.mark.parametrize("claimed", ["0" * 64, "f" * 64, "ed" + "0" * 62])
def test_a_session_with_a_node_that_cannot_be_is_refused(claimed: str) -> None:
    relay = EvilRelay()
    world = around(relay, b="m")
    relay.say(world, RELAY, world.id("b"), RelayOpen(NodeId(claimed), world.id("b"), "s"))
    relay.say(world, RELAY, world.id("b"), RelayOpen(world.id("b"), world.id("b"), "t"))
    relay.say(world, RELAY, world.id("b"), RelayData(NodeId(claimed), world.id("b"), "s", b"\0TL1\x01" + bytes(96)))
    assert world.node("b").peers() == ()
    assert is_bounded(world, "b")


def test_nodes_that_a_relay_invents_cost_time_and_never_a_false_answer() -> None:
    relay = EvilRelay()

    def invent(effect: SendText, message: RelayMessage | Unknown) -> list[Any]:
        if not isinstance(message, DiscoverResponse):
            return [effect]
        invented = tuple(listing(stranger(number).node_id) for number in range(40))
        return [SendText(effect.connection, RELAY_CODEC.encode(DiscoverResponse(invented + message.peers)))]

    relay.censor = invent
    world = around(relay, a="", b="m")
    world.answering.add("b")
    ask(world)
    world.run_for(PATIENCE + 5 * SECOND)
    ended = [*world.of("a", ReportFinished), *world.of("a", ReportFailed)]
    assert len(ended) == 1
    assert is_bounded(world, "a")


def listing(node: NodeId, model: str = "m") -> PeerListing:
    offered = Capabilities(Hardware(tier=1), loaded_models=(model,))
    return PeerListing(node, node, "a bargain", offered, 0.0)


def test_a_relay_that_lists_a_node_of_its_own_is_asked_and_then_reads_what_it_is_asked() -> None:
    """The limit of encryption: it ends at the node that serves, and the relay says who serves."""
    relay = EvilRelay()
    world = World()
    world.add(RELAY, relay)
    world.add_node("a", 1, **WAN)
    world.add_node("m", MALLORY, models=("m",), **WAN)
    world.start("a", "m")
    world.run_for(60 * SECOND)
    ask(world)
    assert MARK.encode() in world.generations["m"][0].body
    # The asker is told who that was, before anything else.
    assert world.of("a", ReportAttempt)[0].server == identity(MALLORY).node_id


def test_a_relay_that_shows_everybody_other_peers_parts_them_and_no_more() -> None:
    """Split brain: Alice is shown Bob only, Carol is shown nobody, and each is told what is true of whom it meets."""
    relay = EvilRelay()
    shown = {identity(1).node_id: {identity(2).node_id}, identity(3).node_id: set[NodeId]()}

    def part(effect: SendText, message: RelayMessage | Unknown) -> list[Any]:
        if not isinstance(message, DiscoverResponse):
            return [effect]
        asker = next(node for node, wire in relay.wires.items() if wire == effect.connection)
        allowed = shown.get(asker, set())
        kept = tuple(peer for peer in message.peers if peer.node_id in allowed)
        return [SendText(effect.connection, RELAY_CODEC.encode(DiscoverResponse(kept)))]

    relay.censor = part
    world = around(relay, a="", b="m", c="")
    world.answering.add("b")
    for name in "ac":
        ask(world, name)
    world.run_for(60 * SECOND)
    assert [report.server for report in world.of("a", ReportFinished)] == [world.id("b")]
    assert len(world.of("c", ReportFailed)) == 1
    assert all(peer.encryption.startswith("Noise_IK") for name in "ab" for peer in world.node(name).peers())


def test_a_relay_that_passes_our_challenge_to_its_own_clients_gains_nothing() -> None:
    """Bob is a client of an evil relay, which wants to be Bob at an honest one."""
    evil = EvilRelay("evil.test")
    world = World()
    world.add("evil.test", evil)
    world.add_node("b", 2, **{**WAN, "wan_relay_url": "ws://evil.test/ws"})
    world.start("b")
    honest = make_relay(RELAY)
    honest.handle(ConnectionAccepted(2, Address("evil.test", 1), Address(RELAY, LAN_PORT), RELAY), 0)
    register = next(data for data in evil.seen if b'"register"' in data)
    [challenge] = honest.handle(DataReceived(2, register), 0)
    assert isinstance(challenge, SendText)
    message, _ = RELAY_CODEC.decode(challenge.data)
    assert isinstance(message, RegisterChallenge)
    evil.say(world, "evil.test", world.id("b"), message)
    proof, _ = RELAY_CODEC.decode(evil.seen[-1])
    assert isinstance(proof, RegisterProof)
    effects = honest.handle(DataReceived(2, evil.seen[-1]), 0)
    [closed] = [effect for effect in effects if isinstance(effect, CloseConnection)]
    assert closed.reason == "the signature does not prove the key"
    assert honest.health().peers == 0


FLOOD = 600


def test_sessions_without_end_are_bounded_and_shut_no_other_door() -> None:
    relay = EvilRelay()
    world = World()
    world.add(RELAY, relay)
    world.add_node("b", 2, models=("m",), lan="home", **{**WAN, "lan_enabled": True})
    world.start("b")
    world.run_for(5 * SECOND)
    bob = world.id("b")
    for number in range(FLOOD):
        relay.say(world, RELAY, bob, RelayOpen(stranger(number).node_id, bob, f"s{number}"))
        relay.say(world, RELAY, bob, RelayReady(stranger(number).node_id, bob, f"never-{number}"))
    assert is_bounded(world, "b")
    # Neighbours are let in all the same, while the flood is at its highest.
    world.add_node("c", 3, lan="home", wan_enabled=False)
    world.start("c")
    assert [peer.path for peer in world.node("c").peers()] == [Path.LAN]
    world.run_for(15 * SECOND)
    assert len(world.node("b")._peers._conversations) == 1


MESSAGES = {
    "too long": b'{"type":"x","payload":"' + b"x" * (2 << 20) + b'"}',
    "deep": b'{"type":"peers","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep and unfinished": b'{"relayData":' + b'{"a":' * 100_000,
    "unknown": b'{"type":"somethingNew","payload":{"a":[1,2,3]}}',
    "unknown and deep": b'{"somethingNew":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not JSON": bytes(range(256)),
    "nothing": b"",
}


@pytest.mark.parametrize("data", MESSAGES.values(), ids=MESSAGES.keys())
def test_messages_that_are_huge_deep_or_unknown_harm_nobody(data: bytes) -> None:
    relay = EvilRelay()
    world = around(relay, a="", b="m")
    for _ in range(12):
        if world.node("a").status().wan is RelayState.CONNECTED:
            relay.say_bytes(world, RELAY, world.id("a"), data)
    world.answering.add("b")
    world.run_for(120 * SECOND)
    ask(world)
    world.run_for(30 * SECOND)
    assert [report.request for report in world.of("a", ReportFinished)] == ["r"]


def test_a_relay_that_drops_everything_costs_an_honest_error_within_the_time_allowed() -> None:
    relay = EvilRelay()
    world = around(relay, a="", b="m")
    relay.holds = True
    world.feed("a", Ask("r", Task.CHAT, "m", question(1), timeout=20 * SECOND))
    world.run_for(21 * SECOND)
    [failed] = world.of("a", ReportFailed)
    assert failed.request == "r"
    assert world.generations["b"] == []


def test_a_relay_that_delays_everything_is_only_slow() -> None:
    relay = EvilRelay()
    world = around(relay, a="", b="m")
    world.answering.add("b")
    relay.holds = True
    ask(world)
    for _ in range(10):
        world.run_for(2 * SECOND)
        held, relay.mail = relay.mail, []
        for effect in held:
            world.feed(RELAY, Do((effect,)))
    assert [report.request for report in world.of("a", ReportFinished)] == ["r"]
