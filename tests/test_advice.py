"""What is said when the user's own program fails only in a session: the file or the variable, and what to type."""

from __future__ import annotations

from pathlib import Path

import pytest
from repo import Repo

from pytest_autoresearch.sandboxes.shown import places
from pytest_autoresearch.sandboxes.system import found_in

WHY = "because a run sees only the last commit"
SHOWN = "which training does not get"
COMMIT = "type `git add {} && git commit -m 'Before the campaign'`"


def fails_with(repo: Repo, line: str, *arguments: str) -> str:
    """The output of a session whose baseline does this first; nothing is recorded."""
    repo.write("train.py", f"ACTION = '1.0'\n{line}\nprint('val_bpb: 1.0')\n")
    repo.git("add", "train.py")
    repo.git("commit", "-qm", "A baseline")
    result = repo.run("--max", "1", *arguments)
    assert not repo.records()
    return result.stdout.str()


def test_an_untracked_module_is_named(repo: Repo) -> None:
    repo.write("helper.py", "")
    said = fails_with(repo, "import sys; sys.path.insert(0, '.')\nimport helper")
    assert f"helper.py is in no commit, and a run sees only the last commit: {COMMIT.format('helper.py')}" in said
    assert "sandbox does not show" not in said


def test_an_untracked_file_is_named_with_both_ways_out(repo: Repo) -> None:
    repo.write("data/rows.txt", "1")
    said = fails_with(repo, "open('data/rows.txt')")
    assert (
        f"data/rows.txt is in no commit, and a run sees only the last commit: {COMMIT.format('data/rows.txt')}" in said
    )
    assert "only reads it, write `autoresearch_readable = data/rows.txt` in pytest.ini" in said
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + "autoresearch_readable = data/rows.txt\n")
    repo.git("add", "pytest.ini")
    repo.git("commit", "-qm", "As it says")
    repo.run("--max", "0")
    assert repo.statuses() == {0: "keep"}


def test_an_uncommitted_fix_is_named_and_an_uncommitted_note_is_not(repo: Repo) -> None:
    repo.write("tool.py", "value = 1\n")
    repo.write("notes.md", "")
    repo.commit("A tool")
    repo.write("tool.py", "value = fixed = 1\n")
    repo.write("notes.md", "note")
    said = fails_with(repo, "import sys; sys.path.insert(0, '.')\nimport tool; tool.fixed")
    assert f"uncommitted changes in tool.py are ignored, {WHY}: {COMMIT.format('tool.py')}" in said
    assert "notes.md" not in said


def test_a_variable_that_the_program_reads_and_does_not_get_is_named(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", "/data")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    line = "import os\nos.environ.get('WANDB_API_KEY')\nos.environ['DATA_DIR']"
    said = fails_with(repo, line)
    assert f"the program reads the variable DATA_DIR, {SHOWN}: write `autoresearch_environment = DATA_DIR` in" in said
    assert f"the program reads the variable WANDB_API_KEY, {SHOWN}" in said
    assert "secret" not in said
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + "autoresearch_environment = DATA_* WANDB_*\n")
    repo.write("train.py", f"ACTION = '1.0'\n{line}\nassert 'WANDB_API_KEY' not in os.environ\nprint('val_bpb: 1.0')\n")
    repo.commit("As it says")
    repo.run("--max", "0")
    assert repo.statuses() == {0: "keep"}, "a pattern passes the folder, and no key"


def test_a_key_is_passed_by_its_exact_name(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + "autoresearch_environment = WANDB_API_KEY\n")
    repo.write("train.py", "ACTION = '1.0'\nimport os\nos.environ['WANDB_API_KEY']\nprint('val_bpb: 1.0')\n")
    repo.commit("A key")
    repo.run("--max", "0", "--autoresearch-sandbox", "auto")
    assert repo.statuses() == {0: "keep"}


@pytest.mark.parametrize(
    "line", ["print('val_bpb: 2.0')", "raise ValueError('no')", "open('nowhere')", "import nowhere"]
)
def test_a_failure_of_another_kind_gets_no_advice(repo: Repo, line: str) -> None:
    said = fails_with(repo, line, "--autoresearch-sandbox", "auto")
    for word in ("autoresearch_readable", "autoresearch_environment", "no commit", "are ignored", "may not write"):
        assert word not in said


def test_a_place_that_is_read_only_is_named_with_the_places_that_are_not(repo: Repo, tmp_path: Path) -> None:
    folder = tmp_path.parent / f"{tmp_path.name}-shown"
    folder.mkdir()
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + f"autoresearch_readable = {folder}\n")
    repo.commit("A folder")
    said = fails_with(repo, f"open({str(folder / 'model.ckpt')!r}, 'w')", "--autoresearch-sandbox", "require")
    sentence = f"training may not write to {folder}/model.ckpt: write to the folder in the variable AUTORESEARCH_OUT"
    assert sentence in said
    assert "the sandbox does not show" not in said


def test_an_error_that_the_program_has_caught_gets_no_advice(repo: Repo) -> None:
    repo.write("rows.txt", "")
    caught = "try: open('rows.txt')\nexcept OSError as error: print(error)\nraise ValueError('no')"
    assert "no commit" not in fails_with(repo, caught)


def test_a_path_in_the_home_folder_is_written_as_one(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    corpus = tmp_path.parent / f"{tmp_path.name}-corpus"
    corpus.write_text("text")
    line = f"import os; open(os.path.expanduser('~/{corpus.name}'))"
    said = fails_with(repo, line, "--autoresearch-sandbox", "require")
    assert f"the sandbox does not show ~/{corpus.name}: write `autoresearch_readable = ~/{corpus.name}` in" in said


def test_a_folder_in_usr_that_a_program_misses_is_named(repo: Repo) -> None:
    readable, _ = places([], {})
    folder = next(
        path for path in sorted(Path("/usr/share").iterdir()) if path.is_dir() and not found_in(path, readable)
    )
    line = f"import os; os.path.exists('{folder}') or exit('looked in {folder}, /usr/bin and /usr/no/such')"
    said = fails_with(repo, line, "--autoresearch-sandbox", "require")
    assert f"the sandbox shows only a part of /usr: write `autoresearch_readable = {folder}` in pytest.ini" in said


def test_the_line_is_written_as_the_configuration_file_wants_it(repo: Repo, tmp_path: Path) -> None:
    corpus = tmp_path.parent / f"{tmp_path.name}-corpus"
    corpus.write_text("text")
    (repo.path / "pytest.ini").unlink()
    repo.write("pyproject.toml", "[tool.pytest.ini_options]\nautoresearch_command = 'python -S train.py'\n")
    repo.commit("TOML")
    said = fails_with(repo, f"open({str(corpus)!r})", "--autoresearch-sandbox", "require")
    line = f'autoresearch_readable = ["{corpus}"]'
    assert f"the sandbox does not show {corpus}: write `{line}` in pyproject.toml" in said
