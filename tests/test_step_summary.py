"""What a session says to GitHub Actions: a page that stays text and small, and annotations that GitHub can read."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from repo import Repo

from pytest_autoresearch.core.experiment import Decision, Direction, Experiment, Proposal, Status, Verdict
from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Run
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.reports.step_summary import step_summary, text
from pytest_autoresearch.session.github import SUMMARY_BYTES, append, commands, outputs

HOSTILE = (
    "a | b <script>alert(1)</script> `code` **bold** [x](http://evil) $x$ ~~s~~ \\ &amp; https://evil.example\n# no"
)


def kept(number: int, metric: float, description: str = "an idea", base: str = "") -> Experiment:
    run = Run(1, metric, metrics={"val_bpb": metric})
    return Experiment(
        number, "t", f"c{number}", base or f"c{number - 1}", "tree", Proposal(description), (run,), Limits(1, 1, 1),
        decision=Decision(metric + 0.01 if number else None), verdict=Verdict(Status.KEEP, "improved", "better", 0.01),
    )  # fmt: skip


def crashed(number: int, reason: str = "oom", message: str = "out of memory") -> Experiment:
    run = Run(1, None, crash=Crash(CrashClass.EXIT, message, 1))
    return Experiment(
        number, "t", f"c{number}", "c0", "tree", Proposal("an idea"), (run,), Limits(1, 1, 1), decision=Decision(1.0),
        verdict=Verdict(Status.CRASH, reason, message),
    )  # fmt: skip


def page(*records: Experiment, files: tuple[str, ...] = ()) -> str:
    return step_summary(records, {record.number for record in records}, "autoresearch/t", files)


def shown(markdown: str) -> ElementTree.Element:
    """The page as a reader of CommonMark with tables sees it; that it is well-formed XML says that no tag leaked."""
    rendered = MarkdownIt("commonmark").enable("table").enable("strikethrough").render(markdown)
    return ElementTree.fromstring(f"<page>{rendered}</page>")


def cells(markdown: str) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in shown(markdown).iter("tr")]


def test_a_session_leaves_its_page_and_its_outputs_once(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    summary, output = repo.path / ".git" / "summary.md", repo.path / ".git" / "output"
    summary.write_text("Something of before.\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    repo.plan(0.9, 1.5, "crash", 0.8, "do:raise RuntimeError('the tensor is sad')")
    result = repo.run("--max", "5")
    said = summary.read_text()
    assert said.startswith("Something of before.\n## autoresearch/t\n")
    assert said.count("## autoresearch") == 1
    assert "val&#95;bpb 1.000000 → 0.800000 (-0.200000)" in said
    assert "5 experiments in this session: 2 kept, 1 discarded, 2 crashed; 5 in the campaign." in said
    rows = cells(said)
    assert [row[0] for row in rows] == ["no.", "0001", "0004", "class", "exit 1"]
    assert rows[1][1:4] == ["0.900000", "-0.100000", "1"]
    assert rows[1][6] == "action 1: 0.9"
    assert rows[4] == ["exit 1", "2", "0005", "RuntimeError: the tensor is sad"]
    assert "`results.tsv`, `results.xml`" in said
    assert "`experiments/runs/t`" in said
    lines = [line for line in result.outlines if line.startswith("::")]
    assert lines == [
        "::notice title=kept 0001::val_bpb 0.900000, -0.100000: action 1: 0.9",
        "::notice title=kept 0004::val_bpb 0.800000, -0.100000: action 4: 0.8",
        "::warning title=crash%3A exit 1::2 times, the last was 0005: RuntimeError: the tensor is sad",
    ]
    assert dict(line.split("=", 1) for line in output.read_text().splitlines()) == {
        "tag": "t", "best": "0.800000", "best-commit": repo.head(), "experiments": "5", "kept": "2", "crashed": "2",
    }  # fmt: skip


def test_elsewhere_nothing_is_said(repo: Repo) -> None:
    repo.plan(0.9)
    result = repo.run("--max", "1")
    assert not [line for line in result.outlines if line.startswith("::")]


def test_a_summary_that_cannot_be_written_costs_nothing(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/proc/no/such/file")
    repo.plan(0.9)
    assert repo.run("--max", "1").ret == 0


def test_a_session_that_measures_its_baseline_only_says_so() -> None:
    said = page(kept(0, 1.0))
    assert "1.000000 (the baseline).** 0 experiments in this session" in said
    assert "There is no baseline yet" in step_summary([], set(), "autoresearch/t", ())


def test_hostile_words_stay_text() -> None:
    said = page(kept(0, 1.0), kept(1, 0.9, HOSTILE), crashed(2, "exit 1", HOSTILE), files=("a`b|c",))
    rows = cells(said)
    assert rows[1][6] == one_line(HOSTILE)
    assert rows[3][3] == one_line(HOSTILE)
    assert not list(shown(said).iter("script"))
    assert not list(shown(said).iter("a"))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_words_stay_text(words: str) -> None:
    said = "| a |\n|---|\n" + f"| x{text(words)}x |\n"
    rows = cells(said)
    expected = one_line(words)
    assert len(rows) == 2
    assert rows[1][0].removesuffix("x").removesuffix("…").strip() in f"x{expected}".strip() or len(expected) > 160
    assert re.sub(r"\s+", " ", rows[1][0]) == f"x{expected}x" or len(expected) > 160


def test_the_chart_steps_to_the_best_and_is_no_wider_than_a_page() -> None:
    records = [kept(0, 1.0), *(crashed(n) for n in range(1, 500)), kept(500, 0.5, base="c0")]
    chart = page(*records).split("```text\n")[1].split("\n```")[0].splitlines()
    assert len(chart) == 8
    assert max(map(len, chart)) <= 80
    assert chart[0].startswith("1.000000 █")
    assert chart[-1].startswith("0.500000 █")
    assert chart[-1].endswith("▁")
    assert "Best so far over 500 experiments; lower is better." in page(*records)


def test_a_chart_of_one_value_is_a_line() -> None:
    assert "1.000000" in page(kept(0, 1.0), crashed(1))


def test_a_page_of_a_long_night_stays_far_below_a_mebibyte() -> None:
    long = "|" * 100_000
    keeps = [kept(number, 1.0 - number / 1e5, long) for number in range(3000)]
    crashes = [crashed(number, f"exit {number}", long) for number in range(3000, 10_000)]
    said = page(*keeps, *crashes, files=(long,) * 9)
    assert len(said.encode()) < SUMMARY_BYTES / 4
    assert "the last 100 of 2999" in said
    assert "| others | 6980 | | |" in said


def test_a_summary_that_is_nearly_full_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    path.write_bytes(b"x" * (SUMMARY_BYTES - 10))
    append(path, "y" * 20)
    assert path.stat().st_size == SUMMARY_BYTES - 10


def test_annotations_are_escaped_and_no_more_than_github_shows() -> None:
    records = [kept(0, 1.0), *(kept(n, 1.0 - n / 100, "100%,\r\n::error::no") for n in range(1, 21))]
    records += [crashed(n, f"exit {n}, a:b%", "50% of\nit") for n in range(21, 41)]
    given = commands(records, set(range(41)))
    notices = [line for line in given if line.startswith("::notice ")]
    warnings = [line for line in given if line.startswith("::warning ")]
    assert len(notices) == len(warnings) == 10
    assert notices[0] == "::notice title=kept 0001::val_bpb 0.990000, -0.010000: 100%25, ::error::no"
    assert notices[-1].endswith("11 more keeps are in the summary")
    assert warnings[0] == "::warning title=crash%3A exit 21%2C a%3Ab%25::once, the last was 0021: 50%25 of it"
    assert all("\n" not in line for line in given)


def test_a_metric_that_grows_says_so() -> None:
    from dataclasses import replace

    records = [replace(kept(0, 1.0), direction=Direction.MAXIMIZE), replace(kept(1, 2.0), direction=Direction.MAXIMIZE)]
    assert "higher is better" in page(*records)
    assert "kept=1\n" in outputs(records, {0, 1}, "t")
