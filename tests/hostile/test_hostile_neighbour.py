"""What somebody on the same LAN can do to nodes there, and what they cannot."""

from typing import Any

import pytest

from teale_proto.contacts import SERVICES_MAX
from teale_proto.contract import SECOND
from teale_proto.dialling import DIALS_MAX
from teale_proto.effects import Connect, Path, ReportFinished, ReportRefusal, SendData
from teale_proto.inputs import (
    Address,
    Ask,
    ConnectionAccepted,
    DataReceived,
    NodeId,
    ServiceFound,
    ServiceLost,
    ServiceRecord,
    Task,
)
from teale_proto.peers import SETUP_TIMEOUT, STRANGERS_MAX
from teale_proto.wire.framing import frame
from tests.hostile.puppets import MALLORY, MARK, Do, Puppet, is_bounded, question, stranger
from tests.proto.world import LAN_PORT, World, identity

ANSWER = f"{MARK} answer"


def lan(**nodes: str) -> World:
    """Return a LAN of nodes that have met; the letters name them, the value their models."""
    world = World()
    for number, (name, model) in enumerate(nodes.items(), 1):
        world.add_node(name, number, lan="home", models=(model,) if model else ())
    world.start(*nodes)
    world.run_for(5 * SECOND)
    return world


def advertisement(name: str, node: NodeId, *hosts: str) -> ServiceFound:
    record = ServiceRecord(node, LAN_PORT, ("m",))
    return ServiceFound(name, record, tuple(Address(host, LAN_PORT) for host in hosts))


def ask(world: World, request: str = "r") -> None:
    world.feed("a", Ask(request, Task.CHAT, "m", question(1)))


class Tube(Puppet):
    """A machine in the middle: what comes from one side goes out on the other, as its owner sees fit."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.read: list[bytes] = []
        self.alter_at = -1
        self._other: dict[int, int] = {}
        self._early: dict[int, list[bytes]] = {}
        self._next = 1

    def handle(self, event: Any, now: int) -> Any:
        if isinstance(event, ConnectionAccepted):
            ours, self._next = self._next, self._next + 2
            self._other |= {event.connection: ours, ours: event.connection}
            return [Connect(ours, Address(self.target, LAN_PORT))]
        if isinstance(event, DataReceived):
            self.read.append(event.data)
            data = bytearray(event.data)
            if len(self.read) - 1 == self.alter_at:
                data[-1] ^= 1
            return [SendData(self._other[event.connection], bytes(data))]
        return ()


def with_tube(alter_at: int = -1) -> tuple[World, Tube]:
    """Return a world where Alice believes that Bob is where Mallory is, who passes everything on."""
    world = World()
    tube = Tube("b")
    tube.alter_at = alter_at
    world.add("m", tube)
    world.add_node("a", 1)
    world.add_node("b", 2, models=("m",))
    world.start("a", "b")
    world.feed("a", advertisement("spoofed", world.id("b"), "m"))
    world.run_for(5 * SECOND)
    return world, tube


def test_an_advertisement_with_the_id_of_another_leads_nobody_astray() -> None:
    """Mallory advertises herself as Bob; Alice dials her, finds somebody else, and reaches Bob where Bob is."""
    world = World()
    mallory = Puppet(models=("m",))
    world.add("m", mallory)
    for number, name in enumerate("ab", 1):
        world.add_node(name, number, lan="home" if name == "b" else "", models=("m",) if name == "b" else ())
    world.start("b")
    world.feed("a", advertisement("spoofed", world.id("b"), "m"))
    world.start("a")
    world.feed("a", advertisement("spoofed", world.id("b"), "m"))
    world.run_for(2 * SECOND)
    assert "another node than the expected one answered" in [each.reason for each in world.of("a", ReportRefusal)]
    world.feed("a", advertisement("b", world.id("b"), "b"))
    world.run_for(60 * SECOND)
    assert [(peer.node_id, peer.path) for peer in world.node("a").peers()] == [(world.id("b"), Path.LAN)]
    world.answering.add("b")
    ask(world)
    assert world.of("a", ReportFinished)[0].server == world.id("b")
    assert mallory.inbox == []


def test_a_machine_in_the_middle_that_passes_everything_on_learns_only_sizes_and_times() -> None:
    world, tube = with_tube()
    ask(world)
    world.answer("b", world.generations["b"][0], ANSWER)
    assert len(world.of("a", ReportFinished)) == 1
    read = b"".join(tube.read)
    assert MARK.encode() not in read
    # Not even who they are: ids are encrypted too.
    assert bytes.fromhex(world.id("a")) not in read
    assert world.id("b").encode() not in read
    assert len(read) > len(question(1))


@pytest.mark.parametrize("alter_at", range(6))
def test_a_machine_in_the_middle_that_alters_a_bit_ends_the_conversation(alter_at: int) -> None:
    world, _ = with_tube(alter_at)
    world.answering.add("b")
    ask(world)
    world.run_for(20 * SECOND)
    assert world.of("a", ReportRefusal) or world.of("b", ReportRefusal)
    assert all(generation.body == question(1) for generation in world.generations["b"])


def test_a_machine_in_the_middle_with_keys_of_its_own_is_a_stranger_to_both() -> None:
    world = World()
    mallory = Puppet()
    world.add("m", mallory)
    world.add_node("a", 1)
    world.start("a")
    world.feed("a", advertisement("spoofed", identity(2).node_id, "m"))
    world.run_for(30 * SECOND)
    assert world.node("a").peers() == ()
    assert {each.reason for each in world.of("a", ReportRefusal)} == {"another node than the expected one answered"}
    assert mallory.inbox == []


def test_a_handshake_that_is_replayed_opens_nothing() -> None:
    world, tube = with_tube()
    ask(world)
    recorded = [data for data in tube.read if data]
    generated = len(world.generations["b"])
    for upto in range(1, len(recorded) + 1):
        connection = world.inject("b", recorded[0])
        for data in recorded[1:upto]:
            world.feed("b", DataReceived(connection, data))
    assert len(world.node("b").peers()) == 1
    assert len(world.generations["b"]) == generated
    world.run_for(SETUP_TIMEOUT)
    assert world.node("b")._peers._strangers == 0


def test_thousands_of_advertisements_cost_a_bounded_number_of_dials_and_no_peer() -> None:
    world = lan(a="", b="m")
    world.unreachable.add("nowhere")
    node = world.node("a")
    for number in range(3000):
        found = advertisement(f"s{number}", stranger(number).node_id, *["nowhere"] * 40)
        # Fed directly: nobody answers, as when the addresses lead nowhere.
        node.handle(found, world.now)
        assert node._peers.dialling <= DIALS_MAX
    assert len(node._contacts._services) == SERVICES_MAX
    assert is_bounded(world, "a")
    world.run_for(60 * SECOND)
    assert is_bounded(world, "a")
    assert [peer.node_id for peer in node.peers()] == [world.id("b")]
    world.answering.add("b")
    ask(world)
    assert len(world.of("a", ReportFinished)) == 1


def test_one_advertisement_that_changes_its_node_without_end_leaves_nothing_behind() -> None:
    world = lan(a="")
    node = world.node("a")
    for number in range(3000):
        node.handle(advertisement("same", stranger(number).node_id, "nowhere"), world.now)
    assert is_bounded(world, "a")
    assert len(node._contacts._turns) <= 1
    node.handle(ServiceLost("same"), world.now)
    world.run_for(120 * SECOND)
    assert len(node._peers._conversations) == 0
    assert len(node._contacts._turns) == 0


def test_an_advertisement_of_our_own_id_is_nobody() -> None:
    world = lan(a="")
    assert world.node("a").handle(advertisement("me", world.id("a"), "m"), world.now) == []


def test_a_flood_of_connections_is_bounded_and_keeps_nobody_out_who_introduces_itself_at_once() -> None:
    """The limit: who floods faster than a newcomer needs for a greeting can push it out before it is done."""
    world = lan(a="", b="m")
    for _ in range(1000):
        world.inject("a", b"")
    assert is_bounded(world, "a")
    assert world.node("a")._peers._strangers == STRANGERS_MAX
    world.answering.add("b")
    ask(world)
    assert len(world.of("a", ReportFinished)) == 1
    mallory = Puppet()
    world.add("m", mallory)
    mallory.dial(world, "m", "a", 1)
    assert len(world.node("a").peers()) == 2
    world.run_for(SETUP_TIMEOUT)
    assert world.node("a")._peers._strangers == 0


def test_a_handshake_of_a_byte_a_second_ends_after_ten_and_says_why() -> None:
    world = lan(a="")
    connection = world.inject("a", b"")
    for byte in frame(b"\0TL1\x01" + bytes(32)):
        world.feed("a", DataReceived(connection, bytes([byte])))
        world.run_for(1 * SECOND)
    reasons = [each.reason for each in world.of("a", ReportRefusal)]
    assert reasons == ["took too long to introduce itself"]
    assert world.node("a")._peers._strangers == 0


def test_a_stranger_that_finishes_the_handshake_and_says_nothing_is_shown_the_door() -> None:
    world = lan(a="")
    mallory = Puppet()
    mallory.greets = False
    world.add("m", mallory)
    mallory.dial(world, "m", "a")
    assert world.node("a").peers() == ()
    world.run_for(SETUP_TIMEOUT)
    assert mallory.closed == ["took too long to introduce itself"]


def test_somebody_who_dials_with_their_own_key_is_nobody_else() -> None:
    """Whatever a greeting claims, the id that counts is the one that the handshake proved."""
    world = lan(a="", b="m")
    mallory = Puppet(device_info=None)
    bob = world.node("b")._peers.greeting.device_info
    mallory._greeting["device_info"] = bob
    world.add("m", mallory)
    mallory.dial(world, "m", "a")
    assert {peer.node_id for peer in world.node("a").peers()} == {world.id("b"), identity(MALLORY).node_id}
    world.feed("m", Do(()))
