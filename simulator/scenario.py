"""What a scenario is, and how one is found and run.

A scenario is a Python file with a module-level `SCENARIO` or a TOML file. The first holds a `Scenario` (a function
that fills a world) or a `WorldSpec` (a description of one), the second always a description. It is found by name in
the package `scenarios`, or by path.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from simulator.garbage import seldom_collected
from simulator.host import CoreError
from simulator.report import Report
from simulator.trace import Subscriber
from simulator.world import World
from teale_proto.contract import SECOND, Duration, Instant

if TYPE_CHECKING:
    from simulator.spec.world_spec import WorldSpec

ENDINGS: Final = (".py", ".toml")
"""What the files of scenarios end in."""

PROGRESS_STEPS: Final = 400
"""How often a run says how far it is, at least; one that lasts longer does so every second of virtual time."""

_DESCRIPTIONS: Final = ("access", "faults", "load", "population", "world_spec")
"""The modules of `simulator.spec` whose classes make up a description."""

Progress = Callable[[Instant], None]
"""Is told, every now and then, how far the virtual time of a run has come."""


class Scenario(NamedTuple):
    """A world, what happens in it, and what must stay true."""

    name: str
    summary: str
    """One sentence for `teale-sim list`."""
    lasts: Duration
    build: Callable[[World], None]
    """Adds hosts and checkers to an empty world and schedules what happens."""
    spec: "WorldSpec | None" = None
    """The description that the world was made from, where there is one."""


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
    folder = scenario_folder()
    return sorted({path.stem for end in ENDINGS for path in folder.glob(f"*{end}") if not path.stem.startswith("_")})


def find(name_or_path: str) -> Path:
    """Return the file of a scenario by its name or path; raises ScenarioError when there is none."""
    if name_or_path.endswith(ENDINGS) or "/" in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            raise ScenarioError(f"{path}: there is no such file")
        if path.suffix not in ENDINGS:
            raise ScenarioError(f"{path}: a scenario's file ends in {' or '.join(ENDINGS)}")
        return path
    if name_or_path not in scenario_names():
        raise ScenarioError(f"there is no scenario {name_or_path!r}; there are: {', '.join(scenario_names())}")
    return next(path for end in ENDINGS if (path := scenario_folder() / f"{name_or_path}{end}").is_file())


def load(name_or_path: str) -> Scenario:
    """Return a scenario by its name or by the path of its file.

    Raises ScenarioError when there is none, or when the file is not a scenario.
    """
    path = find(name_or_path)
    if path.suffix == ".toml":
        return _from_toml(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from error
    return from_python(text, path)


def from_python(text: str, path: Path) -> Scenario:
    """Return the scenario that a Python text holds, which stands (or stood, on another machine) in the file `path`.

    Raises ScenarioError for anything else.
    """
    found: Any = getattr(_module(text, path), "SCENARIO", None)
    if isinstance(found, Scenario):
        _check_fields(path, found)
        return found
    if type(found).__name__ == "WorldSpec":
        return _from_spec(found, text, path)
    kind = "nothing" if found is None else type(found).__name__
    raise ScenarioError(
        f"{path}: expected a module-level `SCENARIO = Scenario(…)` or `SCENARIO = WorldSpec(…)`, found {kind}"
    )


def with_settings(scenario: Scenario, settings: Mapping[str, Any]) -> Scenario:
    """Return a scenario with knobs of its description turned, in the order in which they are given.

    Raises ScenarioError for a scenario without a description, a knob that is not there and a value that it does
    not take.
    """
    if not settings:
        return scenario
    spec = scenario.spec
    if spec is None:
        raise ScenarioError(
            f"{next(iter(settings))}: the scenario {scenario.name!r} is a program and has no knobs; "
            "only descriptions (TOML, or Python with `SCENARIO = WorldSpec(…)`) have them"
        )
    from simulator.spec.build import scenario_of
    from simulator.spec.reading import SpecError, changed

    for path, value in settings.items():
        try:
            spec = changed(spec, path, value)
        except SpecError as error:
            raise ScenarioError(str(error)) from error
    return scenario_of(spec)


def world_of(scenario: Scenario, seed: int) -> World:
    """Return the empty world in which a scenario is to be run, at the fidelity that its description asks for."""
    return World(seed) if scenario.spec is None else World(seed, fidelity=scenario.spec.fidelity)


def run(
    scenario: Scenario,
    seed: int,
    *,
    subscribe: Subscriber | None = None,
    world: World | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run a scenario and return what came of it; `subscribe` gets every entry of the trace.

    Raises ScenarioError when the scenario's own code fails, and CoreError when a core raises.
    """
    world = world_of(scenario, seed) if world is None else world
    if subscribe is not None:
        world.trace.subscribe(subscribe)
    began = perf_counter()
    try:
        with seldom_collected():
            scenario.build(world)
            # Stopping on the way changes nothing: events happen at the same instants in the same order.
            steps = 1 if progress is None else max(PROGRESS_STEPS, scenario.lasts // SECOND)
            for step in range(1, steps + 1):
                world.run_until(scenario.lasts * step // steps)
                if progress is not None:
                    progress(world.engine.now)
    except CoreError:
        raise
    # A program that ends itself must not end what judges it, least of all with an exit code of its own.
    except (Exception, SystemExit) as error:
        source = getattr(getattr(scenario.build, "__code__", None), "co_filename", "")
        if scenario.spec is not None or not _is_within(error, Path(source)):
            # Not the scenario's doing, but a bug of the simulator.
            raise
        raise ScenarioError(
            f"{_place(error, Path(source))}: the scenario {scenario.name!r} failed: {error!r}"
        ) from error
    return world.report(scenario.name, perf_counter() - began)


def _from_toml(path: Path) -> Scenario:
    from simulator.locating import closer
    from simulator.spec.reading import SpecError, read_toml

    try:
        spec = read_toml(path)
    except SpecError as error:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        raise ScenarioError(closer(str(error), text)) from error
    from simulator.spec.build import scenario_of

    return scenario_of(spec)


def _from_spec(spec: "WorldSpec", text: str, path: Path) -> Scenario:
    from simulator.spec.build import scenario_of
    from simulator.spec.world_spec import WorldSpec, to_builtins

    try:
        # There and back again, because Python lets any value stand in any field.
        return scenario_of(msgspec.convert(to_builtins(spec), WorldSpec))
    except (msgspec.ValidationError, TypeError) as error:
        raise ScenarioError(_complaint(text, path) or f"{path}: SCENARIO is not right: {error}") from error


def _module(text: str, path: Path) -> ModuleType:
    # Not under the file's own name: a scenario given by path must not hide an installed module.
    name = f"_teale_scenario_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102 - a scenario is a program
    except SyntaxError as error:
        raise ScenarioError(f"{error.filename}:{error.lineno}: not valid Python: {error.msg}") from error
    except (Exception, SystemExit) as error:
        message = f"{_place(error, path)}: loading the scenario failed: {error!r}"
        raise ScenarioError((_complaint(text, path) if _is_of_spec(error) else None) or message) from error
    finally:
        del sys.modules[name]
    return module


def _is_of_spec(error: BaseException) -> bool:
    """Whether a description refused its values: its fields do not know the name, or their check raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, TypeError) or Path(last.filename).parent.name == "spec"


def _complaint(text: str, path: Path) -> str | None:
    from simulator.locating import complaint_about

    modules = [importlib.import_module(f"simulator.spec.{name}") for name in _DESCRIPTIONS]
    complaint = complaint_about(text, {module.__name__: module for module in modules})
    return None if complaint is None else f"{path}:{complaint.line}: {complaint.what}"


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
