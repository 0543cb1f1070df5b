"""The pool's index chooses as `routing.decide` does, whatever happened to the pool before."""

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from teale_proto.effects import Path
from teale_proto.inputs import LOCAL, NodeId
from teale_proto.pool import Pool
from teale_proto.routing import Standing, decide

NAMES = [NodeId(f"node-{number}") for number in range(6)]
MODELS = ("m", "n")

standings = st.builds(
    Standing,
    node=st.sampled_from(NAMES),
    display_name=st.just("x"),
    path=st.sampled_from([Path.LAN, Path.RELAY]),
    handle=st.just(1),
    loaded_models=st.sampled_from([(), ("m",), ("n",), MODELS]),
    swappable_models=st.sampled_from([(), ("m",)]),
    queue_depth=st.integers(0, 5),
    queue_max=st.just(5),
    tokens_per_second=st.sampled_from([None, 10.0, 12.5, 40.0, 50.0, 0.0]),
    throttle_percent=st.sampled_from([0, 50, 100]),
    thermal_level=st.sampled_from(["nominal", "fair", "serious", "critical", "unheard of"]),
    degraded=st.booleans(),
    on_battery=st.sampled_from([False, False, True]),
)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), standings, st.integers(0, 2)),
        st.tuples(st.just("remove"), st.sampled_from(NAMES)),
        st.tuples(st.just("count"), st.sampled_from(NAMES), st.integers(0, 2)),
    ),
    max_size=20,
)


def own(**facts: Any) -> Standing:
    return Standing(NodeId("own"), "own", Path.LOCAL, LOCAL, **facts)


@given(
    changes=changes,
    own_models=st.sampled_from([(), ("m",)]),
    own_speed=st.sampled_from([None, 5.0, 20.0, 45.0]),
    own_in_flight=st.integers(0, 2),
    seed=st.integers(0, 1000),
)
def test_the_index_and_the_full_view_choose_the_same_node(
    changes: list[Any],
    own_models: tuple[str, ...],
    own_speed: float | None,
    own_in_flight: int,
    seed: int,
) -> None:
    pool = Pool()
    known: dict[NodeId, Standing] = {}
    in_flight: dict[NodeId, int] = {}
    for what, *rest in changes:
        if what == "put":
            standing, count = rest
            pool.put(standing, count)
            known[standing.node], in_flight[standing.node] = standing, count
        elif what == "remove":
            pool.remove(rest[0])
            known.pop(rest[0], None)
        elif rest[0] in known:
            pool.count(*rest)
            in_flight[rest[0]] = rest[1]
    here = own(loaded_models=own_models, tokens_per_second=own_speed)
    assert set(pool) == set(known.values())
    for model in MODELS:
        chosen = pool.choose(model, here, own_in_flight, Random(seed))
        view = decide(
            model,
            [here, *known.values()],
            in_flight={**in_flight, here.node: own_in_flight},
            excluded={},
            rng=Random(seed),
        )
        assert (chosen.node if chosen else None) == view.winner


def test_an_emptied_pool_holds_nothing() -> None:
    pool = Pool()
    for name in NAMES:
        pool.put(Standing(name, "x", Path.LAN, 1, ("m",), tokens_per_second=3.0), 0)
    for name in [*NAMES, *NAMES]:
        pool.remove(name)
        pool.count(name, 3)
    assert len(pool) == 0
    assert pool._by_model == {}
    assert pool._speeds == []
    assert pool.choose("m", own(loaded_models=()), 0, Random(0)) is None
