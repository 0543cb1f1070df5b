"""A relay that answers STUN beside its work, as `teale-relay` does: two cores on one host."""

from collections.abc import Sequence

from teale_proto.contract import Instant
from teale_proto.effects import RelayEffect, SendDatagram
from teale_proto.inputs import DatagramReceived, RelayInput
from teale_proto.nat.stun_server import StunServer
from teale_proto.relay.server import RelayServer


class RelayWithStun:
    """Datagrams are for the STUN server, everything else for the relay."""

    __slots__ = ("relay", "stun")

    def __init__(self, relay: RelayServer, stun: StunServer) -> None:
        self.relay = relay
        self.stun = stun

    @property
    def deadline(self) -> Instant:
        """That of the relay: the other one keeps no time."""
        return self.relay.deadline

    def handle(
        self, event: RelayInput | DatagramReceived, now: Instant
    ) -> Sequence[RelayEffect] | Sequence[SendDatagram]:
        """Pass an input to whom it is for."""
        return self.stun.handle(event, now) if isinstance(event, DatagramReceived) else self.relay.handle(event, now)
