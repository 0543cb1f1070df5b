"""What all benchmarks share: how figures are kept, compared, shown and saved, and how peers are got hold of.

A figure is the median of several runs with its spread. A comparison is what a target speaks of: a ratio, or a
figure against a bound, with the condition under which it was measured. Programs that a benchmark compares with
are installed outside of the repository, in a cache folder of the user; where that fails they are left out, and
the results say so.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE.parent / "results" / "bench"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "teale-bench"
INSTALL_SECONDS: Final = 300
ROUNDS: Final = 5

T = TypeVar("T")
console = Console(highlight=False, width=150 if not sys.stdout.isatty() else None)


class Skipped(Exception):
    """Something could not be measured here; the text says why."""


class Figure(msgspec.Struct, frozen=True):
    """One measured quantity: the median of its runs, and how far they lie apart."""

    name: str
    unit: str
    runs: list[float]

    @property
    def median(self) -> float:
        """The middle of the runs."""
        return statistics.median(self.runs)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median."""
        return (max(self.runs) - min(self.runs)) / self.median if self.median else 0.0


class Claim(msgspec.Struct, frozen=True):
    """One line of the table that matters: what was aimed at, and what came out."""

    what: str
    target: str
    measured: str
    ratio: str
    met: bool | None
    """None where the target could not be judged."""
    condition: str


class Run:
    """One execution of one benchmark; collects what it measures."""

    def __init__(self, name: str, *, quick: bool, rounds: int = ROUNDS) -> None:
        self.name: Final = name
        self.quick: Final = quick
        self.rounds: Final = 1 if quick else rounds
        """How often everything is measured."""
        self.figures: dict[str, Figure] = {}
        self.claims: list[Claim] = []
        self.notes: list[str] = []
        self.versions: dict[str, str] = {}
        self._load_before = os.getloadavg()

    def add(self, name: str, unit: str, runs: Iterable[float]) -> Figure:
        """Keep a figure, say it, and return it."""
        figure = self.figures[name] = Figure(name, unit, list(runs))
        console.print(f"  {name:58} {number(figure.median):>12} {unit:10} ±{figure.spread / 2:4.0%}", markup=False)
        return figure

    def claim(
        self, what: str, *, target: str, measured: str, ratio: str = "-", met: bool | None, condition: str
    ) -> None:
        """Keep a line of the table."""
        self.claims.append(Claim(what, target, measured, ratio, met, condition))

    def at_least(self, what: str, ours: Figure, other: Figure | None, bound: float, condition: str) -> None:
        """Claim that ours is at least `bound` times the other."""
        self._ratio(what, ours, other, f"≥ {bound:g}", lambda ratio: ratio >= bound, condition)

    def at_most(self, what: str, ours: Figure, other: Figure | None, bound: float, condition: str) -> None:
        """Claim that ours is at most `bound` times the other."""
        self._ratio(what, ours, other, f"≤ {bound:g}", lambda ratio: ratio <= bound, condition)

    def compare(self, what: str, ours: Figure, other: Figure, condition: str) -> None:
        """Show a ratio that no target speaks of."""
        against = f"{number(ours.median)} {ours.unit} / {number(other.median)}"
        self.claim(
            what, target="-", measured=against, ratio=f"{ours.median / other.median:.2f}", met=None, condition=condition
        )

    def below(self, what: str, ours: Figure, bound: float, condition: str) -> None:
        """Claim that ours is below a bound in its own unit."""
        self.claim(
            what,
            target=f"< {bound:g} {ours.unit}",
            measured=f"{number(ours.median)} {ours.unit}",
            ratio=f"{ours.median / bound:.2f}",
            met=ours.median < bound,
            condition=condition,
        )

    def _ratio(
        self, what: str, ours: Figure, other: Figure | None, target: str, is_met: Callable[[float], bool], why: str
    ) -> None:
        shown = f"{number(ours.median)} {ours.unit}"
        if other is None:
            self.claim(what, target=target, measured=shown, met=None, condition=f"{why}; not measured here")
            return
        ratio = ours.median / other.median
        against = f"{shown} / {number(other.median)}"
        self.claim(what, target=target, measured=against, ratio=f"{ratio:.2f}", met=is_met(ratio), condition=why)

    def note(self, text: str) -> None:
        """Say something that a reader of the figures has to know."""
        self.notes.append(text)
        console.print(f"  note: {text}", markup=False, style="dim")

    def attempt(self, what: str, measure: Callable[[], T]) -> T | None:
        """Measure something that may not be possible here."""
        try:
            return measure()
        except (Skipped, OSError, subprocess.SubprocessError) as error:
            self.note(f"{what} left out: {error}")
            return None

    def save(self) -> Path:
        """Write everything to `results/bench/NAME.json`; return where. A quick run overwrites no full one."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / (f"{self.name}.quick.json" if self.quick else f"{self.name}.json")
        record = {
            "benchmark": self.name,
            "quick": self.quick,
            "rounds": self.rounds,
            "machine": machine(),
            "load_average_before": [round(load, 2) for load in self._load_before],
            "load_average_after": [round(load, 2) for load in os.getloadavg()],
            "versions": {"python": platform.python_version()} | our_versions() | self.versions,
            "figures": {
                name: {"unit": f.unit, "median": f.median, "spread": round(f.spread, 4), "runs": f.runs}
                for name, f in self.figures.items()
            },
            "claims": self.claims,
            "notes": self.notes,
        }
        path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
        return path


def run_as_script(name: str, measure: Callable[[Run], None], about: str | None) -> None:
    """Run one benchmark from the command line: measure, show, save."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=about)
    add_options(parser)
    chosen = parser.parse_args()
    execute(Run(name, quick=chosen.quick, rounds=chosen.rounds), measure)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every benchmark understands."""
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; the figures are rough")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often everything is measured (%(default)s)")


def execute(run: Run, measure: Callable[[Run], None]) -> Run:
    """Measure, show and save one benchmark."""
    console.rule(f"{run.name}{' (quick)' if run.quick else ''}")
    measure(run)
    console.print(table_of(run.claims))
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    console.print(f"load average {loads} on {os.cpu_count()} cores; saved {run.save()}", markup=False)
    return run


def table_of(claims: Sequence[Claim]) -> Table:
    """Return the lines as a table."""
    table = Table("what", "target", "measured", "ratio", "met", "condition", box=box.SIMPLE_HEAD)
    for claim in claims:
        met = {True: "yes", False: "NO", None: ""}[claim.met]
        table.add_row(claim.what, claim.target, claim.measured, claim.ratio, met, claim.condition)
    return table


def number(value: float) -> str:
    """Return a number with three or four significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


# The machine.


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, and when."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def our_versions() -> dict[str, str]:
    """Return the versions of what our figures depend on."""
    packages = ("trio", "msgspec", "cryptography", "websockets", "noiseprotocol", "simpy")
    return {package: metadata.version(package) for package in packages}


def rss_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise Skipped(f"process {pid} has no memory")


def pinned(core: int) -> Callable[[], None]:
    """Return what keeps a new process on one core, for `preexec_fn`; where there is only one, nothing does.

    Without it the scheduler now and then puts both ends of a conversation on one core, and figures jump by a half.
    """
    cores = sorted(os.sched_getaffinity(0))
    return lambda: os.sched_setaffinity(0, {cores[core % len(cores)]})


# Programs to compare with.


def compiled(source: str) -> Path:
    """Return the program that `bench/SOURCE` compiles to; raises Skipped without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Skipped("there is no C compiler")
    text = (HERE / source).read_bytes()
    program = CACHE / f"{Path(source).stem}-{sha256(text).hexdigest()[:12]}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        _quietly([compiler, "-O2", "-Wall", "-o", str(program), str(HERE / source)])
    return program


def npm_folder(*packages: str) -> Path:
    """Return a folder in whose `node_modules` the packages are; raises Skipped where they cannot be installed."""
    folder = CACHE / "npm"
    if not all((folder / "node_modules" / package).is_dir() for package in packages):
        npm = shutil.which("npm")
        if npm is None:
            raise Skipped("there is no npm")
        folder.mkdir(parents=True, exist_ok=True)
        _quietly([npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *packages], cwd=folder)
    return folder


def npm_version(package: str) -> str:
    """Return the version of an installed npm package."""
    described = (CACHE / "npm" / "node_modules" / package / "package.json").read_bytes()
    version: str = msgspec.json.decode(described)["version"]
    return version


def node_program() -> str:
    """Return the path of node; raises Skipped where it is not installed."""
    if (node := shutil.which("node")) is None:
        raise Skipped("node is not installed")
    return node


def python_folder(package: str) -> Path:
    """Return a folder for PYTHONPATH that holds a package of the index; raises Skipped where there is none."""
    folder = CACHE / package
    if not (folder / package).is_dir():
        _quietly([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), package])
    return folder


def _quietly(command: Sequence[str], *, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Skipped(f"{Path(command[0]).name} took too long") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Skipped(f"{Path(command[0]).name} failed: {''.join(last)[:200]}")
