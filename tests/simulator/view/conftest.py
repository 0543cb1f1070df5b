"""Runs to look into, each made once."""

from pathlib import Path

import pytest

from tests.simulator.cli.calling import call, written

STREET = """
name = "street"
summary = "Two homes, some friends behind NATs, and faults in the middle."
lasts = 70.0
stun = 2

[[relays]]
region = "europe-west"

[[populations]]
name = "home"
count = 4
site_size = 2
access = "home"
holders = 0.5
regions = { europe-west = 1.0 }
starts_within = 1.0

[[populations]]
name = "friend"
count = 3
direct = true
holders = 0.0
regions = { europe-west = 1.0 }
starts_within = 1.0
[populations.access]
nats = { eim-apdf = 0.5, apdm-apdf = 0.5 }
lines = { "good-wifi" = 1.0 }

[[populations]]
name = "rack"
count = 1
direct = true
access = "public"
regions = { europe-west = 1.0 }

[requests]
per_node_hour = 300.0
since = 15.0
until = 50.0
timeout = 10.0

[[faults]]
kind = "crash"
host = "home-0"
at = 30.0
how = "vanish"
back_after = 20.0

[[faults]]
kind = "partition"
sources = ["friend"]
targets = ["rack"]
at = 32.0
until = 38.0
both_ways = true

[[faults]]
kind = "nat reboot"
host = "friend-1"
at = 40.0
"""


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(tmp_path_factory, seed=2)


@pytest.fixture(scope="session")
def other_street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(tmp_path_factory, seed=6)


def _run(tmp_path_factory: pytest.TempPathFactory, *, seed: int) -> Path:
    folder = tmp_path_factory.mktemp("street")
    out = folder / "results"
    call("run", written(folder, "street.toml", STREET), "--seed", seed, "--trace", "--out", out)
    assert (out / "trace.jsonl.gz").exists()
    return out
