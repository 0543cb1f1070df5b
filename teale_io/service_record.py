"""A node's advertisement as a DNS-SD text record, and back: pure, since a neighbour's record can be anything.

    deviceID=<node id>   chip=<name>   ram=<gigabytes>   version=1   models=<names>   models1=<more names> …

A string of a text record holds 255 bytes (RFC 6763, section 6.1), so the list of models goes on in further keys.
Names are separated by commas; a comma in a name is percent-encoded.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote, unquote

from teale_proto.errors import PeerError
from teale_proto.inputs import NodeId, ServiceRecord

STRING_BYTES_MAX: Final = 255
MODEL_STRINGS_MAX: Final = 4
"""What does not fit is left out: a datagram has to hold it all, and nodes tell each other everything anyway."""

MODEL_CHARACTERS_MAX: Final = 128
CHIP_CHARACTERS_MAX: Final = 64
_HEX: Final = frozenset("0123456789abcdef")
_UNQUOTED: Final = "/:@+!$'()*;=&?[]~ "


def to_text(record: ServiceRecord) -> dict[bytes, bytes]:
    """Return the text record of an advertisement."""
    text = {
        "deviceID": record.node,
        "chip": record.chip[:CHIP_CHARACTERS_MAX],
        "ram": f"{record.ram_gb:g}",
        "version": str(record.version),
    }
    text |= {_models_key(number): names for number, names in enumerate(_model_strings(record.models))}
    return {key.encode(): value.encode() for key, value in text.items()}


def from_text(text: Mapping[bytes, bytes | None], port: int | None) -> ServiceRecord:
    """Return the advertisement that a text record holds; raises PeerError where it holds none."""
    node = _string(text, "deviceID")
    if len(node) != 64 or not _HEX.issuperset(node):
        raise PeerError("deviceID is not a node id")
    if port is None or not 0 < port < 65536:
        raise PeerError("no port")
    version = _string(text, "version", "1")
    if not (version.isascii() and version.isdecimal() and len(version) < 6):
        raise PeerError("version is not a number")
    return ServiceRecord(
        node=NodeId(node),
        port=port,
        models=tuple(dict.fromkeys(_models(text))),
        chip=_shown(_string(text, "chip"))[:CHIP_CHARACTERS_MAX],
        ram_gb=_amount(_string(text, "ram", "0")),
        version=int(version),
    )


def _model_strings(models: Sequence[str]) -> list[str]:
    strings = [""]
    for model in models:
        name = quote(model, safe=_UNQUOTED)
        if not model or len(model) > MODEL_CHARACTERS_MAX or len(name) > STRING_BYTES_MAX - len("models0="):
            continue
        longer = f"{strings[-1]},{name}" if strings[-1] else name
        if len(longer) <= STRING_BYTES_MAX - len("models0="):
            strings[-1] = longer
        elif len(strings) < MODEL_STRINGS_MAX:
            strings.append(name)
        else:
            break
    return strings


def _models(text: Mapping[bytes, bytes | None]) -> Iterator[str]:
    for number in range(MODEL_STRINGS_MAX):
        for name in _string(text, _models_key(number)).split(","):
            model = unquote(name.strip())
            if 0 < len(model) <= MODEL_CHARACTERS_MAX and model.isprintable():
                yield model


def _models_key(number: int) -> str:
    return f"models{number or ''}"


def _string(text: Mapping[bytes, bytes | None], key: str, default: str = "") -> str:
    value = text.get(key.encode())
    if value is None:
        return default
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise PeerError(f"{key} is not UTF-8") from None


def _amount(value: str) -> float:
    try:
        amount = float(value)
    except ValueError:
        raise PeerError("ram is not a number") from None
    if not (math.isfinite(amount) and 0 <= amount < 1e6):
        raise PeerError("ram is out of range")
    return amount


def _shown(value: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in value)
