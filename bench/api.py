"""The API's overhead to the first token: over the backend alone, through a peer on the LAN, through the relay.

The overhead is the time to the first token, as a client in another process sees it, less the time to the first
token when the same backend object is called directly. The ways through a peer are those of the real programs with the
real tiny model; what they add is counted from the API of the node that has the model.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from bench._api_node import INSTANT
from bench._harness import HERE, Figure, Run, Skipped, percentile, run_as_script
from bench._relay_client import our_relay
from teale_io.inference.builtin import TINY_MODEL
from teale_io.paths import Paths, Runtime, read_runtime

T = TypeVar("T")

TARGET_MS: Final = 2
READY_SECONDS: Final = 60


def measure(run: Run) -> None:
    """Measure everything."""
    count, rounds = 20 if run.quick else 50, 1 if run.quick else 2 * run.rounds
    for kind in (INSTANT, "tiny"):
        over_backend(run, kind, count, rounds)
    run.attempt("ways through a peer", partial(through_peers, run, count // 2, rounds))


def over_backend(run: Run, kind: str, count: int, rounds: int) -> None:
    """Measure what the API adds to a backend."""
    command = [sys.executable, "-m", "bench._api_node", kind, str(count), str(rounds)]
    done = subprocess.run(command, capture_output=True, cwd=HERE.parent, check=False)
    if done.returncode:
        raise Skipped(done.stderr.decode(errors="replace")[-300:])
    found: dict[str, list[list[float]]] = json.loads(done.stdout)
    backend = {"tiny": "the tiny model"}.get(kind, "a backend that needs no time")
    medians = {way: [percentile(each, 50) for each in taken] for way, taken in found.items()}
    run.add(f"{backend}, called directly, first token", "ms", medians["direct"])
    run.add(f"{backend}, through the API, first token", "ms", medians["api"])
    slowest = [percentile(each, 99) for each in found["api"]]
    run.add(f"{backend}, through the API, first token, p99", "ms", slowest)
    added = [api - direct for direct, api in zip(medians["direct"], medians["api"], strict=True)]
    overhead = run.add(f"overhead over {backend}", "ms", added)
    run.below("API overhead to first token", overhead, TARGET_MS, f"{backend}, same object, same process")


def through_peers(run: Run, count: int, rounds: int) -> None:
    """Measure what a peer adds, on the LAN and through the relay."""
    with ExitStack() as stack:
        homes = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="teale-bench-")))
        relay = stack.enter_context(our_relay())
        lan = {"lan_enabled": True, "lan_host": "127.0.0.1", "lan_interfaces": ["127.0.0.1"]}
        wan = {"wan_enabled": True, "wan_relay_url": f"ws://127.0.0.1:{relay.address[1]}/ws"}
        servers = {
            "the LAN": (start_node(stack, homes / "server-lan", builtin_model=True, **lan), lan),
            "the relay": (start_node(stack, homes / "server-wan", builtin_model=True, **wan), wan),
        }
        for way, (server, settings) in servers.items():
            wait_for(f"the model of the server on {way}", partial(serves, server))
            asker = start_node(stack, homes / f"asker-{len(settings)}", builtin_model=False, **settings)
            if run.attempt(way, partial(wait_for, f"a peer through {way}", partial(knows_a_server, asker))) is None:
                continue
            first(server, 5), first(asker, 5)
            here, there = [], []
            for _ in range(rounds):
                here.append(percentile(first(server, count), 50))
                there.append(percentile(first(asker, count), 50))
            run.add(f"the tiny model, asked at its own node ({way})", "ms", here)
            run.add(f"the tiny model, asked through {way}", "ms", there)
            added = run.add(f"added by {way}", "ms", [b - a for a, b in zip(here, there, strict=True)])
            show(run, way, added)


def show(run: Run, way: str, added: Figure) -> None:
    """Put what a way adds into the table; no target speaks of it."""
    run.claim(
        f"first token, added by a peer through {way}",
        target="-",
        measured=f"{added.median:.2f} ms",
        met=None,
        condition="three processes and more on the machine, tiny model",
    )


def start_node(stack: ExitStack, home: Path, *, builtin_model: bool, **settings: object) -> Runtime:
    """Run `teale-node` with a folder of its own; return where it is."""
    given = {
        "display_name": home.name,
        "api_port": 0,
        "lan_port": 0,
        "lan_enabled": False,
        "identity_storage": "plain-file",
        "log_level": "error",
        "builtin_model": builtin_model,
        **settings,
    }
    home.mkdir(mode=0o700)
    # Strings, numbers, switches and lists of strings are the same in JSON and in TOML.
    (home / "config.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items()))
    program = Path(sys.executable).parent / "teale-node"
    log = stack.enter_context((home / "node.log").open("wb"))
    process = subprocess.Popen([program], stdout=log, stderr=log, env={"TEALE_HOME": str(home), "PATH": ""})
    stack.callback(process.wait)
    stack.callback(process.kill)

    def runtime() -> Runtime | None:
        if process.poll() is not None:
            raise Skipped(f"teale-node ended: {(home / 'node.log').read_text()[-300:]}")
        return read_runtime(Paths.below(home))

    return wait_for("teale-node", runtime)


def wait_for(what: str, look: Callable[[], T | None]) -> T:
    """Return the first thing that `look` finds."""
    give_up_at = time.monotonic() + READY_SECONDS
    while not (found := look()):
        if time.monotonic() > give_up_at:
            raise Skipped(f"{what}: nothing after {READY_SECONDS} s")
        time.sleep(0.05)
    return found


def serves(node: Runtime) -> bool:
    """Return whether a node has loaded its model."""
    return TINY_MODEL in httpx.get(f"{node.api_url}/api/status").json()["loaded_models"]


def knows_a_server(node: Runtime) -> bool:
    """Return whether a node is connected to one that has the model."""
    peers: list[dict[str, Any]] = httpx.get(f"{node.api_url}/api/peers").json()["connected"]
    return any(TINY_MODEL in peer["loaded_models"] for peer in peers)


def first(node: Runtime, count: int) -> list[float]:
    """Return the ms to the first token of each of several answers."""
    command = [sys.executable, "-m", "bench._api_client", node.api_url.partition("//")[2], TINY_MODEL, str(count)]
    done = subprocess.run(command, capture_output=True, cwd=HERE.parent, check=False)
    if done.returncode:
        raise Skipped(done.stderr.decode(errors="replace")[-300:])
    taken: list[float] = json.loads(done.stdout)
    return taken


if __name__ == "__main__":
    run_as_script(Path(__file__).stem, measure, __doc__)
