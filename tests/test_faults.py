"""Surroundings that are not as usual: a campaign works there, or says in one sentence what to type, and loses nothing.

Other faults are in `test_mistakes.py`, `test_signals.py`, `test_git_settings.py`, `test_checkout.py` and
`test_elsewhere.py`; the page `docs/reliability.md` has the table of all.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repo import UNUSED, Repo

needs_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None and "CI" not in os.environ, reason="bubblewrap is not installed"
)

NOBODY = ("--unshare-user", "--uid", "12345", "--gid", "12345")  # no entry in /etc/passwd, and none of root's rights
REMEDY = "and a session keeps its records and reports there: make it writable, or clone the repository to another place"


def session(repo: Repo, *view: str, begin: str = "true", **variables: str | None) -> subprocess.CompletedProcess[str]:
    """A session with another view of the machine, and with other variables; None removes one."""
    command = [sys.executable, "-m", "pytest", *repo.arguments("--max", "1"), *UNUSED, "-p", "no:cacheprovider"]
    command += ["--junitxml", "results.xml"]
    changed = {**os.environ, **variables}
    done = subprocess.run(
        ["bwrap", "--dev-bind", "/", "/", *view, "sh", "-c", f"{begin} && exec {shlex.join(command)}"],
        cwd=repo.path, text=True, capture_output=True, check=False, encoding="utf-8", errors="replace",
        env={name: value for name, value in changed.items() if value is not None},
    )  # fmt: skip
    assert "INTERNALERROR" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


def begun(repo: Repo) -> None:
    """A campaign with one experiment, and a proposal for the next one."""
    repo.plan(0.9)
    assert repo.run("--max", "1").ret == 0
    repo.plan(0.9, 0.8)


@needs_bubblewrap
@pytest.mark.parametrize(
    "name",
    [
        ".git/autoresearch", ".git/autoresearch/campaign-t.lock", ".git/objects", ".git/refs",
        ".git/refs/autoresearch/t", ".git/worktrees", "experiments/runs", "experiments/runs/t", "results.tsv",
    ],
)  # fmt: skip
def test_no_permission_is_said_before_an_experiment_and_mended_by_giving_it(repo: Repo, name: str) -> None:
    begun(repo)
    place = repo.path / name
    mode = place.stat().st_mode
    place.chmod(0o555 if place.is_dir() else 0)
    done = session(repo, *NOBODY)
    place.chmod(mode)
    assert (done.returncode, done.stderr.strip()) == (
        4,
        f"ERROR: {place} cannot be written (Permission denied), {REMEDY}",
    )
    assert repo.run("--max", "1").ret == 0
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    repo.check_ledger()


@needs_bubblewrap
@pytest.mark.parametrize("name", ["results.tsv", "report.html", "progress.png"])
def test_a_view_that_cannot_be_written_is_a_note_and_no_loss(repo: Repo, name: str) -> None:
    begun(repo)
    place = repo.path / name
    place.touch()
    done = session(repo, "--ro-bind", str(place), str(place))
    assert done.returncode == 0, done.stdout
    assert name == "progress.png" or f"note: {name} " in done.stdout
    repo.plan(0.9, 0.8, 0.7)
    assert repo.run("--max", "1").ret == 0
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep", 3: "keep"}
    repo.check_ledger()


@needs_bubblewrap
def test_a_junit_file_that_cannot_be_written_fails_the_session_but_not_the_campaign(repo: Repo) -> None:
    begun(repo)
    place = repo.path / "results.xml"
    place.touch()
    done = session(repo, "--ro-bind", str(place), str(place))
    assert done.returncode == 3
    assert f"ERROR: {place} was not written (Device or resource busy), but every record is in git" in done.stdout
    assert "generated xml file" not in done.stdout
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    repo.check_ledger()


@needs_bubblewrap
@pytest.mark.parametrize("home", ["HOME", None])
def test_a_user_without_a_name_and_without_a_home(repo: Repo, home: str | None) -> None:
    repo.plan(0.9)
    variables = {} if home else {"HOME": None}
    done = session(repo, *NOBODY, **variables, USER=None, LOGNAME=None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert repo.statuses() == {0: "keep", 1: "keep"}


@needs_bubblewrap
def test_64_open_files_are_enough(repo: Repo) -> None:
    repo.plan(0.9)
    assert session(repo, begin="ulimit -n 64").returncode == 0
    assert repo.statuses() == {0: "keep", 1: "keep"}


@needs_bubblewrap
def test_a_locale_of_ascii_keeps_what_a_description_says(repo: Repo) -> None:
    repo.hooks("""
        propose = pytest_autoresearch_propose

        def pytest_autoresearch_propose(context, failure):
            return propose(context, failure) and Proposal("größer → besser", proposer="plan")
    """)
    repo.plan(0.9)
    done = session(repo, LC_ALL="POSIX", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "größer → besser" in (repo.path / "results.tsv").read_text("utf-8")
    assert "größer → besser" in (repo.path / "report.html").read_text("utf-8")
    assert repo.git("log", "-1", "--format=%s", repo.head()) == "größer → besser"


@needs_bubblewrap
def test_a_lock_of_the_index_does_not_hold_up_a_session(repo: Repo) -> None:
    repo.plan(0.9)
    lock: Path = repo.path / ".git/index.lock"
    lock.touch()
    assert repo.run("--max", "1").ret == 0
    assert repo.statuses() == {0: "keep", 1: "keep"}
    assert lock.exists()  # it may be the user's
