"""Signals and kills: reports are written, processes end, nothing is lost or doubled."""

from __future__ import annotations

import signal
import time

import pytest
from repo import Repo, with_one_and_two_lanes

pytestmark = pytest.mark.kill


def hanging(repo: Repo) -> bool:
    return any((repo.path / ".git/autoresearch").glob("lane-*-out/hanging"))


@with_one_and_two_lanes
@pytest.mark.parametrize(
    ("number", "count"), [(signal.SIGINT, "5"), (signal.SIGTERM, "5"), (signal.SIGHUP, "5"), (signal.SIGTERM, "0")]
)
def test_a_signal_ends_the_session_with_every_report(repo: Repo, number: signal.Signals, count: str) -> None:
    repo.plan(1.5, "hang", "hang", "hang")
    process = repo.start("--max", count)
    repo.wait_for(lambda: len(repo.rows()) == 2 and hanging(repo))
    output = repo.end(process, number)
    assert process.returncode == 2, output
    assert f"stopped by {number.name}" in output
    assert repo.training() == []
    assert len(repo.cases()) == 2
    assert "2 in the campaign" in output or "1 in the campaign" in output
    repo.check_ledger()


@with_one_and_two_lanes
def test_an_interrupted_candidate_is_tried_first_next_time(repo: Repo) -> None:
    repo.hooks("def pytest_autoresearch_record(experiment): open('.git/marker', 'w').close()")
    repo.plan("do:os.path.exists(os.path.expanduser(os.environ['MARK'])) or time.sleep(1000); block(0.9)", 0.8)
    repo.write("pytest.ini", f"[pytest]\nautoresearch_command = env MARK={repo.path}/.git/go python -S train.py\n")
    repo.commit()
    process = repo.start("--max", "1")
    repo.wait_for(lambda: len(repo.rows()) == 1 and repo.training())
    repo.end(process, signal.SIGINT)
    assert repo.statuses() == {0: "keep"}
    (repo.path / ".git/go").touch()
    repo.plan(0.7, 0.8)
    repo.run("--max", "1")
    assert repo.records()[1].proposal.description.startswith("action 1: do:")
    assert repo.statuses() == {0: "keep", 1: "keep"}
    repo.run("--max", "1")
    assert repo.records()[2].proposal.description == "action 2: 0.8"
    repo.check_ledger()


@with_one_and_two_lanes
def test_a_night_without_end_goes_on_until_it_is_stopped(repo: Repo) -> None:
    repo.plan(0.9, *[1.5] * 200)
    process = repo.start("--max", "0")
    repo.wait_for(lambda: len(repo.rows()) >= 5)
    output = repo.end(process, signal.SIGTERM)
    assert process.returncode == 2, output
    assert len(repo.cases()) == len(repo.rows())
    repo.check_ledger()


@with_one_and_two_lanes
def test_a_hanging_body_gives_way_to_the_second_signal(repo: Repo) -> None:
    repo.rule("""
        import time
        def test_it(experiment):
            if experiment.number:
                open(".git/in", "w").close()
                time.sleep(60)
        """)
    repo.plan(0.9, 0.8)
    process = repo.start("--max", "2")
    repo.wait_for((repo.path / ".git/in").exists)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    output = repo.end(process, signal.SIGTERM)
    assert process.returncode == 2, output
    assert list(repo.cases()) == ["test_it[0000]"]
    assert repo.statuses() == {0: "keep"}


@with_one_and_two_lanes
@pytest.mark.parametrize("twice", [False, True])
def test_a_signal_while_the_ratchet_moves_tears_nothing_apart(
    repo: Repo, twice: bool, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Hooks of the repository do not run, so git itself is made slow: a wrapper that sleeps before the transaction.
    wrapper = tmp_path_factory.mktemp("bin") / "git"
    real = next(path for path in ("/usr/bin/git", "/usr/local/bin/git") if __import__("os").path.exists(path))
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *update-ref*--stdin*) test -e {repo.path}/.git/slow && '
        f'touch {repo.path}/.git/moving && sleep 1.5;; esac\nexec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(wrapper.parent), prepend=":")
    repo.plan(0.9, 0.8)
    repo.run("--max", "0", "-k", "0000")
    (repo.path / ".git/slow").touch()
    process = repo.start("--max", "2")
    repo.wait_for((repo.path / ".git/moving").exists)
    process.send_signal(signal.SIGTERM)
    if twice:
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=30)[0]
    (repo.path / ".git/slow").unlink()
    assert process.returncode == 2, output
    assert len(repo.statuses()) == 2
    repo.check_ledger()


@pytest.mark.parametrize("when", ["makereport", "logreport"])
def test_a_killed_session_resumes_without_losing_or_doubling_a_row(repo: Repo, when: str) -> None:
    repo.hooks(f"""
        import os
        def pytest_runtest_{when}({"item, call" if when == "makereport" else "report"}):
            told = {"call, item" if when == "makereport" else "report, report"}
            if told[0].when == "call" and "[0002]" in told[1].nodeid and os.path.exists(".git/die"):
                os.kill(os.getpid(), 9)
        """)
    (repo.path / ".git/die").touch()
    repo.plan(0.9, 0.8, 0.7)
    result = repo.spawn("--max", "3", "--autoresearch-lanes", "1")
    assert result.ret == -9
    written = list(repo.cases())  # valid, and as far as its share of the time allowed
    assert written == [f"test_val_bpb_improves[{n:04d}]" for n in range(len(written))]
    assert 1 <= len(written) <= 2
    (repo.path / ".git/die").unlink()
    repo.run("--max", "1")
    last = 2 if when == "makereport" else 3
    assert list(repo.statuses()) == list(range(last + 1))
    repo.check_ledger()


@with_one_and_two_lanes
def test_a_kill_between_record_and_row_is_mended(repo: Repo) -> None:
    repo.hooks("""
        import os
        from pytest_autoresearch.ledger.results_tsv import ResultsFile
        append = ResultsFile.append
        def dying(self, experiment):
            if experiment.number == 1 and os.path.exists(".git/die"): os.kill(os.getpid(), 9)
            append(self, experiment)
        ResultsFile.append = dying
        """)
    (repo.path / ".git/die").touch()
    repo.plan(0.9, 0.8)
    assert repo.spawn("--max", "1").ret == -9
    assert len(repo.rows()) == 1
    (repo.path / ".git/die").unlink()
    repo.run("--max", "1")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    repo.check_ledger()


def test_a_kill_during_training_loses_that_experiment_alone(repo: Repo) -> None:
    repo.plan(0.9, "hang")
    process = repo.start("--max", "2")
    repo.wait_for(lambda: len(repo.rows()) == 2 and hanging(repo))
    process.kill()
    process.communicate()
    repo.wait_for(lambda: not repo.training())
    repo.plan(0.9, 0.8)
    repo.run("--max", "1")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    repo.check_ledger()


@with_one_and_two_lanes
def test_a_git_that_fails_ends_the_session_and_records_nothing(repo: Repo) -> None:
    repo.plan(0.9, 0.8)
    repo.run("--max", "1")
    blocked = repo.path / ".git/refs/autoresearch/t/0002"
    blocked.mkdir()
    (blocked / "in-the-way").write_text("")
    result = repo.run("--max", "1")
    assert result.ret == 3
    result.stdout.fnmatch_lines(["*not recorded: git update-ref*"])
    assert str(repo.case(2).find("failure").get("message")).startswith("not recorded: git")  # type: ignore[union-attr]
    assert list(repo.statuses()) == [0, 1]
    (blocked / "in-the-way").unlink()
    blocked.rmdir()
    repo.run("--max", "1")
    repo.check_ledger()
    assert list(repo.statuses()) == [0, 1, 2]


@with_one_and_two_lanes
def test_a_proposer_that_raises_is_no_crash_of_the_candidate(repo: Repo) -> None:
    repo.hooks("""
        @__import__("pytest").hookimpl(tryfirst=True)
        def pytest_autoresearch_propose(context):
            raise ConnectionError("the model is away")
        """)
    result = repo.run("--max", "2")
    assert result.ret == 3
    result.stdout.fnmatch_lines(["*ConnectionError: the model is away*"])
    assert repo.statuses() == {0: "keep"}


def test_the_record_is_there_before_anybody_hears_of_the_report(repo: Repo) -> None:
    repo.hooks("""
        import pytest, subprocess
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_logreport(report):
            if report.when == "call" or report.failed:
                number = report.nodeid.split("[")[1][:4]
                ref = subprocess.run(["git", "rev-parse", "-q", "--verify", "refs/autoresearch/t/" + number]).returncode
                rows = len(pathlib.Path("results.tsv").read_text().splitlines()) - 1
                print("DURABLE" if ref == 0 and rows > int(number) else "LATE", number)
        """)
    repo.plan(0.9, 1.5, "crash")
    result = repo.run("--max", "3", "-s", "--autoresearch-lanes", "1")
    assert result.stdout.str().count("DURABLE") == 4
    assert "LATE" not in result.stdout.str()


def test_nohup_is_respected(repo: Repo) -> None:
    repo.plan(0.9, "slow:1:0.8")
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does; a child inherits it
    try:
        process = repo.start("--max", "2", "--autoresearch-lanes", "1")
    finally:
        signal.signal(signal.SIGHUP, earlier)
    repo.wait_for(lambda: len(repo.rows()) == 2)
    output = repo.end(process, signal.SIGHUP)
    assert process.returncode == 0, output
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
