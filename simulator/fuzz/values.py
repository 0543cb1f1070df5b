"""What a campaign and a replay come to, as values: for people a few lines, for programs JSON with keys that stay."""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from simulator.spec.world_spec import WorldSpec
from teale_proto.contract import Instant, Value


class Broken(Value):
    """The first rule that a run broke, and how."""

    rule: str
    at: Instant
    host: str
    what: str


class Size(Value):
    """How large a world is, so that people can see what shrinking did."""

    nodes: int
    relays: int
    faults: int
    asks: int
    seconds: float

    @classmethod
    def of(cls, spec: WorldSpec) -> "Size":
        """Return the size of a settled description."""
        return cls(len(spec.node_names), len(spec.relays), len(spec.faults), len(spec.asks), spec.lasts)

    def __str__(self) -> str:
        parts = ((self.nodes, "node"), (self.relays, "relay"), (self.faults, "fault"), (self.asks, "ask"))
        counted = (f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in parts)
        return f"{', '.join(counted)}, {self.seconds:g} s"


class Finding(Value):
    """One world in which a rule was broken, or that its worker did not survive."""

    seed: int
    broken: Broken
    found: Size
    """The world that was drawn."""
    shrunk: Size | None = None
    """The smallest one that still breaks the rule; only the first finding of each rule is shrunk."""
    runs: int = 0
    """How many runs shrinking took."""
    capsule: str | None = None
    """The path of the file that replays it, where one was written."""


class Progress(Value):
    """How far a campaign is."""

    done: int
    """Worlds that have been run."""
    total: int
    """Worlds that are to be run, if the time allows."""
    findings: int
    shrinking: bool
    """Whether all worlds have been run, and findings are being made smaller."""
    elapsed_seconds: float
    remaining_seconds: float | None
    """An estimate; None as long as there is nothing to go by."""


OnProgress: TypeAlias = Callable[[Progress], None]


class CampaignReport(Value):
    """What came of a campaign. All but the times and the paths follows from the seeds that were run."""

    first_seed: int
    seeds: int
    """Seeds asked for; `done` of them were run, without a gap from the first on."""
    done: int
    passed: bool
    findings: tuple[Finding, ...]
    """In the order of their seeds."""
    stopped: str
    """Why the campaign ended: `done`, `time is up`, `enough found` or `interrupted`."""
    workers: int
    simulated_seconds: float
    wall_seconds: float

    def json(self) -> bytes:
        """Return the report as JSON."""
        return msgspec.json.format(msgspec.json.encode(self))


class ReplayReport(Value):
    """Whether a capsule came to the same event again."""

    path: str
    seed: int
    size: Size
    expected: Broken
    found: Broken | None
    """What the run broke this time; None where it kept all rules."""
    same_event: bool
    """The same rule, at the same instant, on the same host, in the same words, after the same trace."""
    same_rule: bool
    same_code: bool
    """Whether this program is the one that wrote the capsule; if not, the same rule is all that can be asked for."""
    expected_digest: str
    found_digest: str
    reproduced: bool
    """The verdict: the same event, or with other code the same rule."""
    explanation: str
    """The verdict in words."""
    tail: tuple[str, ...] = ()
    """The last entries of the trace, as text."""

    def json(self) -> bytes:
        """Return the report as JSON."""
        return msgspec.json.format(msgspec.json.encode(self))
