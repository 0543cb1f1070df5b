"""How two peers can get a direct path, from what is known of the NATs before them: a pure function.

What decides is whether some pair of outside endpoints exists that both sides can come to know: a side that maps
endpoint-independently has one endpoint for everybody, and any other side has a new one for each peer, which must
be seen (where the peer's filter lets it through), foretold, or hit by chance. Nothing here touches anything;
`teale_proto.nat.punch` carries a plan out.

The plan of one side is the mirror of the other's, so both can make it from the same two `Side`s without asking.
"""

from enum import Enum, IntEnum
from typing import Final

from msgspec.structs import replace

from teale_proto.contract import MILLISECOND, SECOND, Duration, Value
from teale_proto.nat import birthday
from teale_proto.nat.allocation import Allocation, Pattern
from teale_proto.nat.kinds import Behaviour, Filtering, Hairpinning, Mapping

BIRTHDAY_SETTING: Final = "wan_birthday"
"""The name of the setting that a reason tells people to switch on."""

ROUND_TRIPS_TO_OPEN: Final = 2.5
"""Proposal and answer, half a round trip until both begin, and the first probe with its answer."""

KEEP_ALIVE_MAX: Final = 30 * SECOND

LIFETIME_SHORTEST: Final = 30 * SECOND
"""The shortest lifetime of an idle mapping that was ever seen (Hätönen et al., IMC 2010), where ours is not known."""


class PlanKind(IntEnum):
    """What to try, the surest first."""

    DIRECT = 0
    """One side can simply send."""
    PUNCH = 1
    """Both send at about the same time."""
    PREDICTION = 2
    """A side whose NAT counts foretells its next ports."""
    BIRTHDAY = 3
    """The hard side opens many sockets, the easy side probes random ports."""
    RELAY = 4


class Part(Enum):
    """What one side does."""

    SENDS = "sends"
    WAITS = "waits"
    OPENS_SOCKETS = "opens sockets"
    GUESSES = "guesses ports"
    FORETELLS = "foretells its ports"
    FOLLOWS = "sends to foretold ports"
    NOTHING = "nothing"


class CandidateKind(IntEnum):
    """Where a peer may be reached, the best first."""

    HOST = 0
    """Its own address."""
    MAPPED = 1
    """What its gateway forwards to it on request."""
    REFLEXIVE = 2
    """What a STUN server saw."""
    PREDICTED = 3
    RELAYED = 4


class Side(Value):
    """What is known of one peer's way to the internet."""

    behaviour: Behaviour
    allocation: Allocation | None = None
    """How its NAT chooses ports, where that was asked."""
    lifetime: Duration | None = None
    """How long an idle mapping lives, where that was measured."""
    port_mapped: bool = False
    """Whether its gateway forwards a port to it (PCP, NAT-PMP, UPnP), with a global address outside."""
    ipv6: Behaviour | None = None
    """The same question asked over IPv6, where it has a global address."""
    outside: str | None = None
    """From which address the relay sees it come, where the relay says so."""
    birthday_allowed: bool = False
    """Whether it may open and probe hundreds of ports: not without leave, and never on metered links."""


class Effort(Value):
    """How hard to try, and how far the peers are from each other."""

    round_trip: Duration = 100 * MILLISECOND
    sockets: int = 256
    probes_per_second: int = 100
    birthday_for: Duration = 20 * SECOND

    @property
    def guesses(self) -> int:
        """How many ports one birthday attempt tries."""
        return min(birthday.PORTS, self.probes_per_second * self.birthday_for // SECOND)


DEFAULT_EFFORT: Final = Effort()


class Plan(Value):
    """What to do, and what to expect of it."""

    kind: PlanKind
    ours: Part
    theirs: Part
    candidates: tuple[CandidateKind, ...]
    """The kinds of the peer's candidates that are worth trying, the best first; the last one is the relay."""
    chance: float
    """Of a direct path. Where both behaviours are known it is a judgement of what they leave out; for the
    birthday it is computed, and where something is unknown it is weighed by how common the kinds are."""
    time: Duration
    """From the proposal until the path is open, as a rule."""
    keep_alive: Duration
    """How often a path must carry something so that no mapping on it goes."""
    reason: str
    """Why, in words for people, from our side's point of view."""
    ipv6: bool = False


# What NATs leave to chance even where their kind is known: busy tables, other hosts behind them, wrong verdicts.
CHANCE_DIRECT: Final = 0.99
CHANCE_PUNCH: Final = 0.97
CHANCE_PREDICTION: Final = 0.8
CHANCE_NEIGHBOURS: Final = 0.9


class Nature(Value):
    """The two properties that decide; None is what is not known."""

    mapping: Mapping | None
    filtering: Filtering | None

    @property
    def easy(self) -> bool:
        """Whether everybody finds it at one endpoint."""
        return self.mapping is Mapping.ENDPOINT_INDEPENDENT


EIM, ADM, APDM = Mapping
EIF, ADF, APDF = Filtering

COMMON: Final = (
    (10, Nature(EIM, EIF)),
    (5, Nature(EIM, ADF)),
    (65, Nature(EIM, APDF)),
    (10, Nature(APDM, APDF)),
)
"""Of a hundred homes, how many are behind each kind; the rest is public (`spec/nat.md`)."""


def plan(ours: Side, theirs: Side, *, failures: int = 0, effort: Effort = DEFAULT_EFFORT) -> Plan:
    """Return what to do for a direct path between two sides after so many attempts have failed."""
    best = _neighbours(ours, theirs, effort) if _same_site(ours, theirs) and not failures else None
    best = best or _over_ipv4(ours, theirs, failures, effort)
    if ours.ipv6 is not None and theirs.ipv6 is not None:
        # IPv6 knows firewalls and no translation, so nothing has to be foretold or guessed.
        over_ipv6 = _over_ipv4(_as_ipv6(ours), _as_ipv6(theirs), failures, effort)
        if (over_ipv6.kind, -over_ipv6.chance) < (best.kind, -best.chance):
            reason = f"{over_ipv6.reason} (over IPv6)"
            return replace(over_ipv6, reason=reason, ipv6=True)
    return best


def nature(side: Side) -> Nature:
    """Return what decides about a side."""
    if side.port_mapped:
        return Nature(EIM, EIF)
    behaviour = side.behaviour
    mapping = behaviour.mapping
    if mapping is None and behaviour.mapping_varies:
        # Whoever varies by address varies by port too, as far as anybody has to care here.
        mapping = APDM
    return Nature(mapping, behaviour.filtering)


def is_direct(sender: Nature, receiver: Nature) -> bool:
    """Return whether a path opens when `sender` alone sends to the receiver's reflexive endpoint."""
    if receiver.filtering is not EIF:
        return False
    if receiver.easy:
        return True
    if sender.mapping is None or receiver.mapping is None:
        return False
    # The answer comes from another port, and to that port the sender must be the one that the receiver saw.
    return sender.filtering in (EIF, ADF) and (sender.mapping <= ADM or receiver.mapping <= ADM)


def is_punchable(one: Nature, other: Nature) -> bool:
    """Return whether a path opens when both send to what they know of each other."""
    if one.easy and other.easy:
        return True
    return (one.easy and one.filtering in (EIF, ADF)) or (other.easy and other.filtering in (EIF, ADF))


def _over_ipv4(ours: Side, theirs: Side, failures: int, effort: Effort) -> Plan:
    if ours.behaviour.udp_blocked or theirs.behaviour.udp_blocked:
        return _relay(ours, theirs, effort)
    one, other = nature(ours), nature(theirs)
    if failures:
        return _again(ours, theirs, failures, effort)
    we_send, they_send = is_direct(one, other), is_direct(other, one)
    if we_send or they_send:
        return _direct(ours, theirs, effort, we_send=we_send, they_send=they_send)
    if is_punchable(one, other):
        return _punch(ours, theirs, effort, CHANCE_PUNCH)
    odds = _odds(one, other)
    if odds > 0:
        return _punch(ours, theirs, effort, odds * CHANCE_PUNCH)
    return _by_port(ours, theirs, effort)


def _again(ours: Side, theirs: Side, failures: int, effort: Effort) -> Plan:
    """Return what to do after failures: what was known has turned out wrong, so the next best is tried."""
    first = _over_ipv4(ours, theirs, 0, effort)
    if first.kind in (PlanKind.RELAY, PlanKind.BIRTHDAY):
        return first
    if first.kind is PlanKind.PREDICTION and failures == 1:
        # The ports are asked for anew each time: somebody else's packet may have come between.
        return first
    guessed = _birthday(ours, theirs, effort)
    if guessed is not None:
        return guessed
    if first.kind is PlanKind.PREDICTION:
        return first
    return _punch(ours, theirs, effort, first.chance * 0.1)


def _odds(one: Nature, other: Nature) -> float:
    """Return how likely two sides of which something is unknown can punch, by how common the kinds are."""
    weight = opened = 0
    for ours in _may_be(one):
        for theirs in _may_be(other):
            share = ours[0] * theirs[0]
            weight += share
            if is_punchable(ours[1], theirs[1]) or is_direct(ours[1], theirs[1]) or is_direct(theirs[1], ours[1]):
                opened += share
    return opened / weight


def _may_be(known: Nature) -> list[tuple[int, Nature]]:
    likely = [
        (share, each)
        for share, each in COMMON
        if known.mapping in (None, each.mapping) and known.filtering in (None, each.filtering)
    ]
    # What is not among the common kinds is taken for the hardest that it may be.
    return likely or [(1, Nature(APDM if known.mapping is None else known.mapping, known.filtering or APDF))]


# The plans.


def _neighbours(ours: Side, theirs: Side, effort: Effort) -> Plan:
    loops = [side.behaviour.hairpinning is Hairpinning.EXTERNAL_SOURCE for side in (ours, theirs)]
    hairpin = (CandidateKind.REFLEXIVE,) if all(loops) else ()
    words = "and the NAT would loop them back if not" if hairpin else "and the NAT loops nothing back if not"
    return Plan(
        PlanKind.DIRECT,
        Part.SENDS,
        Part.SENDS,
        (CandidateKind.HOST, *hairpin, CandidateKind.RELAYED),
        CHANCE_NEIGHBOURS if hairpin else CHANCE_NEIGHBOURS - 0.1,
        _opening_takes(effort),
        _keep_alive(ours, theirs),
        "direct: both of you have the same outside address, so private addresses may do, " + words,
    )


def _direct(ours: Side, theirs: Side, effort: Effort, *, we_send: bool, they_send: bool) -> Plan:
    reachable = [_reachable(side, whose) for side, whose, yes in _sides(ours, theirs, they_send, we_send) if yes]
    return Plan(
        PlanKind.DIRECT,
        Part.SENDS if we_send else Part.WAITS,
        Part.SENDS if they_send else Part.WAITS,
        (*_usual(theirs), CandidateKind.RELAYED),
        CHANCE_DIRECT,
        _opening_takes(effort),
        _keep_alive(ours, theirs),
        "direct: " + " and ".join(reachable),
    )


def _punch(ours: Side, theirs: Side, effort: Effort, odds: float) -> Plan:
    known = "" if odds >= CHANCE_PUNCH else f", which succeeds with {_percent(odds)}"
    return Plan(
        PlanKind.PUNCH,
        Part.SENDS,
        Part.SENDS,
        (*_usual(theirs), CandidateKind.RELAYED),
        odds,
        _opening_takes(effort),
        _keep_alive(ours, theirs),
        f"punched: {_obstacles(ours, theirs)}; both send at about the same time{known}",
    )


def _by_port(ours: Side, theirs: Side, effort: Effort) -> Plan:
    """Return the plan where a port must be foretold or guessed."""
    one, other = nature(ours), nature(theirs)
    foretold = [side.allocation is not None and side.allocation.predictable for side in (ours, theirs)]
    if all(yes or each.easy for yes, each in zip(foretold, (one, other), strict=True)):
        return _prediction(ours, theirs, effort)
    return _birthday(ours, theirs, effort) or _relay(ours, theirs, effort)


def _prediction(ours: Side, theirs: Side, effort: Effort) -> Plan:
    hard = [(side, whose) for side, whose in ((ours, "your"), (theirs, "their")) if not nature(side).easy]
    how = " and ".join(f"{whose} NAT {_counts(side)}" for side, whose in hard)
    return Plan(
        PlanKind.PREDICTION,
        Part.FOLLOWS if nature(ours).easy else Part.FORETELLS,
        Part.FOLLOWS if nature(theirs).easy else Part.FORETELLS,
        (CandidateKind.REFLEXIVE if nature(theirs).easy else CandidateKind.PREDICTED, CandidateKind.RELAYED),
        CHANCE_PREDICTION,
        _opening_takes(effort) + effort.round_trip,
        _keep_alive(ours, theirs),
        f"predicted: {_obstacles(ours, theirs)}, but {how}, so the next port can be foretold",
    )


def _birthday(ours: Side, theirs: Side, effort: Effort) -> Plan | None:
    """Return the plan of a birthday attempt, or None where it is of no use or not allowed."""
    one, other = nature(ours), nature(theirs)
    if _hopeless(one, other) or not (ours.birthday_allowed and theirs.birthday_allowed):
        return None
    hard = theirs if one.easy else ours
    return Plan(
        PlanKind.BIRTHDAY,
        Part.GUESSES if one.easy else Part.OPENS_SOCKETS,
        Part.OPENS_SOCKETS if one.easy else Part.GUESSES,
        (CandidateKind.PREDICTED if one.easy else CandidateKind.REFLEXIVE, CandidateKind.RELAYED),
        birthday.chance(sockets=effort.sockets, probes=effort.guesses, ports=_ports(hard, effort)),
        _guessing_takes(hard, effort),
        _keep_alive(ours, theirs),
        f"by birthday: {_obstacles(ours, theirs)}; {_promise(hard, effort, 'succeeds')}",
    )


def _relay(ours: Side, theirs: Side, effort: Effort) -> Plan:
    blocked = [f"{whose} network blocks UDP" for side, whose in _whose(ours, theirs) if side.behaviour.udp_blocked]
    if blocked:
        why = " and ".join(blocked)
    elif _hopeless(nature(ours), nature(theirs)):
        probes = birthday.probes_if_both_are_hard(0.5, ports=_ports(theirs, effort))
        why = f"{_obstacles(ours, theirs)}; to guess both ports would take {_thousands(probes)} probes"
    else:
        hard = theirs if nature(ours).easy else ours
        whose = "" if theirs.birthday_allowed else " on both sides" if not ours.birthday_allowed else " on their side"
        promise = _promise(hard, effort, "would succeed")
        why = f"{_obstacles(ours, theirs)}; {promise}; enable with {BIRTHDAY_SETTING} = true{whose}"
    keep_alive, nothing = _keep_alive(ours, theirs), Part.NOTHING
    return Plan(PlanKind.RELAY, nothing, nothing, (CandidateKind.RELAYED,), 0.0, 0, keep_alive, f"relayed: {why}")


# What the plans are made of.


def _hopeless(one: Nature, other: Nature) -> bool:
    """Return whether guessing one side's port is not enough, or would be guessing what is known."""
    return one.easy == other.easy


def _same_site(ours: Side, theirs: Side) -> bool:
    outside = [side.behaviour.mapped.host if side.behaviour.mapped else side.outside for side in (ours, theirs)]
    hidden = [side.behaviour.translated is not False for side in (ours, theirs)]
    return outside[0] is not None and outside[0] == outside[1] and all(hidden)


def _as_ipv6(side: Side) -> Side:
    assert side.ipv6 is not None, "asked only where there is IPv6"
    return Side(side.ipv6, lifetime=side.lifetime)


def _usual(theirs: Side) -> tuple[CandidateKind, ...]:
    if theirs.port_mapped:
        return CandidateKind.MAPPED, CandidateKind.REFLEXIVE
    return (CandidateKind.REFLEXIVE,)


def _ports(hard: Side, effort: Effort) -> int:
    """Return how many ports the hard side's NAT draws from; a peer says what it likes of itself, also nonsense."""
    if hard.allocation is None:
        return birthday.PORTS
    claimed = hard.allocation.port_max - hard.allocation.port_min + 1
    return min(max(claimed, effort.sockets, effort.guesses), birthday.PORT_MAX)


def _opening_takes(effort: Effort) -> Duration:
    return int(ROUND_TRIPS_TO_OPEN * effort.round_trip)


def _guessing_takes(hard: Side, effort: Effort) -> Duration:
    """Return the median: half the sockets are open, on average, while they are being opened at the same pace."""
    probes = birthday.probes_for(0.5, sockets=effort.sockets, ports=_ports(hard, effort)) + effort.sockets // 2
    return _opening_takes(effort) + probes * SECOND // effort.probes_per_second


def _keep_alive(ours: Side, theirs: Side) -> Duration:
    shortest = min((side.lifetime for side in (ours, theirs) if side.lifetime), default=LIFETIME_SHORTEST)
    # One of two may be lost.
    return max(SECOND, min(KEEP_ALIVE_MAX, shortest // 3))


# The words. They are data for people, so nothing decides by them.

_ON_WHAT: Final = {
    Mapping.ENDPOINT_INDEPENDENT: "endpoint-independent",
    Mapping.ADDRESS_DEPENDENT: "address-dependent",
    Mapping.ADDRESS_AND_PORT_DEPENDENT: "address-and-port-dependent",
}
_BY_WHAT: Final = {
    Filtering.ENDPOINT_INDEPENDENT: "let in anybody",
    Filtering.ADDRESS_DEPENDENT: "filter by address",
    Filtering.ADDRESS_AND_PORT_DEPENDENT: "filter by port",
}


def _obstacles(ours: Side, theirs: Side) -> str:
    """Return for each side what stands in the way: its mapping where that is hard, and its filter otherwise."""
    clauses: list[str] = []
    for side, whose in _whose(ours, theirs):
        own = nature(side)
        subject = f"{whose} mapping" if not clauses else "yours" if whose == "your" else "theirs"
        if own.mapping is None:
            clauses.append(f"what {whose} mapping depends on is not known")
        elif not own.easy:
            clauses.append(f"{subject} is {_ON_WHAT[own.mapping]}")
        elif own.filtering is None:
            clauses.append(f"what {whose} NAT filters by is not known")
        else:
            verb = _BY_WHAT[own.filtering].replace("let", "lets").replace("filter", "filters")
            clauses.append(f"{subject if clauses else f'{whose} NAT'} {verb}")
    return ", ".join(clauses)


def _whose(ours: Side, theirs: Side) -> tuple[tuple[Side, str], ...]:
    """Return both sides with their words, the hard one first."""
    sides = (ours, "your"), (theirs, "their")
    return sides[::-1] if nature(ours).easy and not nature(theirs).easy else sides


def _sides(ours: Side, theirs: Side, we_are: bool, they_are: bool) -> tuple[tuple[Side, str, bool], ...]:
    return (ours, "you", we_are), (theirs, "they", they_are)


def _reachable(side: Side, who: str) -> str:
    whose = "your" if who == "you" else "their"
    if side.port_mapped:
        return f"{whose} gateway forwards a port to {'you' if who == 'you' else 'them'}"
    if side.behaviour.translated is False:
        return f"{who} can be reached from anywhere"
    return f"{whose} NAT lets in anybody"


def _counts(side: Side) -> str:
    assert side.allocation is not None, "only what is known is foretold"
    if side.allocation.pattern is Pattern.PRESERVING:
        return "keeps the ports of new sockets"
    return f"counts its ports up by {side.allocation.step}"


def _promise(hard: Side, effort: Effort, verb: str) -> str:
    """Return what guessing would bring within ten seconds, or within its whole time where that is less."""
    within = min(10 * SECOND, effort.birthday_for)
    probes = min(_ports(hard, effort), effort.probes_per_second * within // SECOND)
    odds = birthday.chance(sockets=effort.sockets, probes=probes, ports=_ports(hard, effort))
    return f"a birthday attempt {verb} with {_percent(odds)} within {within // SECOND} s"


def _percent(odds: float) -> str:
    # Never "100 %": nothing here is certain.
    return f"{min(99, round(100 * odds))} %"


def _thousands(count: int) -> str:
    return f"{round(count, -3):,}".replace(",", " ")
