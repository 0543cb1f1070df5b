"""What a deployed program must hear instead of what we would say, and what its answers mean.

The envelope is the codec's affair; this is about the contents. The Mac app reads only UUIDs where it expects the id
of a device or a request, both deployed programs read only the error codes that they know, and an answer comes to
them in pieces even where none was asked for.
"""

from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from teale_proto.wire.cluster import (
    ClusterMessage,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HelloAck,
    InferenceCancel,
    InferenceChunk,
    InferenceComplete,
    InferenceError,
    InferenceRequest,
)

ERROR_CODES: Final = frozenset(
    {"model_not_loaded", "queue_full", "unavailable", "internal_error", "timeout", "cancelled"}
)
"""Those of `inferenceError` that deployed programs know; any other makes the message unreadable to them."""

_OTHER_ERROR: Final = "internal_error"
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


class Translator:
    """The two directions of one conversation with a deployed program."""

    __slots__ = ("_requests",)

    def __init__(self) -> None:
        self._requests: dict[str, str] = {}
        """Our ids of the requests that it is answering, by the UUID that it knows them under."""

    def outgoing(self, message: ClusterMessage) -> ClusterMessage:
        """Return what to send in the place of `message`."""
        match message:
            case Hello() | HelloAck():
                return replace(message, device_info=replace(message.device_info, id=uuid_for(message.device_info.id)))
            case Heartbeat() | HeartbeatAck():
                return replace(message, device_id=uuid_for(message.device_id))
            case InferenceRequest(request_id=ours):
                theirs = uuid_for(ours)
                self._requests[theirs] = ours
                return replace(message, request_id=theirs)
            case InferenceCancel(request_id=ours):
                self._requests.pop(uuid_for(ours), None)
                return InferenceCancel(uuid_for(ours))
            case InferenceChunk():
                return replace(message, chunk=in_pieces(message.chunk))
            case InferenceError(code=code) if code not in ERROR_CODES:
                return replace(message, code=_OTHER_ERROR)
        return message

    def incoming(self, message: ClusterMessage) -> ClusterMessage:
        """Return what `message` would be if one of ours had sent it."""
        match message:
            case InferenceChunk():
                ours = self._requests.get(message.request_id.upper())
                return message if ours is None else replace(message, request_id=ours)
            case InferenceComplete() | InferenceError():
                ours = self._requests.pop(message.request_id.upper(), None)
                return message if ours is None else replace(message, request_id=ours)
        return message


def uuid_for(text: str) -> str:
    """Return a UUID that stands for `text`: version 8 of RFC 9562, section 5.8, in capitals as Swift writes them."""
    number = int.from_bytes(sha256(text.encode()).digest()[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    digits = f"{number:032X}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def in_pieces(answer: msgspec.Raw) -> msgspec.Raw:
    """Return a whole chat completion as the one chunk that says the same; whatever else it is stays as it is."""
    if b'"message"' not in bytes(answer):
        return answer
    try:
        members = _OBJECT.decode(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return answer
    choices = members.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) and "message" in choice for choice in choices):
        return answer
    members["object"] = "chat.completion.chunk"
    members["choices"] = [
        {("delta" if name == "message" else name): value for name, value in choice.items()} for choice in choices
    ]
    return msgspec.Raw(msgspec.json.encode(members))
