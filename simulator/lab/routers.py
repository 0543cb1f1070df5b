"""What a router of the kernel's own does, from the properties of a NAT: rules for nftables and parameters of Linux.

A router has an interface to its `lan` and one to its `wan`. Connection tracking is the table of sessions: it
translates, and lets in what answers. What RFC 4787 asks beyond that is in maps of the rules' own, filled by what
leaves and refreshed by all that passes: `out` says which outside port an inside endpoint has, so that a mapping does
not depend on the destination, or on its address alone; `in` says whose an outside port is, and `heard` from whom it
may be reached, so that filtering can be easier than a connection's.

What comes in unsolicited is dropped, as home routers do. Otherwise a peer's early packet would own the entry of the
connection table, and what we then send to exactly that peer would leave from another port.

A hairpin is what it says: a packet from the inside to the outside address leaves by `wan` and comes back. So it meets
the same mappings and filters as any other, and needs no rules, only a route (`simulator.lab.wiring`).

Not as in the simulator, because the kernel decides: a port that is taken is replaced by a random one, not the next; a
session is as old as `lifetime_of_one_packet` says until it has been answered and is two seconds old; sequential ports
come round after 4096 of them; and a table's size counts connections.
"""

from collections.abc import Iterator
from typing import Final

from simulator.lab.errors import NotOnLinux
from simulator.net.nat import Allocation, Collision, Full, NatKind
from simulator.rng import SplitMix64
from teale_proto.contract import SECOND, Duration
from teale_proto.nat.kinds import Filtering, Hairpinning, Mapping

INSIDE: Final = "lan"
OUTSIDE: Final = "wan"

SESSIONS_UNLIMITED: Final = NatKind().sessions_max
"""From this size on, a table is as large as the kernel's own."""

_SEQUENCE: Final = 4096
_LEAVES: Final = f'iifname "{INSIDE}" oifname "{OUTSIDE}"'
_TO_OUTSIDE: Final = f'oifname "{OUTSIDE}"'
_FROM_OUTSIDE: Final = f'iifname "{OUTSIDE}"'
_FROM_INSIDE: Final = f'iifname "{INSIDE}"'
_UDP: Final = "meta l4proto udp"

# How the inside endpoint, the outside port and the remote address of a session are called in the connection table:
# for sessions that began inside, and for those that began outside.
_BEGUN_INSIDE: Final = ("ct original ip saddr . ct original proto-src", "ct reply proto-dst", "ct original ip daddr")
_BEGUN_OUTSIDE: Final = ("ct reply ip saddr . ct reply proto-src", "ct original proto-dst", "ct original ip saddr")


def why_not(kind: NatKind) -> list[str]:
    """Return everything about a NAT that Linux cannot be, in words; nothing where it can be all of it."""
    reasons = {
        "whose mappings depend on more than its filtering does: who answers a stranger does so from the port that the "
        "stranger sent to": kind.translates and kind.mapping > kind.filtering,
        "whose mappings share a port, unless only filtering by address and port tells them apart": (
            kind.collision is Collision.OVERLOAD
            and (kind.mapping, kind.filtering) != (Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT)
        ),
        "that keeps the parity of ports": kind.keeps_parity,
        "that what comes in does not keep open: connection tracking counts both ways": not kind.inbound_refreshes,
        "that makes room by forgetting the oldest session": (
            kind.when_full is Full.EVICT_OLDEST and kind.sessions_max < SESSIONS_UNLIMITED
        ),
        "that hands hairpins on with their inside source": (
            kind.translates and kind.hairpinning is Hairpinning.INTERNAL_SOURCE
        ),
        "with lifetimes that are not whole seconds": bool(kind.lifetime % SECOND or _one_packet(kind) % SECOND),
    }
    return [f"Linux cannot be a NAT {reason}" for reason, is_so in reasons.items() if is_so]


def check(kind: NatKind) -> None:
    """Raise NotOnLinux where Linux cannot be such a NAT."""
    if reasons := why_not(kind):
        raise NotOnLinux("; ".join(reasons))


def parameters_of(kind: NatKind | None) -> dict[str, int]:
    """Return the parameters of a router's network, beneath /proc/sys/net."""
    parameters = {
        "ipv4/ip_forward": 1,
        "ipv4/conf/all/rp_filter": 0,
        "ipv4/conf/default/rp_filter": 0,
        "ipv4/conf/all/send_redirects": 0,
        "ipv4/conf/default/send_redirects": 0,
        # A hairpin comes back from an address that is the router's own.
        "ipv4/conf/all/accept_local": 1,
        "ipv6/conf/all/disable_ipv6": 1,
        "ipv6/conf/default/disable_ipv6": 1,
        "bridge/bridge-nf-call-iptables": 0,
        "bridge/bridge-nf-call-ip6tables": 0,
        # What the router has forgotten, it does not take up again in the middle.
        "netfilter/nf_conntrack_tcp_loose": 0,
        "netfilter/nf_conntrack_tcp_be_liberal": 1,
    }
    if kind is not None:
        parameters["netfilter/nf_conntrack_udp_timeout"] = _one_packet(kind) // SECOND
        parameters["netfilter/nf_conntrack_udp_timeout_stream"] = kind.lifetime // SECOND
    return parameters


def rules_of(kind: NatKind | None, *, outside: str = "", only_tcp_443: bool = False, rng: SplitMix64) -> str:
    """Return the rules of a router that does what `kind` says, in place of all rules before; None lets all pass.

    `outside` is the address that a NAT has. The first port of a sequence is drawn. Raises NotOnLinux for a kind that
    Linux cannot be.
    """
    if kind is None:
        return "flush ruleset\n" + (_table(_only_tcp_443()) if only_tcp_443 else "")
    check(kind)
    parts = [*(_maps(kind) if kind.translates else _spoken(kind)), *_forward(kind, only_tcp_443=only_tcp_443)]
    if kind.translates:
        parts += [*_input(outside), *_translation(kind, rng), *_notes(kind)]
    return "flush ruleset\n" + _table(parts)


def _table(parts: list[str] | Iterator[str]) -> str:
    return "\n".join(["table ip router {", *parts, "}", ""])


def _chain(name: str, hook: str, *rules: str) -> Iterator[str]:
    yield f"  chain {name} {{"
    if hook:
        yield f"    type {hook};"
    yield from (f"    {rule}" for rule in rules)
    yield "  }"


def _one_packet(kind: NatKind) -> Duration:
    return kind.lifetime if kind.lifetime_of_one_packet is None else kind.lifetime_of_one_packet


# What passes.


def _only_tcp_443() -> Iterator[str]:
    yield from _chain(
        "forward",
        "filter hook forward priority 0; policy drop",
        f'{_FROM_INSIDE} oifname "{INSIDE}" accept',
        f"{_LEAVES} tcp dport 443 accept",
        "ct state established,related accept",
    )


def _forward(kind: NatKind, *, only_tcp_443: bool) -> Iterator[str]:
    if only_tcp_443:
        yield from _only_tcp_443()
        return
    rules = []
    if kind.udp_blocked:
        rules.append(f"{_UDP} drop")
    # A connection that a reboot has cut is dead, and whoever sends on it from the inside is told.
    rules.append(f"{_FROM_INSIDE} meta l4proto tcp ct state invalid reject with tcp reset")
    if kind.sessions_max < SESSIONS_UNLIMITED:
        rules.append(f"{_LEAVES} {_UDP} ct state new ct count over {kind.sessions_max} drop")
    if not kind.translates and kind.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT:
        away, back = _spoken_keys(kind)
        rules.append(f"{_LEAVES} {_UDP} update @heard {{ {away} }}")
        rules.append(f"{_FROM_OUTSIDE} {_UDP} {back} @heard update @heard {{ {back} }} accept")
    rules.append(f"{_FROM_INSIDE} accept")
    rules.append("ct state established,related accept")
    rules.append("ct status dnat accept")
    yield from _chain("forward", "filter hook forward priority 0; policy drop", *rules)


def _input(outside: str) -> Iterator[str]:
    yield from _chain(
        "input",
        "filter hook input priority 0",
        f"{_FROM_OUTSIDE} ct state new,invalid drop",
        f"{_FROM_INSIDE} ip daddr {outside} drop",
    )


# What a firewall remembers.


def _spoken_keys(kind: NatKind) -> tuple[str, str]:
    """Return what tells sessions of a firewall apart, as seen in what leaves and in what comes back."""
    if kind.filtering is Filtering.ENDPOINT_INDEPENDENT:
        return "ip saddr . udp sport", "ip daddr . udp dport"
    return "ip saddr . udp sport . ip daddr", "ip daddr . udp dport . ip saddr"


def _spoken(kind: NatKind) -> Iterator[str]:
    if kind.filtering is Filtering.ENDPOINT_INDEPENDENT:
        yield _remembered("set", "heard", "ipv4_addr . inet_service", kind)
    elif kind.filtering is Filtering.ADDRESS_DEPENDENT:
        yield _remembered("set", "heard", "ipv4_addr . inet_service . ipv4_addr", kind)


# What a NAT remembers.


def _overloads(kind: NatKind) -> bool:
    return kind.allocation is Allocation.PRESERVING and kind.collision is Collision.OVERLOAD


def _has_out(kind: NatKind) -> bool:
    return kind.mapping is not Mapping.ADDRESS_AND_PORT_DEPENDENT and not _overloads(kind)


def _has_in(kind: NatKind) -> bool:
    preserves = kind.allocation is Allocation.PRESERVING and not _overloads(kind)
    return preserves or kind.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT


def _has_heard(kind: NatKind) -> bool:
    return kind.filtering is Filtering.ADDRESS_DEPENDENT


def _remembered(what: str, name: str, key_and_value: str, kind: NatKind) -> str:
    lifetime = f"{kind.lifetime // SECOND}s"
    return f"  {what} {name} {{ type {key_and_value}; flags dynamic,timeout; timeout {lifetime}; size 65535; }}"


def _maps(kind: NatKind) -> Iterator[str]:
    remote = " . ipv4_addr" if kind.mapping is Mapping.ADDRESS_DEPENDENT else ""
    if _has_out(kind):
        yield _remembered("map", "out", f"ipv4_addr . inet_service{remote} : inet_service", kind)
    if _has_in(kind):
        yield _remembered("map", "in", "inet_service : ipv4_addr . inet_service", kind)
    if _has_heard(kind):
        yield _remembered("set", "heard", "inet_service . ipv4_addr", kind)


def _translation(kind: NatKind, rng: SplitMix64) -> Iterator[str]:
    lets_in = {
        Filtering.ENDPOINT_INDEPENDENT: f"{_FROM_OUTSIDE} {_UDP} dnat ip to udp dport map @in",
        Filtering.ADDRESS_DEPENDENT: f"{_FROM_OUTSIDE} udp dport . ip saddr @heard dnat ip to udp dport map @in",
    }
    if kind.filtering in lets_in:
        yield from _chain("arriving", "nat hook prerouting priority -100", lets_in[kind.filtering])
    rules = []
    if _has_out(kind):
        remote = " . ip daddr" if kind.mapping is Mapping.ADDRESS_DEPENDENT else ""
        rules.append(f"{_TO_OUTSIDE} {_UDP} masquerade to :ip saddr . udp sport{remote} map @out")
    rules += _new_ports(kind, rng)
    rules.append(f"{_TO_OUTSIDE} masquerade")
    yield from _chain("leaving", "nat hook postrouting priority 100", *rules)


def _new_ports(kind: NatKind, rng: SplitMix64) -> Iterator[str]:
    """Yield the rules that choose the outside port of a new mapping; the kernel keeps a port where it is not told."""
    anywhere = f"{_TO_OUTSIDE} {_UDP} masquerade to :{kind.port_min}-{kind.port_max} fully-random"
    if kind.allocation is Allocation.RANDOM:
        yield anywhere
    elif kind.allocation is Allocation.SEQUENTIAL:
        size = kind.port_max - kind.port_min + 1
        first = rng.randrange(size)
        # Only through a map does the number keep its byte order: by itself it would count in steps of 256.
        ports = (kind.port_min + (first + number * kind.step) % size for number in range(_SEQUENCE))
        chosen = ", ".join(f"{number} : {port}" for number, port in enumerate(ports))
        yield f"{_TO_OUTSIDE} {_UDP} masquerade to :numgen inc mod {_SEQUENCE} map {{ {chosen} }}"
    elif not _overloads(kind):
        yield f"{_TO_OUTSIDE} udp sport @in masquerade to :{kind.port_min}-{kind.port_max} fully-random"


def _notes(kind: NatKind) -> Iterator[str]:
    """Yield the chains that fill the maps, once all is translated, and refresh them, whichever way a packet goes."""
    if not (_has_out(kind) or _has_in(kind)):
        return
    for name, (inside, port, remote) in (("begun_inside", _BEGUN_INSIDE), ("begun_outside", _BEGUN_OUTSIDE)):
        rules = []
        if _has_out(kind):
            of = f" . {remote}" if kind.mapping is Mapping.ADDRESS_DEPENDENT else ""
            rules.append(f"{_UDP} update @out {{ {inside}{of} : {port} }}")
        if _has_in(kind):
            rules.append(f"{_UDP} update @in {{ {port} : {inside} }}")
        if _has_heard(kind):
            rules.append(f"{_UDP} update @heard {{ {port} . {remote} }}")
        yield from _chain(name, "", *rules)
    yield from _chain(
        "passed",
        "filter hook postrouting priority 200",
        f"{_TO_OUTSIDE} {_UDP} ct direction original jump begun_inside",
        f"{_FROM_OUTSIDE} {_UDP} ct direction reply jump begun_inside",
        f"{_FROM_OUTSIDE} {_UDP} ct direction original jump begun_outside",
        f"{_TO_OUTSIDE} {_UDP} ct direction reply jump begun_outside",
    )
