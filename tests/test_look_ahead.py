"""Look-ahead: an agent makes the next proposal while the lanes train."""

from __future__ import annotations

import json
import signal

import pytest
from repo import Repo
from test_command_sessions import agents_left, proposing

from pytest_autoresearch.core.artifacts import campaign

pytestmark = pytest.mark.timeout(300)

# Writes when it works: whether a run is under way then shows in the log of the training.
AGENT = """
log = open("{log}", "a")
print(f"proposes {{NUMBER}}", file=log, flush=True)
{act}
describe(description=f"try {{NUMBER}}", cost_usd=0.5)
print(f"proposed {{NUMBER}}", file=log, flush=True)
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
while A or B or C:
    {gate}
    time.sleep(0.02)
print(f"ends {{A}} {{B}} {{C}}", file=log, flush=True)
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


AFTER_3_SECONDS = "began = globals().get('began', time.monotonic())\n    if time.monotonic() > began + 3: break"
PENDING = """if os.path.exists('{live}'):
        import json
        running = json.load(open('{live}'))["running"]
        if A < 0 and any(one["number"] == 3 and one["phase"] == "waiting for a lane" for one in running): break
        if not os.path.exists('{log}.hold'): break
"""
HELD = "if not os.path.exists('{log}.hold'): break"
UNTIL_PROPOSED = "if 'proposed {number}' in open('{{log}}').read(): break"
HOLDS = """
while NUMBER == 3 and os.path.exists("{log}.agent"):
    time.sleep(0.02)
"""


def prepared(
    repo: Repo, changes: dict[int, tuple[object, ...]], gate: str = AFTER_3_SECONDS, lanes: int = 1
) -> tuple[str, ...]:
    """The agent makes these changes, by number; a run of a changed program goes on until its gate opens."""
    log = repo.path / ".git" / "when"
    live = campaign(repo.path / "experiments", "t").live
    repo.write("train.py", PROGRAM.format(log=log, gate=gate.format(log=log, live=live)))
    repo.write("conftest.py", "")
    repo.commit("A program with three constants")
    act = HOLDS.format(log=log) + SET.format(changes=changes, log=str(log))
    given = proposing(repo, AGENT.format(log=log, act=act))
    return (*given, "--autoresearch-lanes", str(lanes), "--autoresearch-ahead", "1")


def when(repo: Repo) -> list[str]:
    return (repo.path / ".git" / "when").read_text().splitlines()


def test_the_next_proposal_is_made_while_a_run_trains_and_is_merged_into_the_head(repo: Repo) -> None:
    given = prepared(repo, {1: ("A", 0.1), 2: ("B", 0.1), 3: ("C", -0.1)})
    result = repo.run("--max", "3", *given)
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
    repo.run("--max", "2", *given)
    first, second = repo.records()[1:]
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    assert second.base == first.commit
    (repair,) = second.repairs
    assert f"the branch moved to {first.commit[:7]} before it could run, and it conflicts: " in repair.crash.message


def test_the_repair_of_a_merged_candidate_keeps_what_was_kept_meanwhile(repo: Repo) -> None:
    given = prepared(repo, {1: ("A", 0.1), 2: ("B", "float('x')", 0.1)})
    repo.run("--max", "2", *given)
    second = repo.records()[2]
    assert [str(repair.stage) for repair in second.repairs] == ["run"]
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    assert when(repo)[-1] == "ends 0.1 0.1 0.0"
    assert second.base == repo.records()[1].commit


def test_without_look_ahead_a_proposal_waits_for_the_verdict(repo: Repo) -> None:
    given = prepared(repo, {1: ("A", 0.1), 2: ("B", 0.1)})
    repo.run("--max", "2", *given, "--autoresearch-ahead", "0")
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


def waiting(repo: Repo, number: int) -> bool:
    """Whether this proposal waits for a lane."""
    live = campaign(repo.path / "experiments", "t").live
    running = json.loads(live.read_text())["running"] if live.exists() else []
    return any((one["number"], one["phase"]) == (number, "waiting for a lane") for one in running)


def processes_left(repo: Repo) -> list[str]:
    return [left for left in agents_left(repo) if not left.startswith(str(repo.path))]


def proposals(repo: Repo) -> list[int]:
    """The numbers for which the agent was started."""
    return sorted(int(line.split()[1]) for line in when(repo) if line.startswith("proposes"))


def paid(repo: Repo) -> float:
    return sum(record.usage.cost_usd or 0.0 for record in repo.records())


ALL = {1: ("A", 0.1), 2: ("B", 0.1), 3: ("C", 0.1)}


@pytest.mark.lanes
def test_with_two_lanes_the_third_proposal_is_ready_before_a_run_ends(repo: Repo) -> None:
    given = prepared(repo, ALL, UNTIL_PROPOSED.format(number=3), lanes=2)
    repo.run("--max", "3", *given)
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep", 3: "keep"}
    first_end = next(
        at for at, line in enumerate(when(repo)) if line.startswith("ends 0.1") or line.endswith("0.1 0.0")
    )
    assert when(repo).index("proposed 3") < first_end
    assert [line for line in when(repo) if line.startswith("ends")][-1] == "ends 0.1 0.1 0.1"
    start, *others = repo.records()
    assert {record.made_on for record in others} == {"", start.commit}
    assert others[2].made_on == start.commit
    assert not any(record.repairs for record in others)
    repo.check_ledger()


@pytest.mark.kill
@pytest.mark.lanes
@pytest.mark.parametrize("agent_works", [True, False], ids=["while an agent works", "while its proposal waits"])
def test_a_kill_loses_no_proposal_and_counts_none_twice(repo: Repo, agent_works: bool) -> None:
    given = prepared(repo, ALL, HELD, lanes=2)
    log = repo.path / ".git" / "when"
    log.with_name("when.hold").touch()
    if agent_works:
        log.with_name("when.agent").touch()
    process = repo.start("--max", "3", *given)
    try:
        repo.wait_for(lambda: log.exists() and sum("trains" in line for line in when(repo)) == 3, 120)
        repo.wait_for(lambda: "proposes 3" in when(repo) and (agent_works or waiting(repo, 3)), 120)
    finally:
        repo.end(process, signal.SIGKILL)
    repo.wait_for(lambda: not processes_left(repo), 120)
    log.with_name("when.hold").unlink()
    log.with_name("when.agent").unlink(missing_ok=True)
    output = repo.run("--max", "3", *given).stdout.str()
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep", 3: "keep"}, [
        output,
        *(record.verdict for record in repo.records()),
    ]
    assert proposals(repo) == ([1, 2, 3, 3] if agent_works else [1, 2, 3])
    assert paid(repo) == 1.5
    assert len({record.proposal.description for record in repo.records()}) == 4
    assert agents_left(repo) == []
    repo.check_ledger()


@pytest.mark.lanes
def test_the_first_discard_that_ends_a_session_leaves_what_is_under_way_to_the_next(repo: Repo) -> None:
    given = prepared(repo, {**ALL, 1: ("A", -0.1)}, PENDING, lanes=2)
    (repo.path / ".git" / "when.hold").touch()
    assert repo.run("--max", "3", "-x", *given).ret == 1
    assert repo.statuses() == {0: "keep", 1: "discard"}
    assert agents_left(repo) == []
    (repo.path / ".git" / "when.hold").unlink()
    repo.run("--max", "2", *given)
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "keep", 3: "keep"}
    assert (proposals(repo), paid(repo)) == ([1, 2, 3], 1.5)
    repo.check_ledger()


@pytest.mark.lanes
def test_the_cost_limit_ends_look_ahead_and_everything_paid_for_is_judged(repo: Repo) -> None:
    given = prepared(repo, ALL, "if open('{log}').read().count('proposed') >= 2: break", lanes=2)
    output = repo.run("--max", "9", "--autoresearch-cost", "1", *given).stdout.str()
    assert "(--autoresearch-cost)" in output
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    assert (proposals(repo), paid(repo)) == ([1, 2], 1.0)
    repo.check_ledger()


@pytest.mark.lanes
def test_hours_that_end_while_a_proposal_waits_lose_nothing(repo: Repo) -> None:
    given = prepared(repo, ALL, lanes=2)
    repo.run("--max", "3", "--autoresearch-hours", str(2 / 3600), *given)
    repo.run("--max", "3", "--autoresearch-total", "3", *given)
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep", 3: "keep"}
    assert len(set(proposals(repo))) == 3
    assert paid(repo) == 1.5
    assert agents_left(repo) == []
    repo.check_ledger()


@pytest.mark.kill
@pytest.mark.parametrize("lanes", [1, pytest.param(2, marks=pytest.mark.lanes)])
def test_an_interrupt_leaves_every_candidate_to_the_next_session(repo: Repo, lanes: int) -> None:
    given = prepared(repo, ALL, HELD, lanes)
    hold = repo.path / ".git" / "when.hold"
    hold.touch()
    process = repo.start("--max", str(lanes + 1), *given)
    try:
        repo.wait_for(lambda: (repo.path / ".git" / "when").exists(), 120)
        repo.wait_for(lambda: waiting(repo, lanes + 1), 120)
    finally:
        repo.end(process, signal.SIGINT)
    assert repo.statuses() == {0: "keep"}
    assert agents_left(repo) == []
    hold.unlink()
    repo.run("--max", str(lanes + 1), *given)
    assert repo.statuses() == dict.fromkeys(range(lanes + 2), "keep")
    assert (proposals(repo), paid(repo)) == ([*range(1, lanes + 2)], (lanes + 1) * 0.5)
    repo.check_ledger()
