"""Two nodes, each behind a NAT of the kernel's own, and a relay between the NATs: which path do they find?

The internet is the switch of a local network of one's own, see `namespaces`. Skipped where there can be none.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import QUESTION, SENTENCE, TINY, Node, Stage, environ_of, eventually, write_config
from tests.e2e.namespaces import Lan
from tests.e2e.routers import become_router
from tests.e2e.taps import Proxy
from tests.e2e.test_port_mapping import name, run
from tests.e2e.test_stun_interop import relay

RELAY, ALTERNATE, PORT = "203.0.113.1", "203.0.113.9", 11437
HOMES = {"alice": "203.0.113.2", "bob": "203.0.113.3"}
ROUTER, INSIDE, MOVED = "192.168.1.1", "192.168.1.2", "192.168.1.77"
"""The same in both homes, as such addresses are."""

EASY, HARD = "eim-apdf", "apdm-apdf"
NO_NAT = "public"
"""On the internet itself, with nobody in between."""

CUT = """
table inet cut {
    chain forward {
        type filter hook forward priority -10;
        meta l4proto udp drop
    }
}
"""


@contextmanager
def internet(nats: dict[str, str]) -> Iterator[Lan]:
    """Make a machine for each name behind a router of that kind, and one for the relay that has no NAT."""
    homes = {machine: f"home-{machine}" for machine, kind in nats.items() if kind != NO_NAT}
    if shutil.which("nft") is None:
        pytest.skip("needs nft")
    with Lan("relay", *homes.values(), *nats) as lan:
        outside = {"relay": RELAY, **{homes.get(machine, machine): HOMES[machine] for machine in nats}}
        for machine, address in outside.items():
            interface = "lan" if machine not in homes.values() else _as_wan(lan, machine)
            run(lan, machine, "ip", "addr", "flush", "dev", interface)
            run(lan, machine, "ip", "addr", "add", f"{address}/24", "dev", interface)
            run(lan, machine, "ip", "route", "replace", "default", "dev", interface)
        run(lan, "relay", "ip", "addr", "add", f"{ALTERNATE}/24", "dev", "lan")
        for machine, home in homes.items():
            _move_in(lan, machine, home)
            become_router(lan, home, nats[machine], outside=outside[home])
        yield lan


def _as_wan(lan: Lan, home: str) -> str:
    """Call a router's way to the internet as routers do; returns the name."""
    run(lan, home, "ip", "link", "set", "lan", "down")
    run(lan, home, "ip", "link", "set", "lan", "name", "wan")
    run(lan, home, "ip", "link", "set", "wan", "up")
    return "wan"


def _move_in(lan: Lan, machine: str, home: str) -> None:
    """Put a machine behind its router."""
    run(lan, machine, "ip", "link", "set", "lan", "down")
    run(lan, home, "ip", "link", "add", "lan", "type", "veth", "peer", "home", "netns", name(lan, machine))
    for where, interface, address in ((home, "lan", ROUTER), (machine, "home", INSIDE)):
        run(lan, where, "ip", "addr", "add", f"{address}/24", "dev", interface)
        run(lan, where, "ip", "link", "set", interface, "up")
    run(lan, machine, "ip", "route", "replace", "default", "via", ROUTER)


@contextmanager
def at_home(
    folder: Path,
    nats: dict[str, str],
    options: tuple[str, ...] = (),
    node_options: tuple[str, ...] = (),
    **settings: object,
) -> Iterator[tuple[Lan, list[Node]]]:
    """Run a relay with these options, and a node in each home; Bob's has a model."""
    with ExitStack() as stack:
        lan = stack.enter_context(internet(nats))
        stack.enter_context(relay("--host", RELAY, "--port", str(PORT), *options, prefix=lan.prefix("relay")))
        stage = stack.enter_context(Stage(folder))

        def reach(machine: str, port: int) -> int:
            return stack.enter_context(Proxy(lambda: lan.connect(machine, port))).port

        started = []
        for machine in nats:
            url = f"ws://{RELAY}:{PORT}/ws"
            common = {"display_name": machine, "wan_enabled": True, "wan_relay_url": url, "heartbeat_seconds": 5}
            write_config(stage.home(machine), **common, builtin_model=machine == "bob", **settings)
            elsewhere = {"prefix": lan.prefix(machine), "reach": partial(reach, machine)}
            started.append(stage.start(machine, options=node_options, **elsewhere))
        yield lan, stage.up(started)


def path_to(node: Node, other: Node) -> dict[str, Any]:
    """Return what a node says of a peer; nothing where it is not connected."""
    return node.peers().get(other.id, {})


def told(node: Node, lan: Lan) -> str:
    """Return what `teale peers --explain` shows on a node's machine."""
    command = [*lan.prefix(node.name), sys.executable, "-m", "teale_io.cli", "peers", "--explain"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ_of(node.home))
    return done.stdout


def check_answer(node: Node, other: Node, path: str) -> None:
    reply = node.chat(QUESTION)
    assert (reply.text, reply.served_by, reply.path) == (SENTENCE, other.id, path)


def test_two_nodes_behind_usual_nats_talk_directly_and_the_relay_comes_back_when_they_cannot(tmp_path: Path) -> None:
    with at_home(tmp_path, {"alice": EASY, "bob": EASY}) as (lan, [alice, bob]):
        eventually(lambda: TINY in alice.models(), "the model is known")
        assert alice.chat(QUESTION).text == SENTENCE  # at once, over whichever path there is
        eventually(lambda: path_to(alice, bob).get("path") == "direct", "alice has a direct path")
        eventually(lambda: path_to(bob, alice).get("path") == "direct", "bob has it too")
        assert path_to(alice, bob)["address"].startswith(f"{HOMES['bob']}:")
        check_answer(alice, bob, "direct")
        assert f"direct, connected, {HOMES['bob']}:" in told(alice, lan)
        run(lan, "home-bob", "nft", "-f", "-", text=CUT)
        eventually(lambda: path_to(alice, bob).get("path") == "relay", "alice has gone back to the relay")
        check_answer(alice, bob, "relay")


def test_a_machine_that_gets_another_address_is_soon_reached_directly_again(tmp_path: Path) -> None:
    with at_home(tmp_path, {"alice": EASY, "bob": EASY}) as (lan, [alice, bob]):
        eventually(lambda: path_to(bob, alice).get("path") == "direct", "they talk directly")
        before = path_to(bob, alice)["address"]
        run(lan, "alice", "ip", "addr", "flush", "dev", "home")
        run(lan, "alice", "ip", "addr", "add", f"{MOVED}/24", "dev", "home")
        run(lan, "alice", "ip", "route", "replace", "default", "via", ROUTER)
        # Her NAT still holds the former port for her former address, so that she is seen at another one now.
        eventually(lambda: path_to(bob, alice).get("address", before) not in ("", before), "bob sees her elsewhere")
        eventually(lambda: path_to(alice, bob).get("path") == "direct", "they talk directly")
        check_answer(alice, bob, "direct")


def test_one_hard_nat_is_opened_by_birthday_where_that_is_allowed(tmp_path: Path) -> None:
    options = ("--stun-alternate", ALTERNATE)
    with at_home(tmp_path, {"alice": EASY, "bob": HARD}, options, wan_birthday=True) as (lan, [alice, bob]):
        # One attempt in fifty fails, and is made again.
        eventually(lambda: path_to(alice, bob).get("path") == "direct", "the ports were found", seconds=180)
        assert path_to(alice, bob)["path_reason"].startswith("by birthday")
        check_answer(alice, bob, "direct")
        # Of hundreds of sockets each side keeps the first ones of both IP versions, and one more at most.
        machines = ("alice", "bob")
        eventually(
            lambda: all(len(run(lan, each, "ss", "-Hunap").splitlines()) <= 3 for each in machines),
            "the others are closed",
        )


def test_two_nodes_behind_nats_that_cannot_be_opened_stay_on_the_relay_and_say_why(tmp_path: Path) -> None:
    options = ("--stun-alternate", ALTERNATE)  # with two addresses it can tell what a mapping depends on
    with at_home(tmp_path, {"alice": HARD, "bob": HARD}, options) as (lan, [alice, bob]):
        eventually(lambda: TINY in alice.models(), "the model is known")
        assert alice.chat(QUESTION).text == SENTENCE
        eventually(lambda: "mapping" in path_to(alice, bob).get("path_reason", ""), "all attempts are over")
        reason = path_to(alice, bob)["path_reason"]
        assert reason in told(alice, lan)
        check_answer(alice, bob, "relay")


def test_where_direct_paths_are_off_there_are_no_sockets_for_them(tmp_path: Path) -> None:
    with at_home(tmp_path, {"alice": EASY, "bob": EASY}, wan_direct=False) as (lan, [alice, bob]):
        eventually(lambda: TINY in alice.models(), "the model is known")
        check_answer(alice, bob, "relay")
        assert run(lan, "alice", "ss", "-Hunap").strip() == ""
