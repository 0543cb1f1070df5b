"""Who may join, as it is configured: what the keys take, what they exclude, and that the passcode stays unseen."""

from pathlib import Path
from typing import Any

import pytest

from teale_io.config import Config, ConfigError, load_config, set_value, with_environment
from teale_io.node_app import node_config, require_joinable
from teale_proto.door import Join
from teale_proto.errors import TealeError
from teale_proto.node_config import door_of
from teale_proto.secure.identity import to_multibase
from tests.proto.world import identity

BOB = identity(2).node_id


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.mark.parametrize(
    ("settings", "join"),
    [
        ({}, Join.OPEN),
        ({"lan_passcode": "correct horse"}, Join.PASSCODE),
        ({"lan_passcode": "correct horse", "lan_join": "open"}, Join.OPEN),
        ({"lan_passcode": "correct horse", "lan_join": "paired"}, Join.PAIRED),
        ({"lan_join": "paired"}, Join.PAIRED),
    ],
)
def test_a_passcode_is_asked_for_where_one_is_set_and_nothing_else_is_said(
    settings: dict[str, Any], join: Join
) -> None:
    assert door_of(node_config(Config(**settings))).lan_join is join


def test_trusted_nodes_are_ids_in_either_form(file: Path) -> None:
    set_value(file, "trusted_nodes", [BOB.upper(), to_multibase(BOB)])
    assert node_config(load_config(file)).trusted_nodes == (BOB, BOB)
    with pytest.raises(ConfigError, match="trusted_nodes must be node ids"):
        set_value(file, "trusted_nodes", ["bob"])


def test_the_environment_comes_before_the_file() -> None:
    config = with_environment(Config(lan_passcode="in the file"), {"TEALE_LAN_PASSCODE": "from outside"})
    assert config.lan_passcode == "from outside"
    assert with_environment(config, {}) == config
    with pytest.raises(ConfigError, match="TEALE_LAN_PASSCODE must be 6 to 128 printable characters") as caught:
        with_environment(config, {"TEALE_LAN_PASSCODE": "short"})
    assert "short" not in str(caught.value)


def test_a_passcode_that_is_wanted_must_be_set_somewhere() -> None:
    with pytest.raises(TealeError, match="teale config set lan_passcode"):
        require_joinable(Config(lan_join="passcode"))
    require_joinable(Config(lan_join="passcode", lan_passcode="correct horse"))
    require_joinable(Config(lan_join="passcode", lan_enabled=False))


@pytest.mark.parametrize("text", ['lan_passcode = "correct horse"', 'lan_join = "paired"', 'lan_join = "passcode"'])
def test_without_encryption_there_is_no_rule_but_open(file: Path, text: str) -> None:
    file.write_text(f'lan_encryption = "off"\n{text}\n')
    with pytest.raises(ConfigError, match="line 1: lan_encryption is off"):
        load_config(file)
    file.write_text(f'lan_encryption = "off"\nlan_enabled = false\n{text}\n')
    load_config(file)


def test_a_passcode_is_in_no_text_about_the_configuration(file: Path) -> None:
    set_value(file, "lan_passcode", ["correct horse"])
    config = load_config(file)
    assert config.lan_passcode == "correct horse"
    assert "correct horse" not in f"{config!r} {config} {node_config(config)!r}"
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError) as caught:
        set_value(file, "lan_passcode", ["tiny"])
    assert "tiny" not in str(caught.value)
