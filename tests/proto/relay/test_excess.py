"""A client that is too fast: what it is told, what it loses, and when it is closed."""

from typing import Any

import pytest

from teale_proto.contract import SECOND
from teale_proto.effects import CloseConnection, ReportConnection, SendText
from teale_proto.inputs import DataReceived
from teale_proto.relay.limits import Flow, Rate, Traffic
from teale_proto.relay.server import RelayServerConfig
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import RELAY_CODEC, Discover, Error, RelayClose, RelayData, RelayOpen, RelayReady
from tests.proto.relay.relays import ALICE, BOB, CAROL, HOST, RawNode, Relay

JUNK = b'{"type":"hello?","payload":{}}'


def config(**changes: Any) -> RelayServerConfig:
    return RelayServerConfig(names=(HOST,), **changes)


def talking(relay: Relay, flavour: Flavour = Flavour.DOCUMENTED) -> tuple[RawNode, RawNode]:
    """Return two nodes with an open session `s`; the first has said three messages, the second too."""
    alice, bob = relay.node(ALICE, flavour), relay.node(BOB)
    alice.say(RelayOpen(ALICE.node_id, BOB.node_id, "s"))
    bob.say(RelayReady(BOB.node_id, ALICE.node_id, "s"))
    for node in (alice, bob):
        node.inbox.clear()
    return alice, bob


def data(size: int = 1) -> RelayData:
    return RelayData(ALICE.node_id, BOB.node_id, "s", bytes(size))


def client_messages(burst: int, **changes: Any) -> Relay:
    return Relay(config(client_traffic=Traffic(messages=Flow(1, burst=burst)), **changes))


def test_the_last_message_that_fits_passes_and_one_more_ends_its_session() -> None:
    alice, bob = talking(relay := client_messages(burst=5))
    alice.say(data())
    alice.say(data())
    assert bob.kinds() == ["relayData", "relayData"]
    alice.say(data())
    assert bob.last == RelayClose(ALICE.node_id, BOB.node_id, "s")
    assert alice.take() == [
        Error("rate_limited", "messages come too fast: the limit of one connection", 1.0, "s"),
    ]
    assert relay.server.metrics(relay.now).sessions == 0
    assert alice.closed is None


def test_a_deployed_node_is_told_of_the_end_of_its_session_in_its_own_words() -> None:
    alice, _ = talking(client_messages(burst=3), Flavour.DEPLOYED)
    for _ in range(2):
        alice.say(data())
    assert alice.kinds() == ["relayClose", "error"]


def test_a_session_is_cut_by_bytes_too_and_by_the_limit_of_an_address() -> None:
    few = Traffic(size_bytes=Flow(1 << 20, burst=1 << 20))
    for scope in ("client_traffic", "address_traffic", "total_traffic"):
        alice, bob = talking(Relay(config(**{scope: few})))
        alice.say(data(700_000))
        assert bob.kinds() == ["relayData"]
        alice.say(data(700_000))
        assert bob.kinds() == ["relayData", "relayClose"]
        assert alice.last.code == "rate_limited"
        assert 0 < alice.last.retry_after_seconds < 1


def test_one_who_is_too_fast_slows_nobody_else() -> None:
    relay = client_messages(burst=4)
    alice, _ = talking(relay)
    carol = relay.node(CAROL)
    for _ in range(100):
        alice.say_bytes(JUNK)
    carol.say(Discover(CAROL.node_id))
    assert carol.kinds() == ["discoverResponse"]


def test_who_waits_as_long_as_told_is_served() -> None:
    relay = client_messages(burst=3)
    alice = relay.node(ALICE)
    alice.say_bytes(JUNK)
    alice.say(Discover(ALICE.node_id))
    assert alice.last == Error("rate_limited", "messages come too fast: the limit of one connection", 1.0)
    relay.advance(SECOND - 1)
    alice.say(Discover(ALICE.node_id))
    assert alice.kinds() == ["error", "error"], "it knows already"
    relay.advance(1)
    alice.say(Discover(ALICE.node_id))
    assert alice.kinds()[-1] == "discoverResponse"


def test_it_is_told_once_a_second_and_not_for_every_message() -> None:
    relay = client_messages(burst=2)
    alice = relay.node(ALICE)
    for _ in range(1000):
        alice.say_bytes(JUNK)
    assert alice.kinds() == ["error"]


def test_ten_seconds_of_excess_are_forgiven_and_the_eleventh_is_not() -> None:
    relay = client_messages(burst=2, excesses=Rate(burst=10, interval=60 * SECOND))
    alice = relay.node(ALICE)
    for _ in range(10):
        for _ in range(50):
            alice.say_bytes(JUNK)
        relay.advance(SECOND)
    assert alice.closed is None
    for _ in range(2):
        alice.say_bytes(JUNK)
    assert alice.last == Error("rate_limited", "messages kept coming too fast", 60.0)
    assert alice.close_code == 1013
    assert relay.refusals == ["messages kept coming too fast"]


def test_nobody_is_closed_for_what_all_the_others_do() -> None:
    relay = Relay(config(total_traffic=Traffic(messages=Flow(1, burst=4))))
    alice, bob = relay.node(ALICE), relay.node(BOB)
    for _ in range(30):
        bob.say_bytes(JUNK)
        alice.say_bytes(JUNK)
        alice.say_bytes(JUNK)
        relay.advance(SECOND)
    assert alice.closed is None
    assert alice.last.message == "messages come too fast: the limit of this relay, for all together"


def test_pings_are_messages() -> None:
    relay = client_messages(burst=3)
    alice = relay.node(ALICE)
    alice.ping()
    assert alice.kinds() == []
    alice.ping()
    assert alice.kinds() == ["error"]
    for _ in range(20):
        relay.advance(SECOND)
        for _ in range(3):
            alice.ping()
    assert alice.closed == "messages kept coming too fast"


def test_a_stranger_has_limits_too() -> None:
    relay = client_messages(burst=1)
    stranger = RawNode(relay, ALICE)
    for _ in range(3):
        stranger.say_bytes(JUNK)
    assert [error.code for error in stranger.take() if isinstance(error, Error)] == [
        "unsupported_message",
        "rate_limited",
    ]


def test_to_register_on_another_connection_gains_nothing() -> None:
    relay = client_messages(burst=3)
    relay.node(ALICE).say_bytes(JUNK)
    again = relay.node(ALICE)
    again.say_bytes(JUNK)
    assert again.last.code == "rate_limited"


def test_an_address_has_so_many_connections_and_one_more_is_refused() -> None:
    relay = Relay(config(connections_per_address_max=2))
    first, second = RawNode(relay, ALICE, remote="192.0.2.9"), relay.node(BOB, remote="192.0.2.9")
    third = RawNode(relay, CAROL, remote="192.0.2.9")
    assert (third.closed, third.close_code) == ("too many connections from one address", 1013)
    assert relay.ended[-1] == ReportConnection(
        third.connection, "192.0.2.9", "", 0, 0, 0, "too many connections from one address"
    )
    elsewhere = RawNode(relay, CAROL, remote="192.0.2.10")
    second.hang_up()
    assert RawNode(relay, CAROL, remote="192.0.2.9").closed is None
    assert first.closed is elsewhere.closed is None


def test_a_customer_s_ipv6_addresses_are_one_address() -> None:
    relay = Relay(config(connections_per_address_max=1))
    assert RawNode(relay, ALICE, remote="2001:db8::1").closed is None
    assert RawNode(relay, BOB, remote="2001:db8::2").closed is not None
    assert RawNode(relay, CAROL, remote="2001:db8:0:1::2").closed is None


def test_a_connection_leaves_one_line_without_anything_secret() -> None:
    relay = Relay()
    alice, bob = talking(relay)
    alice.say(data(100))
    relay.advance(3 * SECOND)
    alice.hang_up()
    [ended] = relay.ended
    assert ended.remote == "198.51.100.7"
    assert ended.node == ALICE.node_id[:16]
    assert (ended.duration, ended.messages, ended.reason) == (3 * SECOND, 4, "reset")
    assert ended.size_bytes > 400
    bob.say_bytes(b" " * ((1 << 20) + 1))
    assert relay.ended[-1].reason == "message of 1048577 bytes where 1048576 are allowed"
    assert len(relay.ended) == 2


def test_the_counters_tell_of_it_all() -> None:
    relay = client_messages(burst=4)
    alice, _ = talking(relay)
    alice.say_bytes(b"nonsense")
    for _ in range(3):
        alice.say_bytes(JUNK)
    RawNode(relay, CAROL)
    counted = relay.server.metrics(relay.now)
    assert (counted.peers, counted.strangers, counted.sessions) == (2, 1, 1)
    assert (counted.connections, counted.registrations, counted.sessions_opened) == (3, 2, 1)
    assert dict(counted.excesses) == {"client": 3, "address": 0, "total": 0}
    assert dict(counted.errors) == {"invalid_json": 1, "rate_limited": 1}
    assert counted.messages == 7
    assert counted.size_bytes > 1000


@pytest.mark.parametrize("reopened", [False, True])
def test_signalling_goes_before_data_but_not_before_that_of_its_own_session(reopened: bool) -> None:
    relay = Relay()
    alice, bob = talking(relay)

    def sent(by: RawNode, message: Any) -> list[bool]:
        effects = relay.feed(DataReceived(by.connection, RELAY_CODEC.encode(message, by.flavour)))
        return [effect.bulk for effect in effects if isinstance(effect, SendText)]

    assert sent(alice, data()) == [True]
    session = "s" if reopened else "t"
    assert sent(alice, RelayOpen(ALICE.node_id, BOB.node_id, session)) == [reopened]
    assert sent(bob, RelayReady(BOB.node_id, ALICE.node_id, session)) == [reopened]
    assert sent(alice, RelayClose(ALICE.node_id, BOB.node_id, session)) == [True]
    assert sent(alice, data()) == [True], "that it has ended does not overtake its end"
    assert sent(alice, Discover(ALICE.node_id)) == [False]


def test_each_end_has_its_close_code() -> None:
    relay = Relay()
    relay.node(ALICE)
    former = relay.feed(DataReceived(RawNode(relay, BOB).connection, b" " * 20_000))
    assert [effect.code for effect in former if isinstance(effect, CloseConnection)] == [1008]
