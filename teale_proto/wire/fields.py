"""The types that message fields are made of: every string and list that a peer fills has a bound.

Field names are written in Python's style and become the wire's camelCase, with the spellings of the
deployed programs (`nodeID`, `totalRAMGB`, `memoryBandwidthGBs`). Dates on the wire are seconds since
2001-01-01T00:00:00Z; here they are made from microseconds of Unix time.
"""

from typing import Annotated, Final, TypeVar

from msgspec import Meta, field

from teale_proto.contract import SECOND, Value
from teale_proto.inputs import NodeId

T = TypeVar("T")

_CAPITALS: Final = {
    "id": "ID",
    "ids": "IDs",
    "ip": "IP",
    "ac": "AC",
    "ram": "RAM",
    "vram": "VRAM",
    "gb": "GB",
    "gbs": "GBs",
}

UNIX_TIME_OF_REFERENCE_DATE: Final = 978_307_200
"""Seconds of Unix time at 2001-01-01T00:00:00Z, the zero of dates on the wire."""


def wire_name(name: str) -> str:
    """Return the wire's spelling of a field name: `total_ram_gb` is `totalRAMGB`."""
    first, *rest = name.split("_")
    return first + "".join(_CAPITALS.get(word, word.capitalize()) for word in rest)


def wire_date(unix_time: int) -> float:
    """Return the wire's form of a Unix time in microseconds."""
    return unix_time / SECOND - UNIX_TIME_OF_REFERENCE_DATE


def written(default: T) -> T:
    """Give a field a default for reading that is written all the same: deployed programs insist on the key."""
    default_field: T = field(default_factory=lambda: default)
    return default_field


class Message(Value, rename=wire_name, omit_defaults=True):
    """Base of everything that is encoded: an immutable value whose fields have the wire's names."""


Id = Annotated[NodeId, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""A node id; anything but 64 lower-case hexadecimal characters is malformed."""

Hex = Annotated[str, Meta(pattern=r"\A(?:[0-9a-fA-F]{2})*\Z", max_length=256)]
Token = Annotated[str, Meta(min_length=1, max_length=128)]
"""An id that its sender made up: of a session, a request, a transfer."""

Label = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=4096)]
ModelId = Annotated[str, Meta(min_length=1, max_length=256)]
Models = Annotated[tuple[ModelId, ...], Meta(max_length=256)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Amount = Annotated[float, Meta(ge=0)]
