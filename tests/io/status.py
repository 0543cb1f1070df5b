"""A node's status as tests show it; they replace what they are about."""

from typing import Final

from teale_proto.effects import RelayState
from teale_proto.inputs import NodeId
from teale_proto.status import NodeStatus
from teale_proto.wire.relay import Hardware

ALICE: Final = NodeId("a1" * 32)
BOB: Final = NodeId("b2" * 32)
CAROL: Final = NodeId("c3" * 32)
DAVE: Final = NodeId("d4" * 32)

STATUS: Final = NodeStatus(
    node_id=ALICE,
    display_name="alice",
    loaded_models=("tiny",),
    hardware=Hardware(chip_name="M2", total_ram_gb=16.0, tier=3),
    lan_enabled=True,
    lan_encryption="noise",
    wan_enabled=True,
    wan=RelayState.CONNECTED,
    wan_relay_url="ws://relay.example/ws",
    wan_reason="",
    nat_type="unknown",
    peers_connected=1,
    peers_listed=1,
    queue_depth=0,
    running=0,
    asked=0,
)
