"""QUIC between two processes: bulk, round trip, rate, set-up, resumption and memory, over loopback.

Ours is the endpoint that nodes use, over each library that is installed. Beside it, in the same run and with the
same messages, are aioquic's own asyncio driver, with windows and socket buffers as large as ours, and plain TCP as
the limit. Ours also proves both node ids in every handshake, which neither of the others does.
"""

import importlib.util
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final

from bench._harness import Figure, Run, Skipped, run_as_script
from bench.lan_link import Stack, call, growth, iroh, serving, told
from bench.relay import allow_files

UNITS: Final = {"bulk": "MB/s", "ping": "µs", "rate": "msg/s", "setup": "ms", "resume": "ms"}
COUNTS: Final = {"bulk": 256, "ping": 1000, "rate": 20_000, "setup": 20, "resume": 20}
HELD: Final = 200

TCP: Final = "plain trio TCP"
STOCK: Final = "aioquic's own driver"
OURS: Final = {"qh3": "teale over qh3", "aioquic": "teale over aioquic"}


def stacks(run: Run) -> list[Stack]:
    """Return what can be measured here."""
    ends = [sys.executable, "-m", "bench._ends_quic"]
    found = [Stack(TCP, [sys.executable, "-m", "bench._ends_plain", "trio"], {})]
    for library, name in OURS.items():
        if importlib.util.find_spec(library) is None:
            run.note(f"{name} left out: {library} is not installed")
            continue
        run.versions[library] = metadata.version(library)
        found.append(Stack(name, [*ends, library], {}, 1.0 if library == "qh3" else 0.1))
    found.append(Stack(STOCK, [*ends, "stock"], {}, 0.1))
    if (other := run.attempt("iroh (Python)", partial(iroh, run))) is not None:
        found.append(other)
    return found


def measure(run: Run) -> None:
    """Measure everything."""
    allow_files()
    present = stacks(run)
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(run.rounds):
        for stack in present:
            for what in UNITS:
                if what == "resume" and stack.name not in (*OURS.values(), STOCK):
                    continue
                found = run.attempt(f"{what} of {stack.name}", partial(once, stack, what, quick=run.quick))
                taken.setdefault((what, stack.name), []).extend([] if found is None else [found])
    figures = {
        (what, name): run.add(f"{name}, {what}", UNITS[what], runs)
        for (what, name), runs in sorted(taken.items(), key=lambda item: list(UNITS).index(item[0][0]))
        if runs
    }
    for stack in present:
        grown = run.attempt(f"memory of {stack.name}", partial(growth, stack, 20 if run.quick else HELD))
        if grown is not None:
            figures["memory", stack.name] = run.add(f"{stack.name}, memory at the server", "KiB/conn", [grown])
    claims(run, figures)


def once(stack: Stack, what: str, *, quick: bool) -> float:
    """Run both ends once and return the figure."""
    count = max(4, int(COUNTS[what] * stack.share * (0.25 if quick else 1)))
    with serving(stack) as (_, address):
        found = told(call(stack, address, what, count))
    if what not in ("setup", "resume"):
        return float(found)
    # The first connection of a process pays for what is loaded late, and has nothing to resume.
    later = sorted(found[1:])
    if not later:
        raise Skipped("one connection is not enough")
    return float(later[len(later) // 2])


def claims(run: Run, figures: dict[tuple[str, str], Figure]) -> None:
    """Compare with the targets."""
    for name in OURS.values():
        if ("bulk", name) not in figures:
            continue
        bulk = figures["bulk", name]
        if name == OURS["qh3"]:
            run.at_least(f"{name}: bulk", bulk, figures.get(("bulk", "iroh (Python)")), 1.3, "iroh's Python package")
            run.at_least(f"{name}: bulk", bulk, figures.get(("bulk", STOCK)), 20, STOCK)
        else:
            run.compare(f"{name}: bulk", bulk, figures["bulk", STOCK], STOCK)
        run.compare(f"{name}: bulk", bulk, figures["bulk", TCP], TCP)
        run.compare(f"{name}: message rate", figures["rate", name], figures["rate", STOCK], f"{STOCK}, 64 in flight")
        run.compare(f"{name}: round trip", figures["ping", name], figures["ping", STOCK], STOCK)
        run.below(f"{name}: set-up", figures["setup", name], 6, "both ids proved, first message answered")
        run.compare(f"{name}: 0-RTT", figures["resume", name], figures["resume", STOCK], STOCK)
        run.below(f"{name}: memory", figures["memory", name], 100, "resident memory of the server / connections")


if __name__ == "__main__":
    run_as_script(Path(__file__).stem, measure, __doc__)
