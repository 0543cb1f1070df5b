"""The relay under load: messages a second, CPU a message, added latency, memory a connection.

Everything goes through the real `teale-relay` process over WebSockets: nodes register with proof of their key and open
sessions as nodes do. The load comes from a C program that is first measured against an ideal forwarder, also in
C. The peers are relays of the deployed design on Bun and on node, whose authors would measure the same.
"""

import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from os import urandom
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench._harness import (
    HERE,
    Figure,
    Run,
    Skipped,
    compiled,
    node_program,
    npm_folder,
    npm_version,
    pinned,
    rss_kib,
    run_as_script,
)
from bench._relay_client import Client, Relay, open_session, our_relay, told, ws_frame
from teale_proto.inputs import NodeId
from teale_proto.wire.binary import encode_binary
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import RELAY_CODEC, RelayData

PAIRS: Final = 4
WINDOWS: Final = {100: 256, 16 * 1024: 32}
"""Messages of each pair in flight, by payload."""

BUN: Final = "@oven/bun-linux-x64"


class Shape(NamedTuple):
    """What is sent."""

    payload: int
    flavour: Flavour | None
    """None is the relay's binary frames."""

    @property
    def label(self) -> str:
        """Its name in figures."""
        size = f"{self.payload} B" if self.payload < 1024 else f"{self.payload // 1024} KiB"
        return f"{'binary' if self.flavour is None else 'JSON ' + self.flavour.value} {size}"

    @property
    def target(self) -> float:
        """How many times Bun is aimed at."""
        return 3.5 if self.flavour is None else 1.5


SHAPES: Final = [
    Shape(100, Flavour.DOCUMENTED),
    Shape(16 * 1024, Flavour.DOCUMENTED),
    Shape(100, Flavour.DEPLOYED),
    Shape(16 * 1024, Flavour.DEPLOYED),
    Shape(100, None),
    Shape(16 * 1024, None),
]


def peers(run: Run) -> dict[str, Callable[[], Relay]]:
    """Return how the relays to compare with are started, by name; those that cannot be had are left out."""
    made: dict[str, Callable[[], Relay]] = {}

    def bun() -> None:
        program = str(npm_folder(BUN) / "node_modules" / BUN / "bin" / "bun")
        script = str(HERE / "peers" / "bun_relay.js")
        made["bun"] = lambda: Relay("bun", [program, script], MODE="reencode")
        made["bun, raw"] = lambda: Relay("bun, raw", [program, script], MODE="raw")
        run.versions["bun"] = npm_version(BUN)

    def node_ws() -> None:
        modules = str(npm_folder("ws") / "node_modules")
        script = str(HERE / "peers" / "ws_relay.cjs")
        made["node ws"] = lambda: Relay("node ws", [node_program(), script], MODE="reencode", NODE_PATH=modules)
        run.versions["ws"] = npm_version("ws")

    run.attempt("Bun", bun)
    run.attempt("node ws", node_ws)
    return made


def measure(run: Run) -> None:
    """Measure everything."""
    allow_files()
    seconds, rounds = 1.0 if run.quick else 2.0, run.rounds
    others = peers(run)
    relays: dict[str, Callable[[], Relay]] = {"teale-relay": our_relay, **others}
    figures: dict[tuple[str, Shape], Figure] = {}
    for shape in SHAPES:
        rates = ideal(shape, seconds, rounds)
        cpu: dict[str, Figure] = {}
        best = run.add(f"ideal forwarder in C, {shape.label}", "msg/s", rates)
        for name, floods in interleaved(relays, shape, seconds, rounds, run).items():
            figures[name, shape] = run.add(f"{name}, {shape.label}", "msg/s", [f["rate"] for f in floods])
            cpu[name] = run.add(f"{name}, {shape.label}, CPU", "µs/msg", [f["cpu_us"] for f in floods])
        ours = figures["teale-relay", shape]
        run.at_least(f"generator is not the limit, {shape.label}", best, ours, 1.5, "C forwarder / our relay")
        for name, why in (("bun", "re-encoding JSON, as deployed"), ("bun, raw", "sending on what came")):
            if shape.flavour is not None or name == "bun":
                condition = f"Bun {why}; {PAIRS} pairs"
                run.at_least(f"relay, {shape.label}", ours, figures.get((name, shape)), shape.target, condition)
        if "bun" in cpu:
            run.compare(f"relay CPU a message, {shape.label}", cpu["teale-relay"], cpu["bun"], "Bun, as deployed")
    latency(run, relays)
    for connections in (500,) if run.quick else (2_000, 10_000):
        memory(run, relays, connections)


# Throughput.


def interleaved(
    relays: dict[str, Callable[[], Relay]], shape: Shape, seconds: float, rounds: int, run: Run
) -> dict[str, list[dict[str, Any]]]:
    """Return the floods of each relay; they take turns, so that a busy machine is unfair to nobody."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in relays}
    for _ in range(rounds):
        for name, start in relays.items():
            if shape.flavour is None and name == "bun, raw":
                continue  # nothing is encoded, so the two are one
            flooded = run.attempt(f"{name}, {shape.label}", partial(flood, start, shape, seconds))
            if flooded is not None:
                found[name].append(flooded)
    return {name: floods for name, floods in found.items() if floods}


def flood(start: Callable[[], Relay], shape: Shape, seconds: float) -> dict[str, Any]:
    """Send as fast as a relay forwards; return messages a second and CPU a message."""
    with start() as relay, pairs_of(relay, PAIRS, shape) as pairs:
        frames = [data_frame(opener, target, number, shape) for number, (opener, target) in enumerate(pairs)]
        sockets = [client.socket for pair in pairs for client in pair]
        result = generate(["flood", str(relay.pid), "1", str(seconds), str(WINDOWS[shape.payload])], frames, sockets)
    if result["errors"]:
        raise Skipped(f"the relay complained {result['errors']} times: {result['complaint']}")
    result["rate"] = result["messages"] / result["seconds"]
    result["cpu_us"] = result["relay_cpu"] / max(1, result["messages"]) * 1e6
    return result


def ideal(shape: Shape, seconds: float, rounds: int) -> list[float]:
    """Return the messages a second that the generator reaches when nothing is in its way but sockets."""
    frame = anonymous_frame(shape)
    rates = []
    for _ in range(rounds):
        with ExitStack() as stack:
            ways = [tcp_pair(stack) for _ in range(2 * PAIRS)]
            inner = [way[1] for way in ways]
            forwarder = subprocess.Popen(
                [compiled("forward.c"), *(str(end.fileno()) for end in inner)],
                pass_fds=[end.fileno() for end in inner],
                preexec_fn=pinned(0),
            )
            try:
                call = ["flood", str(forwarder.pid), "0.5", str(seconds), str(WINDOWS[shape.payload])]
                result = generate(call, [frame] * PAIRS, [way[0] for way in ways])
            finally:
                forwarder.kill()
                forwarder.wait()
        rates.append(result["messages"] / result["seconds"])
    return rates


@contextmanager
def pairs_of(relay: Relay, count: int, shape: Shape) -> Iterator[list[tuple[Client, Client]]]:
    """Register pairs of nodes and open a session for each."""
    flavour = shape.flavour or Flavour.DOCUMENTED
    clients: list[Client] = []
    try:
        pairs = []
        for number in range(count):
            opener = Client(relay, 2 * number + 1, flavour=flavour, binary=shape.flavour is None)
            clients.append(opener)
            target = Client(relay, 2 * number + 2, flavour=flavour, binary=shape.flavour is None)
            clients.append(target)
            open_session(opener, target, session_id(number))
            pairs.append((opener, target))
        yield pairs
    finally:
        for client in clients:
            client.socket.close()


def data_frame(opener: Client, target: Client, number: int, shape: Shape) -> bytes:
    """Return the frame that a pair sends again and again."""
    return frame_of(RelayData(opener.node, target.node, session_id(number), urandom(shape.payload)), shape.flavour)


def frame_of(message: RelayData, flavour: Flavour | None) -> bytes:
    """Return a client's frame."""
    if flavour is None:
        return ws_frame(encode_binary(message.session_id, message.data), binary=True)
    return ws_frame(RELAY_CODEC.encode(message, flavour))


def session_id(number: int) -> str:
    """Return an id in the form that our nodes use."""
    return f"{number:032x}"


def anonymous_frame(shape: Shape) -> bytes:
    """Return a frame of the size that nodes send, for where nobody looks into it."""
    nobody = NodeId("0" * 64)
    return frame_of(RelayData(nobody, nobody, session_id(0), urandom(shape.payload)), shape.flavour)


def generate(call: list[str], frames: list[bytes], sockets: list[socket.socket]) -> dict[str, Any]:
    """Run the load generator over open sockets."""
    assert len(set(map(len, frames))) == 1
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(frames))
        file.flush()
        descriptors = [each.fileno() for each in sockets]
        command = [str(compiled("relay_load.c")), *call, str(len(frames[0])), file.name, *map(str, descriptors)]
        done = subprocess.run(command, pass_fds=descriptors, capture_output=True, check=False, preexec_fn=pinned(1))
    if done.returncode:
        raise Skipped(done.stderr.decode().strip())
    return told(done.stdout)


def tcp_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = stack.enter_context(socket.create_connection(listener.getsockname()))
        far = stack.enter_context(listener.accept()[0])
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


# Latency.


def latency(run: Run, relays: dict[str, Callable[[], Relay]]) -> None:
    """Measure what a relay adds to the way of one message, when nothing else is going on."""
    shape, rounds, count = SHAPES[0], run.rounds, 300 if run.quick else 1500
    call = ["ping", "500", str(count)]
    direct = []
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in relays}
    for _ in range(rounds):
        with ExitStack() as stack:
            near, far = tcp_pair(stack)
            direct.append(generate(call, [anonymous_frame(shape)], [near, far]))
        for name, start in relays.items():
            if (result := run.attempt(f"latency of {name}", partial(ping, start, shape, call))) is not None:
                taken[name].append(result)
    for quantile in ("p50", "p99"):
        base = run.add(f"direct TCP, {quantile}", "µs", [each[quantile] for each in direct])
        added = {
            name: run.add(f"added by {name}, {quantile}", "µs", [each[quantile] - base.median for each in results])
            for name, results in taken.items()
            if results
        }
        condition = f"{quantile}, one {shape.label} message in flight, one each 0.5 ms"
        run.at_most("latency added by the relay", added["teale-relay"], added.get("bun"), 1.2, f"Bun; {condition}")


def ping(start: Callable[[], Relay], shape: Shape, call: list[str]) -> dict[str, Any]:
    """Return how long single messages took through a relay that has been warmed up."""
    with start() as relay, pairs_of(relay, 1, shape) as [(opener, target)]:
        frames, sockets = [data_frame(opener, target, 0, shape)], [opener.socket, target.socket]
        generate(["ping", "0", "2000"], frames, sockets)
        return generate(call, frames, sockets)


# Memory.


def memory(run: Run, relays: dict[str, Callable[[], Relay]], connections: int) -> None:
    """Measure the resident memory that a registered connection which says nothing costs."""
    found: dict[str, Figure] = {}
    for name, start in relays.items():
        if name == "bun, raw":
            continue
        runs = []
        for _ in range(1 if connections > 5000 else min(3, run.rounds)):
            grown = run.attempt(f"memory of {name}", partial(growth, start, connections))
            if grown is not None:
                runs.append(grown)
        if runs:
            found[name] = run.add(f"{name}, memory at {connections:,} connections", "KiB", runs)
    run.below(f"relay memory, {connections:,} connections", found["teale-relay"], 6, "registered, idle; RSS / N")


def growth(start: Callable[[], Relay], connections: int) -> float:
    """Return KiB a registered connection."""
    with start() as relay:
        clients = [Client(relay, 1_000_000)]
        try:
            before = rss_kib(relay.pid)
            clients += [Client(relay, number) for number in range(1, connections + 1)]
            time.sleep(1)  # for what is still being written, and a collector that is due
            return (rss_kib(relay.pid) - before) / connections
        finally:
            for client in clients:
                client.socket.close()


def allow_files() -> None:
    """Raise the limit of open files as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    run_as_script(Path(__file__).stem, measure, __doc__)
