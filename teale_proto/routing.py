"""Which node answers a request: a pure decision over what is known of each, with its reasons.

Healthy nodes come before degraded ones, fewer requests in flight before more, a loaded model before one
that must be swapped in. Among those that are then equal, this machine is taken if it scores at least half of the
best, since an answer from here crosses no network and tells nobody. Otherwise whoever scores below 0.8 of the best
is dropped, and one of the rest is drawn at random, so that a pool does not stampede its fastest member.

`decide` weighs everybody and says why; `pool` comes to the same choice from an index, without looking at all.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from teale_proto.contract import Value
from teale_proto.effects import Path
from teale_proto.inputs import NodeId, Whom
from teale_proto.rng import Rng
from teale_proto.status import Candidate, Explanation

THERMAL_WEIGHT: Final = {"nominal": 1.0, "fair": 0.8, "serious": 0.3, "critical": 0.0}
SWAP_PENALTY: Final = 0.25
NEAR_EQUAL: Final = 0.8
GOOD_ENOUGH_HERE: Final = 0.5
UNKNOWN_SPEED: Final = 1.0
"""Tokens a second of a node that has not told, where nobody has; otherwise it is assumed as fast as the fastest."""

Rank: TypeAlias = tuple[bool, int, bool]
"""What comes before any score; the lower rank wins."""


class Standing(Value):
    """What routing needs to know of one node."""

    node: NodeId
    display_name: str
    path: Path
    handle: Whom
    """Whom the request would be asked of: the node, or a conversation with it."""
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
    assumed = max((s.tokens_per_second for s in standings if s.tokens_per_second), default=UNKNOWN_SPEED)
    reasons = {s.node: excluded.get(s.node) or ineligible(s, model) for s in standings}
    eligible = [s for s in standings if not reasons[s.node]]
    scores = {s.node: score(s, model, assumed) for s in standings}
    winner = _choose(eligible, model, in_flight, scores, reasons, rng)
    able = {s.node for s in eligible}
    candidates = tuple(
        Candidate(
            node_id=s.node,
            display_name=s.display_name,
            path=s.path,
            eligible=s.node in able,
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


def ineligible(standing: Standing, model: str) -> str:
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


def rank(standing: Standing, model: str, in_flight: int) -> Rank:
    """Return what counts before the score: health, our own requests there, and whether the model is loaded."""
    return standing.degraded, in_flight, model not in standing.loaded_models


def readiness(standing: Standing, model: str) -> float:
    """Return the part of its speed that a node can give to a request, 0 to 1: the deployed system's factors."""
    room = 1 - min(standing.queue_depth, standing.queue_max) / standing.queue_max
    thermal = THERMAL_WEIGHT.get(standing.thermal_level, 1.0)
    loaded = 1.0 if model in standing.loaded_models else SWAP_PENALTY
    return room * standing.throttle_percent / 100 * thermal * loaded


def score(standing: Standing, model: str, assumed: float) -> float:
    """Return speed times readiness; a node whose speed is unknown is assumed to have that of the fastest."""
    return (standing.tokens_per_second or assumed) * readiness(standing, model)


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
    ranks = {s.node: rank(s, model, in_flight.get(s.node, 0)) for s in eligible}
    best = min(ranks.values())
    for standing in eligible:
        reasons[standing.node] = _why_outranked(ranks[standing.node], best)
    rest = [s for s in eligible if ranks[s.node] == best]
    best_score = max(scores[s.node] for s in rest)
    for standing in rest:
        if standing.path is Path.LOCAL and scores[standing.node] >= GOOD_ENOUGH_HERE * best_score:
            reasons |= {s.node: "this machine is good enough" for s in rest}
            reasons[standing.node] = "it is this machine, and good enough" if len(eligible) > 1 else "the only one"
            return standing.node
    near = [s for s in rest if scores[s.node] >= NEAR_EQUAL * best_score]
    # The order of the index, so that one draw means the same node there.
    near.sort(key=lambda s: (not s.tokens_per_second, scores[s.node], s.node))
    winner = near[rng.randrange(len(near))]
    reasons |= {s.node: f"scores below {NEAR_EQUAL} of the best" for s in rest}
    reasons |= {s.node: "near-equal; another was chosen" for s in near}
    if len(near) > 1:
        reasons[winner.node] = f"drawn at random from {len(near)} near-equal nodes"
    else:
        reasons[winner.node] = "the best" if len(eligible) > 1 else "the only one"
    return winner.node


def _why_outranked(ours: Rank, best: Rank) -> str:
    if ours[0] != best[0]:
        return "has missed a heartbeat, and others have not"
    if ours[1] != best[1]:
        return "answers more of our requests than others"
    return "would have to load the model first" if ours[2] != best[2] else ""
