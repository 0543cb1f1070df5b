"""A relay that is about to end: who is let go at once, who has time, and when the nodes come back."""

from random import Random
from typing import Any

import pytest

from teale_proto.contract import SECOND
from teale_proto.effects import ReportRelay
from teale_proto.inputs import ConnectionAccepted, DrainRequested, StopRequested
from teale_proto.relay.client import SessionClosed
from teale_proto.wire.relay import Error, RelayClose, RelayData, RelayOpen, RelayReady
from tests.proto.relay.relays import ALICE, BOB, CAROL, HOST, LOCAL, MALLORY, REMOTE, RawNode, Relay
from tests.proto.relay.scripted import ScriptedRelay, connected

LAST_WORD = Error("shutting_down", "the relay is stopping", 5.0)
PATIENCE = DrainRequested(10 * SECOND)


def drained() -> tuple[Relay, RawNode, RawNode, RawNode]:
    """Return a draining relay, two nodes with a session `s`, and one without."""
    relay = Relay()
    alice, bob, carol = relay.node(ALICE), relay.node(BOB), relay.node(CAROL)
    alice.say(RelayOpen(ALICE.node_id, BOB.node_id, "s"))
    bob.say(RelayReady(BOB.node_id, ALICE.node_id, "s"))
    for node in (alice, bob):
        node.inbox.clear()
    relay.feed(PATIENCE)
    return relay, alice, bob, carol


def test_everybody_is_told_and_the_idle_are_let_go() -> None:
    relay = Relay()
    stranger = RawNode(relay, MALLORY)
    relay.hang_up(stranger.connection)
    relay, alice, bob, carol = drained()
    assert alice.take() == bob.take() == carol.take() == [LAST_WORD]
    assert (carol.closed, carol.close_code) == ("the relay is stopping", 1012)
    assert alice.closed is bob.closed is None
    assert relay.server.metrics(relay.now).is_draining


def test_a_stranger_is_let_go_at_once() -> None:
    relay = Relay()
    stranger = RawNode(relay, ALICE)
    relay.feed(PATIENCE)
    assert (stranger.take(), stranger.close_code) == ([LAST_WORD], 1012)


def test_what_is_under_way_goes_on_and_its_end_lets_both_go() -> None:
    relay, alice, bob, _ = drained()
    alice.say(RelayData(ALICE.node_id, BOB.node_id, "s", b"the rest"))
    assert bob.take()[-1] == RelayData(ALICE.node_id, BOB.node_id, "s", b"the rest")
    bob.say(RelayClose(BOB.node_id, ALICE.node_id, "s"))
    assert alice.take()[-1] == RelayClose(BOB.node_id, ALICE.node_id, "s")
    assert alice.close_code == bob.close_code == 1012
    assert relay.server.health().peers == 0


def test_who_loses_his_last_session_by_the_other_s_end_is_let_go() -> None:
    relay, alice, bob, _ = drained()
    alice.hang_up()
    assert bob.close_code == 1012
    assert relay.server.health().peers == 0


def test_patience_ends() -> None:
    relay, alice, bob, _ = drained()
    for node in (alice, bob):
        node.inbox.clear()
    relay.advance(10 * SECOND - 1)
    assert alice.closed is None
    relay.advance(1)
    assert alice.close_code == bob.close_code == 1012
    assert alice.take() == bob.take() == [], "they know"
    assert relay.server.metrics(relay.now).sessions == 0


def test_nothing_new_begins() -> None:
    relay, alice, bob, _ = drained()
    alice.inbox.clear()
    alice.say(RelayOpen(ALICE.node_id, BOB.node_id, "another"))
    assert alice.take() == [Error("shutting_down", "the relay is stopping", None, "another")]
    late = RawNode(relay, MALLORY)
    assert (late.closed, late.close_code, late.inbox) == ("the relay is stopping", 1012, [])
    assert bob.closed is None


def test_a_second_request_changes_nothing_and_a_stop_ends_it() -> None:
    relay, alice, _, _ = drained()
    alice.inbox.clear()
    assert relay.feed(PATIENCE) == []
    relay.feed(StopRequested())
    assert (alice.close_code, alice.inbox) == (1001, [])
    assert relay.feed(PATIENCE) == []
    late = relay.feed(ConnectionAccepted(1000, REMOTE, LOCAL, HOST))
    assert len(late) == 2


def test_no_patience_is_the_end_at_the_next_instant() -> None:
    relay = Relay()
    alice, bob = relay.node(ALICE), relay.node(BOB)
    alice.say(RelayOpen(ALICE.node_id, BOB.node_id, "s"))
    relay.feed(DrainRequested(0))
    relay.advance(1)
    assert alice.closed is not None
    assert bob.closed is not None


# The nodes.


def retry_of(relay: ScriptedRelay) -> Any:
    last = relay.out[-1]
    assert isinstance(last, ReportRelay)
    return last


@pytest.mark.parametrize("code", ["shutting_down", "overloaded", "rate_limited"])
def test_a_node_stays_away_as_long_as_it_was_told_and_up_to_twice_that(code: str) -> None:
    relay = connected(ALICE)
    relay.say(Error(code, "come back later", 30.0))
    relay.news += relay.client.closed("closed by the other side (1012)", relay.now, relay.out)
    waits = retry_of(relay).retry_in
    assert 30 * SECOND <= waits < 60 * SECOND


def test_nodes_that_were_told_the_same_do_not_come_back_together() -> None:
    waits = set()
    for seed in range(10):
        relay = ScriptedRelay(ALICE)
        relay.client._rng = Random(seed)
        relay.accept()
        relay.acknowledge()
        relay.say(Error("shutting_down", "later", 30.0))
        relay.client.closed("gone", relay.now, relay.out)
        waits.add(retry_of(relay).retry_in // SECOND)
    assert len(waits) > 5


def test_the_time_that_was_told_counts_from_when_it_was_told() -> None:
    relay = connected(ALICE)
    relay.say(Error("shutting_down", "later", 8.0))
    relay.advance(7 * SECOND)
    relay.client.closed("gone", relay.now, relay.out)
    assert retry_of(relay).retry_in < 4 * SECOND
    assert retry_of(relay).reason == "the relay says: later"


def test_no_relay_makes_a_node_stay_away_for_ever() -> None:
    relay = connected(ALICE)
    relay.say(Error("overloaded", "never", 1e12))
    relay.client.closed("gone", relay.now, relay.out)
    assert 120 * SECOND <= retry_of(relay).retry_in < 240 * SECOND


def test_a_node_forgets_the_wait_once_it_has_come_back() -> None:
    relay = connected(ALICE)
    relay.say(Error("shutting_down", "later", 60.0))
    relay.client.closed("gone", relay.now, relay.out)
    relay.advance(120 * SECOND)
    relay.accept()
    relay.acknowledge()
    relay.client.closed("gone again", relay.now, relay.out)
    assert retry_of(relay).retry_in <= 8 * SECOND


def test_a_node_keeps_its_sessions_while_the_relay_drains_and_is_refused_new_ones() -> None:
    relay = Relay()
    alice, bob = relay.client(ALICE), relay.client(BOB)
    session = alice.client.open_session(BOB.node_id, relay.now, alice.effects)
    alice.carry_out()
    relay.feed(PATIENCE)
    for node in (alice, bob):
        node.take_news()
    assert alice.client.send(session, b"still", relay.now, alice.effects)
    alice.carry_out()
    assert len(bob.take_news()) == 1
    refused = alice.client.open_session(BOB.node_id, relay.now, alice.effects)
    alice.carry_out()
    assert alice.take_news() == [SessionClosed(refused, BOB.node_id, "shutting_down")]
    alice.client.close_session(session, relay.now, alice.effects)
    alice.carry_out()
    assert alice.states[-1] == bob.states[-1] == "waiting"
