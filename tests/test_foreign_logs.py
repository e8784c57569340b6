"""Logs of experiments in the shapes that other people's tools write, each with the reading of a person who looks at it.

The shapes were seen in public repositories; the contents are made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from nights import document, refused, said

from pytest_autoresearch.cli.log_columns import number, word
from pytest_autoresearch.cli.upstream import Results, read
from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.core.metric_names import direction_of

DOWN, UP = Direction.MINIMIZE, Direction.MAXIMIZE


@dataclass(frozen=True, slots=True)
class Shape:
    """A file and its right reading.

    Attributes:
        text: The file.
        metric: The metric's name.
        direction: Which way it improves; None where nobody can know.
        values: The metric of each row; None where nothing comparable was measured.
        words: The word of each row's verdict.
        best: The name of the best kept row; empty where nobody can know.
        doubt: A part of what is said about a guess; empty if nothing is to be said.
    """

    text: str
    metric: str
    direction: Direction | None
    values: list[float | None]
    words: str
    best: str = ""
    doubt: str = ""


def tsv(*lines: str) -> str:
    """Lines with ` | ` between the fields, as TSV."""
    return "".join(line.replace(" | ", "\t") + "\n" for line in lines)


SHAPES = {
    "two keeps of a loss, the second worse": Shape(
        tsv(
            "commit | val_bpb | memory_gb | status | description",
            "a1 | 1.000 | 4.0 | keep | a", "b2 | 1.010 | 4.0 | keep | b",
        ),
        "val_bpb", DOWN, [1.0, 1.01], "keep keep", "1", "its keeps say the opposite",
    ),
    "an iteration counter, a difference and a guard": Shape(
        tsv(
            "iteration | commit | metric | delta | guard | status | description",
            "0 | a1b2c3d | 0.9979 | 0.0 | pass | baseline | start",
            "1 | b2c3d4e | 0.9932 | -0.0047 | pass | keep | more heads",
            "2 | - | 1.0050 | +0.0118 | - | discard | fewer",
            "3 | - | 0.000000 | 0.0 | - | crash | out of memory",
            "4 | - | 0.9900 | -0.0032 | fail | keep (reworked) | again",
        ),
        "metric", DOWN, [0.9979, 0.9932, 1.005, None, 0.99], "baseline keep discard crash keep", "5",
        "by its verdicts, a lower metric is better",
    ),
    "a remark that tells the direction": Shape(
        tsv(
            "# metric_direction: higher_is_better",
            "iteration | timestamp | commit | metric | delta | guard | status | description",
            "0 | 2026-05-25T16:00:00Z | - | 72.4 | 0 | pass | baseline | start",
            "1 | 2026-05-25T16:10:00Z | a1 | 71.9 | -0.5 | pass | keep | simpler",
        ),
        "metric", UP, [72.4, 71.9], "baseline keep", "1",
    ),
    "units, percents and a dash": Shape(
        tsv(
            "iteration | commit | metric_value | delta | delta_pct | status | description | duration_s | timestamp",
            "0 | a1 | 187.3 | - | - | baseline | start | 2.1 | 2026-03-28T10:00:00Z",
            "1 | b2 | 142.1 | -45.2 | -24.1% | keep | cache | 45.3 | 2026-03-28T10:05:00Z",
            "2 | c3 | 155.8 | +13.7 | +9.7% | discard | async | 62.1 | 2026-03-28T10:10:00Z",
            "3 | - | - | - | - | crash | typo | 5.2 | 2026-03-28T10:15:00Z",
        ),
        "metric_value", DOWN, [187.3, 142.1, 155.8, None], "baseline keep discard crash", "2", "by its verdicts",
    ),
    "before and after, with units": Shape(
        tsv(
            "timestamp | agent | hypothesis | metric_before | metric_after | delta | decision",
            "2026-03-10T22:00:00Z | one | parallel | 145s | 112s | -33s | KEEP",
            "2026-03-10T22:05:00Z | two | retry | 112s | 118s | +6s | DISCARD",
        ),
        "metric_after", DOWN, [112.0, 118.0], "keep discard", "1", "by its verdicts",
    ),
    "milliseconds beside percents are not compared": Shape(
        tsv(
            "timestamp | hypothesis | metric_before | metric_after | decision",
            "2026-03-10 | a | 340ms | 285ms | KEEP",
            "2026-03-11 | b | 285ms | 240ms | KEEP",
            "2026-03-12 | c | 90% | 91% | KEEP",
        ),
        "metric_after", DOWN, [285.0, 240.0, None], "keep keep keep", "2", "by its verdicts",
    ),
    "kept as true and false": Shape(
        tsv(
            "experiment_id | timestamp | hypothesis | total_pnl | fills | fill_rate | kept | git_hash | notes",
            "1 | 2026-03-28T14:00:00 | start | -2.11 | 6 | 1.000 | true | f2da3a2 | -",
            "2 | 2026-03-28T14:15:00 | edge | -0.50 | 3 | 0.750 | true | a1b2c3d | better",
            "3 | 2026-03-28T14:30:00 | off | 0.00 | 0 | 0.000 | false | reverted | none",
        ),
        "total_pnl", UP, [-2.11, -0.5, 0.0], "keep keep discard", "2",
    ),
    "old and new score, with verdicts of its own": Shape(
        tsv(
            "timestamp | commit | skill | old_score | new_score | status | dimension | note | eval_mode",
            "2026-03-31T10:00 | baseline | proof | - | 78 | baseline | - | start | full",
            "2026-03-31T10:05 | a1 | proof | 78 | 84 | keep | edge | more | full",
            "2026-03-31T10:10 | b2 | proof | 84 | 82 | revert | words | less | dry",
            "2026-03-31T10:15 | b3 | proof | 84 | 0 | error | words | less | dry",
        ),
        "new_score", UP, [78.0, 84.0, 82.0, None], "baseline keep revert error", "2",
    ),
    "the metric is named in a column": Shape(
        tsv(
            "timestamp | commit | primary_metric | metric_value | secondary_metrics | status | description",
            '2026-03-09T10:00:00Z | a1 | val_loss | 1.52 | {"train_loss": 1.48} | keep | start',
            '2026-03-09T10:15:00Z | e4 | val_loss | 1.495 | {"train_loss": 1.45} | keep | cosine',
            '2026-03-09T10:30:00Z | i7 | val_loss | 1.55 | {"train_loss": 1.51} | discard | dropout',
        ),
        "val_loss", DOWN, [1.52, 1.495, 1.55], "keep keep discard", "2",
    ),
    "a metric beside the same metric in training": Shape(
        tsv(
            "commit | train_sharpe | sharpe | max_dd | turnover | status | description",
            "a1 | 0.91 | 0.812 | -0.245 | 0.010 | keep | equal",
            "b2 | 1.30 | 1.050 | -0.300 | 0.450 | keep | momentum",
        ),
        "sharpe", UP, [0.812, 1.05], "keep keep", "2",
    ),
    "only metrics of training and before": Shape(
        tsv("id | train_score | metric_before | status", "1 | 0.9 | 0.8 | keep", "2 | 0.7 | 0.8 | keep"),
        "", None, [None, None], "keep keep", "", "name it with --metric NAME; there are id, train_score",
    ),
    "the value of a parameter is no metric": Shape(
        tsv(
            "exp_id | timestamp | parameter | old_value | new_value | verdict | recall_at_10 | commit_hash",
            "7 | 1774958400 | ef | 100 | 200 | KEEP | 0.71 | a1",
            "8 | 1774958460 | ef | 200 | 400 | DISCARD | 0.70 | b2",
        ),
        "recall_at_10", UP, [0.71, 0.7], "keep discard", "1",
    ),
    "a score that falls": Shape(
        tsv(
            "commit | score | delta | status | description",
            "a | 1,500.00 | 0.00 | keep | start", "b | 1,485.50 | -14.50 | keep | imports",
            "c | 0.00 | 0.00 | fail | tests fail", "d | 1,470.20 | -15.30 | keep | flat",
        ),
        "score", DOWN, [1500.0, 1485.5, None, 1470.2], "keep keep fail keep", "4", "by its verdicts, a lower score",
    ),
    "a score in nanoseconds": Shape(
        tsv(
            "id | timestamp | commit | score_ns | tests | clippy | status | notes",
            "1 | 2026-01-01 | a | 812 | PASS | PASS | keep | start",
            "2 | 2026-01-01 | b | 700 | PASS | PASS | keep | fma",
        ),
        "score_ns", DOWN, [812.0, 700.0], "keep keep", "2",
    ),
    "throughput before memory and time": Shape(
        tsv(
            "timestamp | commit | wall_time_s | tps | memory_gib | status | mfu_pct | description",
            "2026-01-01 | a | 61 | 4100 | 40.1 | keep | 31.0 | start",
            "2026-01-01 | x | 60 | 4050 | 40.1 | discard | 30.1 | no",
        ),
        "tps", UP, [4100.0, 4050.0], "keep discard", "1",
    ),
    "time is the metric where there is no other": Shape(
        tsv("run | commit | seconds | status | description", "1 | a | 4.2 | keep | base", "2 | b | 3.9 | keep | fast"),
        "seconds", DOWN, [4.2, 3.9], "keep keep", "2",
    ),
    "percents, stars and blanks": Shape(
        tsv(
            "experiment | accuracy | status | description",
            "1 | 68.6% | keep | start", "2 | 70.1%* | keep | best", "3 |  | discard | empty", "4 | NaN | discard | nan",
            "5 | n/a | iterate | unclear", "6 | 69% | rejected | worse",
        ),
        "accuracy", UP, [68.6, 70.1, None, None, None, 69.0], "keep keep discard discard iterate rejected", "2",
    ),
    "parts of a score before the sum": Shape(
        tsv(
            "commit | skill_precision | context_relevance | combined | status | description",
            "baseline | 0.73 | 1.0 | 0.84 | keep | a", "exp1 | 0.77 | 1.0 | 0.86 | keep | b",
        ),
        "combined", UP, [0.84, 0.86], "keep keep", "2", "by its verdicts, a higher combined",
    ),
    "a night of failures alone": Shape(
        tsv(
            "name | framework | throughput_tok_s | ttft_p50_ms | status | date_run | notes",
            "a | vllm |  |  | failed | 2026-04-06 | exit=1", "b | vllm |  |  | failed | 2026-04-06 | exit=1",
        ),
        "throughput_tok_s", UP, [None, None], "failed failed",
    ),
    "milliseconds, with those of the baseline beside them": Shape(
        tsv(
            "commit | median_e2e_ms | baseline_e2e_ms | change_pct | status | description",
            "e9 | 38596 | 38596 | 0.0 | keep | start", "24 | 34391 | 38596 | -10.9 | keep | text",
            "n/a | n/a | 38596 | n/a | discard | before it ran", "d6 | OOM | 38596 | n/a | reverted | memory",
        ),
        "median_e2e_ms", DOWN, [38596.0, 34391.0, None, None], "keep keep discard reverted", "2",
    ),
    "settings before the metric": Shape(
        tsv(
            "lr | depth | batch_size | seed | widgets | status",
            "0.01 | 4 | 8 | 42 | 3.5 | keep", "0.02 | 4 | 8 | 42 | 3.1 | keep", "0.03 | 4 | 8 | 42 | 3.3 | discard",
        ),
        "widgets", DOWN, [3.5, 3.1, 3.3], "keep keep discard", "2", "by its verdicts, a lower widgets",
    ),
    "all keeps count, not only the first and the last": Shape(
        tsv(
            "commit | widgets | status", *(f"c{n} | {v} | keep" for n, v in enumerate((5, 6, 7, 8, 9, 4.9))),
        ),
        "widgets", UP, [5.0, 6.0, 7.0, 8.0, 9.0, 4.9], "keep keep keep keep keep keep", "5", "a higher widgets is",
    ),
    "an unknown name and one keep": Shape(
        tsv("commit | widgets | status", "a | 5.5 | keep"), "widgets", None, [5.5], "keep", "",
        "add --direction minimize or maximize",
    ),
    "discards that were never measured": Shape(
        tsv(
            "commit | val_loss | status",
            "a | 2.5 | keep", "b | 0.000 | discard", "c | 0.0 | killed", "d | 2.6 | reverted",
        ),
        "val_loss", DOWN, [2.5, None, None, 2.6], "keep discard killed reverted", "1",
    ),
    "CSV with quotes, capitals and spaces": Shape(
        "#,Commit Hash,Val Loss,Peak Memory (GB),Status,Description\n"
        '1,a1,"1,234.5",4.0,Accepted,"a, b"\n2,b2,1.2e3,4.0,Rejected,c\n',
        "val_loss", DOWN, [1234.5, 1200.0], "accepted rejected", "1",
    ),
    "CSV, semicolons": Shape("commit;acc;status\na;0.5;keep\nb;0.6;kept\n", "acc", UP, [0.5, 0.6], "keep keep", "2"),
    "columns parted by spaces": Shape(
        "commit   val_bpb   status    description\n"
        "a1       0.99      keep      base line\n"
        "b2       0.98      improved  two  gaps\n",
        "val_bpb", DOWN, [0.99, 0.98], "keep improved", "2",
    ),
    "backslash t, as echo leaves it": Shape(
        "commit\\tval_bpb\\tstatus\na1\\t0.99\\tkeep\n", "val_bpb", DOWN, [0.99], "keep", "1"
    ),
    "a header that is repeated by a second night": Shape(
        tsv("commit | val_bpb | status", "a | 0.99 | keep", "commit | val_bpb | status", "b | 0.98 | timeout"),
        "val_bpb", DOWN, [0.99, None], "keep timeout", "1",
    ),
    "JSON lines with the direction first": Shape(
        '{"type":"config","name":"fast","metricName":"total_µs","metricUnit":"µs","bestDirection":"lower"}\n'
        '{"run":1,"commit":"a1","metric":15200,"asi":{"next":"try it","n":1},"status":"keep","timestamp":1774958400}\n'
        '{"run":2,"commit":"b2","metric":14100,"metrics":{"compile_µs":4100},"status":"keep","timestamp":1774958460}\n'
        '{"run":3,"commit":"b2","metric":0,"metrics":{},"status":"checks_failed","description":"no","timestamp":1774958500}\n',
        "total_µs", DOWN, [15200.0, 14100.0, None], "keep keep checks_failed", "2",
    ),
    "JSON lines, one of them cut off": Shape(
        '{"iter":1,"commit":"a","metric_before":142,"metric_after":135,"verdict":"KEEP"}\n'
        '{"iter":2,"commit":"b","metric_before":135,"metric_after":128,"verdict":"KEEP"}\n{"iter":3,"comm',
        "metric_after", DOWN, [135.0, 128.0, None], "keep keep ", "2", "by its verdicts",
    ),
    "a JSON document with a list in it": Shape(
        '{"direction": "maximize", "experiments": [{"id": 1, "valAcc": 0.5, "decision": "keep", "note": null},'
        ' {"id": 2, "valAcc": 0.4, "decision": "keep"}]}',
        "val_acc", UP, [0.5, 0.4], "keep keep", "1",
    ),
    "a Markdown table below a text": Shape(
        "# Night\n\nGoal: **lower** is better.\n\n| # | Commit | val_bpb | Verdict | Notes |\n|---|:--|--:|---|---|\n"
        "| 1 | `a1b2c3d` | 0.9979 | ✅ keep | start |\n| 2 | `b2c3d4e` | **0.9932** | **KEEP** | a \\| b |\n"
        "| 3 | - | ~1.01 | ❌ | no |\n\nThe end.\n",
        "val_bpb", DOWN, [0.9979, 0.9932, 1.01], "keep keep discard", "2",
    ),
}  # fmt: skip


def reading(text: str, folder: Path) -> Results:
    path = folder / "log.tsv"
    path.write_text(text)
    return read(path)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_log_is_read_as_a_person_reads_it(shape: Shape, tmp_path: Path) -> None:
    found = reading(shape.text, tmp_path)
    assert (found.metric_name, found.direction) == (shape.metric, shape.direction)
    assert [row.metric for row in found.rows] == shape.values
    assert " ".join(row.status for row in found.rows) == shape.words
    measured = [row for row in found.rows if row.kept and row.metric is not None]
    way = found.direction
    best = max(measured, key=lambda row: way.gain(row.metric or 0.0, 0.0), default=None) if way else None
    assert (best.name if best else "") == shape.best
    assert shape.doubt in found.doubt
    assert bool(shape.doubt) == bool(found.doubt)


@pytest.mark.parametrize(
    ("names", "direction"),
    [
        ("val_bpb valBpb loss val/loss perplexity ppl wer CER test_error error_rate accuracy_loss", DOWN),
        ("seconds step_time_ms ms/step P95_latency peak_memory_mb total_µs time_to_accuracy score_ns", DOWN),
        ("bits_per_byte nll negative_log_likelihood 1_minus_accuracy errors_per_second neg_accuracy", DOWN),
        ("accuracy val_acc_at_1 recall@1 f1-score F1 AUROC map@50 bleu reward winRate success_rate", UP),
        ("tok/s tok_s tokens_per_second it/s rows_per_s throughput mfu_percent speedup loss_reduction", UP),
        ("neg_loss -loss neg_mean_squared_error sharpe pnl_per_fill score acc%", UP),
        ("metric value top-1 learning_rate num_steps lossy timeline accent widgets max_drawdown", None),
    ],
)
def test_the_name_of_a_metric_tells_its_direction_by_whole_words(names: str, direction: Direction | None) -> None:
    assert {name: direction_of(name) for name in names.split()} == dict.fromkeys(names.split(), direction)


def test_numbers_are_read_with_their_decoration_and_nothing_else_is() -> None:
    read_as = {
        "68.6%": 68.6, "1,234.5": 1234.5, "1.2e-3": 0.0012, "0.99*": 0.99, "**0.99**": 0.99, "+0.5": 0.5,
        "$1,234.56": 1234.56, "145s": 145.0, "2.5 MB": 2.5, "~1.01": 1.01, ".5": 0.5,
        "0.995 ± 0.002": 0.995, "0.99 (best)": 0.99, "-3": -3.0,
    }  # fmt: skip
    assert {text: found[0] for text in read_as if (found := number(text))} == read_as
    for text in ("", "-", "nan", "inf", "crash", "a1b2c3d", "1.2.3", "0,997", "8/10", "2026-11-26", "12:30", "1e999"):
        assert number(text) is None, text


def test_words_of_verdicts_lose_their_decoration_and_unknown_ones_stay() -> None:
    assert [word(text) for text in ("KEEP", "kept", "**Keep**", "keep (reworked)", "✅ keep", "yes")] == ["keep"] * 6
    assert [word(text) for text in ("Discarded", "no", "❌", "FALSE")] == ["discard"] * 4
    assert word("no-op") == "no-op"
    assert word("Not kept") == "not kept"
    assert word("Needs review") == "needs review"


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_counts_add_up_to_the_rows_and_other_words_are_named(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = (
        "baseline",
        "keep",
        "kept",
        "discard",
        "crash",
        "rejected",
        "rejected",
        "killed",
        "reverted",
        "iterate",
        "",
    )
    rows = [f"c{n} | {1 - n / 100} | {verdict} | text" for n, verdict in enumerate(verdicts)]
    (in_folder / "r.tsv").write_text(tsv("commit | val_bpb | status | description", *rows))
    last = said(capsys, "results", "r.tsv").splitlines()[-1]
    assert last == (
        "11 rows: 2 kept, 1 discarded, 1 crashed, 2 rejected, 1 baseline, 1 killed, 1 reverted, 1 iterate, "
        "1 without verdict; val_bpb 1.000000 -> 0.980000 (3)"
    )
    many = [f"c{n} | 1 | word{n} | text" for n in range(20)]
    (in_folder / "r.tsv").write_text(tsv("commit | val_bpb | status | description", *many))
    assert said(capsys, "results", "r.tsv").splitlines()[-1].endswith("1 word5, 14 with other words")


def test_the_metric_and_its_direction_can_be_said(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "r.tsv").write_text(
        tsv("id | commit | Train Acc | widgets | status", "1 | a | 0.9 | 7 | keep", "2 | b | 0.7 | 9 | keep")
    )
    top = ("results", "r.tsv", "--json", "--top", "1")
    assert document(capsys, *top, "--direction", "minimize")[0]["metric"] == 7
    assert document(capsys, *top, "--direction", "maximize")[0]["metric"] == 9
    assert document(capsys, *top, "--metric", "train acc")[0]["metric"] == 0.9
    wrong = refused(capsys, "results", "r.tsv", "--metric", "val_bpb")
    assert "has no column val_bpb: give --metric one of id, commit, train_acc, widgets, status" in wrong


def test_what_is_guessed_is_said_beside_the_table(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "r.tsv").write_text(tsv("commit | widgets | status", "a | 7 | keep", "b | 9 | keep"))
    text = said(capsys, "results", "r.tsv")
    assert "widgets 7.000000 -> 9.000000 (2)" in text
    (in_folder / "r.tsv").write_text(tsv("commit | widgets | status", "a | 7 | keep"))
    assert said(capsys, "results", "r.tsv").splitlines()[-1] == "1 row: 1 kept, 0 discarded, 0 crashed"
    assert "add --direction minimize or maximize" in refused(capsys, "results", "r.tsv", "--top", "1")


@pytest.mark.parametrize(
    "text", ["iteration\tcommit\twidgets\tdelta\tguard\tstatus\tdescription\n", "commit,acc,status"]
)
def test_a_header_alone_is_an_empty_night(text: str, in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_folder / "r.tsv").write_text(text)
    assert document(capsys, "results", "r.tsv", "--json", status=1) == []
    assert said(capsys, "results", "r.tsv", status=1).splitlines()[-1] == "0 rows: 0 kept, 0 discarded, 0 crashed"
