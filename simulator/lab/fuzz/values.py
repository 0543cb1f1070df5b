"""What random worlds in a lab come to, as values: for people a few lines, for programs JSON with keys that stay."""

import msgspec

from simulator.fuzz.values import Broken, Size
from teale_proto.contract import Duration, Value


class Usage(Value):
    """What a world took, in real time, and how far behind the machine was."""

    wall_seconds: float = 0.0
    """From its beginning to its verdict, with all that is built and taken down."""
    cpu_seconds: float = 0.0
    """Processor time of the lab and all its programs."""
    latest_act_us: Duration = 0
    """By how much the latest act of its plan was late."""
    slowest_start_us: Duration = 0
    """How long the slowest program took from its start until it answered."""


class LabTrial(Value):
    """What came of one world."""

    seed: int
    size: Size
    violations: tuple[Broken, ...] = ()
    """The first violation of each rule that was broken, in the order of time."""
    outcomes: dict[str, int] = msgspec.field(default_factory=dict)
    """How many requests ended in each way."""
    journals: int = 0
    steps: int = 0
    """Inputs that cores were fed again; every one had the same effects, unless a violation says otherwise."""
    usage: Usage = Usage()
    simulated: Broken | None = None
    """What the same world breaks in the simulator; looked at only where a rule was broken."""


class LabFinding(Value):
    """One world in which a rule was broken."""

    seed: int
    size: Size
    violations: tuple[Broken, ...]
    simulated: Broken | None
    """What the same world breaks in the simulator; None where it keeps all rules there."""
    folder: str | None = None
    """Where everything about it is kept."""
    command: str = ""
    """What runs the same world with real programs again; it need not come to the same."""
    simulate: str = ""
    """What runs it in the simulator."""

    @property
    def fails_simulated(self) -> bool:
        """Whether the simulator breaks one of the same rules."""
        return self.simulated is not None and self.simulated.rule in {broken.rule for broken in self.violations}


class LabReport(Value):
    """What came of a campaign. A lab is not deterministic: the same seeds may come to something else next time."""

    first_seed: int
    seeds: int
    """Seeds asked for; `done` of them were run."""
    done: int
    passed: bool
    findings: tuple[LabFinding, ...]
    """In the order of their seeds."""
    stopped: str
    """Why the campaign ended: `done`, `time is up`, `enough found` or `interrupted`."""
    at_once: int
    outcomes: dict[str, int]
    """How many requests of all worlds ended in each way."""
    journals: int
    steps: int
    lab_seconds: float
    """How long the worlds lasted, by their own clocks."""
    cpu_seconds: float
    latest_act_us: Duration
    slowest_start_us: Duration
    wall_seconds: float

    def json(self) -> bytes:
        """Return the report as JSON."""
        return msgspec.json.format(msgspec.json.encode(self))
