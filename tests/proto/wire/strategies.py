"""Hypothesis strategies for messages, derived from the same declarations as the codec."""

from functools import cache
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from teale_proto.wire.fields import Message

# A lone surrogate is no character, and no JSON parser of other languages accepts one.
CHARACTERS = st.characters(exclude_categories=["Cs"])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(CHARACTERS, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=8), inner, max_size=3),
    max_leaves=6,
)


@cache
def messages(message_type: type[Message]) -> st.SearchStrategy[Message]:
    """Return a strategy for whatever the wire allows of one message type."""
    strategy: st.SearchStrategy[Message] = _of(inspect.type_info(message_type))
    return strategy


def _of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType():
            fields = {field.name: _of(field.type) for field in kind.fields}
            return st.builds(kind.cls, **fields)
        case inspect.UnionType():
            return st.one_of(*[_of(member) for member in kind.types])
        case inspect.VarTupleType():
            items = st.lists(_of(kind.item_type), min_size=kind.min_length or 0, max_size=3)
            return items.map(tuple)
        case inspect.StrType():
            return _text(kind)
        case inspect.IntType():
            return st.integers(kind.ge, kind.le)
        case inspect.FloatType():
            return st.floats(kind.ge, allow_nan=False, allow_infinity=False)
    return {
        inspect.BoolType: st.booleans(),
        inspect.BytesType: st.binary(max_size=50),
        inspect.NoneType: st.none(),
        inspect.RawType: JSON.map(msgspec.json.encode).map(msgspec.Raw),
    }[type(kind)]


def _text(kind: inspect.StrType) -> st.SearchStrategy[str]:
    if kind.pattern is not None:
        # Both patterns are hexadecimal; written out, since drawing from a pattern takes a hundred times as long.
        size = 32 if "{64}" in kind.pattern else None
        return st.binary(min_size=size or 0, max_size=size or 8).map(bytes.hex)
    return st.text(CHARACTERS, min_size=kind.min_length or 0, max_size=min(kind.max_length or 8, 8))
