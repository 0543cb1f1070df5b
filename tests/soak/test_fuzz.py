"""Every target of `fuzzing` for a while: nothing raises, nothing hangs, and memory stays where it was.

`TEALE_FUZZ_MINUTES` is for all of them together. What breaks one is written to the test's folder by libFuzzer, and
its bytes are printed, so that it can become a test of its own.
"""

import base64
import re
import subprocess
import sys
from pathlib import Path

import pytest

from teale_proto.inputs import NodeId
from teale_proto.wire.cluster import CLUSTER_CODEC, ClusterMessage, Goodbye, Heartbeat, InferenceRequest, ModelQuery
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Discover,
    Error,
    RegisterAck,
    RelayClose,
    RelayData,
    RelayMessage,
    RelayOpen,
)
from tests.soak.conftest import minutes

TARGETS = ("codec", "link", "relayed", "channel", "relay", "node", "api", "events", "advertisement")
RSS_MIB_MAX = 700
"""Of a process that keeps its own corpus too; libFuzzer ends one that grows beyond."""

GROWTH_MIB_MAX = 150
ROOT = Path(__file__).parents[2]
ONE, OTHER = NodeId("a" * 64), NodeId("b" * 64)


def seeds() -> list[bytes]:
    """Return what an honest party says, so that the fuzzer need not find JSON by itself."""
    cluster: list[ClusterMessage] = [Heartbeat("x", 0.0), ModelQuery("m"), Goodbye("x")]
    relay: list[RelayMessage] = [
        RelayOpen(ONE, OTHER, "s"),
        RelayData(ONE, OTHER, "s", b"data"),
        RelayClose(ONE, OTHER, "s"),
        Discover(ONE),
        Error("rate_limited", "slow down", 1.0),
        RegisterAck(ONE, 0.0, 300),
    ]
    said = [CLUSTER_CODEC.encode(each, flavour) for each in cluster for flavour in Flavour]
    said += [RELAY_CODEC.encode(each, flavour) for each in relay for flavour in Flavour]
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{}}'
    piece = b'{"choices":[{"index":0,"delta":{"content":"x","tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}'
    return [*said, body, piece, b"data: x\r\n\r\n", b"deviceID=" + b"a" * 64 + b"\0ram=1\0models=a,b", CLUSTER_REQUEST]


CLUSTER_REQUEST = b'{"inferenceRequest":{"requestID":"1","request":{"model":"m"},"streaming":true}}'
assert CLUSTER_CODEC.decode(CLUSTER_REQUEST)[0].__class__ is InferenceRequest


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_break_it_and_none_make_it_grow(target: str, tmp_path: Path, commit: str) -> None:
    pytest.importorskip("atheris", reason="atheris is installed by `make soak` only")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    seconds = max(5, int(minutes("TEALE_FUZZ_MINUTES", 18) * 60 / len(TARGETS)))
    options = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=20",
        f"-rss_limit_mb={RSS_MIB_MAX}",
        f"-artifact_prefix={tmp_path}/",
        "-print_final_stats=1",
    ]
    command = [sys.executable, "-m", "tests.soak.fuzzing", target, *options, str(corpus)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    log = done.stdout + done.stderr
    broken = [base64.b64encode(path.read_bytes()).decode() for path in tmp_path.iterdir() if path.is_file()]
    assert done.returncode == 0, f"commit {commit}, target {target}, input {broken}\n{log[-4000:]}"
    readings = [int(found) for found in re.findall(r"rss: (\d+)Mb", log)]
    runs = re.search(r"stat::number_of_executed_units: (\d+)", log)
    covered = re.findall(r"cov: (\d+)", log)
    print(f"\n{target}: {runs and runs[1]} inputs, {covered[-1]} places, {readings[0]} to {readings[-1]} MiB")
    assert readings[-1] - readings[0] <= GROWTH_MIB_MAX
