"""What inputs cost, for hosts of the simulator and for real programs by their journals."""

import pytest
from msgspec.structs import replace

from simulator.costs import NodeProfile
from simulator.pacing import NodePace, RelayPace, Scatter, load_of
from simulator.relay_cost import OURS, Wake, Work, woken
from simulator.rng import stream
from simulator.turns import Over, Turn
from teale_proto.contract import MILLISECOND, SECOND, Value
from teale_proto.effects import Connect, DirectTarget, SendText
from teale_proto.inputs import (
    WAKE,
    Address,
    Ask,
    ConnectionAccepted,
    ConnectionOpened,
    DatagramReceived,
    DataReceived,
    GenerationChunk,
    GenerationFinished,
    LoadedModelsChanged,
    MessagesReceived,
    NetworkChanged,
    NodeId,
    PingReceived,
    RequestId,
    Started,
    Task,
)

HERE = Address("192.0.2.1", 443)
WAKES = (Wake(100.0, 50.0, 10.0), Wake(1100.0, 150.0, 30.0), Wake(11_100.0, 350.0, 130.0))
RELAY = replace(OURS, forward=Work(2.0, 1.0), wake_us=50.0, wakes=WAKES, control_us=40.0, stun_us=130.0, ping_us=60.0)
NODE = NodeProfile(
    message=Work(30.0, 2.0),
    wakes=WAKES,
    relayed_us=20.0,
    handshake_us=1500.0,
    session_us=1000.0,
    quic_us=8000.0,
    quic_first_us=30_000.0,
    quic_message_us=300.0,
    quic_piece_us=350.0,
    asked_us=1400.0,
    served_us=900.0,
    piece_us=70.0,
    upstream_served_us=2500.0,
    upstream_piece_us=100.0,
    start_us=600_000.0,
)


def turn(event: Value, idle: int = 0, over: Over = Over.OTHER) -> Turn:
    return Turn(event, idle, over)


@pytest.mark.parametrize(
    ("idle_us", "cpu_us", "latency_us"),
    [(0, 50, 10), (100, 50, 10), (600, 100, 20), (1100, 150, 30), (6100, 250, 80), (11_100, 350, 130), (9e9, 350, 130)],
)
def test_waking_costs_what_lies_between_the_pauses_that_were_measured(
    idle_us: float, cpu_us: float, latency_us: float
) -> None:
    wake = woken(WAKES, idle_us)
    assert (wake.cpu_us, wake.latency_us) == pytest.approx((cpu_us, latency_us))


def test_pauses_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="in the order of their `idle_us`"):
        replace(OURS, wakes=(WAKES[1], WAKES[0])).__post_init__()
    with pytest.raises(ValueError, match="in the order of their `idle_us`"):
        NodeProfile(message=Work(1.0), wakes=(WAKES[0], WAKES[0]))


def test_a_relay_without_wakes_is_as_slow_after_any_pause() -> None:
    pace = RelayPace(OURS)
    data = DataReceived(3, bytes(300))
    assert pace(turn(data)) == pace(turn(data, SECOND)) == (35, round(OURS.forward_us(300, alone=False)))
    assert pace(turn(PingReceived(3), SECOND)) == (0, OURS.ping_us)
    assert pace(turn(ConnectionAccepted(2, HERE, HERE))) == (OURS.registration_us, 0)
    assert pace(turn(WAKE, SECOND)) == (0, 0)


def test_a_relay_that_has_slept_is_slower_and_waits_to_be_let_run() -> None:
    pace = RelayPace(RELAY)
    assert pace.cost(turn(DataReceived(3, b"\1" * 1000), 1100)) == pytest.approx((3 + 150, 30, 150))
    assert pace(turn(DataReceived(3, b"\1" * 1000), 1100)) == (180, 3)
    assert pace.cost(turn(WAKE, 11_100)).cpu_us == 350
    assert pace.cost(turn(DatagramReceived(HERE, HERE, b""), 1100)).cpu_us == 130 - 50 + 150
    assert pace.cost(turn(PingReceived(3), 1100)).cpu_us == 60 - 50 + 150


def test_messages_in_line_of_one_connection_share_a_turn_and_those_of_others_do_not() -> None:
    pace = RelayPace(RELAY)
    first, again, other = (DataReceived(connection, b"\1" * 1000) for connection in (3, 3, 5))
    assert [pace.cost(turn(event)).cpu_us for event in (first, again, other)] == [53, 3, 53]


def test_messages_that_came_at_once_cost_one_waking() -> None:
    cost = RelayPace(RELAY).cost(turn(MessagesReceived(3, (b"\1" * 1000,) * 4), 1100))
    assert cost.cpu_us == 150 + 4 * 3


def test_json_costs_more_than_data_and_a_list_more_still() -> None:
    said = DataReceived(3, b'{"type":"relayOpen"'.ljust(500))
    asked = DataReceived(3, b'{"type":"discover"'.ljust(500))
    pace = RelayPace(replace(RELAY, discover=Work(180.0, 2000.0)))
    assert pace.cost(turn(said, 1100)).cpu_us == 150 + 2.5 + 40
    assert pace.cost(turn(asked, 1100)).cpu_us == 150 + 180 - 50


def test_of_a_registration_its_messages_are_charged_when_they_come() -> None:
    whole = replace(RELAY, registration_us=900.0)
    messages = 2 * (whole.forward_us(500, alone=True) + whole.control_us)
    assert RelayPace(whole).cost(turn(ConnectionAccepted(2, HERE, HERE))).cpu_us == 900 - messages + 50


def test_a_node_tells_streams_and_messages_of_the_relay_apart() -> None:
    pace = NodePace(NODE)
    assert pace.cost(turn(DataReceived(1, b"\0" * 500))).cpu_us == 31
    assert pace.cost(turn(DataReceived(1, b"\1" * 500))).cpu_us == 51
    for kind in ("relayOpen", "relayReady"):
        begins = b'{"type":"%s"' % kind.encode()
        assert pace.cost(turn(DataReceived(1, begins.ljust(500)))).cpu_us == 51 + 1000
    assert pace.cost(turn(MessagesReceived(1, (b"\1" * 500, b"\1" * 500)), 1100)).cpu_us == 150 + 2 * 51


def test_the_first_direct_path_of_each_life_costs_more() -> None:
    pace = NodePace(NODE)
    assert pace.cost(turn(ConnectionOpened(1))).cpu_us == 1500
    assert pace.cost(turn(ConnectionOpened(3), over=Over.QUIC)).cpu_us == 1500 + 8000 + 30_000
    assert pace.cost(turn(ConnectionAccepted(2, HERE, HERE, direct=True), over=Over.QUIC)).cpu_us == 1500 + 8000
    assert pace.cost(turn(Started(None))).cpu_us == 600_000
    assert pace.cost(turn(ConnectionOpened(1), over=Over.QUIC)).cpu_us == 1500 + 8000 + 30_000


def test_the_first_connection_to_a_relay_of_each_life_takes_longer() -> None:
    pace = NodePace(replace(NODE, tls_first_us=50_000.0, network_us=4000.0))
    opened = Turn(ConnectionOpened(1), 0, Over.TLS)
    assert [pace(opened) for _ in range(2)] == [(51_500, 0), (1500, 0)]
    assert pace(turn(NetworkChanged((), ()))) == (4000, 0)
    assert pace(turn(Started(None))) == (600_000, 0)
    assert pace(opened) == (51_500, 0)


def test_messages_are_heard_before_they_have_cost_what_they_cost() -> None:
    pace = NodePace(NODE)
    assert pace(turn(DataReceived(1, b"\0" * 500), 1100)) == (150 + 30, 31)


def scattered(name: str, *, spread: tuple[float, ...] = (), drift: tuple[float, ...] = ()) -> list[float]:
    scatter = Scatter(stream(1, name, "pace"), spread=spread, drift=drift)
    return [scatter.factor(300.0) for _ in range(1000)]


def test_what_things_take_scatters_as_it_was_measured() -> None:
    factors = sorted(scattered("a", spread=(0.5, 1.0, 3.0)))
    assert factors[0] == pytest.approx(0.5, abs=0.01)
    assert factors[499] == pytest.approx(1.0, abs=0.15)
    assert factors[749] == pytest.approx(2.0, abs=0.3)
    assert factors[-1] == pytest.approx(3.0, abs=0.02)


def test_what_takes_long_deviates_less_for_its_length() -> None:
    scatter = Scatter(stream(1, "a", "pace"), spread=(3.0, 3.0), drift=(2.0, 2.0), measured_us=500.0)
    assert [us * scatter.factor(us) for us in (100.0, 500.0, 50_000.0)] == pytest.approx([600.0, 3000.0, 120_000.0])


def test_how_a_host_is_on_the_whole_is_drawn_once() -> None:
    forms = {host: set(scattered(host, drift=(0.8, 1.2))) for host in "abc"}
    assert all(len(form) == 1 for form in forms.values())
    assert len(set.union(*forms.values())) == 3
    assert set(scattered("a")) == {1.0}


def test_all_of_a_turn_scatters() -> None:
    pace = NodePace(NODE, Scatter(stream(1, "a", "pace"), spread=(2.0, 2.0), drift=()))
    assert pace(turn(DataReceived(1, b"\0" * 500), 1100)) == (2 * (150 + 30), 62)


@pytest.mark.parametrize("wrong", [(1.0,), (2.0, 1.0), (0.0, 1.0), (1.0, 1e9)])
def test_quantiles_must_be_some(wrong: tuple[float, ...]) -> None:
    for name in ("spread", "drift"):
        for profile in (OURS, NODE):
            with pytest.raises(ValueError, match=f"`{name}` must be two quantiles or more"):
                replace(profile, **{name: wrong}).__post_init__()


def test_over_quic_messages_and_the_pieces_that_follow_them_cost_more() -> None:
    pace = NodePace(NODE)
    asked, piece = DataReceived(1, b"\0" * 500), GenerationChunk(1, b"{}")
    assert pace.cost(turn(asked, over=Over.QUIC)).cpu_us == 31 + 300
    assert pace.cost(turn(piece)).cpu_us == 70 + 350
    assert pace.cost(turn(asked)).cpu_us == 31
    assert pace.cost(turn(piece)).cpu_us == 70


def test_a_journal_says_which_connections_are_quic() -> None:
    data = b"\0" * 500
    dialled = [Connect(1, DirectTarget(NodeId("0" * 64), HERE, HERE)), ConnectionOpened(1), DataReceived(1, data)]
    accepted = [ConnectionAccepted(2, HERE, HERE, direct=True), DataReceived(2, data)]
    for events in (dialled, accepted):
        # All at once, so nobody is woken.
        load = load_of(NodePace(NODE), [(0, event) for event in events])
        assert load == (1500 + 8000 + 30_000 + 31 + 300, 1)


@pytest.mark.parametrize(("has_upstream", "piece_us", "served_us"), [(False, 70, 900), (True, 100, 2500)])
def test_requests_cost_by_where_the_model_is(has_upstream: bool, piece_us: float, served_us: float) -> None:
    pace = NodePace(NODE, has_upstream=has_upstream)
    asked = Ask(RequestId("r"), Task.CHAT, "m", b"{}")
    events = (asked, GenerationChunk(1, b"{}"), GenerationFinished(1, 1, 1), LoadedModelsChanged(()))
    assert [pace.cost(turn(event)).cpu_us for event in events] == [1400, piece_us, served_us, 0]


def test_the_load_of_a_journal_counts_messages_and_how_long_the_program_slept_before_each() -> None:
    inputs = [
        (0, DataReceived(3, b"\1" * 1000)),
        # The first one kept it busy for 403 µs, so it has slept for 1100.
        (1503 - 150 + 50, DataReceived(3, b"\1" * 1000)),
        (SECOND, MessagesReceived(5, (b"\1" * 1000, b"\1" * 1000))),
        (2 * SECOND, PingReceived(5)),
    ]
    load = load_of(RelayPace(RELAY), inputs, idle_us=100.0)
    assert load.messages == 4
    first = 53 - 50 + woken(WAKES, 0).cpu_us
    second = 3 + woken(WAKES, inputs[1][0] - first).cpu_us
    assert load.cpu_us == pytest.approx(first + second + (350 + 6) + (350 + 10) + 200, abs=0.2)
    assert load.message_us == pytest.approx(load.cpu_us / 4)


def test_effects_and_an_empty_journal_cost_nothing() -> None:
    assert load_of(RelayPace(RELAY), []) == (0.0, 0)
    assert load_of(RelayPace(OURS), [(MILLISECOND, SendText(3, b"{}"))]) == (0.0, 0)
    assert load_of(RelayPace(OURS), []).message_us == 0.0
