"""How people are online: which NATs they are behind, over which kind of line, and what else stands in the way.

A `Mixture` is a share of each; one draw gives one `Access`. The ready-made mixtures hold the defaults of the
project's table of published figures (docs/explanation/relay-scaling.md names the sources): they are there to be
swept, not believed.
"""

from typing import Final

from msgspec.structs import replace

from simulator.net.nat import FIREWALL, Allocation, NatKind
from simulator.net.weather import LINES
from simulator.rng import SplitMix64, weighted
from simulator.spec.units import Chance, Several, Weight
from teale_proto.contract import SECOND, Value
from teale_proto.nat.kinds import Filtering, Hairpinning, Mapping

_HOME: Final = NatKind(lifetime=300 * SECOND, lifetime_of_one_packet=30 * SECOND)


def _nat(mapping: Mapping, filtering: Filtering, allocation: Allocation = Allocation.PRESERVING) -> NatKind:
    return NatKind(
        mapping=mapping,
        filtering=filtering,
        allocation=allocation,
        lifetime=_HOME.lifetime,
        lifetime_of_one_packet=_HOME.lifetime_of_one_packet,
    )


_EIM, _ADM, _APDM = Mapping.ENDPOINT_INDEPENDENT, Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT
_EIF, _ADF, _APDF = Filtering.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT

NAT_KINDS: Final[dict[str, NatKind | None]] = {
    "public": None,
    "firewall": FIREWALL,
    "eim-eif": _nat(_EIM, _EIF),
    "eim-adf": _nat(_EIM, _ADF),
    "eim-apdf": _nat(_EIM, _APDF),
    "eim-apdf-random": _nat(_EIM, _APDF, Allocation.RANDOM),
    "adm-adf": _nat(_ADM, _ADF, Allocation.RANDOM),
    "adm-apdf": _nat(_ADM, _APDF, Allocation.RANDOM),
    "apdm-eif": _nat(_APDM, _EIF, Allocation.RANDOM),
    "apdm-adf": _nat(_APDM, _ADF, Allocation.RANDOM),
    "apdm-apdf": _nat(_APDM, _APDF, Allocation.RANDOM),
    "apdm-sequential": _nat(_APDM, _APDF, Allocation.SEQUENTIAL),
}
"""What a description calls the box nearest to the host, in RFC 4787's terms; None is no box at all."""

CARRIER_GRADE: Final = NatKind(allocation=Allocation.RANDOM, lifetime=300 * SECOND)
"""What stands in front of others at a provider: endpoint-independent, as RFC 6888 asks, with ports spread."""


class Access(Value):
    """One way of being online."""

    nats: tuple[NatKind, ...]
    """The outermost first; none for a public address."""
    line: str
    """Which of `simulator.net.weather.LINES` it is."""
    only_tcp_443: bool = False
    offers_port_mapping: bool = False

    @property
    def is_behind_nat(self) -> bool:
        """Whether anything translates its addresses."""
        return any(nat.translates for nat in self.nats)


class Mixture(Value, forbid_unknown_fields=True):
    """Shares of ways of being online; those of `nats` and `lines` are relative to each other."""

    nats: dict[str, Weight]
    lines: dict[str, Weight]
    carrier_grade: Chance = 0.0
    """The chance that a carrier-grade NAT stands in front of what `nats` says, where that translates."""
    udp_blocked: Chance = 0.0
    only_tcp_443: Chance = 0.0
    port_mapping: Chance = 0.0
    """The chance that the gateway opens ports on request (PCP, NAT-PMP or UPnP)."""
    hairpinning: bool = True
    """Whether NATs hand on what their inside sends to an outside endpoint of theirs."""
    sessions_max: Several | None = None
    """How many sessions the nearest box remembers; beyond, new ones are dropped. None is more than anybody needs."""

    def __post_init__(self) -> None:
        for field, known in (("nats", tuple(NAT_KINDS)), ("lines", tuple(LINES))):
            weights: dict[str, float] = getattr(self, field)
            strange = [name for name in weights if name not in known]
            if strange:
                raise ValueError(f"`{field}`: no {strange[0]!r}; there are {', '.join(known)}")
            if sum(weights.values()) <= 0:
                raise ValueError(f"`{field}`: at least one weight must be positive")

    def draw(self, rng: SplitMix64) -> Access:
        """Return one way of being online, as likely as the shares say."""
        # Every chance is drawn, whether or not it matters, so that a change of one share moves nothing else.
        kind = NAT_KINDS[weighted(rng, self.nats)]
        line = weighted(rng, self.lines)
        carrier, blocked, only_443, mapped = (rng.random() for _ in range(4))
        if kind is not None and self.sessions_max is not None:
            kind = replace(kind, sessions_max=self.sessions_max)
        nats: tuple[NatKind, ...] = () if kind is None else (kind,)
        if blocked < self.udp_blocked:
            nats = (_without_udp(kind or FIREWALL),)
        if kind is not None and kind.translates and carrier < self.carrier_grade:
            nats = (CARRIER_GRADE, *nats)
        if not self.hairpinning:
            nats = tuple(replace(each, hairpinning=Hairpinning.NONE) for each in nats)
        return Access(nats, line, only_443 < self.only_tcp_443, bool(nats) and mapped < self.port_mapping)


HOME: Final = Mixture(
    nats={"public": 0.10, "eim-eif": 0.10, "eim-adf": 0.05, "eim-apdf": 0.65, "apdm-apdf": 0.10},
    lines={"fibre": 0.3, "good-wifi": 0.55, "bad-wifi": 0.14, "low-orbit": 0.01},
    carrier_grade=0.13,
    udp_blocked=0.03,
    port_mapping=0.30,
)
CELLULAR: Final = Mixture(
    nats={"eim-apdf": 0.67, "apdm-apdf": 0.33}, lines={"4g": 0.9, "3g": 0.1}, carrier_grade=0.92, udp_blocked=0.03
)
CORPORATE: Final = Mixture(
    nats={"firewall": 0.2, "eim-apdf": 0.5, "apdm-apdf": 0.3},
    lines={"fibre": 0.7, "good-wifi": 0.3},
    udp_blocked=0.2,
    only_tcp_443=0.1,
)
CLOUD: Final = Mixture(nats={"public": 0.7, "firewall": 0.3}, lines={"data-centre": 1.0})
PUBLIC: Final = Mixture(nats={"public": 1.0}, lines={"fibre": 1.0})

MIXTURES: Final = {"home": HOME, "cellular": CELLULAR, "corporate": CORPORATE, "cloud": CLOUD, "public": PUBLIC}
"""The mixtures that a description can name. That of corporate networks is an assumption; no source was found."""


def _without_udp(kind: NatKind) -> NatKind:
    return NatKind(translates=kind.translates, mapping=kind.mapping, filtering=kind.filtering, udp_blocked=True)
