"""Two lanes improve one head: the second improvement is merged into the first and measured again as runs of its own."""

from __future__ import annotations

import pytest
from repo import Repo

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.run import Progress
from pytest_autoresearch.reports.summary import progress_text

pytestmark = pytest.mark.lanes

# Neighbouring lines. While A alone is changed, the program waits until another experiment than the baseline has a row.
PROGRAM = """
import time
A = 0.0
B = 0.0
while A and not B and len(open("{results}").read().splitlines()) < 3:
    time.sleep(0.02)
print("step 1 loss: 2.5")
print(f"---\\nval_bpb: {{{metric}}}")
"""


def prepared(repo: Repo, metric: str, *patches: tuple[str, str]) -> Repo:
    """A queue of patches, each made from the start; every patch replaces one text by another."""
    repo.write("conftest.py", "")
    repo.write("train.py", PROGRAM.format(results=repo.path / "results.tsv", metric=metric))
    repo.commit("A program with two constants")
    text = (repo.path / "train.py").read_text()
    for number, (old, new) in enumerate(patches, 1):
        repo.write("train.py", text.replace(old, new))
        repo.write(f"experiments/queue/{number}.patch", repo.git("diff", "--", "train.py") + "\n")
        repo.git("checkout", "-q", "train.py")
    return repo


def run(repo: Repo, *arguments: str) -> list[Experiment]:
    result = repo.run("--max", "2", "--autoresearch-proposer", "queue", *arguments)
    assert result.ret == 0, result.stdout.str()
    repo.check_ledger()
    return repo.records()


def test_an_overtaken_improvement_is_merged_and_measured_again_in_the_same_experiment(repo: Repo) -> None:
    prepared(repo, "1.0 - A - B", ("A = 0.0", "A = 0.1"), ("B = 0.0", "B = 0.2"))
    start, first, second = run(repo, "--autoresearch-lanes", "2")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    assert (second.base, second.made_on) == (start.commit, "")
    assert (first.base, first.made_on) == (second.commit, start.commit)
    assert repo.git("diff", "--unified=0", first.base, first.commit).splitlines()[-2:] == ["-A = 0.0", "+A = 0.1"]
    before, after = first.runs
    assert (before.metric, after.metric) == (pytest.approx(0.9), pytest.approx(0.7))
    assert repo.git("rev-parse", f"{before.commit}^") == start.commit
    assert (after.commit, first.metric) == ("", after.metric)
    assert first.best == pytest.approx(0.8)
    assert before.lane == after.lane
    logs = repo.path / "experiments/runs/t/0001"
    assert progress_text(Progress("training", run="merged-1-confirm-1")) == "training · confirming (1), on the new head"
    assert sorted(path.name for path in logs.glob("*.log")) == ["merged-1-train.log", "train.log"]


def test_an_overtaken_improvement_that_does_not_beat_the_present_head_is_discarded(repo: Repo) -> None:
    prepared(repo, "1.0 - max(A, B)", ("A = 0.0", "A = 0.1"), ("B = 0.0", "B = 0.2"))
    _, first, second = run(repo, "--autoresearch-lanes", "2")
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "keep"}
    assert repo.reasons()[1] == "not-improved"
    assert [run.metric for run in first.runs] == [pytest.approx(0.9), pytest.approx(0.8)]
    assert repo.head() == second.commit


def test_an_overtaken_improvement_that_conflicts_is_recorded_as_stale_with_its_lines_and_runs(repo: Repo) -> None:
    prepared(repo, "1.0 - A - B", ("A = 0.0", "A = 0.1"), ("A = 0.0", "A = 0.2"))
    text = (repo.path / "train.py").read_text()
    repo.write("train.py", text.replace("A and not B", "A == 0.1"))
    repo.commit("Wait for the first patch alone")
    start, first, second = run(repo, "--autoresearch-lanes", "2")
    assert repo.statuses() == {0: "keep", 1: "crash", 2: "keep"}
    assert repo.reasons()[1] == "stale"
    assert first.verdict is not None
    assert f"the branch moved to {second.commit[:7]} while it ran, and it conflicts: " in first.verdict.message
    assert "`A = 0.1`" in first.verdict.message
    assert (first.base, [run.metric for run in first.runs]) == (start.commit, [pytest.approx(0.9)])
    assert run(repo, "--autoresearch-lanes", "2") == [start, first, second]


def test_a_queued_patch_that_conflicts_with_a_keep_is_stale_and_its_neighbour_merges(repo: Repo) -> None:
    patches = (("B = 0.0", "B = 0.2"), ("B = 0.0", "B = 0.3"), ("A = 0.0", "A = 0.1"))
    prepared(repo, "1.0 - A - B", *patches)
    repo.run("--max", "3", "--autoresearch-proposer", "queue")
    assert repo.reasons() == {0: "baseline", 1: "improved", 2: "stale", 3: "improved"}
    stale = repo.records()[2]
    assert stale.crash is not None
    assert "both sides changed train.py: `B = 0.2` and `B = 0.3`" in stale.crash.message
    assert repo.records()[3].metric == pytest.approx(0.7)
    repo.check_ledger()


def test_what_was_overtaken_twice_has_its_verdict_before_others_are_kept(repo: Repo) -> None:
    """A waits for the keeps of B and of C, and then until D has run too: D's keep has to wait for A's."""
    letters = "ABCD"
    repo.write("conftest.py", "")
    repo.write(
        "train.py",
        "import os, time\n"
        + "".join(f"{letter} = 0.0\n" for letter in letters)
        + f"""def rows():
    return len(open("{repo.path / "results.tsv"}").read().splitlines())
while A and not C and rows() < 3 + bool(B):
    time.sleep(0.02)
while A and C and not D and not os.path.exists("{repo.path / "ran"}"):
    time.sleep(0.02)
if D and not A:
    open("{repo.path / "ran"}", "w").close()
elif A and C and not D:
    time.sleep(1)
print("step 1 loss: 2.5")
print(f"---\\nval_bpb: {{1.0 - A - B - C - D}}")
""",
    )
    repo.commit("A program with four constants")
    text = (repo.path / "train.py").read_text()
    for number, letter in enumerate(letters, 1):
        repo.write("train.py", text.replace(f"{letter} = 0.0", f"{letter} = 0.1"))
        repo.write(f"experiments/queue/{number}.patch", repo.git("diff", "--", "train.py") + "\n")
        repo.git("checkout", "-q", "train.py")
    result = repo.run("--max", "4", "--autoresearch-proposer", "queue", "--autoresearch-lanes", "2")
    assert result.ret == 0, result.stdout.str()
    repo.check_ledger()
    start, a, b, c, d = repo.records()
    assert [b.base, c.base, a.base, d.base] == [start.commit, b.commit, c.commit, a.commit]
    assert [len(one.runs) for one in (a, b, c, d)] == [3, 1, 1, 2]
    assert d.metric == pytest.approx(0.6)
