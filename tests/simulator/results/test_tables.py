"""Tables, written and read back."""

from pathlib import Path

import pytest

from simulator.results import tables
from simulator.results.model import DamagedResults, RequestRow, SeriesRow
from simulator.results.tables import Metrics
from tests.simulator.results.samples import NASTY, request, results, series

ROWS = (*results(host=NASTY).requests, request('a,b\r\n"c"', "finished", ""))


@pytest.mark.parametrize("metrics", Metrics)
@pytest.mark.parametrize("rows", [ROWS, ()])
def test_what_is_read_is_what_was_written(tmp_path: Path, metrics: Metrics, rows: tuple[RequestRow, ...]) -> None:
    path = tmp_path / "table"
    tables.write(path, RequestRow, rows, metrics)
    assert tables.read(path, RequestRow, metrics) == rows


@pytest.mark.parametrize("metrics", Metrics)
def test_a_table_with_other_columns_is_damaged(tmp_path: Path, metrics: Metrics) -> None:
    path = tmp_path / "table"
    tables.write(path, SeriesRow, series("m", "", [1]), metrics)
    with pytest.raises(DamagedResults, match=r"table: expected the columns request, asker, .*; found at, interval"):
        tables.read(path, RequestRow, metrics)


@pytest.mark.parametrize("metrics", Metrics)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0rubbish", b"PAR1" + bytes(50)])
def test_a_file_of_something_else_is_damaged(tmp_path: Path, metrics: Metrics, content: bytes) -> None:
    path = tmp_path / "table"
    path.write_bytes(content)
    with pytest.raises(DamagedResults, match="table"):
        tables.read(path, SeriesRow, metrics)
    path.unlink()
    with pytest.raises(DamagedResults, match="the file is missing"):
        tables.read(path, SeriesRow, metrics)


@pytest.mark.parametrize("line", ["1,2,m", "1,2,m,,x", "1,2,m,,3,4", "1.5,2,m,,3", ",2,m,,3"])
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "series.csv"
    path.write_text(f"at,interval,metric,label,value\n0,1,m,,3\n{line}\n")
    with pytest.raises(DamagedResults, match=r"series\.csv:3: not a row of this table"):
        tables.read(path, SeriesRow, Metrics.CSV)


def test_a_table_whose_end_is_missing_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_text("at,interval,metric,label,value\n0,1,m,,3\n1,1,m,,3")
    with pytest.raises(DamagedResults, match=r"series\.csv: is cut off"):
        tables.read(path, SeriesRow, Metrics.CSV)


def test_a_truth_is_written_in_one_way_and_no_other_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table"
    tables.write(path, RequestRow, ROWS, Metrics.CSV)
    path.write_text(path.read_text().replace(",true,", ",yes,"))
    with pytest.raises(DamagedResults, match="'yes' is neither true nor false"):
        tables.read(path, RequestRow, Metrics.CSV)
