"""`teale address` and `teale connect`."""

import json

import pytest

from teale_io.api.encoding import encode
from tests.io.cli.conftest import Teale
from tests.io.cli.fake_node import STATUS, FakeNode
from tests.io.cli.test_views import ESCAPE, changed
from tests.io.status import ALICE, BOB, DAVE

RELAY = "wss://relay.example/ws"
DIRECT = [{"host": "198.51.100.7", "port": 4433}, {"host": "2001:db8::7", "port": 4433}]
PRIVATE = [{"host": "192.168.1.7", "port": 4433}, {"host": "::", "port": 1}]


def knows(node: FakeNode, *addresses: dict[str, object], **changes: object) -> None:
    document = json.loads(encode(changed(STATUS, **changes)))
    node.answer_json("/api/status", document | {"direct_addresses": list(addresses)})


def test_the_address_names_the_relay_and_where_the_node_answers_directly(teale_command: Teale, node: FakeNode) -> None:
    knows(node, *DIRECT, *PRIVATE, *DIRECT)
    ended = teale_command("address")
    assert ended.code == 0
    assert ended.out == f"teale://{ALICE}?relay={RELAY}&addr=198.51.100.7:4433&addr=[2001:db8::7]:4433\n"
    assert "&addr=192.168.1.7:4433" in teale_command("address", "--all").out
    assert teale_command("address", "--json").document == {
        "address": ended.out.strip(),
        "node_id": ALICE,
        "relay": RELAY,
        "addresses": ["198.51.100.7:4433", "[2001:db8::7]:4433"],
    }


def test_where_nothing_is_known_it_is_the_relay_only(teale_command: Teale, node: FakeNode) -> None:
    assert teale_command("address").out == f"teale://{ALICE}?relay={RELAY}\n"
    knows(node, wan_enabled=False)
    ended = teale_command("address")
    assert ended.out == f"teale://{ALICE}\n"
    assert "names no relay" in ended.err


def test_without_a_node_the_configuration_tells(teale_command: Teale) -> None:
    assert teale_command("address").code == 4
    assert teale_command("config", "set", "identity_storage", "plain-file").code == 0
    own = teale_command("id", "--create").out.strip()
    assert teale_command("address").out == f"teale://{own}\n"
    teale_command("config", "set", "wan_enabled", "true")
    teale_command("config", "set", "wan_relay_url", RELAY)
    assert teale_command("address").out == f"teale://{own}?relay={RELAY}\n"


@pytest.fixture
def connecting(node: FakeNode) -> FakeNode:
    node.answer_json("/api/connect", {}, status=202)
    return node


def test_a_node_that_is_dialled_is_waited_for(teale_command: Teale, connecting: FakeNode) -> None:
    pasted = f"teale://{BOB}?relay={RELAY}&addr=192.0.2.1:4433"
    ended = teale_command("connect", f" {pasted} ")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"bob ({BOB[:16]}) is connected, lan\n"
    assert connecting.bodies == [{"address": pasted}]
    document = teale_command("connect", pasted, "--json").document
    assert document == {"node_id": BOB, "connected": {"state": "connected", "path": "lan"}}


def test_a_node_that_does_not_come_is_a_timeout(teale_command: Teale, connecting: FakeNode) -> None:
    ended = teale_command("connect", f"teale://{DAVE}", "--wait", "0.1")
    assert (ended.code, ended.out) == (6, "")
    assert "the node goes on trying" in ended.err
    at_once = teale_command("connect", f"teale://{DAVE}", "--wait", "0")
    assert (at_once.code, at_once.out) == (0, f"{DAVE[:16]} is being tried; see: teale peers\n")


def test_another_relay_is_pointed_out(teale_command: Teale, connecting: FakeNode) -> None:
    ended = teale_command("connect", f"teale://{BOB}?relay=wss://other.example")
    assert "registered at wss://other.example, and this one's relay is wss://relay.example/ws" in ended.err


@pytest.mark.parametrize("text", ["", "bob", "teale://bob", f"teale://{BOB}?addr=x", f"teale://{BOB}{ESCAPE}"])
def test_what_is_no_address_is_wrong_usage_and_nobody_is_asked(
    teale_command: Teale, connecting: FakeNode, text: str
) -> None:
    ended = teale_command("connect", text)
    assert ended.code == 2
    assert "This is no node address" in ended.err
    assert "\x1b" not in ended.err
    assert connecting.bodies == []


def test_what_the_node_refuses_is_told(teale_command: Teale, node: FakeNode) -> None:
    node.answer_json("/api/connect", {"error": {"message": "this is the node itself", "code": "not_possible"}}, 409)
    ended = teale_command("connect", f"teale://{ALICE}")
    assert (ended.code, ended.err) == (5, "error: this is the node itself\n")


def test_without_a_node_nothing_is_dialled(teale_command: Teale) -> None:
    assert teale_command("connect", f"teale://{BOB}").code == 3
