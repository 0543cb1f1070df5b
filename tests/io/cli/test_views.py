import json
import os
from dataclasses import dataclass
from typing import NoReturn

import msgspec
import pytest
from click.testing import CliRunner

from teale_io.api.encoding import encode
from teale_io.cli.app import App
from teale_io.cli.main import teale
from teale_io.paths import Paths, Runtime, read_runtime, write_runtime
from teale_proto.contract import Value
from teale_proto.effects import Path, PeerState, RelayState
from teale_proto.inputs import NodeId
from teale_proto.status import Explanation, PathStatus
from tests.io.cli.conftest import Teale
from tests.io.cli.fake_node import ROUTE, STATUS, FakeNode, peer
from tests.io.status import ALICE, BOB, CAROL, DAVE

ESCAPE = "\x1b]0;owned\x07\x9b31m\u202e"


def changed(value: Value, **changes: object) -> Value:
    return msgspec.structs.replace(value, **changes)


def lines(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


# Status.


def test_status_shows_what_the_manual_says_to_look_for(teale_command: Teale, node: FakeNode) -> None:
    ended = teale_command("status")
    assert ended.code == 0
    assert "\nwan: connected\n" in ended.out
    shown = lines(ended.out)
    assert shown["node id"] == ALICE
    assert shown["relay"] == "wss://relay.example/ws (connected)"
    assert shown["nat"] == "unknown"
    assert shown["lan"] == "on, encrypted (noise)"
    assert shown["models"] == "tiny"
    assert shown["hardware"] == "M4 Max, 64 GB, tier 2"
    assert shown["peers"] == "2 connected, 1 more listed by the relay"
    assert shown["queue"] == "1 running, 3 waiting, 0 asked from here"


def test_status_says_why_the_relay_is_not_connected(teale_command: Teale, node: FakeNode) -> None:
    node.answer_json("/api/status", changed(STATUS, wan=RelayState.WAITING, wan_reason="connection refused"))
    shown = lines(teale_command("status").out)
    assert shown["wan"] == "waiting"
    assert shown["relay"] == "wss://relay.example/ws (waiting, connection refused)"


def test_status_is_loud_about_an_unencrypted_lan(teale_command: Teale, node: FakeNode) -> None:
    node.answer_json("/api/status", changed(STATUS, lan_encryption="off", wan_enabled=False, wan=RelayState.OFF))
    shown = lines(teale_command("status").out)
    assert "NOT ENCRYPTED" in shown["lan"]
    assert shown["wan"].startswith("off")
    assert "relay" not in shown


def test_status_shows_what_keeps_the_models_from_being_served(teale_command: Teale, node: FakeNode) -> None:
    assert "problem" not in lines(teale_command("status").out)
    document = json.loads(encode(STATUS)) | {"problems": ["a.gguf is not a GGUF file", "The backend failed."]}
    node.answer_json("/api/status", document)
    shown = teale_command("status").out
    assert "\nproblem: a.gguf is not a GGUF file\nproblem: The backend failed.\n" in shown


def test_status_for_programs_is_what_the_node_says(teale_command: Teale, node: FakeNode) -> None:
    document = teale_command("status", "--json").document
    assert document["node_id"] == ALICE
    assert document["wan"] == "connected"
    assert document["display_name"] == "alice"


# Peers.


def test_peers_shows_all_of_them(teale_command: Teale, node: FakeNode) -> None:
    out = teale_command("peers").out
    assert all(name in out for name in ("bob", "carol", "dave", "Noise_IK", "192.0.2.7:11436", "41.5"))


@pytest.mark.parametrize(
    ("option", "connected", "listed"),
    [("--lan", [BOB], []), ("--wan", [CAROL], [DAVE]), (None, [BOB, CAROL], [DAVE])],
)
def test_peers_can_be_those_of_one_network(
    teale_command: Teale, node: FakeNode, option: str | None, connected: list[NodeId], listed: list[NodeId]
) -> None:
    words = ["peers", option] if option else ["peers"]
    found = teale_command(*words, "--json").document
    assert [each["node_id"] for each in found["connected"]] == connected
    assert [each["node_id"] for each in found["listed"]] == listed
    shown = teale_command(*words).out
    for node_id in (BOB, CAROL, DAVE):
        assert (node_id[:16] in shown) == (node_id in connected + listed)


def test_both_options_are_all_peers(teale_command: Teale, node: FakeNode) -> None:
    assert teale_command("peers", "--lan", "--wan").out == teale_command("peers").out


def test_peers_can_be_asked_which_paths_there_are_and_why(teale_command: Teale, node: FakeNode) -> None:
    paths = (
        PathStatus(Path.DIRECT, "198.51.100.7:4242", PeerState.CONNECTED, 21.34),
        PathStatus(Path.RELAY, "", PeerState.DEGRADED, None),
    )
    far = msgspec.structs.replace(
        peer(BOB, "bob", Path.DIRECT, "tiny"), path_reason="direct: their mapping is endpoint-independent", paths=paths
    )
    node.answer_json("/api/peers", {"connected": [far, peer(CAROL, "carol", Path.LAN)], "listed": []})
    out = teale_command("peers", "--explain").out
    assert out.startswith(teale_command("peers").out)
    assert out.splitlines()[-6:] == [
        "",
        "bob (b2b2b2b2b2b2b2b2): direct: their mapping is endpoint-independent",
        "  direct, connected, 198.51.100.7:4242, 21.3 ms",
        "  relay, degraded",
        "",
        "carol (c3c3c3c3c3c3c3c3): over lan",
    ]
    assert "bob" in teale_command("peers", "--wan").out
    assert "bob" not in teale_command("peers", "--lan").out


def test_no_peers_are_a_sentence(teale_command: Teale, node: FakeNode) -> None:
    node.answer_json("/api/peers", {"connected": [], "listed": []})
    assert teale_command("peers").out == "No peers are connected.\n"


@pytest.mark.parametrize("command", [("peers",), ("models",), ("route", "tiny", "--explain"), ("status",)])
def test_nothing_that_a_peer_calls_itself_can_steer_the_terminal(
    teale_command: Teale, node: FakeNode, command: tuple[str, ...]
) -> None:
    hostile = "[red]x[/red]" + ESCAPE + "\r\n"
    node.answer_json("/api/peers", {"connected": [peer(BOB, hostile, Path.LAN, hostile)], "listed": []})
    node.answer_json("/api/status", changed(STATUS, display_name=hostile, wan_reason=hostile))
    candidates = tuple(msgspec.structs.replace(each, display_name=hostile) for each in ROUTE.candidates)
    node.answer_json("/api/route", Explanation("tiny", BOB, candidates, hostile))
    node.offer(hostile)
    for json_option in ([], ["--json"]):
        out = teale_command(*command, *json_option).out
        assert "[red]x[/red]" in out, "and nothing is markup"
        assert not set(out) & set("\x1b\x07\x9b\u202e\r")


# Models and routes.


def test_models_says_who_serves_them(teale_command: Teale, node: FakeNode) -> None:
    node.offer("large", "tiny")
    assert teale_command("models", "--json").document == {
        "models": [
            {"id": "large", "local": False, "peers": [CAROL]},
            {"id": "tiny", "local": True, "peers": [BOB, DAVE]},
        ]
    }
    assert [line.split() for line in teale_command("models").out.splitlines()] == [
        ["MODEL", "HERE", "PEERS"],
        ["large", "1"],
        ["tiny", "yes", "2"],
    ]


def test_no_models_are_a_hint(teale_command: Teale, node: FakeNode) -> None:
    node.offer()
    assert "teale config set gguf_models" in teale_command("models").out


def test_a_route_is_explained_with_every_candidate(teale_command: Teale, node: FakeNode) -> None:
    out = teale_command("route", "--explain", "tiny").out
    assert out.startswith(f"tiny: bob ({BOB[:16]}), lan: least in flight\n")
    rows = {line.split()[-len(line.split()) :][0]: line for line in out.splitlines()[3:]}
    assert "41.50" in rows["->"]
    assert "busier than the winner" in rows[ALICE[:16]]
    assert "does not have the model" in rows[CAROL[:16]]
    assert "/api/route?model=tiny&task=chat%2Fcompletions" in node.queries


def test_a_route_without_explanation_is_one_line(teale_command: Teale, node: FakeNode) -> None:
    assert len(teale_command("route", "tiny").out.splitlines()) == 1
    node.answer_json("/api/route", Explanation("tiny", None, (), "nobody has it"))
    assert teale_command("route", "tiny").out == "tiny: nobody can answer: nobody has it\n"


def test_a_route_for_programs_is_the_whole_explanation(teale_command: Teale, node: FakeNode) -> None:
    document = teale_command("route", "tiny", "--json").document
    assert document["winner"] == BOB
    assert len(document["candidates"]) == 3


# What can go wrong.

VIEWS = [("status",), ("peers",), ("models",), ("route", "tiny"), ("chat", "hello")]


@pytest.mark.parametrize("command", VIEWS)
def test_without_a_node_the_error_says_how_to_start_one(teale_command: Teale, command: tuple[str, ...]) -> None:
    ended = teale_command(*command)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == "error: No node is running here. Start one with: teale up\n"
    assert teale_command(*command, "--json").document == {
        "error": {
            "message": "No node is running here. Start one with: teale up",
            "type": "not_running",
            "exit_code": 3,
        }
    }


@dataclass
class Stale:
    """A runtime file that means no node."""

    pid: int
    node_id: NodeId


@pytest.mark.parametrize("stale", [Stale(2**22 + 1, ALICE), Stale(os.getpid(), BOB)], ids=["no process", "other node"])
def test_a_stale_runtime_file_is_recognised_and_removed(
    teale_command: Teale, node: FakeNode, paths: Paths, stale: Stale
) -> None:
    runtime = read_runtime(paths)
    assert runtime is not None
    write_runtime(paths, Runtime(stale.pid, "127.0.0.1", runtime.api_port, stale.node_id))
    assert teale_command("status").code == 3
    assert not paths.runtime_file.exists()


def test_a_process_that_got_the_number_of_a_dead_node_is_not_taken_for_it(teale_command: Teale, paths: Paths) -> None:
    write_runtime(paths, Runtime(os.getpid(), "127.0.0.1", 1, ALICE))
    os.utime(paths.runtime_file, (1, 1))
    assert teale_command("status").code == 3
    assert not paths.runtime_file.exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": "x"}', b"\xff" * 5000])
def test_a_damaged_runtime_file_means_no_node(teale_command: Teale, paths: Paths, content: bytes) -> None:
    paths.home.mkdir()
    paths.runtime_file.write_bytes(content)
    assert teale_command("status").code == 3


def test_a_node_that_lives_and_does_not_answer_is_told_apart(teale_command: Teale, paths: Paths) -> None:
    write_runtime(paths, Runtime(os.getpid(), "127.0.0.1", 1, ALICE))
    ended = teale_command("status")
    assert ended.code == 5
    assert f"process {os.getpid()}" in ended.err
    assert paths.runtime_file.exists()


def test_an_api_of_another_version_is_an_error_that_says_so(teale_command: Teale, node: FakeNode) -> None:
    node.answers["/api/status"] = (200, json.dumps({"node_id": ALICE, "wan": "flying"}).encode())
    ended = teale_command("status")
    assert ended.code == 5
    assert "another version" in ended.err


def test_errors_of_the_node_are_passed_on_in_its_words(teale_command: Teale, node: FakeNode) -> None:
    error = {"message": "no such model" + ESCAPE, "code": "model_not_found"}
    node.answers["/api/route"] = (404, encode({"error": error}))
    ended = teale_command("route", "nothing")
    assert ended.code == 4
    assert ended.err == "error: no such model\\x1b]0;owned\\x07\\x9b31m\\u202e\n"


def test_an_error_page_of_something_else_is_told_by_its_status(teale_command: Teale, node: FakeNode) -> None:
    node.answers["/api/peers"] = (502, b"<html>")
    ended = teale_command("peers")
    assert (ended.code, ended.err) == (5, "error: The node answered with HTTP status 502.\n")


def test_a_proxy_in_the_environment_is_not_asked(
    teale_command: Teale, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert teale_command("status").code == 0


# The command line itself.


def test_wrong_usage_is_code_2_and_a_document_for_programs(teale_command: Teale) -> None:
    assert teale_command("peers", "--lam").code == 2
    ended = teale_command("peers", "--lam", "--json")
    assert ended.code == 2
    assert ended.document["error"]["type"] == "usage"


class _Broken(App):
    def node_api(self) -> NoReturn:
        raise ZeroDivisionError("a bug")


def test_a_bug_is_one_sentence_and_no_traceback(paths: Paths) -> None:
    result = CliRunner().invoke(teale, ["status"], obj=_Broken(paths=paths))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: This is a bug in teale: ZeroDivisionError: a bug. TEALE_DEBUG=1 shows where.\n"


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(paths: Paths, teale_command: Teale) -> None:
    paths.home.write_text("a file, where a folder belongs")
    ended = teale_command("config", "set", "wan_enabled", "true")
    assert ended.code in (1, 7)
    assert str(paths.home) in ended.err


def test_version_and_help_are_there(teale_command: Teale) -> None:
    assert teale_command("--version").code == 0
    for command in ("up", "down", "status", "peers", "models", "chat", "route", "config", "id"):
        shown = teale_command(command, "--help")
        assert shown.code == 0
        assert "--json" in shown.out or command == "config"
