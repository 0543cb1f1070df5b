"""Lines as they are found: what the project's table of published figures says of them (docs/explanation).

Delays are one way and end in the middle of the network; the jitter of the table, an amount either way, is drawn here
between nothing and twice that on top of the least. Rates and buffers that the table does not give are round figures of
the author's choice: they are there to be swept, not believed.
"""

from typing import Final

from msgspec.structs import replace

from simulator.net.link import Burst, Link
from teale_proto.contract import MILLISECOND, SECOND, Duration

_MBIT: Final = 125_000
"""Bytes a second."""


def _line(middle_ms: int, jitter_ms: int, loss: float, *, down_mbit: int, up_mbit: int) -> Link:
    """Return a line whose one-way delay is `middle_ms` give or take `jitter_ms`, with buffers for 100 ms upwards."""
    return Link(
        latency=(middle_ms - jitter_ms) * MILLISECOND,
        jitter=2 * jitter_ms * MILLISECOND,
        loss=loss,
        uplink_bytes_per_second=up_mbit * _MBIT,
        downlink_bytes_per_second=down_mbit * _MBIT,
        buffer_bytes=max(64 * 1500, up_mbit * _MBIT // 10),
    )


GOOD_WIFI: Final = _line(5, 2, 0.001, down_mbit=200, up_mbit=50)
BAD_WIFI: Final = _line(40, 15, 0.02, down_mbit=20, up_mbit=20)
LTE: Final = _line(25, 8, 0.005, down_mbit=50, up_mbit=15)
"""4G."""
UMTS: Final = _line(100, 30, 0.02, down_mbit=2, up_mbit=1)
"""3G."""
LOW_ORBIT: Final = _line(40, 7, 0.01, down_mbit=100, up_mbit=15)
GEOSTATIONARY: Final = _line(300, 20, 0.005, down_mbit=25, up_mbit=3)

FIBRE: Final = _line(3, 1, 0.0, down_mbit=1000, up_mbit=200)
DSL: Final = _line(10, 2, 0.0005, down_mbit=50, up_mbit=10)
FLAT_9: Final = _line(9, 1, 0.0, down_mbit=100, up_mbit=100)
"""Two of them in one region are 20 ms from each other, one way, and always nearly so."""
FLAT_39: Final = _line(39, 1, 0.0, down_mbit=100, up_mbit=100)
"""Two of them in one region are 80 ms from each other, one way, and always nearly so."""
DATA_CENTRE: Final = Link(
    latency=MILLISECOND, uplink_bytes_per_second=1000 * _MBIT, downlink_bytes_per_second=1000 * _MBIT
)

LINES: Final[dict[str, Link]] = {
    "good-wifi": GOOD_WIFI,
    "bad-wifi": BAD_WIFI,
    "4g": LTE,
    "3g": UMTS,
    "low-orbit": LOW_ORBIT,
    "geostationary": GEOSTATIONARY,
    "fibre": FIBRE,
    "dsl": DSL,
    "data-centre": DATA_CENTRE,
    "flat-9ms": FLAT_9,
    "flat-39ms": FLAT_39,
}


def with_bursts(link: Link, *, every: Duration = 10 * SECOND, lasting: Duration = 100 * MILLISECOND) -> Link:
    """Return a link that loses everything for a while, now and then, beside what it loses anyway."""
    return replace(link, burst=Burst(good=every, bad=lasting))
