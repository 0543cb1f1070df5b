"""Where on Earth networks are, and how long light takes between them.

The distance between two regions comes on top of the links at both ends. `by_distance` takes it from the great circle,
light in glass at two thirds of its speed in vacuum, and a stretch, since cables follow coasts, roads and contracts.
Between the population centres of the United States, measured latencies are 2.1 times what the line of sight would
allow, and the fibres in the ground would allow 1.3 times (Bozkurt et al., "Dissecting Latency in the Internet's Fiber
Infrastructure", arXiv 1811.10737). The default of 1.5 lies between, because the last mile, part of what was measured
there, is a link's own matter here.
"""

from collections.abc import Mapping
from math import asin, cos, radians, sin, sqrt
from typing import Final

from teale_proto.contract import MILLISECOND, Duration, Value

LIGHT_IN_FIBRE_KM_PER_SECOND: Final = 200_000
EARTH_RADIUS_KM: Final = 6_371
STRETCH: Final = 1.5
WITHIN: Final[Duration] = 2 * MILLISECOND
"""One way between two networks of one region, about 270 km apart at the default stretch: an assumption."""

_STEP: Final[Duration] = 100
"""Distances are rounded to this, so that no machine's sine shows in a digest."""


class Regions(Value):
    """How far regions are from each other, one way, row by row; region n is `one_way[n][n]` across."""

    names: tuple[str, ...]
    one_way: tuple[tuple[Duration, ...], ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names) or "" in self.names:
            raise ValueError("regions have different names, and all have one")
        if [len(row) for row in self.one_way] != [len(self.names)] * len(self.names):
            raise ValueError(f"a matrix of {len(self.names)} by {len(self.names)} is needed")
        if any(distance < 0 for row in self.one_way for distance in row):
            raise ValueError("a distance is not negative")

    def between(self, source: str, target: str) -> Duration:
        """Return the distance from one region to another; "", which is nowhere in particular, is next to everything.

        Raises ValueError for a region that there is not.
        """
        if not source or not target:
            return 0
        return self.one_way[self.index(source)][self.index(target)]

    def index(self, name: str) -> int:
        """Return the place of a region among `names`; raises ValueError when there is none."""
        if name not in self.names:
            raise ValueError(f"there is no region {name!r}, only {', '.join(self.names) or 'none at all'}")
        return self.names.index(name)

    @classmethod
    def by_distance(
        cls, places: Mapping[str, tuple[float, float]], *, stretch: float = STRETCH, within: Duration = WITHIN
    ) -> "Regions":
        """Return the regions at these latitudes and longitudes, in degrees."""
        rows = tuple(
            tuple(within if one == other else _light_takes(places[one], places[other], stretch) for other in places)
            for one in places
        )
        return cls(tuple(places), rows)


def _light_takes(one: tuple[float, float], other: tuple[float, float], stretch: float) -> Duration:
    (latitude, longitude), (latitude_2, longitude_2) = (tuple(map(radians, place)) for place in (one, other))
    # The haversine formula, which stays exact for short distances.
    half = sin((latitude_2 - latitude) / 2) ** 2
    half += cos(latitude) * cos(latitude_2) * sin((longitude_2 - longitude) / 2) ** 2
    km = 2 * EARTH_RADIUS_KM * asin(sqrt(half))
    return round(km * stretch / LIGHT_IN_FIBRE_KM_PER_SECOND * 1_000_000 / _STEP) * _STEP


NOWHERE: Final = Regions((), ())
"""A world without regions."""

WORLD: Final = Regions.by_distance(
    {
        "europe-west": (50.1, 8.7),
        "us-east": (39.0, -77.5),
        "us-west": (45.6, -121.2),
        "south-america": (-23.5, -46.6),
        "asia-southeast": (1.35, 103.8),
        "asia-northeast": (35.7, 139.7),
    }
)
"""Six places where data centres are: Frankfurt, Virginia, Oregon, São Paulo, Singapore, Tokyo."""
