"""A program that was kept, and cheats when it runs again: its keep is taken back, here and in every clone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from repo import Repo
from test_scorer_files import DESCRIBED, SCORER, TRAIN, told

from pytest_autoresearch.core.history import chain, taken_back
from pytest_autoresearch.core.run import Role
from pytest_autoresearch.keeprule.replicates import observations
from pytest_autoresearch.proposers.history import history

# A candidate has two runs before it is kept. A cheat of this kind begins with its third run.
LATER = SCORER.replace(
    "number, _, cheats = action",
    """if action.endswith(" later"):
    with open(".git/told") as file:
        before = file.read().count(pathlib.Path(os.environ["AUTORESEARCH_NATS"]).stem)
    action = "0.2 cheats" if before > 2 else action.removesuffix(" later")
audit = os.environ.get("AUTORESEARCH_ROWS") == "audit"
action = action.replace(" in audits", " cheats" if audit else "")
os.environ.setdefault("AUTORESEARCH_NATS", os.devnull)
number, _, cheats = action""",
).replace(
    'print("val_bpb:", number)',
    """import random
noise = random.Random(os.environ["AUTORESEARCH_SEED"] + action).uniform(-0.01, 0.01)
print("val_bpb:", float(number) + noise)""",
)
RULE = ("--autoresearch-lanes", "1", "--autoresearch-confirm", "standard")


@pytest.fixture
def scored(repo: Repo) -> Repo:
    repo.scored_by(LATER, TRAIN, audit_environment={"AUTORESEARCH_ROWS": "audit"}, **DESCRIBED)
    return repo


def typed(folder: Path, *words: str) -> str:
    """What `autoresearch …` prints, typed in a folder."""
    command = [sys.executable, "-c", "from pytest_autoresearch.cli import main; import sys; sys.exit(main())", *words]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def taken(repo: Repo) -> None:
    """A campaign in which 0002 is kept, and taken back while 0003 is measured."""
    repo.plan("0.9", "0.8 later", "0.85", "0.7", "0.75")
    result = repo.run("--max", "4", *RULE)
    assert result.ret == 0, result.stdout.str()


def test_a_keep_whose_program_is_rejected_when_it_runs_again_is_taken_back(scored: Repo) -> None:
    taken(scored)
    records = scored.records()
    kept, cheat, under_way, again = records[1], records[2], records[3], records[4]
    assert scored.reasons()[2] == "improved"
    assert (under_way.refutes, scored.reasons()[3]) == (cheat.commit, "stale")
    rejected = next(run for run in under_way.runs if run.commit == cheat.commit)
    assert (rejected.role, rejected.metric) == (Role.INCUMBENT, None)
    assert taken_back(records) == {cheat.commit}
    assert {run.program for run in observations(records[:3])} >= {cheat.commit}
    assert cheat.commit not in {run.program for run in observations(records)}  # its runs tell nothing of a seed
    # The change under way is measured again on the last sound head, and is better than that.
    assert (again.base, again.proposal.repeats) == (kept.commit, under_way.commit)
    assert scored.reasons()[4] == "improved"
    assert [one.number for one in chain(records)] == [0, 1, 4]
    assert scored.head() == again.commit
    assert "taken back, so not in the code: 0002;" in "".join(history(records))
    assert "keep, taken back: see 0003" in typed(scored.path, "show", "0002")
    assert "ACTION = '0.85'" in scored.git("show", f"{again.commit}:train.py")
    scored.check_ledger()


def test_a_session_that_was_killed_before_the_branch_moved_is_finished_by_the_next_one(scored: Repo) -> None:
    scored.plan("0.9", "0.8 later", "0.85", "0.7")
    scored.run("--max", "3", *RULE)
    records = scored.records()
    assert scored.head() == records[1].commit
    scored.git("update-ref", "refs/heads/autoresearch/t", records[2].commit)
    assert scored.run("--max", "1", *RULE).ret == 0
    assert scored.records()[4].base == records[1].commit
    scored.check_ledger()


def test_every_run_of_a_keep_may_be_probed_and_a_better_one_than_before_is(scored: Repo) -> None:
    scored.plan("0.9", "0.95", "0.96")
    scored.run("--max", "3", *RULE)
    asked = told(scored)
    kept = scored.records()[1].commit
    again = [one for one in asked[6:] if Path(one["NATS"]).stem == kept][1:]
    assert again, "the incumbent ran again"
    seen = {run.metric for run in scored.records()[1].runs}
    assert all(float(one["PROBE_BELOW"]) in {min(seen), float("inf")} for one in again)  # type: ignore[type-var]


def test_an_audit_probes_every_run_of_the_last_program_and_takes_it_back(scored: Repo) -> None:
    scored.plan("0.9", "0.8 in audits")
    result = scored.run("--max", "2", "--autoresearch-audit", *RULE)
    records = scored.records()
    assert scored.head() == records[1].commit
    assert (records[3].refutes, scored.reasons()[3]) == (records[2].commit, "rejected")
    assert "is taken back" in result.stdout.str()
    scored.check_ledger()


def test_a_clone_follows_the_branch_back(scored: Repo, tmp_path: Path) -> None:
    scored.plan("0.9", "0.8 later", "0.85")
    scored.run("--max", "2", *RULE)
    remote = tmp_path / "remote.git"
    scored.git("init", "--bare", "--quiet", str(remote))
    scored.git("remote", "add", "origin", str(remote))
    typed(scored.path, "push")
    clone = tmp_path / "clone"
    scored.git("push", "--quiet", "origin", "main")
    scored.git("clone", "--quiet", "--branch", "main", str(remote), str(clone))
    typed(clone, "pull")
    assert scored.run("--max", "1", *RULE).ret == 0
    back = scored.records()[1].commit
    assert scored.head() == back
    typed(scored.path, "push")
    typed(clone, "pull")
    for place in (remote, clone):
        assert scored.git("-C", str(place), "rev-parse", "refs/heads/autoresearch/t") == back
