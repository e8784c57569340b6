"""Sessions that measure several proposals together, in designs of runs."""

from __future__ import annotations

import signal
from textwrap import dedent

import pydoe  # noqa: F401  # numpy can be loaded once in a process, and each session begins without its own modules
import pytest
from repo import RULE, Repo, with_one_and_two_lanes

from pytest_autoresearch.core.run import Role

CONSTANTS = 12
TRAIN = """
import os, random, time
from pathlib import Path

{constants}
EFFECTS = {effects}
SIGN = {sign}
values = [globals()[f"C{{number:02d}}"] for number in range(1, len(EFFECTS) + 1)]
seed = os.environ["AUTORESEARCH_SEED"]
with open("{log}", "a") as log:
    log.write(f"{{seed}} {{values}}\\n")
if any(value and effect is None for value, effect in zip(values, EFFECTS)):
    raise RuntimeError("the tensor is sad")
if "{wait}" and len(Path("{log}").read_text().splitlines()) == int("{wait}" or 0):
    open("{log}.waits", "w").close()
    time.sleep(1000)
level = random.Random(seed).gauss(0, 0.004)
residual = random.Random(f"{{seed}} {{values}}").gauss(0, 0.0005)
effect = sum(one for value, one in zip(values, EFFECTS) if value)
print(f"---\\nval_bpb: {{1 + SIGN * (effect + level + residual):.6f}}\\ntraining_seconds: 0.1")
"""
PROPOSE = """
from pytest_autoresearch import Proposal

def pytest_autoresearch_propose(context, failure):
    tried = {record.proposal.description for record in context.records}
    names = [f"constant {number}" for number in range(1, 13)]
    own = context.number - sum("together" in name or name not in names for name in tried) + 1
    if not 1 <= own <= 12:
        return None
    train = context.folder / "train.py"
    train.write_text(train.read_text().replace(f"C{own:02d} = 0", f"C{own:02d} = 1"))
    return Proposal(f"constant {own}", proposer="plan")
"""
BATCH = ("--autoresearch-confirm", "standard", "--autoresearch-batch")


def prepare(repo: Repo, *effects: float | None, sign: int = 1, wait: object = "") -> None:
    """A program whose constants have these effects; None for a crash."""
    constants = "\n\n\n".join(f"C{number:02d} = 0" for number in range(1, CONSTANTS + 1))
    effects += (0.0,) * (CONSTANTS - len(effects))
    log = repo.path / ".git" / "log"
    repo.write("train.py", TRAIN.format(constants=constants, effects=list(effects), sign=sign, log=log, wait=wait))
    repo.write("conftest.py", PROPOSE)
    repo.commit("Constants")


def values(repo: Repo, commit: str) -> list[int]:
    """The constants that a commit sets."""
    text = repo.git("show", f"{commit}:train.py")
    return [number for number in range(1, CONSTANTS + 1) if f"C{number:02d} = 1" in text]


def trained(repo: Repo) -> list[str]:
    """What ran: the seed and the constants of each run."""
    return (repo.path / ".git" / "log").read_text().splitlines()


@with_one_and_two_lanes
def test_the_gains_of_a_batch_are_kept_together(repo: Repo) -> None:
    prepare(repo, -0.02, 0.0, 0.03, -0.01, 0.001)
    result = repo.run("--max", "6", *BATCH, "5")
    assert result.ret == 0
    reasons = repo.reasons()
    assert [reasons[number] for number in (0, 1, 3, 4, 6)] == ["baseline", "joins", "regression", "joins", "improved"]
    assert values(repo, repo.head()) == [1, 4]
    repo.check_ledger()
    records = repo.records()
    assert records[6].proposal.description == "2 together: constant 1; constant 4"
    for record, effect in zip(records[1:6], (-0.02, 0.0, 0.03, -0.01, 0.001), strict=True):
        assert record.share is not None
        assert (record.share.size, record.share.runs) == (5, 8)
        assert record.metric - record.best == pytest.approx(effect, abs=0.002)
    made = [run for record in records[1:6] for run in record.runs]
    assert [run.role for run in made].count(Role.INCUMBENT) == 1
    assert [run.role for run in made].count(Role.BATCH) == 7
    assert len({run.seed for run in made}) == 1
    assert repo.reports() == {"passed": 2, "skipped": 2, "failure": 3}
    result.stdout.fnmatch_lines(["  batch:    up to 5 proposals in one design of runs", " 0001  joins *constant 1"])


def test_a_higher_metric_can_be_better(repo: Repo) -> None:
    prepare(repo, -0.02, 0.03, -0.01, 0.02, sign=-1)
    repo.write(
        "experiments/test_val_bpb.py", "def test_gain(experiment):\n    assert experiment.gain > experiment.margin\n"
    )
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + "autoresearch_direction = maximize\n")
    repo.commit("Higher is better")
    assert repo.run("--max", "5", *BATCH, "4").ret == 0
    assert values(repo, repo.head()) == [1, 3]
    assert repo.records()[5].metric > repo.records()[0].metric


def test_a_proposal_that_crashes_leaves_the_design(repo: Repo) -> None:
    prepare(repo, -0.02, None, 0.03, -0.01, 0.01)
    assert repo.run("--max", "6", *BATCH, "5").ret == 0
    reasons = repo.reasons()
    assert (reasons[1], reasons[2], reasons[3], reasons[4]) == ("joins", "exit 1", "regression", "joins")
    assert values(repo, repo.head()) == [1, 4]
    records = repo.records()
    assert records[2].share is None
    assert [run.role for run in records[2].own_runs] == [Role.SCREEN]
    assert all(one.share is not None and one.share.size == 4 for one in records if one.number in (1, 3, 4, 5))


def test_a_ruinous_proposal_leaves_the_design_early(repo: Repo) -> None:
    prepare(repo, 5.0, -0.02, 0.01, -0.01, 0.0, 0.0, 0.0)
    assert repo.run("--max", "8", *BATCH, "7").ret == 0
    assert values(repo, repo.head()) == [2, 4]
    ruined = [line for line in trained(repo) if "[1," in line]
    assert len(ruined) < 4, "half of the eight runs of the design would have had it"


def test_proposals_that_conflict_are_in_different_batches(repo: Repo) -> None:
    prepare(repo, -0.02, -0.01, 0.01, 0.02)
    again = PROPOSE.replace(
        "    train.write_text(", "    own = 1 if context.number == 5 else own\n    train.write_text("
    )
    again = again.replace('f"C{own:02d} = 1"))', 'f"C{own:02d} = {1 + (context.number == 5)}"))')
    repo.write("conftest.py", again.replace('f"constant {own}"', 'f"constant {own} of {context.number}"'))
    repo.commit("The first and the fifth set the same constant")
    assert repo.run("--max", "5", *BATCH, "5").ret == 0
    records = repo.records()
    assert [record.share is not None for record in records] == [False, True, True, True, True, False]
    assert records[5].metric_name
    assert repo.reasons()[5] not in ("joins", "stale")


def test_few_proposals_are_measured_one_at_a_time(repo: Repo) -> None:
    prepare(repo, -0.02, 0.01, -0.01)
    assert repo.run("--max", "3", *BATCH, "auto").ret == 0
    assert all(record.share is None for record in repo.records())
    assert 1 in values(repo, repo.head())


def test_the_next_session_tries_the_gains_together(repo: Repo) -> None:
    prepare(repo, -0.02, 0.0, 0.03, -0.01, 0.01)
    assert repo.run("--max", "5", *BATCH, "5").ret == 0
    assert values(repo, repo.head()) == []
    assert repo.run("--max", "1", *BATCH, "5").ret == 0
    assert values(repo, repo.head()) == [1, 4]
    assert repo.run("--max", "1", *BATCH, "5").ret == 0
    assert "together" not in repo.records()[-1].proposal.description
    repo.check_ledger()


@pytest.mark.lanes
def test_a_killed_batch_goes_on_with_the_runs_that_are_missing(repo: Repo) -> None:
    prepare(repo, -0.02, 0.0, 0.03, -0.01, 0.01, wait=10)  # five of the baseline, four of eight
    session = repo.start("--max", "6", *BATCH, "5")
    repo.wait_for((repo.path / ".git" / "log.waits").exists)
    repo.end(session, signal.SIGKILL)
    before = trained(repo)
    assert len(before) == 10
    assert repo.run("--max", "6", *BATCH, "5").ret == 0
    after = trained(repo)[10:]
    assert not set(after) & set(before[5:9]), "no run is made twice"
    assert before[9] in after, "the run that was killed is made again"
    assert values(repo, repo.head()) == [1, 4]
    repo.check_ledger()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--autoresearch-batch", "3"), "*'3' is not a number from 4 to 23, auto or off*"),
        (("--autoresearch-batch", "5"), "*with --autoresearch-confirm off one run decides: leave one of them out*"),
        ((*BATCH, "5", "--autoresearch-proposer", "checkout"), "*checkout makes one proposal*leave out*"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_is_refused(repo: Repo, arguments: tuple[str, ...], said: str) -> None:
    result = repo.run(*arguments)
    assert result.ret == 4
    result.stderr.fnmatch_lines([said])
    assert not repo.records()


def test_a_test_of_the_users_keeps_a_proposal_out_of_the_combination(repo: Repo) -> None:
    prepare(repo, -0.02, 0.0, 0.03, -0.01)
    refused = dedent(RULE) + "    assert experiment.proposal.description != 'constant 4'\n"
    repo.rule(refused)
    assert repo.run("--max", "5", *BATCH, "4").ret == 0
    assert repo.reasons()[4] == "assertion"
    assert values(repo, repo.head()) == [1]
