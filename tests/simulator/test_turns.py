"""Hosts that take their time: when their cores hear something, and when others hear of it."""

from simulator.events import Crash
from simulator.net.link import CABLE
from simulator.net.nat import NatKind
from simulator.turns import Busy, Turn
from teale_proto.contract import MILLISECOND, SECOND, Instant
from teale_proto.effects import SendData
from teale_proto.inputs import Address, DataReceived
from tests.simulator.net.city import LINE, City
from tests.simulator.toys import Diary, Order

SERVER = Address("192.0.2.1", 443)
NAT = NatKind()
ONE_WAY = 2 * LINE.latency + CABLE.latency
BEFORE, AFTER = 5 * MILLISECOND, 7 * MILLISECOND


def slow_alice(*, before: Instant = BEFORE, after: Instant = AFTER) -> tuple[City, Diary, list[Instant]]:
    """Return Alice, who takes so long for each order, in conversation, and when the server hears her from now on."""
    town = City()
    server = town.server("server", SERVER.host)
    alice = town.home("alice", town.world.add_site("home", [NAT], LINE))
    assert town.dial("alice", SERVER)

    def pace(turn: Turn) -> Busy:
        return Busy(before, after) if isinstance(turn.event, Order) else Busy(0)

    town.world.hosts["alice"].pace = pace
    heard: list[Instant] = []
    town.world.trace.subscribe(lambda entry: heard.append(entry.at) if entry.host == "server" else None, [DataReceived])
    assert not server.of(DataReceived)
    return town, alice, heard


def orders(alice: Diary) -> list[Instant]:
    return [at for at, event in alice.heard if isinstance(event, Order)]


def test_a_core_hears_late_and_others_later_still() -> None:
    town, alice, heard = slow_alice()
    began = town.now
    town.say("alice")
    town.run(SECOND)
    assert orders(alice)[-1] == began + BEFORE
    assert heard == [began + BEFORE + AFTER + ONE_WAY]


def test_the_trace_has_what_is_to_be_done_when_the_core_says_so() -> None:
    town, _, _ = slow_alice()
    said: list[Instant] = []
    town.world.trace.subscribe(lambda entry: said.append(entry.at), [SendData])
    began = town.now
    town.say("alice")
    town.run(SECOND)
    assert said == [began + BEFORE]


def test_the_next_turn_begins_when_everything_has_been_done() -> None:
    town, alice, heard = slow_alice()
    began = town.now
    town.say("alice", b"one")
    town.say("alice", b"two")
    town.run(SECOND)
    assert orders(alice)[-2:] == [began + BEFORE, began + BEFORE + AFTER + BEFORE]
    assert heard == [began + turns * (BEFORE + AFTER) + ONE_WAY for turns in (1, 2)]


def test_what_one_turn_does_comes_before_the_next_that_begins_at_the_same_instant() -> None:
    town, _, heard = slow_alice(before=0)
    began = town.now
    town.say("alice", b"one")
    town.say("alice", b"two")
    town.run(SECOND)
    assert town.diaries["server"].data == b"onetwo"
    assert heard == [began + turns * AFTER + ONE_WAY for turns in (1, 2)]


def test_who_dies_in_the_middle_of_a_turn_has_not_done_it() -> None:
    town, alice, heard = slow_alice()
    town.say("alice")
    town.run(BEFORE + 1)
    town.world.hosts["alice"].crash(Crash.VANISH)
    town.run(SECOND)
    assert orders(alice)[-1] == town.now - SECOND - 1
    assert not heard


def test_who_stops_in_the_middle_of_a_turn_does_it_first() -> None:
    town, _, heard = slow_alice()
    began = town.now
    town.say("alice")
    town.run(BEFORE + 1)
    town.world.hosts["alice"].stop()
    town.run(SECOND)
    assert heard == [began + BEFORE + 1 + ONE_WAY]


def test_a_host_without_a_pace_is_quick_again_when_the_last_turn_is_over() -> None:
    town, _, heard = slow_alice()
    began = town.now
    town.say("alice", b"one")
    town.world.hosts["alice"].pace = None
    town.run(BEFORE + 1)
    town.say("alice", b"two")
    town.run(SECOND)
    assert heard == [began + BEFORE + AFTER + ONE_WAY]
    assert town.diaries["server"].data == b"onetwo"
    later = town.now
    town.say("alice", b"three")
    town.run(SECOND)
    assert heard[-1] == later + ONE_WAY
