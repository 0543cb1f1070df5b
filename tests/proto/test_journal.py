"""Journals: what goes in comes out again, and nothing that is read can do harm."""

import io
from collections.abc import Sequence
from random import Random
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.contract import NEVER, SECOND, Instant, Value
from teale_proto.door import Join
from teale_proto.effects import Connect, SendData, SendText, WebSocketUrl
from teale_proto.errors import LocalError
from teale_proto.inputs import (
    WAKE,
    Address,
    Ask,
    CancelAsk,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionOpened,
    DatagramReceived,
    DataReceived,
    DrainRequested,
    Failure,
    GenerationChunk,
    GenerationFailed,
    GenerationFinished,
    LoadedModelsChanged,
    MessagesReceived,
    NetworkChanged,
    NodeInput,
    PeerWanted,
    PingReceived,
    PongReceived,
    PortMapFailed,
    PortMapped,
    RelayInput,
    ServiceFound,
    ServiceLost,
    ServiceRecord,
    SocketsOpened,
    Started,
    StopRequested,
    Task,
)
from teale_proto.journal import (
    LENGTH_BYTES,
    MAGIC,
    RECORD_BYTES_MAX,
    Ended,
    Ending,
    Fed,
    Header,
    JournalError,
    NodeMade,
    Recording,
    RecordingRng,
    RelayMade,
    ReplayingRng,
    beginning,
    digest_of,
    ending,
    is_journal,
    records,
)
from teale_proto.node_config import NodeConfig
from teale_proto.relay.limits import Flow, RelayServerConfig, Traffic
from teale_proto.secure.passcode import Passcode
from teale_proto.wire.relay import Hardware
from tests.proto.world import identity

V4, V6 = Address("192.0.2.1", 1), Address("2001:db8::1", 65_535)
RECORD = ServiceRecord(identity(2).node_id, 11_436, ("m", "n"), "M4 ünï", 64.5)
EXAMPLES: Sequence[Value] = (
    WAKE,
    Started(None),
    Started(11_436),
    ConnectionAccepted(2, V4, V6, "relay.test"),
    ConnectionAccepted(2**53, V4, V6, direct=True),
    ConnectionOpened(1),
    ConnectFailed(3, "connection refused — «nobody»"),
    DataReceived(4, bytes(range(256)) * 300),
    DataReceived(4, b""),
    MessagesReceived(4, (b"one", b"", b"\xff" * 70_000)),
    MessagesReceived(4, ()),
    PingReceived(1),
    PongReceived(1),
    ConnectionClosed(1, ""),
    NetworkChanged((V4, V6), (V4,), Address("192.0.2.254", 5351)),
    NetworkChanged(()),
    DatagramReceived(V4, V6, b"\0" * 1200),
    SocketsOpened(7, (1, 2, 65_535)),
    PortMapped(1, V4, 3600 * SECOND),
    PortMapFailed(1, "the gateway refuses"),
    ServiceFound("alice._teale._tcp", RECORD, (V4, V6)),
    ServiceLost("alice._teale._tcp"),
    PeerWanted(identity(3).node_id, (V4,)),
    Ask("r", Task.CHAT, "m", b'{"model":"m"}', streaming=False, timeout=5 * SECOND),
    Ask("", Task.EMBEDDING, "", b""),
    CancelAsk("r"),
    LoadedModelsChanged(("m",)),
    GenerationChunk(1, b"{}"),
    GenerationFinished(1, 3, 2**40),
    GenerationFailed(1, Failure.MODEL_NOT_LOADED, "there is none"),
    StopRequested(),
    DrainRequested(10 * SECOND),
)
NODE = Header("alice", "0.1.0", 1_700_000_000 * SECOND, NodeMade(NodeConfig("alice"), identity(1)))
RELAY = Header("relay", "0.1.0", 1_700_000_000 * SECOND, RelayMade(RelayServerConfig(names=("relay.test",))))


class Kept:
    """A journal in memory."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_open = True
        self.gave_up = ""

    def write(self, record: bytes | bytearray) -> None:
        self.data += record

    def give_up(self, why: str) -> None:
        self.is_open, self.gave_up = False, why

    def records(self) -> list[Header | Fed | Ended]:
        return list(records(io.BytesIO(self.data).read))

    def fed(self) -> list[Fed]:
        return [record for record in self.records() if isinstance(record, Fed)]


class Puppet:
    """A core that answers what it is told to, and draws what it is told to."""

    def __init__(self, rng: RecordingRng) -> None:
        self.deadline: Instant = NEVER
        self.answer: Sequence[Value] = ()
        self.raises: Exception | None = None
        self.draws: Sequence[tuple[str, Any]] = ()
        self._rng = rng

    def handle(self, event: Value, now: Instant) -> Sequence[Value]:
        for name, argument in self.draws:
            getattr(self._rng, name)(*argument)
        if self.raises is not None:
            raise self.raises
        return self.answer


def recording(header: Header = NODE, seed: int = 1) -> tuple[Puppet, Recording[Value, Value], Kept]:
    """Return a puppet, the same recorded, and its journal."""
    rng, kept = RecordingRng(Random(seed)), Kept()
    puppet = Puppet(rng)
    return puppet, Recording(puppet, rng, header, kept), kept


# What goes in comes out.


@pytest.mark.parametrize(("header", "union"), [(NODE, NodeInput), (RELAY, RelayInput)], ids=["node", "relay"])
def test_every_input_that_there_is_comes_out_as_it_went_in(header: Header, union: Any) -> None:
    of_this_core = [each for each in EXAMPLES if isinstance(each, union)]
    assert {type(each) for each in of_this_core} == set(get_args(union))
    _, core, kept = recording(header)
    for at, event in enumerate(of_this_core):
        core.handle(event, at)
    assert kept.fed() == [Fed(at, event, (), b"", "") for at, event in enumerate(of_this_core)]
    assert [type(fed.event) for fed in kept.fed()] == [type(each) for each in of_this_core]


@pytest.mark.parametrize(
    "made",
    [
        NodeMade(NodeConfig("alice"), identity(1)),
        NodeMade(
            NodeConfig(
                "ålice",
                Hardware(chip_name="M4", total_ram_gb=64.0, gpu_backend="metal"),
                lan_join=Join.PASSCODE,
                lan_passcode=Passcode("correct horse"),
                wan_join=Join.PAIRED,
                trusted_nodes=(identity(2).node_id,),
                wan_relay_url="wss://relay.test/ws",
                fast_aes=True,
            ),
            identity(1),
        ),
        RelayMade(RelayServerConfig()),
        RelayMade(RelayServerConfig(names=("a", "b"), total_traffic=Traffic(Flow(1, 2)), client_traffic=Traffic())),
    ],
    ids=["plain node", "node with everything", "plain relay", "relay with everything"],
)
def test_what_a_core_was_made_with_is_in_the_header(made: NodeMade | RelayMade) -> None:
    header = Header("host", "1.2.3", -5, made, (0.5, 7, b"seven", (2, 0, 1)), "noise")
    (read,) = records(io.BytesIO(beginning(header)).read)
    assert isinstance(read, Header)
    assert (read.host, read.version, read.unix_time_at_zero, read.draws, read.suite) == (
        *("host", "1.2.3", -5),
        *((0.5, 7, b"seven", (2, 0, 1)), "noise"),
    )
    assert type(read.made) is type(made)
    if isinstance(made, NodeMade):
        assert isinstance(read.made, NodeMade)
        assert read.made.identity.seed == made.identity.seed
        ours, theirs = made.config, read.made.config
        assert (theirs.lan_passcode and theirs.lan_passcode.octets) == (ours.lan_passcode and ours.lan_passcode.octets)
        assert msgspec.structs.replace(theirs, lan_passcode=None) == msgspec.structs.replace(ours, lan_passcode=None)
    else:
        assert isinstance(read.made, RelayMade)
        names = tuple(made.config.names)
        assert tuple(read.made.config.names) == names
        assert msgspec.structs.replace(read.made.config, names=names) == made.config


def test_secrets_are_in_the_file_and_in_no_text_about_it() -> None:
    passcode = Passcode("correct horse")
    header = Header("a", "1", 0, NodeMade(NodeConfig("a", lan_passcode=passcode), identity(1)))
    assert identity(1).seed in beginning(header)
    assert b"correct horse" in beginning(header)
    assert "correct" not in repr(header)
    assert identity(1).seed.hex() not in repr(header)
    assert repr(identity(1).seed) not in repr(header)


def test_a_step_has_its_instant_its_draws_and_the_digest_of_its_effects() -> None:
    puppet, core, kept = recording()
    puppet.answer = [SendData(1, b"x")]
    puppet.draws = [("random", ()), ("randrange", (10,)), ("randbytes", (8,)), ("sample", ("abcd", 3))]
    assert core.handle(PongReceived(1), 5) == [SendData(1, b"x")]
    puppet.draws = []
    core.handle(PongReceived(1), 6)
    same = Random(1)
    draws = (same.random(), same.randrange(10), same.randbytes(8), tuple(same.sample(range(4), 3)))
    digest = digest_of([SendData(1, b"x")])
    assert kept.fed() == [Fed(5, PongReceived(1), draws, digest, ""), Fed(6, PongReceived(1), (), digest, "")]


def test_what_is_drawn_while_the_core_is_made_is_in_the_header() -> None:
    rng, kept = RecordingRng(Random(1)), Kept()
    drawn = rng.randbytes(8)
    Recording(Puppet(rng), rng, NODE, kept)
    (header,) = kept.records()
    assert isinstance(header, Header)
    assert header.draws == (drawn,)


@pytest.mark.parametrize("error", [LocalError("not now"), ZeroDivisionError("a bug")])
def test_what_the_core_raises_is_recorded_and_raised(error: Exception) -> None:
    puppet, core, kept = recording()
    puppet.raises = error
    with pytest.raises(type(error)):
        core.handle(WAKE, 1)
    assert kept.fed() == [Fed(1, WAKE, (), b"", type(error).__name__)]


def test_the_deadline_is_that_of_the_core() -> None:
    puppet, core, _ = recording()
    puppet.deadline = 77
    assert core.deadline == 77


def test_a_journal_that_ended_says_why_and_nothing_after_it_counts() -> None:
    kept = Kept()
    kept.write(beginning(NODE) + ending(Ending.FULL) + b"whatever")
    assert kept.records()[1:] == [Ended(Ending.FULL)]


def test_digests_tell_effects_their_order_and_their_types_apart() -> None:
    effects: list[list[Value]] = [
        [SendData(1, b"a")],
        [SendText(1, b"a")],
        [SendData(1, b"b")],
        [SendData(1, b"a", bulk=True)],
        [SendData(1, b"a"), SendText(1, b"a")],
        [SendText(1, b"a"), SendData(1, b"a")],
        [Connect(1, V4)],
        [Connect(1, WebSocketUrl("ws://a"))],
    ]
    assert len({digest_of(each) for each in effects}) == len(effects)
    assert digest_of([]) == b""


# What cannot be written ends the journal, and not the program.


def test_a_text_that_is_not_unicode_ends_the_journal_and_the_core_goes_on() -> None:
    puppet, core, kept = recording()
    puppet.answer = [SendData(1, b"x")]
    assert core.handle(ConnectionClosed(1, "\udcff"), 1) == [SendData(1, b"x")]
    assert kept.gave_up == "ConnectionClosed cannot be written: UnicodeEncodeError"
    assert core.handle(WAKE, 2) == [SendData(1, b"x")]
    assert kept.fed() == []


def test_an_input_that_is_too_large_ends_the_journal() -> None:
    _, core, kept = recording()
    core.handle(DataReceived(1, bytes(RECORD_BYTES_MAX)), 1)
    assert kept.gave_up.startswith("DataReceived has 67")
    assert kept.fed() == []


def test_what_is_drawn_after_the_end_of_the_journal_is_not_kept() -> None:
    rng, kept = RecordingRng(Random(1)), Kept()
    puppet = Puppet(rng)
    core: Recording[Value, Value] = Recording(puppet, rng, NODE, kept)
    kept.is_open = False
    puppet.draws = [("random", ())] * 100
    core.handle(WAKE, 1)
    assert rng.taken() == []


# Entropy comes again.


def drawn_again(*draws: Any) -> ReplayingRng:
    return ReplayingRng(draws, otherwise=Random(9))


def test_draws_come_again_in_their_order() -> None:
    rng = drawn_again(0.25, 3, b"12345678", (2, 0))
    assert rng.random() == 0.25
    assert rng.randrange(4) == 3
    assert rng.randbytes(8) == b"12345678"
    assert rng.sample("abc", 2) == ["c", "a"]
    rng.load(())
    assert rng.differences == []


@pytest.mark.parametrize(
    ("draws", "call", "difference"),
    [
        ((), lambda rng: rng.random(), "random() was not drawn at this point"),
        ((1,), lambda rng: rng.random(), "random() was not drawn at this point"),
        ((0.5,), lambda rng: rng.randrange(4), "randrange(4) was not drawn at this point"),
        ((4,), lambda rng: rng.randrange(4), "randrange(4) was not drawn at this point"),
        ((b"abc",), lambda rng: rng.randbytes(4), "randbytes(4) was not drawn at this point"),
        (((0, 3),), lambda rng: rng.sample("abc", 2), "sample of 2 of 3 was not drawn at this point"),
        (((0,),), lambda rng: rng.sample("abc", 2), "sample of 2 of 3 was not drawn at this point"),
    ],
)
def test_another_draw_than_then_is_a_difference_and_still_a_draw(draws: Any, call: Any, difference: str) -> None:
    rng = drawn_again(*draws)
    assert call(rng) == call(Random(9))
    assert rng.differences == [difference]


def test_draws_that_are_not_made_again_are_a_difference() -> None:
    rng = drawn_again(0.25, 3)
    rng.random()
    rng.load((b"x",))
    assert rng.differences == ["1 of 2 draws were not made again"]
    assert rng.randbytes(1) == b"x"


# Whatever is read.


def some_journal() -> bytes:
    _, core, kept = recording()
    for at, event in enumerate(EXAMPLES):
        if isinstance(event, NodeInput) and len(repr(event)) < 300:
            core.handle(event, at)
    return bytes(kept.data) + ending(Ending.STOPPED)


SOME = some_journal()


def test_a_journal_that_is_cut_anywhere_is_read_up_to_there() -> None:
    whole = list(records(io.BytesIO(SOME).read))
    begun = len(beginning(NODE))
    counts = []
    for size in range(begun, len(SOME)):
        found = list(records(io.BytesIO(SOME[:size]).read))
        assert found[1:] == whole[1 : len(found)]
        counts.append(len(found))
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, len(whole) - 1)


def test_a_journal_that_is_cut_before_it_began_is_none() -> None:
    for size in range(len(beginning(NODE))):
        with pytest.raises(JournalError):
            list(records(io.BytesIO(SOME[:size]).read))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.integers(0, len(SOME) - 1), st.binary(max_size=40), st.booleans())
def test_any_bytes_are_records_or_a_journal_error(place: int, noise: bytes, replaces: bool) -> None:
    data = SOME[:place] + noise + SOME[place + (len(noise) if replaces else 0) :]
    try:
        found = list(records(io.BytesIO(data).read))
    except JournalError:
        return
    assert isinstance(found[0], Header)
    assert all(isinstance(each.event, NodeInput) for each in found if isinstance(each, Fed))


def with_record(encoded: bytes, header: Header = NODE) -> io.BytesIO:
    return io.BytesIO(beginning(header) + len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded)


def test_an_input_that_is_not_of_such_a_core_is_an_error() -> None:
    step = msgspec.msgpack.encode(("step", 1, "Started", Started(1), (), b"", ""))
    assert len(list(records(with_record(step).read))) == 2
    with pytest.raises(JournalError, match="record 1 is damaged: 'Started' is no input of such a core"):
        list(records(with_record(step, RELAY).read))


def test_a_record_that_claims_too_much_is_not_fetched() -> None:
    data = io.BytesIO(beginning(NODE) + (RECORD_BYTES_MAX + 1).to_bytes(LENGTH_BYTES, "big") + bytes(100))
    with pytest.raises(JournalError, match="at most 67108864 are allowed"):
        list(records(data.read))


@pytest.mark.parametrize("passcode", [5, "short"])
def test_a_header_with_a_secret_that_is_none_is_an_error(passcode: object) -> None:
    made = {"type": "node", "config": {"display_name": "a", "lan_passcode": passcode}, "identity": bytes(32)}
    encoded = msgspec.msgpack.encode(("header", "a", "1", 0, made))
    with pytest.raises(JournalError, match="its header is damaged"):
        list(records(io.BytesIO(MAGIC + len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded).read))


def test_a_header_with_an_identity_that_is_none_is_an_error() -> None:
    for seed in (b"short", "text"):
        made = {"type": "node", "config": {"display_name": "a"}, "identity": seed}
        encoded = msgspec.msgpack.encode(("header", "a", "1", 0, made))
        with pytest.raises(JournalError, match="its header is damaged"):
            list(records(io.BytesIO(MAGIC + len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded).read))


def test_a_journal_is_known_by_how_it_begins() -> None:
    assert is_journal(SOME)
    assert not is_journal(b'{"format": 1}')
    assert not is_journal(SOME[: len(MAGIC) - 1])


def test_what_has_no_place_in_a_journal_is_no_part_of_its_header() -> None:
    made = RelayMade(msgspec.structs.replace(RelayServerConfig(), names=(object(),)))
    with pytest.raises(TypeError, match="object has no place in a journal"):
        beginning(Header("a", "1", 0, made))
