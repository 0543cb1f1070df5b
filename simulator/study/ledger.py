"""What passed through a relay, by purpose, and what follows from that: processor, bandwidth, memory and money.

The event simulation and the population model both fill a `Ledger`, and both are charged by the same profile, so that
where they differ, they differ in what nodes do.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from simulator.relay_cost import Prices, RelayProfile, monthly
from teale_proto.contract import Value


class Purpose(Enum):
    """Why a message went through the relay."""

    REGISTER = "registration"
    DISCOVER = "discover"
    NOTICE = "joins and leaves"
    PING = "pings"
    SIGNAL = "signalling"
    SESSION = "opening sessions"
    HEARTBEAT = "heartbeats"
    DATA = "requests and answers"


PURPOSES: Final = tuple(Purpose)


class Line:
    """One purpose: messages and bytes that came in and went out, and processor time."""

    __slots__ = ("bytes_in", "bytes_out", "cpu_us", "messages_in", "messages_out")

    def __init__(self) -> None:
        self.messages_in = 0.0
        self.messages_out = 0.0
        self.bytes_in = 0.0
        """On the wire, headers included, as are those that go out."""
        self.bytes_out = 0.0
        self.cpu_us = 0.0


class Ledger:
    """The lines of all purposes, and what went past the relay."""

    __slots__ = (
        "answered",
        "connections",
        "connections_relayed",
        "data_bytes",
        "data_bytes_relayed",
        "lines",
        "unserved",
    )

    def __init__(self) -> None:
        self.lines: dict[Purpose, Line] = {purpose: Line() for purpose in PURPOSES}
        self.connections = 0.0
        """Connections between two nodes that were made, whichever way."""
        self.connections_relayed = 0.0
        self.data_bytes = 0.0
        """Bytes of requests and answers between two nodes, as they are sealed, whichever way."""
        self.data_bytes_relayed = 0.0
        self.answered = 0.0
        """Requests that another node answered."""
        self.unserved = 0.0
        """Requests for a model that nobody held."""

    def add(
        self, purpose: Purpose, *, messages: float = 1, size_in: float = 0, copies: float = 0, size_out: float = 0
    ) -> None:
        """Note `messages` that came in with `size_in` bytes on the wire together, and `copies` that went out."""
        line = self.lines[purpose]
        line.messages_in += messages
        line.bytes_in += size_in
        line.messages_out += copies
        line.bytes_out += size_out

    def charge(self, purpose: Purpose, cpu_us: float) -> None:
        """Note processor time."""
        self.lines[purpose].cpu_us += cpu_us


class Measured(Value, forbid_unknown_fields=True):
    """One run, or one batch of the model, in rates."""

    nodes: float
    connections_relayed: float
    """Share of connections between nodes."""
    bytes_relayed: float
    """Share of bytes of requests and answers."""
    unserved: float
    """Share of requests that found no holder."""
    messages: float
    """Messages a second that came in."""
    cores: float
    ingress: float
    """Bytes a second on the wire."""
    egress: float
    memory: float
    """Bytes."""
    cost: float
    """Dollars a month."""
    cost_machine: float
    cores_by: dict[str, float]
    egress_by: dict[str, float]
    messages_by: dict[str, float]
    wait_mean: float | None = None
    """Microseconds until the relay's one core takes up what has come; None in the model, which knows no time."""
    wait_max: float | None = None


PARTS: Final = ("cores", "egress", "messages")
SCALARS: Final = tuple(field for field in Measured.__struct_fields__ if not field.endswith("_by"))


def measured(
    ledger: Ledger,
    *,
    nodes: float,
    seconds: float,
    scale: float = 1.0,
    profile: RelayProfile,
    prices: Prices,
    peak_factor: float,
    waits: tuple[float, float] | None = None,
) -> Measured:
    """Return a ledger of so many seconds as rates; `scale` is how many nodes each that was looked at stands for.

    `waits` are the mean and the longest time that work waited for the core, in microseconds.
    """
    wait_mean, wait_max = waits or (None, None)
    factor = scale / seconds
    cores_by = {p.value: line.cpu_us * factor / 1e6 for p, line in ledger.lines.items()}
    egress_by = {p.value: line.bytes_out * factor for p, line in ledger.lines.items()}
    messages_by = {p.value: line.messages_in * factor for p, line in ledger.lines.items()}
    cores, egress = sum(cores_by.values()), sum(egress_by.values())
    memory = profile.memory_bytes(nodes)
    bill = monthly(prices, cores=cores, memory_bytes=memory, egress_bytes_per_second=egress, peak_factor=peak_factor)
    return Measured(
        nodes=nodes,
        connections_relayed=_share(ledger.connections_relayed, ledger.connections),
        bytes_relayed=_share(ledger.data_bytes_relayed, ledger.data_bytes),
        unserved=_share(ledger.unserved, ledger.unserved + ledger.answered),
        messages=sum(messages_by.values()),
        cores=cores,
        ingress=sum(line.bytes_in for line in ledger.lines.values()) * factor,
        egress=egress,
        memory=memory,
        cost=bill.total,
        cost_machine=bill.machine,
        cores_by=cores_by,
        egress_by=egress_by,
        messages_by=messages_by,
        wait_mean=wait_mean,
        wait_max=wait_max,
    )


class Estimate(Value, forbid_unknown_fields=True):
    """A mean and half of its 95 % confidence interval."""

    mean: float
    half: float


def estimates(runs: list[Measured]) -> Mapping[str, Estimate]:
    """Return the mean of each figure over independent runs or batches; parts are named `cores/discover` and so on."""
    columns: dict[str, list[float]] = {name: [getattr(run, name) for run in runs] for name in SCALARS}
    columns = {name: values for name, values in columns.items() if None not in values}
    for part in PARTS:
        for purpose in PURPOSES:
            columns[f"{part}/{purpose.value}"] = [getattr(run, f"{part}_by")[purpose.value] for run in runs]
    return {name: estimate(values) for name, values in columns.items()}


# Student's t for 95 % at 1, 2, … degrees of freedom; beyond them the normal's.
_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_T_MANY: Final = (2.120, 2.110, 2.101, 2.093)


def estimate(values: list[float]) -> Estimate:
    """Return the mean of independent values with its interval by Student's t; of one value the interval is infinite."""
    count = len(values)
    mean = sum(values) / count
    if count == 1:
        return Estimate(mean, float("inf"))
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    table = _T + _T_MANY
    t = table[count - 2] if count - 2 < len(table) else 2.0
    return Estimate(mean, t * (variance / count) ** 0.5)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
