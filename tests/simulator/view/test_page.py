import re
import tomllib
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from simulator.view.building import DATA_BYTES_MAX, view_of
from simulator.view.model import PAGE_BYTES_MAX, View
from simulator.view.page import page
from tests.simulator.cli.calling import call

VOID = {"meta", "input", "br", "hr", "img", "link"}
PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


class Reader(HTMLParser):
    """Checks that elements end in order, and keeps what they have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open in ([], ["html"], ["html", "body"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def view(street: Path) -> View:
    return view_of([street])


def test_the_page_names_nothing_outside_of_itself(view: View) -> None:
    text = page(view)
    shell = text.partition('<script type="application/json"')[0]
    for _, attributes in Reader(shell + "</html>").tags:
        for name in ("src", "href", "action", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in text
    assert set(re.findall(r"url\(\s*(.)", shell)) <= {"#"}
    program = text.rpartition("<script>")[2]
    assert set(re.findall(r"https?://[^\"'/ ]+", shell + program)) <= {"http://www.w3.org"}
    assert "default-src 'none'" in text


def test_the_program_puts_no_text_into_the_page_as_markup() -> None:
    for asset in (resources.files("simulator.view") / "assets").iterdir():
        if asset.name.endswith(".js"):
            program = asset.read_text(encoding="utf-8")
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "</script"):
                assert word not in program, (asset.name, word)


def test_no_text_of_a_run_can_end_the_data(view: View) -> None:
    world = msgspec.structs.replace(view.worlds[0], scenario="</script><script>alert(1)</script><!--")
    text = page(View(False, (world,)))
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in data
    assert msgspec.json.decode(data, type=View).worlds[0] == world
    assert text.count("</script>") == 2
    assert "<title>&lt;/script&gt;" in text


def test_program_and_style_leave_room_for_the_data(view: View) -> None:
    empty = page(
        View(False, tuple(msgspec.structs.replace(each, requests=(), paths=(), lives=()) for each in view.worlds))
    )
    assert len(empty.encode()) < PAGE_BYTES_MAX - DATA_BYTES_MAX


def test_what_the_page_is_made_of_is_in_the_package() -> None:
    packaged = tomllib.loads(PYPROJECT.read_text())["tool"]["setuptools"]["package-data"]
    assert packaged["simulator.view"] == ["assets/*"]


def test_the_command_writes_one_file(street: Path, other_street: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = call("view", street, other_street, "--out", out)
    assert (result.exit_code, result.stdout.strip()) == (0, str(out))
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert "simulated-prompt-word" not in out.read_text()
    result = call("view", street, "--out", out, "--with-texts", "--json")
    assert msgspec.json.decode(result.stdout) == {
        "page": str(out),
        "size_bytes": out.stat().st_size,
        "left_out": [],
    }
    assert "simulated-prompt-word" in out.read_text()


def test_the_command_says_what_is_wrong(street: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert call("view", "--out", out).exit_code == 2
    assert call("view", street).exit_code == 2
    assert "At most two" in call("view", street, street, street, "--out", out).stderr
    assert "no such directory" in call("view", tmp_path / "nothing", "--out", out).stderr
    assert not out.exists()
    assert call("view", street, "--out", tmp_path / "nowhere" / "page.html").exit_code == 2
