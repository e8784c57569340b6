"""`autoresearch stop`: a session ends after the experiments under way, as after its last experiment."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from nights import refused, typed
from repo import Repo

SLOW = "do:import time; time.sleep(1.5)"


def running(repo: Repo, tag: str = "t") -> Path:
    """The folder of a campaign's files, once its session says where it is."""
    folder = repo.path / "experiments" / "runs" / tag
    while not (folder / "progress.json").exists():
        time.sleep(0.05)
    return folder


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_experiments_under_way_are_judged_and_nothing_is_left(repo: Repo, lanes: int) -> None:
    repo.plan(*[SLOW] * 30)
    repo.lanes = lanes
    session = repo.start("--max", "30")
    folder = running(repo)
    said = typed("stop")
    assert f"process {session.pid}" in said
    out, _ = session.communicate(timeout=110)
    assert session.returncode == 0, out
    assert "stopped by `autoresearch stop`" in out
    assert not (folder / "STOP").exists()
    assert 0 < len(repo.records()) < 10
    assert repo.git("for-each-ref", "refs/autoresearch/t/waiting") == ""
    repo.check_ledger()
    before = len(repo.records())
    repo.plan(*[1.5] * 30)
    (folder / "STOP").touch()  # by hand, for a session that has ended
    repo.run("--max", "1")
    assert len(repo.records()) == before + 1


def test_a_proposer_that_waits_is_asked_no_more(repo: Repo) -> None:
    agent = repo.path / ".git" / "claude"
    agent.write_text("#!/bin/sh\necho 'Claude usage limit reached. Your limit will reset in 3 hours.'\nexit 1\n")
    agent.chmod(0o755)
    session = repo.start("--max", "3", "--autoresearch-proposer", f"command:{agent}")
    while "for the agent's limit" not in (running(repo) / "progress.json").read_text():
        time.sleep(0.1)
    typed("stop")
    out, _ = session.communicate(timeout=110)
    assert "stopped by `autoresearch stop`" in out
    assert session.returncode == 0, out


def test_without_a_session_it_is_one_sentence(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing to stop" in refused(capsys, "stop")
    assert "no session of x runs" in refused(capsys, "stop", "x")
