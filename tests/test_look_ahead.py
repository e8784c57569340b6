"""Look-ahead: an agent makes the next proposal while the lanes train."""

from __future__ import annotations

import signal

import pytest
from repo import Repo
from test_command_sessions import proposing

from pytest_autoresearch.core.artifacts import campaign

# Writes when it works: whether a run is under way then shows in the log of the training.
AGENT = """
log = open("{log}", "a")
print(f"proposes {{NUMBER}}", file=log, flush=True)
{act}
describe(description=f"try {{NUMBER}}")
"""
# Lines far apart, so that two changes merge.
PROGRAM = """
import os, time
A = 0.0



B = 0.0



C = 0.0
number = 0
log = open("{log}", "a")
print(f"trains {{A}} {{B}} {{C}}", file=log, flush=True)
time.sleep(3.0 if A or B or C else 0.0)
print("step 1 loss: 2.5")
print(f"---\\nval_bpb: {{1.0 - A - B - C}}")
"""
SET = """
text = open("train.py").read()
name, *values = {changes}[NUMBER]
value = values[min(len(values), open({log!r}).read().count(f"proposes {{NUMBER}}")) - 1]
line = next(line for line in text.splitlines() if line.startswith(f"{{name}} ="))
open("train.py", "w").write(text.replace(line, f"{{name}} = {{value}}"))
"""


def prepared(repo: Repo, changes: dict[int, tuple[object, ...]]) -> tuple[str, ...]:
    log = repo.path / ".git" / "when"
    repo.write("train.py", PROGRAM.format(log=log))
    repo.write("conftest.py", "")
    repo.commit("A program with three constants")
    return proposing(repo, AGENT.format(log=log, act=SET.format(changes=changes, log=str(log))))


def when(repo: Repo) -> list[str]:
    return (repo.path / ".git" / "when").read_text().splitlines()


def test_the_next_proposal_is_made_while_a_run_trains_and_is_merged_into_the_head(repo: Repo) -> None:
    given = prepared(repo, {1: ("A", 0.1), 2: ("B", 0.1), 3: ("C", -0.1)})
    result = repo.run("--max", "3", "--autoresearch-ahead", "1", *given)
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep", 3: "discard"}
    assert [line for line in when(repo) if line.startswith("trains")] == [
        "trains 0.0 0.0 0.0", "trains 0.1 0.0 0.0", "trains 0.1 0.1 0.0", "trains 0.1 0.1 -0.1"
    ]  # fmt: skip
    assert when(repo).index("proposes 2") < when(repo).index("trains 0.1 0.1 0.0")
    _, first, second, third = repo.records()
    assert (second.base, second.made_on) == (first.commit, first.base)
    assert (third.base, third.made_on) == (second.commit, first.commit)
    assert first.made_on == ""
    assert result.ret == 0
    repo.check_ledger()


def test_a_conflict_with_what_was_kept_goes_back_to_the_agent(repo: Repo) -> None:
    given = prepared(repo, {1: ("A", 0.1), 2: ("A", 0.2)})
    repo.run("--max", "2", "--autoresearch-ahead", "1", *given)
    first, second = repo.records()[1:]
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    assert second.base == first.commit
    (repair,) = second.repairs
    assert f"the branch moved to {first.commit[:7]} before it could run, and it conflicts: " in repair.crash.message


def test_the_repair_of_a_merged_candidate_keeps_what_was_kept_meanwhile(repo: Repo) -> None:
    given = prepared(repo, {1: ("A", 0.1), 2: ("B", "float('x')", 0.1)})
    repo.run("--max", "2", "--autoresearch-ahead", "1", *given)
    second = repo.records()[2]
    assert [str(repair.stage) for repair in second.repairs] == ["run"]
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    assert when(repo)[-1] == "trains 0.1 0.1 0.0"
    assert second.base == repo.records()[1].commit


def test_without_look_ahead_a_proposal_waits_for_the_verdict(repo: Repo) -> None:
    given = prepared(repo, {1: ("A", 0.1), 2: ("B", 0.1)})
    repo.run("--max", "2", "--autoresearch-ahead", "0", *given)
    assert when(repo).index("trains 0.1 0.0 0.0") < when(repo).index("proposes 2")
    assert [record.made_on for record in repo.records()] == ["", "", ""]
    assert repo.records()[2].base == repo.records()[1].commit


def test_what_was_proposed_ahead_of_the_end_is_tried_first_by_the_next_session(repo: Repo) -> None:
    given = prepared(repo, {1: ("A", 0.1), 2: ("B", 0.1), 3: ("C", 0.1)})
    repo.run("--max", "3", "--autoresearch-ahead", "1", "--autoresearch-target", "0.95", *given)
    assert repo.statuses() == {0: "keep", 1: "keep"}
    repo.run("--max", "1", *given)
    assert [record.proposal.description for record in repo.records()] == ["baseline", "try 1", "try 2"]
    assert repo.records()[2].proposal.repeats
    assert "proposes 3" not in when(repo)


@pytest.mark.kill
def test_an_interrupt_leaves_both_candidates_to_the_next_session(repo: Repo) -> None:
    given = prepared(repo, {1: ("A", 0.1), 2: ("B", 0.1)})
    repo.write("train.py", (repo.path / "train.py").read_text().replace("time.sleep(3.0", "time.sleep(20.0"))
    repo.commit("Slow")
    process = repo.start("--max", "2", "--autoresearch-ahead", "1", *given)
    try:
        repo.wait_for(lambda: (repo.path / ".git" / "when").exists() and "proposes 2" in when(repo), 120)
        repo.wait_for(lambda: "waiting for a lane" in campaign(repo.path / "experiments", "t").live.read_text(), 120)
    finally:
        repo.end(process, signal.SIGINT)
    assert repo.statuses() == {0: "keep"}
    assert len(repo.git("for-each-ref", "refs/autoresearch").splitlines()) >= 3
