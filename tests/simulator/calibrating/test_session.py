"""Real programs, measured once and quickly: not whether the figures are right, but whether there are any."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.calibrating.checking import checks_of
from simulator.calibrating.first_uses import NETWORK, QUIC, TLS
from simulator.calibrating.fitting import fitted
from simulator.calibrating.measuring import PAUSES_MS, Plan, new_identity
from simulator.calibrating.programs import CalibrationError, Folders, Node, Relay
from simulator.calibrating.quiet import LINES
from simulator.calibrating.relay_client import RelayClient, open_session
from simulator.calibrating.reporting import document_of, machine_of, text_of
from simulator.calibrating.session import measure
from simulator.lab.errors import LabError
from simulator.lab.namespaces import Namespace
from simulator.spec.costs_file import read_costs
from teale_io.hardware import this_machine
from teale_proto.wire.binary import BinaryData

TINY = Plan(1, dict(zip(PAUSES_MS, (5, 5, 3, 1, 1, 1), strict=True)), 1, 5, 4, 1, as_in_lab=True)


@pytest.fixture
def quiet() -> Iterator[Namespace]:
    try:
        network = Namespace()
        network.ip(LINES)
    except (OSError, LabError) as error:
        pytest.skip(f"there can be no network of one's own here: {error}")
    yield network
    network.close()


def test_a_session_measures_real_programs_and_makes_a_profile_that_can_be_read(
    tmp_path: Path, quiet: Namespace
) -> None:
    told: list[str] = []
    measured = quiet.call(lambda: measure(TINY, told.append))
    assert told[-1] == "round 1 of 1"
    assert measured.rounds == 1
    assert measured.samples.median("relay message after 1 ms, cpu, µs") > 0
    assert measured.samples.median("node handshake, µs") > measured.samples.median("node bulk, µs")
    for first_use in (NETWORK, TLS, QUIC):
        assert all(took > 0 for took in measured.samples.of(first_use))
    has_model = importlib.util.find_spec("llama_cpp") is not None
    assert bool(measured.asked) is has_model
    profile = fitted(measured, machine=machine_of(measured))
    assert (profile.inference is not None) is has_model
    file = tmp_path / "profile.toml"
    file.write_text(text_of(measured, profile), encoding="utf-8")
    read = read_costs(file)
    assert read.relay.ping_us == pytest.approx(profile.relay.ping_us, rel=1e-3)
    assert read.hardware == profile.hardware
    assert profile.hardware is not None
    assert profile.hardware.told() == this_machine()
    assert "# measured " in file.read_text(encoding="utf-8")
    assert len(document_of(measured, profile, file)["checks"]) == len(checks_of(measured, profile))


def test_what_is_sent_through_the_relay_arrives_as_it_was() -> None:
    with Folders() as folders, Relay(folders.new(), journal=True) as relay:
        one, other = (RelayClient(relay, new_identity()) for _ in range(2))
        open_session(one, other, "5" * 32)
        one.send("5" * 32, b"hello")
        assert other.receive() == BinaryData("5" * 32, b"hello")
        one.ping()
        one.close()
        other.close()
        assert (relay.home / "journal").stat().st_size > 0


def test_a_program_that_does_not_start_is_told_with_its_last_words() -> None:
    with Folders() as folders, pytest.raises(CalibrationError, match=r"node ended with exit code 1: .*wan_relay_url"):
        Node(folders.new(), wan_enabled=True, wan_relay_url="nonsense")
