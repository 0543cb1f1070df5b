"""The short way through the relay: data of open sessions is passed on as it came, neither decoded nor encoded.

A message may go this way only if the codec would write it again byte by byte as it is: then it means to the
receiver what it means to the relay, however odd the JSON parsers of either. That is not found out by parsing.
Whenever a `relayData` went the long way, the codec is asked what stands before and after the data in such a
message, and from then on a message that has exactly these bytes around canonical base64 is known to be another
one. Everything else goes the long way: other keys, other orders, spaces, escapes, keys that come twice.

Whether a message may pass is asked of the switch for every run of messages with the same head; nothing about
sessions is remembered here.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from teale_proto.contract import Instant, Value
from teale_proto.effects import SendData, SendText
from teale_proto.inputs import ConnectionId, NodeId
from teale_proto.relay.connection import Connection, Registration
from teale_proto.relay.news import SessionId
from teale_proto.wire.binary import DATA, HEAD_BYTES
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import RELAY_CODEC, RelayData

HEADS_MAX: Final = 8192
"""Heads that are remembered; beyond, all are forgotten, and each costs one message the long way to learn anew."""

HEAD_BYTES_MAX: Final = 1024
"""No head is longer: it has two node ids, and a session id of up to 128 characters of up to six bytes."""

_DATA: Final = b'"data":"'
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BEFORE_ONE_PAD: Final = frozenset(_ALPHABET[::4])
_BEFORE_TWO_PADS: Final = frozenset(_ALPHABET[::16])
"""What may stand before the padding (RFC 4648, section 3.5): the bits that are left over must be zero."""


class Head(Value):
    """What a message says before its data, and the bytes around it."""

    written: bytes
    sender: NodeId
    target: NodeId
    session: SessionId
    flavour: Flavour
    tail: bytes


class Passage(Protocol):
    """What is asked of the switch."""

    def may_pass(self, sender: NodeId, to: NodeId, session_id: SessionId, now: Instant) -> Registration | None:
        """Return where data of an open session goes, having noted that it is in use; None where it may not pass."""

    def partner(self, node: NodeId, session_id: SessionId) -> NodeId | None:
        """Return with whom a node has a session, None where there is no such session."""


class Run(NamedTuple):
    """Messages that go the short way, one after the other, and their size together."""

    effects: Sequence[SendText | SendData]
    size_bytes: int


_NOTHING: Final = Run((), 0)


class Forwarding:
    """Recognises what may go the short way. Messages of more than `message_bytes_max` bytes never do."""

    __slots__ = ("_heads", "_message_bytes_max")

    def __init__(self, *, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self._heads: dict[bytes, Head] = {}

    def learn(self, message: RelayData, flavour: Flavour) -> None:
        """Take note of a message that was passed on the long way."""
        written = RELAY_CODEC.encode(
            RelayData(message.from_node_id, message.to_node_id, message.session_id, b""), flavour
        )
        ends = written.rindex(b'""') + 1
        assert ends <= HEAD_BYTES_MAX
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        head, tail = written[:ends], written[ends:]
        self._heads[head] = Head(head, message.from_node_id, message.to_node_id, message.session_id, flavour, tail)

    def recognise(self, data: bytes, likely: Head | None = None) -> Head | None:
        """Return the head of a message that the codec would write exactly like this, None for any other.

        The head that is `likely` is looked for first; what is returned does not depend on it.
        """
        if likely is not None and data.startswith(likely.written):
            head: Head | None = likely
        else:
            head = self._heads.get(data[: data.find(_DATA, 0, HEAD_BYTES_MAX) + len(_DATA)])
        if head is None or not data.endswith(head.tail):
            return None
        return head if is_canonical_base64(data[len(head.written) : len(data) - len(head.tail)]) else None

    def run(self, connection: Connection, messages: Sequence[bytes], start: int, passage: Passage, now: Instant) -> Run:
        """Return how the messages from `start` on go the short way, up to the first that does not."""
        sender = connection.registration
        if sender is None:
            return _NOTHING
        effects: list[SendText | SendData] = []
        size_bytes = 0
        passing: Head | bytes | None = None
        likely: Head | None = None
        target: ConnectionId = 0
        for index in range(start, len(messages)):
            data = messages[index]
            head = data[:HEAD_BYTES] if data.startswith(DATA) else self.recognise(data, likely)
            if head is None or len(data) > self._message_bytes_max:
                break
            if head is not passing and head != passing:
                receiver = _receiver(sender, head, passage, now)
                if receiver is None:
                    break
                passing, target = head, receiver.connection.id
                likely = head if isinstance(head, Head) else None
            effects.append(SendData(target, data, True) if type(head) is bytes else SendText(target, data, True))
            size_bytes += len(data)
        return Run(effects, size_bytes)


def _receiver(sender: Registration, head: Head | bytes, passage: Passage, now: Instant) -> Registration | None:
    """Return to whom messages with this head go as they are, None where there is nobody for them or it must change."""
    if isinstance(head, bytes):
        if len(head) < HEAD_BYTES or not sender.reads_binary:
            return None
        session_id = head[len(DATA) :].hex()
        partner = passage.partner(sender.node, session_id)
        receiver = None if partner is None else passage.may_pass(sender.node, partner, session_id, now)
        return receiver if receiver is not None and receiver.reads_binary else None
    if head.sender != sender.node:
        return None
    receiver = passage.may_pass(sender.node, head.target, head.session, now)
    # Data for those who read binary messages becomes one.
    if receiver is None or receiver.reads_binary or receiver.connection.flavour is not head.flavour:
        return None
    return receiver


def is_canonical_base64(data: bytes) -> bool:
    """Return whether this is what an encoder writes (RFC 4648, section 4): decoded and encoded, it is the same."""
    if len(data) % 4:
        return False
    padding = data.translate(None, _ALPHABET)
    if not padding:
        return True
    if padding == b"=":
        return data[-1:] == b"=" and data[-2] in _BEFORE_ONE_PAD
    return padding == b"==" and data[-2:] == b"==" and data[-3] in _BEFORE_TWO_PADS
