"""`autoresearch pause` and `resume`: nothing begins meanwhile, and nothing is lost."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from nights import refused, typed
from repo import Repo, with_one_and_two_lanes

from pytest_autoresearch.campaign.free_lanes import FreeLanes
from pytest_autoresearch.campaign.session_clock import SessionClock

SLOW = "slow:0.5:1.5"


def progress(repo: Repo) -> dict[str, object]:
    """What the session says of itself; empty before it says anything."""
    try:
        found: dict[str, object] = json.loads((repo.path / "experiments/runs/t/progress.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def rests(repo: Repo) -> bool:
    """Whether the session is paused and nothing is under way."""
    now = progress(repo)
    return bool(now) and not now["running"] and "paused" in str(now["position"])


@with_one_and_two_lanes
def test_a_paused_session_begins_nothing_and_goes_on_where_it_was(repo: Repo) -> None:
    repo.plan(*[SLOW] * 6)
    session = repo.start("--max", "6")
    repo.wait_for(lambda: progress(repo).get("running"))
    said = typed("pause")
    assert said == f"the session of t (process {session.pid}) begins no experiment: go on with `autoresearch resume`\n"
    repo.wait_for(lambda: rests(repo))
    done = len(repo.records())
    assert done < 7
    time.sleep(1.2)
    assert rests(repo)
    assert len(repo.records()) == done
    assert "paused" in typed("watch", "--once")
    assert typed("resume", "t") == f"the session of t (process {session.pid}) goes on\n"
    out, _ = session.communicate(timeout=110)
    assert session.returncode == 0, out
    assert "paused: `autoresearch resume` goes on" in out
    assert len(repo.records()) == 7
    repo.check_ledger()


@pytest.mark.parametrize("how", ["stop", "signal"])
def test_a_paused_session_can_be_ended(repo: Repo, how: str) -> None:
    repo.plan(*[SLOW] * 30)
    session = repo.start("--max", "30")
    repo.wait_for(lambda: progress(repo).get("running"))
    typed("pause")
    repo.wait_for(lambda: rests(repo))
    if how == "stop":
        typed("stop")
    else:
        session.send_signal(signal.SIGINT)
    session.communicate(timeout=110)
    assert session.returncode == (0 if how == "stop" else 2)
    assert not (repo.path / "experiments/runs/t/PAUSE").exists()
    repo.check_ledger()


def test_an_experiment_that_waits_for_a_lane_holds_up_no_end(repo: Repo) -> None:
    agent = repo.path / ".git" / "agent"
    number = repo.path / ".git" / "number"
    agent.write_text(
        f"#!/bin/sh\ncat > /dev/null\necho x >> {number}\n"
        f"sed -i \"s/^ACTION = .*/ACTION = 'slow:1:1.$(wc -l < {number})'/\" train.py\n"
    )
    agent.chmod(0o755)
    repo.write("conftest.py", "")
    repo.commit("No hooks")
    session = repo.start("--max", "30", "--autoresearch-ahead", "1", "--autoresearch-proposer", f"command:{agent}")
    repo.wait_for(lambda: "waiting for a lane" in str(progress(repo).get("running")))
    typed("pause")
    repo.wait_for(lambda: "paused" in str(progress(repo).get("position")) and "training" not in str(progress(repo)))
    typed("stop")
    out, _ = session.communicate(timeout=110)
    assert session.returncode == 0, out
    repo.check_ledger()


def test_a_pause_of_a_session_that_has_ended_holds_for_nothing(repo: Repo) -> None:
    repo.plan(1.5, 1.5)
    repo.run("--max", "1")
    (repo.path / "experiments/runs/t/PAUSE").touch()
    assert repo.run("--max", "1").ret == 0
    assert len(repo.records()) == 3


def test_without_a_session_or_a_pause_it_is_one_sentence(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no session of any campaign runs in this checkout: nothing to pause" in refused(capsys, "pause")
    assert "nothing to resume" in refused(capsys, "resume", "x")
    repo.plan(*[SLOW] * 30)
    session = repo.start("--max", "30")
    repo.wait_for(lambda: progress(repo).get("running"))
    assert "the session of t is not paused: nothing to resume" in refused(capsys, "resume")
    repo.end(session, signal.SIGTERM)


def test_a_pause_is_no_time_of_the_session(tmp_path: Path) -> None:
    pause = tmp_path / "PAUSE"
    clock = SessionClock(1.0, None, pause)
    pause.touch()
    assert clock.is_paused
    left = clock.left()
    time.sleep(0.2)
    assert clock.left() == left
    pause.unlink()
    assert not clock.is_paused
    assert left - 10.0 < clock.left() <= left
    assert not clock.over


def test_no_lane_is_given_or_lent_while_runs_are_held() -> None:
    held = [True]
    free = FreeLanes(2, lambda: "", lambda: held[0])
    assert free.borrow() is None
    held[0] = False
    assert free.borrow() == 1
    assert free.take(1) == 0
