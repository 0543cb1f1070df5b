"""Running a capsule again, and saying whether it comes to the same event."""

from pathlib import Path

from simulator.fuzz.capsule import Capsule, load, this_code
from simulator.fuzz.trial import Trial, run
from simulator.fuzz.values import Broken, ReplayReport, Size


def replay(path: Path) -> ReplayReport:
    """Run the world of a capsule, up to the first rule that it breaks; raises CapsuleError as `capsule.load` does."""
    capsule = load(path)
    return compared(str(path), capsule, run(capsule.spec, capsule.seed), same_code=capsule.code == this_code())


def compared(path: str, capsule: Capsule, trial: Trial, *, same_code: bool) -> ReplayReport:
    """Return how a run compares with what its capsule says."""
    expected, found = capsule.broken, trial.broken
    same_event = found == expected and trial.digest == capsule.digest
    same_rule = found is not None and found.rule == expected.rule
    return ReplayReport(
        path=path,
        seed=capsule.seed,
        size=Size.of(capsule.spec),
        expected=expected,
        found=found,
        same_event=same_event,
        same_rule=same_rule,
        same_code=same_code,
        expected_digest=capsule.digest,
        found_digest=trial.digest,
        reproduced=same_event or (same_rule and not same_code),
        explanation=_explained(capsule, found, same_event=same_event, same_rule=same_rule, same_code=same_code),
        tail=trial.tail,
    )


def _explained(capsule: Capsule, found: Broken | None, *, same_event: bool, same_rule: bool, same_code: bool) -> str:
    written = capsule.code.commit[:12] if capsule.code.commit else f"version {capsule.code.version}"
    if same_event:
        return "the same event: the same rule, at the same instant, after the same trace"
    if not same_code:
        became = "the same rule is broken, at another event" if same_rule else _became(found)
        return f"the code has changed since the capsule was written (by {written}): {became}"
    if same_rule:
        return "the same code broke the same rule at another event: a run depends on something besides its seed"
    return f"the same code came to something else ({_became(found)}): a run depends on something besides its seed"


def _became(found: Broken | None) -> str:
    return "no rule is broken any more" if found is None else f"another rule is broken: {found.rule}"
