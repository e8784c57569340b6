"""The last lines of a session are commands; each is typed here, and works."""

from __future__ import annotations

import shlex

import pytest
from repo import CONFIG, Repo

from pytest_autoresearch.cli import main
from pytest_autoresearch.reports.next_steps import more_of

PLAIN = "autoresearch_sandbox = off\nautoresearch_confirm = off\nautoresearch_ahead = 0\n"


@pytest.fixture
def plain(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """The repository with what a session here is given on the command line in its configuration."""
    repo.write("pytest.ini", CONFIG + PLAIN)
    repo.commit("Settings")
    monkeypatch.chdir(repo.path)
    return repo


def steps(result: pytest.RunResult) -> list[list[str]]:
    """The words of each command."""
    lines = result.outlines[result.outlines.index("next:") + 1 :]
    return [
        shlex.split(line.strip().partition("  ")[0])
        for line in lines[: next(n for n, t in enumerate(lines) if t[:1] != " ")]
    ]


def session(repo: Repo, *arguments: str) -> pytest.RunResult:
    return repo.pytester.runpytest_inprocess("--autoresearch", *arguments)


def test_after_a_keep_the_commands_show_take_and_audit_it(plain: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    plain.plan(1.5, 0.9, 0.7, 0.65)
    show, best, audit, more = steps(session(plain, "--max", "4", "-p", "no:randomly"))
    capsys.readouterr()
    assert main(show[1:]) == 0
    assert "+ACTION = '0.7'" in capsys.readouterr().out
    assert main(best[1:]) == 0
    assert plain.git("rev-parse", "HEAD") == plain.git(
        "rev-parse", next(iter(plain.git("branch", "--list", "--format=%(refname)", "autoresearch/*").split()))
    )
    assert main(audit[1:]) == 0
    assert more == ["pytest", "--autoresearch", "-p", "no:randomly", "--max", "20"]
    plain.plan(1.5, 0.9, 0.7, 0.65, 0.6)
    result = plain.pytester.runpytest_inprocess(*more[1:])
    assert result.parseoutcomes()["kept"] == 1


def test_without_a_keep_the_nearest_miss_is_shown(plain: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    plain.plan(1.5, 1.2, "crash")
    result = session(plain, "--max", "3")
    show, more = steps(result)
    assert more[0] == "pytest"
    capsys.readouterr()
    assert main(show[1:]) == 0
    assert "+ACTION = '1.2'" in capsys.readouterr().out
    assert max(map(len, result.outlines[result.outlines.index("next:") :][:3])) < 80


def test_where_all_crashed_the_last_log_is_shown(plain: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    plain.plan("crash")
    show, _ = steps(session(plain, "--max", "1"))
    capsys.readouterr()
    assert main(show[1:]) == 0
    assert "the tensor is sad" in capsys.readouterr().out


def test_a_campaign_that_is_not_found_by_itself_is_named(plain: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    plain.write("pytest.ini", CONFIG + PLAIN + "autoresearch_tag = usual\n")
    plain.commit("A usual tag")
    plain.plan(0.9)
    show, best, audit, more = steps(session(plain, "--max", "1", "--autoresearch-tag", "other"))
    assert show[-2:] == best[-2:] == audit[-2:] == ["--tag", "other"]
    capsys.readouterr()
    assert main(show[1:]) == 0
    assert more[-4:] == ["--autoresearch-tag", "other", "--max", "20"]


def test_what_would_do_nothing_is_not_proposed(plain: Repo) -> None:
    plain.plan(0.9)
    commands = steps(session(plain, "--max", "1", "--autoresearch-target", "0.95", "--autoresearch-audit"))
    assert [words[1] for words in commands] == ["show", "best"]
    commands = steps(session(plain, "--max", "1", "--autoresearch-target", "0.95"))
    assert [words[1] for words in commands] == ["show", "best"]


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ("--autoresearch", "pytest --autoresearch --max 20"),
        ("--autoresearch --max 3 -q", "pytest --autoresearch -q --max 20"),
        ("--max=3 --autoresearch", "pytest --autoresearch --max 20"),
        (
            "--autoresearch --autoresearch-max 3 --autoresearch-maximum 4",
            "pytest --autoresearch --autoresearch-maximum 4 --max 20",
        ),
    ],
)
def test_the_same_command_with_more_experiments(given: str, more: str) -> None:
    assert shlex.join(more_of(given.split())) == more
