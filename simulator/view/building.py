"""From results folders to the view of them, as small as it has to be.

The trace is read twice: first to learn who is who and which connections belong together, then for what happened.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from simulator.results.model import Event, HostInfo, RequestRow, Results
from simulator.results.reading import read
from simulator.view import lines
from simulator.view.choosing import HOSTS_SHOWN_MAX, Key, chosen, keys_of, shown_hosts
from simulator.view.ends import Ends, EndsSurvey
from simulator.view.gathering import AnyStep, Gathered, Gathering, Happened, own_and_near
from simulator.view.model import (
    NOBODY,
    PAGE_BYTES_MAX,
    UNKNOWN,
    UNTOLD,
    Box,
    Happening,
    Host,
    Life,
    PathChange,
    Request,
    Step,
    View,
    World,
)
from simulator.view.paths import Paths, thinned
from simulator.view.texts import answer_of, prompt_of
from simulator.view.words import box_of
from teale_proto.contract import SECOND, Instant

DATA_BYTES_MAX: Final = PAGE_BYTES_MAX - 200_000
"""What is left for data beside the page's program and style."""
DETAIL_MAX: Final = 400
"""Characters of an event's description that are shown."""
INTERNET: Final = "internet"

_ALIVE: Final = {"HostStarted": True, "HostCrashed": False, "HostStopped": False}


class Bounds(NamedTuple):
    """How much of a world a page shows."""

    requests_max: int
    steps_max: int
    changes_max: int


_BOUNDS: Final = (
    Bounds(2000, 4000, 40_000),
    Bounds(2000, 1000, 40_000),
    Bounds(2000, 300, 40_000),
    Bounds(1000, 300, 20_000),
    Bounds(1000, 100, 20_000),
    Bounds(300, 100, 10_000),
    Bounds(100, 60, 5_000),
    Bounds(20, 40, 2_000),
)
"""What is tried, one after the other, until the page is small enough."""


class _Gist(NamedTuple):
    """One folder, read as far as it has to be before anything is chosen."""

    folder: Path
    results: Results


class _Read(NamedTuple):
    """One folder with everything that may be shown."""

    gist: _Gist
    requests: list[Gathered]
    paths: list[PathChange]
    lives: list[Life]
    lasts: Instant


def view_of(directories: Sequence[Path], *, with_texts: bool = False, bytes_max: int = DATA_BYTES_MAX) -> View:
    """Return what a page of one folder or two shows, of at most about `bytes_max` as JSON.

    Raises ResultsError for a folder that holds no results, or none with a trace.
    """
    gists = [_Gist(folder, read(folder)) for folder in directories]
    rows = [gist.results.requests for gist in gists]
    most = chosen(rows, _BOUNDS[0].requests_max)
    worlds = [_read(gist, most, with_texts=with_texts) for gist in gists]
    for bounds in _BOUNDS:
        keys = most & chosen(rows, bounds.requests_max)
        view = View(with_texts, tuple(_world(each, keys, bounds, with_texts=with_texts) for each in worlds))
        if len(msgspec.json.encode(view)) <= bytes_max:
            break
    return view


# Reading.


def _read(gist: _Gist, keys: frozenset[Key], *, with_texts: bool) -> _Read:
    results = gist.results
    rows, hosts = results.requests, results.world.hosts
    ends, servers = _survey(gist.folder, results)
    places = {host.name: index for index, host in enumerate(hosts)}
    gathering = Gathering(
        rows,
        frozenset(index for index, key in enumerate(keys_of(rows)) if key in keys),
        servers,
        frozenset(host.name for host in hosts if host.role == "relay"),
        ends,
        with_texts=with_texts,
    )
    paths, lives, at = Paths(places, ends.nodes), [], 0
    for line in lines.lines_of(gist.folder):
        at = max(at, line.at)
        gathering.observe(line)
        paths.observe(line)
        alive = _ALIVE.get(line.kind)
        if alive is not None and line.host in places:
            lives.append(Life(line.at, places[line.host], alive))
    return _Read(gist, gathering.requests, paths.changes, lives, max(at, round(results.seconds * SECOND)))


def _survey(folder: Path, results: Results) -> tuple[Ends, dict[int, frozenset[str]]]:
    """Return whose connections are whose, and the servers that each request was given to."""
    survey = EndsSurvey(results.world.hosts)
    tried: dict[int, set[str]] = defaultdict(set)
    under_way: dict[tuple[str, str], int] = {}
    asked = 0
    for line in lines.lines_of(folder):
        survey.observe(line)
        value = line.value
        if isinstance(value, lines.Asked):
            under_way[line.host, value.request] = asked
            asked += 1
        elif isinstance(value, lines.Attempted):
            index = under_way.get((line.host, value.request))
            if index is not None:
                tried[index].add(value.server)
        elif isinstance(value, lines.Finished):
            index = under_way.pop((line.host, value.request), None)
            if index is not None and index < len(results.requests):
                survey.named(value.server, results.requests[index].server)
    ends = survey.ends()
    return ends, {index: frozenset(ends.nodes.get(node, node[:8]) for node in nodes) for index, nodes in tried.items()}


# Showing.


class _Labels:
    """Texts that many steps share."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def place(self, text: str) -> int:
        """Return where a text is."""
        return self.places.setdefault(text[:DETAIL_MAX], len(self.places))


def _world(read_: _Read, keys: frozenset[Key], bounds: Bounds, *, with_texts: bool) -> World:
    results = read_.gist.results
    summary, rows = results.summary, results.requests
    indices = [index for index, key in enumerate(keys_of(rows)) if key in keys]
    wanted = [name for index in indices for name in (rows[index].asker, rows[index].server)]
    shown = shown_hosts(results.world.hosts, wanted)
    boxes: dict[str, Box] = {}
    hosts = tuple(_host(host, boxes, is_shown=host.name in shown) for host in results.world.hosts)
    places = {host.name: index for index, host in enumerate(hosts)}
    visible = [change for change in read_.paths if hosts[change.one].is_shown and hosts[change.other].is_shown]
    paths, within = thinned(visible, bounds.changes_max)
    labels = _Labels()
    nth = {index: key.nth for index, key in enumerate(keys_of(rows))}
    requests = tuple(
        _request(read_, index, nth[index], places, labels, bounds.steps_max, with_texts=with_texts) for index in indices
    )
    checks = summary.report.checks
    return World(
        label=summary.world,
        scenario=summary.report.scenario,
        seed=summary.report.seed,
        command=summary.command,
        made_by=" ".join(part for part in (summary.made_by.version, summary.made_by.commit) if part),
        checks=len(checks),
        checks_failed=sum(not check.passed for check in checks),
        lasts=read_.lasts,
        boxes=tuple(boxes.values()),
        hosts=hosts,
        lives=tuple(read_.lives),
        paths=tuple(paths),
        happenings=tuple(_happening(event) for event in results.world.events),
        labels=tuple(labels.places),
        requests=requests,
        asked=len(rows) + summary.dropped.requests,
        left_out=tuple(_left_out(results, requests, hosts, within)),
    )


def _host(host: HostInfo, boxes: dict[str, Box], *, is_shown: bool) -> Host:
    boxes.setdefault(host.behind, box_of(host.behind))
    # Of several attachments, a LAN says more than the internet does.
    sites = [place.segment for place in host.places if place.segment != INTERNET]
    addresses = tuple(place.address for place in host.places)
    return Host(host.name, host.role, sites[0] if sites else "", list(boxes).index(host.behind), addresses, is_shown)


def _happening(event: Event) -> Happening:
    detail = event.detail if len(event.detail) <= DETAIL_MAX else event.detail[:DETAIL_MAX] + "…"
    return Happening(event.at, event.host, event.kind, detail)


def _left_out(results: Results, requests: Sequence[Request], hosts: Sequence[Host], within: int) -> Iterator[str]:
    """Yield what is not in the page, in sentences."""
    asked = len(results.requests)
    if len(requests) < asked:
        yield f"{len(requests)} of {asked} requests are here: those that failed first, the others spread over the run."
    cut = sum(request.cut for request in requests)
    if cut:
        some = sum(request.cut > 0 for request in requests)
        yield f"{cut} messages from the middle of {some} long requests are left out."
    if within:
        yield f"Changes of one path within {within / SECOND:g} s are shown as one."
    hidden = sum(not host.is_shown for host in hosts)
    if hidden:
        yield f"The topology shows {HOSTS_SHOWN_MAX} hosts and not {hidden} others; requests name all of them."
    dropped = results.summary.dropped
    if dropped.requests:
        yield f"{dropped.requests} requests were not kept when the run was recorded."
    if dropped.events:
        yield f"{dropped.events} events were not kept when the run was recorded."


def _request(
    read_: _Read,
    index: int,
    nth: int,
    places: dict[str, int],
    labels: _Labels,
    steps_max: int,
    *,
    with_texts: bool,
) -> Request:
    row, gathered = read_.gist.results.requests[index], read_.requests[index]
    first, last = gathered.steps()
    head = _steps(index, row, first, places, labels)
    tail = _steps(index, row, last, places, labels)
    if gathered.cut:
        cut_at, cut = len(head), gathered.cut
    else:
        head, tail, cut_at, cut = [*head, *tail], [], NOBODY, 0
    head, tail, cut_at, cut = _shortened(head, tail, cut_at, cut, steps_max)
    happened = _befell(read_, row, gathered, places, labels)
    steps = _merged(happened, [*head, *tail])
    return Request(
        name=row.request,
        asker=places.get(row.asker, NOBODY),
        nth=nth,
        model=row.model,
        streaming=row.streaming,
        asked_at=row.asked_at,
        first_at=UNKNOWN if row.first_token_at is None else row.first_token_at,
        ended_at=UNKNOWN if row.ended_at is None else row.ended_at,
        outcome=row.outcome,
        path=row.path,
        server=places.get(row.server, NOBODY),
        attempts=row.attempts,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        marks=tuple(
            UNKNOWN if at is None else at - row.asked_at
            for at in (gathered.began_at, gathered.first_made_at, gathered.last_made_at)
        ),
        steps=tuple(steps),
        cut_at=next((place for place, step in enumerate(steps) if tail and step is tail[0]), NOBODY),
        cut=cut,
        prompt=prompt_of(gathered.body) if with_texts else "",
        answer=answer_of(gathered.chunks) if with_texts else "",
    )


def _shortened(
    head: list[Step], tail: list[Step], cut_at: int, cut: int, steps_max: int
) -> tuple[list[Step], list[Step], int, int]:
    """Take away from the middle until at most so many steps are left."""
    if len(head) + len(tail) <= steps_max:
        return head, tail, cut_at, cut
    whole = [*head, *tail]
    at_front, at_end = steps_max - steps_max // 3, steps_max // 3
    return whole[:at_front], whole[-at_end:], at_front, cut + len(whole) - steps_max


def _steps(
    index: int, row: RequestRow, steps: Iterable[AnyStep], places: dict[str, int], labels: _Labels
) -> list[Step]:
    shown = []
    for step, is_own in own_and_near(index, list(steps)):
        if isinstance(step, Happened):
            host = places.get(step.host, NOBODY)
            shown.append(
                Step(step.at - row.asked_at, host, NOBODY, UNKNOWN, step.size_bytes, labels.place(step.label), is_own)
            )
            continue
        sent = step.sent
        never = UNTOLD if sent.is_untold else UNKNOWN
        arrived = never if sent.arrived_at is None else sent.arrived_at - row.asked_at
        host, to = places.get(sent.host, NOBODY), places.get(sent.to, NOBODY)
        shown.append(Step(sent.at - row.asked_at, host, to, arrived, sent.size_bytes, labels.place(step.label), is_own))
    return shown


def _befell(read_: _Read, row: RequestRow, gathered: Gathered, places: dict[str, int], labels: _Labels) -> list[Step]:
    """Return what was done to the hosts of a request, and to their sites, while it was under way."""
    infos = {host.name: host for host in read_.gist.results.world.hosts}
    concerned = {row.asker, row.server, *_named(gathered)} & infos.keys()
    relays = {name for name in gathered.involved if name in infos and infos[name].role == "relay"}
    names = concerned | {place.segment for name in concerned for place in infos[name].places} | relays
    until = read_.lasts if row.ended_at is None else row.ended_at
    steps = []
    for event in read_.gist.results.world.events:
        if not row.asked_at <= event.at <= until:
            continue
        if event.host in names or (not event.host and names & set(event.detail.replace(";", ",").split(", "))):
            text = f"{event.host} {event.kind}".strip() + (f": {event.detail}" if event.detail else "")
            host = places.get(event.host, NOBODY)
            steps.append(Step(event.at - row.asked_at, host, NOBODY, UNKNOWN, UNKNOWN, labels.place(text), True))
    return steps


def _named(gathered: Gathered) -> Iterator[str]:
    first, last = gathered.steps()
    return (step.to for step in (*first, *last) if isinstance(step, Happened) and step.to)


def _merged(happened: list[Step], steps: list[Step]) -> list[Step]:
    """Return all steps in order; those of an instant keep theirs, after what was done to the world then."""
    return sorted([*happened, *steps], key=lambda step: step.at) if happened else steps
