"""`teale status`, `peers`, `models` and `route`: what the running node knows, for people and for programs."""

from typing import Any, Final

import click
import msgspec

from teale_io.cli.app import App, json_option, pass_app
from teale_io.cli.client import NodeApi, decoded
from teale_io.cli.output import Output, short
from teale_proto.effects import Path, RelayState
from teale_proto.inputs import Task
from teale_proto.status import Explanation, ListedPeer, NodeStatus, PeerStatus
from teale_proto.wire.relay import Hardware


class _Peers(msgspec.Struct):
    connected: list[PeerStatus]
    listed: list[ListedPeer]


_WHO_MAY_JOIN_LAN: Final = {
    "open": "anybody on the network (lan_join is open)",
    "passcode": "whoever has the passcode (lan_join is passcode)",
    "paired": "trusted_nodes only (lan_join is paired)",
}
_WHO_MAY_JOIN_WAN: Final = {
    "open": "anybody whom the relay lets in (wan_join is open)",
    "paired": "trusted_nodes only (wan_join is paired)",
}


class NodeView(NodeStatus):
    """What `/api/status` says, as far as it concerns people."""

    problems: tuple[str, ...] = ()


@click.command()
@json_option
@pass_app
def status(app: App) -> None:
    """Show the node at a glance: who it is, and how it is connected."""
    with app.node_api() as api:
        document = api.get("/api/status")
        url = api.url
    if app.out.as_json:
        app.out.document(decoded(document, dict[str, Any]))
    else:
        _show_status(app.out, decoded(document, NodeView), url)


def _show_status(out: Output, node: NodeView, url: str) -> None:
    out.field("node id", node.node_id)
    out.field("name", node.display_name)
    connected = node.wan is RelayState.CONNECTED
    style = "green" if connected else "yellow" if node.wan_enabled else ""
    out.field(
        "wan", node.wan.value if node.wan_enabled else "off (to enable: teale config set wan_enabled true)", style
    )
    if node.wan_enabled:
        why = f", {node.wan_reason}" if node.wan_reason else ""
        out.field("relay", f"{node.wan_relay_url} ({node.wan.value}{why})")
        out.field("wan join", _WHO_MAY_JOIN_WAN.get(node.wan_join, node.wan_join))
    if node.allow_plaintext_legacy:
        out.field(
            "legacy",
            "PLAINTEXT IS ALLOWED: the relay can read what goes to and from old nodes (allow_plaintext_legacy is on)",
            "bold red",
        )
    out.field("nat", node.nat_type)
    if not node.lan_enabled:
        out.field("lan", "off")
    elif node.lan_encryption == "off":
        out.field("lan", "on, NOT ENCRYPTED: anybody on the network can read along (lan_encryption is off)", "bold red")
    else:
        out.field("lan", f"on, encrypted ({node.lan_encryption})")
    if node.lan_enabled:
        out.field("lan join", _WHO_MAY_JOIN_LAN.get(node.lan_join, node.lan_join))
    out.field("models", ", ".join(node.loaded_models) or "none")
    for problem in node.problems:
        out.field("problem", problem, "yellow")
    out.field("hardware", _hardware(node.hardware))
    out.field("peers", f"{node.peers_connected} connected, {node.peers_listed} more listed by the relay")
    out.field("queue", f"{node.running} running, {node.queue_depth} waiting, {node.asked} asked from here")
    out.field("api", f"{url}/v1")


def _hardware(hardware: Hardware) -> str:
    chip = hardware.chip_name or hardware.chip_family or "unknown"
    memory = f"{hardware.total_ram_gb:g} GB" if hardware.total_ram_gb else ""
    return ", ".join(filter(None, (chip, memory, hardware.gpu_backend or "", f"tier {hardware.tier}")))


@click.command()
@click.option("--lan", is_flag=True, help="Only peers on the local network.")
@click.option("--wan", is_flag=True, help="Only peers on the internet, with those that the relay lists.")
@click.option("--explain", is_flag=True, help="Show every path to each of them, and why it is on the one it is on.")
@json_option
@pass_app
def peers(app: App, lan: bool, wan: bool, explain: bool) -> None:
    """List the peers of this node."""
    paths = [path.value for path in Path if lan == wan or lan == (path is Path.LAN)]
    with app.node_api() as api:
        document = api.get("/api/peers")
    if app.out.as_json:
        found = decoded(document, dict[str, list[dict[str, Any]]])
        app.out.document(
            {
                "connected": [peer for peer in found.get("connected", []) if peer.get("path") in paths],
                "listed": found.get("listed", []) if wan or not lan else [],
            }
        )
        return
    shown = decoded(document, _Peers)
    connected = [peer for peer in shown.connected if peer.path.value in paths]
    _show_connected(app.out, connected)
    if explain:
        _show_paths(app.out, connected)
    if wan or not lan:
        _show_listed(app.out, shown.listed)


def _show_connected(out: Output, connected: list[PeerStatus]) -> None:
    if not connected:
        out.line("No peers are connected.")
        return
    headings = ("NODE", "NAME", "STATE", "PATH", "ENCRYPTION", "MODELS", "QUEUE", "TOKENS/S", "RTT MS", "ADDRESS")
    out.table(headings, map(_peer_row, connected))


def _peer_row(peer: PeerStatus) -> tuple[str, ...]:
    return (
        short(peer.node_id),
        peer.display_name,
        peer.state.value,
        peer.path.value,
        "NONE" if peer.encryption == "none" else peer.encryption,
        ", ".join(peer.loaded_models),
        f"{peer.queue_depth}+{peer.in_flight}",
        "" if peer.tokens_per_second is None else f"{peer.tokens_per_second:.1f}",
        "" if peer.round_trip_ms is None else f"{peer.round_trip_ms:.1f}",
        peer.address,
    )


def _show_paths(out: Output, connected: list[PeerStatus]) -> None:
    for peer in connected:
        out.line()
        out.field(f"{peer.display_name} ({short(peer.node_id)})", peer.path_reason or f"over {peer.path.value}")
        for each in peer.paths:
            round_trip = "" if each.round_trip_ms is None else f"{each.round_trip_ms:.1f} ms"
            told = filter(None, (each.path.value, each.state.value, each.address, round_trip))
            out.line("  " + ", ".join(told))


def _show_listed(out: Output, listed: list[ListedPeer]) -> None:
    if not listed:
        return
    out.line()
    out.line("Listed by the relay, not connected:", "dim")
    rows = [(short(peer.node_id), peer.display_name, ", ".join(peer.loaded_models)) for peer in listed]
    out.table(("NODE", "NAME", "MODELS"), rows)


@click.command()
@json_option
@pass_app
def models(app: App) -> None:
    """List the models that can be asked now, and who serves them."""
    with app.node_api() as api:
        found = _models(api)
    if app.out.as_json:
        app.out.document({"models": found})
    elif found:
        rows = [(each["id"], "yes" if each["local"] else "", str(len(each["peers"]))) for each in found]
        app.out.table(("MODEL", "HERE", "PEERS"), rows)
    else:
        app.out.line(
            "No models can be asked now. To serve one: teale config set gguf_models FILE, or builtin_model true"
        )


def _models(api: NodeApi) -> list[dict[str, Any]]:
    here = decoded(api.get("/api/status"), NodeStatus).loaded_models
    known = decoded(api.get("/api/peers"), _Peers)
    serving: list[PeerStatus | ListedPeer] = [*known.connected, *known.listed]
    return [
        {
            "id": model,
            "local": model in here,
            "peers": [peer.node_id for peer in serving if model in peer.loaded_models],
        }
        for model in api.model_ids()
    ]


@click.command()
@click.argument("model")
@click.option("--explain", is_flag=True, help="Show every candidate, its score, and why it won or lost.")
@click.option(
    "--task",
    type=click.Choice([task.value for task in Task]),
    default=Task.CHAT.value,
    show_default=True,
    help="What would be asked.",
)
@json_option
@pass_app
def route(app: App, model: str, explain: bool, task: str) -> None:
    """Show which node a request for MODEL would go to now."""
    with app.node_api() as api:
        document = api.get("/api/route", model=model, task=task)
    if app.out.as_json:
        app.out.document(decoded(document, dict[str, Any]))
        return
    found = decoded(document, Explanation)
    winner = next((each for each in found.candidates if each.won), None)
    if winner is None:
        app.out.field(model, f"nobody can answer: {found.reason}", "yellow")
    else:
        app.out.field(model, f"{winner.display_name} ({short(winner.node_id)}), {winner.path.value}: {found.reason}")
    if explain and found.candidates:
        app.out.line()
        rows = [
            (
                "->" if each.won else "",
                short(each.node_id),
                each.display_name,
                each.path.value,
                f"{each.score:.2f}" if each.eligible else "-",
                str(each.in_flight),
                each.reason,
            )
            for each in found.candidates
        ]
        headings = ("", "NODE", "NAME", "PATH", "SCORE", "IN FLIGHT", "WHY")
        app.out.table(headings, rows, emphasis=[each.won for each in found.candidates])
