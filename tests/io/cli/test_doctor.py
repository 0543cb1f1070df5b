"""`teale doctor` and `teale completion`, on a machine with and without a node, with relays good and bad."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from teale_io.api.encoding import encode
from teale_io.cli.checkup import Level
from teale_io.cli.checkup_relay import clock
from teale_io.keychain import read_marker
from teale_io.paths import Paths
from teale_proto.effects import RelayState
from tests.io.certificates import self_signed
from tests.io.cli.conftest import Teale
from tests.io.cli.fake_node import STATUS, FakeNode
from tests.io.cli.terminal import ROOT, environ_of
from tests.io.cli.test_views import changed
from tests.io.status import ALICE

RELAY = "from teale_io.relay_app import main; main()"
CHECKS = {"node", "disk", "open files", "configuration", "identity", "api", "lan port", "lan", "relay", "models"}


@contextmanager
def relay(*options: str) -> Iterator[str]:
    """Run a relay on loopback; yields its URL."""
    command = [sys.executable, "-c", RELAY, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            yield line.removeprefix("listening on ").strip()
        finally:
            process.kill()


def findings_of(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {each["check"]: each for each in document["findings"]}


@pytest.fixture
def configured(teale_command: Teale) -> Teale:
    for key, value in (("identity_storage", "plain-file"), ("api_port", "0"), ("lan_port", "0")):
        assert teale_command("config", "set", key, value).code == 0
    return teale_command


# While no node runs.


def test_a_machine_in_order_has_nothing_to_mend_and_nothing_is_changed(configured: Teale, paths: Paths) -> None:
    ended = configured("doctor", "--json")
    found = findings_of(ended.document)
    assert ended.code == 0
    assert set(found) == CHECKS
    assert all(each["advice"].endswith((".", "NUMBER", "]", "false")) for each in found.values())
    assert Level.FAIL.value not in {each["status"] for each in found.values()}
    assert read_marker(paths) is None, "looking makes no identity"
    assert not paths.runtime_file.exists()


def test_people_get_one_line_a_finding_and_the_advice_below_it(configured: Teale) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configured("config", "set", "api_port", str(port))
        ended = configured("doctor")
    assert ended.code == 1
    lines = ended.out.splitlines()
    said = lines.index(f"fail  api: port {port} cannot be listened on: address already in use")
    assert lines[said + 1].strip().endswith("teale config set api_port PORT")
    assert any(line.startswith("ok    configuration: ") for line in lines)


def test_a_configuration_that_cannot_be_read_is_the_only_thing_to_mend(teale_command: Teale, paths: Paths) -> None:
    paths.config_file.parent.mkdir(parents=True)
    paths.config_file.write_text("lan_prt = 7\n")
    ended = teale_command("doctor", "--json")
    found = findings_of(ended.document)
    assert (ended.code, ended.document["status"]) == (1, "fail")
    assert "did you mean lan_port?" in found["configuration"]["found"]
    assert "relay" not in found


def test_the_key_is_tried_where_that_needs_no_question(configured: Teale, paths: Paths) -> None:
    configured("id", "--create")
    assert findings_of(configured("doctor", "--json").document)["identity"]["status"] == "ok"
    paths.identity_secret.write_text("{}")
    ended = configured("doctor", "--json")
    assert (ended.code, findings_of(ended.document)["identity"]["status"]) == (1, "fail")


def test_a_model_is_loaded_and_asked_for_a_token(configured: Teale) -> None:
    configured("config", "set", "builtin_model", "true")
    found = findings_of(configured("doctor", "--json").document)["models"]
    assert found["status"] == "ok"
    assert "teale-tiny was there in" in found["found"]
    assert "answers a token in" in found["found"]
    assert "models" not in findings_of(configured("doctor", "--json", "--skip-models").document)


def test_a_model_that_cannot_be_loaded_is_to_be_mended(configured: Teale, tmp_path: Path) -> None:
    configured("config", "set", "gguf_models", str(tmp_path / "none.gguf"))
    ended = configured("doctor", "--json")
    assert ended.code == 1
    assert "No such file" in findings_of(ended.document)["models"]["found"]


# Relays.


def with_relay(command: Teale, url: str) -> None:
    command("config", "set", "wan_relay_url", url)
    command("config", "set", "wan_enabled", "true")


def test_a_relay_is_asked_for_the_time_and_for_a_registration(configured: Teale, paths: Paths) -> None:
    with relay() as url:
        with_relay(configured, url)
        ended = configured("doctor", "--json")
    found = findings_of(ended.document)
    assert ended.code == 0
    assert f"{url} answers in" in found["relay"]["found"]
    assert "with challenge and proof" in found["registration"]["found"]
    assert found["clock"]["status"] == "ok"
    assert read_marker(paths) is None, "it registers with a key made for the purpose"


def test_a_relay_that_is_away_is_to_be_mended(configured: Teale) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with_relay(configured, f"ws://127.0.0.1:{port}/ws")
    ended = configured("doctor", "--json")
    assert ended.code == 1
    assert "cannot be reached: connection refused" in findings_of(ended.document)["relay"]["found"]


def test_a_certificate_of_ones_own_is_explained_and_can_be_trusted(configured: Teale, tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path)
    with relay("--tls-cert", str(certificate), "--tls-key", str(tmp_path / "key.pem")) as url:
        with_relay(configured, url)
        refused = findings_of(configured("doctor", "--json").document)["relay"]
        assert refused["status"] == "fail"
        assert "its certificate is not trusted: self-signed certificate" in refused["found"]
        assert "teale config set wan_relay_ca FILE.pem" in refused["advice"]
        configured("config", "set", "wan_relay_ca", str(certificate))
        trusted = configured("doctor", "--json")
        assert findings_of(trusted.document)["registration"]["status"] == "ok"
        assert trusted.code == 0
        other_name = url.replace("127.0.0.1", "localhost")
        with_relay(configured, other_name)
        misnamed = findings_of(configured("doctor", "--json").document)["relay"]
        assert "for another name" in misnamed["advice"]
    configured("config", "set", "wan_relay_ca", str(tmp_path / "none.pem"))
    missing = findings_of(configured("doctor", "--json").document)["relay"]
    assert "no such file" in missing["found"]


@pytest.mark.parametrize(
    ("ahead", "status", "found"),
    [
        (None, Level.OK, "not compared: the relay does not tell the time"),
        (0.4, Level.OK, "0 s ahead of the relay's"),
        (-29, Level.OK, "29 s behind the relay's"),
        (31, Level.WARN, "31 s ahead of the relay's"),
        (-90_000, Level.FAIL, "90000 s behind the relay's"),
    ],
)
def test_clocks_may_differ_a_little(ahead: float | None, status: Level, found: str) -> None:
    judged = clock(ahead)
    assert (judged.status, judged.found) == (status, found)


# While a node runs.


def test_a_running_node_is_asked(configured: Teale, node: FakeNode) -> None:
    configured("config", "set", "builtin_model", "true")
    with relay() as url:
        with_relay(configured, url)
        os.utime(configured_file(configured), (0, 0))
        node.answer_json("/api/status", changed(STATUS, running=0, queue_depth=0))
        found = findings_of(configured("doctor", "--json").document)
    assert found["node"]["found"] == f"runs as process {os.getpid()}"
    assert found["api"]["found"].startswith("the node answers at http://127.0.0.1:")
    assert found["registration"]["found"] == "the node is registered; 1 more nodes are listed there"
    assert found["configuration"]["status"] == "ok"
    # The fake node has bob answer everything.
    assert found["models"]["status"] == "warn"
    assert "not this node but b2b2b2b2b2b2b2b2 answered" in found["models"]["found"]
    assert node.bodies[-1]["max_tokens"] == 1


def test_a_busy_node_is_left_alone(configured: Teale, node: FakeNode) -> None:
    configured("config", "set", "builtin_model", "true")
    found = findings_of(configured("doctor", "--json").document)
    assert "busy (1 running, 3 waiting)" in found["models"]["found"]
    assert not node.bodies


def test_what_the_node_says_is_wrong_is_to_be_mended(configured: Teale, node: FakeNode) -> None:
    configured("config", "set", "builtin_model", "true")
    with relay() as url:
        with_relay(configured, url)
        status = changed(STATUS, wan=RelayState.WAITING, wan_reason="connection refused", loaded_models=(), running=0)
        node.answer_json("/api/status", json.loads(encode(status)) | {"problems": ["a.gguf is not a GGUF file"]})
        ended = configured("doctor", "--json")
    found = findings_of(ended.document)
    assert ended.code == 1
    assert found["registration"]["found"] == "the node is not connected to the relay (waiting): connection refused"
    wrong = [each["found"] for each in ended.document["findings"] if each["check"] == "models"]
    assert wrong == ["a.gguf is not a GGUF file", "the node is busy (0 running, 3 waiting), and is not asked anything"]
    assert found["configuration"]["advice"] == "To take the changes up: teale down, teale up"


def configured_file(command: Teale) -> str:
    file: str = command("config", "list", "--json").document["file"]
    return file


# Completion.


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion_script(teale_command: Teale, shell: str) -> None:
    ended = teale_command("completion", shell)
    assert ended.code == 0
    assert f"_TEALE_COMPLETE={shell}_complete" in ended.out
    assert "teale completion bash" in teale_command("completion", "--help").out


@pytest.mark.parametrize(
    ("words", "found"), [("teale doc", "doctor"), ("teale config get wan_relay_c", "wan_relay_ca")]
)
def test_commands_and_keys_are_completed(paths: Paths, words: str, found: str) -> None:
    environ = environ_of(
        paths, _TEALE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
    )
    command = [sys.executable, "-m", "teale_io.cli"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == [f"plain,{found}"]


def test_the_one_who_answers_is_known_by_its_id(configured: Teale, node: FakeNode) -> None:
    configured("config", "set", "builtin_model", "true")
    node.chat_headers["x-teale-served-by"] = ALICE
    node.answer_json("/api/status", changed(STATUS, running=0, queue_depth=0))
    found = findings_of(configured("doctor", "--json").document)["models"]
    assert found["status"] == "ok"
    assert found["found"].startswith("tiny answers a token in ")
