"""Which requests and hosts a page shows when it cannot show all.

A request is known by its asker and by which of its asker's requests it is: that is the same in two runs of one
scenario, so both worlds of a page show the same ones. Those that failed come first; the rest are spread evenly.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from simulator.results.model import HostInfo, RequestRow
from simulator.results.observing import FINISHED

HOSTS_SHOWN_MAX: Final = 300


class Key(NamedTuple):
    """What a request is known by in every world."""

    asker: str
    nth: int


def keys_of(rows: Iterable[RequestRow]) -> list[Key]:
    """Return the key of each request."""
    asked: Counter[str] = Counter()
    keys = []
    for row in rows:
        keys.append(Key(row.asker, asked[row.asker]))
        asked[row.asker] += 1
    return keys


def chosen(worlds: Sequence[Sequence[RequestRow]], requests_max: int) -> frozenset[Key]:
    """Return which requests to show, the same of every world."""
    order: dict[Key, bool] = {}
    for rows in worlds:
        for key, row in zip(keys_of(rows), rows, strict=True):
            order[key] = order.get(key, False) or row.outcome != FINISHED
    if len(order) <= requests_max:
        return frozenset(order)
    failed = _spread([key for key, has_failed in order.items() if has_failed], requests_max // 2)
    others = [key for key in order if key not in set(failed)]
    return frozenset(failed) | frozenset(_spread(others, requests_max - len(failed)))


def shown_hosts(hosts: Sequence[HostInfo], wanted: Iterable[str]) -> frozenset[str]:
    """Return the hosts that the topology shows: relays and servers first, those of `wanted` next, then the others."""
    served = [host.name for host in hosts if host.role != "node"]
    order = dict.fromkeys([*served, *wanted, *(host.name for host in hosts)])
    known = {host.name for host in hosts}
    return frozenset([name for name in order if name in known][:HOSTS_SHOWN_MAX])


def _spread(keys: list[Key], keys_max: int) -> list[Key]:
    if len(keys) <= keys_max:
        return keys
    return [keys[index * len(keys) // keys_max] for index in range(keys_max)]
