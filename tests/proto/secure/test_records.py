"""Records: messages of any size arrive whole and in order, or the channel is dead."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.errors import LocalError, PeerError
from teale_proto.secure.noise import Channel, Pattern
from teale_proto.secure.records import (
    CONTENT_MAX,
    LAST,
    MESSAGE_MAX,
    MORE,
    RECORD_MAX,
    TAG_BYTES,
    CipherState,
    RecordCipher,
)
from tests.proto.secure.pairs import channels

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=60)

SENDING, RECEIVING = b"s" * 32, b"r" * 32


def end(*, message_max: int = MESSAGE_MAX) -> Channel:
    """Return a channel whose other end is `CipherState(RECEIVING)`: a peer that may say what no channel would."""
    return Channel(
        sending_key=SENDING,
        receiving_key=RECEIVING,
        handshake_hash=bytes(32),
        protocol_name=Pattern.XX.protocol_name,
        message_max=message_max,
    )


def is_dead(channel: Channel, record: bytes) -> bool:
    """Return whether the channel refuses even a good record."""
    try:
        channel.open(record)
    except PeerError as error:
        return "closed after an error" in error.reason
    return False


def key(cipher: RecordCipher) -> bytes:
    assert isinstance(cipher, CipherState)
    return cipher._key


def text(size: int) -> bytes:
    return bytes(i * 31 % 251 for i in range(size % 251)) + bytes(251) * (size // 251)


@pytest.mark.parametrize(
    ("size", "records"),
    [
        (1, 1),
        (100, 1),
        (CONTENT_MAX - 1, 1),
        (CONTENT_MAX, 1),
        (CONTENT_MAX + 1, 2),
        (2 * CONTENT_MAX, 2),
        (2 * CONTENT_MAX + 1, 3),
        (2**20, 17),
    ],
)
def test_a_message_travels_in_as_few_records_as_can_be(size: int, records: int) -> None:
    here, there = channels()
    message = text(size)
    assert len(message) == size
    sealed = here.seal(message)
    assert len(sealed) == records
    assert all(len(record) <= RECORD_MAX for record in sealed)
    opened = [there.open(record) for record in sealed]
    assert opened == [None] * (records - 1) + [message]
    assert type(opened[-1]) is bytes


@EXAMPLES
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3 * CONTENT_MAX)), max_size=8))
def test_messages_of_both_directions_arrive_whole_and_in_order(script: list[tuple[bool, int]]) -> None:
    ends = channels(rekey_after=3)
    for forward, size in script:
        sender, receiver = ends if forward else reversed(ends)
        message = text(size)
        *early, last = [receiver.open(record) for record in sender.seal(message)]
        assert last == message
        assert not any(early)


def test_equal_messages_make_unequal_records() -> None:
    here, _ = channels()
    assert len({here.seal(b"the same")[0] for _ in range(50)}) == 50


# What an attacker does to records.


def test_a_replayed_record_is_refused() -> None:
    here, there = channels()
    (record,) = here.seal(b"once")
    assert there.open(record) == b"once"
    with pytest.raises(PeerError, match="replayed"):
        there.open(record)


def test_a_dropped_record_is_noticed_at_the_next() -> None:
    here, there = channels()
    here.seal(b"lost")
    with pytest.raises(PeerError, match="lost"):
        there.open(here.seal(b"next")[0])


def test_reordered_records_are_refused() -> None:
    here, there = channels()
    first, second = here.seal(b"one")[0], here.seal(b"two")[0]
    with pytest.raises(PeerError, match="out of order"):
        there.open(second)
    assert is_dead(there, first)


def test_a_record_is_not_accepted_by_its_own_sender() -> None:
    here, _ = channels()
    (record,) = here.seal(b"echo")
    with pytest.raises(PeerError):
        here.open(record)


def test_a_message_cannot_be_ended_early_by_dropping_its_tail() -> None:
    here, there = channels()
    first, *_ = here.seal(text(3 * CONTENT_MAX))
    assert there.open(first) is None
    with pytest.raises(PeerError):
        there.open(here.seal(b"another message")[0])


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17])
def test_a_record_too_short_to_say_anything_is_refused(size: int) -> None:
    _, there = channels()
    with pytest.raises(PeerError, match=f"record of {size} bytes"):
        there.open(bytes(size))


def test_a_record_too_long_is_refused_unread() -> None:
    _, there = channels()
    with pytest.raises(PeerError, match="record of 65536 bytes"):
        there.open(bytes(RECORD_MAX + 1))


@EXAMPLES
@given(data=st.data())
def test_a_tampered_record_is_refused(data: st.DataObject) -> None:
    here, there = channels()
    record = bytearray(here.seal(b"a message of some length")[0])
    record[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerError):
        there.open(bytes(record))


@EXAMPLES
@given(cut=st.integers(0, 39))
def test_a_truncated_record_is_refused(cut: int) -> None:
    here, there = channels()
    with pytest.raises(PeerError):
        there.open(here.seal(b"a message of some length")[0][:cut])


@EXAMPLES
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_any_bytes_are_refused_and_nothing_opens_after_them(nonsense: list[bytes]) -> None:
    here, there = channels()
    for record in nonsense:
        with pytest.raises(PeerError):
            there.open(record)
    assert is_dead(there, here.seal(b"good")[0])


def test_a_dead_channel_keeps_nothing_of_an_unfinished_message() -> None:
    here, there = channels()
    there.open(here.seal(text(2 * CONTENT_MAX))[0])
    with pytest.raises(PeerError):
        there.open(b"nonsense" * 10)
    assert there._parts == []


# What a genuine peer may say that no channel of ours would.


@pytest.mark.parametrize("flag", [b"\x02", b"\x7f", b"\xff", b"{"])
def test_an_unknown_flag_is_refused(flag: bytes) -> None:
    with pytest.raises(PeerError, match="unknown kind"):
        end().open(CipherState(RECEIVING).encrypt(flag + b"message"))


@pytest.mark.parametrize("flag", [LAST, MORE])
def test_an_empty_record_is_refused(flag: bytes) -> None:
    with pytest.raises(PeerError, match=f"record of {TAG_BYTES + 1} bytes"):
        end().open(CipherState(RECEIVING).encrypt(flag))


def test_a_message_in_crumbs_is_refused() -> None:
    with pytest.raises(PeerError, match="not full"):
        end().open(CipherState(RECEIVING).encrypt(MORE + bytes(CONTENT_MAX - 1)))


def test_a_message_that_never_ends_is_refused_at_the_limit() -> None:
    channel, peer = end(message_max=10 * CONTENT_MAX), CipherState(RECEIVING)
    for _ in range(10):
        assert channel.open(peer.encrypt(MORE + bytes(CONTENT_MAX))) is None
    with pytest.raises(PeerError, match=f"more than {10 * CONTENT_MAX} bytes"):
        channel.open(peer.encrypt(LAST + b"."))


@pytest.mark.parametrize("message_max", [1, 100, CONTENT_MAX, CONTENT_MAX + 1, 200_000])
def test_a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not(message_max: int) -> None:
    here, there = channels(message_max=message_max)
    message = text(message_max)
    assert [there.open(record) for record in here.seal(message)][-1] == message
    with pytest.raises(LocalError, match=f"1 to {message_max} are allowed"):
        here.seal(message + b".")
    here.message_max += 1
    with pytest.raises(PeerError, match=f"more than {message_max} bytes"):  # noqa: PT012 - which record, depends
        for record in here.seal(message + b"."):
            there.open(record)


def test_the_limit_counts_each_message_anew() -> None:
    here, there = channels(message_max=CONTENT_MAX + 10)
    for _ in range(5):
        first, second = here.seal(text(CONTENT_MAX + 10))
        assert there.open(first) is None
        assert there.open(second) == text(CONTENT_MAX + 10)


def test_an_empty_message_is_our_own_mistake_and_changes_nothing() -> None:
    here, there = channels()
    with pytest.raises(LocalError, match="message of 0 bytes"):
        here.seal(b"")
    assert there.open(here.seal(b"next")[0]) == b"next"


# New keys.


def test_both_sides_move_on_to_new_keys_after_as_many_records() -> None:
    here, there = channels(rekey_after=4)
    keys = set()
    for count in range(20):
        keys.add(key(here._sending))
        assert key(here._sending) == key(there._receiving)
        assert there.open(here.seal(b"%d" % count)[0]) == b"%d" % count
    assert len(keys) == 5


def test_the_two_directions_count_on_their_own() -> None:
    here, there = channels(rekey_after=2)
    back = key(there._sending)
    for count in range(5):
        assert there.open(here.seal(b"%d" % count)[0]) == b"%d" % count
    assert key(there._sending) == key(here._receiving) == back
    assert here.open(there.seal(b"answer")[0]) == b"answer"
    assert len({back, key(here._sending)}) == 2


def test_keys_change_in_the_middle_of_a_message() -> None:
    here, there = channels(rekey_after=2)
    message = text(7 * CONTENT_MAX)
    assert [there.open(record) for record in here.seal(message)] == [None] * 6 + [message]


def test_sides_that_disagree_about_new_keys_part_at_the_first() -> None:
    here, _ = channels(rekey_after=2)
    _, there = channels(rekey_after=3)
    for _ in range(2):
        there.open(here.seal(b"same key")[0])
    with pytest.raises(PeerError):
        there.open(here.seal(b"new key")[0])


def test_a_record_is_not_accepted_under_the_old_key() -> None:
    old = CipherState(SENDING, rekey_after=1)
    new = CipherState(SENDING, rekey_after=1)
    first = old.encrypt(b"first")
    assert new.decrypt(first) == b"first"
    unchanged = CipherState(SENDING)
    unchanged.encrypt(b"first")
    with pytest.raises(PeerError):
        new.decrypt(unchanged.encrypt(b"second, without a new key"))


# Secrets.


def test_a_channel_shows_and_gives_away_no_key() -> None:
    here, _ = channels()
    for secret in (key(here._sending), key(here._receiving)):
        for shown in (here, here._sending, here._receiving):
            assert secret.hex() not in repr(shown) + str(shown)
            assert repr(secret)[2:-1] not in repr(shown) + str(shown)
    with pytest.raises(TypeError, match="holds secrets"):
        copy.copy(here)
