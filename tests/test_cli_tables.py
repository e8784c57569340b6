"""A campaign as a table for notebooks and other programs: `load_campaign`, `results --format parquet`, the notebook."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib import pyplot
from nights import COMMAND, night
from repo import Repo

from pytest_autoresearch import load_campaign
from pytest_autoresearch.cli import tables
from pytest_autoresearch.core.errors import UserError

NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook" / "night.ipynb"


def test_a_campaign_is_a_data_frame_with_a_row_for_each_experiment(repo: Repo) -> None:
    night(repo)
    frame = load_campaign(repo.path, tag="t")
    assert list(frame.number) == [record.number for record in repo.records()]
    assert dict(zip(frame.number, frame.status, strict=True)) == repo.statuses()
    assert frame.metric.isna().sum() == (frame.status == "crash").sum() > 0
    assert isinstance(frame.finished_at.dtype, pd.DatetimeTZDtype)
    assert frame.finished_at.is_monotonic_increasing


def test_the_campaign_is_found_as_the_commands_find_it(repo: Repo) -> None:
    night(repo)
    assert set(load_campaign(repo.path).tag) == {"u"}  # worked on last
    repo.git("checkout", "-q", "autoresearch/t")
    (repo.path / "deep").mkdir()
    assert set(load_campaign(repo.path / "deep").tag) == {"t"}
    with pytest.raises(UserError, match="there is no campaign 'x' in this repository; it has t, u"):
        load_campaign(repo.path, tag="x")


def test_without_pandas_it_is_a_list_of_dictionaries(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    night(repo)
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    rows = load_campaign(repo.path, tag="t")
    assert [row["number"] for row in rows] == [record.number for record in repo.records()]
    assert rows[0]["description"] == "baseline"
    assert rows[0]["finished_at"].tzinfo is not None


def test_parquet_has_the_same_rows_with_types(repo: Repo) -> None:
    night(repo)
    command = [*COMMAND, "results", "--tag", "t", "--format", "parquet"]
    written = subprocess.run(command, cwd=repo.path, capture_output=True, check=True).stdout
    (repo.path / "all.parquet").write_bytes(written)
    table = pq.read_table(repo.path / "all.parquet")
    frame = load_campaign(repo.path, tag="t")
    assert table.column_names == list(frame.columns)
    assert table["number"].to_pylist() == list(frame.number)
    assert pa.types.is_timestamp(table.schema.field("finished_at").type)
    assert pa.types.is_floating(table.schema.field("metric").type)
    assert table["metric"].null_count == frame.metric.isna().sum()
    assert not any(pa.types.is_null(field.type) for field in table.schema)


def test_the_notebook_runs_from_top_to_bottom(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    night(repo)
    repo.git("checkout", "-q", "autoresearch/t")
    monkeypatch.chdir(repo.path)
    pyplot.switch_backend("agg")
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    assert all(not cell["outputs"] for cell in cells)  # outputs of somebody's night are not for the repository
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), "night.ipynb", "exec"), names)
    kept = names["kept"]
    assert isinstance(kept, pd.DataFrame)
    assert list(kept.number) == [number for number, status in repo.statuses().items() if status == "keep" and number]
    pyplot.close("all")
