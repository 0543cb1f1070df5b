"""The page as a browser shows it, and as somebody with a keyboard alone uses it."""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from simulator.view.building import view_of
from simulator.view.model import Happening, View, World
from simulator.view.page import page
from tests.simulator.results.samples import NASTY
from tests.simulator.view.browser import CHROMIUM, Page, browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

FOCUS = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
CHOSEN = "document.querySelector('.row[aria-selected=true]')?.getAttribute('aria-label') ?? ''"
NOW = "Number(document.getElementById('time').value)"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def one(street: Path) -> View:
    return view_of([street])


@pytest.fixture(scope="module")
def one_page(one: View, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory, one)


@pytest.fixture(scope="module")
def two_page(street: Path, other_street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    view = view_of([street, other_street])
    lab = msgspec.structs.replace(view.worlds[1], label="lab")
    return written(tmp_path_factory, View(False, (view.worlds[0], lab)))


def written(tmp_path_factory: pytest.TempPathFactory, view: View) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(view), encoding="utf-8")
    return path


def key_of(world: World, index: int) -> str:
    request = world.requests[index]
    return f"{world.hosts[request.asker].name}/{request.nth + 1}"


def test_the_page_opens_without_a_network_and_without_a_complaint(shown: Page, one_page: Path, two_page: Path) -> None:
    for path in (one_page, two_page):
        shown.open(path)
        assert shown.complaints() == []
        assert [url for url in shown.loaded() if not url.startswith(("file:", "about:"))] == []
        assert len([url for url in shown.loaded() if url.startswith("file:")]) == 1


def test_the_browser_itself_refuses_to_load_or_run_anything_else(shown: Page, one_page: Path) -> None:
    shown.open(one_page)
    assert shown.js("fetch('http://127.0.0.1:9/').then(() => 'loaded', () => 'refused')") == "refused"
    shown.js("{const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);}")
    assert shown.js("window.ran ?? 'did not run'") == "did not run"
    assert any("Content Security Policy" in each for each in shown.complaints())


def test_a_place_in_a_run_can_be_given_in_the_address_and_is_kept_there(shown: Page, one: View, one_page: Path) -> None:
    key = key_of(one.worlds[0], 2)
    shown.open(one_page, f"t=31.5&request={key}&host=relay-0")
    assert shown.js("document.getElementById('clock').textContent") == "31.500 s"
    assert shown.js("document.getElementById('request-title').textContent") == f"Request {key}"
    assert "relay-0" in shown.js("document.querySelector('.chip[aria-pressed=true]').getAttribute('aria-label')")
    shown.js("document.getElementById('time').focus()")
    shown.press("Home")
    shown.until("location.hash.startsWith('#t=0.000000&')")
    assert f"request={key.replace('/', '%2F')}" in shown.js("location.hash")


def test_nonsense_in_the_address_is_passed_over(shown: Page, one_page: Path) -> None:
    shown.open(one_page, "t=NaN&request=nobody%2F1&host=<b>&from=9e99&to=-3&x")
    assert shown.complaints() == []
    assert shown.js("document.getElementById('request-title').textContent") == "No request chosen"


def test_the_topology_is_as_it_was_at_the_instant(shown: Page, one: View, one_page: Path) -> None:
    world = one.worlds[0]
    names = {host.name: index for index, host in enumerate(world.hosts)}
    for t in (5.0, 31.0, 20.0, 60.0):
        pairs = {(change.one, change.other): change.between for change in world.paths if change.at <= t * 1e6}
        shown.open(one_page, f"t={t}")
        for number, kind in enumerate(("lan", "direct", "relay"), 1):
            expected = sum(between % 4 == number for between in pairs.values())
            assert shown.js(f"document.querySelectorAll('.paths .path.{kind}').length") == expected
        down = shown.js("[...document.querySelectorAll('.chip.down')].map((chip) => chip.getAttribute('aria-label'))")
        last = {life.host: life.is_alive for life in world.lives if life.at <= t * 1e6}
        assert len(down) == sum(not last.get(index, False) for index in names.values())
        assert any(label.startswith("home-0,") for label in down) == (t == 31.0)


def test_nats_are_told_in_words(shown: Page, one_page: Path) -> None:
    shown.open(one_page)
    cards = shown.js("[...document.querySelectorAll('.card')].map((card) => card.textContent).join('|')")
    assert "Port-restricted NAT" in cards
    assert "Symmetric NAT" in cards
    assert "lets in only the address and port that was sent to before" in cards
    assert shown.js("document.querySelectorAll('.servers .chip').length") == 3


def test_paths_differ_by_pattern_and_not_by_colour_alone(shown: Page, one_page: Path) -> None:
    shown.open(one_page)
    dashes = shown.js(
        "['lan', 'direct', 'relay'].map((kind) => getComputedStyle("
        "document.querySelector(`.legend .path.${kind}`)).strokeDasharray)"
    )
    assert len(set(dashes)) == 3


def test_the_slider_moves_with_the_arrow_keys_and_says_where_it_is(shown: Page, one_page: Path) -> None:
    shown.open(one_page, "t=20")
    shown.js("document.getElementById('time').focus()")
    shown.press("ArrowRight")
    assert 20e6 < shown.js(NOW) < 21e6
    shown.press("ArrowLeft")
    shown.press("ArrowLeft")
    assert 19e6 < shown.js(NOW) < 20e6
    assert "hosts up" in shown.js("document.getElementById('time').getAttribute('aria-valuetext')")
    shown.press("End")
    assert shown.js(NOW) == shown.js("Number(document.getElementById('time').max)")
    shown.press("Home")
    assert shown.js(NOW) == 0


def test_stepping_goes_from_event_to_event_and_tells_each(shown: Page, one: View, one_page: Path) -> None:
    shown.open(one_page)
    shown.js(
        "{const s = document.getElementById('stops'); s.value = 'faults'; s.dispatchEvent(new Event('change'));"
        "document.getElementById('time').focus();}"
    )
    instants = sorted({each.at for each in one.worlds[0].happenings})
    for at in instants:
        shown.press(".")
        assert shown.js(NOW) == at
    told = shown.js("document.getElementById('stop').textContent")
    assert one.worlds[0].happenings[-1].kind in told
    shown.press(".")
    assert shown.js("document.getElementById('stop').textContent") == "Nothing comes after this."
    shown.press(",")
    assert shown.js(NOW) == instants[-2]


def test_it_plays_and_pauses_with_the_space_bar(shown: Page, one_page: Path) -> None:
    shown.open(one_page, "t=10")
    shown.js("document.getElementById('time').focus()")
    shown.press(" ")
    assert shown.js("document.getElementById('play').textContent").split() == ["⏸", "Pause"]
    shown.until(f"{NOW} > 10.2e6")
    shown.press(" ")
    stopped = shown.js(NOW)
    assert shown.js("document.getElementById('play').textContent").split() == ["▶", "Play"]
    shown.js("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    assert shown.js(NOW) == stopped


def test_zooming_keeps_the_instant_in_sight(shown: Page, one_page: Path) -> None:
    shown.open(one_page, "t=31")
    shown.js("document.getElementById('time').focus()")
    whole = shown.js("Number(document.getElementById('time').max)")
    for _ in range(5):
        shown.press("+")
    low, high = shown.js("[Number(document.getElementById('time').min), Number(document.getElementById('time').max)]")
    assert low < 31e6 < high
    assert high - low == pytest.approx(whole / 32, rel=0.01)
    shown.press("0")
    assert shown.js("Number(document.getElementById('time').max)") == whole


def test_the_list_goes_from_request_to_request_and_the_messages_follow(shown: Page, one: View, one_page: Path) -> None:
    world = one.worlds[0]
    shown.open(one_page)
    shown.js("document.querySelector('.list .row').focus()")
    for index in range(1, len(world.requests)):
        shown.press("ArrowDown")
        asker = world.hosts[world.requests[index].asker].name
        assert shown.js(CHOSEN).startswith(f"{asker} asked at")
        assert shown.js("document.getElementById('request-title').textContent") == f"Request {key_of(world, index)}"
        button = shown.js("document.querySelector('.steps .more button') !== null")
        if button:
            shown.js("document.querySelector('.steps .more button').click()")
        steps = shown.js("document.querySelectorAll('.steps .message, .steps .local').length")
        assert steps == len(world.requests[index].steps)
        arrows = shown.js("document.querySelectorAll('.lives .head').length")
        assert arrows == sum(step.to >= 0 and step.arrived >= 0 for step in world.requests[index].steps)
    shown.press("Home")
    assert shown.js(CHOSEN).startswith(world.hosts[world.requests[0].asker].name)


def test_messages_are_told_in_words_too(shown: Page, one: View, one_page: Path) -> None:
    index = next(n for n, each in enumerate(one.worlds[0].requests) if each.path == "relay" and each.server >= 0)
    request = one.worlds[0].requests[index]
    asker, server = (one.worlds[0].hosts[host].name for host in (request.asker, request.server))
    shown.open(one_page, f"request={key_of(one.worlds[0], index)}")
    words = shown.js("document.querySelector('.steps').textContent")
    assert "+0Ask: model-" in words.replace(" ", "").replace("Ask:", "Ask: ")
    assert f"from {asker} to relay-0, arrived at +" in words
    assert f"from relay-0 to {server}, arrived at +" in words


def test_requests_are_found_by_words(shown: Page, one: View, one_page: Path) -> None:
    shown.open(one_page)
    find = "{const f = document.getElementById('filter'); f.value = 'direct'; f.dispatchEvent(new Event('input'));}"
    shown.js(find)
    direct = sum(request.path == "direct" for request in one.worlds[0].requests)
    assert direct
    assert shown.js("[...document.querySelectorAll('.list .row')].filter((row) => !row.hidden).length") == direct
    assert shown.js("document.getElementById('found').textContent").startswith(f"{direct} of ")


def test_everything_can_be_reached_by_tab_and_shows_that_it_is_in_focus(shown: Page, one: View, one_page: Path) -> None:
    shown.open(one_page, f"request={key_of(one.worlds[0], 0)}")
    reached = []
    for _ in range(60):
        shown.press("Tab")
        where = "document.activeElement === document.body"
        if shown.js(where):
            break
        name, style, width = shown.js(
            f"[{FOCUS} || document.activeElement.labels?.[0]?.textContent || '',"
            "getComputedStyle(document.activeElement).outlineStyle,"
            "parseFloat(getComputedStyle(document.activeElement).outlineWidth)]"
        )
        reached.append(re.sub(r"\s+", " ", name).strip())
        assert name.strip(), "what is in focus has a name"
        assert style != "none"
        assert width >= 2
    assert reached[0] == "Skip to the timeline"
    wanted = ("Previous", "Play", "Next", "Time", "relay", "Messages in order")
    assert [word for word in wanted if not any(word in name for name in reached)] == []
    assert any("asked at" in name for name in reached)
    chips = [name for name in reached if name.endswith((", node", ", relay", "STUN server", ", down", ", asks"))]
    assert len(chips) == 1, "one of all hosts is in the tab order; arrow keys move among them"


def test_arrow_keys_move_among_hosts_and_enter_shows_the_paths_of_one(shown: Page, one_page: Path) -> None:
    shown.open(one_page, "t=20")
    shown.js("document.querySelector('.chip[tabindex=\"0\"]').focus()")
    first = shown.js(FOCUS)
    shown.press("ArrowRight")
    assert shown.js(FOCUS) != first
    shown.press("Enter")
    assert shown.js("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert shown.js("document.querySelectorAll('.paths .path.chosen').length") > 0
    assert shown.js("document.querySelector('.board').classList.contains('has-choice')")


def test_two_worlds_are_beside_each_other_on_one_clock(shown: Page, two_page: Path) -> None:
    shown.open(two_page, "t=31&request=friend-0/1")
    boxes = shown.js(
        "['.topology', '.sequence'].map((each) => [...document.querySelectorAll(each)].map((one) => "
        "{const {left, top, width} = one.getBoundingClientRect(); return [left, top, width];}))"
    )
    for (left, top, width), (other_left, other_top, other_width) in boxes:
        assert other_left >= left + width
        assert other_top == top
        assert other_width == width
    worlds = shown.js("[...document.querySelectorAll('.lanes .world')].map((each) => each.textContent)")
    assert worlds == ["simulated", "lab"]
    assert len(set(shown.js("[...document.querySelectorAll('.playhead')].map((each) => each.getAttribute('x1'))"))) == 1
    heads = shown.js("[...document.querySelectorAll('.phase-table thead th')].map((each) => each.textContent)")
    assert heads == ["", "simulated", "lab", "difference"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_dark(shown: Page, one: View, one_page: Path, scheme: str) -> None:
    shown.scheme(scheme)
    shown.open(one_page, f"t=31&request={key_of(one.worlds[0], 0)}")
    shades = shown.js("""(() => {
      const number = (text) => text.match(/[\\d.]+/g).map(Number);
      const seen = (element) => { for (let e = element; e; e = e.parentElement) {
        const c = number(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3]) return c; }
        return number(getComputedStyle(document.body).backgroundColor); };
      const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92
        : ((v / 255 + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const elements = [...document.querySelectorAll('body *')].filter((e) => e instanceof HTMLElement
        && e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
      return elements.map((e) => { const [a, b] = [light(number(getComputedStyle(e).color)), light(seen(e))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.className + ' ' + e.textContent.slice(0, 30)]; });
    })()""")
    shown.scheme("light")
    assert len(shades) > 50
    assert [each for each in shades if each[0] < 4.5] == []


@pytest.mark.parametrize("width", [900, 1100, 1900])
def test_nothing_is_cut_off_in_a_narrow_window(shown: Page, two_page: Path, one_page: Path, width: int) -> None:
    shown.size(width, 900)
    for path in (one_page, two_page):
        shown.open(path, "t=31&request=friend-0/1")
        assert shown.js("document.documentElement.scrollWidth") <= width
        assert shown.js("document.querySelector('svg.lane').getBoundingClientRect().right") <= width
    shown.size(1400, 1000)


def test_hostile_names_stay_text(shown: Page, one: View, tmp_path_factory: pytest.TempPathFactory) -> None:
    world = one.worlds[0]
    nasty = f"</script><img src=x onerror=alert(1)>{NASTY}"
    hosts = tuple(msgspec.structs.replace(host, name=f"{nasty}{n}") for n, host in enumerate(world.hosts))
    boxes = tuple(msgspec.structs.replace(box, title=nasty, words=nasty, code=nasty) for box in world.boxes)
    hostile = msgspec.structs.replace(
        world,
        hosts=hosts,
        boxes=boxes,
        happenings=(Happening(5_000_000, nasty, nasty, nasty),),
        labels=tuple(nasty for _ in world.labels),
        scenario=nasty,
        command=nasty,
        left_out=(nasty,),
        requests=tuple(
            msgspec.structs.replace(each, model=nasty, outcome=nasty, path=nasty) for each in world.requests
        ),
    )
    path = written(tmp_path_factory, View(True, (hostile,)))
    shown.open(path, "t=31")
    shown.js("document.querySelector('.list .row').click()")
    assert shown.complaints() == []
    assert shown.js("document.querySelectorAll('img, iframe, link, object').length") == 0
    assert shown.js("document.scripts.length") == 2
    assert "onerror" in shown.js("document.body.innerText")


def test_an_empty_run_has_a_page_too(shown: Page, one: View, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = msgspec.structs.replace(
        one.worlds[0], hosts=(), boxes=(), lives=(), paths=(), happenings=(), labels=(), requests=(), asked=0, lasts=0
    )
    shown.open(written(tmp_path_factory, View(False, (empty,))))
    assert shown.complaints() == []
    assert "Nobody asked for anything." in shown.js("document.body.innerText")
