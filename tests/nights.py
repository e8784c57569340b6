"""Two short campaigns that many tests of the `autoresearch` command read: made once by real sessions, then copied."""

from __future__ import annotations

import atexit
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from repo import Repo

from pytest_autoresearch.cli import main
from pytest_autoresearch.core.experiment import Experiment, Proposal, Status, Verdict
from pytest_autoresearch.ledger.ratchet import Ratchet

HOSTILE = "\x1b]0;owned\x07\x1b[2Jclean\nsecond\tline <script>alert(1)</script> =1+1"
COMMAND = [sys.executable, "-c", "import sys; from pytest_autoresearch.cli import main; sys.exit(main())"]
_made: list[Path] = []


def night(repo: Repo) -> Repo:
    """The repository with the campaign t (keep, crash, discard, keep) and then the campaign u (one discard)."""
    if _made:
        for left in repo.path.iterdir():  # the folder itself is where the test works
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        shutil.copytree(_made[0], repo.path, symlinks=True, dirs_exist_ok=True)
        return repo
    repo.plan(0.9, "crash", 0.95, 0.85)
    assert repo.run("--max", "4").ret == 0
    time.sleep(1 - time.time() % 1)  # git's dates have whole seconds, and u is the later campaign
    repo.plan("1.5")
    assert repo.run("--max", "1", "--autoresearch-tag", "u", "--autoresearch-budget", "5").ret == 0
    for left in repo.path.glob("runpytest-*"):
        left.unlink() if left.is_symlink() else shutil.rmtree(left)
    for name in ("stdout", "stderr"):
        (repo.path / name).unlink(missing_ok=True)
    home = Path(tempfile.mkdtemp(prefix="autoresearch-night-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    shutil.copytree(repo.path, home / "repo", symlinks=True)
    _made.append(home / "repo")
    return repo


def hostile(repo: Repo, **changes: Any) -> Experiment:
    """Add a record as a stranger might have pushed it: number 9 of the campaign t, with escapes in its texts."""
    ratchet = Ratchet(repo.path)
    ratchet.tag = "t"
    like = next(record for record in ratchet.records() if record.number == 3)
    proposal = Proposal(HOSTILE, hypothesis=HOSTILE, proposer="\x1b[31mred", area="=cmd")
    verdict = Verdict(Status.DISCARD, "assertion", f"not enough; {HOSTILE}", gain=-0.05)
    record = replace(like, number=9, proposal=proposal, verdict=verdict, **changes)
    ratchet.record(record)
    return record


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What `autoresearch ARGUMENTS` prints, in this process."""
    capsys.readouterr()
    assert main(arguments) == status, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence with which it says no."""
    capsys.readouterr()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    """Its JSON."""
    return json.loads(said(capsys, *arguments, status=status))


def typed(*arguments: str, status: int = 0) -> str:
    """The real command in a process of its own; what it prints."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout


def on_a_terminal(*arguments: str, columns: int = 80, **environment: str) -> str:
    """What the real command draws on a terminal of so many columns."""
    main_end, end = pty.openpty()
    variables = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns)} | environment
    process = subprocess.Popen([*COMMAND, *arguments], stdin=end, stdout=end, stderr=end, env=variables)
    os.close(end)
    data = b""
    while select.select([main_end], [], [], 30)[0]:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        data += part
    os.close(main_end)
    process.wait(timeout=30)
    return data.decode().replace("\r\n", "\n")
