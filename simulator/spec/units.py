"""The units of descriptions: people write seconds and shares, the engine counts microseconds."""

from typing import Annotated, TypeAlias

from msgspec import Meta

from teale_proto.contract import SECOND, Duration

Seconds: TypeAlias = Annotated[float, Meta(ge=0)]
Chance: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Weight: TypeAlias = Annotated[float, Meta(ge=0)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]


def microseconds(seconds: float) -> Duration:
    """Return seconds as the engine counts them, to the nearest microsecond."""
    return round(seconds * SECOND)
