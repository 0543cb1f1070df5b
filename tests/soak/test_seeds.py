"""Many random seeds, until the time is up: the simulator's scenarios, and the relay in the middle.

Whatever fails is named by its seed and the commit, with which it can be repeated. `TEALE_SEEDS_MINUTES` is for each.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import run_state_machine_as_test

from simulator.scenario import scenario_names
from tests.hostile.test_relay_in_the_middle import RelayInTheMiddle
from tests.soak.conftest import minutes

ROOT = Path(__file__).parents[2]
RUN_SECONDS_MAX = 600


@pytest.mark.soak
def test_scenarios_hold_under_any_seed(commit: str) -> None:
    ends_at = time.monotonic() + minutes("TEALE_SEEDS_MINUTES", 10) * 60
    rng, runs = random.SystemRandom(), 0
    while time.monotonic() < ends_at or not runs:
        for name in scenario_names():
            seed = rng.randrange(2**32)
            command = [sys.executable, "-m", "simulator.cli", "run", name, "--seed", str(seed)]
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=RUN_SECONDS_MAX
            )
            assert done.returncode == 0, f"{name}: seed {seed}, commit {commit}\n{done.stdout}{done.stderr}"
            runs += 1
            if time.monotonic() >= ends_at:
                break
    print(f"{runs} runs, commit {commit}")


@pytest.mark.soak
def test_a_relay_in_the_middle_gets_nowhere_under_any_seed(commit: str) -> None:
    ends_at = time.monotonic() + minutes("TEALE_SEEDS_MINUTES", 10) * 60
    rng, runs = random.SystemRandom(), 0
    while time.monotonic() < ends_at or not runs:
        seed = rng.randrange(2**32)
        machine = type(f"Seed{seed}", (RelayInTheMiddle,), {"_hypothesis_internal_use_seed": seed})
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=50,
                    stateful_step_count=80,
                    derandomize=False,
                    database=None,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except (Exception, FlakyFailure) as error:
            raise AssertionError(f"seed {seed}, commit {commit}") from error
        runs += 1
    print(f"{runs * 50} courses of events, commit {commit}")
