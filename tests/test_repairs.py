"""What fails goes back to a proposer that listens: from preflight as often as it may, after a dear run once."""

from __future__ import annotations

import signal
from textwrap import dedent

import pytest
from repo import CONFIG, Repo

from pytest_autoresearch.ledger.ratchet import Ratchet

pytestmark = pytest.mark.flow

# Edits ACTION as the plan says, one entry for each start; a second start for the same experiment takes the next one.
AGENT = """
import json, os, pathlib, re, sys
prompt = sys.stdin.read()
state = pathlib.Path(os.environ["AGENT_STATE"])
plan = json.loads((state / "plan.json").read_text())
count = len(list(state.glob("prompt-*")))
(state / f"prompt-{count:03d}").write_text(prompt)
action = plan[min(count, len(plan) - 1)]
if action is not None:
    train = pathlib.Path("train.py")
    train.write_text(re.sub("(?m)^ACTION = .*$", f"ACTION = {action!r}", train.read_text()))
print(f"try {chr(97 + count) * 3}: {action}")
"""
TRAIN = """
import os, pathlib, socket, time

ACTION = "1.0"
DEPTH = 1
if ACTION == "early":
    raise RuntimeError("wrong shape")
with socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"])) as parent:
    parent.sendall(b"begin\\n")
    assert parent.recv(16) == b"go\\n"
if ACTION == "hang":
    flag = pathlib.Path(os.environ["AUTORESEARCH_OUT"]).parents[1] / "hung"
    if not flag.exists():
        flag.touch()
        time.sleep(60)
    ACTION = "0.5"
word, _, late = ACTION.partition("late")
if late:
    time.sleep(0.5)
    raise RuntimeError("diverged " + late)
pathlib.Path(os.environ["AUTORESEARCH_OUT"], "model.pt").write_text(ACTION)
"""
DESCRIBE = """
import json
print(json.dumps({"score": ["python", "-S", "score.py"], "budget_seconds": 2}))
"""
SCORE = """
import os, pathlib
print("val_bpb:", pathlib.Path(os.environ["AUTORESEARCH_OUT"], "model.pt").read_text())
"""


@pytest.fixture
def scored(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository with a clock and a scorer, whose proposals come from an agent."""
    for name, text in (("train.py", TRAIN), ("describe.py", DESCRIBE), ("score.py", SCORE), ("conftest.py", "")):
        repo.write(name, text)
    config = "autoresearch_describe = python -S describe.py\nautoresearch_agent_environment = AGENT_STATE\n"
    repo.write("pytest.ini", CONFIG + config)
    repo.commit("An agent")
    (repo.path / ".git" / "state").mkdir()
    (repo.path / ".git" / "agent.py").write_text(dedent(AGENT))
    monkeypatch.setenv("AGENT_STATE", str(repo.path / ".git" / "state"))
    return repo


def session(repo: Repo, plan: str, *arguments: str) -> str:
    (repo.path / ".git" / "state" / "plan.json").write_text(plan)
    agent = f"command:python {repo.path / '.git' / 'agent.py'}"
    result = repo.run("--autoresearch-proposer", agent, *(arguments or ("--max", "1")))
    assert result.ret == 0, result.stdout.str()
    return result.stdout.str()


def prompts(repo: Repo) -> list[str]:
    return [path.read_text() for path in sorted((repo.path / ".git" / "state").glob("prompt-*"))]


def test_a_crash_in_preflight_goes_back_with_its_traceback_and_costs_no_training(scored: Repo) -> None:
    output = session(scored, '["early", "0.9"]')
    record = scored.records()[1]
    assert record.verdict is not None
    assert (record.verdict.status, record.metric) == ("keep", 0.9)
    assert [(one.stage, one.crash.reason) for one in record.repairs] == [("preflight", "exit 1")]
    assert record.repairs[0].commit not in ("", record.commit)
    assert "keep" in output
    assert "(after 1 repair)" in output
    again = prompts(scored)[1]
    assert "RuntimeError: wrong shape" in again
    assert str(scored.path) not in again.partition("Traceback")[2].partition("</data")[0]
    folder = scored.path / "experiments" / "runs" / "t" / "0001"
    assert "-ACTION = \"1.0\"\n+ACTION = 'early'" in (folder / "failed-1.patch").read_text()
    assert "wrong shape" in (folder / "failed-1.log").read_text()
    assert "try bbb: 0.9" in (folder / "agent-2.log").read_text()
    assert record.lines_added == record.lines_removed == 1


def test_what_stays_broken_is_a_crash_after_as_many_repairs_as_are_allowed(scored: Repo) -> None:
    # Each edit has to be another, or it is one that was tried.
    scored.write("train.py", TRAIN.replace('ACTION == "early"', 'ACTION.startswith("early")'))
    scored.commit("More ways to fail")
    session(scored, '["early1", "early2", "early3", "early4"]', "--max", "1", "--autoresearch-repairs", "2")
    assert scored.reasons()[1] == "exit 1"
    assert len(prompts(scored)) == 3
    assert [one.stage for one in scored.records()[1].repairs] == ["preflight", "preflight"]


def test_an_idea_that_is_given_up_is_the_crash_that_it_was(scored: Repo) -> None:
    session(scored, '["early", null]')
    record = scored.records()[1]
    assert scored.reasons()[1] == "exit 1"
    assert (len(prompts(scored)), record.repairs) == (2, ())
    assert record.proposal.description == "try aaa: early"


def test_a_dear_run_goes_back_once(scored: Repo) -> None:
    session(scored, '["late1", "late2", "0.9"]')
    assert scored.reasons()[1] == "exit 1"
    assert [one.stage for one in scored.records()[1].repairs] == ["run"]
    assert len(prompts(scored)) == 2


def test_repairs_can_be_switched_off(scored: Repo) -> None:
    session(scored, '["early", "0.9"]', "--max", "1", "--autoresearch-repairs", "0")
    assert (scored.reasons()[1], len(prompts(scored))) == ("exit 1", 1)


def test_a_program_that_was_tried_is_refused_and_another_is_made_of_it(scored: Repo) -> None:
    session(scored, '["1.5", "1.5", "1.6"]', "--max", "2")
    assert scored.statuses() == {0: "keep", 1: "discard", 2: "discard"}
    assert "the same program was tried as 0001" in prompts(scored)[2]
    assert len(prompts(scored)) == 3
    assert [one.crash.reason for one in scored.records()[2].repairs] == ["refused"]


def test_what_is_nearly_an_old_idea_is_told_of_it_once_and_runs_when_it_is_meant(scored: Repo) -> None:
    scored.write("train.py", TRAIN.replace("write_text(ACTION)", "write_text(str(DEPTH))"))
    scored.commit("The depth decides")
    (scored.path / ".git" / "agent.py").write_text(
        dedent(AGENT).replace('ACTION = .*$", f"ACTION = {action!r}"', 'DEPTH = .*$", f"DEPTH = {action}"')
    )
    session(scored, "[100, 101, null, 102, 50]", "--max", "3")
    records = scored.records()
    assert [record.constants for record in records[1:]] == [{"DEPTH": 100}, {"DEPTH": 101}, {"DEPTH": 50}]
    asked = prompts(scored)
    assert 'it nearly repeats experiment 0001, "try aaa: 100" (val_bpb 100' in asked[2]
    assert "Leave it unchanged if you mean it." in asked[2]
    assert "it nearly repeats experiment 0002" in asked[4]
    assert len(asked) == 5
    assert [len(record.repairs) for record in records] == [0, 0, 1, 1]


def test_after_ten_experiments_without_a_keep_a_bolder_one_is_asked_for_and_the_log_says_so(scored: Repo) -> None:
    plan = ", ".join(f'"1.{number}"' for number in range(10, 22))
    output = session(scored, f"[{plan}]", "--max", "11")
    assert "0011: 10 experiments without a keep: the proposer is asked for a bolder change" in output
    assert "Be bolder now: 10 experiments" in prompts(scored)[-1]
    assert "Be bolder" not in prompts(scored)[8]


def test_what_an_interrupted_proposal_cost_is_in_the_record_that_comes_of_it(scored: Repo) -> None:
    (scored.path / ".git" / "state" / "plan.json").write_text('["hang"]')
    agent = f"command:python {scored.path / '.git' / 'agent.py'}"
    process = scored.start("--autoresearch-proposer", agent, "--max", "1")
    scored.wait_for((scored.path / ".git" / "hung").exists)
    scored.end(process, signal.SIGINT)
    assert [one.usage.requests for one in Ratchet(scored.path).records("t")] == [0]
    session(scored, '["hang"]')
    record = scored.records()[1]
    assert (record.metric, record.usage.requests, record.usage.model) == (0.5, 1, "python")
    assert len(prompts(scored)) == 1


AWAY = """
import os

def pytest_autoresearch_record(campaign, experiment):
    if experiment.number == 1:
        os.rename(campaign.settings.root / "program.md", campaign.settings.root / ".git" / "away.md")
"""


def test_program_md_may_be_away_for_a_moment(scored: Repo) -> None:
    scored.write("conftest.py", AWAY)
    scored.commit("A hook")
    output = session(scored, '["1.1", "1.2"]', "--max", "2")
    assert "program.md cannot be read" in output
    assert "Lower val_bpb." in prompts(scored)[1]
