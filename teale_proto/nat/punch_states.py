"""How far a punch has come, as a table: the diagram in the documentation is drawn from it."""

from enum import Enum
from typing import Final


class PunchState(Enum):
    """How far it has come."""

    IDLE = "idle"
    PREPARING = "finding out what to tell the peer"
    WAITING = "waiting for the peer's next signal"
    COUNTING = "the sync message has gone out"
    RUNNING = "probing"
    RELAYED = "given up, and listening"
    OPEN = "open"
    CANCELLED = "cancelled"


class Trigger(Enum):
    """What changes the state."""

    ASKED = "asked"
    PREPARED = "prepared"
    SYNC_SENT = "sync sent"
    BEGUN = "begun"
    RAN_OUT = "ran out"
    GAVE_UP = "gave up"
    SETTLED = "settled"
    STOPPED = "stopped"


_S, _T = PunchState, Trigger
_BUSY: Final = (_S.PREPARING, _S.WAITING, _S.COUNTING, _S.RUNNING)

ON: Final[dict[tuple[PunchState, Trigger], PunchState]] = {
    (_S.IDLE, _T.ASKED): _S.PREPARING,
    (_S.WAITING, _T.ASKED): _S.PREPARING,
    (_S.RUNNING, _T.ASKED): _S.PREPARING,
    (_S.PREPARING, _T.ASKED): _S.PREPARING,
    (_S.PREPARING, _T.PREPARED): _S.WAITING,
    (_S.WAITING, _T.SYNC_SENT): _S.COUNTING,
    (_S.WAITING, _T.BEGUN): _S.RUNNING,
    (_S.COUNTING, _T.BEGUN): _S.RUNNING,
    (_S.RUNNING, _T.RAN_OUT): _S.WAITING,
    **{(state, _T.GAVE_UP): _S.RELAYED for state in _BUSY},
    **{(state, _T.SETTLED): _S.OPEN for state in (*_BUSY, _S.RELAYED)},
    **{(state, _T.STOPPED): _S.CANCELLED for state in (_S.IDLE, *_BUSY, _S.RELAYED, _S.OPEN)},
}
"""The state table."""
