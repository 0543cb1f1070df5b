"""What a scenario is, and how one is found and run.

A scenario is a Python file with a module-level `SCENARIO`: what it is called, what it shows, how long it lasts, and
a function that fills a world. It is found by name in the package `scenarios`, or by path.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, NamedTuple

from simulator.host import CoreError
from simulator.report import Report
from simulator.trace import Subscriber
from simulator.world import World
from teale_proto.contract import Duration


class Scenario(NamedTuple):
    """A world, what happens in it, and what must stay true."""

    name: str
    summary: str
    """One sentence for `teale-sim list`."""
    lasts: Duration
    build: Callable[[World], None]
    """Adds hosts and checkers to an empty world and schedules what happens."""


class ScenarioError(Exception):
    """A scenario that cannot be found, loaded or built; the text says where and what was expected."""


def scenario_folder() -> Path:
    """Return the folder of the package `scenarios`; raises ScenarioError where it is not installed."""
    spec = importlib.util.find_spec("scenarios")
    if spec is None or not spec.submodule_search_locations:
        raise ScenarioError("the package `scenarios` is not installed here; give the path of a scenario's file")
    return Path(spec.submodule_search_locations[0])


def scenario_names() -> list[str]:
    """Return the names of the scenarios of the package, sorted."""
    return sorted(path.stem for path in scenario_folder().glob("*.py") if not path.stem.startswith("_"))


def load(name_or_path: str) -> Scenario:
    """Return a scenario by its name or by the path of its file.

    Raises ScenarioError when there is none, or when the file is not a scenario.
    """
    if name_or_path.endswith(".py") or "/" in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            raise ScenarioError(f"{path}: there is no such file")
    else:
        path = scenario_folder() / f"{name_or_path}.py"
        if name_or_path not in scenario_names():
            raise ScenarioError(f"there is no scenario {name_or_path!r}; there are: {', '.join(scenario_names())}")
    scenario = getattr(_module(path), "SCENARIO", None)
    if not isinstance(scenario, Scenario):
        found = "nothing" if scenario is None else type(scenario).__name__
        raise ScenarioError(f"{path}: expected a module-level `SCENARIO = Scenario(…)`, found {found}")
    _check_fields(path, scenario)
    return scenario


def run(scenario: Scenario, seed: int, *, subscribe: Subscriber | None = None, world: World | None = None) -> Report:
    """Run a scenario and return what came of it; `subscribe` gets every entry of the trace.

    Raises ScenarioError when the scenario's own code fails, and CoreError when a core raises.
    """
    world = World(seed) if world is None else world
    if subscribe is not None:
        world.trace.subscribe(subscribe)
    began = perf_counter()
    try:
        scenario.build(world)
        world.run_until(scenario.lasts)
    except CoreError:
        raise
    except Exception as error:
        source = getattr(getattr(scenario.build, "__code__", None), "co_filename", "")
        if not _is_within(error, Path(source)):
            # Not the scenario's doing, but a bug of the simulator.
            raise
        raise ScenarioError(
            f"{_place(error, Path(source))}: the scenario {scenario.name!r} failed: {error!r}"
        ) from error
    return world.report(scenario.name, perf_counter() - began)


def _module(path: Path) -> ModuleType:
    # Not under the file's own name: a scenario given by path must not hide an installed module.
    name = f"_teale_scenario_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ScenarioError(f"{error.filename}:{error.lineno}: not valid Python: {error.msg}") from error
    except Exception as error:
        raise ScenarioError(f"{_place(error, path)}: loading the scenario failed: {error!r}") from error
    finally:
        del sys.modules[name]
    return module


def _check_fields(path: Path, scenario: Scenario) -> None:
    # Whoever wrote the file may have ignored the types.
    fields: dict[str, Any] = scenario._asdict()
    problems = [
        f"`{field}` must be {kind.__name__}, not {type(fields[field]).__name__}"
        for field, kind in (("name", str), ("summary", str), ("lasts", int))
        if type(fields[field]) is not kind
    ]
    if not problems and scenario.lasts <= 0:
        problems.append("`lasts` must be a positive number of microseconds")
    if not callable(fields["build"]):
        problems.append(f"`build` must be a function of a World, not {type(fields['build']).__name__}")
    if problems:
        raise ScenarioError(f"{path}: SCENARIO is not right: {'; '.join(problems)}")


def _frames(error: BaseException, path: Path) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if Path(frame.filename).resolve() == path.resolve()]


def _is_within(error: BaseException, path: Path) -> bool:
    return bool(_frames(error, path))


def _place(error: BaseException, path: Path) -> str:
    """Return the file and the last line of it that an error passed through."""
    frames = _frames(error, path)
    return f"{path}:{frames[-1].lineno}" if frames else str(path)
