"""Connections for message fidelity: what is sent at once arrives at once, as one event.

Everything but that is as on the wire and done by the same code: the legs of the handshake, the queues that sizes are
charged to, chance where a link leaves anything to it, partitions, NATs that forget, resets and silence. So two worlds
that differ in nothing but their fidelity do the same things at the same instants, as long as no line is slow enough
for the packets of one message to be told apart and no link draws lots, whose number is another one here.

A stream is not cut into packets and not held back until the instant is over: it needs no buffer, no second event,
and no chance of its own.
"""

from simulator.net.connection import MESSAGE_OVERHEAD_BYTES, SEGMENT_BYTES, Connection, End, Kind, State


class MessageEnd(End):
    """One side of a connection that carries whatever it is given as a whole."""

    __slots__ = ()

    def send(self, data: bytes) -> None:
        """Send bytes of a stream, or one whole message, in as many packets as it takes and as one event."""
        assert self.state is State.OPEN, f"{self.machine.name} sends on a connection that is {self.state.value}"
        connection = self.connection
        if connection.medium.taps:
            connection.observe(self, data)
        size = len(data)
        packets = 1 if size <= SEGMENT_BYTES else -(-size // SEGMENT_BYTES)
        if connection.kind is not Kind.STREAM:
            size += MESSAGE_OVERHEAD_BYTES
        self._lane.carry(size, packets, self.other.receive, data)


class MessageConnection(Connection):
    """A `ConnectionFactory`: two ends that do not cut what they send."""

    __slots__ = ()

    end = MessageEnd
