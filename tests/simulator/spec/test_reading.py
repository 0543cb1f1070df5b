"""Descriptions in TOML: what is read, and what is said of what cannot be."""

from pathlib import Path

import msgspec
import pytest

from simulator.spec.faults import Crash, Partition
from simulator.spec.load import Requests
from simulator.spec.reading import SpecError, changed, line_of, read_toml, steps_of
from simulator.spec.world_spec import WorldSpec, to_builtins

TEXT = """\
summary = "two homes"
lasts = 90

[[populations]]
name = "home"
count = 4

[[populations]]
name = "phone"
count = 2
access = "cellular"

[requests]
per_node_hour = 60

[[faults]]
kind = "crash"
host = "home-1"
at = 30
back_after = 10

[[faults]]
kind = "partition"
sources = ["phone"]
targets = ["relay-0"]
at = 40
until = 50
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "village.toml"
    path.write_text(text)
    return path


def complaint(folder: Path, text: str) -> str:
    path = written(folder, text)
    with pytest.raises(SpecError) as caught:
        read_toml(path)
    return str(caught.value).removeprefix(str(path))


def test_a_description_is_read_and_named_after_its_file(tmp_path: Path) -> None:
    spec = read_toml(written(tmp_path, TEXT))
    assert spec.name == "village"
    assert spec.node_names == ("home-0", "home-1", "home-2", "home-3", "phone-0", "phone-1")
    assert spec.faults == (
        Crash("home-1", 30, back_after=10),
        Partition(("phone",), ("relay-0",), 40, 50),
    )


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("count = 4", "count = -4", ":6: Expected `int` >= 0, at `populations[0].count`"),
        ("count = 2", 'count = "two"', ":10: Expected `int`, got `str`, at `populations[1].count`"),
        ("count = 2", "cuont = 2", ":8: Object contains unknown field `cuont`, at `populations[1]`"),
        ("at = 30", "", ":16: Object missing required field `at`, at `faults[0]`"),
        ('kind = "crash"', 'kind = "crush"', ":17: Invalid value 'crush', at `faults[0].kind`"),
        ("lasts = 90", "lasts = 0", ":2: Expected `float` > 0.0, at `lasts`"),
        ('host = "home-1"', 'host = "home-9"', ":1: `faults`: there is no host 'home-9'"),
        ('"cellular"', '"carrier pigeon"', ":8: `access`: no 'carrier pigeon'; there are home,"),
        ('summary = "two homes"', "format = 99", ":1: `format` 99 is newer than this program, which reads 1"),
        ("lasts = 90", "lasts =", ": not valid TOML: Invalid value (at line 2,"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, was: str, becomes: str, said: str) -> None:
    assert was in TEXT
    assert complaint(tmp_path, TEXT.replace(was, becomes)).startswith(said)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"missing\.toml: No such file"):
        read_toml(tmp_path / "missing.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes(b'name = "caf\xe9"')
    with pytest.raises(SpecError, match="not UTF-8"):
        read_toml(path)


def test_one_knob_is_changed_by_its_path(tmp_path: Path) -> None:
    spec = read_toml(written(tmp_path, TEXT))
    assert changed(spec, "populations[1].count", 7).populations[1].count == 7
    assert changed(spec, "requests.per_node_hour", 5).requests == Requests(per_node_hour=5.0)
    assert changed(spec, "populations[0].churn.session_median", 60).populations[0].churn is not None
    assert spec.populations[1].count == 2


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("populations[2].count", 1, "populations[2].count: there is no such field"),
        ("populations[0].size", 1, "Object contains unknown field `size`"),
        ("populations[0].count", "many", "Expected `int`, got `str`, at `populations[0].count`"),
        ("", 1, "the path of a field is empty"),
        ("lasts!", 1, "'lasts!' is not the path of a field"),
    ],
)
def test_a_knob_that_is_not_there_is_named(path: str, value: object, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        changed(WorldSpec(name="x"), path, value)
    assert said in str(caught.value)


def test_a_description_survives_its_json() -> None:
    spec = WorldSpec(name="x", faults=(Crash("node-1", 3.5),))
    assert msgspec.json.decode(msgspec.json.encode(spec), type=WorldSpec) == spec
    assert msgspec.convert(to_builtins(spec), WorldSpec) == spec


def test_lines_are_found_in_tables_of_tables() -> None:
    text = "a = 1\n[[b]]\n# b = 3\nc = 2\n[b.d]\ne = 3\n[[b]]\n[b.d]\ne = 4\n"
    assert line_of(text, steps_of("b[0].d.e")) == 6
    assert line_of(text, steps_of("b[1].d.e")) == 9
    assert line_of(text, steps_of("b[1].x")) == 7
