"""Files of the pcap-ng format, as far as Wireshark needs it to show what a run sent (draft-ietf-opsawg-pcapng).

One section, one interface that carries bare IP packets, one block a packet, and at the end the names of the hosts.
"""

from collections.abc import Iterable
from struct import pack
from typing import BinaryIO, Final

from simulator.results.packets import IpAddress
from teale_proto.contract import Instant

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_NAMES: Final = 4
_PACKET: Final = 6

_BYTE_ORDER: Final = 0x1A2B3C4D
_LINKTYPE_RAW: Final = 101
"""Packets begin with the IP header; its version tells IPv4 from IPv6."""

_OPTION_NAME: Final = 2
_OPTION_RESOLUTION: Final = 9
_OPTION_APPLICATION: Final = 4
_RECORD_IPV4: Final = 1
_RECORD_IPV6: Final = 2


class PcapngWriter:
    """Writes packets to an open file, in the order in which they come. Raises OSError as the file does."""

    def __init__(self, file: BinaryIO, *, application: str) -> None:
        self._file = file
        options = _option(_OPTION_APPLICATION, application.encode()) + _option(0)
        # The length of the section is not known in advance: minus one.
        self._block(_SECTION, pack("<IHHq", _BYTE_ORDER, 1, 0, -1) + options)
        # Ten to the minus six: timestamps are microseconds, as the instants of a run are.
        options = _option(_OPTION_NAME, b"simulated internet") + _option(_OPTION_RESOLUTION, b"\x06") + _option(0)
        self._block(_INTERFACE, pack("<HHI", _LINKTYPE_RAW, 0, 0) + options)

    def packet(self, unix_time: Instant, data: bytes) -> None:
        """Append one packet, sent at `unix_time` in microseconds."""
        size = len(data)
        fields = pack("<IIIII", 0, unix_time >> 32, unix_time & 0xFFFFFFFF, size, size)
        self._block(_PACKET, fields + _padded(data))

    def names(self, names: Iterable[tuple[IpAddress, str]]) -> None:
        """Append what the addresses are called."""
        records = b""
        for address, name in names:
            # Names are ended by noughts, so none may be inside.
            value = address.packed + name.replace("\0", "").encode() + b"\0"
            records += _option(_RECORD_IPV4 if address.version == 4 else _RECORD_IPV6, value)
        self._block(_NAMES, records + _option(0))

    def _block(self, kind: int, body: bytes) -> None:
        size = pack("<I", 12 + len(body))
        self._file.write(pack("<I", kind) + size + body + size)


def _option(code: int, value: bytes = b"") -> bytes:
    return pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
