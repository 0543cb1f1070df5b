"""Async iterators that may be left in the middle."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def iterating(iterable: AsyncIterable[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Yield an iterator and close it at the end, if it is a generator.

    One that is left suspended would otherwise hold what it holds until it is collected as garbage.
    """
    iterator = aiter(iterable)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
