"""Who is kept from whom: blocks between hosts, sites and regions, as lines that are stopped and marks that are dropped.

Where everybody behind one line is kept from everybody behind another, the forwarder stops the one from reaching the
other. Behind a NAT it cannot tell one host from the next; then the host whose packets are to be stopped marks them
with a class of its own (the DSCP field, which nothing else here uses), and the hosts that are not to be reached drop
that class. The same goes for hosts that share a LAN.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from simulator.lab.errors import LabError
from simulator.net.medium import Block

CLASSES_MAX: Final = 63
"""Of DSCP values beside 0, which is no class (RFC 2474)."""


class Attached(NamedTuple):
    """Where a host is: by which line, and under what names it may be meant from beyond that, and from within."""

    line: int
    names: frozenset[str]
    """Its own, its site's and its region's."""
    name: str


class Stops(NamedTuple):
    """What has to be done for some blocks."""

    lines: frozenset[tuple[int, int]]
    """From which line to which nothing may pass."""
    marks: Mapping[str, int]
    """The class of each host that has one."""
    drops: Mapping[str, frozenset[int]]
    """The classes that each host drops, of those that drop any."""


def stops_of(blocks: Iterable[Block], hosts: Sequence[Attached]) -> Stops:
    """Return how to stop what the blocks stop; raises LabError where there are too many classes of hosts."""
    stopped = {
        (source.name, target.name)
        for block in blocks
        for source in hosts
        for target in hosts
        if source is not target and _stops(block, source, target)
    }
    behind: dict[int, list[str]] = {}
    for host in hosts:
        behind.setdefault(host.line, []).append(host.name)
    lines = frozenset(
        (up, down)
        for up, sources in behind.items()
        for down, targets in behind.items()
        if up != down and all((source, target) in stopped for source in sources for target in targets)
    )
    line_of = {host.name: host.line for host in hosts}
    kept_from: dict[str, set[str]] = {}
    for source, target in sorted(stopped):
        if (line_of[source], line_of[target]) not in lines:
            kept_from.setdefault(source, set()).add(target)
    classes: dict[frozenset[str], int] = {}
    marks, drops = {}, dict[str, set[int]]()
    for source, targets in kept_from.items():
        marks[source] = classes.setdefault(frozenset(targets), len(classes) + 1)
        for target in targets:
            drops.setdefault(target, set()).add(marks[source])
    if len(classes) > CLASSES_MAX:
        raise LabError(f"partitions that tell {len(classes)} groups behind shared lines apart, more than {CLASSES_MAX}")
    return Stops(lines, marks, {host: frozenset(dropped) for host, dropped in drops.items()})


def rules_of(mark: int | None, drops: frozenset[int]) -> str:
    """Return the rules of a host that marks what it sends and drops what is marked, in place of those before."""
    parts = ["table inet partition {}", "delete table inet partition"]
    if mark is None and not drops:
        return "\n".join((*parts, ""))
    parts.append("table inet partition {")
    if mark is not None:
        parts.append("  chain out { type filter hook output priority 0;")
        parts += [f"    meta protocol {family} {header} dscp set {mark}" for family, header in _FAMILIES]
        parts.append("  }")
    if drops:
        dropped = ", ".join(map(str, sorted(drops)))
        parts.append("  chain in { type filter hook prerouting priority -300;")
        parts += [f"    meta protocol {family} {header} dscp {{ {dropped} }} drop" for family, header in _FAMILIES]
        parts.append("  }")
    return "\n".join((*parts, "}", ""))


_FAMILIES: Final = (("ip", "ip"), ("ip6", "ip6"))


def _stops(block: Block, source: Attached, target: Attached) -> bool:
    if source.line == target.line:
        # What stays within a site does not leave it.
        return source.name in block.sources and target.name in block.targets
    return bool(source.names & block.sources and target.names & block.targets)
