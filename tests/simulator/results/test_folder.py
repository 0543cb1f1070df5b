"""Directories of results: whole or not at all, and never in place of anything else."""

from pathlib import Path

import pytest

from simulator.results.folder import SUMMARY, Draft, replace_file
from simulator.results.model import DamagedResults, MissingResults, NewerResults, ResultsError
from simulator.results.reading import read
from simulator.results.recorder import write
from tests.simulator.results.samples import results


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = tmp_path / "stored"
    folder.mkdir()
    write(folder, results())
    return folder


@pytest.mark.parametrize("metrics", ["csv", "parquet"])
def test_what_is_read_is_what_was_written(tmp_path: Path, metrics: str) -> None:
    write(tmp_path, results(metrics=metrics))
    assert read(tmp_path) == results(metrics=metrics)


def test_a_directory_that_is_missing_or_something_else_is_missing_results(tmp_path: Path) -> None:
    with pytest.raises(MissingResults, match="there is no such directory"):
        read(tmp_path / "nowhere")
    with pytest.raises(MissingResults, match=r"it has no summary\.json"):
        read(tmp_path)
    (tmp_path / SUMMARY).write_text('{"format": "other", "format_version": 1}')
    with pytest.raises(MissingResults, match="of something else"):
        read(tmp_path)


def test_a_newer_format_says_so_even_when_the_rest_cannot_be_understood(stored: Path) -> None:
    (stored / SUMMARY).write_text('{"format": "teale-sim results", "format_version": 2, "strange": []}')
    with pytest.raises(NewerResults, match="format 2; this one reads up to 1"):
        read(stored)


@pytest.mark.parametrize("name", ["world.json", "metrics-series.csv", "metrics-requests.csv", "metrics-paths.csv"])
def test_a_missing_file_is_named(stored: Path, name: str) -> None:
    (stored / name).unlink()
    with pytest.raises(DamagedResults, match=f"{name}: the file is missing"):
        read(stored)


@pytest.mark.parametrize("name", [SUMMARY, "world.json", "metrics-series.csv"])
@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "teale-sim results", "format_version": 1}', b"[" * 5000])
def test_a_broken_file_is_named(stored: Path, name: str, content: bytes) -> None:
    (stored / name).write_bytes(content)
    with pytest.raises(DamagedResults, match=name):
        read(stored)


def test_an_unknown_form_of_tables_is_damage(stored: Path) -> None:
    path = stored / SUMMARY
    path.write_text(path.read_text().replace('"csv"', '"xls"'))
    with pytest.raises(DamagedResults, match="'xls'"):
        read(stored)


def test_former_results_are_replaced_and_nothing_else_is_left_beside_them(stored: Path) -> None:
    draft = Draft(stored)
    write(draft.path, results(host="newer"))
    assert read(stored) == results()
    draft.publish()
    assert read(stored) == results(host="newer")
    assert [each.name for each in stored.parent.iterdir()] == ["stored"]


def test_a_directory_is_made_with_its_parents_and_an_empty_one_is_taken(tmp_path: Path) -> None:
    for target in (tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"):
        target.mkdir(parents=True)
        draft = Draft(target)
        write(draft.path, results())
        draft.publish()
        assert read(target) == results()


def test_only_results_are_ever_replaced(tmp_path: Path, stored: Path) -> None:
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_text("cat")
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("text")
    link.symlink_to(stored)
    for target in (other, file, link):
        with pytest.raises(ResultsError, match="will not be replaced"):
            Draft(target)
    assert (other / "cat.jpg").read_text() == "cat"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link", "photos", "stored"]


def test_a_directory_that_became_something_else_during_the_run_is_left_alone(tmp_path: Path) -> None:
    draft = Draft(tmp_path / "target")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").write_text("mine")
    with pytest.raises(ResultsError, match="will not be replaced"):
        draft.publish()
    draft.discard()
    assert [each.name for each in tmp_path.iterdir()] == ["target"]


def test_where_nothing_can_be_written_the_error_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="file: is not a directory"):
        Draft(tmp_path / "file" / "inside")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    (tmp_path / "folder" / "in it").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        replace_file(tmp_path / "folder", b"new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]
