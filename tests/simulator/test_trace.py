"""The record of a run."""

import msgspec

from simulator.trace import Entry, Trace, line, lines
from teale_proto.effects import SendData
from teale_proto.inputs import WAKE, DataReceived


def digest_of(*entries: Entry) -> str:
    trace = Trace()
    for entry in entries:
        trace.record(entry.at, entry.host, entry.value)
    return trace.digest


FIRST = Entry(1, "alice", WAKE)
SECOND = Entry(2, "bob", SendData(1, b"data"))


def test_the_digest_covers_every_part_of_every_entry_and_their_order() -> None:
    digests = [
        digest_of(FIRST, SECOND),
        digest_of(SECOND, FIRST),
        digest_of(FIRST),
        digest_of(FIRST, Entry(3, "bob", SendData(1, b"data"))),
        digest_of(FIRST, Entry(2, "eve", SendData(1, b"data"))),
        digest_of(FIRST, Entry(2, "bob", SendData(1, b"dato"))),
        digest_of(FIRST, Entry(2, "bob", DataReceived(1, b"data"))),
    ]
    assert len(set(digests)) == len(digests)
    assert digest_of(FIRST, SECOND) == digests[0]


def test_the_digest_covers_a_payload_to_its_last_byte() -> None:
    one, other = bytes(100_000), bytes(99_999) + b"\x01"
    assert digest_of(Entry(1, "a", SendData(1, one))) != digest_of(Entry(1, "a", SendData(1, other)))


def test_only_the_tail_is_kept_and_forgetting_does_not_change_the_digest() -> None:
    short, long = Trace(tail=2), Trace(tail=100)
    for at in range(10):
        short.record(at, "alice", WAKE)
        long.record(at, "alice", WAKE)
    assert [entry.at for entry in short.tail] == [8, 9]
    assert short.count == long.count == 10
    assert short.digest == long.digest


def test_subscribers_get_every_later_entry() -> None:
    trace, seen = Trace(tail=0), list[Entry]()
    trace.record(1, "alice", WAKE)
    trace.subscribe(seen.append)
    trace.record(2, "bob", SendData(1, b"data"))
    assert seen == [SECOND]


def test_a_subscriber_to_some_kinds_hears_of_no_others() -> None:
    trace, some, all_of_them = Trace(tail=0), list[Entry](), list[Entry]()
    trace.subscribe(some.append, [SendData])
    trace.record(1, "alice", WAKE)
    trace.subscribe(all_of_them.append)
    for entry in (FIRST, SECOND):
        trace.record(entry.at, entry.host, entry.value)
    assert some == [SECOND]
    assert all_of_them == [FIRST, SECOND]


def test_the_digest_does_not_depend_on_when_it_is_asked_for() -> None:
    asked, not_asked = Trace(), Trace()
    for at in range(2_000):
        asked.record(at, "alice", SendData(1, bytes(50)))
        not_asked.record(at, "alice", SendData(1, bytes(50)))
        if at % 300 == 0:
            assert asked.digest == asked.digest
    assert asked.digest == not_asked.digest


def test_a_summary_names_the_fields_and_shortens_payloads() -> None:
    assert SECOND.summary == "connection=1, data=b'data', bulk=False"
    assert (
        Entry(1, "a", SendData(1, b"x" * 1000)).summary == f"connection=1, data=b'{'x' * 24}'… 1000 bytes, bulk=False"
    )


def test_an_entry_becomes_a_line_of_json_and_of_text() -> None:
    assert msgspec.json.decode(line(SECOND)) == {
        "at": 2,
        "host": "bob",
        "kind": "SendData",
        "summary": "connection=1, data=b'data', bulk=False",
    }
    assert line(SECOND).endswith(b"\n")
    assert (
        lines([FIRST, SECOND]).splitlines()[1]
        == "    0.000002  bob        SendData(connection=1, data=b'data', bulk=False)"
    )
