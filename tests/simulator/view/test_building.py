import gzip
import shutil
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from simulator.results.model import DamagedResults, HostInfo, MissingResults, RequestRow
from simulator.results.reading import read
from simulator.view import building
from simulator.view.building import view_of
from simulator.view.choosing import HOSTS_SHOWN_MAX, Key, chosen, keys_of, shown_hosts
from simulator.view.model import NOBODY, ONE_SIDED, UNKNOWN, UNTOLD, Between, Request, Step, World

PROMPT = b"simulated-prompt-word"


@pytest.fixture(scope="module")
def world(street: Path) -> World:
    (world,) = view_of([street]).worlds
    return world


def over(world: World, path: str) -> list[Request]:
    return [request for request in world.requests if request.path == path and request.outcome == "finished"]


def said(world: World, request: Request) -> list[str]:
    return [world.labels[step.label] for step in request.steps]


def messages(request: Request) -> list[Step]:
    return [step for step in request.steps if step.to != NOBODY]


def test_every_request_of_the_run_is_there_as_its_table_has_it(world: World, street: Path) -> None:
    rows = read(street).requests
    assert [request.name for request in world.requests] == [row.request for row in rows]
    assert [request.asked_at for request in world.requests] == [row.asked_at for row in rows]
    assert [world.hosts[request.asker].name for request in world.requests] == [row.asker for row in rows]
    assert world.asked == len(rows)
    assert world.left_out == ()
    assert (world.label, world.scenario, world.checks_failed) == ("simulated", "street", 0)


def test_the_run_has_requests_of_every_kind(world: World) -> None:
    kinds = Counter(request.path for request in world.requests)
    assert min(kinds["lan"], kinds["direct"], kinds["relay"], kinds["local"]) >= 1


def test_a_request_begins_with_the_ask_and_ends_with_what_came_of_it(world: World) -> None:
    for request in world.requests:
        steps = said(world, request)
        assert steps[0].startswith("Ask: ")
        if request.outcome == "finished":
            assert sum(step.startswith("ReportFinished: ") for step in steps) == 1
            assert sum(step.startswith("ReportAttempt ") for step in steps) == request.attempts
            assert sum(step == "ReportChunk" for step in steps) >= 1


def test_the_server_begins_once_for_each_attempt_that_reached_it(world: World) -> None:
    for request in over(world, "lan") + over(world, "direct") + over(world, "relay") + over(world, "local"):
        begun = sum(step.startswith("StartGeneration") for step in said(world, request))
        assert 1 <= begun <= request.attempts
        began, first_made, last_made = request.marks
        assert 0 <= began <= first_made <= last_made <= request.ended_at - request.asked_at


def test_steps_are_in_order_and_what_is_sent_arrives_later(world: World) -> None:
    for request in world.requests:
        instants = [step.at for step in request.steps]
        assert instants == sorted(instants)
        assert all(step.arrived in {UNKNOWN, UNTOLD} or step.arrived >= step.at for step in request.steps)


def test_what_is_asked_through_a_relay_makes_two_hops_and_its_answer_two_back(world: World) -> None:
    for request in over(world, "relay"):
        own = [step for step in messages(request) if step.is_own and world.labels[step.label] == "relayData"]
        there, on = own[0], own[1]
        relay = there.to
        assert world.hosts[relay].role == "relay"
        assert (there.host, on.host, on.to) == (request.asker, relay, request.server)
        assert (there.size_bytes, there.arrived) == (on.size_bytes, on.at)
        hops = Counter((step.host, step.to) for step in own)
        assert hops[request.server, relay] == hops[relay, request.asker] >= 1


def test_what_is_asked_without_a_relay_goes_from_host_to_host(world: World) -> None:
    for request in over(world, "lan") + over(world, "direct"):
        ends = {frozenset((step.host, step.to)) for step in messages(request) if step.is_own}
        assert frozenset((request.asker, request.server)) in ends


def test_who_serves_itself_sends_nothing(world: World) -> None:
    for request in over(world, "local"):
        assert not any(step.is_own for step in messages(request))


def test_where_nothing_was_cut_off_everything_that_was_sent_arrived(world: World) -> None:
    for request in world.requests:
        if request.outcome == "finished" and request.attempts == 1:
            own = [step for step in messages(request) if step.is_own]
            assert [step for step in own if step.arrived in {UNKNOWN, UNTOLD}] == []


def test_a_message_is_of_one_request_at_most(world: World) -> None:
    seen: Counter[tuple[int, int, int, int]] = Counter()
    for request in world.requests:
        for step in messages(request):
            if step.is_own:
                seen[request.asked_at + step.at, step.host, step.to, step.size_bytes] += 1
    assert seen
    assert max(seen.values()) <= 2  # two of one instant, host and size may be


def test_paths_end_as_the_table_of_paths_has_them(world: World, street: Path) -> None:
    last = {(change.one, change.other): change.between for change in world.paths}
    names = {host.name: index for index, host in enumerate(world.hosts)}
    for row in read(street).paths:
        if row.state == "connected" and row.path == "lan":
            one, other = sorted((names[row.host], names[row.peer]))
            assert last[one, other] % ONE_SIDED == Between.LAN
    assert any(between % ONE_SIDED == Between.DIRECT for between in last.values())


def test_faults_are_told_and_a_request_knows_of_those_that_befell_its_hosts(world: World) -> None:
    kinds = {each.kind for each in world.happenings}
    assert {"crashed (vanish)", "restarted", "partition began", "partition ended", "nat rebooted"} <= kinds
    assert [life.is_alive for life in world.lives if world.hosts[life.host].name == "home-0"] == [True, False, True]


def test_sites_and_boxes_are_those_of_the_world(world: World) -> None:
    homes = {host.site for host in world.hosts if host.name.startswith("home-") and host.role == "node"}
    assert homes == {"home site 0", "home site 1"}
    rack = next(host for host in world.hosts if host.name == "rack-0")
    assert (rack.site, world.boxes[rack.box].title) == ("rack site 0", "No NAT")


def test_no_prompt_and_no_answer_is_in_the_view_unless_it_is_wanted(street: Path) -> None:
    trace = gzip.decompress((street / "trace.jsonl.gz").read_bytes())
    asked = [line for line in trace.splitlines() if b'"kind":"Ask"' in line]
    assert asked
    without = msgspec.json.encode(view_of([street]))
    assert PROMPT not in without
    assert b"simulated-answer" not in without
    texts = view_of([street], with_texts=True).worlds[0].requests
    assert all(PROMPT.decode() in request.prompt for request in texts)
    assert all(request.answer for request in texts if request.outcome == "finished")


def test_a_page_is_made_to_fit_and_says_what_was_left_out(street: Path, other_street: Path) -> None:
    whole = view_of([street, other_street])
    size = len(msgspec.json.encode(whole))
    small = view_of([street, other_street], bytes_max=size // 3)
    assert len(msgspec.json.encode(small)) <= size // 3
    assert small.worlds[0].left_out
    for world in small.worlds:
        for request in world.requests:
            if request.cut:
                assert 0 < request.cut_at < len(request.steps)
                assert said(world, request)[0].startswith("Ask: ")


def test_both_worlds_show_the_same_requests() -> None:
    def row(asker: str, at: int, outcome: str = "finished") -> RequestRow:
        return RequestRow(f"r{at}", asker, "chat", "m", True, at, None, None, outcome, "", "", 0, 0, 0)

    one = [row("a", at) for at in range(100)]
    other = [row("a", at, "timeout" if at == 17 else "finished") for at in range(100)] + [row("b", 100)]
    assert len(keys_of(one)) == len(set(keys_of(one))) == 100
    assert chosen([one, other], 1000) == {*keys_of(other)}
    few = chosen([one, other], 10)
    assert len(few) == 10
    assert Key("a", 17) in few


def test_of_too_many_hosts_relays_and_those_who_asked_are_shown() -> None:
    hosts = [HostInfo(f"node-{number}", "node", ()) for number in range(HOSTS_SHOWN_MAX)]
    hosts.append(HostInfo("node-late", "node", ()))
    hosts.append(HostInfo("relay", "relay", ()))
    shown = shown_hosts(hosts, ["node-late", "nobody"])
    assert len(shown) == HOSTS_SHOWN_MAX
    assert {"relay", "node-late", "node-0"} <= shown
    assert "nobody" not in shown


def test_a_run_without_a_trace_is_told_how_to_get_one(street: Path, tmp_path: Path) -> None:
    shutil.copytree(street, tmp_path / "copy")
    trace = tmp_path / "copy" / "trace.jsonl.gz"
    data = trace.read_bytes()
    trace.unlink()
    with pytest.raises(MissingResults, match="again with --trace"):
        view_of([tmp_path / "copy"])
    trace.write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedResults, match="cannot be read, after"):
        view_of([tmp_path / "copy"])
    trace.write_bytes(gzip.compress(b'{"at": 1, "host": "a", "kind": "Ask", "value": {"request": 1}}\n'))
    with pytest.raises(DamagedResults, match="after 0 lines"):
        view_of([tmp_path / "copy"])


def test_lines_of_kinds_and_with_fields_that_are_not_known_are_passed_over(street: Path, tmp_path: Path) -> None:
    shutil.copytree(street, tmp_path / "copy")
    trace = tmp_path / "copy" / "trace.jsonl.gz"
    lines = gzip.decompress(trace.read_bytes())
    new = b'{"at": 5, "host": "x", "kind": "Sneezed", "value": {"how": "loudly"}, "mood": 1}\n'
    later = lines.replace(b'"kind":"Ask","value":{', b'"kind":"Ask","value":{"mood":1,')
    trace.write_bytes(gzip.compress(new + later))
    assert view_of([tmp_path / "copy"]).worlds[0].requests == view_of([street]).worlds[0].requests


def test_the_bounds_go_down() -> None:
    for before, after in zip(building._BOUNDS, building._BOUNDS[1:], strict=False):
        assert all(small <= large for small, large in zip(after, before, strict=True))
