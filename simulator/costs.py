"""What the programs cost on one machine: relay, node and inference, as `teale-sim calibrate` measures it.

A description that has such a profile is a world of programs that take their time: hosts are busy with what comes in,
later inputs wait, and models read and write as fast as was measured. Without one, only links take time.
"""

from typing import Annotated, Final

from msgspec import Meta
from msgspec.structs import replace

from simulator.backend import CostModel
from simulator.relay_cost import ProgramProfile, RelayProfile, Work
from simulator.spec.units import Chance, Positive, Seconds, Several
from teale_proto.contract import Value
from teale_proto.wire.fields import Amount, Label
from teale_proto.wire.relay import Hardware

FORMAT: Final = 1
"""The version of this form; a file of a later one is refused."""


def is_described(cost: CostModel) -> bool:
    """Return whether a description says anything about a population's inference."""
    return cost != CostModel()


class NodeProfile(ProgramProfile, forbid_unknown_fields=True):
    """One node on one core of one machine. Microseconds of processor time, on a node that is busy anyway."""

    message: Work
    """A message of another node over a stream, with whatever is answered; by bytes."""
    relayed_us: float = 0.0
    """What a message costs more that comes through a relay."""
    network_us: float = 0.0
    """How long a new process needs, busy or not, before it can ask about the network that it is in."""
    tls_first_us: float = 0.0
    """How much longer, busy or not, a process's first connection to a relay over TLS takes than its round trips and
    `handshake_us`: for it, programs and certificates are loaded."""
    handshake_us: float = 0.0
    """A connection with a Noise handshake and greetings, besides what its messages cost as messages."""
    session_us: float = 0.0
    """The same in a session of a relay."""
    quic_us: float = 0.0
    """What a connection costs more that is a direct path over QUIC, with all that precedes it."""
    quic_first_us: float = 0.0
    """How much longer, busy or not, the first one of a process takes."""
    quic_message_us: float = 0.0
    """What a message costs more that comes over such a path."""
    quic_piece_us: float = 0.0
    """And what a piece of an answer costs more that goes over one."""
    asked_us: float = 0.0
    """Taking a request from an application and sending it to another node."""
    served_us: float = 0.0
    """Serving a request of another node, its message and the pieces of the answer apart."""
    piece_us: float = 0.0
    """Sending on one piece of an answer as it comes from the model."""
    upstream_us: float = 0.0
    """How long, busy or not, a node needs until it has the first piece from a model behind an HTTP server, besides what
    the server needs."""
    upstream_served_us: float = 0.0
    """`served_us` with such a model."""
    upstream_piece_us: float = 0.0
    """`piece_us` with such a model."""


class InferenceProfile(Value, forbid_unknown_fields=True):
    """One model at a node."""

    model: str
    begins_after: Seconds
    """Seconds to the first token, besides the reading of the prompt and what the node itself needs."""
    begins_spread: Seconds
    """By how much that is more or less."""
    prefill_tokens_per_second: Positive
    """A token being four bytes of a request."""
    tokens_per_second: Positive
    jitter: Chance
    remembers_prompt: bool
    tokens_min: Several
    """The shortest answer to prompts as descriptions have them."""
    tokens_max: Several

    def __post_init__(self) -> None:
        if self.tokens_max < self.tokens_min:
            raise ValueError("`tokens_max` is not below `tokens_min`")

    def applied(self, cost: CostModel) -> CostModel:
        """Return a population's model with this one's speed and length of answers; how often it fails stays."""
        taken = {field: getattr(self, field) for field in self.__struct_fields__ if field != "model"}
        return replace(cost, **taken, tokens_median=None)


class HardwareProfile(Value, forbid_unknown_fields=True):
    """What nodes on the machine say that they compute with. It is part of every registration and greeting."""

    chip_family: Label
    chip_name: Label
    total_ram_gb: Amount
    tier: Annotated[int, Meta(ge=1, le=4)]
    platform: Label

    def told(self) -> Hardware:
        """Return it as nodes tell each other."""
        return Hardware(**{field: getattr(self, field) for field in self.__struct_fields__})


class MachineProfile(Value, forbid_unknown_fields=True, kw_only=True):
    """All of it."""

    format: Several = FORMAT
    machine: str
    """What was measured on, when, and how."""
    relay: RelayProfile
    node: NodeProfile
    hardware: HardwareProfile | None = None
    """None is a name that nodes in the simulator have otherwise, too."""
    inference: InferenceProfile | None = None
    """The built-in model; where it could not be measured, populations keep what their descriptions say."""

    def __post_init__(self) -> None:
        if self.format > FORMAT:
            raise ValueError(f"`format` {self.format} is newer than this program, which reads {FORMAT}")

    def inference_of(self, cost: CostModel) -> CostModel:
        """Return what inference costs a population that is described so, what its nodes need for it included.

        One of which nothing is said has the built-in model. Any other is a server beside the node, which is as fast as
        is said.
        """
        if is_described(cost):
            return replace(cost, begins_after=cost.begins_after + self.node.upstream_us / 1e6)
        return cost if self.inference is None else self.inference.applied(cost)
