"""What a lab tells its forwarder and what it is answered: msgpack, in a socket that keeps messages apart."""

from typing import TypeAlias

import msgspec

from simulator.net.link import Link
from simulator.net.regions import Regions
from teale_proto.contract import Value

MESSAGE_BYTES_MAX = 1 << 17


class Begin(Value, tag=True):
    """The first order: whose chance it is, and how far regions are from each other."""

    seed: int
    regions: Regions


class AddLine(Value, tag=True):
    """A line leads to the TUN device whose descriptor comes with this."""

    number: int
    name: str
    link: Link
    region: str
    addresses: tuple[str, ...]


class SetAddresses(Value, tag=True):
    """A line leads to other addresses from now on."""

    number: int
    addresses: tuple[str, ...]


class SetLink(Value, tag=True):
    """A line is another one from now on."""

    number: int
    link: Link


class SetPower(Value, tag=True):
    """Nothing passes a line from now on, or something does again."""

    number: int
    powered: bool


class SetBlocks(Value, tag=True):
    """Nothing passes from one line to another, for these pairs and no others."""

    pairs: tuple[tuple[int, int], ...]


class Count(Value, tag=True):
    """The counts are wanted."""


Order: TypeAlias = Begin | AddLine | SetAddresses | SetLink | SetPower | SetBlocks | Count


class Counts(Value):
    """What became of the packets between sites, and how late the forwarder's own hand was."""

    sent: int = 0
    """Packets that any site or server has sent to the wide area."""
    delivered: int = 0
    """Those that came down to a site or server, copies included."""
    lost: int = 0
    """Those that chance took."""
    overflowed: int = 0
    """Those that found a queue full."""
    too_large: int = 0
    blocked: int = 0
    """Those that a partition stopped."""
    expired: int = 0
    """Those that might not pass as many routers as lie between two sites."""
    unreachable: int = 0
    """Those for an address that nobody has, or for somebody whose power is gone."""
    corrupted: int = 0
    duplicated: int = 0
    late_median_us: int = 0
    """By how much packets left later than they should have: half of them by no more than this."""
    late_p99_us: int = 0
    cpu_us: int = 0
    """The processor time of the forwarder, its start included."""


encode_order = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
encode_counts = msgspec.msgpack.Encoder().encode
decode_counts = msgspec.msgpack.Decoder(Counts).decode
