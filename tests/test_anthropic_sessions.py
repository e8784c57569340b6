"""Whole campaigns whose proposals come from an Anthropic API on the loopback: real git, real training, real pytest."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from messages_server import KEY, Server, serving
from repo import Repo
from test_look_ahead import waiting

from pytest_autoresearch.core.artifacts import campaign
from pytest_autoresearch.core.experiment import Usage
from pytest_autoresearch.core.history import untried
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.proposers.prices import prices_of

pytestmark = pytest.mark.flow

PROPOSER = ("--autoresearch-proposer", "anthropic", "--autoresearch-lanes", "1")  # replies in the order of experiments


@pytest.fixture
def api(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The API that the repository's sessions ask; no hook proposes before it."""
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    repo.write("conftest.py", "")
    repo.commit("No hook")
    with serving("night") as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        yield server


def run(repo: Repo, *arguments: str) -> tuple[int, str]:
    """A session to its end: its exit status, and all that it printed."""
    result = repo.run(*PROPOSER, *arguments)
    output = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    return result.ret, output


def used(repo: Repo) -> Usage:
    """What all records of the campaign say was used."""
    return sum((record.usage for record in repo.records()), Usage())


def test_ten_experiments_with_all_that_can_happen_to_them(repo: Repo, api: Server) -> None:
    api.play("ten")
    before = repo.checkout_hash()
    status, output = run(repo, "--max", "10")
    assert status == 0, output
    assert repo.checkout_hash() == before
    assert repo.statuses() == {
        0: "keep", 1: "keep", 2: "discard", 3: "keep", 4: "keep", 5: "crash", 6: "keep", 7: "discard", 8: "discard",
        9: "keep", 10: "discard",
    }, output  # fmt: skip
    repo.check_ledger()
    assert [row[4] for row in repo.rows()][:3] == ["baseline", "the first gain", "a loss"]
    records = {record.number: record for record in repo.records()}
    first = records[1].proposal
    assert (first.proposer, first.hypothesis, first.area, first.expected) == (
        "anthropic", "it helps", "the action", "0.95",
    )  # fmt: skip
    assert records[3].notes == "small is good"
    assert [(repair.stage, repair.crash.reason) for repair in records[4].repairs] == [("run", "exit 1")]
    assert records[4].proposal.description == "the third gain"
    assert repo.reasons()[5] == "exit 1"
    repairing = [asked.body["messages"] for asked in api.messages if len(asked.body["messages"]) > 1]
    crashes = [messages for messages in repairing if "RuntimeError: the tensor is sad" in str(messages[-1])]
    assert [len(messages) for messages in crashes] == [3, 3]
    assert "proposer: anthropic, claude-fable-5-2 at http://127.0.0.1:" in output
    everything = str([asked.body for asked in api.messages])
    assert "your own notes from earlier" in everything
    assert KEY not in everything
    total = used(repo)
    assert total.requests == sum(bool(asked.usage) for asked in api.messages)
    assert total.cache_read_tokens == api.billed("cache_read_input_tokens")
    assert total.cache_read_tokens > 2 * (total.input_tokens + total.cache_write_tokens)


@pytest.mark.night
@pytest.mark.timeout(300)
def test_a_night_of_a_hundred_experiments(repo: Repo, api: Server) -> None:
    status, output = run(repo, "--max", "100")
    assert status == 0, output
    assert len(repo.statuses()) == 101
    assert set(repo.statuses().values()) == {"keep", "discard"}, output
    repo.check_ledger()
    assert [len(asked.body["messages"]) for asked in api.messages] == [1] * 100
    total = used(repo)
    assert total.requests == 100
    assert total.cache_read_tokens > 2 * (total.input_tokens + total.cache_write_tokens)


@pytest.mark.parametrize("ahead", ["0", "1"])
def test_a_cost_cap_is_honoured_to_the_cent(repo: Repo, api: Server, ahead: str) -> None:
    cost = ("--autoresearch-cost", "0.30", "--autoresearch-budget", "10", "--autoresearch-ahead", ahead)
    status, output = run(repo, "--max", "0", *cost)
    assert status == 0, output
    assert "of $0.30 is spent, and the next request could exceed the limit (--autoresearch-cost)" in output
    prices = prices_of("claude-fable-5-2")
    assert prices is not None
    bills = [
        prices.cost_usd(
            asked.usage["input_tokens"], asked.usage["cache_read_input_tokens"],
            asked.usage["cache_creation_input_tokens"], 0, asked.usage["output_tokens"],
        )
        for asked in api.messages
    ]  # fmt: skip
    assert len(bills) > 3
    assert sum(bills) <= 0.30
    assert used(repo).cost_usd == pytest.approx(sum(bills))
    repo.check_ledger()


# Each changed program waits until the third experiment has its proposal.
SEVERAL = """
import json, os, time
A = 0.0
B = 0.0
C = 0.0
D = 0.0
while A or B or C or D:
    running = json.load(open("{live}"))["running"] if os.path.exists("{live}") else []
    if any(one["number"] > 2 and one["phase"] != "proposing" for one in running) or C or D:
        break
    time.sleep(0.02)
print("step 1 loss: 2.5")
print(f"---\\nval_bpb: {{1.0 - A - B - C - D}}")
"""


@pytest.mark.lanes
def test_two_lanes_and_look_ahead_ask_for_two_ideas_at_a_time(repo: Repo, api: Server) -> None:
    repo.write("train.py", SEVERAL.format(live=repo.path / "experiments/runs/t/progress.json"))
    repo.commit("A program with four constants")
    ideas = [
        {"edits": [{"path": "train.py", "old": f"{name} = 0.0", "new": f"{name} = 0.1"}], "description": f"more {name}"}
        for name in "ABCD"
    ]
    api.play([{"propose": ideas[:2]}, {"propose": ideas[2:]}])
    status, output = run(repo, "--max", "4", "--autoresearch-ahead", "1", "--autoresearch-lanes", "2")
    assert status == 0, output
    assert repo.statuses() == dict.fromkeys(range(5), "keep"), output
    best = min(repo.records(), key=lambda record: record.metric)
    assert (best.commit, best.metric) == (repo.head(), pytest.approx(0.6))
    assert [record.proposal.description for record in repo.records()[1:]] == [f"more {name}" for name in "ABCD"]
    assert len(api.messages) == used(repo).requests == 2
    asked = str(api.messages[1].body["messages"])
    assert "Running, without a result yet" in asked
    assert asked.index("0001: more A") < asked.index("0002: more B")
    repo.check_ledger()


HELD = """
import os, time
A = 0.0



B = 0.0



C = 0.0



D = 0.0
log = {log!r}
print(f"trains {{A}} {{B}} {{C}} {{D}}", file=open(log, "a"), flush=True)
while (A or B or C or D) and os.path.exists(log + ".hold"):
    time.sleep(0.02)
print("step 1 loss: 2.5")
print(f"---\\nval_bpb: {{1.0 - A - B - C - D}}")
"""


@pytest.mark.kill
@pytest.mark.lanes
@pytest.mark.timeout(300)
def test_a_kill_with_two_lanes_loses_nothing_that_was_paid_for_and_tries_nothing_twice(repo: Repo, api: Server) -> None:
    log = repo.path / ".git" / "when"
    hold = repo.path / ".git" / "when.hold"
    hold.touch()
    repo.write("train.py", HELD.format(log=str(log)))
    repo.commit("A program with four constants")
    ideas = [
        {"edits": [{"path": "train.py", "old": f"{name} = 0.0", "new": f"{name} = 0.1"}], "description": f"more {name}"}
        for name in "ABCD"
    ]
    api.play([{"propose": ideas[:2]}, {"propose": ideas[2:]}])
    given = (*PROPOSER, "--autoresearch-ahead", "1", "--autoresearch-lanes", "2", "--max", "4")
    process = repo.start(*given)
    try:
        # The first two ideas train, the third waits for a lane, and the fourth for an experiment.
        repo.wait_for(lambda: log.exists() and log.read_text().count("trains") == 3, 120)
        repo.wait_for(lambda: waiting(repo, 3), 120)
    finally:
        repo.end(process, signal.SIGKILL)
    repo.wait_for(lambda: not repo.training(), 120)
    assert repo.statuses() == {0: "keep"}
    assert len(api.messages) == 2
    hold.unlink()
    status, output = run(repo, *given[len(PROPOSER) :])
    assert status == 0, output
    assert repo.statuses() == dict.fromkeys(range(5), "keep"), output
    assert [record.proposal.description for record in repo.records()[1:]] == [f"more {name}" for name in "ABCD"]
    assert len(api.messages) == used(repo).requests == 2
    best = min(repo.records(), key=lambda record: record.metric)
    assert (best.commit, best.metric) == (repo.head(), pytest.approx(0.6))
    ratchet = Ratchet(repo.path)
    ratchet.tag = "t"
    assert untried(repo.records(), ratchet.waiting()) == []
    assert not campaign(repo.path / "experiments", "t").stock.exists()
    repo.check_ledger()


@pytest.mark.parametrize(
    ("variables", "arguments", "sentence"),
    [
        ({"ANTHROPIC_API_KEY": "sk-wrong"}, (), "): set ANTHROPIC_API_KEY to a valid key"),
        ({"ANTHROPIC_API_KEY": ""}, (), "there is no key for the API: set ANTHROPIC_API_KEY, or choose another"),
        ({}, ("--autoresearch-model", "claude-2"), "does not know the model claude-2: choose another with"),
        ({}, ("--autoresearch-model", "claude-x", "--autoresearch-cost", "5"), "the prices of claude-x are unknown"),
        (
            {},
            ("--autoresearch-cost", "0.05"),
            "--autoresearch-cost 0.05 is too little for one request to claude-fable-5-2",
        ),
    ],
)
def test_a_mistake_ends_the_session_before_anything_is_touched(
    repo: Repo, api: Server, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], arguments: tuple[str, ...],
    sentence: str,
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = repo.checkout_hash()
    status, output = run(repo, *arguments)
    assert status == 4, output
    assert sentence in output
    assert repo.checkout_hash() == before
    assert not repo.git("for-each-ref", "refs/autoresearch", "refs/heads/autoresearch")
    assert not repo.rows()
    assert not api.messages


def test_a_key_that_expires_ends_the_session_and_the_same_command_goes_on(repo: Repo, api: Server) -> None:
    api.play([*api.steps, *api.steps, {"error": 401, "message": "invalid x-api-key"}])
    status, output = run(repo, "--max", "5")
    assert status == 3, output
    assert "set ANTHROPIC_API_KEY to a valid key and rerun the same command to continue" in output
    assert len(repo.statuses()) == 3
    repo.check_ledger()
    api.play("night")
    assert run(repo, "--max", "1")[0] == 0
    assert len(repo.statuses()) == 4
    repo.check_ledger()


def test_who_watches_is_told_what_is_waited_for(repo: Repo, api: Server) -> None:
    api.play([{"error": 529, "headers": {"retry-after": "0.6"}}, *api.steps])
    status, output = run(repo, "--max", "1")
    assert status == 0
    assert "the API is not available (overloaded_error: Overloaded); asking again in 1 s" in output


def test_hours_end_a_session_whose_api_only_pings(repo: Repo, api: Server) -> None:
    api.play([{"pings": True}])
    status, output = run(repo, "--max", "1", "--autoresearch-hours", str(1.5 / 3600))
    assert status == 0, output
    assert "hours are over (--autoresearch-hours)" in output
    assert list(repo.statuses()) == [0]


def test_a_login_page_between_is_waited_out_and_is_no_crash(repo: Repo, api: Server) -> None:
    page = {"raw": "<html>Anmeldung f\xfcr G\xe4ste</html>", "content_type": "text/html; charset=iso-8859-1"}
    api.play([page, *api.steps])
    status, output = run(repo, "--max", "1")
    assert status == 0, output
    assert "something in between answers instead of the API (with text/html" in output
    assert repo.reasons().get(1) != "no-proposal"


def test_a_model_that_declines_makes_crashes_and_then_an_end(repo: Repo, api: Server) -> None:
    api.play([{"refusal": "frontier_llm"}])
    status, output = run(repo, "--max", "9", "--autoresearch-repairs", "0")
    assert status == 3, output
    assert list(repo.reasons().values())[1:] == ["no-proposal", "no-proposal"]
    assert "the model made no proposal in 3 experiments in a row (last: the model declined" in output
    assert len(api.messages) == 3
    repo.check_ledger()


def test_edits_that_never_fit_are_asked_for_as_often_as_there_are_repairs(repo: Repo, api: Server) -> None:
    wrong = {"edits": [{"path": "train.py", "old": "no such line", "new": ""}], "description": "wrong"}
    api.play([{"propose": wrong}])
    status, output = run(repo, "--max", "1", "--autoresearch-repairs", "3")
    assert status == 0, output
    assert len(api.messages) == 4
    assert repo.reasons()[1] == "refused"
    repo.check_ledger()


def test_replies_of_no_use_to_a_crash_leave_it_the_crash_that_it_was(repo: Repo, api: Server) -> None:
    api.play("ten")
    crashing = next(step for step in api.steps if "a crash that stays" in str(step))
    api.play([crashing, {"text": "Oh."}])
    status, output = run(repo, "--max", "1", "--autoresearch-repairs", "1")
    assert status == 0, output
    assert len(api.messages) == 3
    assert repo.reasons()[1] == "exit 1"
    repo.check_ledger()


@pytest.mark.kill
def test_an_interrupt_does_not_wait_for_the_api(repo: Repo, api: Server) -> None:
    api.play([{"error": 529, "headers": {"retry-after": "600"}}])
    process = repo.start(*PROPOSER)
    repo.wait_for(lambda: api.messages)
    time.sleep(0.2)
    repo.end(process, signal.SIGINT)  # which gives it less than the 600 seconds that the API asks for
    assert process.returncode == 2
    repo.check_ledger()
