"""What a node says of a peer, report by report."""

import pytest

from simulator.comparing.views import View, is_news_of_conversation
from teale_proto.effects import Path, PeerState, ReportPeer
from teale_proto.inputs import NodeId

BOB = NodeId("b" * 64)


def told(*reports: tuple[PeerState, Path, str]) -> View:
    view = View()
    for state, path, reason in reports:
        view.reported(ReportPeer(BOB, state, path, reason))
    return view


UP, SLOW, GONE = PeerState.CONNECTED, PeerState.DEGRADED, PeerState.LOST
RELAY, DIRECT, LAN = Path.RELAY, Path.DIRECT, Path.LAN


@pytest.mark.parametrize(
    ("reports", "path"),
    [
        ([], None),
        ([(UP, RELAY, "")], RELAY),
        ([(UP, RELAY, ""), (UP, DIRECT, "")], DIRECT),
        # The relay came back beside a direct path, which stays the better one.
        ([(UP, DIRECT, ""), (UP, RELAY, "")], DIRECT),
        ([(UP, RELAY, ""), (UP, DIRECT, ""), (SLOW, DIRECT, "a heartbeat was missed")], RELAY),
        ([(UP, RELAY, ""), (UP, DIRECT, ""), (SLOW, DIRECT, ""), (UP, DIRECT, "")], DIRECT),
        ([(UP, RELAY, ""), (UP, DIRECT, ""), (UP, RELAY, "the path was closed")], RELAY),
        ([(UP, RELAY, ""), (UP, DIRECT, ""), (UP, DIRECT, "the relay was lost"), (SLOW, DIRECT, "")], DIRECT),
        ([(UP, RELAY, ""), (UP, DIRECT, ""), (UP, LAN, ""), (UP, DIRECT, "the network was left")], DIRECT),
        ([(UP, RELAY, ""), (UP, DIRECT, ""), (UP, LAN, ""), (UP, LAN, "the relay was lost")], LAN),
        ([(UP, RELAY, ""), (GONE, RELAY, "it is silent")], None),
    ],
)
def test_the_path_in_use_is_the_healthy_one_that_is_liked_best(
    reports: list[tuple[PeerState, Path, str]], path: Path | None
) -> None:
    assert told(*reports).path is path


def test_a_peer_is_well_when_anything_that_it_is_reached_over_is() -> None:
    assert told((UP, RELAY, ""), (SLOW, RELAY, "")).is_well is False
    assert told((UP, RELAY, ""), (UP, DIRECT, ""), (SLOW, DIRECT, "")).is_well
    assert not View().is_well


def test_a_conversation_that_ended_is_no_news_of_the_one_that_is_left() -> None:
    assert is_news_of_conversation(ReportPeer(BOB, UP, DIRECT))
    assert not is_news_of_conversation(ReportPeer(BOB, UP, DIRECT, "the relay was lost"))
    assert not is_news_of_conversation(ReportPeer(BOB, SLOW, DIRECT))
