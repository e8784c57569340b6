"""`autoresearch results`, of campaigns and of any results.tsv."""

from __future__ import annotations

import csv
import io
import time
from datetime import datetime
from pathlib import Path

import pytest
from nights import document, hostile, night, refused, said, typed
from repo import Repo

from pytest_autoresearch.cli.results import moment_of
from pytest_autoresearch.core.errors import UserError

UPSTREAM = (
    "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
    "a1b2c3d\t0.997900\t44.0\tkeep\tbaseline\n"
    "b2c3d4e\t0.993200\t44.2\tkeep\tincrease LR to 0.04\n"
    "c3d4e5f\t1.005000\t44.0\tdiscard\tswitch to GeLU activation\n"
    "d4e5f6a\t0.000000\t0.0\tcrash\tdouble model width (OOM)\n"
)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is no repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers(text: str) -> list[str]:
    """The first column of a table."""
    return [line.split()[0] for line in text.splitlines()[1:-1]]


def test_a_campaign_is_a_table_with_what_became_of_it(repo: Repo) -> None:
    night(repo)
    lines = typed("results", "--tag", "t").splitlines()
    assert lines[0].split() == ["no.", "verdict", "val_bpb", "change", "memory", "time", "description"]
    assert lines[2].split()[:4] == ["0001", "keep", "0.900000", "-0.100000"]
    assert lines[3].split()[:4] == ["0002", "crash", "exit", "1"]
    assert lines[3].endswith("action 2: crash (RuntimeError: the tensor is sad)")
    assert lines[-1] == "4 experiments: 2 kept, 1 discarded, 1 crashed; val_bpb 1.000000 -> 0.850000 (0004)"
    assert len({line.find("a") for line in lines[1:3]}) <= 2


def test_the_campaign_worked_on_last_is_meant_unless_its_branch_is_checked_out(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    assert document(capsys, "results", "--json")[0]["tag"] == "u"
    repo.git("checkout", "-q", "autoresearch/t")
    assert document(capsys, "results", "--json")[0]["tag"] == "t"


def test_rows_are_chosen_by_rank_verdict_and_text(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)

    def found(*words: str, status: int = 0) -> list[str]:
        return numbers(said(capsys, "results", "--tag", "t", *words, status=status))

    assert found("--top", "2") == ["0004", "0001"]
    assert found("--kept-only") == ["0000", "0001", "0004"]
    assert found("--kept-only", "--top", "1") == ["0004"]
    assert found("--grep", "ACTION 2") == ["0002"]
    assert found("--grep", "exit 1") == ["0002"]
    assert found("--grep", "tensor is SAD") == ["0002"]
    assert found("--grep", "nothing like it", status=1) == []
    assert found("--since", "1h") == ["0000", "0001", "0002", "0003", "0004"]
    assert found("--since", "2199-01-01", status=1) == []
    assert said(capsys, "results", "--tag", "t", "--kept-only").splitlines()[-1].startswith("3 shown of 4 experiments")


def test_programs_get_more_than_the_file_has(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    rows = document(capsys, "results", "--tag", "t", "--format", "json")
    kept, crashed = rows[1], rows[2]
    assert (kept["number"], kept["status"], kept["reason"]) == (1, "keep", "improved")
    assert (kept["metric"], kept["best"], kept["runs"]) == (0.9, 1.0, 1)
    assert kept["gain"] == pytest.approx(0.1)
    assert kept["seconds"] > 0
    assert len(kept["commit"]) == len(kept["base"]) == 40
    assert kept["proposer"] == "plan"
    assert crashed["metric"] is None
    assert crashed["message"] == "exit 1: RuntimeError: the tensor is sad"
    header, *lines = said(capsys, "results", "--tag", "t", "--format", "tsv").splitlines()
    assert header.split("\t") == list(kept)
    assert [len(line.split("\t")) for line in lines] == [len(kept)] * 5
    table = list(csv.DictReader(io.StringIO(said(capsys, "results", "--tag", "t", "--format", "csv"))))
    assert [row["status"] for row in table] == ["keep", "keep", "crash", "discard", "keep"]
    assert table[2]["metric"] == ""


def test_text_of_strangers_reaches_no_terminal_table_or_spreadsheet_raw(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    hostile(repo)
    for shape in ("table", "tsv", "csv", "json"):
        text = said(capsys, "results", "--tag", "t", "--format", shape)
        assert "\x1b" not in text
        assert "owned" not in text or shape == "json"
    rows = said(capsys, "results", "--tag", "t", "--format", "tsv").splitlines()
    assert "clean second line <script>alert(1)</script> =1+1" in rows[-1].split("\t")
    row = list(csv.DictReader(io.StringIO(said(capsys, "results", "--tag", "t", "--format", "csv"))))[-1]
    assert row["area"] == "'=cmd"
    assert row["gain"] == "-0.05"


def test_what_is_written_is_read(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    for shape in ("tsv", "csv"):
        (repo.path / f"all.{shape}").write_text(said(capsys, "results", "--tag", "t", "--format", shape))
        rows = document(capsys, "results", f"all.{shape}", "--json")
        assert [row["status"] for row in rows] == ["keep", "keep", "crash", "discard", "keep"]
        assert rows[4]["metric"] == 0.85
    own = document(capsys, "results", "results.tsv", "--json")
    assert [row["description"] for row in own] == ["baseline", "action 1: 1.5"]


# ------------------------------------------------------------------------------------------------ files


def test_a_file_of_upstream_is_shown_in_the_same_table(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "results.tsv").write_text(UPSTREAM)
    lines = said(capsys, "results", "results.tsv").splitlines()
    assert lines[0].split() == ["no.", "verdict", "val_bpb", "change", "memory", "description"]
    assert lines[2].split()[:6] == ["2", "keep", "0.993200", "-0.004700", "44.2", "GB"]
    assert lines[4].split()[:3] == ["4", "crash", "crash"]
    assert lines[-1] == "4 rows: 2 kept, 1 discarded, 1 crashed; val_bpb 0.997900 -> 0.993200 (2)"
    assert numbers(said(capsys, "results", "results.tsv", "--kept-only", "--top", "1")) == ["2"]


def test_columns_are_found_by_name_in_any_order_and_others_are_kept(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "\ufeffstatus\tDescription\tseed\tpeak_vram_mb\tcommit\tval_bpb\r\n"
        "keep\tbaseline\t42\t45060.2\ta1b2c3d\t0.9979\r\n"
        '\r\ncrash\t"a ""quoted"" one"\t43\tcrash\tb2c3d4e\tcrash\r\n'
        "discard\tshort\r\n"
        "KEPT\tbetter\t44\t\tc3d4e5f\t0.99\r\n"
    )
    (in_folder / "theirs.tsv").write_bytes(text.encode())
    rows = document(capsys, "results", "theirs.tsv", "--json")
    assert [row["status"] for row in rows] == ["keep", "crash", "discard", "keep"]
    assert [row["metric"] for row in rows] == [0.9979, None, None, 0.99]
    assert rows[0]["memory_mb"] == 45060.2
    assert rows[1]["description"] == 'a "quoted" one'
    assert [row["seed"] for row in rows] == ["42", "43", "", "44"]
    assert rows[2]["commit"] == ""
    lines = said(capsys, "results", "theirs.tsv").splitlines()
    assert lines[0].split() == ["no.", "verdict", "val_bpb", "change", "memory", "seed", "description"]


def test_a_metric_of_any_name_is_found_and_its_direction_told_by_the_keeps(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_folder / "speed.tsv").write_text(
        "commit\trows_per_s\tstatus\tdescription\na\t10\tkeep\tbase\nb\t12.5\tkeep\tbetter\nc\tcrash\tcrash\tno\n"
    )
    rows = document(capsys, "results", "speed.tsv", "--top", "1", "--json")
    assert [(row["metric_name"], row["metric"], row["best"]) for row in rows] == [("rows_per_s", 12.5, 10.0)]


def test_quotes_tabs_and_strange_separators_inside_a_description_stay_in_it(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_folder / "r.tsv").write_text(
        'commit\tval_bpb\tmemory_gb\tstatus\tdescription\na\t1.0\t1.0\tkeep\t"warm\u2028up\nb\t0.9\t1.0\tkeep\tone\ttwo\n'
    )
    rows = document(capsys, "results", "r.tsv", "--json")
    assert [row["description"] for row in rows] == ['"warm\u2028up', "one two"]


def test_a_file_in_utf_16_is_read(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "r.tsv").write_bytes(UPSTREAM.encode("utf-16"))
    assert len(document(capsys, "results", "r.tsv", "--json")) == 4


def test_escapes_in_a_file_do_not_reach_the_terminal(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, _, rows = UPSTREAM.partition("\n")
    (in_folder / "r.tsv").write_text(
        f"{header}\t\x1b[31mextra\n{rows}" + "\x1b[31mx\t\x1b[2J\t1\tkeep\t\x1b]0;owned\x07hello\n"
    )
    for shape in ("table", "tsv", "csv"):
        text = said(capsys, "results", "r.tsv", "--format", shape)
        assert "\x1b" not in text
        assert "hello" in text


@pytest.mark.parametrize("content", [b"", b"\n", b"hello world\n", b"a1b2c3d\t0.99\t44\tkeep\tbaseline\n", b"\xff\xfe"])
def test_a_file_that_is_no_table_is_refused_in_one_sentence(
    content: bytes, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_folder / "r.tsv").write_bytes(content)
    assert "its first line must name columns" in refused(capsys, "results", "r.tsv")


def test_a_header_alone_is_an_empty_table(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "r.tsv").write_text(UPSTREAM.partition("\n")[0])
    assert document(capsys, "results", "r.tsv", "--json", status=1) == []


def test_what_a_file_cannot_answer_is_refused(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "r.tsv").write_text(UPSTREAM)
    assert "has no times" in refused(capsys, "results", "r.tsv", "--since", "2h")
    assert "leave one of them out" in refused(capsys, "results", "r.tsv", "--tag", "t")
    assert "cannot be read" in refused(capsys, "results", "missing.tsv")


# ------------------------------------------------------------------------------------------------ times


def test_since_takes_times_ago_times_of_day_and_dates() -> None:
    now = datetime(2026, 11, 27, 7, 30).timestamp()
    hour = 3600.0
    assert moment_of("2h", now) == now - 2 * hour
    assert moment_of("1.5 h", now) == now - 1.5 * hour
    assert moment_of("3d", now) == now - 72 * hour
    assert moment_of("30min", now) == now - hour / 2
    assert moment_of("06:00", now) == now - 1.5 * hour
    assert moment_of("22:30", now) == now - 9 * hour  # last night's
    assert moment_of("2026-11-27", now) == now - 7.5 * hour
    assert moment_of("2026-11-26 22:30", now) == now - 9 * hour
    assert moment_of("2026-11-27T05:30:00Z", now) == datetime.fromisoformat("2026-11-27T05:30:00+00:00").timestamp()


@pytest.mark.parametrize("text", ["yesterday", "2", "26-11-2026", "h", "25:00", ""])
def test_since_says_what_it_takes(text: str) -> None:
    with pytest.raises(UserError, match="give a time ago such as 8h"):
        moment_of(text, time.time())


def test_a_line_that_is_no_experiment_is_counted_apart(in_folder: Path) -> None:
    (in_folder / "results.tsv").write_text(f"{UPSTREAM}half a li\n")
    last = typed("results", "results.tsv").splitlines()[-1]
    assert last.startswith("4 rows: 2 kept, 1 discarded, 1 crashed; 1 line without verdict and metric; val_bpb")


# ------------------------------------------------------------------------------------------------ without a campaign


def test_the_table_of_a_repository_without_a_campaign_is_shown(
    repo: Repo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is no campaign in this repository yet" in refused(capsys, "results")
    (repo.path / "results.tsv").write_text(UPSTREAM)
    assert said(capsys, "results").splitlines()[-1].startswith("4 rows: 2 kept")
    (repo.path / "below").mkdir()
    monkeypatch.chdir(repo.path / "below")
    assert len(document(capsys, "results", "--json")) == 4
    assert "there is no campaign 'x'" in refused(capsys, "results", "--tag", "x")


def test_a_campaign_is_shown_before_any_table_and_says_its_metric_itself(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    (repo.path / "results.tsv").write_text(UPSTREAM)
    assert len(document(capsys, "results", "--tag", "t", "--json")) == 5
    assert document(capsys, "results", "--json")[0]["tag"] == "u"
    assert "leave --metric out" in refused(capsys, "results", "--metric", "loss")
