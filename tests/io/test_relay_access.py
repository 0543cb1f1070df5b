"""Who is let in, whom a proxy speaks for, and files that change: the parts of the public relay, each by itself."""

import ipaddress
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from websockets.datastructures import Headers

from teale_io.relay_access import FORWARDED, STOPPING, TOKEN_WANTED, X_FORWARDED_FOR, Access
from teale_io.relay_files import TOKENS_MAX, Certificate, Tokens
from teale_io.relay_http import wants_json
from teale_io.relay_options import traffic, unlimited
from teale_io.reloading import Reloader
from teale_io.websocket_server import Visit
from teale_proto.errors import TealeError
from teale_proto.inputs import Address
from teale_proto.relay.limits import Flow, RelayServerConfig, Traffic
from tests.io.certificates import self_signed

TOKEN = "0123456789abcdef"
OTHER = "fedcba9876543210"
PROXY, CLIENT = "10.0.0.1", "203.0.113.5"


def tokens(folder: Path, text: str = f"{TOKEN} laptop\n") -> Tokens:
    file = folder / "tokens"
    file.write_text(text)
    return Tokens(file)


def headers(**fields: str) -> Headers:
    return Headers({name.replace("_", "-"): value for name, value in fields.items()})


# Tokens.


def test_a_token_file_has_a_token_a_line_with_names_and_comments(tmp_path: Path) -> None:
    known = tokens(tmp_path, f"# friends\n\n{TOKEN} the laptop\n  {OTHER}==\t# nobody's\n")
    assert len(known) == 2
    assert known.accept(f"Bearer {TOKEN}")
    assert known.accept(f"bearer  {OTHER}== ")


@pytest.mark.parametrize(
    "given",
    [
        *(None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {OTHER}", f"Bearer {TOKEN} laptop"),
        *(f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Bearer {TOKEN.upper()}", "Bearer \udcff"),
    ],
)
def test_anything_else_is_not_a_token(tmp_path: Path, given: str | None) -> None:
    assert not tokens(tmp_path).accept(given)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the token file holds no token"),
        ("# none\n", "the token file holds no token"),
        (f"{TOKEN}\nshort\n", "line 2 of the token file: a token has 16 to 256 letters"),
        ("x" * 257, "line 1 of the token file"),
        ("sixteen-ümlauts!", "line 1 of the token file"),
        ("".join(f"{number:016}\n" for number in range(TOKENS_MAX + 1)), "4097 tokens where 4096 are allowed"),
    ],
)
def test_a_bad_token_file_is_refused_and_never_quoted(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(TealeError, match=problem) as refused:
        tokens(tmp_path, text)
    assert "short" not in str(refused.value)


def test_a_token_file_that_is_full_is_taken_and_one_that_is_not_there_is_not(tmp_path: Path) -> None:
    assert len(tokens(tmp_path, "".join(f"{number:016}\n" for number in range(TOKENS_MAX)))) == TOKENS_MAX
    with pytest.raises(TealeError, match="the token file cannot be read: no such file"):
        Tokens(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(TealeError, match="not UTF-8"):
        Tokens(tmp_path / "bytes")
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(TealeError, match="larger than 1048576 bytes"):
        Tokens(tmp_path / "large")


# Proxies.


def access(*proxies: str, header: str = X_FORWARDED_FOR, known: Tokens | None = None) -> Access:
    return Access(tokens=known, proxies=map(ipaddress.ip_network, proxies), proxy_header=header)


@pytest.mark.parametrize(
    ("peer", "said", "seen"),
    [
        (CLIENT, "198.51.100.1", CLIENT),  # no proxy: nobody believes it
        (PROXY, CLIENT, CLIENT),
        (PROXY, f"198.51.100.1, {CLIENT}", CLIENT),  # the first is what the client claimed
        (PROXY, f"{CLIENT}, 10.0.0.2", CLIENT),  # through two of our proxies
        (PROXY, f"{CLIENT}, nonsense", PROXY),
        (PROXY, "10.0.0.7, 10.0.0.8", PROXY),
        (PROXY, "", PROXY),
        (PROXY, f"{CLIENT}:4711", CLIENT),
        (PROXY, "[2001:db8::7]:4711", "2001:db8::7"),
        (PROXY, "2001:db8::7", "2001:db8::7"),
        (PROXY, f"::ffff:{CLIENT}", CLIENT),
        ("10.0.0.2", CLIENT, CLIENT),
        ("10.0.1.2", CLIENT, "10.0.1.2"),
    ],
)
def test_a_proxy_is_believed_about_its_own_client_alone(peer: str, said: str, seen: str) -> None:
    rules = access("10.0.0.0/24")
    assert rules.visitor(Address(peer, 1), headers(X_Forwarded_For=said)).host == seen


def test_headers_that_come_more_than_once_are_one_list() -> None:
    several = Headers()
    several[X_FORWARDED_FOR] = "198.51.100.1"
    several[X_FORWARDED_FOR] = CLIENT
    assert access(PROXY).visitor(Address(PROXY, 1), several).host == CLIENT


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (f"for={CLIENT};proto=https", CLIENT),
        (f'proto=https; For="{CLIENT}:80"', CLIENT),
        ('for="[2001:db8::7]:4711"', "2001:db8::7"),
        (f"for=198.51.100.1, for={CLIENT}", CLIENT),
        ("for=unknown", PROXY),
        ("by=10.0.0.1", PROXY),
        ("for=_hidden, for=_secret", PROXY),
    ],
)
def test_the_standard_header_is_read_where_the_operator_chose_it(said: str, seen: str) -> None:
    rules = access(PROXY, header=FORWARDED)
    assert rules.visitor(Address(PROXY, 1), headers(Forwarded=said, X_Forwarded_For="198.51.100.9")).host == seen


# Who may see what.


def visit(host: str = CLIENT, **fields: str) -> Visit:
    return Visit("/peers", headers(**fields), Address(host, 1))


def test_without_tokens_everybody_may_come_and_look() -> None:
    assert access().refuse(visit()) is None
    assert access().may_look(visit())


def test_with_tokens_one_needs_one_or_the_machine_itself(tmp_path: Path) -> None:
    rules = access(known=tokens(tmp_path))
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert rules.refuse(visit()) is TOKEN_WANTED
    assert rules.refuse(visit("127.0.0.1")) is TOKEN_WANTED, "a node on this machine has one too"
    assert rules.refuse(visit(**bearer)) is None
    assert rules.may_look(visit(**bearer))
    assert not rules.may_look(visit())
    assert rules.may_look(visit("127.0.0.1"))
    assert rules.may_look(visit("::1"))


def test_a_proxy_on_this_machine_does_not_make_everybody_local(tmp_path: Path) -> None:
    rules = access(known=tokens(tmp_path))
    assert not rules.may_look(visit("127.0.0.1", X_Forwarded_For=CLIENT))
    assert not rules.may_look(visit("127.0.0.1", Forwarded=f"for={CLIENT}"))


def test_two_tokens_at_once_are_none(tmp_path: Path) -> None:
    twice = Headers()
    for token in (TOKEN, OTHER):
        twice["Authorization"] = f"Bearer {token}"
    assert access(known=tokens(tmp_path)).refuse(Visit("/ws", twice, Address(CLIENT, 1))) is TOKEN_WANTED


def test_a_relay_that_stops_lets_nobody_in() -> None:
    rules = access()
    rules.is_stopping = True
    assert rules.refuse(visit()) is STOPPING


# Files that change.


class Watched:
    """Remembers how often it was loaded, and fails while it is told to."""

    what = "thing"

    def __init__(self, *files: Path) -> None:
        self.files: Sequence[Path] = files
        self.loaded = 0
        self.failure = ""

    def load(self) -> None:
        if self.failure:
            raise TealeError(self.failure)
        self.loaded += 1


@pytest.fixture
def logged() -> Any:
    with structlog.testing.capture_logs() as lines:
        yield lines


def test_what_changed_is_loaded_once_and_what_did_not_is_not(tmp_path: Path, logged: list[Any]) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    first, second = Watched(one), Watched(one, other)
    reloader = Reloader([first, second], interval_seconds=1)
    reloader.look()
    assert (first.loaded, second.loaded) == (0, 0)
    other.write_text("2")
    for _ in range(3):
        reloader.look()
    assert (first.loaded, second.loaded) == (0, 1)
    assert [line["event"] for line in logged] == ["reloaded"]
    reloader.look(force=True)
    assert (first.loaded, second.loaded) == (1, 2)


def test_a_file_that_was_replaced_is_noticed_whatever_its_date_and_size(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    watched = Watched(file)
    reloader = Reloader([watched], interval_seconds=1)
    new = tmp_path / "new"
    new.write_text("new")
    os.utime(new, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    new.replace(file)
    reloader.look()
    assert watched.loaded == 1


def test_a_failure_is_told_once_and_tried_again_when_the_file_changes(tmp_path: Path, logged: list[Any]) -> None:
    file = tmp_path / "file"
    watched = Watched(file)
    reloader = Reloader([watched], interval_seconds=1)
    watched.failure = "it is broken"
    file.write_text("broken")
    for _ in range(3):
        reloader.look()
    assert [(line["event"], line["reason"]) for line in logged] == [
        ("reload failed, the old one stays in use", "it is broken")
    ]
    watched.failure = ""
    file.write_text("mended")
    reloader.look()
    assert watched.loaded == 1


@pytest.mark.parametrize("broken", [lambda file: file.unlink(), lambda file: file.write_text("nonsense")])
def test_a_broken_certificate_leaves_the_old_one_in_use(tmp_path: Path, broken: Callable[[Path], Any]) -> None:
    chain, _ = self_signed(tmp_path)
    certificate = Certificate(chain, tmp_path / "key.pem")
    old = certificate.context()
    broken(chain)
    with pytest.raises(TealeError, match="the certificate or its key cannot be"):
        certificate.load()
    assert certificate.context() is old
    self_signed(tmp_path)
    certificate.load()
    assert certificate.context() is not old


def test_a_certificate_whose_key_has_not_come_yet_is_not_used(tmp_path: Path) -> None:
    chain, _ = self_signed(tmp_path)
    certificate = Certificate(chain, tmp_path / "key.pem")
    key = (tmp_path / "key.pem").read_bytes()
    self_signed(tmp_path)
    (tmp_path / "key.pem").write_bytes(key)
    with pytest.raises(TealeError, match="KEY_VALUES_MISMATCH"):
        certificate.load()


# The rest.


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ((), False),
        (("*/*",), False),
        (("application/json",), True),
        (("Application/JSON; charset=utf-8",), True),
        (("text/html, application/json;q=0.9, */*;q=0.8",), True),
        (("application/json;q=0",), False),
        (("application/json;q=nonsense",), False),
        (("application/json;q=0.4, text/plain;q=0.5",), False),
        (("application/json", "text/plain"), True),
        (("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",), False),
    ],
)
def test_metrics_are_json_for_whoever_prefers_it(accept: tuple[str, ...], expected: bool) -> None:
    assert wants_json(accept) is expected


def test_options_make_limits() -> None:
    assert traffic(10, 1000, message_bytes_max=100) == Traffic(Flow(10, burst=40), Flow(1000, burst=2000))
    assert traffic(0, 0, message_bytes_max=100) == Traffic()
    assert traffic(1, 10, message_bytes_max=100).size_bytes == Flow(10, burst=100), "one message fits at some time"
    assert (unlimited(5), unlimited(0) > 10**15) == (5, True)


def test_the_program_s_defaults_are_those_of_the_core() -> None:
    from teale_io.relay_app import RelayOptions, config_of

    assert config_of(RelayOptions()) == RelayServerConfig(names=())
