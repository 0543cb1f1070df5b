"""What people type for values, and what is made of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.sweep.values import VALUES_MAX, Axis, axis_of, setting_of, shown, typed, typed_all

VALUES = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("count=10", 10),
        ("count=-1", -1),
        ("share=0.5", 0.5),
        ("on=true", True),
        ("access=home", "home"),
        ('access="home"', "home"),
        ("line=good wifi", "good wifi"),
        ("regions={europe = 1.0}", {"europe": 1.0}),
        ("absent=[1, 2]", [1, 2]),
        ("model=a=b", "a=b"),
        (" path = 3 ", 3),
    ],
)
def test_a_value_is_what_toml_reads_and_otherwise_text(text: str, value: Any) -> None:
    found = setting_of(text)[1]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["count", "=3", "count=", "", "="])
def test_a_setting_without_path_or_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not of the form path=value"):
        setting_of(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("count=10,30,100", (10, 30, 100)),
        ("count=10", (10,)),
        ("access=home,cellular", ("home", "cellular")),
        ("access=home, cellular", ("home", "cellular")),
        ("mixed=1,many", (1, "many")),
        ("absent=[1],[1, 2]", ([1], [1, 2])),
        ("on=true,false", (True, False)),
        ("like=1,true,1.0", (1, True, 1.0)),
    ],
)
def test_an_axis_is_values_with_commas_between(text: str, values: tuple[Any, ...]) -> None:
    axis = axis_of(text)
    assert axis.values == values
    assert list(map(type, axis.values)) == list(map(type, values))


def test_a_value_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a value is there twice in 10,20,10"):
        axis_of("count=10,20,10")


def test_an_axis_has_at_most_so_many_values() -> None:
    everything = ",".join(map(str, range(VALUES_MAX)))
    assert len(axis_of(f"count={everything}").values) == VALUES_MAX
    with pytest.raises(ValueError, match="values are too many"):
        axis_of(f"count={everything},-1")


def test_text_cannot_smuggle_in_a_second_key() -> None:
    assert setting_of("x=1\ny = 2")[1] == "1\ny = 2"


@given(VALUES)
def test_what_is_typed_for_a_value_gives_it_back(value: Any) -> None:
    found = setting_of(f"path={typed(value)}")[1]
    assert (found, type(found)) == (value, type(value))


@given(st.lists(VALUES, min_size=1, max_size=4, unique_by=repr))
def test_what_is_typed_for_an_axis_gives_it_back(values: list[Any]) -> None:
    assert axis_of(f"path={typed_all(values)}") == Axis("path", tuple(values))


def test_a_cell_shows_text_without_quotes() -> None:
    assert [shown(value) for value in ("home", 10, 0.5, True, ["a", 1], {"europe": 1.0})] == [
        "home",
        "10",
        "0.5",
        "true",
        "[a, 1]",
        "{europe: 1.0}",
    ]
