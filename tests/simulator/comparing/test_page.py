"""The page and the text: disagreements first, everything reachable, nothing fetched, nothing taken for markup."""

import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from simulator.comparing import files
from simulator.comparing.cast import cell_name
from simulator.comparing.comparison import Comparison
from simulator.comparing.drawing import dots
from simulator.comparing.measured import Figure, Measure, Unit
from simulator.comparing.page import page
from simulator.comparing.wording import amount, of_seeds, text
from simulator.results.model import MadeBy, ResultsError
from tests.simulator.comparing.worlds import held, measured
from tests.simulator.results.samples import NASTY
from tests.simulator.results.test_page import Reader

MADE = MadeBy("1.0", "", "3.11")
KINDS = ("public", "easy", "hard")


def matrix() -> Comparison:
    cells = [(cell_name(one, other), one) for place, one in enumerate(KINDS) for other in KINDS[place:]]
    ours = measured(1, paths={(cell, "direct"): 4 for cell, _ in cells})
    lab = measured(1, paths={(cell, "relay" if one == "hard" else "direct"): 4 for cell, one in cells})
    return held((ours,), (lab,))


def nasty() -> Comparison:
    figures = {
        Figure(Measure.FIRST_TOKEN, NASTY): (100_000, 110_000),
        Figure(Measure.WHOLE, NASTY): (1_000_000, 3_000_000),
        Figure(Measure.BYTES_IN, NASTY): (10_000,),
    }
    away = {figure: tuple(3 * value for value in values) for figure, values in figures.items()}
    ours = measured(1, figures, {(cell_name(NASTY, NASTY), "direct"): 1})
    return held((ours,), (measured(1, away, {(cell_name(NASTY, NASTY), NASTY): 1}, broken=(NASTY,)),))


def shown(comparison: Comparison) -> str:
    return page(comparison, "teale-sim compare x", MADE)


def test_disagreements_come_first_and_then_every_table_has_its_headings() -> None:
    made = shown(nasty())
    tags = [tag for tag, _ in Reader(made).tags if tag in {"h1", "h2", "h3"}]
    assert tags[0] == "h1"
    assert set(tags[1:]) == {"h2"}
    places = [made.index(f'id="{name}"') for name in ("disagreements", "tallies", "paths", "measure-first-token")]
    assert places == sorted(places)
    assert made.count("<table") == made.count("<thead>") == made.count("</thead>")
    assert made.count('scope="col"') > 10


def test_hostile_names_stay_text_and_nothing_is_fetched_or_run() -> None:
    made = shown(nasty())
    reader = Reader(made)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert "<script>alert" in "".join(reader.texts)
    for _, attributes in reader.tags:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"https?://|url\(|@import", made)


def test_every_name_in_the_page_is_there_once_and_whatever_points_finds_it() -> None:
    tags = Reader(shown(nasty())).tags
    names = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in tags:
        for name in ("href", "aria-labelledby"):
            if name in attributes:
                assert str(attributes[name]).removeprefix("#") in names


def test_a_matrix_says_each_cell_in_a_word_and_marks_what_differs_by_a_sign_too() -> None:
    made = shown(matrix())
    assert made.count("<td>direct</td>") == 8
    assert made.count('<td class="differs">✗ direct → relay</td>') == 1
    assert "hard × hard should end as direct 100%; in the lab it is relay 100%." in "".join(Reader(made).texts)  # noqa: RUF001


def test_pictures_have_a_text_and_are_well_formed_and_shapes_tell_inside_from_outside() -> None:
    figure = Figure(Measure.FIRST_TOKEN, "x")
    ours = tuple(measured(seed, {figure: (100_000 + seed * 1_000,)}) for seed in range(11))
    shapes = {}
    for value in (105_000, 110_500, 900_000, 1):
        (row,) = held(ours, (measured(1, {figure: (value, value)}),)).figures
        drawn = dots(row, 1000, 'a "text"')
        assert ElementTree.fromstring(drawn).attrib["aria-label"] == 'a "text"'
        shapes[value] = "circle" if "<circle" in drawn else drawn.count(",", drawn.index("points"))
        numbers = [float(number) for number in re.findall(r'(?:cx|x|x1|x2)="([-\d.]+)"', drawn)]
        assert all(0 <= number <= 240 for number in numbers)
    # A disc, a diamond of four corners, an arrow of three at either edge.
    assert shapes == {105_000: "circle", 110_500: 4, 900_000: 3, 1: 3}


def test_an_interval_of_a_single_value_can_be_drawn() -> None:
    figure = Figure(Measure.MESSAGES_IN, "relay-0")
    for value in (0, 7):
        (row,) = held((measured(1, {figure: (value,)}),), (measured(1, {figure: (value,)}),)).figures
        assert "<circle" in dots(row, 1000, "")


def test_many_cases_of_one_disagreement_are_folded_away_behind_a_sentence() -> None:
    figures = [Figure(Measure.FIRST_TOKEN, f"cell {number}") for number in range(9)]
    ours, lab = (measured(1, dict.fromkeys(figures, (value,))) for value in (100_000, 200_000))
    made = shown(held((ours,), (lab,)))
    assert "first token: 9 of 9 are not as predicted, all longer, by 100.0" in made
    assert "<summary>All 9</summary>" in made


def test_when_everything_is_as_predicted_the_page_says_so() -> None:
    figure = Figure(Measure.MET, "x")
    made = shown(held((measured(1, {figure: (5,)}),), (measured(1, {figure: (5,)}),)))
    assert "There are none." in made
    assert "✓ as predicted: all of 1 figures" in made


@pytest.mark.parametrize(
    ("unit", "value", "said"),
    [
        (Unit.TIME, 1_500, "1.5 ms"),
        (Unit.TIME, 2_345_600, "2.346 s"),
        (Unit.COUNT, 12_345, "12 345"),
        (Unit.COUNT, 0.5, "0.5"),
    ],
)
def test_values_are_told_with_their_unit(unit: Unit, value: float, said: str) -> None:
    assert amount(unit, value).replace("\N{NARROW NO-BREAK SPACE}", " ") == said


def test_seeds_in_a_row_are_told_in_short() -> None:
    assert of_seeds((3, 4, 5)) == "3 to 5"
    assert of_seeds((3, 5)) == "3, 5"
    assert of_seeds(()) == ""


def test_a_comparison_is_written_as_a_page_as_text_and_as_json(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "one"
    files.prepare(folder)
    files.write(folder, matrix(), "teale-sim compare x")
    assert (folder / files.TEXT).read_text() == text(matrix())
    Reader((folder / files.PAGE).read_text())
    document = msgspec.json.decode((folder / files.JSON).read_bytes())
    assert document["agrees"] is False
    assert document["overall"] == {"what": "everything", "inside": 5, "of": 6}
    assert document["disagreements"][0]["summary"] == "paths: 1 of 6 cells do not end up as predicted."
    assert document["paths"][0]["is_inside"] is True
    # A comparison may take the place of another one, and of nothing else.
    files.prepare(folder)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ResultsError, match="something other than a comparison"):
        files.prepare(tmp_path)
