"""The relay of the deployed design, as far as its traffic goes."""

from collections.abc import Sequence
from typing import Any

from simulator.deployed_relay import DeployedRelay
from simulator.study.messages import register
from teale_proto.effects import RelayEffect, SendText
from teale_proto.inputs import Address, ConnectionAccepted, ConnectionClosed, DataReceived, NodeId, StopRequested
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Discover,
    DiscoverFilter,
    DiscoverResponse,
    Error,
    PeerJoined,
    PeerLeft,
    RegisterAck,
    RelayData,
    RelayMessage,
)

NODES = [NodeId(f"{number:064x}") for number in range(5)]


def said(effects: Sequence[RelayEffect]) -> list[tuple[int, Any]]:
    return [
        (effect.connection, RELAY_CODEC.decode(effect.data)[0]) for effect in effects if isinstance(effect, SendText)
    ]


def tell(relay: DeployedRelay, connection: int, message: RelayMessage) -> list[tuple[int, Any]]:
    return said(relay.handle(DataReceived(connection, RELAY_CODEC.encode(message, Flavour.DEPLOYED)), 0))


def come(relay: DeployedRelay, number: int, model: int | None = 0) -> list[tuple[int, Any]]:
    relay.handle(ConnectionAccepted(number, Address("203.0.113.9", 1), Address("203.0.113.1", 443)), 0)
    return tell(relay, number, register(NODES[number], model, binary=False))


def listed(answers: list[tuple[int, Any]]) -> list[str]:
    ((_, answer),) = answers
    assert isinstance(answer, DiscoverResponse)
    return [peer.node_id for peer in answer.peers]


def test_everybody_hears_of_everybody_who_comes_and_goes() -> None:
    relay = DeployedRelay(unix_time_at_zero=0)
    come(relay, 0)
    come(relay, 1)
    (own, ack), *others = come(relay, 2)
    assert own == 2
    assert isinstance(ack, RegisterAck)
    assert [(to, type(message), message.node_id) for to, message in others] == [
        (0, PeerJoined, NODES[2]),
        (1, PeerJoined, NODES[2]),
    ]
    gone = said(relay.handle(ConnectionClosed(1, "gone"), 0))
    assert [(to, type(message), message.node_id) for to, message in gone] == [
        (0, PeerLeft, NODES[1]),
        (2, PeerLeft, NODES[1]),
    ]


def test_discover_lists_everybody_but_the_asker_wherever_it_stands() -> None:
    relay = DeployedRelay(unix_time_at_zero=0)
    for number in range(4):
        come(relay, number)
    for number in range(4):
        expected = [node for node in NODES[:4] if node != NODES[number]]
        assert listed(tell(relay, number, Discover(NODES[number]))) == expected
    relay.handle(ConnectionClosed(2, "gone"), 0)
    assert listed(tell(relay, 3, Discover(NODES[3]))) == NODES[:2]
    # Whoever registers anew on the same connection is listed once.
    tell(relay, 0, register(NODES[0], 3, binary=False))
    assert sorted(listed(tell(relay, 3, Discover(NODES[3])))) == NODES[:2]
    assert listed(tell(relay, 0, Discover(NODES[0]))) == [NODES[1], NODES[3]]


def test_a_filter_lists_those_that_fit() -> None:
    relay = DeployedRelay(unix_time_at_zero=0)
    come(relay, 0, model=None)
    come(relay, 1, model=7)
    come(relay, 2, model=7)
    wanted = DiscoverFilter(model_id="llama-3-8b-instruct-00007")
    assert listed(tell(relay, 0, Discover(NODES[0], wanted))) == [NODES[1], NODES[2]]
    few = DiscoverFilter(model_id="llama-3-8b-instruct-00007", max_peers=1)
    assert listed(tell(relay, 0, Discover(NODES[0], few))) == [NODES[1]]


def test_alone_a_node_is_told_of_nobody() -> None:
    relay = DeployedRelay(unix_time_at_zero=0)
    come(relay, 0)
    assert listed(tell(relay, 0, Discover(NODES[0]))) == []


def test_what_is_passed_on_is_not_compared_with_its_sender() -> None:
    relay = DeployedRelay(unix_time_at_zero=0)
    come(relay, 0)
    come(relay, 1)
    message = RelayData(NODES[4], NODES[1], "s", b"data")
    assert tell(relay, 0, message) == [(1, message)]
    ((to, error),) = tell(relay, 0, RelayData(NODES[0], NODES[4], "s", b"data"))
    assert to == 0
    assert isinstance(error, Error)


def test_nonsense_strangers_and_the_end_raise_nothing() -> None:
    relay = DeployedRelay(unix_time_at_zero=0)
    assert relay.handle(DataReceived(9, b"who?"), 0) == []
    come(relay, 0)
    ((_, error),) = said(relay.handle(DataReceived(0, b"{"), 0))
    assert isinstance(error, Error)
    assert len(relay.handle(StopRequested(), 0)) == 1
    assert relay.registered == 0
