"""Who may join on the LAN: the passcode, those who guess at it, and the other rules of the door."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.contract import SECOND
from teale_proto.door import CHARGED_MAX, CLOSED_FOR, PROVED_MAX, WRONG_MAX, Charges, Door, Join
from teale_proto.effects import Path, PeerState, ReportFinished, ReportPeer, ReportRefusal
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import WAKE, NodeId, StopRequested
from teale_proto.node import NodeConfig
from teale_proto.peers import SETUP_TIMEOUT
from teale_proto.secure.passcode import PROOF_BYTES, SHARE_BYTES, Passcode, PasscodeExchange
from teale_proto.wire.cluster import Goodbye, HelloAck, PasscodeConfirm, PasscodeStart
from tests.proto.visitors import House, Visitor
from tests.proto.world import World, identity
from tests.proto.worlds import WAN, ask, content

RIGHT, WRONG = "correct horse", "battery staple"
ALICE, BOB = identity(1), identity(2)
A, B = ALICE.node_id, BOB.node_id


def lan(*settings_of: dict[str, Any], seconds: int = 10) -> World:
    """Return a LAN of nodes called a, b, c…, each with its own settings, that have had some time to meet."""
    world = World()
    names = "abcdef"[: len(settings_of)]
    for number, (name, config) in enumerate(zip(names, settings_of, strict=True), 1):
        world.add_node(name, number, lan="home", **config)
    world.start(*names)
    world.run_for(seconds * SECOND)
    return world


def with_passcode(text: str = RIGHT, **more: Any) -> dict[str, Any]:
    return {"lan_passcode": Passcode(text), **more}


def meets(world: World, name: str, other: str) -> bool:
    return world.id(other) in {peer.node_id for peer in world.node(name).peers()}


def refusals(world: World, name: str) -> set[str]:
    return {report.reason for report in world.of(name, ReportRefusal)}


# Nodes that mean well.


def test_nodes_with_the_same_passcode_join_and_answer_each_other() -> None:
    world = lan(with_passcode(), with_passcode(models=("m",)))
    assert meets(world, "a", "b")
    assert meets(world, "b", "a")
    assert not refusals(world, "a") | refusals(world, "b")
    world.answering.add("b")
    world.feed("a", ask())
    assert content(world, "a") == "hello world"
    assert world.of("a", ReportFinished)[0].path is Path.LAN
    assert world.node("a").status().lan_join == "passcode"


def test_two_that_dial_each_other_at_once_end_up_with_one_conversation() -> None:
    world = World()
    for number, name in enumerate("ab", 1):
        world.add_node(name, number, lan="home", **with_passcode())
    world.start("a")
    world.now += 1
    world.start("b")
    # The higher one is told to dial at the same moment as the lower one.
    world.feed("b", world.advertised["a"])
    world.run_for(20 * SECOND)
    for name in "ab":
        assert [report.state for report in world.of(name, ReportPeer)] == [PeerState.CONNECTED]
    assert len(world._wires) == 2


def test_a_wrong_passcode_is_refused_and_both_sides_hear_why() -> None:
    world = lan(with_passcode(RIGHT), with_passcode(WRONG), seconds=1)
    assert not meets(world, "a", "b")
    assert refusals(world, "a") == {"it refused this node: wrong LAN passcode"}
    assert refusals(world, "b") == {"it used a wrong LAN passcode"}


def test_no_passcode_is_refused_and_both_sides_hear_why() -> None:
    world = lan({}, with_passcode(), seconds=1)
    assert refusals(world, "a") == {"it refused this node: this node asks for the LAN passcode"}
    assert refusals(world, "b") == {"it offers no LAN passcode, and lan_join is passcode here"}


def test_a_node_with_a_passcode_does_not_join_one_that_it_dials_and_that_has_none() -> None:
    world = lan(with_passcode(), {}, seconds=1)
    assert refusals(world, "a") == {"it has no LAN passcode, and lan_join is passcode here"}
    assert refusals(world, "b") == {"it refused this node: this node asks for the LAN passcode"}


def test_two_that_refuse_each_other_do_not_take_turns_for_ever() -> None:
    world = lan(with_passcode(RIGHT), with_passcode(WRONG), seconds=600)
    attempts = len(world.of("a", ReportRefusal))
    assert 5 < attempts < 60
    reasons = refusals(world, "a") | refusals(world, "b")
    assert any("the door is closed for" in reason for reason in reasons)


def test_a_passcode_that_is_set_right_after_all_lets_the_node_in() -> None:
    world = lan(with_passcode(RIGHT), with_passcode(WRONG), seconds=120)
    world.feed("b", StopRequested())
    world.vanish("b")
    world.unreachable.clear()
    world.add_node("b", 2, lan="home", **with_passcode(RIGHT))
    world.start("b")
    world.run_for(130 * SECOND)
    assert meets(world, "a", "b")


SETTINGS: dict[str, dict[str, Any]] = {
    "open": {},
    "open, right": with_passcode(lan_join=Join.OPEN),
    "right": with_passcode(),
    "wrong": with_passcode(WRONG),
    "paired": {"lan_join": Join.PAIRED, "trusted_nodes": (A, B)},
    "paired, right": with_passcode(lan_join=Join.PAIRED, trusted_nodes=(A, B)),
    "alone": {"lan_join": Join.PAIRED},
}

GRID = """
               open  open, right  right  wrong  paired  paired, right  alone
open           yes   yes          no     no     yes     yes            no
open, right    yes   yes          yes    no     yes     yes            no
right          no    yes          yes    no     no      yes            no
wrong          no    no           no     yes    no      no             no
paired         yes   yes          no     no     yes     yes            no
paired, right  yes   yes          yes    no     yes     yes            no
alone          no    no           no     no     no      no             no
"""
COLUMNS = tuple(SETTINGS)
CELLS = [
    (row, column, answer == "yes")
    for line in GRID.strip().splitlines()[1:]
    for row in [line[:15].strip()]
    for column, answer in zip(COLUMNS, line[15:].split(), strict=True)
]


@pytest.mark.parametrize(("a", "b", "joins"), CELLS, ids=lambda value: str(value))
def test_nodes_join_where_both_are_content(a: str, b: str, joins: bool) -> None:
    world = lan(SETTINGS[a], SETTINGS[b])
    assert meets(world, "a", "b") == meets(world, "b", "a") == joins
    if not joins and (a, b) != ("alone", "alone"):
        # Two that trust nobody do not even dial.
        assert refusals(world, "a")
        assert refusals(world, "b")


@pytest.mark.parametrize(
    ("a", "b", "joins"),
    [
        ({}, {}, True),
        ({"wan_join": Join.PAIRED, "trusted_nodes": (B,)}, {}, True),
        ({"wan_join": Join.PAIRED, "trusted_nodes": (B,)}, {"wan_join": Join.PAIRED, "trusted_nodes": (A,)}, True),
        ({"wan_join": Join.PAIRED}, {}, False),
        ({}, {"wan_join": Join.PAIRED}, False),
        (with_passcode(), {}, True),
    ],
)
def test_the_relay_has_a_rule_of_its_own(a: dict[str, Any], b: dict[str, Any], joins: bool) -> None:
    world = World()
    world.add_relay()
    for number, (name, config) in enumerate((("a", a), ("b", b)), 1):
        world.add_node(name, number, models=("m",), **(WAN | config))
    world.start("a", "b")
    world.run_for(60 * SECOND)
    assert meets(world, "a", "b") == meets(world, "b", "a") == joins
    if not joins:
        told = {"it refused this node: this node talks only to paired nodes"}
        noted = {"it is not among the trusted_nodes, and only those may join"}
        assert (refusals(world, "a"), refusals(world, "b")) in ((told, noted), (noted, told))
        assert world.node("a" if a else "b").status().wan_join == "paired"


def test_only_rules_that_can_be_kept_are_taken() -> None:
    with pytest.raises(LocalError, match="no LAN passcode is set"):
        lan({"lan_join": Join.PASSCODE})
    with pytest.raises(LocalError, match="nobody can prove anything"):
        lan(with_passcode(lan_encrypted=False))
    with pytest.raises(LocalError, match="the passcode is for the LAN"):
        lan({"wan_join": Join.PASSCODE})


# Those who guess.


def test_five_wrong_guesses_from_one_address_close_the_door_for_a_minute() -> None:
    house = House(**with_passcode())
    for number in range(WRONG_MAX):
        house.now = number * SECOND
        # A new name each time changes nothing.
        visitor = house.visit(100 + number)
        assert not visitor.guess(WRONG)
        assert visitor.last(Goodbye) == Goodbye("wrong LAN passcode")
    closed_at = house.now
    late = house.visit(200)
    assert not late.guess(RIGHT)
    assert late.last(Goodbye) == Goodbye("too many wrong LAN passcodes; try again in 60 s")
    assert not any(isinstance(event, PasscodeStart) for event in late.heard), "nothing was computed for it"
    assert house.visit(201, host="10.0.0.10").guess(RIGHT), "others are not concerned"
    house.now = closed_at + CLOSED_FOR - 1
    assert not house.visit(202).guess(RIGHT)
    house.now = closed_at + CLOSED_FOR
    assert house.visit(203).guess(RIGHT)


def test_five_wrong_guesses_under_one_name_close_the_door_to_it_at_every_address() -> None:
    house = House(**with_passcode())
    for number in range(WRONG_MAX):
        assert not house.visit(100, host=f"10.0.1.{number}").guess(WRONG)
    assert not house.visit(100, host="10.0.2.1").guess(RIGHT)
    assert house.refusals[-1] == (
        "too many wrong LAN passcodes from its node or address; the door is closed for 60 s more"
    )
    assert house.visit(101, host="10.0.2.1").guess(RIGHT)
    house.now += CLOSED_FOR
    assert house.visit(100, host="10.0.2.1").guess(RIGHT)


def test_a_friend_at_the_same_address_gives_a_guesser_no_further_guesses() -> None:
    house = House(**with_passcode())
    for number in range(WRONG_MAX - 1):
        assert not house.visit(100 + number).guess(WRONG)
    assert house.visit(50).guess(RIGHT)
    assert not house.visit(110).guess(WRONG)
    assert not house.visit(111).guess(RIGHT)


def test_guesses_made_at_once_are_no_more_than_guesses_made_in_turn() -> None:
    house = House(**with_passcode())
    visitors = [house.visit(100 + number) for number in range(20)]
    for visitor in visitors:
        visitor.offer(WRONG)
    assert sum(isinstance(visitor.heard[0], PasscodeStart) for visitor in visitors) == WRONG_MAX


@pytest.mark.parametrize("leave", ["hang up", "fall silent", "talk nonsense"])
def test_an_exchange_that_is_left_counts_as_a_wrong_one(leave: str) -> None:
    house = House(**with_passcode())
    for _ in range(WRONG_MAX):
        visitor = house.visit(100)
        visitor.offer(RIGHT)
        if leave == "hang up":
            visitor.hang_up()
        elif leave == "talk nonsense":
            visitor.greet()
        else:
            house.now += SETUP_TIMEOUT
            house.feed(WAKE)
    assert not house.visit(100, host="10.0.0.99").guess(RIGHT)


def test_the_right_passcode_forgives_the_wrong_ones_of_the_same_node() -> None:
    house = House(**with_passcode())
    for host in ("10.0.1.1", "10.0.1.2"):
        for _ in range(WRONG_MAX - 1):
            assert not house.visit(100, host=host).guess(WRONG)
        assert house.visit(100, host="10.0.1.3").guess(RIGHT)


def test_who_has_passed_may_greet_and_is_greeted() -> None:
    house = House(**with_passcode())
    visitor = house.visit(100)
    assert visitor.guess(RIGHT)
    assert not house.ups
    visitor.greet()
    assert isinstance(visitor.last(HelloAck), HelloAck)
    assert house.ups == [visitor.identity.node_id]


# Those who cheat.


def _recorded() -> tuple[list[str], House]:
    """Return what the dialler said in a successful exchange."""
    house = House(**with_passcode())
    visitor = house.visit(100)
    exchange = visitor.offer(RIGHT)
    proof = exchange.proof().hex()
    visitor.say(PasscodeConfirm(proof))
    assert isinstance(visitor.last(PasscodeConfirm), PasscodeConfirm)
    return [exchange.share.hex(), proof], house


@pytest.mark.parametrize("number", [100, 101], ids=["as the same node", "as another node"])
def test_a_recorded_exchange_opens_no_door(number: int) -> None:
    (share, proof), house = _recorded()
    visitor = house.visit(number)
    visitor.say(PasscodeStart(share))
    visitor.say(PasscodeConfirm(proof))
    assert visitor.closed
    assert visitor.last(Goodbye) == Goodbye("wrong LAN passcode")


def test_a_share_says_nothing_about_the_passcode_that_can_be_tried_later() -> None:
    """For every passcode there is a secret that gives the share, so all that is recorded fits all of them alike."""
    shares = {RIGHT: set[bytes](), WRONG: set[bytes]()}
    for text, seen in shares.items():
        for seed in range(4):
            exchange = PasscodeExchange(
                Passcode(text), dialler=True, own=A, peer=B, handshake_hash=bytes(32), rng=Random(seed)
            )
            seen.add(exchange.share)
            assert len(exchange.share) == SHARE_BYTES
    assert len(shares[RIGHT]) == len(shares[WRONG]) == 4
    assert not shares[RIGHT] & shares[WRONG]


def exchanges(**changes: Any) -> tuple[PasscodeExchange, PasscodeExchange]:
    """Return both sides of an exchange; the changes are the acceptor's idea of it."""
    common: dict[str, Any] = {"passcode": Passcode(RIGHT), "handshake_hash": bytes(32)}
    dialler = PasscodeExchange(**common, dialler=True, own=A, peer=B, rng=Random(1))
    acceptor = PasscodeExchange(**(common | {"dialler": False, "own": B, "peer": A, "rng": Random(2)} | changes))
    dialler.take_share(acceptor.share)
    acceptor.take_share(dialler.share)
    return dialler, acceptor


def test_two_sides_that_agree_on_everything_prove_it_to_each_other() -> None:
    dialler, acceptor = exchanges()
    assert acceptor.is_proof(dialler.proof())
    assert dialler.is_proof(acceptor.proof())
    assert not dialler.is_proof(dialler.proof()), "one's own proof, sent back, is none"
    assert len(dialler.proof()) == PROOF_BYTES


@pytest.mark.parametrize(
    "changes",
    [
        {"passcode": Passcode(WRONG)},
        {"handshake_hash": bytes(31) + b"\1"},
        {"own": identity(3).node_id},
        {"peer": identity(3).node_id},
    ],
    ids=["passcode", "channel", "own name", "other's name"],
)
def test_an_exchange_passed_on_from_another_conversation_proves_nothing(changes: dict[str, Any]) -> None:
    dialler, acceptor = exchanges(**changes)
    assert not acceptor.is_proof(dialler.proof())
    assert not dialler.is_proof(acceptor.proof())


def test_a_share_sent_back_to_its_sender_is_none() -> None:
    dialler, _ = exchanges()
    other = PasscodeExchange(Passcode(RIGHT), dialler=True, own=A, peer=B, handshake_hash=bytes(32), rng=Random(1))
    other.take_share(dialler.share)
    with pytest.raises(PeerError, match="is not one"):
        other.proof()


_ZERO = b"\1" + bytes(31)
_ORDER_TWO = (2**255 - 20).to_bytes(32, "little")


@pytest.mark.parametrize("point", [_ZERO, _ORDER_TWO, bytes(32), b"\2" + bytes(31), b"\xff" * 32])
def test_a_point_that_would_give_everybody_the_same_key_is_no_share(point: bytes) -> None:
    house = House(**with_passcode())
    visitor = house.visit(100)
    visitor.say(PasscodeStart((b"A" + point).hex()))
    visitor.say(PasscodeConfirm(bytes(32).hex()))
    assert visitor.closed
    assert house.refusals[-1] in ("its share of the passcode exchange is not one", "it used a wrong LAN passcode")


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40) | st.binary(min_size=33, max_size=33)), max_size=4))
def test_nonsense_in_the_place_of_a_passcode_neither_opens_nor_breaks_anything(said: list[tuple[bool, bytes]]) -> None:
    house = House(**with_passcode())
    visitor = house.visit(100)
    for starts, data in said:
        if not visitor.closed:
            visitor.say(PasscodeStart(data.hex()) if starts else PasscodeConfirm(data.hex()))
    if not visitor.closed:
        visitor.greet()
    assert visitor.closed
    assert not house.ups
    assert house.visit(101, host="10.0.0.77").guess(RIGHT)


def _after_passing(visitor: Visitor) -> None:
    assert visitor.guess(RIGHT)


def _after_greeting(visitor: Visitor) -> None:
    assert visitor.guess(RIGHT)
    visitor.greet()


@pytest.mark.parametrize("before", [_after_passing, _after_greeting])
def test_a_second_exchange_in_one_conversation_is_out_of_turn(before: Any) -> None:
    house = House(**with_passcode())
    visitor = house.visit(100)
    before(visitor)
    visitor.say(PasscodeStart("00" * 33))
    assert visitor.closed


def test_a_node_that_refuses_says_so_in_one_printable_line() -> None:
    house = House()
    visitor = house.visit(100)
    visitor.say(Goodbye("no\x1b[2J\nthanks" + "!" * 500))
    assert house.refusals == ["it refused this node: no [2J thanks" + "!" * 115]


# The memory of the door.


def test_charges_are_forgotten_a_minute_after_the_last() -> None:
    charges = Charges()
    for at in range(4):
        charges.charge("x", at)
    assert charges.closed_until("x", 4) == 4
    charges.charge("x", 3 + CLOSED_FOR)
    assert charges.closed_until("x", 3 + CLOSED_FOR) == 3 + CLOSED_FOR, "that was the first of a new count"
    for _ in range(4):
        charges.charge("x", 4 + CLOSED_FOR)
    assert charges.closed_until("x", 5 + CLOSED_FOR) == 4 + 2 * CLOSED_FOR
    charges.take_back("x")
    assert charges.closed_until("x", 5 + CLOSED_FOR) == 5 + CLOSED_FOR
    charges.acquit("x")
    charges.take_back("x")
    assert len(charges) == 0


def test_a_full_table_closes_the_door_to_whoever_is_not_in_it() -> None:
    charges = Charges()
    for number in range(CHARGED_MAX):
        charges.charge(f"{number}", number)
    assert charges.closed_until("one more", CHARGED_MAX) == CLOSED_FOR
    assert charges.closed_until("3", CHARGED_MAX) == CHARGED_MAX, "who is in it has guesses left"
    assert charges.closed_until("one more", CLOSED_FOR) == CLOSED_FOR
    assert len(charges) == CHARGED_MAX - 1


def test_of_more_nodes_than_can_be_remembered_none_is_believed_without_proof() -> None:
    door = Door(plaintext_legacy=True)
    assert door.admits_plaintext(Path.RELAY, A)
    assert not door.admits_plaintext(Path.LAN, A)
    door.proved(A)
    assert not door.admits_plaintext(Path.RELAY, A)
    for number in range(PROVED_MAX):
        door.proved(NodeId(f"{number}"))
    assert not door.admits_plaintext(Path.RELAY, B)


# The passcode itself.


def test_a_passcode_is_what_people_mean_by_the_same_letters() -> None:
    assert Passcode(" caf\u00e9 \u2460 ").octets == Passcode("cafe\u0301 1").octets
    for text in ("", "12345", "     123   ", "x" * 129):
        with pytest.raises(LocalError, match="6 to 128 characters"):
            Passcode(text)


def test_a_passcode_is_in_no_text_about_it() -> None:
    config = NodeConfig(display_name="a", lan_passcode=Passcode(RIGHT))
    dialler, _ = exchanges()
    for text in (repr(config), str(config), repr(Passcode(RIGHT)), repr(dialler), repr(Door(passcode=Passcode(RIGHT)))):
        assert RIGHT not in text
