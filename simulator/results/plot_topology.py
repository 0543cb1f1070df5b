"""Who was there: relays in the middle, nodes around them by the network that they share, and what went between them."""

from collections import Counter
from collections.abc import Sequence
from math import cos, pi, sin
from typing import Final

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from simulator.results.model import HostInfo, Results
from simulator.results.style import (
    FAINT,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    Plot,
    figure,
    path_look,
    plural,
    shown,
)

HOSTS_DRAWN_MAX: Final = 60
"""Beyond so many hosts, groups are drawn instead of hosts."""
GROUPS_MAX: Final = 16
RELAYS_DRAWN_MAX: Final = 6
ALONE: Final = "internet"

_Point = tuple[float, float]
_ROOM: Final = (1.0, 0.62)
"""Half the width and height of the ellipse on which hosts stand."""


def topology(results: Results) -> Plot | None:
    """Draw the world, or return None where it is empty."""
    hosts = results.world.hosts
    if not hosts:
        return None
    made = figure(4.9)
    axes = made.subplots()
    axes.set_axis_off()
    relays = [host for host in hosts if host.role != "node"]
    nodes = [host for host in hosts if host.role == "node"]
    is_detailed = len(hosts) <= HOSTS_DRAWN_MAX
    if is_detailed:
        _draw_hosts(axes, results, relays, nodes)
    else:
        _draw_groups(axes, relays, nodes)
    axes.set_xlim(-1.32, 1.32)
    axes.set_ylim(-0.9, 0.86)
    return Plot("topology", "Topology", _sentence(relays, nodes, is_detailed=is_detailed), made)


def group_of(host: HostInfo) -> str:
    """Return the network that a host shares with its neighbours, or what stands between it and the internet."""
    shared = [place.segment for place in host.places if place.segment != ALONE]
    return shared[0] if shared else host.behind or ALONE


def _draw_hosts(axes: Axes, results: Results, relays: Sequence[HostInfo], nodes: Sequence[HostInfo]) -> None:
    ordered = sorted(nodes, key=lambda host: (group_of(host), host.name))
    at = {host.name: _on_ellipse(index, len(ordered)) for index, host in enumerate(ordered)}
    at |= {host.name: point for host, point in zip(relays, _in_the_middle(len(relays)), strict=True)}
    _draw_ways(axes, results, at, [host.name for host in relays if host.role == "relay"])
    dead = _dead_at_the_end(results)
    for host in ordered:
        _draw_node(axes, host, at[host.name], is_dead=host.name in dead)
    for host in relays:
        _draw_relay(axes, host, at[host.name], is_dead=host.name in dead)
    _name_groups(axes, ordered)
    axes.text(
        0,
        -0.88,
        "disc: node; crossed: dead at the end; square: relay; lines: served requests, thicker for more\n"
        "solid blue: over the LAN; dashed vermillion: by relay; dotted purple: direct",
        ha="center",
        va="bottom",
        color=MUTED,
        fontsize=8,
    )


def _on_ellipse(index: float, count: int) -> _Point:
    angle = pi / 2 - 2 * pi * (index + 0.5) / max(1, count)
    return _ROOM[0] * cos(angle), _ROOM[1] * sin(angle)


def _in_the_middle(count: int) -> list[_Point]:
    if count == 1:
        return [(0.0, 0.0)]
    return [(0.3 * cos(2 * pi * index / count + pi), 0.18 * sin(2 * pi * index / count + pi)) for index in range(count)]


def _draw_ways(axes: Axes, results: Results, at: dict[str, _Point], relays: Sequence[str]) -> None:
    ways: Counter[tuple[str, str, str]] = Counter()
    for row in results.requests:
        if row.outcome != "finished" or row.asker not in at or row.server not in at or row.asker == row.server:
            continue
        if row.path == "relay" and relays:
            # Which of several relays it was, the requests do not tell: the nearest on the paper stands for it.
            for end in (row.asker, row.server):
                ways[end, _nearest(at, end, relays), row.path] += 1
        else:
            ways[min(row.asker, row.server), max(row.asker, row.server), row.path] += 1
    most = max(ways.values(), default=1)
    for (one, other, path), count in sorted(ways.items()):
        look = path_look(path)
        xs, ys = zip(at[one], at[other], strict=True)
        axes.plot(
            xs, ys, color=look.colour, linestyle=look.line, linewidth=0.7 + 3 * count / most, alpha=0.75, zorder=1
        )


def _nearest(at: dict[str, _Point], host: str, relays: Sequence[str]) -> str:
    x, y = at[host]
    return min(relays, key=lambda relay: ((at[relay][0] - x) ** 2 + (at[relay][1] - y) ** 2, relay))


def _draw_node(axes: Axes, host: HostInfo, point: _Point, *, is_dead: bool) -> None:
    x, y = point
    face = PAPER if is_dead else INK
    axes.plot([x], [y], marker="o", markersize=9, color=face, markeredgecolor=INK, markeredgewidth=1.2, zorder=3)
    if is_dead:
        axes.plot([x], [y], marker="x", markersize=5, color=INK, markeredgewidth=1.3, zorder=4)
    align = "left" if x > 0.06 else "right" if x < -0.06 else "center"
    axes.text(1.05 * x, 1.1 * y, shown(host.name), ha=align, va="center" if abs(x) > 0.2 else _outside(y), fontsize=7.5)


def _draw_relay(axes: Axes, host: HostInfo, point: _Point, *, is_dead: bool) -> None:
    marker = "s" if host.role == "relay" else "D"
    face = PAPER if is_dead else ORANGE
    axes.plot(
        *([each] for each in point),
        marker=marker,
        markersize=14,
        color=face,
        markeredgecolor=INK,
        linestyle="",
        zorder=3,
    )
    axes.text(
        point[0],
        point[1] - 0.09,
        shown(host.name),
        ha="center",
        va="top",
        zorder=4,
        bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
    )


def _outside(y: float) -> str:
    return "bottom" if y > 0 else "top"


def _name_groups(axes: Axes, ordered: Sequence[HostInfo]) -> None:
    """Draw an arc outside of every network that hosts share, with its name."""
    groups: dict[str, list[int]] = {}
    for index, host in enumerate(ordered):
        groups.setdefault(group_of(host), []).append(index)
    if len(groups) < 2:
        return
    for group, members in groups.items():
        if len(members) < 2:
            continue
        steps = [members[0] - 0.35 + (members[-1] - members[0] + 0.7) * step / 40 for step in range(41)]
        arc = [_on_ellipse(step, len(ordered)) for step in steps]
        axes.plot([0.9 * x for x, _ in arc], [0.88 * y for _, y in arc], color=FAINT, linewidth=2.5, zorder=0)
        x, y = arc[20]
        axes.text(
            0.74 * x,
            0.76 * y,
            shown(group),
            ha="center",
            va="center",
            fontsize=8,
            color=MUTED,
            zorder=2,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        )


def _dead_at_the_end(results: Results) -> frozenset[str]:
    alive: dict[str, bool] = {}
    for event in results.world.events:
        if event.kind.startswith(("crashed", "stopped")):
            alive[event.host] = False
        elif event.kind == "restarted":
            alive[event.host] = True
    return frozenset(host for host, lives in alive.items() if not lives)


def _draw_groups(axes: Axes, relays: Sequence[HostInfo], nodes: Sequence[HostInfo]) -> None:
    groups = Counter(_kind_of_group(host) for host in nodes).most_common()
    if len(groups) > GROUPS_MAX:
        rest = sum(count for _, count in groups[GROUPS_MAX - 1 :])
        groups = [*groups[: GROUPS_MAX - 1], ("others", rest)]
    most = max((count for _, count in groups), default=1)
    for index, (group, count) in enumerate(groups):
        x, y = _on_ellipse(index, len(groups))
        axes.plot([0, x], [0, y], color=FAINT, linewidth=1 + 4 * count / most, zorder=0)
        size = 12 + 26 * (count / most) ** 0.5
        axes.plot([x], [y], marker="o", markersize=size, color=FAINT, markeredgecolor=INK, zorder=1)
        axes.annotate(
            f"{shown(group)}\n{plural(count, 'node')}",
            (x, y),
            xytext=(0, -size / 2 - 3),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
        )
    box = FancyBboxPatch(
        (-0.26, -0.07), 0.52, 0.14, boxstyle="round,pad=0.02", facecolor=ORANGE, edgecolor=INK, zorder=2
    )
    axes.add_patch(box)
    names = [shown(host.name) for host in relays[:RELAYS_DRAWN_MAX]]
    text = "\n".join(names[:2]) if len(relays) <= 2 else _servers(relays).replace(" and ", "\nand ")
    axes.text(0, 0, text or "no relay", ha="center", va="center", fontsize=8, color="#000000", zorder=3)


def _kind_of_group(host: HostInfo) -> str:
    """Return what a host has in common with many: what it stands behind, rather than which LAN it is on."""
    return host.behind or (ALONE if group_of(host) == ALONE else "on a LAN")


def _servers(relays: Sequence[HostInfo]) -> str:
    """Return how many relays there are, and how many others that are no nodes: STUN servers, gateways."""
    count = sum(host.role == "relay" for host in relays)
    others = len(relays) - count
    return plural(count, "relay") + (f" and {plural(others, 'other server')}" if others else "")


def _sentence(relays: Sequence[HostInfo], nodes: Sequence[HostInfo], *, is_detailed: bool) -> str:
    text = f"{plural(len(nodes), 'node')}, {_servers(relays)}"
    if not is_detailed:
        groups = len({_kind_of_group(host) for host in nodes})
        return f"{text}, too many to draw: each circle is one of {plural(groups, 'group')} of nodes."
    groups = len({group_of(host) for host in nodes} - {ALONE})
    if groups:
        text += f"; the nodes belong to {plural(groups, 'network')} beside the open internet"
    return f"{text}. A line is drawn where requests were served."
