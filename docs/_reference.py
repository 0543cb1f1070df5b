"""The reference tables: configuration, commands, exit codes, failures, codes, limits and state tables.

Values come from the code. Words come from its docstrings and, where it has none, from the mappings here, each of
which a test holds against what it describes.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from enum import Enum
from random import Random
from types import ModuleType
from typing import Any, Final, TypeAlias

import click
import msgspec
import trio
from _tables import annotations, code, constants, documented, duration, number, size, table
from prometheus_client.parser import text_string_to_metric_families
from websockets.datastructures import Headers

from simulator.cli import main as sim_command
from teale_io.api.errors import problem_of
from teale_io.api.limits import Limits
from teale_io.cli.exits import Exit
from teale_io.cli.main import teale
from teale_io.cli.settings import written
from teale_io.config import KEYS, Config
from teale_io.node_app import main as node_command
from teale_io.relay_access import Access
from teale_io.relay_app import main as relay_command
from teale_io.relay_http import pages
from teale_io.websocket_server import Page, Visit
from teale_proto import (
    absence,
    asking,
    contacts,
    delivery,
    door,
    exchange,
    link,
    liveness,
    meeting,
    node,
    peers,
    routing,
    seeking,
    serving,
    speaking,
)
from teale_proto.asking import RETRIED
from teale_proto.effects import ReportFailed
from teale_proto.inputs import Address, Failure
from teale_proto.liveness import ON
from teale_proto.relay import client_sessions, client_states
from teale_proto.relay.client_states import NEXT_STATE, RelayClientConfig
from teale_proto.relay.limits import Flow, Rate, RelayServerConfig, Traffic
from teale_proto.relay.server import RelayServer
from teale_proto.secure import noise, passcode, records
from teale_proto.wire import relay as wire

# Configuration and commands.

COMMANDS: Final[Mapping[str, click.Command]] = {
    "teale": teale,
    "teale-node": node_command,
    "teale-relay": relay_command,
    "teale-sim": sim_command,
}


def config_keys() -> str:
    """Return every key of the configuration file."""
    computed = {field.name for field in msgspec.structs.fields(Config) if field.default is msgspec.NODEFAULT}
    rows = [
        (
            f'<span id="{key.name}"></span>`{key.name}`',
            "the host's name" if key.name in computed else code(written(key.default)) or '`""`',
            key.expected + (", any number of them" if key.is_list else ""),
            key.help,
        )
        for key in KEYS.values()
    ]
    return table(("key", "default", "allowed", "meaning"), rows)


def cli(program: str) -> str:
    """Return the help of a program and of all its commands, each under its heading."""
    sections = []
    for words, command in commands(COMMANDS[program], program):
        context = click.Context(command, info_name=words, max_content_width=100, terminal_width=100)
        sections.append(f"### `{words}`\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(sections)


def commands(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and everything below it, with the words that call it."""
    yield words, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from commands(command.commands[name], f"{words} {name}")


def exit_codes() -> str:
    """Return the exit codes of `teale`."""
    texts = documented(Exit)
    rows = [(str(each.value), code(each.name.lower()), texts[each.name] or "Done.") for each in Exit]
    return table(("code", "`type` under `--json`", "meaning"), rows)


# Errors.

_FAILURE_TEXTS: Final[Mapping[Failure, tuple[str, str]]] = {
    Failure.MODEL_NOT_LOADED: (
        "No node that is known has the model.",
        "Look at `teale models`; check the spelling; start the node that has it.",
    ),
    Failure.QUEUE_FULL: (
        "Every node that serves the model is at its limit, or said so when it was asked, and no other is in sight.",
        "Try again later; raise `queue_max` or `max_concurrent_requests` where the model runs.",
    ),
    Failure.UNAVAILABLE: (
        "Every node that was asked failed; nodes with the model are known but cannot be reached, or the relay cannot; "
        "the node is stopping; the model is being restarted, or its server is away.",
        "The message says which, with each node's reason. Try again; then `teale doctor`, here and there.",
    ),
    Failure.INTERNAL_ERROR: (
        "The serving node's backend failed, or sent something that is not an answer.",
        "Look at the log of the node that `x-teale-served-by` names.",
    ),
    Failure.TIMEOUT: (
        "There was no complete answer within `request_timeout_seconds`.",
        "Ask for less (`max_tokens`), or raise the limit.",
    ),
    Failure.CANCELLED: ("The client went away, or the node dropped an answer that nobody read.", "Nothing."),
    Failure.INVALID_REQUEST: (
        "The serving backend does not accept the request.",
        "The message says what it objects to.",
    ),
    Failure.PEER_LOST: (
        "The serving node disappeared after the first token had come, or too many nodes in a row did.",
        "Ask again: the text that has come is not the whole answer.",
    ),
}


def failures() -> str:
    """Return every way in which a request can fail, and what the local API makes of it."""
    rows = []
    for failure, (meaning, remedy) in _FAILURE_TEXTS.items():
        remote = problem_of(ReportFailed("", failure, "", 1), served_here=False)
        here = problem_of(ReportFailed("", failure, "", 1), served_here=True)
        status = str(remote.status) if here.status == remote.status else f"{remote.status} ({here.status} served here)"
        retried = "yes" if failure in RETRIED else "no"
        rows.append((code(failure.value), f"{status} {code(remote.code)}", retried, meaning, remedy))
    return table(("on the wire", "local API", "retried elsewhere", "meaning", "what to do"), rows)


_RELAY_CODES: Final[Mapping[str, tuple[str, str]]] = {
    wire.PEER_NOT_FOUND: ("The node that is meant is not registered here.", "stays open"),
    wire.INVALID_JSON: ("The message is not JSON.", "an offence"),
    wire.INVALID_MESSAGE: (
        "The message is malformed, too long, out of place, or names another sender or a session that is not open.",
        "depends; too long ends it",
    ),
    wire.INVALID_REGISTER: (
        "The registration is wrong: no proof, late proof, another host name, a foreign key, or none in time.",
        "mostly closed",
    ),
    wire.RATE_LIMITED: (
        "Too many of these, or too much in all; `retryAfterSeconds` says when the next is welcome, `sessionID` which "
        "session has ended for it.",
        "stays open; closed for whoever goes on",
    ),
    wire.UNSUPPORTED_MESSAGE: ("The relay does not know that kind of message.", "stays open"),
    wire.REPLACED: ("The same node registered on another connection.", "closed"),
    wire.SESSION_REFUSED: ("The session's id is taken, or the node has too many sessions.", "stays open"),
    wire.OVERLOADED: ("The relay holds as many nodes, or strangers, as it may.", "closed"),
    wire.SHUTTING_DOWN: (
        "The relay stops, and takes no new sessions; `retryAfterSeconds` says when to come back.",
        "closed with its last session",
    ),
}


def relay_codes() -> str:
    """Return the codes of a relay's `error`."""
    rows = [(code(name), meaning, then) for name, (meaning, then) in _RELAY_CODES.items()]
    return table(("code", "meaning", "the connection"), rows)


# Limits.

LIMIT_MODULES: Final[tuple[ModuleType, ...]] = (
    link,
    noise,
    records,
    passcode,
    door,
    meeting,
    peers,
    speaking,
    delivery,
    absence,
    liveness,
    contacts,
    seeking,
    node,
    asking,
    exchange,
    serving,
    client_states,
    client_sessions,
)

DURATIONS: Final = frozenset({"TIMEOUT_MAX"})
"""Durations that are not declared as such."""

_LIMIT_TEXTS: Final[Mapping[str, str]] = {
    "link.RECORD_MAX": "Bytes of one frame after the handshake: one encrypted record.",
    "link.COPIED_MAX": "Bytes from which on a record leaves as a piece of its own, since joining would copy it.",
    "noise.PROTOCOL_VERSION": "First byte of every handshake payload.",
    "noise.INSTANCE_BYTES": "Bytes of the random start id that a node draws when it starts.",
    "records.TAG_BYTES": "Bytes of the authentication tag at the end of a record.",
    "peers.PEERS_MAX": "Peers that are up at the same time.",
    "contacts.SERVICES_MAX": "Advertisements on the LAN that are remembered.",
    "contacts.LISTED_MAX": "Nodes named by the relay that are remembered.",
    "contacts.FAILING_MAX": "Nodes whose failed attempts are remembered.",
    "passcode.SHARE_BYTES": "Bytes of one side's share of the passcode exchange.",
    "passcode.PROOF_BYTES": "Bytes of one side's proof that it has the passcode.",
    "passcode.PASSCODE_LENGTH_MIN": "Characters that a passcode has at least.",
    "passcode.PASSCODE_LENGTH_MAX": "Characters that a passcode has at most.",
    "door.WRONG_MAX": "Attempts at the passcode that close the door to their address, and to their node.",
    "door.CLOSED_FOR": "How long the door then stays closed, from the last attempt on.",
    "seeking.DISCOVER_EVERY": "Between questions to the relay for nodes, with up to a second of jitter.",
    "seeking.DISCOVER_SOON": "The same at first.",
    "asking.ASKS_MAX": "Requests of the local application that are under way.",
    "asking.ATTEMPTS_MAX": "Nodes that one request is tried on.",
    "serving.QUEUE_MAX": "Jobs that wait, unless `queue_max` says otherwise.",
    "serving.QUEUE_BYTES_MAX": "Bytes of all requests that wait.",
    "serving.TIMEOUT_MAX": "The longest time that a peer can give a job.",
}


def core_limits() -> str:
    """Return the sizes, numbers and times that the core's modules declare."""
    rows = [
        (f"`{_short(module)}.{name}`", _limit(module, name, value), limit_text(module, name))
        for module in LIMIT_MODULES
        for name, value in constants(module).items()
    ]
    return table(("name", "value", "meaning"), rows)


def limit_text(module: ModuleType, name: str) -> str:
    """Return what a constant means, "" where nobody has said so."""
    return _LIMIT_TEXTS.get(f"{_short(module)}.{name}") or documented(module)[name]


def _short(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _limit(module: ModuleType, name: str, value: int) -> str:
    if name in DURATIONS or "Duration" in annotations(module)[name]:
        return duration(value)
    return size(value) if limit_text(module, name).startswith("Bytes") or "BYTES_MAX" in name else number(value)


_FIELD_TEXTS: Final[Mapping[str, str]] = {
    "RelayServerConfig.ttl": "What `registerAck` promises.",
    "RelayServerConfig.message_bytes_max": "Bytes of one message of a registered node.",
    "RelayServerConfig.total_traffic": "For the relay as a whole.",
    "RelayServerConfig.connections_per_address_max": "Connections from one address.",
    "RelayServerConfig.registrations_max": "Nodes that are registered at the same time.",
    "RelayServerConfig.sessions_max": "Sessions in all, open or opening.",
    "RelayClientConfig.connect_timeout": "How long opening the WebSocket may take.",
    "RelayClientConfig.register_timeout": "How long the relay may take to acknowledge the registration.",
    "RelayClientConfig.settle_time": "How long a registration must hold before the next failure counts as the first.",
    "RelayClientConfig.ping_interval": "Between WebSocket pings.",
    "RelayClientConfig.session_timeout": "How long the other side may take to accept a session.",
    "RelayClientConfig.discover_interval": "The shortest time between two questions for nodes.",
    "RelayClientConfig.listings_max": "Nodes that are taken from one answer.",
    "RelayClientConfig.sessions_per_peer_max": "Sessions that one peer has opened.",
}


def relay_limits() -> str:
    """Return the limits of a relay."""
    return _fields(RelayServerConfig, besides={"names", "allow_legacy_register"})


def relay_metrics() -> str:
    """Return what `/metrics` of a relay tells Prometheus."""
    relay = RelayServer(RelayServerConfig(), Random(1), unix_time_at_zero=0)  # noqa: S311  (nothing is secret here)

    async def asked() -> Page | None:
        return pages(relay, Access())(Visit("/metrics", Headers(), Address("127.0.0.1", 1)))

    page = trio.run(asked)
    assert page is not None
    rows = [
        (code(f"{family.name}_total" if family.type == "counter" else family.name), family.type, family.documentation)
        for family in text_string_to_metric_families(page.body.decode())
        if family.name.startswith("teale_relay")
    ]
    return table(("name", "type", "meaning"), rows)


def relay_client_limits() -> str:
    """Return the limits of a node towards its relay."""
    return _fields(RelayClientConfig)


def api_limits() -> str:
    """Return the limits of the local API."""
    return _fields(Limits)


def field_text(owner: type[msgspec.Struct], name: str) -> str:
    """Return what a field of a set of limits means, "" where nobody has said so."""
    return _FIELD_TEXTS.get(f"{owner.__name__}.{name}") or documented(owner)[name]


def _fields(owner: type[msgspec.Struct], *, besides: Set[str] = frozenset()) -> str:
    declared = annotations(owner)
    rows = [
        (code(field.name), _amount(declared[field.name], field.name, field.default), field_text(owner, field.name))
        for field in msgspec.structs.fields(owner)
        if field.name not in besides
    ]
    return table(("name", "default", "meaning"), rows)


def _amount(annotation: str, name: str, value: Any) -> str:
    if isinstance(value, Rate):
        return f"{value.burst} at once, then one every {duration(value.interval)}"
    if isinstance(value, Traffic):
        return f"messages: {_flow(value.messages, number)}; bytes: {_flow(value.size_bytes, size)}"
    if annotation == "Duration":
        return duration(value)
    if "seconds" in name:
        return f"{value:g} s"
    return size(value) if "bytes" in name else number(value)


def _flow(flow: Flow | None, shown: Callable[[int], str]) -> str:
    return "no limit" if flow is None else f"{shown(flow.per_second)} a second, {shown(flow.burst)} at once"


# Routing.

_ROUTING_NUMBERS: Final[Mapping[str, str]] = {
    "NEAR_EQUAL": "Part of the best score from which a node counts as near-equal.",
    "GOOD_ENOUGH_HERE": "Part of the best score from which this machine answers itself.",
    "SWAP_PENALTY": "Factor for a node that would have to load the model.",
    "UNKNOWN_SPEED": "Tokens a second that are assumed where no node has told its speed.",
    "THERMAL_WEIGHT": "Factor by heat.",
}


def routing_numbers() -> str:
    """Return the numbers that routing decides by."""
    rows = []
    for name, meaning in _ROUTING_NUMBERS.items():
        value = getattr(routing, name)
        shown = ", ".join(f"{level} {factor}" for level, factor in value.items()) if name == "THERMAL_WEIGHT" else value
        rows.append((code(f"routing.{name}"), str(shown), meaning))
    return table(("name", "value", "meaning"), rows)


# State tables.

_Table: TypeAlias = Mapping[Any, Enum]
"""From a state and a trigger, both enums, to a state."""
TABLES: Final[Mapping[str, _Table]] = {"liveness": ON, "relay-client": NEXT_STATE}


def transitions(which: str) -> str:
    """Return a state table as text, for those who do not see its diagram."""
    rows = [(code(state.value), trigger.value, code(then.value)) for (state, trigger), then in TABLES[which].items()]
    return table(("state", "what happens", "next state"), rows)
