"""Two fidelities, one behaviour; and the suite that protects nothing is taken for no other."""

from random import Random

import msgspec
import pytest

from simulator.backend import CostModel
from simulator.checkers import NothingInPlain
from simulator.events import Crash
from simulator.fidelity import ID_ENDS_WITH, NAME, UNPROTECTED, Fidelity, UnprotectedIdentity
from simulator.net.link import Link
from simulator.net.network import INTERNET
from simulator.trace import Entry
from simulator.world import RELAY_PORT, World, request_ids
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.effects import ReportAttempt, ReportFailed, ReportFinished
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Ask, NodeId, Task
from teale_proto.link import Established
from teale_proto.link import Link as PeerLink
from teale_proto.node import Node, NodeConfig
from teale_proto.relay.server import RelayServerConfig
from teale_proto.secure.identity import Identity
from teale_proto.secure.noise import Handshake
from teale_proto.secure.raw_noise import Pattern
from teale_proto.secure.records import CONTENT_MAX, TAG_BYTES, Channel
from teale_proto.secure.suite import NOISE, Keys, Suite

SEEDS = (b"alice".ljust(32, b"."), b"bob".ljust(32, b"."))


def handshakes(suite: Suite, pattern: Pattern, *, context: tuple[bytes, bytes] = (b"", b"")) -> list[Handshake]:
    """Return the initiator and the responder, before the first message."""
    fidelity = Fidelity.WIRE if suite is NOISE else Fidelity.MESSAGE
    alice, bob = map(fidelity.identity, SEEDS)
    return [
        one_side(suite, pattern, own, other, initiator=own is alice, context=context[own is bob])
        for own, other in ((alice, bob), (bob, alice))
    ]


def one_side(
    suite: Suite, pattern: Pattern, own: Keys, other: Keys, *, initiator: bool, context: bytes = b""
) -> Handshake:
    rng, instance = Random(initiator), bytes([initiator]) * 8
    if pattern is Pattern.XX:
        return Handshake.xx(own, initiator=initiator, instance=instance, rng=rng, suite=suite)
    return Handshake.ik(
        own, initiator=initiator, peer=other.node_id, context=context, instance=instance, rng=rng, suite=suite
    )


def shake(initiator: Handshake, responder: Handshake) -> list[bytes]:
    messages = []
    writer, reader = initiator, responder
    while not (initiator.finished and responder.finished):
        messages.append(writer.write())
        reader.read(messages[-1])
        writer, reader = reader, writer
    return messages


def channels(suite: Suite = UNPROTECTED, pattern: Pattern = Pattern.XX) -> tuple[Channel, Channel]:
    alice, bob = handshakes(suite, pattern)
    shake(alice, bob)
    return alice.channel(), bob.channel()


# The suite that protects nothing.


@pytest.mark.parametrize("pattern", list(Pattern))
def test_both_suites_send_as_many_handshake_messages_of_as_many_bytes(pattern: Pattern) -> None:
    sizes = [[len(message) for message in shake(*handshakes(suite, pattern))] for suite in (NOISE, UNPROTECTED)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("pattern", list(Pattern))
def test_without_protection_both_sides_still_learn_who_the_other_is(pattern: Pattern) -> None:
    alice, bob = handshakes(UNPROTECTED, pattern)
    shake(alice, bob)
    ids = [UnprotectedIdentity.from_seed(seed).node_id for seed in SEEDS]
    assert [bob.peer, alice.peer] == ids
    assert [bob.peer_instance, alice.peer_instance] == [b"\1" * 8, b"\0" * 8]
    assert alice.channel().handshake_hash == bob.channel().handshake_hash


@pytest.mark.parametrize("size", [1, 100, CONTENT_MAX, CONTENT_MAX + 1, 200_000])
def test_records_of_both_suites_have_the_same_sizes_and_open_to_what_was_sealed(size: int) -> None:
    message = Random(size).randbytes(size)
    sizes = []
    for suite in (NOISE, UNPROTECTED):
        here, there = channels(suite)
        records = here.seal(message)
        *_, opened = [there.open(record) for record in records]
        assert opened == message
        sizes.append([len(record) for record in records])
    assert sizes[0] == sizes[1]


def test_a_record_without_protection_that_is_altered_replayed_dropped_or_anothers_is_refused() -> None:
    def refused(record: bytes, there: Channel) -> bool:
        with pytest.raises(PeerError, match="altered, replayed, lost"):
            there.open(record)
        return True

    here, there = channels()
    (first,), (second,) = here.seal(b"first"), here.seal(b"second")
    assert refused(second, there)
    here, there = channels()
    (first,) = here.seal(b"first")
    assert refused(bytes([first[0] ^ 1]) + first[1:], there)
    here, there = channels()
    (first,) = here.seal(b"first")
    assert there.open(first) == b"first"
    assert refused(first, there)
    here, there = channels()
    (own,) = there.seal(b"first")
    assert refused(own, there)
    _, another = channels(pattern=Pattern.IK)
    assert refused(first, another)


def test_what_is_sealed_without_protection_shows_none_of_its_text() -> None:
    here, _ = channels()
    (record,) = here.seal(b"a prompt")
    assert b"prompt" not in record
    assert len(record) == len(b"a prompt") + 1 + TAG_BYTES


def test_sessions_with_other_names_for_each_other_do_not_shake_hands() -> None:
    alice, bob = handshakes(UNPROTECTED, Pattern.IK, context=(b"session 1", b"session 2"))
    with pytest.raises(PeerError, match="the handshake failed"):
        bob.read(alice.write())


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("suites", [(NOISE, UNPROTECTED), (UNPROTECTED, NOISE)])
def test_the_two_suites_never_shake_hands_with_each_other(pattern: Pattern, suites: tuple[Suite, Suite]) -> None:
    sides = []
    for number, suite in enumerate(suites):
        own, other = handshakes(suite, pattern)
        sides.append(own if number == 0 else other)
    initiator, responder = sides
    with pytest.raises(PeerError):
        shake(initiator, responder)
    assert initiator.peer is None
    assert responder.peer is None


def test_an_identity_is_of_use_to_its_own_suite_alone() -> None:
    real, unprotected = Identity.from_seed(SEEDS[0]), UnprotectedIdentity.from_seed(SEEDS[0])
    config = NodeConfig(display_name="node")
    for identity, suite in ((unprotected, NOISE), (real, UNPROTECTED)):
        with pytest.raises(LocalError, match="an identity of type"):
            Node(config, identity, Random(1), unix_time_at_zero=0, suite=suite)
        with pytest.raises(LocalError, match="an identity of type"):
            Handshake.xx(identity, initiator=True, instance=bytes(8), rng=Random(1), suite=suite)
    with pytest.raises(PeerError):
        UNPROTECTED.static_key_of(real.node_id)


def test_signatures_of_one_suite_are_none_in_the_other() -> None:
    real, unprotected = Identity.from_seed(SEEDS[0]), UnprotectedIdentity.from_seed(SEEDS[0])
    assert UNPROTECTED.verify(unprotected.node_id, b"message", unprotected.sign(b"message"))
    assert not UNPROTECTED.verify(unprotected.node_id, b"another", unprotected.sign(b"message"))
    assert not UNPROTECTED.verify(real.node_id, b"message", real.sign(b"message"))
    assert not NOISE.verify(unprotected.node_id, b"message", unprotected.sign(b"message"))
    assert len(unprotected.sign(b"")) == len(real.sign(b""))


def test_ids_without_protection_say_so_and_stand_in_the_order_of_the_real_ones() -> None:
    seeds = [bytes([number]) * 32 for number in range(50)]
    real = [Identity.from_seed(seed).node_id for seed in seeds]
    unprotected = [UnprotectedIdentity.from_seed(seed).node_id for seed in seeds]
    assert all(node.endswith(ID_ENDS_WITH) and len(node) == 64 for node in unprotected)
    assert sorted(range(50), key=real.__getitem__) == sorted(range(50), key=unprotected.__getitem__)


def test_a_link_without_protection_says_that_it_has_none() -> None:
    alice, bob = (UnprotectedIdentity.from_seed(seed) for seed in SEEDS)
    dialler = PeerLink.dial(alice, expected=bob.node_id, instance=bytes(8), rng=Random(1), suite=UNPROTECTED)
    acceptor = PeerLink.accept(bob, instance=bytes(8), rng=Random(2), allow_plaintext=False, suite=UNPROTECTED)
    out: list[bytes] = []
    dialler.start(out)
    events = []
    for link in (acceptor, dialler, acceptor):
        data, out = b"".join(out), []
        events += list(link.receive(data, out))
    assert events == [Established(bob.node_id, bytes(8)), Established(alice.node_id, bytes(8))]
    assert dialler.encryption == acceptor.encryption == NAME


# Worlds.

MARK = "marked-prompt-word"
BODY = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": MARK}]})
RELAY = "relay.example"
LAN = Link(latency=200)
LINES = (Link(latency=20 * MILLISECOND), Link(latency=35 * MILLISECOND, uplink_bytes_per_second=1_250_000))
HOLDERS = ("holder-0", "holder-1", "holder-2")
ASKERS = ("asker-0", "asker-1", "asker-2", "asker-3")


def world_of(fidelity: Fidelity, seed: int) -> World:
    """Seven nodes and a relay; two of the nodes share a LAN, one that holds the model dies in the middle."""
    world = World(seed, fidelity=fidelity)
    world.network.add_segment("lan", discovery=True)
    world.add_relay(RELAY, "203.0.113.1", Link(latency=MILLISECOND), RelayServerConfig(names=(RELAY,)))
    world.start(RELAY, at=0)
    rng = world.rng("world")
    for number, name in enumerate(HOLDERS + ASKERS):
        on_lan = name in {"holder-0", "asker-0"}
        places = [(INTERNET, f"198.51.100.{number + 1}", LINES[number % 2])]
        if on_lan:
            places.append(("lan", f"192.168.0.{number + 1}", LAN))
        config = NodeConfig(
            display_name=name, lan_enabled=on_lan, wan_enabled=True, wan_relay_url=f"ws://{RELAY}:{RELAY_PORT}/ws"
        )
        models = ("m",) if name in HOLDERS else ()
        world.add_node(name, config, places, models=models, cost=CostModel(tokens_min=5, tokens_max=120))
        world.start(name, at=rng.randrange(3 * SECOND))
    world.check(NothingInPlain((MARK,)))
    how = Crash.VANISH if seed % 2 else Crash.RESET
    world.crash(rng.choice(HOLDERS), how, at=30 * SECOND + rng.randrange(5 * SECOND))
    for request in request_ids("ask", 24):
        ask = Ask(request, Task.CHAT, "m", BODY, streaming=rng.random() < 0.5, timeout=60 * SECOND)
        world.ask(rng.choice(ASKERS), ask, at=10 * SECOND + rng.randrange(50 * SECOND))
    return world


def outcome_of(fidelity: Fidelity, seed: int) -> list[object]:
    """Return who was asked and who answered, over which path and after how many attempts, and the pools at the end."""
    world = world_of(fidelity, seed)
    names: dict[NodeId, str] = {node: name for name, node in world.node_ids.items()}
    told: list[object] = []

    def note(entry: Entry) -> None:
        value = entry.value
        if isinstance(value, ReportAttempt):
            told.append((entry.host, value.request, names[value.server], value.path))
        elif isinstance(value, ReportFinished):
            told.append((entry.host, value.request, names[value.server], value.path, value.tokens_out, value.attempts))
        elif isinstance(value, ReportFailed):
            told.append((entry.host, value.request, value.failure, value.attempts))

    world.trace.subscribe(note, (ReportAttempt, ReportFinished, ReportFailed))
    world.run_until(130 * SECOND)
    report = world.report("fidelity", 0.0)
    assert report.passed, [check.rule for check in report.checks if not check.passed]
    assert report.requests.asked == 24
    assert report.hosts_crashed == 1
    for name, host in world.hosts.items():
        if isinstance(host.core, Node):
            told.append((name, sorted((names[peer.node_id], peer.path, peer.state) for peer in host.core.peers())))
    return told


@pytest.mark.parametrize("seed", range(6))
def test_a_small_world_comes_to_the_same_at_both_fidelities(seed: int) -> None:
    assert outcome_of(Fidelity.WIRE, seed) == outcome_of(Fidelity.MESSAGE, seed)


def test_a_world_at_message_fidelity_gives_the_same_digest_every_time() -> None:
    digests = set()
    for _ in range(2):
        world = world_of(Fidelity.MESSAGE, 1)
        world.run_until(40 * SECOND)
        digests.add(world.trace.digest)
    assert len(digests) == 1
