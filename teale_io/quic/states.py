"""What a QUIC connection can be, and what leads from one to the other."""

from collections.abc import Mapping
from enum import Enum
from typing import Final


class State(Enum):
    """How a connection stands."""

    CONNECTING = "connecting"
    """The handshake is under way, or the other side has not yet proved who it is."""
    CONNECTED = "connected"
    IDLE = "idle"
    """Nothing has come for so long that the other side was asked for a sign of life."""
    CLOSING = "closing"
    """What was said before is still being delivered; nothing new is taken."""
    CLOSED = "closed"


class Trigger(Enum):
    """What moves a connection from one state to another."""

    PROVEN = "proven"
    """Both sides know who the other one is."""
    HEARD = "heard"
    """Something authentic came in."""
    SILENCE = "silence"
    """Nothing has come for the time after which a connection is kept alive by asking."""
    CLOSE = "close"
    """One side wants to end it."""
    ENDED = "ended"
    """Nothing can be sent or received any more."""


NEXT_STATE: Final[Mapping[tuple[State, Trigger], State]] = {
    (State.CONNECTING, Trigger.PROVEN): State.CONNECTED,
    (State.CONNECTING, Trigger.CLOSE): State.CLOSING,
    (State.CONNECTING, Trigger.ENDED): State.CLOSED,
    (State.CONNECTED, Trigger.SILENCE): State.IDLE,
    (State.CONNECTED, Trigger.CLOSE): State.CLOSING,
    (State.CONNECTED, Trigger.ENDED): State.CLOSED,
    (State.IDLE, Trigger.HEARD): State.CONNECTED,
    (State.IDLE, Trigger.CLOSE): State.CLOSING,
    (State.IDLE, Trigger.ENDED): State.CLOSED,
    (State.CLOSING, Trigger.ENDED): State.CLOSED,
}
"""Every step that changes something; all others leave the state as it is."""


def after(state: State, trigger: Trigger) -> State:
    """Return the state after a trigger."""
    return NEXT_STATE.get((state, trigger), state)
