"""Captures, parsed back by a reader that shares nothing with the writer."""

from io import BytesIO
from random import Random

import pytest

from simulator.results.capture import Capture
from simulator.results.packets import checksum, websocket
from teale_proto.inputs import Address
from tests.simulator.results.captures import blocks, ones_sum, packets

CLIENT, SERVER = Address("198.51.100.7", 50_000), Address("203.0.113.1", 443)
CLIENT6, SERVER6 = Address("2001:db8::7", 50_000), Address("2001:db8::1", 443)
SYN, SYN_ACK, ACK, PUSH = 0x02, 0x12, 0x10, 0x18


def opened(client: Address = CLIENT, server: Address = SERVER, *, host: str = "") -> tuple[BytesIO, Capture]:
    file = BytesIO()
    capture = Capture(file, unix_time_at_zero=1_000_000_000_000_000)
    capture.open(5, 9, client, server, websocket_host=host)
    return file, capture


@pytest.mark.parametrize(("client", "server"), [(CLIENT, SERVER), (CLIENT6, SERVER6)])
def test_a_stream_begins_with_a_handshake_and_its_numbers_run_on(client: Address, server: Address) -> None:
    file, capture = opened(client, server)
    capture.stream(7, 9, from_client=True, data=b"a" * 3000)
    capture.stream(8, 9, from_client=False, data=b"bcd")
    capture.stream(9, 9, from_client=True, data=b"e")
    seen = packets(file.getvalue())
    assert [(each.flags, each.sequence, each.acknowledged, len(each.data)) for each in seen] == [
        (SYN, 0, 0, 0),
        (SYN_ACK, 0, 1, 0),
        (ACK, 1, 1, 0),
        (ACK, 1, 1, 1440),
        (ACK, 1441, 1, 1440),
        (PUSH, 2881, 1, 120),
        (PUSH, 1, 3001, 3),
        (PUSH, 3001, 4, 1),
    ]
    ends = (client.host, client.port), (server.host, server.port)
    assert [(each.source, each.target) == ends for each in seen] == [True, False, True, True, True, True, False, True]
    assert [each.at for each in seen[2:]] == [10**15 + at for at in (5, 7, 7, 7, 8, 9)]


def test_sequence_numbers_go_on_at_nought_after_four_gibibytes() -> None:
    file, capture = opened()
    capture._flows[9].sent[CLIENT] = 2**32 - 2
    capture.stream(6, 9, from_client=True, data=b"abc")
    capture.stream(7, 9, from_client=True, data=b"d")
    assert [each.sequence for each in packets(file.getvalue())[-2:]] == [2**32 - 2, 1]


def test_a_websocket_is_upgraded_and_its_messages_are_framed() -> None:
    file, capture = opened(host="relay.example")
    capture.message(7, 9, from_client=True, data=b'{"hello":1}')
    capture.message(8, 9, from_client=False, data=b"\x01\x02")
    seen = [each.data for each in packets(file.getvalue()) if each.data]
    assert seen[0].startswith(b"GET /ws HTTP/1.1\r\nHost: relay.example\r\n")
    assert seen[1].startswith(b"HTTP/1.1 101 ")
    assert seen[2] == b"\x81\x8b\0\0\0\0" + b'{"hello":1}'
    assert seen[3] == b"\x82\x02\x01\x02"


@pytest.mark.parametrize(
    ("size", "header"), [(0, "8200"), (125, "827d"), (126, "827e007e"), (65536, "827f0000000000010000")]
)
def test_frames_carry_their_length_as_rfc_6455_says(size: int, header: str) -> None:
    assert websocket(bytes(size), masked=False, text=False) == bytes.fromhex(header) + bytes(size)


@pytest.mark.parametrize(("source", "target"), [(CLIENT, SERVER), (CLIENT6, SERVER6)])
def test_a_datagram_is_one_packet(source: Address, target: Address) -> None:
    file = BytesIO()
    Capture(file, unix_time_at_zero=0).datagram(3, source, target, b"ping!")
    (seen,) = packets(file.getvalue())
    assert (seen.at, seen.protocol, seen.data) == (3, 17, b"ping!")
    assert (seen.source, seen.target) == ((source.host, source.port), (target.host, target.port))


@pytest.mark.parametrize(
    ("source", "target", "size"),
    [(Address("nowhere", 1), SERVER, 1), (CLIENT, SERVER6, 1), (CLIENT, SERVER, 65_508)],
)
def test_what_no_packet_can_hold_is_left_out_and_counted(source: Address, target: Address, size: int) -> None:
    file = BytesIO()
    capture = Capture(file, unix_time_at_zero=0)
    capture.datagram(0, source, target, bytes(size))
    assert packets(file.getvalue()) == []
    assert capture.skipped == 1


def test_a_connection_without_addresses_is_left_out_and_counted() -> None:
    file, capture = opened(Address("", 1), Address("", 2))
    capture.stream(6, 9, from_client=True, data=b"a")
    assert packets(file.getvalue()) == []
    assert capture.skipped == 1


def test_only_so_many_connections_are_remembered_and_a_forgotten_one_begins_anew() -> None:
    file = BytesIO()
    capture = Capture(file, unix_time_at_zero=0, flows_max=2)
    for connection in range(3):
        capture.open(0, connection, CLIENT, SERVER)
    assert [capture.knows(connection) for connection in range(3)] == [False, True, True]


def test_a_file_begins_with_section_and_interface_and_ends_with_the_names() -> None:
    file, capture = opened()
    capture.finish([("198.51.100.7", "ali\0ce"), ("2001:db8::1", "server"), ("not an address", "x")])
    found = blocks(file.getvalue())
    assert [kind for kind, _ in found] == [0x0A0D0D0A, 1, 6, 6, 6, 4]
    assert found[0][1][:4] == b"\x4d\x3c\x2b\x1a"
    assert found[1][1][:2] == (101).to_bytes(2, "little")
    assert b"\xc6\x33\x64\x07alice\0" in found[-1][1]
    assert b"not an address" not in found[-1][1]


def test_the_checksum_is_that_of_rfc_1071_for_any_bytes() -> None:
    rng = Random(1)
    samples = [b"", b"\0\0", b"\xff\xff", b"\xff\xff\0\0", *(rng.randbytes(size) for size in range(1, 200))]
    for data in samples:
        assert checksum(data) == 0xFFFF - ones_sum(data), data
