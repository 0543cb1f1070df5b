"""Who answers: grids of standings and the node that must win."""

from random import Random
from typing import Any

import pytest

from teale_proto.effects import Path
from teale_proto.inputs import LOCAL, NodeId
from teale_proto.routing import Standing, decide
from teale_proto.status import Explanation

MODEL = "m"


def standing(name: str, **facts: Any) -> Standing:
    facts.setdefault("loaded_models", (MODEL,))
    facts.setdefault("path", Path.LAN)
    return Standing(node=NodeId(name), display_name=name, handle=facts.pop("handle", 1), **facts)


def choose(
    *standings: Standing, busy: dict[str, int] | None = None, barred: dict[str, str] | None = None
) -> Explanation:
    in_flight = {NodeId(name): count for name, count in (busy or {}).items()}
    excluded = {NodeId(name): why for name, why in (barred or {}).items()}
    return decide(MODEL, standings, in_flight=in_flight, excluded=excluded, rng=Random(0))


def reason(explanation: Explanation, name: str) -> str:
    return next(c.reason for c in explanation.candidates if c.node_id == name)


@pytest.mark.parametrize(
    ("loser", "why"),
    [
        ({"loaded_models": ()}, "does not have the model"),
        ({"on_battery": True}, "runs on battery"),
        ({"queue_depth": 256}, "its queue is full"),
        ({"thermal_level": "critical"}, "is too hot"),
        ({"throttle_percent": 0}, "is throttled to nothing"),
    ],
)
def test_a_node_that_cannot_serve_is_not_eligible_and_is_told_why(loser: dict[str, Any], why: str) -> None:
    explanation = choose(standing("a", **loser), standing("b"))
    assert explanation.winner == "b"
    assert not explanation.candidates[0].eligible
    assert reason(explanation, "a") == why
    assert choose(standing("a", **loser)).winner is None


@pytest.mark.parametrize(
    ("loser", "winner", "why"),
    [
        ({"degraded": True}, {}, "has missed a heartbeat, and others have not"),
        (
            {"loaded_models": (), "swappable_models": (MODEL,)},
            {},
            "would have to load the model first",
        ),
        ({"tokens_per_second": 79.0}, {"tokens_per_second": 100.0}, "scores below 0.8 of the best"),
        ({"thermal_level": "serious"}, {"thermal_level": "fair"}, "scores below 0.8 of the best"),
        ({"throttle_percent": 50}, {}, "scores below 0.8 of the best"),
        ({"queue_depth": 100}, {"queue_depth": 2}, "scores below 0.8 of the best"),
    ],
)
def test_the_better_node_wins_and_the_other_knows_why(loser: dict[str, Any], winner: dict[str, Any], why: str) -> None:
    for order in (1, -1):
        standings = [standing("loser", **loser), standing("winner", **winner)][::order]
        explanation = choose(*standings)
        assert explanation.winner == "winner"
        assert explanation.reason == "the best"
        assert reason(explanation, "loser") == why


def test_fewer_requests_in_flight_come_before_speed() -> None:
    slow, fast = standing("slow", tokens_per_second=1.0), standing("fast", tokens_per_second=100.0)
    explanation = choose(slow, fast, busy={"fast": 1})
    assert explanation.winner == "slow"
    assert reason(explanation, "fast") == "answers more of our requests than others"


def test_health_comes_before_requests_in_flight() -> None:
    assert choose(standing("well"), standing("ill", degraded=True), busy={"well": 5}).winner == "well"


def test_a_degraded_node_is_better_than_none() -> None:
    explanation = choose(standing("ill", degraded=True))
    assert explanation.winner == "ill"
    assert explanation.reason == "the only one"


def test_a_node_that_failed_this_request_is_not_asked_again() -> None:
    explanation = choose(standing("a"), standing("b"), barred={"a": "died"})
    assert explanation.winner == "b"
    assert reason(explanation, "a") == "died"


def test_this_machine_is_taken_where_it_is_half_as_good_as_the_best() -> None:
    here = standing("here", path=Path.LOCAL, handle=LOCAL, tokens_per_second=50.0)
    explanation = choose(standing("there", tokens_per_second=100.0), here)
    assert explanation.winner == "here"
    assert explanation.reason == "it is this machine, and good enough"
    assert reason(explanation, "there") == "this machine is good enough"


def test_this_machine_is_not_taken_where_another_is_much_better() -> None:
    here = standing("here", path=Path.LOCAL, handle=LOCAL, tokens_per_second=49.0)
    assert choose(standing("there", tokens_per_second=100.0), here).winner == "there"


def test_among_near_equals_all_are_drawn_and_nobody_else() -> None:
    standings = [standing(name, tokens_per_second=speed) for name, speed in (("a", 100.0), ("b", 81.0), ("c", 79.0))]
    rng = Random(1)
    drawn = [decide(MODEL, standings, in_flight={}, excluded={}, rng=rng).winner for _ in range(200)]
    assert set(drawn) == {"a", "b"}
    assert 60 < drawn.count(NodeId("a")) < 140


def test_a_node_of_unknown_speed_is_tried() -> None:
    standings = [standing("known", tokens_per_second=50.0), standing("new")]
    rng = Random(1)
    assert {decide(MODEL, standings, in_flight={}, excluded={}, rng=rng).winner for _ in range(50)} == {"known", "new"}


def test_the_score_is_that_of_the_deployed_system() -> None:
    explanation = choose(
        standing("a", tokens_per_second=40.0, queue_depth=64, throttle_percent=50, thermal_level="fair")
    )
    assert explanation.candidates[0].score == pytest.approx(40 * 0.75 * 0.5 * 0.8)


def test_nobody_wins_an_empty_pool() -> None:
    explanation = choose()
    assert explanation.winner is None
    assert explanation.reason == "no connected node can serve 'm' now"
