"""Runs the programs of the project as people run them, and takes them away again whatever happens.

A `Stage` owns everything that one test, or one module of tests, has started: relays and nodes, each a process of
its own with a folder of its own. Leaving the stage kills what still runs, by process id. When a test fails,
`conftest` prints what the programs on all open stages have logged.

What tells of itself is waited for as an event: the relay's first line, the reports of `/api/events`, the end of a
process. What cannot (a file that appears in a folder, a model that has been heard of) is looked at again and
again by `eventually`. All limits of time are safety nets: a test that passes has never waited for one.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import httpx
import openai

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
SAFETY_SECONDS = 60.0
POLL_SECONDS = 0.02

TINY = "teale-tiny"
QUESTION = "what does str.split do?"
SENTENCE = "Return a list of the substrings in the string, using sep as the separator string."
"""What the tiny model answers to QUESTION at temperature 0."""


def eventually(look: Callable[[], T | None], what: str, *, seconds: float = SAFETY_SECONDS) -> T:
    """Return the first thing that `look` finds (something true); fail, naming `what`, when it finds nothing in time."""
    give_up_at = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < give_up_at, f"not within {seconds:g} s: {what}"
        time.sleep(POLL_SECONDS)
    return found


def environ_of(home: Path | None = None) -> dict[str, str]:
    """Return the environment of a program: no settings of the person who runs the tests, and no keychain."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TEALE_")}
    environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"
    return environ if home is None else environ | {"TEALE_HOME": str(home)}


def write_config(home: Path, **settings: object) -> None:
    """Write the configuration of a node that takes any free port and keeps its key in a plain file."""
    given = {"identity_storage": "plain-file", "api_port": 0, "lan_port": 0, "lan_enabled": False, **settings}
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Strings, integers, switches and lists of strings are the same in JSON and in TOML.
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in given.items()]
    (home / "config.toml").write_text("".join(lines))


class Program:
    """One process, its two outputs in files."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, *, home: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        # What Python would not say unasked belongs into no log either, and a test looks there.
        environ = environ_of(home) | {"PYTHONWARNINGS": "default"}
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT, env=environ
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def log(self) -> str:
        """What it has written to its standard error."""
        return self._err.read_text()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def check_running(self) -> None:
        """Fail if it has ended: nothing else that is waited for will come."""
        assert self.is_running, f"{self.name} ended with status {self._process.returncode}:\n{self.log}"

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        self.signal(signal.SIGTERM)
        return self._process.wait(SAFETY_SECONDS)

    def wait(self) -> int:
        """Wait for its end, and return its exit status."""
        return self._process.wait(SAFETY_SECONDS)

    def kill(self) -> None:
        """End it without a chance to say anything."""
        self._process.kill()
        self._process.wait()

    def ready(self, look: Callable[[], T | None], what: str) -> T:
        """Wait until it is found ready; fail as soon as it has ended."""

        def look_or_fail() -> T | None:
            self.check_running()
            return look()

        return eventually(look_or_fail, f"{self.name} is {what}")


class Relay(Program):
    """`teale-relay`; `port` 0 takes any, and `options` are what else it is told."""

    def __init__(self, folder: Path, *, port: int = 0, options: Sequence[str] = ()) -> None:
        main = "from teale_io.relay_app import main; main()"
        words = ("--port", str(port), "--log-level", "debug", "--log-format", "json", *options)
        super().__init__("relay", [sys.executable, "-c", main, *words], folder)
        self.port = port

    def wait_until_up(self) -> None:
        """Wait until it has said where it listens; other methods need that."""
        # The output is a file, so that nobody has to read for the relay to go on; hence it is looked at.
        self.url = self.ready(self._said_url, "listening")
        self.port = int(self.url.rpartition(":")[2].removesuffix("/ws"))

    def _said_url(self) -> str | None:
        _, found, said = self.output.rpartition("listening on ")
        return said.strip() if found and said.endswith("\n") else None

    def get(self, path: str) -> Any:
        return _get(f"http://127.0.0.1:{self.port}{path}")

    def wait_for_nodes(self, *nodes: "Node", model: str = "") -> None:
        """Wait until these are registered with `model`, so that whoever asks now is told of them."""
        wanted = {node.id[:16] for node in nodes}

        def look() -> bool:
            for node in nodes:
                node.check_running()
            return wanted <= {
                each["nodeID"] for each in self.get("/peers") if not model or model in each["loadedModels"]
            }

        eventually(look, f"{[node.name for node in nodes]} are registered {model}")


class Node(Program):
    """`teale-node` in `home`, with `options`.

    `prefix` runs it elsewhere, and `reach` then says at which port its API is found here.
    """

    def __init__(
        self,
        name: str,
        home: Path,
        *,
        prefix: Sequence[str] = (),
        reach: Callable[[int], int] = lambda port: port,
        options: Sequence[str] = (),
    ) -> None:
        self.home = home
        self._reach = reach
        command = [*prefix, sys.executable, "-m", "teale_io.node_app", *options]
        super().__init__(name, command, home / "logs", home=home)

    def wait_until_up(self) -> None:
        """Wait until it answers; other methods need that."""
        runtime = self.ready(self._runtime, "up")
        self.id: str = runtime["node_id"]
        self.port = self._reach(runtime["api_port"])
        assert self.get("/health")["ok"]

    def _runtime(self) -> dict[str, Any] | None:
        # There is no portable event for a file that appears. One of a former process may still be there.
        with suppress(FileNotFoundError):
            runtime: dict[str, Any] = json.loads((self.home / "node.json").read_text())
            return runtime if runtime["pid"] == self.pid else None
        return None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        return _get(self.url + path)

    def peers(self) -> dict[str, dict[str, Any]]:
        """Return the connected peers by node id."""
        return {peer["node_id"]: peer for peer in self.get("/api/peers")["connected"]}

    def models(self) -> list[str]:
        return [model["id"] for model in self.get("/v1/models")["data"]]

    def wait_for_peers(self, *others: "Node", model: str = "") -> None:
        """Wait until it is connected to `others`, and knows that they have `model`."""
        # Polled: a change of a peer's models is no event.

        def look() -> bool:
            for each in (self, *others):
                each.check_running()
            peers = self.peers()
            return all(each.id in peers and (not model or model in peers[each.id]["loaded_models"]) for each in others)

        eventually(look, f"{self.name} knows {[each.name for each in others]} {model}")

    def openai(self) -> openai.OpenAI:
        """Return the official client, which shall not hide failures by trying again."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key="unused",
            max_retries=0,
            timeout=SAFETY_SECONDS,
            http_client=openai.DefaultHttpxClient(trust_env=False, timeout=SAFETY_SECONDS),
        )

    def chat(self, prompt: str, **more: Any) -> "Reply":
        """Ask by plain HTTP, streamed."""
        body = {"model": TINY, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "stream": True}
        return self.post("/v1/chat/completions", {**body, **more})

    def post(self, path: str, body: dict[str, Any]) -> "Reply":
        """Post JSON, and read the answer to its end."""
        with httpx.Client(trust_env=False, timeout=SAFETY_SECONDS) as client:
            return Reply(client.post(self.url + path, json=body))

    def follow(self) -> "Events":
        """Follow its reports from now on; a context."""
        return Events(self)


class Reply:
    """An answer that has been read to its end, as a program sees it that knows HTTP and JSON only."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.served_by = response.headers.get("x-teale-served-by", "")
        self.path = response.headers.get("x-teale-path", "")
        self.attempts = response.headers.get("x-teale-attempts", "")
        self.is_done = False
        self.chunks: list[dict[str, Any]] = []
        if response.headers["content-type"].startswith("text/event-stream"):
            for line in response.text.splitlines():
                data = line.removeprefix("data: ")
                if data == "[DONE]":
                    self.is_done = True
                elif data != line:
                    self.chunks.append(json.loads(data))
        else:
            self.chunks.append(response.json())

    @property
    def body(self) -> dict[str, Any]:
        """The whole answer, where it was not streamed."""
        [body] = self.chunks
        return body

    @property
    def text(self) -> str:
        """What the model said."""
        choices = [chunk["choices"][0] for chunk in self.chunks if chunk.get("choices")]
        said = [
            choice.get("text") or choice.get("delta", choice.get("message", {})).get("content") for choice in choices
        ]
        return "".join(filter(None, said))

    @property
    def error(self) -> dict[str, Any] | None:
        """The error, be it the whole answer or the end of a stream."""
        errors = [chunk["error"] for chunk in self.chunks if "error" in chunk]
        return errors[0] if errors else None


class Events:
    """The reports of one node, followed by a thread from the beginning of a context to its end."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=SAFETY_SECONDS)
        self._news = threading.Condition()
        self._is_listening = False
        self.seen: list[dict[str, Any]] = []

    def __enter__(self) -> "Events":
        self._connection.connect()
        # The connection forgets its socket once it has answered; the reader is unblocked through this one.
        self._socket: socket.socket = self._connection.sock
        self._connection.request("GET", "/api/events")
        self._reader = threading.Thread(target=self._read, name=f"events of {self._node.name}")
        self._reader.start()
        with self._news:
            assert self._news.wait_for(lambda: self._is_listening, SAFETY_SECONDS), "the events do not begin"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._connection.close()

    def _read(self) -> None:
        # However it ends: the node may be killed while it is being listened to.
        with suppress(OSError, http.client.HTTPException), self._connection.getresponse() as response:
            while line := response.readline():
                with self._news:
                    self._is_listening = True
                    if line.startswith(b"data: "):
                        self.seen.append(json.loads(line[6:]))
                    self._news.notify_all()

    def wait_for(self, kind: str, **members: object) -> dict[str, Any]:
        """Return the first report of that kind with these members; waits for it."""
        with self._news:
            found = self._news.wait_for(lambda: next(iter(self.of(kind, **members)), None), SAFETY_SECONDS)
        assert found, f"no {kind} {members} from {self._node.name}, but {self.seen}"
        return found

    def of(self, kind: str, **members: object) -> list[dict[str, Any]]:
        """Return the reports of that kind so far."""
        return [each for each in self.seen if each["kind"] == kind and members.items() <= each.items()]


class Stage:
    """All programs of a test, in folders below `folder`; use it as a context."""

    open: ClassVar[list["Stage"]] = []

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.programs: list[Program] = []

    def __enter__(self) -> "Stage":
        Stage.open.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for program in self.programs:
            program.kill()
        Stage.open.remove(self)

    def relay(self, *, port: int = 0, options: Sequence[str] = ()) -> Relay:
        """Start a relay, and return it when it listens."""
        relay = self._keep(Relay(self._folder / "relay", port=port, options=options))
        relay.wait_until_up()
        return relay

    def home(self, name: str) -> Path:
        """Return the folder of a node."""
        return self._folder / name

    def node(self, name: str, **settings: object) -> Node:
        """Start a node with these settings, and return it when it answers."""
        [node] = self.nodes({name: settings})
        return node

    def nodes(self, settings_of: dict[str, dict[str, object]]) -> list[Node]:
        """Start several nodes at once."""
        for name, settings in settings_of.items():
            write_config(self.home(name), display_name=name, **settings)
        return self.up(self.start(name) for name in settings_of)

    def start(self, name: str, **elsewhere: Any) -> Node:
        """Start a node that has been configured; see `Node` for `elsewhere`."""
        return self._keep(Node(name, self.home(name), **elsewhere))

    def up(self, nodes: Iterable[Node]) -> list[Node]:
        """Wait until all of these answer."""
        started = list(nodes)
        for node in started:
            node.wait_until_up()
        return started

    def _keep(self, program: "P") -> "P":
        self.programs.append(program)
        return program


P = TypeVar("P", bound=Program)


def _get(url: str) -> Any:
    response = httpx.get(url, trust_env=False, timeout=SAFETY_SECONDS)
    assert response.is_success, response.text
    return response.json()
