"""The units of descriptions: people write seconds and shares, the engine counts microseconds.

All have a bound, far beyond what makes sense: infinity is no time, and a count with a nought too many is better told
than waited for.
"""

from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from teale_proto.contract import SECOND, Duration

AMOUNT_MAX: Final = 1e9
"""Thirty years, where it counts seconds."""

COUNT_MAX: Final = 1_000_000

Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=AMOUNT_MAX)]
Chance: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Loss: TypeAlias = Annotated[float, Meta(ge=0, lt=1)]
"""A chance with which something comes to nothing; not always, for then no line would be left."""
Weight: TypeAlias = Annotated[float, Meta(ge=0, le=AMOUNT_MAX)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
Several: TypeAlias = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
"""A count of what there is at least one of."""
Positive: TypeAlias = Annotated[float, Meta(gt=0, le=AMOUNT_MAX)]
Sigma: TypeAlias = Annotated[float, Meta(gt=0, le=10)]
"""The spread of a lognormal distribution; at 10, one draw in a hundred is ten thousand million times the median."""
Words: TypeAlias = Annotated[int, Meta(ge=0, le=100_000)]
"""Of one request, which is a message in the end."""
PartsPerMillion: TypeAlias = Annotated[float, Meta(ge=0, le=500_000)]


def microseconds(seconds: float) -> Duration:
    """Return seconds as the engine counts them, to the nearest microsecond."""
    return round(seconds * SECOND)
