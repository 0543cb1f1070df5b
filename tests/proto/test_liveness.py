"""Silence becomes degraded, then lost; a word undoes the first and not the second."""

import pytest

from teale_proto.contract import NEVER, SECOND
from teale_proto.effects import PeerState
from teale_proto.liveness import ANSWER_WITHIN, INTERVALS, ON, SUSPECT_FOR, Due, Liveness, Trigger

INTERVAL = 15 * SECOND


def test_a_heartbeat_is_due_an_interval_after_the_last() -> None:
    liveness = Liveness(INTERVAL, 0)
    assert liveness.due_at == 15 * SECOND
    assert liveness.fired(15 * SECOND) == Due(send_heartbeat=True, change=None)
    liveness.heartbeat_sent(15 * SECOND)
    liveness.heard(16 * SECOND)
    assert liveness.due_at == 30 * SECOND


def test_one_missed_heartbeat_degrades() -> None:
    liveness = Liveness(INTERVAL, 0)
    assert liveness.fired(22 * SECOND).change is None
    assert liveness.fired(22 * SECOND + SECOND // 2).change is PeerState.DEGRADED


@pytest.mark.parametrize("interval", INTERVALS)
def test_three_intervals_of_silence_lose_a_peer_and_not_a_moment_less(interval: int) -> None:
    liveness = Liveness(interval, 0)
    liveness.fired(3 * interval - 1)
    assert liveness.state is PeerState.DEGRADED
    assert liveness.fired(3 * interval) == Due(send_heartbeat=False, change=PeerState.LOST)
    assert liveness.due_at == NEVER


def test_a_word_restores_a_degraded_peer() -> None:
    liveness = Liveness(INTERVAL, 0)
    liveness.fired(40 * SECOND)
    assert liveness.heard(44 * SECOND) is PeerState.CONNECTED
    assert liveness.heard(44 * SECOND) is None
    assert liveness.fired(45 * SECOND).change is None
    assert liveness.silence(50 * SECOND) == 6 * SECOND


def test_a_lost_peer_stays_lost() -> None:
    liveness = Liveness(INTERVAL, 0)
    liveness.fired(45 * SECOND)
    assert liveness.heard(46 * SECOND) is None
    assert liveness.state is PeerState.LOST


def test_the_answer_to_a_heartbeat_measures_the_round_trip_once() -> None:
    liveness = Liveness(INTERVAL, 0)
    liveness.heartbeat_answered(SECOND)
    assert liveness.round_trip is None
    liveness.heartbeat_sent(15 * SECOND)
    liveness.heartbeat_answered(15 * SECOND + 20_000)
    liveness.heartbeat_answered(99 * SECOND)
    assert liveness.round_trip == 20_000


def test_the_next_wake_up_is_always_later_than_the_last() -> None:
    liveness, now = Liveness(INTERVAL, 0), 0
    while liveness.due_at != NEVER:
        assert liveness.due_at > now
        now = liveness.due_at
        if liveness.fired(now).send_heartbeat:
            liveness.heartbeat_sent(now)
    assert now == 45 * SECOND


def test_the_state_table_has_no_way_out_of_lost() -> None:
    assert not [state for state, _ in ON if state is PeerState.LOST]
    assert {trigger for _, trigger in ON} == set(Trigger)


def test_a_doubted_peer_is_degraded_until_it_is_heard() -> None:
    liveness = Liveness(15 * SECOND, 0)
    assert liveness.doubt(SECOND) is PeerState.DEGRADED
    assert liveness.doubt(2 * SECOND) is None
    assert liveness.fired(2 * SECOND) == Due(send_heartbeat=True, change=None)
    assert liveness.heard(3 * SECOND) is PeerState.CONNECTED


def test_a_suspect_is_lost_unless_it_is_heard_in_time() -> None:
    for answers in (True, False):
        liveness = Liveness(15 * SECOND, 0)
        liveness.suspect(SECOND)
        assert liveness.due_at == SECOND
        assert liveness.fired(SECOND) == Due(send_heartbeat=True, change=None)
        liveness.heartbeat_sent(SECOND)
        if answers:
            liveness.heard(2 * SECOND)
            assert liveness.due_at == 16 * SECOND
        else:
            assert liveness.due_at == SECOND + SUSPECT_FOR
            assert liveness.fired(SECOND + SUSPECT_FOR).change is PeerState.LOST


def test_a_shorter_interval_counts_the_silence_before_it_but_for_the_time_that_an_answer_takes() -> None:
    liveness = Liveness(60 * SECOND, 0)
    liveness.pace(15 * SECOND, 40 * SECOND)
    assert liveness.fired(40 * SECOND) == Due(send_heartbeat=True, change=None)
    liveness.heartbeat_sent(40 * SECOND)
    missed_at = 40 * SECOND + ANSWER_WITHIN + 15 * SECOND // 2
    assert liveness.fired(missed_at - 1).change is None
    assert liveness.fired(missed_at).change is PeerState.DEGRADED
