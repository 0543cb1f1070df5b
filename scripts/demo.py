"""The demo: a relay and three nodes, each a process of its own, and an answer that travels between them.

A node without a model asks; a node with one answers, through the relay, and the relay cannot read it. Then the
node that answered is killed, and the next question is answered by the other. Nothing leaves this machine.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import msgspec
import psutil
import tomlkit
from rich import box
from rich.console import Console
from rich.table import Table

from teale_io.inference.builtin import TINY_MODEL
from teale_io.paths import Paths, Runtime, read_runtime
from teale_proto.inputs import NodeId

HOME: Final = Path(__file__).parent.parent / ".demo"
PROCESSES: Final = HOME / "processes.json"
ASKER: Final = "asker"
SERVERS: Final = ("server-1", "server-2")
QUESTIONS: Final = ("what does str.split do?", "what does os.getcwd do?")
DEADLINE_SECONDS: Final = 45.0

console = Console(highlight=False)
# Made before any clock starts: it reads the system's certificates, which takes longer than an answer.
client = httpx.Client(timeout=DEADLINE_SECONDS)


class DemoFailed(Exception):
    """The demo did not show what it should."""


class Process(NamedTuple):
    """A process of the demo; the start time tells it from a later one with the same number."""

    name: str
    pid: int
    started_at: float


class Answer(NamedTuple):
    """One answer as it was received."""

    question: str
    text: str
    server: str
    path: str
    encryption: str
    first_token_ms: float
    tokens_per_second: float


def main() -> None:
    """Run the demo; the exit status says whether it showed what it should."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running at the end")
    parser.add_argument("--stop", action="store_true", help="end a demo that was left running")
    chosen = parser.parse_args()
    stopped = stop_all()
    if chosen.stop:
        console.print("The demo has been stopped." if stopped else "No demo is running.")
        return
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(mode=0o700)
    kept = False
    try:
        show(keep=chosen.keep)
        kept = chosen.keep
    except DemoFailed as error:
        console.print(f"[bold]The demo failed:[/] {error}\nThe logs are in {HOME}.", style="red")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if not kept:
            stop_all()


def show(*, keep: bool) -> None:
    """Start everything, ask twice, and say what happened."""
    console.rule("[bold]Teale: one machine asks, another answers")
    relay = start_relay()
    console.print(f"relay     {relay}")
    nodes = {name: start_node(name, relay) for name in SERVERS}
    for name, node in nodes.items():
        wait_for(f"{name} to load its model", partial(serves_the_model, node))
    nodes[ASKER] = start_node(ASKER, relay)
    for name, node in nodes.items():
        what = "has no model and asks" if name == ASKER else f"serves {TINY_MODEL}"
        console.print(f"{name:9} {node.node_id[:16]}…  {what}")
    asker = nodes[ASKER]
    wait_for("the nodes to find each other through the relay", lambda: len(servers_known(asker)) == len(SERVERS))

    names = {node.node_id: name for name, node in nodes.items()}
    answers = [ask(asker, names, QUESTIONS[0])]
    server = answers[0].server
    console.print(f"\n[bold]Killing {server}[/], which has just answered.")
    kill(server)
    answers.append(ask(asker, names, QUESTIONS[1]))
    if answers[1].server == server:
        raise DemoFailed(f"{server} was killed and yet answered")
    console.print(closing_table(answers))
    console.print(
        f"{TINY_MODEL} recites the first lines of Python's documentation and knows nothing else.", style="dim"
    )
    if keep:
        start_node(server, relay)
        console.print("\nIt is left running; end it with: make demo ARGS=--stop")
        console.print(f"Look around with: TEALE_HOME={HOME / ASKER} {Path(sys.executable).parent / 'teale'} status\n")
        print(f"OPENAI_BASE_URL={asker.api_url}/v1")  # not by rich, which would fold it


def start_relay() -> str:
    """Start the relay on a free port and return its URL."""
    output = HOME / "relay.out"
    spawn("relay", [program("teale-relay"), "--port", "0"], output, {})
    wait_for("the relay", lambda: "listening on " in output.read_text())
    return output.read_text().partition("listening on ")[2].split()[0]


def start_node(name: str, relay: str) -> Runtime:
    """Start a node that knows nothing but the relay, and return where it is."""
    home = HOME / name
    home.mkdir(mode=0o700, exist_ok=True)
    config = {
        "display_name": name,
        "lan_enabled": False,
        "wan_enabled": True,
        "wan_relay_url": relay,
        "api_port": 0,
        "builtin_model": name in SERVERS,
        "identity_storage": "plain-file",
    }
    (home / "config.toml").write_text(tomlkit.dumps(config))
    paths = Paths.below(home)
    paths.runtime_file.unlink(missing_ok=True)
    process = spawn(name, [program("teale-node")], home / "node.log", {"TEALE_HOME": str(home)})

    def is_up() -> bool:
        if process.poll() is not None:
            raise DemoFailed(f"{name} ended at once; its last words:\n{(home / 'node.log').read_text()[-2000:]}")
        return read_runtime(paths) is not None

    wait_for(name, is_up)
    runtime = read_runtime(paths)
    assert runtime is not None
    return runtime


def ask(asker: Runtime, names: Mapping[NodeId, str], question: str) -> Answer:
    """Ask a question, show the answer as it comes, and return it with its figures."""
    console.print(f"\n[bold]{ASKER}:[/] {question}")
    body = {"model": TINY_MODEL, "stream": True, "temperature": 0, "stream_options": {"include_usage": True}}
    body["messages"] = [{"role": "user", "content": question}]
    encryption = {peer["node_id"]: peer["encryption"] for peer in peers(asker)}
    asked_at, first_at, text, tokens = time.monotonic(), 0.0, "", 0
    with client.stream("POST", f"{asker.api_url}/v1/chat/completions", json=body) as response:
        if response.status_code != httpx.codes.OK:
            raise DemoFailed(response.read().decode())
        server = NodeId(response.headers["x-teale-served-by"])
        console.print(f"[bold]{names[server]}:[/] ", end="")
        for chunk in events(response):
            if "error" in chunk:
                raise DemoFailed(chunk["error"]["message"])
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            for choice in chunk["choices"]:
                piece = choice["delta"].get("content") or ""
                first_at = first_at or (time.monotonic() if piece else 0.0)
                text += piece
                console.print(piece, end="", markup=False)
    console.print()
    if not text:
        raise DemoFailed("the answer is empty")
    return Answer(
        question=question,
        text=text,
        server=names[server],
        path=response.headers["x-teale-path"],
        encryption=encryption[server],
        first_token_ms=(first_at - asked_at) * 1000,
        tokens_per_second=tokens / (time.monotonic() - asked_at),
    )


def events(response: httpx.Response) -> Iterator[Any]:
    """Yield the objects of an event stream."""
    for line in response.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield msgspec.json.decode(line.removeprefix("data: "))


def closing_table(answers: list[Answer]) -> Table:
    """Return who served what, how."""
    table = Table(
        title="\nWho answered",
        title_style="bold",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for heading in ("", "served by", "path", "first token", "tokens/s"):
        numeric = heading in ("first token", "tokens/s")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    table.add_column("encrypted with", overflow="fold")
    for number, answer in enumerate(answers, 1):
        table.add_row(
            str(number),
            answer.server,
            answer.path,
            f"{answer.first_token_ms:.0f} ms",
            f"{answer.tokens_per_second:.0f}",
            answer.encryption,
        )
    return table


def serves_the_model(node: Runtime) -> bool:
    """Return whether a node has loaded the model."""
    return TINY_MODEL in client.get(f"{node.api_url}/api/status").json()["loaded_models"]


def peers(node: Runtime) -> list[dict[str, Any]]:
    """Return the peers that a node is connected to."""
    connected: list[dict[str, Any]] = client.get(f"{node.api_url}/api/peers").json()["connected"]
    return connected


def servers_known(node: Runtime) -> list[str]:
    """Return the ids of the connected peers that serve the model."""
    return [peer["node_id"] for peer in peers(node) if TINY_MODEL in peer["loaded_models"]]


def program(name: str) -> str:
    """Return the path of one of our programs, beside the Python that runs this."""
    return str(Path(sys.executable).parent / name)


def spawn(name: str, command: list[str], output: Path, environ: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a process of its own session, and remember it, so that it can be ended later."""
    with output.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environ,
            start_new_session=True,
        )
    remembered = [*remembered_processes(), Process(name, process.pid, psutil.Process(process.pid).create_time())]
    PROCESSES.write_bytes(msgspec.json.encode(remembered))
    return process


def remembered_processes() -> list[Process]:
    """Return the processes that this demo, or one that was left running, has started."""
    try:
        return msgspec.json.decode(PROCESSES.read_bytes(), type=list[Process])
    except (OSError, msgspec.DecodeError):
        return []


def alive(remembered: Process) -> psutil.Process | None:
    """Return a process if it is still the one that was started."""
    try:
        process = psutil.Process(remembered.pid)
        same = process.create_time() == remembered.started_at and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def kill(name: str) -> None:
    """End a process without a word, as a power cut would."""
    for remembered in remembered_processes():
        process = alive(remembered) if remembered.name == name else None
        if process is not None:
            process.send_signal(signal.SIGKILL)


def stop_all() -> bool:
    """End all processes of the demo, nodes before their relay; return whether there were any."""
    running = [process for process in map(alive, reversed(remembered_processes())) if process is not None]
    for process in running:
        process.terminate()
    _, stubborn = psutil.wait_procs(running, timeout=10)
    for process in stubborn:
        process.kill()
    return bool(running)


def wait_for(what: str, is_so: Callable[[], bool]) -> None:
    """Wait until something is so; raises DemoFailed when that takes too long."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    with console.status(f"waiting for {what}"):
        while not is_so():
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what}: nothing after {DEADLINE_SECONDS:.0f} s")
            time.sleep(0.05)  # and looks again


if __name__ == "__main__":
    main()
