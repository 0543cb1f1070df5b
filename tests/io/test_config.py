import os
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from teale_io.config import (
    FILE_SIZE_MAX,
    KEYS,
    Config,
    ConfigError,
    UnknownKey,
    keys_set_in,
    load_config,
    set_value,
    with_environment,
)
from teale_io.paths import Paths


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def refusal_of(file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert caught.value.file == file
    return str(caught.value).replace(str(file), "FILE")


def test_without_a_file_every_key_has_its_default(file: Path) -> None:
    assert load_config(file) == Config()
    assert not file.exists()


def test_a_file_is_read_into_typed_values(file: Path) -> None:
    file.write_text(
        'wan_enabled = true\nlan_port = 7\nheartbeat_seconds = 5\nopenai_urls = ["http://127.0.0.1:8080"]\n'
    )
    config = load_config(file)
    assert (config.wan_enabled, config.lan_port, config.heartbeat_seconds) == (True, 7, 5)
    assert config.openai_urls == ("http://127.0.0.1:8080",)


def test_a_configuration_cannot_be_changed_in_memory() -> None:
    with pytest.raises(AttributeError):
        Config().lan_port = 1  # type: ignore[misc]  # what is tested


def test_every_default_is_a_value_that_its_key_accepts() -> None:
    for key in KEYS.values():
        assert key.convert(msgspec.to_builtins(key.default)) == key.default


def test_every_key_says_what_it_is_for_and_what_it_expects() -> None:
    assert tuple(KEYS) == Config.__struct_fields__
    assert all(key.help.endswith(".") and key.expected for key in KEYS.values())


def test_an_unknown_key_is_an_error_that_names_file_line_and_nearest_key(file: Path) -> None:
    assert (
        refusal_of(file, "# one\nlan_prot = 3\n") == "FILE, line 2: there is no key 'lan_prot'; did you mean lan_port?"
    )
    file.write_text("lan_prot = 3")
    with pytest.raises(UnknownKey):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('lan_port = "3"', "lan_port must be a whole number from 0 to 65535, not '3'."),
        ("lan_port = 65536", "lan_port must be a whole number from 0 to 65535, not 65536."),
        ("lan_port = true", "lan_port must be a whole number from 0 to 65535, not true."),
        ("lan_enabled = 1", "lan_enabled must be true or false, not 1."),
        ("heartbeat_seconds = 7", "heartbeat_seconds must be 5, 15 or 30, not 7."),
        ('lan_encryption = "none"', "lan_encryption must be noise or off, not 'none'."),
        (
            'identity_storage = "disk"',
            "identity_storage must be auto, keychain, encrypted-file or plain-file, not 'disk'.",
        ),
        ('lan_host = "my host"', "lan_host must be an IP address, or \"\", not 'my host'."),
        ('openai_api_key_env = "sk-1"', "openai_api_key_env must be the name of a variable, or \"\", not 'sk-1'."),
        ("gguf_models = [1]", "gguf_models must be paths of files, not [1]."),
        ('display_name = "a\\u001b[2J"', "display_name must be 1 to 256 printable characters, not 'a\\x1b[2J'."),
        ("[lan]\nport = 3", "there is no key 'lan'."),
        ("lan_port.x = 3", "lan_port must be a whole number from 0 to 65535, not {'x': 3}."),
    ],
)
def test_a_wrong_value_is_an_error_that_says_where_and_what_was_expected(file: Path, text: str, problem: str) -> None:
    assert refusal_of(file, text) == f"FILE, line 1: {problem}"


@pytest.mark.parametrize(
    "url",
    [
        "https://relay.example/ws",
        "wss://",
        "wss:///ws",
        "relay.example",
        "wss://user:secret@relay.example/ws",
        "wss://relay.example:0/ws",
        "wss://relay.example:70000/ws",
        "wss://relay.example/w s",
        "wss://relay.example/\\n",
        "wss://[::1/ws",
    ],
)
def test_a_relay_is_a_websocket_url_with_a_host(file: Path, url: str) -> None:
    assert "wan_relay_url must be a ws:// or wss:// URL with a host" in refusal_of(file, f'wan_relay_url = "{url}"')


@pytest.mark.parametrize("url", ["ws://127.0.0.1:8080/ws", "wss://[::1]:443/ws?a=b", "WSS://RELAY.example"])
def test_relays_of_all_kinds_are_accepted(file: Path, url: str) -> None:
    set_value(file, "wan_relay_url", [url])
    assert load_config(file).wan_relay_url == url


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "fe80::1"])
def test_an_api_for_other_machines_must_be_allowed_explicitly(file: Path, host: str) -> None:
    assert "set api_allow_remote to true first" in refusal_of(file, f'api_host = "{host}"')
    file.write_text(f'api_host = "{host}"\napi_allow_remote = true\n')
    assert load_config(file).api_host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_an_api_on_loopback_needs_no_permission(file: Path, host: str) -> None:
    set_value(file, "api_host", [host])
    assert load_config(file).api_host == host


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"lan_port = 1\nlan_port = 2\n", "is not valid TOML"),
        (b"\nlan_port = \n", "line 2: is not valid TOML"),
        (b"# \xff\n", "line 1: is not UTF-8 text"),
        (b"#" * (FILE_SIZE_MAX + 1), "is larger than"),
    ],
)
def test_a_file_that_is_no_toml_is_an_error_that_says_so(file: Path, content: bytes, problem: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        load_config(file)


def test_setting_a_value_keeps_comments_order_and_everything_else(file: Path) -> None:
    file.write_text("# my node\nlan_port = 5 # the old one\n\n# the net\nwan_enabled = false\n# the end\n")
    set_value(file, "lan_port", ["77"])
    set_value(file, "wan_enabled", ["true"])
    set_value(file, "log_level", ["debug"])
    assert file.read_text() == (
        '# my node\nlan_port = 77 # the old one\n\n# the net\nwan_enabled = true\n# the end\nlog_level = "debug"\n'
    )
    assert keys_set_in(file) == {"lan_port", "wan_enabled", "log_level"}


def test_line_endings_survive_setting(file: Path) -> None:
    file.write_bytes(b"# one\r\nlan_port = 5\r\n")
    set_value(file, "lan_port", ["6"])
    assert file.read_bytes() == b"# one\r\nlan_port = 6\r\n"


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "config.toml"
    set_value(file, "wan_enabled", ["true"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_file_that_is_a_link_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles.toml", tmp_path / "config.toml"
    real.write_text("# kept elsewhere\n")
    link.symlink_to(real)
    set_value(link, "wan_enabled", ["true"])
    assert link.is_symlink()
    assert real.read_text() == "# kept elsewhere\nwan_enabled = true\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lan_port", ["x"]),
        ("lan_port", ["1_0"]),
        ("lan_port", ["9" * 5000]),
        ("lan_port", []),
        ("lan_port", ["1", "2"]),
        ("lan_enabled", ["maybe"]),
        ("api_host", ["0.0.0.0"]),
        ("openai_urls", ["ftp://x"]),
        ("openai_urls", ['["http://x"']),
        ("openai_urls", []),
        ("display_name", ["\udcff"]),
    ],
)
def test_a_refused_value_changes_nothing(file: Path, name: str, words: list[str]) -> None:
    file.write_text("lan_port = 5\n")
    with pytest.raises(ConfigError):
        set_value(file, name, words)
    assert file.read_text() == "lan_port = 5\n"
    assert [each.name for each in file.parent.iterdir() if "unfinished" in each.name] == []


def test_a_wrong_value_in_the_file_can_be_repaired_by_setting_it(file: Path) -> None:
    file.write_text('lan_port = "nonsense"\n')
    with pytest.raises(ConfigError, match="lan_port"):
        set_value(file, "wan_enabled", ["true"])
    set_value(file, "lan_port", ["5"])
    assert load_config(file).lan_port == 5


def test_a_list_is_one_word_an_item_or_a_toml_array(file: Path) -> None:
    assert set_value(file, "lan_interfaces", ["eth0", "192.0.2.1"]) == ("eth0", "192.0.2.1")
    assert set_value(file, "lan_interfaces", ['["wlan0"]']) == ("wlan0",)
    assert set_value(file, "lan_interfaces", ["[]"]) == ()


def test_model_files_are_relative_to_the_configuration(file: Path) -> None:
    file.write_text('gguf_models = ["tiny.gguf", "/models/big.gguf", "~/mine.gguf"]\n')
    home = os.path.expanduser("~")
    assert load_config(file).gguf_models == (
        str(file.parent / "tiny.gguf"),
        "/models/big.gguf",
        os.path.join(home, "mine.gguf"),
    )


def test_the_certificates_of_the_relay_are_found_where_the_configuration_is(file: Path) -> None:
    assert load_config(file).wan_relay_ca == ""
    file.write_text('wan_relay_ca = "relay.pem"\n')
    assert load_config(file).wan_relay_ca == str(file.parent / "relay.pem")


def test_everything_is_below_the_home_that_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = Paths.find({"TEALE_HOME": "one"})
    assert {each.parent for each in msgspec.structs.astuple(paths)[1:]} == {tmp_path / "one"} == {paths.home}
    elsewhere = Paths.find({})
    assert all(each.is_absolute() and "teale" in str(each) for each in msgspec.structs.astuple(elsewhere))
    assert len(set(msgspec.structs.astuple(elsewhere))) == len(Paths.__struct_fields__)


def test_two_programs_that_set_different_keys_lose_neither(file: Path) -> None:
    def set_many(name: str) -> None:
        for number in range(1, 11):
            set_value(file, name, [str(number)])

    threads = [threading.Thread(target=set_many, args=(name,)) for name in ("lan_port", "api_port", "queue_max")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    config = load_config(file)
    assert (config.lan_port, config.api_port, config.queue_max) == (10, 10, 10)


@pytest.mark.parametrize("server", ["stun.example.org", "192.0.2.1:3479", "2001:db8::1", "[2001:db8::1]:5"])
def test_stun_servers_are_named_with_or_without_a_port(file: Path, server: str) -> None:
    set_value(file, "wan_stun", [server])
    assert load_config(file).wan_stun == (server,)
    set_value(file, "wan_stun", [f'["{server}"]'])
    assert load_config(file).wan_stun == (server,)


@pytest.mark.parametrize("server", ["", "a:b", "a:0", "a:65536", "a:1:2", "u@a", "stun:a", "//a", "a/b", "a b", "a?b"])
def test_what_names_no_stun_server_is_refused(file: Path, server: str) -> None:
    refusal = refusal_of(file, f'wan_stun = ["{server}"]')
    assert refusal.startswith("FILE, line 1: wan_stun must be HOST, HOST:PORT or [IPv6 address]:PORT, not")


# The relay's token.

TOKEN = "0123456789abcdef"


def test_the_environment_comes_before_the_file(file: Path) -> None:
    set_value(file, "wan_relay_token", [TOKEN])
    config = load_config(file)
    assert config.wan_relay_token == TOKEN
    assert with_environment(config, {}) == config
    assert with_environment(config, {"TEALE_RELAY_TOKEN": TOKEN[::-1]}).wan_relay_token == TOKEN[::-1]


def test_a_token_is_neither_shown_nor_quoted(file: Path) -> None:
    assert "wan_relay_token='(set)'" in repr(Config(wan_relay_token=TOKEN))
    assert TOKEN not in repr(Config(wan_relay_token=TOKEN))
    assert "wan_relay_token=''" in repr(Config())
    refusal = refusal_of(file, 'wan_relay_token = "too short"')
    assert refusal.startswith("FILE, line 1: wan_relay_token must be a token of 16 to 256 letters, digits and -._~+/")
    assert "too short" not in refusal
    with pytest.raises(ConfigError, match=r"^TEALE_RELAY_TOKEN must be a token") as caught:
        with_environment(Config(), {"TEALE_RELAY_TOKEN": "too short"})
    assert "too short" not in str(caught.value)
