"""The lines of a trace file, each as a value of the few fields that the page needs.

A trace may come from another version than this one: fields that are not known here are passed over, and so are lines
of kinds that nobody asked for.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from simulator.results import traces
from simulator.results.traces import Line
from teale_proto.contract import Value
from teale_proto.inputs import NodeInput, RelayInput

V = TypeVar("V", bound=Value)

INPUTS: Final = frozenset(kind.__name__ for union in (NodeInput, RelayInput) for kind in get_args(union))
"""What goes into cores: whatever a host does next, up to the next of these, is the answer to it."""


class Named(Value):
    """The answer to a local request, or a part of it: which request."""

    request: str


class Asked(Named):
    """Ask."""

    model: str = ""
    streaming: bool = True
    body: bytes = b""


class Attempted(Named):
    """ReportAttempt."""

    server: str = ""
    path: str = ""


class Chunk(Named):
    """ReportChunk."""

    chunk: bytes = b""


class Finished(Named):
    """ReportFinished."""

    server: str = ""
    path: str = ""
    tokens_in: int = 0
    tokens_out: int = 0


class Failed(Named):
    """ReportFailed."""

    failure: str = ""
    message: str = ""


class Job(Value):
    """What a node tells its backend, or the backend the node."""

    job: int
    model: str = ""
    body: bytes = b""
    chunk: bytes = b""
    failure: str = ""
    tokens_in: int = 0
    tokens_out: int = 0


class Opened(Value):
    """Connect; `target` has a `url`, a `node`, or a `host`."""

    connection: int
    target: dict[str, Any]

    @property
    def opening(self) -> bytes:
        """What goes to the other side with the dialling itself; nothing, as a rule."""
        try:
            return b64decode(self.target.get("opening") or "")
        except (ValueError, TypeError):
            return b""


class Remote(Value):
    """An address."""

    host: str = ""


class Accepted(Value):
    """ConnectionAccepted."""

    connection: int
    remote: Remote


class Ended(Value):
    """ConnectionClosed, CloseConnection or ConnectFailed."""

    connection: int


class Data(Value):
    """SendData, SendText or DataReceived."""

    connection: int
    data: bytes
    bulk: bool = False


class Several(Value):
    """MessagesReceived."""

    connection: int
    messages: tuple[bytes, ...]


class Peer(Value):
    """ReportPeer."""

    node: str
    state: str
    path: str
    reason: str = ""


class RelayNews(Value):
    """ReportRelay."""

    state: str
    reason: str = ""


class _Record(Value):
    node: str = ""


class Advertised(Value):
    """Advertise."""

    record: _Record


class Nothing(Value):
    """What matters by its name alone."""


KINDS: Final[Mapping[str, type[Value]]] = {
    "Ask": Asked,
    "ReportAttempt": Attempted,
    "ReportChunk": Chunk,
    "ReportFinished": Finished,
    "ReportFailed": Failed,
    "StartGeneration": Job,
    "CancelGeneration": Job,
    "GenerationChunk": Job,
    "GenerationFinished": Job,
    "GenerationFailed": Job,
    "CancelAsk": Named,
    "Connect": Opened,
    "ConnectionAccepted": Accepted,
    "ConnectionOpened": Ended,
    "ConnectionClosed": Ended,
    "CloseConnection": Ended,
    "ConnectFailed": Ended,
    "SendData": Data,
    "SendText": Data,
    "DataReceived": Data,
    "MessagesReceived": Several,
    "ReportPeer": Peer,
    "ReportRelay": RelayNews,
    "Advertise": Advertised,
    "HostStarted": Nothing,
    "HostCrashed": Nothing,
    "HostStopped": Nothing,
}


def lines_of(folder: Path) -> Iterator[Line]:
    """Yield the lines of a folder's trace in order; `value` is one of this module's, or None.

    Raises MissingResults where the run was not made with a trace, and DamagedResults where it cannot be read.
    """
    return traces.lines_of(folder, KINDS)
