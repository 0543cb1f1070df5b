"""Messages to bytes and back, in the three flavours that exist in the wild.

    documented   {"type": "<kind>", "payload": {…}}
    deployed     {"<kind>": {…}}
    Swift        {"<kind>": {"_0": {…}}}

A codec is derived from a union of message types: the kind is the class name with a small first letter. The
flavour of what was read is returned with it, so that an answer can go out in the same one. Unknown kinds
become `Unknown` and are never an error.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final, Generic, TypeVar

import msgspec

from teale_proto.contract import Value
from teale_proto.errors import PeerError
from teale_proto.wire.fields import Message

M = TypeVar("M", bound=Message)

SIGNAL: Final = "signal"
"""The documented dialect's one kind for everything that two nodes tell each other to set up a path."""


class Flavour(Enum):
    """Which envelope a message came in."""

    DOCUMENTED = "documented"
    DEPLOYED = "deployed"
    SWIFT = "swift"


class Unknown(Value):
    """A well-formed message of a kind that this version does not know."""

    kind: str
    payload: bytes


def kind_of(message_type: type[Message]) -> str:
    """Return the wire's name of a message type: `RelayData` is `relayData`."""
    name = message_type.__name__
    return name[0].lower() + name[1:]


class Codec(Generic[M]):
    """The two directions for one union of messages.

    `documented_names` gives kinds that the documented dialect calls otherwise; messages in `signals` travel
    inside its `signal`.
    """

    __slots__ = ("_decoders", "_documented_names", "_encoder", "_kinds", "_signals")

    def __init__(
        self,
        messages: Iterable[type[M]],
        *,
        documented_names: Mapping[type[M], str] | None = None,
        signals: Iterable[type[M]] = (),
    ) -> None:
        self._encoder = msgspec.json.Encoder()
        self._kinds = {message: kind_of(message) for message in messages}
        self._signals = frozenset(signals)
        self._documented_names = self._kinds | dict(documented_names or {})
        self._decoders: dict[str, msgspec.json.Decoder[M]] = {}
        for message in self._kinds:
            decoder = msgspec.json.Decoder(message)
            self._decoders[self._kinds[message]] = decoder
            self._decoders[self._documented_names[message]] = decoder

    @property
    def kinds(self) -> Mapping[type[M], str]:
        """The kind of every message type of the union."""
        return self._kinds

    def encode(self, message: M, flavour: Flavour = Flavour.DOCUMENTED) -> bytes:
        """Return the message as JSON in the given flavour."""
        message_type = type(message)
        payload = self._encoder.encode(message)
        kind = self._kinds[message_type].encode()
        if flavour is Flavour.DEPLOYED:
            return b'{"%b":%b}' % (kind, payload)
        if flavour is Flavour.SWIFT:
            return b'{"%b":{"_0":%b}}' % (kind, payload)
        if message_type in self._signals:
            return b'{"type":"signal","payload":{"%b":%b}}' % (kind, payload)
        return b'{"type":"%b","payload":%b}' % (self._documented_names[message_type].encode(), payload)

    def decode(self, data: bytes) -> tuple[M | Unknown, Flavour]:
        """Return one message and its flavour.

        Raises PeerError for anything that is not a well-formed message. Where a JSON object repeats a key, the last one
        counts, so what is passed on to others must be encoded again, never copied.
        """
        try:
            return self._decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # msgspec's own text names the field but may quote the value's type only, never the value.
            detail = str(error) if isinstance(error, msgspec.ValidationError) else "not well-formed JSON"
            raise PeerError(f"malformed message: {detail}") from None

    def _decode(self, data: bytes) -> tuple[M | Unknown, Flavour]:
        if not data.isascii():
            # What stays Raw is not decoded here, and must not smuggle bytes that no other JSON parser takes.
            data.decode()
        fields = _FIELDS.decode(data)
        if "type" in fields and not _is_object(fields["type"]):
            kind, payload = _documented(fields)
            if kind == SIGNAL and self._signals:
                kind, payload = _only_field(_FIELDS.decode(payload))
            return self._decode_payload(kind, payload), Flavour.DOCUMENTED
        kind, payload = _only_field(fields)
        if _is_object(payload) and b'"_0"' in _head(payload):
            inner = _FIELDS.decode(payload)
            if inner.keys() == {"_0"}:
                return self._decode_payload(kind, inner["_0"]), Flavour.SWIFT
        return self._decode_payload(kind, payload), Flavour.DEPLOYED

    def _decode_payload(self, kind: str, payload: msgspec.Raw) -> M | Unknown:
        decoder = self._decoders.get(kind)
        if decoder is None:
            return Unknown(kind[:64], bytes(payload))
        return decoder.decode(payload)


_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_EMPTY: Final = msgspec.Raw(b"{}")


def _head(value: msgspec.Raw) -> bytes:
    # A payload may be a mebibyte, so it is not copied to look at its beginning.
    return bytes(memoryview(value)[:32])


def _is_object(value: msgspec.Raw) -> bool:
    return _head(value).startswith(b"{")


def _documented(fields: Mapping[str, msgspec.Raw]) -> tuple[str, msgspec.Raw]:
    if not fields.keys() <= {"type", "payload"}:
        raise PeerError("malformed message: other top-level keys than type and payload")
    return _TEXT.decode(fields["type"]), fields.get("payload", _EMPTY)


def _only_field(fields: Mapping[str, msgspec.Raw]) -> tuple[str, msgspec.Raw]:
    if len(fields) != 1:
        raise PeerError(f"malformed message: {len(fields)} top-level keys where one is expected")
    return next(iter(fields.items()))
