"""The parts of a profile, put together again by the pace, give what was measured."""

import pytest

from simulator.calibrating.checking import checks_of
from simulator.calibrating.first_uses import NETWORK, QUIC, TLS
from simulator.calibrating.fitting import fitted
from simulator.calibrating.measuring import PAUSES_MS, SHORT_MS, scatter
from simulator.pacing import NodePace, RelayPace
from simulator.relay_cost import OURS, woken
from simulator.turns import Over, Turn
from teale_proto.inputs import ConnectionAccepted, ConnectionOpened, DataReceived, PingReceived
from teale_proto.wire.binary import DATA
from tests.simulator.calibrating.measured import FIXED, PAUSES_CPU, PLAIN, TOKEN, WITH_MODEL, WITH_PATHS, session

PROFILE = fitted(session(), machine="a test")
FORWARDED = DataReceived(3, DATA + bytes(316))


@pytest.mark.parametrize("pause_ms", PAUSES_MS)
def test_a_message_alone_costs_the_relay_what_was_measured_after_each_pause(pause_ms: float) -> None:
    cost = RelayPace(PROFILE.relay).cost(Turn(FORWARDED, round(pause_ms * 1000 + 30)))
    assert cost.cpu_us == pytest.approx(PAUSES_CPU[pause_ms])


def test_latency_is_what_is_left_when_work_and_our_own_waking_are_taken_away() -> None:
    wakes = PROFILE.relay.wakes
    ours = PAUSES_CPU[0.0] / 2
    assert wakes[0].latency_us == pytest.approx(ours)
    assert wakes[-1].latency_us == pytest.approx(PAUSES_CPU[PAUSES_MS[-1]] - ours)


def test_messages_of_one_connection_in_line_cost_what_bulk_does() -> None:
    pace = RelayPace(PROFILE.relay)
    pace.cost(Turn(FORWARDED, 1000))
    assert pace.cost(Turn(FORWARDED, 0)).cpu_us == pytest.approx(PLAIN["relay bulk of 300 B, µs"], rel=0.01)


def test_a_ping_and_a_registration_cost_what_was_measured_a_short_pause_apart() -> None:
    pace = RelayPace(PROFILE.relay)
    assert pace.cost(Turn(PingReceived(3), 1030)).cpu_us == pytest.approx(PLAIN["relay ping, µs"], rel=0.02)
    assert PROFILE.relay.registration_us == pytest.approx(PLAIN["relay registration, µs"] - 100 + 40, rel=0.02)


def test_what_was_not_measured_of_a_relay_is_that_of_the_profile_that_comes_along() -> None:
    assert (PROFILE.relay.notice, PROFILE.relay.base_mib) == (OURS.notice, OURS.base_mib)


def test_a_first_direct_path_of_a_node_costs_more_than_the_second() -> None:
    pace = NodePace(PROFILE.node)
    opened = Turn(ConnectionAccepted(2, None, None, direct=True), 0, Over.QUIC)  # type: ignore[arg-type]
    first, second = (pace.cost(opened).cpu_us for _ in range(2))
    assert second == pytest.approx(WITH_PATHS["node direct path, µs"])
    messages = 3 * (PROFILE.node.quic_message_us + _turn_us())
    assert first == pytest.approx(WITH_PATHS[QUIC] - messages)


def test_what_a_process_does_for_the_first_time_takes_as_long_as_it_did() -> None:
    pace = NodePace(PROFILE.node)
    opened = Turn(ConnectionOpened(1), 0, Over.TLS)
    first, second = (pace.cost(opened).busy().before for _ in range(2))
    assert first == pytest.approx(WITH_PATHS[TLS])
    assert second == pytest.approx(PROFILE.node.handshake_us, abs=1)
    assert PROFILE.node.network_us == pytest.approx(WITH_PATHS[NETWORK] - _turn_us() - PLAIN["relay STUN, µs"])


def _turn_us() -> float:
    """Return how long a small message takes after a short pause."""
    wake = woken(PROFILE.node.wakes, SHORT_MS * 1000)
    return wake.cpu_us + wake.latency_us + PLAIN["node bulk, µs"]


def test_how_things_scatter_is_told_within_rounds_and_between_them() -> None:
    measured = session()
    for number in range(50):
        measured.samples.add(scatter("node message"), 0.5 + number / 50)
    node = fitted(measured, machine="").node
    assert node.spread == pytest.approx([0.5 + tenth / 10 for tenth in range(11)], abs=0.05)
    # All rounds are alike.
    assert node.drift == (1.0,) * 11
    assert PROFILE.node.spread == ()


def test_a_message_over_quic_costs_more_for_whom_it_reaches_and_for_whom_it_leaves() -> None:
    assert PROFILE.node.quic_message_us == 720 - 420
    assert PROFILE.node.quic_piece_us == 750 - 400


def test_the_models_speed_is_that_of_the_line_through_what_was_asked() -> None:
    inference = PROFILE.inference
    assert inference is not None
    assert inference.prefill_tokens_per_second == pytest.approx(1 / TOKEN)
    # The node's own part is charged by its pace.
    assert 0 < inference.begins_after < FIXED
    assert inference.begins_spread == pytest.approx(0.0, abs=1e-9)
    assert inference.tokens_per_second == pytest.approx(1000 / WITH_MODEL["node served, ms a token"])
    assert inference.tokens_min == inference.tokens_max == 9


def test_without_a_model_and_without_addresses_the_rest_is_still_a_profile() -> None:
    profile = fitted(session(model=False, paths=False), machine="a test")
    assert profile.inference is None
    assert profile.node.piece_us == profile.node.quic_us == profile.node.quic_first_us == 0.0
    assert profile.relay == PROFILE.relay


def test_the_checks_hold_the_whole_against_what_was_measured() -> None:
    checks = checks_of(session(), PROFILE)
    assert {check.what.partition(",")[0] for check in checks} == {
        "through the relay to a node and back",
        "node",
        "first token through the local API",
    }
    relayed = next(check for check in checks if check.what.startswith("node"))
    assert relayed.predicted == pytest.approx(relayed.measured.value, rel=0.03)
    assert relayed.deviation == pytest.approx(relayed.predicted / relayed.measured.value - 1)
