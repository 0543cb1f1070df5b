import shlex
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from teale_io.cli.app import App
from teale_io.cli.main import teale
from teale_io.cli.settings import written
from teale_io.config import KEYS, SECRETS, Config, load_config
from teale_io.paths import Paths, Runtime, write_runtime
from teale_proto.inputs import NodeId
from teale_proto.secure.identity import to_multibase
from tests.io.cli.conftest import Teale
from tests.io.cli.fake_node import FakeNode


def test_wan_is_enabled_and_another_relay_chosen_as_the_manual_says(teale_command: Teale, paths: Paths) -> None:
    for line in (
        "teale config set wan_enabled true",
        "teale config set wan_relay_url wss://my-relay.example.com/ws",
    ):
        assert teale_command(*shlex.split(line)[1:]).code == 0
    config = load_config(paths.config_file)
    assert config.wan_enabled
    assert config.wan_relay_url == "wss://my-relay.example.com/ws"


def test_a_value_that_was_set_is_shown_as_it_is_set(teale_command: Teale) -> None:
    assert teale_command("config", "set", "lan_interfaces", "eth0", "192.0.2.1").out == (
        'lan_interfaces = ["eth0", "192.0.2.1"]\n'
    )
    assert teale_command("config", "get", "lan_interfaces").out == '["eth0", "192.0.2.1"]\n'
    assert teale_command("config", "get", "lan_interfaces", "--json").document == {
        "key": "lan_interfaces",
        "value": ["eth0", "192.0.2.1"],
    }


def test_setting_tells_that_a_running_node_must_be_restarted(teale_command: Teale, node: FakeNode) -> None:
    ended = teale_command("config", "set", "wan_enabled", "true")
    assert "teale down, teale up" in ended.err
    assert teale_command("config", "set", "wan_enabled", "true", "--json").document["restart_needed"] is True


def test_setting_says_nothing_of_a_node_that_is_gone(teale_command: Teale, paths: Paths) -> None:
    write_runtime(paths, Runtime(2**22 + 1, "127.0.0.1", 1, NodeId("ab" * 32)))
    ended = teale_command("config", "set", "wan_enabled", "true")
    assert (ended.code, ended.err) == (0, "")


def test_a_wrong_value_is_a_usage_error_in_one_sentence(teale_command: Teale) -> None:
    ended = teale_command("config", "set", "heartbeat_seconds", "7")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: heartbeat_seconds must be 5, 15 or 30, not 7.\n"


@pytest.mark.parametrize("words", [("get", "lan_prot"), ("set", "lan_prot", "3")])
def test_an_unknown_key_is_not_found_and_the_nearest_is_named(teale_command: Teale, words: tuple[str, ...]) -> None:
    ended = teale_command("config", *words)
    assert ended.code == 4
    assert "did you mean lan_port?" in ended.err


def test_an_error_in_the_file_has_its_own_code_and_names_the_place(teale_command: Teale, paths: Paths) -> None:
    paths.home.mkdir()
    paths.config_file.write_text("# mine\nlan_port = 'x'\n")
    ended = teale_command("config", "list", "--json")
    assert ended.code == 7
    assert ended.document["error"]["exit_code"] == 7
    assert f"{paths.config_file}, line 2" in ended.document["error"]["message"]


def test_the_list_shows_every_key_with_its_meaning(teale_command: Teale) -> None:
    teale_command("config", "set", "lan_port", "7")
    shown = teale_command("config", "list")
    assert all(key.name in shown.out and key.help in shown.out for key in KEYS.values())
    keys = {each["key"]: each for each in teale_command("config", "list", "--json").document["keys"]}
    assert list(keys) == list(KEYS)
    assert (keys["lan_port"]["value"], keys["lan_port"]["default"], keys["lan_port"]["is_set"]) == (7, 11436, True)
    assert keys["api_port"]["is_set"] is False


def test_a_token_is_set_without_being_shown(teale_command: Teale, paths: Paths) -> None:
    token = "0123456789abcdef"
    shown = [teale_command("config", "set", "wan_relay_token", token), teale_command("config", "list")]
    shown += [teale_command("config", "set", "wan_relay_token", token, "--json")]
    shown += [teale_command("config", "list", "--json")]
    for ended in shown:
        assert ended.code == 0
        assert "(set)" in ended.out
        assert token not in ended.out + ended.err
    assert teale_command("config", "get", "wan_relay_token").out == f"{token}\n", "who asks for it gets it"
    assert paths.config_file.stat().st_mode & 0o777 == 0o600


def test_a_model_file_named_from_where_one_stands_is_kept_as_an_absolute_path(
    teale_command: Teale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert teale_command("config", "set", "gguf_models", "tiny.gguf", "/m/a.gguf", "--json").document["value"] == [
        str(tmp_path / "tiny.gguf"),
        "/m/a.gguf",
    ]


# The identity.


def test_a_node_without_identity_says_how_it_gets_one(teale_command: Teale) -> None:
    ended = teale_command("id")
    assert ended.code == 4
    assert "teale up" in ended.err


def test_the_id_is_shown_in_both_forms_and_never_changes(teale_command: Teale) -> None:
    teale_command("config", "set", "identity_storage", "plain-file")
    node_id = teale_command("id", "--create").out.strip()
    assert len(node_id) == 64
    assert teale_command("id", "--multibase").out.strip() == to_multibase(NodeId(node_id))
    assert teale_command("id", "--create", "--json").document == {
        "node_id": node_id,
        "multibase": to_multibase(NodeId(node_id)),
        "storage": "plain-file",
    }


def test_without_keychain_the_error_says_what_to_do_and_has_its_own_code(teale_command: Teale) -> None:
    ended = teale_command("id", "--create")
    assert ended.code == 8
    assert "teale config set identity_storage plain-file" in ended.err


def test_a_passphrase_from_the_environment_encrypts_the_identity(teale_command: Teale, paths: Paths) -> None:
    environ = {"TEALE_PASSPHRASE": "correct horse"}
    created = teale_command("id", "--create", "--json", environ=environ)
    assert created.document["storage"] == "encrypted-file"
    assert teale_command("id").out.strip() == created.document["node_id"], "the id alone needs no passphrase"
    assert b"correct horse" not in paths.identity_secret.read_bytes()


# Whatever is set is what one gets.

_IP = st.ip_addresses().map(str)
_LINE = st.text(min_size=1, max_size=40).filter(str.isprintable).filter(str.strip)
_HOST = st.from_regex(r"[a-z][a-z0-9]{0,20}(\.[a-z]{2,5})?", fullmatch=True)
_TAIL = st.from_regex(r"(:[1-9][0-9]{0,3})?(/[a-zA-Z0-9._~%-]{0,20}){0,3}", fullmatch=True)


def _urls(*schemes: str) -> SearchStrategy[str]:
    return st.builds("{}://{}{}".format, st.sampled_from(schemes), _HOST, _TAIL)


_STRINGS: dict[str, SearchStrategy[Any]] = {
    "lan_passcode": st.sampled_from(["", "correct horse", "123456"]),
    "trusted_nodes": st.lists(st.sampled_from(["ab" * 32, "CD" * 32]), max_size=3),
    "display_name": _LINE,
    "lan_host": st.just("") | _IP,
    "lan_interfaces": st.lists(_LINE, max_size=4),
    "wan_relay_url": _urls("ws", "wss"),
    "api_host": _IP | st.just("localhost"),
    "wan_stun": st.lists(st.builds("{}{}".format, _HOST, st.sampled_from(["", ":1", ":65535"])), max_size=4),
    "wan_relay_ca": _LINE.map(lambda name: "/etc/" + name) | st.just(""),
    "wan_relay_token": st.from_regex(r"\A[a-zA-Z0-9._~+/-]{16,40}=?\Z") | st.just(""),
    "gguf_models": st.lists(_LINE.map(lambda name: "/models/" + name), max_size=4),
    "openai_urls": st.lists(_urls("http", "https"), max_size=4),
    "openai_api_key_env": st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True) | st.just(""),
}

_RANGES = {
    "lan_port": (0, 65_535),
    "wan_udp_port": (0, 65_535),
    "api_port": (0, 65_535),
    "max_concurrent_requests": (1, 1024),
    "queue_max": (1, 65_536),
    "wan_peers_max": (0, 1024),
    "request_timeout_seconds": (1, 86_400),
    "backend_silence_seconds": (1, 86_400),
}


def _values_of(name: str) -> SearchStrategy[Any]:
    if name in _STRINGS:
        return _STRINGS[name]
    if name in _RANGES:
        return st.integers(*_RANGES[name])
    if isinstance(KEYS[name].default, bool):
        return st.booleans()
    return st.sampled_from(get_args(get_args(Config.__annotations__[name])[0]))


_SETTINGS = st.sampled_from(list(KEYS)).flatmap(lambda name: st.tuples(st.just(name), _values_of(name)))


@given(st.lists(_SETTINGS, max_size=4))
@settings(deadline=None, max_examples=60)
def test_any_value_that_is_set_is_what_get_returns_and_what_set_takes_again(changes: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as home:

        def run(*words: str) -> str:
            result = CliRunner().invoke(teale, ["config", *words], obj=App(environ={"TEALE_HOME": home}))
            assert result.exit_code == 0, result.stderr
            return result.stdout

        run("set", "api_allow_remote", "true")
        for name, value in (each for each in changes if each[0] not in ("api_allow_remote", "lan_encryption")):
            value = tuple(value) if isinstance(value, list) else value
            run("set", name, "--", written(value))
            assert getattr(load_config(Paths.below(Path(home)).config_file), name) == value
            shown = run("get", name).removesuffix("\n")
            assert shown == written(value)
            echo = "(set)" if name in SECRETS and shown else shown
            assert run("set", name, "--", shown) == f"{name} = {echo}\n"
