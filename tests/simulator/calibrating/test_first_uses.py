"""What a process does for the first time, as its journal has it."""

from pathlib import Path
from random import Random
from typing import Any

from simulator.calibrating.first_uses import NETWORK, QUIC, TLS, first_uses
from teale_proto.contract import Instant
from teale_proto.inputs import Address, ConnectionOpened, DatagramReceived, NetworkChanged, Started
from teale_proto.journal import Header, NodeMade, Recording, RecordingRng
from teale_proto.node import Node, NodeConfig
from tests.proto.world import UNIX_TIME_AT_ZERO, identity
from tests.simulator.journals.lives import LIVES, File, recorded

HERE, STUN = Address("192.0.2.77", 7475), Address("192.0.2.1", 3478)


def journal(path: Path, config: NodeConfig, *inputs: tuple[Instant, Any]) -> Path:
    """Write the journal of a node that is fed these."""
    made, rng = NodeMade(config, identity(1)), RecordingRng(Random(1))
    node = Node(made.config, made.identity, rng, unix_time_at_zero=UNIX_TIME_AT_ZERO)
    recording = Recording(node, rng, Header("a", "0.1.0", UNIX_TIME_AT_ZERO, made), File(path))
    for at, event in inputs:
        recording.handle(event, at)
    return path


def test_a_connection_over_tls_takes_from_when_it_is_wanted_until_it_is_there(tmp_path: Path) -> None:
    config = NodeConfig(display_name="a", wan_enabled=True, wan_relay_url="wss://relay.example/ws")
    path = journal(tmp_path / "journal", config, (1000, Started(None)), (31_000, ConnectionOpened(1)))
    assert first_uses(path) == {TLS: 30_000}


def test_one_without_tls_is_not_told(tmp_path: Path) -> None:
    config = NodeConfig(display_name="a", wan_enabled=True, wan_relay_url="ws://relay.example/ws")
    path = journal(tmp_path / "journal", config, (1000, Started(None)), (31_000, ConnectionOpened(1)))
    assert first_uses(path) == {}


def test_the_first_answer_counts(tmp_path: Path) -> None:
    config = NodeConfig(display_name="a", wan_enabled=True, wan_relay_url="ws://relay.example/ws", wan_direct=True)
    answers = [(at, DatagramReceived(HERE, STUN, b"whatever it is")) for at in (12_000, 50_000)]
    looked = (4000, NetworkChanged((HERE,), (STUN,)))
    path = journal(tmp_path / "journal", config, (1000, Started(None)), looked, *answers)
    assert first_uses(path) == {NETWORK: 11_000}


def test_who_stays_on_the_lan_does_nothing_of_it(tmp_path: Path) -> None:
    found = first_uses(recorded(LIVES["node on a LAN, asking"], tmp_path / "journal"))
    assert QUIC not in found
    assert TLS not in found
