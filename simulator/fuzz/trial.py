"""One run of one described world, up to the end or to the first rule that it breaks.

A run is stopped in the very entry of the trace that breaks the rule, so that the digest of what led to it says
whether another run came to the same event.
"""

import traceback
from typing import Final

from simulator.checkers import Violation
from simulator.fuzz.capsule import TAIL
from simulator.fuzz.values import Broken
from simulator.host import CoreError
from simulator.spec.build import build
from simulator.spec.units import microseconds
from simulator.spec.world_spec import WorldSpec
from simulator.trace import lines
from simulator.world import World
from teale_proto.contract import SECOND, Value

NO_CORE_RAISES: Final = "no core raises"
SIMULATOR_HOLDS: Final = "the simulator itself does not fail"


class Trial(Value):
    """What came of a run."""

    broken: Broken | None
    digest: str
    entries: int
    simulated_seconds: float
    at_end: bool
    """Whether it was only the end that showed what was broken; then the run cannot be cut short."""
    tail: tuple[str, ...] = ()
    """The last entries of the trace as text, where a rule was broken."""


class _Stopped(Exception):
    """Unwinds a run from the entry in which a rule was broken."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.rule)
        self.broken = broken


def run(spec: WorldSpec, seed: int) -> Trial:
    """Run a described world, and stop at the first violation; whatever a core or the simulator raises is one too."""
    broken: Broken | None = None
    at_end = False
    world = World(seed, fidelity=spec.fidelity)
    try:
        build(spec, world)
        for checker in world.checkers:
            checker.alarm = _stop
        world.run_until(microseconds(spec.lasts))
        at_end = True
        world.report(spec.name, 0.0)
    except _Stopped as stopped:
        broken = stopped.broken
    except CoreError as error:
        cause = type(error.__cause__).__name__ if error.__cause__ is not None else "contract"
        broken = Broken(f"{NO_CORE_RAISES} ({cause})", world.engine.now, "", f"{error}{_place(error.__cause__)}")
    except Exception as error:
        rule = f"{SIMULATOR_HOLDS} ({type(error).__name__})"
        broken = Broken(rule, world.engine.now, "", f"{error!r}{_place(error)}")
    trace = world.trace
    tail = tuple(lines(list(trace.tail)[-TAIL:]).splitlines()) if broken is not None else ()
    seconds = world.engine.now / SECOND
    return Trial(broken, trace.digest, trace.count, seconds, at_end and broken is not None, tail)


def _stop(rule: str, violation: Violation) -> None:
    raise _Stopped(Broken(rule, violation.at, violation.host, violation.what))


def _place(error: BaseException | None) -> str:
    """Return where an error was raised: the file's name and the function, which mean the same on every machine."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    if not frames:
        return ""
    package, _, name = frames[-1].filename.replace("\\", "/").rpartition("/")
    return f" in {package.rpartition('/')[2]}/{name}, {frames[-1].name}"
