"""The page: nothing that a run says is taken for markup, and nothing is fetched."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from simulator.results.drawing import draw
from simulator.results.model import Calibration, Dropped, HostInfo, Place, Results, WorldInfo
from simulator.results.page import Picture, page
from simulator.results.published import PUBLISHED, beside
from simulator.results.style import NAME_MAX, shown
from tests.simulator.results.samples import NASTY, failed_check, request, results, series

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Collects tags and texts, and insists that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def drawn(folder: Path, these: Results) -> str:
    draw(folder, these)
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> str:
    calibration = (Calibration(NASTY, 1.0, 1.0, 2.0, NASTY, NASTY),)
    these = results(host=NASTY, checks=(failed_check(NASTY),), calibration=calibration, dropped=Dropped(1, 2, 3, 4))
    return drawn(tmp_path_factory.mktemp("nasty"), these)


def test_hostile_names_stay_text(nasty: str) -> None:
    reader = Reader(nasty)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    for place in ("h1", "title", "td", "dd", "code"):
        assert place in {tag for tag, _ in reader.tags}
    assert "<script>alert" in "".join(reader.texts)


def test_nothing_is_fetched_and_nothing_runs(nasty: str) -> None:
    for _, attributes in Reader(nasty).tags:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in nasty
    assert set(re.findall(r"url\((.)", nasty)) <= {"#"}
    assert set(re.findall(r"https?://[^\"/ ]+", nasty)) <= {"http://www.w3.org"}


def test_every_name_in_the_page_is_there_once_and_whatever_points_finds_it(nasty: str) -> None:
    tags = Reader(nasty).tags
    names = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in tags:
        for name in ("href", "xlink:href", "aria-labelledby"):
            if name in attributes:
                assert str(attributes[name]).removeprefix("#") in names
    for name in re.findall(r"url\(#([^)]*)\)", nasty):
        assert name in names


def test_verdicts_come_first_and_headings_go_down_one_at_a_time(nasty: str) -> None:
    tags = [tag for tag, _ in Reader(nasty).tags if tag in {"h1", "h2", "h3"}]
    assert tags[0] == "h1"
    assert set(tags[1:]) == {"h2"}
    assert nasty.index("30 violations") < nasty.index("In numbers") < nasty.index("Topology") < nasty.index("Faults")
    assert "1 of 1 check failed" in nasty
    assert "The first 1 of 30." in nasty
    assert "1 requests, 2 pairs of host and peer, 3 events, 4 packets" in nasty


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name(nasty: str) -> None:
    scrolling = [attributes for _, attributes in Reader(nasty).tags if attributes.get("class") == "scroll"]
    assert scrolling
    assert all(each["tabindex"] == "0" and each["role"] == "region" and each["aria-labelledby"] for each in scrolling)


def test_pictures_have_a_text_for_those_who_cannot_see_them_and_follow_the_colours_of_the_page(nasty: str) -> None:
    pictures = [attributes for tag, attributes in Reader(nasty).tags if tag == "svg"]
    assert len(pictures) == 6
    assert all(each["role"] == "img" and each["aria-label"] for each in pictures)
    assert "#0072b2" not in nasty.partition("<body>")[2]
    assert "var(--blue)" in nasty


def test_a_name_that_looks_like_a_colour_or_an_id_stays_as_it_is() -> None:
    text = '#1b1f24 id="x" url(#y)'
    svg = f'<?xml?><svg><g id="a"><text style="fill: #1b1f24">{text}</text><use xlink:href="#a"/></g></svg>'
    inline = page(results(), [Picture("p", "t", "s", svg)])
    assert f'<g id="p-a"><text style="fill: var(--ink)">{text}</text><use xlink:href="#p-a"/></g>' in inline


def test_every_plot_is_well_formed_whatever_the_names(tmp_path: Path) -> None:
    for name in (NASTY, "", "$_{\ud7ff\ufffe", "\u202e日本" + "x" * 300):
        draw(tmp_path, results(host=name))
        for path in (tmp_path / "plots").glob("*.svg"):
            ElementTree.parse(path)
        for path in (tmp_path / "plots").glob("*.png"):
            assert path.read_bytes().startswith(b"\x89PNG")


def test_a_name_in_a_plot_is_of_limited_length_and_printable() -> None:
    assert shown("x" * 100) == "x" * (NAME_MAX - 1) + "…"
    assert shown("a\0b\u202ec") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    assert shown("node-1") == "node-1"


def test_an_empty_run_has_a_page_too(tmp_path: Path) -> None:
    empty = Results(results().summary, WorldInfo((), ()), (), (), ())
    text = drawn(tmp_path, empty)
    Reader(text)
    assert "Nothing was done to the world." in text
    assert [path.name for path in (tmp_path / "plots").glob("*.svg")] == ["timeline.svg"]


def test_a_large_world_with_many_relays_is_drawn_in_groups(tmp_path: Path) -> None:
    hosts = [
        HostInfo(f"node-{number}", "node", (Place("internet", ""),), f"kind {number % 20}") for number in range(500)
    ]
    relays = [HostInfo(f"relay-{number}", "relay", ()) for number in range(9)]
    rows = [
        row
        for number in range(9)
        for metric in ("relay_connections", "relay_bytes_in", "relay_messages_out")
        for row in series(metric, f"relay-{number}", [number] * 300)
    ]
    requests = tuple(request(f"node-{number}", "finished", f"path {number % 7}") for number in range(500))
    many = Results(results().summary, WorldInfo((*hosts, *relays), ()), tuple(rows), requests, ())
    text = drawn(tmp_path, many)
    assert "others" in text
    assert "4 others" in (tmp_path / "plots" / "relay-load.svg").read_text()


def test_published_figures_have_sources_and_ranges_and_a_run_is_put_beside_them(tmp_path: Path) -> None:
    for name, published in PUBLISHED.items():
        assert published.low <= published.high, name
        assert published.source
    inside, outside = beside("punching", 70.0), beside("direct", 60.0)
    text = drawn(tmp_path, results(calibration=(inside, outside)))
    assert "Within what was published: 1 of 2 figures." in text
    assert "arXiv 2510.27500" in text
