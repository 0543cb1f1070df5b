"""The routing decision: what a node does to place one request among 10, 100 and 1,000 candidates.

Measured is `Exchange.place`, which chooses, notes the attempt and builds the request, on an exchange that knows all
candidates and has others of its requests under way. Beside it stand what a heartbeat costs, which keeps the index
true, and `decide`, which weighs everybody and says why: that is what a retry and `teale route` pay.
"""

from collections.abc import Callable
from pathlib import Path as FilePath
from random import Random
from time import perf_counter_ns
from typing import Any, Final

from bench._harness import Run, percentile, run_as_script
from teale_proto.contract import SECOND
from teale_proto.effects import Path
from teale_proto.exchange import Exchange
from teale_proto.inputs import Ask, NodeId, Task
from teale_proto.routing import Standing
from teale_proto.timers import Timers

MODEL: Final = "bench-model"
BODY: Final = b'{"model":"bench-model","messages":[{"role":"user","content":"hello"}],"stream":true}'
TARGET_US: Final = 50
UNDER_WAY: Final = 64
"""Requests that are being answered meanwhile."""


def measure(run: Run) -> None:
    """Measure everything."""
    times, rounds = 300 if run.quick else 3000, run.rounds
    for candidates in (10, 100, 1000):
        rng = Random(candidates)
        found = [place(candidates, times, rng) for _ in range(rounds)]
        placed = run.add(f"place, {candidates:,} candidates, median", "µs", [percentile(each, 50) for each in found])
        run.add(f"place, {candidates:,} candidates, p99", "µs", [percentile(each, 99) for each in found])
        beats = [heartbeat(candidates, times, rng) for _ in range(rounds)]
        run.add(f"a heartbeat's news, {candidates:,} candidates", "µs", [percentile(each, 50) for each in beats])
        weighed = [weigh(candidates, max(5, times // 100), rng) for _ in range(rounds)]
        run.add(f"weighing everybody, {candidates:,} candidates", "µs", [percentile(each, 50) for each in weighed])
        condition = f"{candidates:,} candidates, {UNDER_WAY} requests under way"
        run.below("routing decision", placed, TARGET_US, condition)


def standing(number: int, rng: Random) -> Standing:
    """Return a candidate of varied speed, queue and health; one in four has not told its speed."""
    return Standing(
        node=node_id(number),
        display_name=f"node {number}",
        path=Path.LAN if number % 3 else Path.RELAY,
        handle=2 * number + 1,
        loaded_models=(MODEL, f"model-{number % 7}"),
        queue_depth=rng.randrange(4),
        tokens_per_second=None if number % 4 == 0 else 20.0 + 80 * rng.random(),
        thermal_level=rng.choice(("nominal", "nominal", "fair", "serious")),
        degraded=number % 50 == 0,
    )


def node_id(number: int) -> NodeId:
    """Return the id of a candidate."""
    return NodeId(f"{number:064x}")


def exchange_with(candidates: int, rng: Random) -> Exchange:
    """Return an exchange that knows so many candidates and has requests under way."""
    exchange = Exchange(node_id(1 << 20), "bench", running_max=1, queue_max=256, timers=Timers(), rng=rng)
    for number in range(candidates):
        exchange.node_changed(node_id(number), standing(number, rng))
    for number in range(UNDER_WAY):
        _ask(exchange, f"under-way-{number}")
        _place(exchange)
    return exchange


def place(candidates: int, times: int, rng: Random) -> list[float]:
    """Return the µs that placing a request took, one value a request."""
    exchange = exchange_with(candidates, rng)

    def end() -> None:
        exchange.cancel("asked", 0, [])

    return _timed(times, before=lambda: _ask(exchange, "asked"), act=lambda: _place(exchange), after=end)


def heartbeat(candidates: int, times: int, rng: Random) -> list[float]:
    """Return the µs that taking in the news of one node took."""
    exchange = exchange_with(candidates, rng)
    news: list[Standing] = []

    def draw() -> None:
        news.append(standing(rng.randrange(candidates), rng))

    return _timed(times, before=draw, act=lambda: exchange.node_changed(news[-1].node, news[-1]), after=lambda: None)


def weigh(candidates: int, times: int, rng: Random) -> list[float]:
    """Return the µs that it took to weigh everybody."""
    exchange = exchange_with(candidates, rng)
    return _timed(times, before=lambda: None, act=lambda: exchange.explain(MODEL, rng), after=lambda: None)


def _ask(exchange: Exchange, request: str) -> None:
    exchange.begin(Ask(request, Task.CHAT, MODEL, BODY, True, 300 * SECOND), 0)


def _place(exchange: Exchange) -> None:
    for asked in exchange.waiting():
        assert exchange.place(asked, 0, [])


def _timed(times: int, *, before: Callable[[], None], act: Callable[[], Any], after: Callable[[], None]) -> list[float]:
    taken = []
    for _ in range(times):
        before()
        began = perf_counter_ns()
        act()
        taken.append((perf_counter_ns() - began) / 1000)
        after()
    return taken


if __name__ == "__main__":
    run_as_script(FilePath(__file__).stem, measure, __doc__)
