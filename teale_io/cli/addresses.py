"""`teale address` and `teale connect`: the address of this node to pass on, and another one's to dial."""

import time
from typing import Final

import click
import msgspec

from teale_io.cli.app import App, json_option, pass_app
from teale_io.cli.client import NodeApi, decoded
from teale_io.cli.exits import CliError, Exit
from teale_io.cli.output import short
from teale_io.config import load_config
from teale_io.keychain import read_marker
from teale_proto.effects import PeerState
from teale_proto.inputs import Address, NodeId
from teale_proto.nat.port_mapping_values import routable
from teale_proto.node_address import (
    ADDRESSES_MAX,
    AddressError,
    NodeAddress,
    is_endpoint,
    is_relay_url,
    parse_node_address,
    written,
)
from teale_proto.status import NodeStatus, PeerStatus

LOOK_SECONDS: Final = 0.25
"""How often to look whether a node that was dialled is there."""


class _OwnStatus(NodeStatus):
    """What a node says of itself, with where it may be reached directly."""

    direct_addresses: tuple[Address, ...] = ()


class _Connected(msgspec.Struct):
    connected: list[PeerStatus]


@click.command()
@click.option("--all", "with_private", is_flag=True, help="With addresses that only the same network reaches.")
@json_option
@pass_app
def address(app: App, with_private: bool) -> None:
    """Print this node's own address, for others to connect to.

    Where the node does not run, or nothing is known of where it can be reached directly, it names the relay only.
    """
    own = _own_address(app, with_private=with_private)
    if app.out.as_json:
        app.out.document(
            {
                "address": str(own),
                "node_id": own.node,
                "relay": own.relay or None,
                "addresses": [written(each) for each in own.addresses],
            }
        )
        return
    app.out.line(str(own))
    if not own.relay and not own.addresses:
        app.out.note("It names no relay and no address: others find it on the same network only. See: wan_enabled")


def _own_address(app: App, *, with_private: bool) -> NodeAddress:
    try:
        with app.node_api() as api:
            status = decoded(api.get("/api/status"), _OwnStatus)
    except CliError as error:
        if error.exit_code is not Exit.NOT_RUNNING:
            raise
        return _configured_address(app)
    known = [each for each in status.direct_addresses if is_endpoint(each) and (with_private or routable(each.host))]
    relay = status.wan_relay_url if status.wan_enabled and is_relay_url(status.wan_relay_url) else ""
    return NodeAddress(status.node_id, relay, tuple(dict.fromkeys(known))[:ADDRESSES_MAX])


def _configured_address(app: App) -> NodeAddress:
    marker = read_marker(app.paths)
    if marker is None:
        raise CliError(
            Exit.NOT_FOUND, "This node has no identity yet. It gets one with: teale up (or: teale id --create)"
        )
    config = load_config(app.paths.config_file)
    relay = config.wan_relay_url if config.wan_enabled and is_relay_url(config.wan_relay_url) else ""
    return NodeAddress(NodeId(marker.node_id), relay)


@click.command()
@click.argument("address")
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=15.0,
    show_default=True,
    help="Seconds to wait until the node is there; 0 only asks for it.",
)
@json_option
@pass_app
def connect(app: App, address: str, wait: float) -> int:
    """Connect to the node of another one's ADDRESS, as `teale address` prints it there."""
    try:
        wanted = parse_node_address(address)
    except AddressError as error:
        raise CliError(Exit.USAGE, f"This is no node address: {error.reason}.") from None
    with app.node_api() as api:
        ours = decoded(api.get("/api/status"), NodeStatus)
        api.post("/api/connect", {"address": str(wanted)})
        _note_other_relay(app, ours, wanted)
        peer = _awaited(app, api, wanted.node, wait)
    if app.out.as_json:
        found = None if peer is None else {"state": peer.state.value, "path": peer.path.value}
        app.out.document({"node_id": wanted.node, "connected": found})
    elif peer is not None:
        app.out.line(f"{peer.display_name} ({short(wanted.node)}) is connected, {peer.path.value}")
    elif wait:
        app.out.note(f"{short(wanted.node)} is not there after {wait:g} s; the node goes on trying.", "yellow")
    else:
        app.out.line(f"{short(wanted.node)} is being tried; see: teale peers")
    return Exit.TIMEOUT if peer is None and wait else Exit.OK


def _note_other_relay(app: App, ours: NodeStatus, wanted: NodeAddress) -> None:
    shared = ours.wan_enabled and wanted.relay == ours.wan_relay_url
    if wanted.relay and not shared:
        own = ours.wan_relay_url if ours.wan_enabled else "none"
        app.out.note(
            f"That node is registered at {wanted.relay}, and this one's relay is {own}: they only meet directly.",
            "yellow",
        )


def _awaited(app: App, api: NodeApi, node: NodeId, wait: float) -> PeerStatus | None:
    """Return the peer once it is there, None where it is not in time."""
    ends_at = time.monotonic() + wait
    with app.out.waiting("Waiting for the node"):
        while wait:
            peers = decoded(api.get("/api/peers"), _Connected).connected
            peer = next((each for each in peers if each.node_id == node and each.state is not PeerState.LOST), None)
            if peer is not None:
                return peer
            if time.monotonic() >= ends_at:
                break
            time.sleep(min(LOOK_SECONDS, max(ends_at - time.monotonic(), 0)))
    return None
