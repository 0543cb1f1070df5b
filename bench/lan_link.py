"""A LAN link between two processes: bulk, round trip, rate, set-up and memory, over loopback TCP.

Ours is a link as nodes use it, with the drivers that nodes run: encrypted and verified end to end. Beside it, in
the same run and with the same messages, are plain TCP as the limit and other encrypted stacks as peers. Every
message is answered, so that nothing is counted that has not arrived.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from bench._harness import (
    HERE,
    Figure,
    Run,
    Skipped,
    node_program,
    npm_folder,
    npm_version,
    pinned,
    python_folder,
    rss_kib,
    run_as_script,
)
from bench.relay import allow_files

LIBP2P: Final = ("libp2p", "@libp2p/tcp", "@chainsafe/libp2p-noise", "@chainsafe/libp2p-yamux")
CALL_SECONDS: Final = 120

UNITS: Final = {"bulk": "MB/s", "ping": "µs", "rate": "msg/s", "setup": "ms"}
COUNTS: Final = {"bulk": 256, "ping": 2000, "rate": 20_000, "setup": 20}
HELD: Final = 200


class Stack(NamedTuple):
    """How the ends of one stack of protocols are run."""

    name: str
    command: list[str]
    environ: dict[str, str]
    share: float = 1.0
    """Which part of the usual work is enough."""


def ours_and_limits() -> list[Stack]:
    """Return what can always be measured."""
    plain = [sys.executable, "-m", "bench._ends_plain"]
    link = [sys.executable, "-m", "bench._ends_link"]
    return [
        Stack("plain blocking sockets", [*plain, "blocking"], {}),
        Stack("plain trio TCP", [*plain, "trio"], {}),
        Stack("teale link", [*link, "link"], {}),
        Stack("teale records, no codec", [*link, "records"], {}),
    ]


def iroh(run: Run) -> Stack:
    """Return iroh's Python package."""
    folder = python_folder("iroh")
    described = next(folder.glob("iroh-*.dist-info")).name
    run.versions["iroh"] = described.removeprefix("iroh-").removesuffix(".dist-info")
    return Stack("iroh (Python)", [sys.executable, "-m", "bench.peers.iroh_ends"], {"PYTHONPATH": str(folder)}, 0.5)


def libp2p(run: Run) -> Stack:
    """Return js-libp2p over TCP, Noise and yamux."""
    folder = npm_folder(*LIBP2P)
    # A module of node finds its packages from where it lies itself.
    script = Path(shutil.copy(HERE / "peers" / "libp2p_ends.mjs", folder))
    run.versions["libp2p"] = npm_version("libp2p")
    return Stack("js-libp2p", [node_program(), str(script)], {}, 0.5)


def measure(run: Run) -> None:
    """Measure everything."""
    allow_files()
    stacks = ours_and_limits()
    for name, make in (("iroh", iroh), ("js-libp2p", libp2p)):
        if (stack := run.attempt(name, partial(make, run))) is not None:
            stacks.append(stack)
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(run.rounds):
        for stack in stacks:
            for what in UNITS:
                found = run.attempt(f"{what} of {stack.name}", partial(once, stack, what, quick=run.quick))
                taken.setdefault((what, stack.name), []).extend([] if found is None else [found])
    figures = {
        (what, name): run.add(f"{name}, {what}", UNITS[what], runs)
        for (what, name), runs in sorted(taken.items(), key=lambda item: list(UNITS).index(item[0][0]))
        if runs
    }
    for stack in stacks[1:]:
        grown = run.attempt(f"memory of {stack.name}", partial(growth, stack, 20 if run.quick else HELD))
        if grown is not None:
            figures["memory", stack.name] = run.add(f"{stack.name}, memory at the server", "KiB/conn", [grown])
    claims(run, figures)


def claims(run: Run, figures: dict[tuple[str, str], Figure]) -> None:
    """Compare with the targets."""
    peers = ("iroh (Python)", "js-libp2p")
    better = "the better of iroh and js-libp2p"

    def of(what: str, *names: str, best: Callable[..., Figure] = max) -> Figure | None:
        found = [figures[what, name] for name in names if (what, name) in figures]
        return best(found, key=lambda figure: figure.median) if found else None

    for ours in ("teale link", "teale records, no codec"):
        bulk, rate = figures["bulk", ours], figures["rate", ours]
        run.at_least(f"{ours}: bulk", bulk, of("bulk", "plain trio TCP"), 0.75, "plain trio TCP, 1 MiB messages")
        run.at_least(f"{ours}: bulk", bulk, of("bulk", "js-libp2p"), 3, "js-libp2p")
        run.at_least(f"{ours}: message rate", rate, of("rate", *peers), 3, f"{better}, 64 in flight")
        run.at_most(f"{ours}: round trip", figures["ping", ours], of("ping", *peers, best=min), 0.6, better)
        run.below(f"{ours}: set-up", figures["setup", ours], 2, "connect, handshake, first message answered")
        run.below(f"{ours}: memory", figures["memory", ours], 100, "resident memory of the server / connections")


def once(stack: Stack, what: str, *, quick: bool) -> float:
    """Run both ends once and return the figure."""
    count = max(1, int(COUNTS[what] * stack.share * (0.25 if quick else 1)))
    with serving(stack) as (_, address):
        found = told(call(stack, address, what, count))
    if what != "setup":
        return float(found)
    # The first connection of a process pays for what is loaded late.
    later = sorted(found[1:] or found)
    return float(later[len(later) // 2])


def growth(stack: Stack, connections: int) -> float:
    """Return KiB of the server's resident memory for each open connection that has been used once."""
    with serving(stack) as (server, address):
        told(call(stack, address, "setup", 3))
        before = rss_kib(server)
        command = [*stack.command, "client", address, "hold", str(connections)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ(stack)
        ) as client:
            assert client.stdout is not None
            if b"held" not in client.stdout.readline():
                raise Skipped("the client did not hold its connections")
            return (rss_kib(server) - before) / connections


@contextmanager
def serving(stack: Stack) -> Iterator[tuple[int, str]]:
    """Run a server; yield its process id and its address."""
    with subprocess.Popen(
        [*stack.command, "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environ(stack),
        preexec_fn=pinned(0),
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                raise Skipped("the server did not start")
            yield server.pid, told(line)
        finally:
            server.kill()


def call(stack: Stack, address: str, what: str, count: int) -> bytes:
    """Run a client and return what it says."""
    command = [*stack.command, "client", address, what, str(count)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CALL_SECONDS,
            env=environ(stack),
            preexec_fn=pinned(1),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Skipped(f"nothing after {CALL_SECONDS} s") from None
    if done.returncode:
        raise Skipped((done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"])[-1][:200])
    return done.stdout


def environ(stack: Stack) -> dict[str, str]:
    """Return the environment of a stack's ends."""
    root = str(HERE.parent)
    added = dict(stack.environ)
    added["PYTHONPATH"] = os.pathsep.join(filter(None, (root, added.get("PYTHONPATH"))))
    return os.environ | added


def told(line: bytes) -> Any:
    """Return what an end has said."""
    return msgspec.json.decode(line)


if __name__ == "__main__":
    run_as_script(Path(__file__).stem, measure, __doc__)
