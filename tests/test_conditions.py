"""Results are compared only under equal conditions, and other changes are reported."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from repo import CONFIG, Repo

from pytest_autoresearch.measure import conditions


def refused(repo: Repo) -> str:
    """The sentence with which a session ends before anything runs."""
    before = repo.git("for-each-ref")
    result = repo.run("--max", "1")
    assert result.ret == 4
    assert repo.git("for-each-ref") == before
    return result.stderr.str()


@pytest.fixture
def begun(repo: Repo) -> Repo:
    """A campaign with a baseline, that trained with a command, a variable and untracked data."""
    repo.write(".gitignore", (repo.path / ".gitignore").read_text() + "data\n")
    repo.write("data/words.txt", "one two three\n")
    repo.write("data/rows.bin", "0" * 300_000)
    repo.write("pytest.ini", CONFIG + "autoresearch_readable = data\n")
    repo.commit("Data")
    repo.plan(0.9, 0.8, 0.7)
    assert repo.run("--max", "1").ret == 0
    return repo


def test_another_command_is_refused_by_name(begun: Repo) -> None:
    begun.write("pytest.ini", CONFIG.replace("train.py", "train.py 1000") + "autoresearch_readable = data\n")
    begun.commit("A longer run")
    said = refused(begun)
    assert (
        "the campaign t began with other command (python -S train.py, now python -S train.py 1000) and its results "
        "cannot be compared: choose another --autoresearch-tag"
    ) in said


def test_another_variable_of_training_is_refused_by_name(begun: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "began with other environment variable (none, now OMP_NUM_THREADS=3) and" in refused(begun)


def test_where_programs_and_folders_are_is_no_condition(begun: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/somewhere")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    assert begun.run("--max", "1").ret == 0
    assert begun.statuses() == {0: "keep", 1: "keep", 2: "keep"}


@pytest.mark.parametrize("change", ["a word", "a byte in the middle", "a new file", "a removed file"])
def test_other_data_are_refused_by_name(begun: Repo, change: str) -> None:
    data = begun.path / "data"
    match change:
        case "a word":
            (data / "words.txt").write_text("one two trees\n")
        case "a byte in the middle":
            with open(data / "rows.bin", "r+b") as file:
                file.seek(299_999)
                file.write(b"1")
        case "a new file":
            (data / "more.txt").write_text("")
        case _:
            (data / "words.txt").unlink()
    assert "began with other content of the readable path data and its results cannot be compared" in refused(begun)


def test_equal_data_with_other_times_are_equal(begun: Repo) -> None:
    for file in (begun.path / "data").iterdir():
        os.utime(file, (1, 1))
    assert begun.run("--max", "1").ret == 0


def test_changed_packages_are_reported_and_recorded(
    begun: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    (site / "zebra-1.2.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(site))
    result = begun.run("--max", "1")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["  note:     packages changed since this campaign began, *: nothing -> zebra-1.2"])
    first, second, third = (record.setting for record in begun.records())
    assert first.packages == second.packages != third.packages
    assert '"packages changed at 0002"' in (begun.path / "report.html").read_text()


def test_a_record_holds_the_conditions(begun: Repo) -> None:
    setting = begun.records()[0].setting
    assert setting.command == "python -S train.py"
    assert setting.environment is not None
    assert setting.readable is not None
    assert list(setting.readable) == ["data"]
    assert setting.python.startswith("3.")
    assert len(setting.packages) == 16


def test_a_secret_is_not_recorded() -> None:
    training = {"MY_TOKEN": "hush", "PLAIN": "said", "ODD": "a\nb", "EMPTY": ""}
    found = conditions.variables(training, Path("/checkout"))
    assert found == {"MY_TOKEN": "set", "ODD": "set", "PLAIN": "said"}


def test_of_the_search_path_only_folders_outside_of_the_checkout_count(tmp_path: Path) -> None:
    inside, outside = tmp_path / "checkout" / "src", tmp_path / "elsewhere"
    found = conditions.variables({"PYTHONPATH": f"{inside}:{outside}"}, tmp_path / "checkout")
    assert found == {"PYTHONPATH": str(outside)}
    assert conditions.variables({"PYTHONPATH": str(inside)}, tmp_path / "checkout") == {}


def test_a_campaign_of_an_earlier_version_goes_on(begun: Repo) -> None:
    name = "refs/autoresearch/t/0000"
    text = json.loads(begun.git("for-each-ref", "--format=%(contents)", name))
    for later in ("command", "environment", "readable", "python", "packages"):
        del text["setting"][later]
    begun.git("update-ref", "-d", "refs/autoresearch/t/0001")
    begun.git("tag", "-f", "-a", "-m", json.dumps(text), "old", begun.git("rev-parse", f"{name}^{{commit}}"))
    begun.git("update-ref", name, "refs/tags/old")
    begun.git("update-ref", "refs/heads/autoresearch/t", begun.git("rev-parse", f"{name}^{{commit}}"))
    begun.write("pytest.ini", CONFIG)
    begun.commit("Without data")
    assert begun.run("--max", "1").ret == 0
