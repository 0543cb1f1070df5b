"""The wire's messages as tables: every kind of a union, its fields, their types and bounds, and what may be absent."""

import re
from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec
from _tables import code, sentence, table

from teale_proto.wire import relay
from teale_proto.wire.cluster import CLUSTER_CODEC
from teale_proto.wire.codec import Codec
from teale_proto.wire.fields import Message
from teale_proto.wire.relay import RELAY_CODEC, Signal

# With spaces that do not break.
NODE_TO_RELAY: Final = "node\u00a0→\u00a0relay"
RELAY_TO_NODE: Final = "relay\u00a0→\u00a0node"
NODE_TO_NODE: Final = "node\u00a0→\u00a0node"

DIRECTIONS: Final[Mapping[type[Message], str]] = {
    relay.Register: NODE_TO_RELAY,
    relay.RegisterChallenge: RELAY_TO_NODE,
    relay.RegisterProof: NODE_TO_RELAY,
    relay.RegisterAck: RELAY_TO_NODE,
    relay.Discover: NODE_TO_RELAY,
    relay.DiscoverResponse: RELAY_TO_NODE,
    relay.Offer: NODE_TO_NODE,
    relay.Answer: NODE_TO_NODE,
    relay.IceCandidate: NODE_TO_NODE,
    relay.RelayOpen: NODE_TO_NODE,
    relay.RelayReady: NODE_TO_NODE,
    relay.RelayData: NODE_TO_NODE,
    relay.RelayClose: NODE_TO_NODE,
    relay.ConfirmAddress: NODE_TO_RELAY,
    relay.AddressConfirmed: RELAY_TO_NODE,
    relay.PeerJoined: RELAY_TO_NODE,
    relay.PeerLeft: RELAY_TO_NODE,
    relay.Error: RELAY_TO_NODE,
}
"""Who sends what on a relay's WebSocket; what goes from node to node is passed on by the relay."""

CODECS: Final[Mapping[str, Codec[Any]]] = {"relay": RELAY_CODEC, "cluster": CLUSTER_CODEC}


def index(which: str) -> str:
    """Return one line for each message of a union: `relay` or `cluster`."""
    codec = CODECS[which]
    rows = []
    for message, kind in codec.kinds.items():
        row = [f"[`{kind}`](#{anchor(kind)})", _purpose(message)]
        rows.append(row if which == "cluster" else [row[0], DIRECTIONS[message], _documented(message, kind), row[1]])
    headings = ("kind", "purpose") if which == "cluster" else ("kind", "direction", "documented as", "purpose")
    return table(headings, rows)


def messages(which: str) -> str:
    """Return a section for each message of a union, with its fields, and then the structures that they use."""
    codec = CODECS[which]
    sections = [_section(message, kind) for message, kind in codec.kinds.items()]
    sections += [_section(structure, structure.__name__) for structure in _structures(set(codec.kinds))]
    return "\n\n".join(sections)


def anchor(kind: str) -> str:
    """Return the anchor of a message's section."""
    return f"message-{kind.lower()}"


def _documented(message: type[Message], kind: str) -> str:
    if message in get_args(Signal):
        return f'`signal` {{`"{kind}"`: …}}'
    # The codec has no other use for telling this to anybody.
    name = RELAY_CODEC._documented_names[message]  # type: ignore[index]  # noqa: SLF001 - see above
    return code(name) if name != kind else ""


def _section(message: type[msgspec.Struct], title: str) -> str:
    info = msgspec.inspect.type_info(message)
    assert isinstance(info, msgspec.inspect.StructType)
    rows = [(code(field.encode_name), shown(field.type), _presence(field)) for field in info.fields]
    heading = f"#### `{title}` {{ #{anchor(title)} }}"
    fields = table(("field", "type and bounds", "if absent"), rows) if rows else "No fields."
    return "\n\n".join((heading, _purpose(message), fields))


def _purpose(message: type[msgspec.Struct]) -> str:
    """Return a message's docstring with its fields under the names that they have on the wire."""
    names = dict(zip(message.__struct_fields__, message.__struct_encode_fields__, strict=True))
    text = sentence(message.__doc__ or "")
    return re.sub(r"`(\w+)`", lambda found: code(names.get(found[1], found[1])), text)


def _presence(field: msgspec.inspect.Field) -> str:
    if field.required:
        return "malformed"
    if field.default is not msgspec.NODEFAULT:
        return _value(field.default)
    if field.default_factory is not msgspec.NODEFAULT:
        return _value(field.default_factory()) + ", always written"
    return ""


def _value(value: object) -> str:
    if value is None:
        return "unknown"
    return code(msgspec.json.encode(value).decode())


def shown(kind: msgspec.inspect.Type) -> str:
    """Return a field's type in words."""
    match kind:
        case msgspec.inspect.Metadata(type=inner):
            return shown(inner)
        case msgspec.inspect.UnionType(types=types):
            return " or ".join(shown(each) for each in types)
        case msgspec.inspect.NoneType():
            return "null"
        case msgspec.inspect.StrType():
            return _string(kind)
        case msgspec.inspect.BytesType():
            return "bytes in base64"
        case msgspec.inspect.BoolType():
            return "boolean"
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return _number(kind)
        case msgspec.inspect.RawType():
            return "any JSON"
        case msgspec.inspect.VarTupleType(item_type=item, max_length=most):
            return f"list of {f'at most {most}: ' if most else ''}{shown(item)}"
        case msgspec.inspect.StructType(cls=cls):
            return f"[`{cls.__name__}`](#{anchor(cls.__name__)})"
    raise AssertionError(f"no words for {kind}")


def _string(kind: msgspec.inspect.StrType) -> str:
    if kind.pattern and "{64}" in kind.pattern:
        return "node id: 64 lower-case hexadecimal characters"
    text = "hexadecimal" if kind.pattern else "string"
    if kind.min_length:
        return f"{text} of {kind.min_length} to {kind.max_length} characters"
    return f"{text} of at most {kind.max_length} characters" if kind.max_length else text


def _number(kind: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    text = "integer" if isinstance(kind, msgspec.inspect.IntType) else "number"
    least, most = kind.ge, kind.le
    if least is not None and most is not None:
        return f"{text} from {least} to {'2⁵³' if most == 2**53 else most}"
    return f"{text}, at least {least}" if least is not None else text


def _structures(messages: set[type[Any]]) -> list[type[msgspec.Struct]]:
    """Return the structures that messages use, messages themselves left out, each once."""
    found: dict[type[msgspec.Struct], None] = {}

    def look(kind: msgspec.inspect.Type) -> None:
        match kind:
            case msgspec.inspect.Metadata(type=inner):
                look(inner)
            case msgspec.inspect.UnionType(types=types):
                for each in types:
                    look(each)
            case msgspec.inspect.VarTupleType(item_type=item):
                look(item)
            case msgspec.inspect.StructType(cls=cls, fields=fields):
                if cls not in messages:
                    found.setdefault(cls)
                for field in fields:
                    look(field.type)

    for message in messages:
        look(msgspec.inspect.type_info(message))
    return sorted(found, key=lambda structure: structure.__name__)
