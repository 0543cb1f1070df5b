"""Published figures that a run can be held against, with where they were published."""

from typing import Final, NamedTuple

from simulator.results.model import Calibration


class Published(NamedTuple):
    """A figure, or the range that was published for it."""

    figure: str
    low: float
    high: float
    unit: str
    source: str


PUBLISHED: Final[dict[str, Published]] = {
    "punching": Published(
        "hole punching succeeds", 62.9, 77.1, "%", "DCUtR measurement, arXiv 2510.27500 (70 ± 7.1 %)"
    ),
    "first_attempt": Published("… at the first attempt, of successes", 97.6, 97.6, "%", "DCUtR, arXiv 2510.27500"),
    "direct": Published(
        "connections end up direct", 90.0, 95.0, "%", "Tailscale: well north of 90 %; iroh: about 90 %"
    ),
    "nats_allow": Published("NATs allow UDP punching", 82.0, 82.0, "%", "Ford et al., USENIX ATC 2005"),
    "cgn_fixed": Published("carrier-grade NAT, non-cellular networks", 13.0, 13.0, "%", "Richter et al., IMC 2016"),
    "cgn_cellular": Published(
        "carrier-grade NAT, cellular networks", 92.0, 100.0, "%", "Richter et al., IMC 2016 (over 92 %)"
    ),
    "symmetric_mobile": Published("symmetric NAT, mobile providers", 33.3, 33.3, "%", "Klinec and Matyas 2014"),
    "birthday_256": Published("birthday punching, 256 probes", 64.0, 64.0, "%", "arithmetic over ports 1024 to 65535"),
    "birthday_1024": Published(
        "birthday punching, 1024 probes", 98.4, 98.4, "%", "arithmetic over ports 1024 to 65535"
    ),
}
"""By a short name; those of a test lab are ranges of what was claimed."""


def beside(name: str, measured: float) -> Calibration:
    """Return a measured figure beside the published one of that name; raises KeyError for none."""
    published = PUBLISHED[name]
    return Calibration(published.figure, measured, published.low, published.high, published.unit, published.source)
