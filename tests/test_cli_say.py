"""`autoresearch say`: the next proposal sees what the user said, and its record keeps it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nights import refused, typed
from repo import Repo

from pytest_autoresearch.campaign.inbox import MOST_CHARACTERS, Inbox
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Experiment, Proposal

AGENT = """#!/bin/sh
number=$(ls "{prompts}" | wc -l)
cat > "{prompts}/$number"
sed -i "s/^ACTION = .*/ACTION = '1.$number'/" train.py
"""


@pytest.fixture
def prompts(repo: Repo) -> Path:
    """The folder with the prompts of an agent that writes each one down."""
    folder = repo.path / ".git" / "prompts"
    folder.mkdir()
    agent = repo.path / ".git" / "agent"
    agent.write_text(AGENT.format(prompts=folder))
    agent.chmod(0o755)
    repo.write("conftest.py", "")
    repo.commit("No hooks")
    return folder


def agent(repo: Repo, count: int) -> pytest.RunResult:
    return repo.run("--max", str(count), "--autoresearch-proposer", f"command:{repo.path}/.git/agent")


def test_one_proposal_sees_the_message_and_its_record_keeps_it(repo: Repo, prompts: Path) -> None:
    assert agent(repo, 1).ret == 0
    said = typed("say", "look at the tokenizer boundary\nand nowhere else")
    assert said == "the next session of t begins with it\n"
    assert agent(repo, 2).ret == 0
    told = [text for path in prompts.iterdir() if "The researcher says now" in (text := path.read_text())]
    assert all("Now make the proposal for experiment 0002" in text for text in told)
    assert "look at the tokenizer boundary\n> and nowhere else" in told[0]
    assert told[0].index("The researcher says now") > told[0].index("The latest experiments")
    heard = [record.heard for record in repo.records()]
    assert [len(one) for one in heard] == [0, 0, 1, 0]
    assert heard[2][0].endswith("look at the tokenizer boundary\nand nowhere else")
    assert "look at the tokenizer boundary" in typed("show", "2")
    assert "told" not in typed("show", "3")


def test_a_message_waits_for_a_proposal_that_is_recorded(repo: Repo, prompts: Path) -> None:
    assert agent(repo, 1).ret == 0
    typed("say", "first")
    typed("say", "second")
    inbox = Inbox(repo.path / "experiments/runs/t/inbox.jsonl")
    assert [one.partition(" ")[2][9:] for one in inbox.waiting(repo.records())] == ["first", "second"]
    assert repo.run("--max", "1", "--autoresearch-proposer", "search").ret in (0, 4), "the search hears nothing"
    assert len(inbox.waiting(repo.records())) == 2
    assert agent(repo, 1).ret == 0
    assert inbox.waiting(repo.records()) == ()
    assert len(repo.records()[-1].heard) == 2


def test_a_proposer_that_reads_nothing_is_named(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.plan(*["slow:1:1.5"] * 30)
    session = repo.start("--max", "30", "--autoresearch-proposer", "queue")
    live = repo.path / "experiments/runs/t/progress.json"
    repo.wait_for(live.exists)
    assert "the proposer queue reads no messages: only anthropic and command:COMMAND do" in refused(
        capsys, "say", "hello"
    )
    session.terminate()
    session.communicate(timeout=110)
    assert not (live.parent / "inbox.jsonl").exists()


def test_nothing_too_much_and_no_campaign_are_one_sentence(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no campaign" in refused(capsys, "say", "hello")
    repo.plan(1.5)
    repo.run("--max", "0", "-k", "0000")
    assert "there is nothing to say" in refused(capsys, "say", "  ")
    assert "the message has 4,001 characters" in refused(capsys, "say", "x" * (MOST_CHARACTERS + 1))


def test_a_line_that_was_cut_and_old_messages_do_no_harm(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "t" / "inbox.jsonl")
    assert inbox.waiting([]) == ()
    said = [inbox.add(f"message {number}") for number in range(12)]
    with (tmp_path / "t" / "inbox.jsonl").open("a") as file:
        file.write('"2026-01-01 cut\n[1]\n' + json.dumps("2026-01-02 00:00:00 whole") + "\n")
    assert inbox.waiting([]) == (*said[3:], "2026-01-02 00:00:00 whole")
    record = Experiment(1, "t", "", "", "", Proposal("x"), heard=tuple(said))
    assert inbox.waiting([record]) == ("2026-01-02 00:00:00 whole",)
    with pytest.raises(UserError):
        inbox.add("")
