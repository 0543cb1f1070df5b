"""Rude clients at the three doors of real processes: the LAN port, the relay and the local API.

Garbage, connections that say half of something, and bytes that drip: they are closed with a logged reason, or stay
where they harm nobody, and whoever behaves is answered all the while. How long that took before and during is
printed, and written as JSON to the file that `TEALE_DOORS_REPORT` names; nothing here fails for being slow.
"""

import json
import os
import random
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from teale_proto.link import Established, Link
from teale_proto.wire.cluster import DeviceInfo, Hello, HelloAck
from teale_proto.wire.relay import Hardware
from tests.e2e.harness import SAFETY_SECONDS, Node, Program, Relay, Stage, eventually, write_config
from tests.proto.world import identity
from tests.soak.echoing import MODEL, answer_to, echoing_server

RUDE_OF_EACH_KIND = 15
DRIP_SECONDS = 0.02
ASKS = 12
LIMITED = "import os,resource,sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({n}, {n})); "


class Place(NamedTuple):
    """A relay, a node that serves and has all three doors, and one that asks it through the relay."""

    relay: Relay
    server: Node
    asker: Node
    lan_port: int

    @property
    def doors(self) -> dict[str, int]:
        return {"lan": self.lan_port, "relay": self.relay.port, "api": self.server.port}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Stage(tmp_path_factory.mktemp("doors")) as stage, echoing_server() as url:
        relay = stage.relay()
        wan = {"wan_enabled": True, "wan_relay_url": relay.url}
        lan = {"lan_enabled": True, "lan_host": "127.0.0.1", "lan_interfaces": ["127.0.0.1"]}
        server = stage.node("server", openai_urls=[url], **wan, **lan)
        relay.wait_for_nodes(server, model=MODEL)
        asker = stage.node("asker", **wan)
        asker.wait_for_peers(server, model=MODEL)
        yield Place(relay, server, asker, lan_port_of(server))


def lan_port_of(node: Node) -> int:
    listening = {
        each.laddr.port for each in psutil.Process(node.pid).net_connections("tcp") if each.status == psutil.CONN_LISTEN
    }
    [port] = listening - {node.port}
    return port


# Those who behave.


def ask(place: Place) -> None:
    reply = place.asker.chat("how are you?", model=MODEL)
    assert reply.text == "".join(answer_to("how are you?"))
    assert reply.path == "relay"


def look(place: Place) -> None:
    assert place.relay.get("/health")["ok"]


def meet(place: Place) -> None:
    """Join on the LAN, as a node would, to the greeting and its answer."""
    link = Link.dial(identity(77), expected=None, instance=os.urandom(8), rng=random.SystemRandom())
    pieces: list[bytes] = []
    link.start(pieces)
    with socket.create_connection(("127.0.0.1", place.lan_port), SAFETY_SECONDS) as stream:
        while True:
            stream.sendall(b"".join(pieces))
            pieces.clear()
            data = stream.recv(65536)
            assert data, "the LAN port closed on somebody who behaves"
            for event in link.receive(data, pieces):
                if isinstance(event, Established):
                    link.send(Hello(DeviceInfo("x", "polite", Hardware())), pieces)
                elif isinstance(event, HelloAck):
                    return


POLITE: dict[str, Callable[[Place], None]] = {"api": ask, "relay": look, "lan": meet}


def milliseconds(place: Place) -> dict[str, float]:
    """Return the median time of each door for somebody who behaves."""
    medians = {}
    for name, polite in POLITE.items():
        taken = []
        for _ in range(ASKS):
            began = time.monotonic()
            polite(place)
            taken.append(time.monotonic() - began)
        medians[name] = round(1000 * statistics.median(taken), 1)
    return medians


# Those who do not.


GARBAGE = {
    "lan": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "relay": b"\x16\x03\x01\x02\x00\x01" + bytes(range(256)) * 4 + b"\r\n\r\n",
    "api": b"\0TL1\x01 not HTTP at all \xff\xfe\r\n\r\n",
}
HALVES = {
    "lan": b"\0\0\x01\0\0TL1\x01" + bytes(20),
    "relay": b"GET /ws?node=x HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: webso",
    "api": b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le",
}


def knock(port: int, words: bytes) -> socket.socket:
    """Connect from an address of our own, so that no limit by address comes between."""
    stream = socket.create_connection(("127.0.0.1", port), SAFETY_SECONDS, source_address=("127.0.0.9", 0))
    stream.sendall(words)
    return stream


def is_closed(stream: socket.socket) -> bool:
    """Wait for the other side to close; return whether it did."""
    try:
        while stream.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


@contextmanager
def dripping(port: int, words: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Hold connections open on which a byte comes now and then, until the context ends."""
    streams = [knock(port, words[:1]) for _ in range(count)]
    ending = threading.Event()

    def drip() -> None:
        at = 1
        while not ending.wait(DRIP_SECONDS) and at < len(words):
            for stream in streams:
                # It may have been closed: that is what is hoped for.
                with suppress(OSError):
                    stream.send(words[at : at + 1])
            at += 1

    thread = threading.Thread(target=drip, name=f"dripping on {port}")
    thread.start()
    try:
        yield streams
    finally:
        ending.set()
        thread.join()
        for stream in streams:
            stream.close()


def test_rude_clients_are_shown_the_door_and_nobody_else_notices(place: Place) -> None:
    before = milliseconds(place)
    with ExitStack() as stack:
        halves, rude = [], []
        for name, port in place.doors.items():
            halves += [stack.enter_context(knock(port, HALVES[name])) for _ in range(RUDE_OF_EACH_KIND)]
            stack.enter_context(dripping(port, HALVES[name] * 50, RUDE_OF_EACH_KIND))
            rude += [stack.enter_context(knock(port, GARBAGE[name])) for _ in range(RUDE_OF_EACH_KIND)]
        during = milliseconds(place)
        # Garbage is recognised at once, at every door.
        assert all(is_closed(stream) for stream in rude)
        # At the LAN port and the relay ten seconds are enough for anybody; the API gives a program here 75.
        assert all(is_closed(stream) for stream in halves[: 2 * RUDE_OF_EACH_KIND])
    said(place.server, "took too long to introduce itself")
    said(place.relay, "no complete request within")
    after = milliseconds(place)
    figures = {"milliseconds": {"before": before, "during": during, "after": after}}
    print(json.dumps(figures))
    if report := os.environ.get("TEALE_DOORS_REPORT"):
        Path(report).write_text(json.dumps(figures, indent=2))


def said(program: Program, reason: str) -> None:
    """Wait until a reason is in the log, or the log says that a crowd's reasons are left out of it."""
    enough = "no more of them are logged"
    eventually(lambda: reason in program.log or enough in program.log, f"{program.name} says: {reason}")


@pytest.mark.parametrize("door", ["lan", "relay", "api"])
def test_the_reason_is_in_the_log_and_what_was_said_is_not(place: Place, door: str) -> None:
    secret = b"zozzle-" + os.urandom(6).hex().encode()
    with knock(place.doors[door], GARBAGE[door].replace(b"GET / ", b"GET /" + secret + b" ") + secret) as stream:
        assert is_closed(stream)
    program = place.relay if door == "relay" else place.server
    words = {"lan": "are allowed", "relay": "not a WebSocket request", "api": "not a well-formed HTTP request"}[door]
    eventually(lambda: words in program.log, f"the log says: {words}")
    assert secret.decode() not in program.log


# Too many.


class SmallRelay(Relay):
    """A relay that may open so many files, and no more."""

    def __init__(self, folder: Path, files_max: int) -> None:
        main = LIMITED.format(n=files_max) + "from teale_io.relay_app import main; main()"
        options = ("--port", "0", "--log-level", "info", "--log-format", "json")
        Program.__init__(self, "relay", [sys.executable, "-c", main, *options], folder)
        self.port = 0


def exhaust(port: int, count: int, words: bytes = b"") -> list[socket.socket]:
    """Open more connections than the other side can; the kernel takes them all, whatever becomes of them."""
    return [knock(port, words) for _ in range(count)]


def test_a_relay_that_runs_out_of_descriptors_comes_back_when_they_do(stage: Stage, tmp_path: Path) -> None:
    relay = stage._keep(SmallRelay(tmp_path / "small", 48))
    relay.wait_until_up()
    assert relay.get("/health")["ok"]
    held = exhaust(relay.port, 100)
    eventually(lambda: "cannot accept connections" in relay.log, "the relay has noticed")
    for stream in held:
        stream.close()
    assert relay.get("/health")["ok"]
    assert relay.log.count("cannot accept connections") < 5
    assert relay.stop() == 0
    assert "Traceback" not in relay.log


def test_a_node_that_runs_out_of_descriptors_comes_back_when_they_do(stage: Stage) -> None:
    write_config(
        stage.home("small"),
        display_name="small",
        lan_enabled=True,
        lan_host="127.0.0.1",
        lan_interfaces=["127.0.0.1"],
    )
    small = LIMITED.format(n=64) + "os.execv(sys.argv[1], sys.argv[1:])"
    [node] = stage.up([stage.start("small", prefix=[sys.executable, "-c", small])])
    for port in (node.port, lan_port_of(node)):
        held = exhaust(port, 150)
        eventually(lambda: psutil.Process(node.pid).num_fds() >= 60, "the node has no descriptors left")
        for stream in held:
            stream.close()
        assert node.get("/health")["ok"]
    assert node.is_running
    assert node.stop() == 0
