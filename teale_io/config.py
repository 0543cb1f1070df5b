"""The configuration file: one flat TOML file, read into a typed `Config`, changed without losing its comments.

Every key is declared once, as a field of `Config`: its type, what is allowed, its default and one line of help.
Reading, `teale config`, error messages and the reference manual all come from that declaration. A key that is
not known is an error, since a misspelt one would otherwise do nothing, silently.
"""

import difflib
import ipaddress
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, cast, get_args
from urllib.parse import urlsplit

import msgspec
import tomlkit
from msgspec import Meta
from tomlkit.exceptions import TOMLKitError

from teale_io.paths import locked, read_bounded, write_atomically
from teale_io.stun_servers import parse_server
from teale_proto.errors import LocalError, TealeError
from teale_proto.secure.identity import parse_node_id
from teale_proto.secure.passcode import PASSCODE_LENGTH_MAX, PASSCODE_LENGTH_MIN, Passcode

ConfigValue: TypeAlias = bool | int | str | tuple[str, ...]

FILE_SIZE_MAX: Final = 1 << 20
RELAY_TOKEN_PATTERN: Final = r"\A(?:[A-Za-z0-9._~+/-]{16,256}={0,2})?\Z"  # noqa: S105  (no password, but its form)
"""RFC 6750, section 2.1, with a length that cannot be guessed; "" for none."""

_SWITCH_WORDS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class ConfigError(TealeError):
    """The configuration, or a value meant for it, is not what it has to be; nothing was changed.

    `file` and `line` say where, as far as that is known; a value that was not read from a file has neither.
    """

    def __init__(self, problem: str, *, file: Path | None = None, line: int | None = None) -> None:
        where = "" if file is None else f"{file}: " if line is None else f"{file}, line {line}: "
        super().__init__(where + problem)
        self.file = file
        self.line = line


class UnknownKey(ConfigError):
    """There is no key of that name."""


def _is_display_name(value: str) -> bool:
    return value.isprintable() and not value.isspace()


def _is_address_or_empty(value: str) -> bool:
    return not value or _is_address(value)


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return value.isprintable()


def _is_passcode_or_empty(value: str) -> bool:
    try:
        Passcode(value)
    except LocalError:
        return not value
    return value.isprintable()


def _is_node_id(value: str) -> bool:
    try:
        parse_node_id(value)
    except LocalError:
        return False
    return True


def _is_api_host(value: str) -> bool:
    return value == "localhost" or _is_address(value)


def _is_loopback(value: str) -> bool:
    return value == "localhost" or ipaddress.ip_address(value).is_loopback


def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
    if not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in schemes
        and bool(parts.hostname)
        and port != 0
        and parts.username is None
        and parts.password is None
        and not parts.fragment
    )


def _is_websocket_url(value: str) -> bool:
    return _is_url(value, ("ws", "wss"))


def _is_http_url(value: str) -> bool:
    return _is_url(value, ("http", "https"))


def _is_server(value: str) -> bool:
    try:
        parse_server(value)
    except ValueError:
        return False
    return value.isprintable() and " " not in value


def _is_one_line_or_empty(value: str) -> bool:
    return not value or _is_one_line(value)


def _is_one_line(value: str) -> bool:
    return bool(value) and value.isprintable()


def _about(text: str, expected: str = "", check: Callable[[Any], bool] | None = None) -> Meta:
    """Describe a key: help, what is expected where the type does not say it all, and a test of each value or item."""
    return Meta(description=text, extra={"expected": expected, "check": check})


_Switch: TypeAlias = bool
_Port = Annotated[int, Meta(ge=0, le=65535)]
_Seconds = Annotated[int, Meta(ge=1, le=86_400)]
_Items = Annotated[tuple[str, ...], Meta(max_length=256)]


def _host_name() -> str:
    return (platform.node() or "teale")[:256]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one node."""

    display_name: Annotated[
        str,
        Meta(min_length=1, max_length=256),
        _about(
            "Name shown to other nodes; the host name by default.", "1 to 256 printable characters", _is_display_name
        ),
    ] = msgspec.field(default_factory=_host_name)
    lan_enabled: Annotated[_Switch, _about("Find nodes on the local network and answer them.")] = True
    lan_host: Annotated[
        str,
        _about('Address to listen on for the LAN; "" for all.', 'an IP address, or ""', _is_address_or_empty),
    ] = ""
    lan_port: Annotated[_Port, _about("TCP port for the LAN; 0 takes any free one.")] = 11436
    lan_encryption: Annotated[
        Literal["noise", "off"],
        _about('"noise" encrypts the LAN; "off" is for debugging, anybody on the network can read along.'),
    ] = "noise"
    lan_join: Annotated[
        Literal["auto", "open", "passcode", "paired"],
        _about(
            "Who may join on the LAN: anybody, whoever has lan_passcode, or trusted_nodes; "
            "auto is passcode where one is set, and open where none is."
        ),
    ] = "auto"
    lan_passcode: Annotated[
        str,
        _about(
            "What nodes on the LAN must have to join; the environment variable TEALE_LAN_PASSCODE comes before it.",
            f'{PASSCODE_LENGTH_MIN} to {PASSCODE_LENGTH_MAX} printable characters, or ""',
            _is_passcode_or_empty,
        ),
    ] = ""
    trusted_nodes: Annotated[
        _Items,
        _about("Nodes that may join where lan_join or wan_join is paired.", "node ids", _is_node_id),
    ] = ()
    lan_interfaces: Annotated[
        _Items,
        _about("Interfaces to be found on, by name or address; none means all.", "names or addresses", _is_one_line),
    ] = ()
    heartbeat_seconds: Annotated[
        Literal[5, 15, 30],
        _about("Seconds between signs of life; a peer is lost after three missed ones."),
    ] = 15
    wan_enabled: Annotated[_Switch, _about("Reach nodes on the internet through the relay.")] = False
    wan_relay_url: Annotated[
        str,
        _about("The relay.", "a ws:// or wss:// URL with a host", _is_websocket_url),
    ] = "wss://relay.teale.com/ws"
    wan_join: Annotated[
        Literal["open", "paired"],
        _about("Who may talk to this node through the relay: anybody, or trusted_nodes."),
    ] = "open"
    allow_plaintext_legacy: Annotated[
        _Switch,
        _about("For a closed test network: talk WITHOUT ENCRYPTION through the relay to old programs that have none."),
    ] = False
    wan_peers_max: Annotated[
        int,
        Meta(ge=0, le=1024),
        _about("Nodes with models that this node keeps a session with through the relay, ready for a first request."),
    ] = 8
    wan_direct: Annotated[
        _Switch,
        _about("Look for direct paths to nodes on the internet, instead of talking through the relay for ever."),
    ] = True
    wan_birthday: Annotated[
        _Switch,
        _about(
            "Where nothing else leads through two NATs, try hundreds of ports at once; not for metered connections."
        ),
    ] = False
    wan_udp_port: Annotated[_Port, _about("UDP port for direct paths; 0 takes any free one.")] = 0
    wan_stun: Annotated[
        _Items,
        _about(
            "STUN servers that tell this node how the internet sees it; none means the relay.",
            "HOST, HOST:PORT or [IPv6 address]:PORT",
            _is_server,
        ),
    ] = ()
    wan_relay_ca: Annotated[
        str,
        _about(
            'PEM file with the certificates to trust for the relay, instead of the system\'s; "" for those.',
            'the path of a file, or ""',
            _is_one_line_or_empty,
        ),
    ] = ""
    wan_relay_token: Annotated[
        str,
        Meta(pattern=RELAY_TOKEN_PATTERN),
        _about(
            "Access token for a relay that wants one; the environment variable TEALE_RELAY_TOKEN comes before it.",
            'a token of 16 to 256 letters, digits and -._~+/, or ""',
        ),
    ] = ""
    api_host: Annotated[
        str,
        _about("Address of the local API; only loopback unless api_allow_remote.", "an IP address", _is_api_host),
    ] = "127.0.0.1"
    api_port: Annotated[_Port, _about("TCP port of the local API; 0 takes any free one.")] = 11435
    api_allow_remote: Annotated[
        _Switch,
        _about("Allow api_host to be open to other machines; the API asks nobody for a password."),
    ] = False
    max_concurrent_requests: Annotated[
        int, Meta(ge=1, le=1024), _about("Requests that this node computes at the same time.")
    ] = 1
    queue_max: Annotated[int, Meta(ge=1, le=65_536), _about("Requests that may wait before new ones are refused.")] = (
        256
    )
    request_timeout_seconds: Annotated[_Seconds, _about("Seconds after which a request is given up.")] = 300
    identity_storage: Annotated[
        Literal["auto", "keychain", "encrypted-file", "plain-file"],
        _about("Where the node's secret key is kept; plain-file has to be asked for."),
    ] = "auto"
    builtin_model: Annotated[_Switch, _about("Serve the tiny model that comes with the package, for trying out.")] = (
        False
    )
    gguf_models: Annotated[
        _Items, _about("GGUF files to serve; relative to this file's folder.", "paths of files", _is_one_line)
    ] = ()
    openai_urls: Annotated[
        _Items,
        _about(
            "Base URLs of OpenAI-compatible servers to serve models from.",
            "http:// or https:// URLs with a host and without credentials",
            _is_http_url,
        ),
    ] = ()
    openai_api_key_env: Annotated[
        str,
        Meta(pattern=r"\A(?:[A-Za-z_][A-Za-z0-9_]*)?\Z", max_length=256),
        _about("Environment variable that holds the key for openai_urls.", 'the name of a variable, or ""'),
    ] = ""
    backend_silence_seconds: Annotated[
        _Seconds,
        _about("Seconds without a sign of life after which a model is restarted and its request fails."),
    ] = 120
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _about("The least important messages to log.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "text", "json"], _about("How to log; auto is text on a terminal and JSON elsewhere.")
    ] = "auto"

    def __repr__(self) -> str:
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        shown = (f"{name}={'(set)' if name in SECRETS and value else value!r}" for name, value in fields.items())
        return f"Config({', '.join(shown)})"


SECRETS: Final = frozenset({"lan_passcode", "wan_relay_token"})
"""Keys whose values are not for every eye that sees a screen or a log."""

VARIABLES: Final = {"TEALE_LAN_PASSCODE": "lan_passcode", "TEALE_RELAY_TOKEN": "wan_relay_token"}
"""Environment variables that come before what the file says of a key."""


class Key(msgspec.Struct, frozen=True):
    """One key, as its declaration in `Config` says."""

    name: str
    type: Any
    default: ConfigValue
    help: str
    expected: str
    """What a value has to be, in words that follow "must be"."""
    check: Callable[[Any], bool] | None

    @property
    def is_list(self) -> bool:
        """Whether the value is a list of strings."""
        return isinstance(self.default, tuple)

    def convert(self, value: object) -> ConfigValue:
        """Return `value`, as TOML gives it, with its type checked; raises ConfigError saying what was expected."""
        try:
            converted = cast("ConfigValue", msgspec.convert(value, self.type))
        except (msgspec.ValidationError, UnicodeEncodeError):
            raise self._refusal(value) from None
        if self.check is not None:
            items = converted if isinstance(converted, tuple) else (converted,)
            if not all(map(self.check, items)):
                raise self._refusal(value)
        return converted

    def parse(self, words: Sequence[str]) -> ConfigValue:
        """Return the value that a person wrote as `words`; a list is one word an item, or one TOML array."""
        if self.is_list:
            if not words:
                raise ConfigError(f"{self.name} takes one value or more; [] empties it.")
            return self.convert(self._parse_array(words[0]) if _looks_like_array(words) else list(words))
        if len(words) != 1:
            raise ConfigError(f"{self.name} takes one value, not {len(words)}.")
        word = words[0]
        if isinstance(self.default, bool):
            return self.convert(_SWITCH_WORDS.get(word.strip().lower(), word))
        if isinstance(self.default, int) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", word, re.ASCII):
            return self.convert(int(word))
        return self.convert(word)

    def _parse_array(self, word: str) -> object:
        try:
            return tomlkit.value(word).unwrap()
        except (TOMLKitError, ValueError):
            raise self._refusal(word) from None

    def _refusal(self, value: object) -> ConfigError:
        given = "what was given" if self.name in SECRETS else _shown(value)
        return ConfigError(f"{self.name} must be {self.expected}, not {given}.")


def _looks_like_array(words: Sequence[str]) -> bool:
    # An IPv6 address with a port begins like one.
    return len(words) == 1 and words[0].lstrip().startswith("[") and re.search(r"\]:[0-9]+\Z", words[0]) is None


def _shown(value: object) -> str:
    """Return a value as it may stand in an error message: short and printable."""
    text = ascii(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 80 else text[:77] + "..."


def _expected(annotation: Any, kind: msgspec.inspect.Type) -> str:
    """Return in words what a type allows."""
    match kind:
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case msgspec.inspect.LiteralType():  # which sorts its values; the declaration has them in a better order
            *most_values, last = map(str, get_args(get_args(annotation)[0]))
            return f"{', '.join(most_values)} or {last}"
    raise AssertionError(f"a key of type {kind} must say what it expects")


def _declared_keys() -> dict[str, Key]:
    fields = {field.name: field for field in msgspec.structs.fields(Config)}
    declared = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(Config)).fields
    keys = {}
    for each in declared:
        assert isinstance(each.type, msgspec.inspect.Metadata), each.name
        extra = each.type.extra or {}
        keys[each.name] = Key(
            name=each.name,
            type=fields[each.name].type,
            default=getattr(Config(), each.name),
            help=(each.type.extra_json_schema or {})["description"],
            expected=extra["expected"] or _expected(fields[each.name].type, each.type.type),
            check=extra["check"],
        )
    return keys


KEYS: Final[Mapping[str, Key]] = _declared_keys()
"""Every key, in the order of `Config`."""


def key_named(name: str) -> Key:
    """Return the key called `name`; raises UnknownKey with the nearest one that exists."""
    try:
        return KEYS[name]
    except KeyError:
        raise UnknownKey(_unknown(name)) from None


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, KEYS, n=1)
    return f"there is no key {_shown(name)}" + (f"; did you mean {near[0]}?" if near else ".")


def load_config(file: Path) -> Config:
    """Return the configuration in `file`, defaults where it says nothing or does not exist; raises ConfigError.

    The paths in `gguf_models` and `wan_relay_ca` are absolute: `~` is the user's home, and others are relative to the
    file's folder.
    """
    config = _Document(file).config()

    def absolute(path: str) -> str:
        return str(file.parent / Path(path).expanduser())

    return msgspec.structs.replace(
        config,
        gguf_models=tuple(map(absolute, config.gguf_models)),
        wan_relay_ca=config.wan_relay_ca and absolute(config.wan_relay_ca),
    )


def with_environment(config: Config, environ: Mapping[str, str]) -> Config:
    """Return the configuration with what environment variables say instead; raises ConfigError."""
    given = {}
    for variable, name in VARIABLES.items():
        value = environ.get(variable, "")
        try:
            if value:
                given[name] = KEYS[name].convert(value)
        except ConfigError as error:
            raise ConfigError(str(error).replace(name, variable, 1)) from None
    config = msgspec.structs.replace(config, **given)
    _require_consistent(config)
    return config


def _require_consistent(config: Config) -> None:
    if config.lan_encryption != "off" or not config.lan_enabled:
        return
    if config.lan_join in ("passcode", "paired") or (config.lan_join == "auto" and config.lan_passcode):
        raise ConfigError(
            "lan_encryption is off, and without encryption nobody can prove anything: that goes only with lan_join "
            "open. Set lan_encryption to noise."
        )


def keys_set_in(file: Path) -> frozenset[str]:
    """Return the names of the keys that `file` sets itself; raises ConfigError."""
    return frozenset(_Document(file).values())


def set_value(file: Path, name: str, words: Sequence[str]) -> ConfigValue:
    """Set the key `name` in `file` to what a person wrote, and return it as it was understood.

    The comments and the order of the file stay. Raises ConfigError, and changes nothing, where the value or the
    configuration that would result is not allowed.
    """
    value = key_named(name).parse(words)
    with locked(file):
        document = _Document(file)
        document.set(name, value)
        document.save()
    return value


class _Document:
    """The text of one configuration file, parsed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._text = self._read()
        self._toml = self._parse(self._text)

    def values(self) -> dict[str, object]:
        """Return what the file says, as plain Python values; unknown keys are an error."""
        values: dict[str, object] = self._toml.unwrap()
        for name in values:
            if name not in KEYS:
                raise UnknownKey(_unknown(name), file=self._file, line=self._line_of(name))
        return values

    def config(self) -> Config:
        """Return the typed configuration."""
        checked = {}
        for name, value in self.values().items():
            try:
                checked[name] = KEYS[name].convert(value)
            except ConfigError as error:
                raise ConfigError(str(error), file=self._file, line=self._line_of(name)) from None
        config = msgspec.convert(checked, Config)
        if not (config.api_allow_remote or _is_loopback(config.api_host)):
            raise ConfigError(
                f"api_host {config.api_host} is open to other machines, and the API asks nobody for a password. "
                "Use 127.0.0.1, or set api_allow_remote to true first.",
                file=self._file,
                line=self._line_of("api_host"),
            )
        try:
            _require_consistent(config)
        except ConfigError as error:
            raise ConfigError(str(error), file=self._file, line=self._line_of("lan_encryption")) from None
        return config

    def set(self, name: str, value: ConfigValue) -> None:
        """Give a key another value, in its place if it has one."""
        self._toml[name] = list(value) if isinstance(value, tuple) else value

    def save(self) -> None:
        """Check the whole and write it."""
        text = tomlkit.dumps(self._toml)
        self._toml = self._parse(text)  # what is checked is what will be read
        self.config()
        try:
            write_atomically(self._file, text.encode())
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}.", file=self._file) from error

    def _read(self) -> str:
        try:
            return read_bounded(self._file, size_max=FILE_SIZE_MAX).decode("utf-8-sig")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}.", file=self._file) from error
        except UnicodeDecodeError as error:
            line = 1 + error.object[: error.start].count(b"\n")
            raise ConfigError("is not UTF-8 text.", file=self._file, line=line) from None
        except ValueError:
            raise ConfigError(f"is larger than {FILE_SIZE_MAX} bytes.", file=self._file) from None

    def _parse(self, text: str) -> tomlkit.TOMLDocument:
        try:
            return tomlkit.parse(text)
        except (TOMLKitError, ValueError) as error:
            line = getattr(error, "line", None)
            problem = re.sub(r" at line \d+ col \d+", "", str(error))
            raise ConfigError(f"is not valid TOML: {problem.rstrip('.')}.", file=self._file, line=line) from None

    def _line_of(self, name: str) -> int | None:
        """Return the line on which a top-level key or table seems to stand."""
        written = rf"""^\s*(?:\[+\s*)?["']?{re.escape(name)}["']?\s*[=.\]]"""
        found = re.search(written, self._text, re.MULTILINE)
        return None if found is None else 1 + self._text.count("\n", 0, found.end())
