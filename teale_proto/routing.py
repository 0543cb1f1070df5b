"""Which node answers a request: a pure decision over what is known of each, with its reasons.

Healthy nodes come before degraded ones, fewer requests in flight before more, a loaded model before one
that must be swapped in. Among those that are then equal, this machine is taken if it scores at least half of the
best, since an answer from here crosses no network and tells nobody. Otherwise whoever scores below 0.8 of the best
is dropped, and one of the rest is drawn at random, so that a pool does not stampede its fastest member.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from teale_proto.contract import Value
from teale_proto.effects import Path
from teale_proto.inputs import Handle, NodeId
from teale_proto.rng import Rng
from teale_proto.status import Candidate, Explanation

THERMAL_WEIGHT: Final = {"nominal": 1.0, "fair": 0.8, "serious": 0.3, "critical": 0.0}
SWAP_PENALTY: Final = 0.25
NEAR_EQUAL: Final = 0.8
GOOD_ENOUGH_HERE: Final = 0.5


class Standing(Value):
    """What routing needs to know of one node."""

    node: NodeId
    display_name: str
    path: Path
    handle: Handle
    """The conversation that would carry the request."""
    loaded_models: tuple[str, ...]
    swappable_models: tuple[str, ...] = ()
    queue_depth: int = 0
    queue_max: int = 256
    tokens_per_second: float | None = None
    throttle_percent: int = 100
    thermal_level: str = "nominal"
    degraded: bool = False
    on_battery: bool = False


def decide(
    model: str,
    standings: Sequence[Standing],
    *,
    in_flight: Mapping[NodeId, int],
    excluded: Mapping[NodeId, str],
    rng: Rng,
) -> Explanation:
    """Return who should answer a request for `model`, and why everybody else should not.

    `in_flight` counts our requests that a node is answering; `excluded` says why this request must not go to a node.
    """
    assumed = max((s.tokens_per_second for s in standings if s.tokens_per_second), default=1.0)
    reasons = {s.node: excluded.get(s.node) or _ineligible(s, model) for s in standings}
    eligible = [s for s in standings if not reasons[s.node]]
    scores = {s.node: _score(s, model, assumed) for s in standings}
    winner = _choose(eligible, model, in_flight, scores, reasons, rng)
    candidates = tuple(
        Candidate(
            node_id=s.node,
            display_name=s.display_name,
            path=s.path,
            eligible=s in eligible,
            score=round(scores[s.node], 6),
            in_flight=in_flight.get(s.node, 0),
            won=s.node == winner,
            reason=reasons[s.node],
        )
        for s in standings
    )
    if winner is None:
        return Explanation(model, None, candidates, f"no connected node can serve {model!r} now")
    return Explanation(model, winner, candidates, reasons[winner])


def _ineligible(standing: Standing, model: str) -> str:
    """Return why this node cannot serve, or "" when it can."""
    if model not in standing.loaded_models and model not in standing.swappable_models:
        return "does not have the model"
    if standing.on_battery:
        return "runs on battery"
    if standing.queue_depth >= standing.queue_max:
        return "its queue is full"
    if THERMAL_WEIGHT.get(standing.thermal_level, 1.0) == 0.0:
        return "is too hot"
    if standing.throttle_percent == 0:
        return "is throttled to nothing"
    return ""


def _score(standing: Standing, model: str, assumed: float) -> float:
    """Return the deployed system's score.

    A node whose speed is unknown is assumed to be as fast as the fastest, so that it is tried.
    """
    speed = standing.tokens_per_second or assumed
    room = 1 - min(standing.queue_depth, standing.queue_max) / standing.queue_max
    thermal = THERMAL_WEIGHT.get(standing.thermal_level, 1.0)
    loaded = 1.0 if model in standing.loaded_models else SWAP_PENALTY
    return speed * room * standing.throttle_percent / 100 * thermal * loaded


def _choose(
    eligible: list[Standing],
    model: str,
    in_flight: Mapping[NodeId, int],
    scores: Mapping[NodeId, float],
    reasons: dict[NodeId, str],
    rng: Rng,
) -> NodeId | None:
    """Narrow the eligible down to one, and note for each why it lost or won."""
    if not eligible:
        return None
    rest = eligible
    for key, loss in (
        (lambda s: s.degraded, "has missed a heartbeat, and others have not"),
        (lambda s: in_flight.get(s.node, 0), "answers more of our requests than others"),
        (lambda s: model not in s.loaded_models, "would have to load the model first"),
    ):
        best = min(map(key, rest))
        for standing in rest:
            if key(standing) != best:
                reasons[standing.node] = loss
        rest = [s for s in rest if key(s) == best]
    best_score = max(scores[s.node] for s in rest)
    for standing in rest:
        if standing.path is Path.LOCAL and scores[standing.node] >= GOOD_ENOUGH_HERE * best_score:
            reasons |= {s.node: "this machine is good enough" for s in rest}
            reasons[standing.node] = "it is this machine, and good enough" if len(eligible) > 1 else "the only one"
            return standing.node
    near = [s for s in rest if scores[s.node] >= NEAR_EQUAL * best_score]
    winner = near[rng.randrange(len(near))]
    reasons |= {s.node: f"scores below {NEAR_EQUAL} of the best" for s in rest if s not in near}
    reasons |= {s.node: "near-equal; another was chosen" for s in near}
    if len(near) > 1:
        reasons[winner.node] = f"drawn at random from {len(near)} near-equal nodes"
    else:
        reasons[winner.node] = "the best" if len(eligible) > 1 else "the only one"
    return winner.node
