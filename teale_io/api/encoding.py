"""From values to JSON under their own field names, and from strangers' JSON to objects or a `PeerError`."""

from typing import Any

import msgspec

from teale_proto.contract import Value
from teale_proto.errors import PeerError


def encode(document: object) -> bytes:
    """Return JSON on one line; enums by their values, field names as they are declared."""
    return msgspec.json.encode(plain(document))


def plain(document: object) -> object:
    """Return `document` with every value in it as a dict under its fields' own names.

    Wire messages among the values would otherwise be encoded under the wire's names.
    """
    if isinstance(document, Value):
        return {name: plain(getattr(document, name)) for name in document.__struct_fields__}
    if isinstance(document, dict):
        return {name: plain(inner) for name, inner in document.items()}
    if isinstance(document, list | tuple):
        return [plain(inner) for inner in document]
    return document


def encode_object(members: dict[str, Any]) -> bytes:
    """Return JSON on one line for an object made of what `decode_object` returned; raise PeerError if it cannot be."""
    try:
        return msgspec.json.encode(members)
    except RecursionError as error:
        raise PeerError("the serving node sent JSON that is nested too deeply") from error


def decode_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that a serving node sent; raise PeerError when it is anything else."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError("the serving node sent malformed JSON") from error
    if not isinstance(document, dict):
        raise PeerError("the serving node sent something other than a JSON object")
    return document
