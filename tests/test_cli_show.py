"""`autoresearch show`: everything on one experiment."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from nights import document, hostile, night, on_a_terminal, refused, said, typed
from repo import Repo

from pytest_autoresearch.core.experiment import Repair, Usage
from pytest_autoresearch.core.failure import Stage
from pytest_autoresearch.core.records import encode
from pytest_autoresearch.core.run import Crash, CrashClass, Progress, Role
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.reports.summary import progress_text, summary_lines


def test_an_experiment_is_shown_with_everything_that_its_record_holds(repo: Repo) -> None:
    night(repo)
    record = repo.records()[1]
    text = typed("show", "1", "--tag", "t")
    assert text.startswith("experiment 0001 of t: keep\n")
    for line in (
        "description  action 1: 0.9",
        "proposer     plan",
        "best before  1.000000",
        "gain         +0.100000 (needed 0.000000)",
        "sandbox      none (switched off)",
        f"commit       {record.commit}",
        f"base         {record.base[:7]} (0000)",
        f"change       +1 -1 lines: git diff {record.base[:7]} {record.commit[:7]}",
        "record       refs/autoresearch/t/0001",
        "files        experiments/runs/t/0001",
    ):
        assert f"\n{line}\n" in text, line
    assert "verdict      keep (improved): val_bpb" in text
    assert text.splitlines()[-8:] != []
    header, row = text[text.index("run  role") :].splitlines()[:2]
    assert header.split()[:4] == ["run", "role", "seed", "val_bpb"]
    assert row.split()[:4] == ["1", "screen", "42", "0.900000"]
    assert max(map(len, text.splitlines())) <= 100


def test_a_crash_says_why(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    text = said(capsys, "show", "0002", "--tag", "t")
    assert "verdict      crash: exit 1: RuntimeError: the tensor is sad\n" in text
    assert "1: RuntimeError: the tensor is sad (exit status 1)" in text


def test_repairs_usage_and_the_runs_of_others_are_told(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    ratchet = Ratchet(repo.path)
    ratchet.tag = "t"
    like = repo.records()[3]
    again = replace(like.runs[0], seed=7, role=Role.INCUMBENT, commit=like.base, metric=0.91)
    early = replace(
        like.runs[0], seed=8, role=Role.CONFIRM, metric=None, hopeless="its loss was 3.0 where 2.0 was needed"
    )
    record = replace(
        like,
        number=7,
        runs=(*like.runs, again, early),
        repairs=(Repair(Stage.PREFLIGHT, Crash(CrashClass.SYNTAX, "invalid syntax (train.py, line 3)"), like.commit),),
        usage=Usage("claude-fable-5-2", 2, 1000, 200, 3000, 0, 0.0123),
        decision=replace(like.decision, evidence="0.95 against 0.9 in two runs", probability=0.31, margin=0.0004),
        notes="Warmup helps.\nWidth does not.",
    )
    ratchet.record(record)
    text = said(capsys, "show", "7", "--tag", "t")
    assert f"preflight {like.commit[:7]}  syntax: invalid syntax (train.py, line 3) (sent back to the proposer)" in text
    usage = "claude-fable-5-2: 2 requests, 4,200 tokens (75% of the input from the cache), $0.0123"
    assert usage in " ".join(text.split())
    assert "incumbent of 0001     7  0.910000" in text
    assert "3: stopped early: its loss was 3.0 where 2.0 was needed" in text
    assert "probability  0.310 that it is better" in text
    assert "gain         -0.050000 (needed 0.000400)" in text
    assert "evidence     0.95 against 0.9 in two runs" in text
    assert "notes        Warmup helps.\n             Width does not.\n" in text


def test_runs_on_a_gpu_have_both_measures_of_memory_and_say_who_ended_them(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    ratchet = Ratchet(repo.path)
    ratchet.tag = "t"
    like = repo.records()[3]
    run = replace(like.runs[0], peak_memory_mb=29696.0, allocator_mb=27033.6, memory_from="by process", exit_status=-9)
    record = replace(like, number=7, runs=(run, replace(run, exit_status=0), run))
    ratchet.record(record)
    text = said(capsys, "show", "7", "--tag", "t")
    assert "driver  allocator\n" in text
    assert "29.0 GB    26.4 GB\n" in text
    assert "1, 3: its model was complete, so it was ended at the end of its budget (exit status -9)" in text
    assert "GPU memory: at most 29.0 GB by the driver, 26.4 GB by the allocator (results.tsv)" in summary_lines(
        [record], {7}, "b"
    )


def test_a_run_that_the_verdict_did_not_need_is_shown_with_its_lane_and_counts_for_nothing(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    ratchet = Ratchet(repo.path)
    ratchet.tag = "t"
    like = repo.records()[3]
    extra = replace(like.runs[0], role=Role.EXTRA, metric=77.0, lane=2)
    ratchet.record(replace(like, number=7, runs=(*like.runs, extra)))
    text = said(capsys, "show", "7", "--tag", "t")
    assert f"{like.metric:.6f} from 1 run\n" in text
    assert [line.split()[:3] for line in text.splitlines() if line.startswith("2 ")] == [["2", "extra", "2"]]
    assert "2: made beside another run; the verdict did not need it, so it counts for later experiments only" in text


def test_the_live_line_says_which_memory_it_shows() -> None:
    training = Progress("training", 3, 2.5, 1.0, 9.0, 29696.0, on_gpu=True)
    assert progress_text(training).endswith("9 s left · 29.0 GB on the GPU")
    assert progress_text(replace(training, on_gpu=False)).endswith("9 s left · 29.0 GB")


def test_it_is_found_by_number_commit_or_word(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    commit = repo.records()[3].commit
    for name in ("3", "0003", commit, commit[:7], commit[:7].upper()):
        assert said(capsys, "show", name, "--tag", "t").startswith("experiment 0003 of t: discard")
    assert said(capsys, "show", "best", "--tag", "t").startswith("experiment 0004 of t: keep")
    assert said(capsys, "show", "last", "--tag", "t").startswith("experiment 0004 of t: keep")
    assert said(capsys, "show", "best", "--tag", "u").startswith("experiment 0000 of u: keep")


def test_what_was_refused_is_not_taken_for_the_commit_that_it_was_to_be_made_from(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    best = repo.records()[4].commit
    hostile(repo, commit=best, base=best, runs=(), refusal=Crash(CrashClass.REFUSED, "no"))
    assert said(capsys, "show", best[:8], "--tag", "t").startswith("experiment 0004")
    assert "change" not in said(capsys, "show", "9", "--tag", "t")
    assert "none: nothing was run" in said(capsys, "show", "9", "--tag", "t", "--log")


@pytest.mark.parametrize("name", ["17", "0005", "zzzz", "fffffffff", "-"])
def test_an_experiment_that_is_not_there_is_one_sentence(
    name: str, repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    assert "it has 0000 to 0004" in refused(capsys, "show", "--tag", "t", name)


def test_the_change_is_shown_and_can_be_applied(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    text = said(capsys, "show", "1", "--tag", "t", "--diff")
    assert "\n-ACTION = \"1.0\"\n+ACTION = '0.9'  # 1\n" in text
    (repo.path / "change.patch").write_text(text)
    repo.git("apply", "change.patch")
    assert "ACTION = '0.9'" in (repo.path / "train.py").read_text()
    assert "none: it has no commit of its own" in said(capsys, "show", "0", "--diff")


def test_the_change_is_coloured_on_a_terminal(repo: Repo) -> None:
    night(repo)
    text = on_a_terminal("show", "1", "--tag", "t", "--diff", columns=100)
    assert "\x1b[32m+ACTION = '0.9'  # 1\x1b[0m" in text
    assert '\x1b[31m-ACTION = "1.0"\x1b[0m' in text
    assert "\x1b[1m--- a/train.py\x1b[0m" in text
    assert "\x1b[36m@@" in text


def test_logs_come_from_the_files_and_of_a_crash_from_the_record_when_those_are_gone(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    assert "train.log\nTraceback" in said(capsys, "show", "2", "--tag", "t", "--log")
    assert "val_bpb:          0.9\n" in said(capsys, "show", "1", "--tag", "t", "--log")
    shutil.rmtree(repo.path / "experiments" / "runs")
    text = said(capsys, "show", "2", "--tag", "t", "--log")
    assert "files        not on this machine" in text
    assert "run 1, the end\nTraceback" in text
    assert "the files are gone" in said(capsys, "show", "1", "--tag", "t", "--log")


def test_json_is_the_record_with_what_was_asked_for(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    shown = document(capsys, "show", "1", "--tag", "t", "--json", "--diff", "--log")
    record = json.loads(encode(repo.records()[1]))
    assert {name: shown[name] for name in record} == record
    assert shown.keys() - record.keys() == {"artifacts", "diff", "logs"}
    assert "+ACTION = '0.9'" in shown["diff"]
    assert list(shown["logs"]) == ["train.log"]
    assert shown["artifacts"].endswith("experiments/runs/t/0001")


def test_text_of_strangers_is_made_plain(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    repo.git("checkout", "-q", "-b", "theirs", repo.records()[3].base)
    (repo.path / "train.py").write_bytes(b"print('\x1b]0;owned\x07\x1b[2J')  # caf\xe9\n")
    hostile(repo, commit=repo.commit("Hostile"))
    log = repo.path / "experiments/runs/t/0009/train.log"
    log.parent.mkdir()
    log.write_text("\x1b]0;owned\x07hello\n")
    for words in ((), ("--diff",), ("--log",), ("--json", "--diff", "--log")):
        text = said(capsys, "show", "9", "--tag", "t", *words)
        assert "\x1b" not in text
        assert "\x07" not in text
    # A change is what people judge by: what it holds is shown, and acts on nothing.
    assert "+print('⟨U+001B⟩]0;owned⟨U+0007⟩⟨U+001B⟩[2J')  # caf⟨0xE9⟩" in said(
        capsys, "show", "9", "--tag", "t", "--diff"
    )
    assert "description  clean\n             second    line <script>alert(1)</script> =1+1\n" in said(
        capsys, "show", "9", "--tag", "t"
    )
