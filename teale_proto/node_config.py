"""What a node is told about itself, and what follows from that: its rules, and what it says of itself."""

from typing import Any

from teale_proto.contract import SECOND, Duration, Value
from teale_proto.door import Door, Join
from teale_proto.errors import LocalError
from teale_proto.inputs import NodeId, ServiceRecord
from teale_proto.liveness import INTERVALS
from teale_proto.secure.passcode import Passcode
from teale_proto.status import NodeStatus
from teale_proto.wire.cluster import DeviceInfo, Hello
from teale_proto.wire.relay import Capabilities, Hardware


class NodeConfig(Value):
    """What a node is told about itself."""

    display_name: str
    hardware: Hardware = Hardware()
    heartbeat: Duration = 15 * SECOND
    lan_enabled: bool = True
    lan_encrypted: bool = True
    fast_aes: bool = False
    """Whether this machine seals faster with AES-GCM than with ChaCha20-Poly1305; used where the peer's does too."""
    lan_join: Join | None = None
    """Who may join on the LAN; None is PASSCODE where there is one, and OPEN where there is none."""
    lan_passcode: Passcode | None = None
    wan_enabled: bool = False
    wan_relay_url: str = ""
    wan_peers_max: int = 8
    """Nodes with models that a node keeps a relay session with, so that the first request finds it ready."""
    wan_direct: bool = True
    """Whether to open direct paths to nodes that the relay introduces."""
    wan_birthday: bool = False
    """Whether to open and probe hundreds of ports where nothing else can open one; never on metered links."""
    wan_join: Join = Join.OPEN
    """Who may talk to this node through the relay: OPEN or PAIRED."""
    trusted_nodes: tuple[NodeId, ...] = ()
    """Those that may join where only paired nodes may."""
    allow_plaintext_legacy: bool = False
    """For a closed test network: talk without encryption to deployed nodes that have none, through the relay."""
    max_concurrent_requests: int = 1
    queue_max: int = 256


def check(config: NodeConfig) -> None:
    """Raise LocalError for a configuration that cannot be kept."""
    if config.heartbeat not in INTERVALS:
        raise LocalError(f"heartbeat of {config.heartbeat} µs; allowed are {INTERVALS}")
    if config.queue_max < 1 or config.max_concurrent_requests < 1:
        raise LocalError("a node serves at least one request at a time and lets at least one wait")


def door_of(config: NodeConfig) -> Door:
    """Return who may join, by the configuration. Raises LocalError for rules that cannot be kept."""
    join = config.lan_join
    if join is None:
        join = Join.OPEN if config.lan_passcode is None else Join.PASSCODE
    if join is not Join.OPEN and not config.lan_encrypted:
        raise LocalError(f"lan_join is {join.value}, but where lan_encryption is off nobody can prove anything")
    return Door(
        lan_join=join,
        wan_join=config.wan_join,
        passcode=config.lan_passcode,
        trusted=config.trusted_nodes,
        plaintext_legacy=config.allow_plaintext_legacy,
    )


def greeting_of(config: NodeConfig, node: NodeId, models: tuple[str, ...] = ()) -> Hello:
    """Return how a node that serves `models` introduces itself to others."""
    device = DeviceInfo(id=node, name=config.display_name, hardware=config.hardware, loaded_models=models)
    return Hello(device_info=device, loaded_models=models, max_concurrent_requests=config.max_concurrent_requests)


def capabilities_of(config: NodeConfig, models: tuple[str, ...]) -> Capabilities:
    """Return what a node that serves `models` offers through the relay."""
    return Capabilities(
        hardware=config.hardware, loaded_models=models, max_concurrent_requests=config.max_concurrent_requests
    )


def record_of(config: NodeConfig, node: NodeId, port: int, models: tuple[str, ...]) -> ServiceRecord:
    """Return what a node that listens on `port` advertises on the LAN."""
    return ServiceRecord(node, port, models, config.hardware.chip_name, config.hardware.total_ram_gb)


def status_of(config: NodeConfig, node: NodeId, door: Door, **live: Any) -> NodeStatus:
    """Return the node at a glance: what it was told, and what it is doing now."""
    return NodeStatus(
        node_id=node,
        display_name=config.display_name,
        hardware=config.hardware,
        lan_enabled=config.lan_enabled,
        lan_encryption="noise" if config.lan_encrypted else "off",
        lan_join=door.lan_join.value,
        wan_enabled=config.wan_enabled,
        wan_join=door.wan_join.value,
        wan_relay_url=config.wan_relay_url,
        allow_plaintext_legacy=config.allow_plaintext_legacy,
        **live,
    )
