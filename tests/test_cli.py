"""The `autoresearch` command as a whole: help, exit statuses, what it prints with."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from nights import COMMAND, document, night, on_a_terminal, refused, said, typed
from repo import CONFIG, Repo

from pytest_autoresearch import cli
from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.output import Column
from pytest_autoresearch.core.records import encode
from pytest_autoresearch.ledger.ratchet import Ratchet

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "optuna", "anthropic", "pyarrow", "numpy", "git", "pytest", "matplotlib")


def test_help_names_every_command_and_imports_nothing_that_takes_time() -> None:
    program = (
        "import sys\nfrom pytest_autoresearch.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    for name, summary in cli.COMMANDS.items():
        assert re.search(rf"^ +{name} +{re.escape(summary[:30])}", done.stdout, re.MULTILINE), name
    assert "exit status" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_the_commands_that_read_need_none_of_what_training_needs(repo: Repo) -> None:
    night(repo)
    program = (
        "import sys\nfrom pytest_autoresearch.cli import main\n"
        "for words in (['results'], ['show', '1'], ['best'], ['compare', 't', 'u']):\n    main(words)\n"
        "print([name for name in ('torch', 'optuna', 'anthropic', 'pyarrow', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_without_a_command_there_is_help_and_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "examples:" in captured.err


MISSPELT = {
    "resutls": "there is no command resutls: did you mean results?",
    "-C . shwo 3": "there is no command shwo: did you mean show?",
    "frobnicate": "there is no command frobnicate: type `autoresearch --help` for all",
    "results --kept-olny": "there is no option --kept-olny: did you mean --kept-only?",
    "results --tga=t": "there is no option --tga: did you mean --tag?",
    "results --colour": "unrecognized arguments: --colour",
}


@pytest.mark.parametrize("given", MISSPELT)
def test_a_misspelt_word_is_answered_with_the_one_that_is_meant(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(given.split())
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].partition(": error: ")[2] == MISSPELT[given]


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "prepare"])  # whose help is the harness's
def test_every_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: autoresearch {name}")
    assert "--json" in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_script_that_is_installed_is_this_command() -> None:
    (script,) = entry_points(group="console_scripts", name="autoresearch")
    assert script.load() is cli.main


def test_a_folder_may_be_called_like_a_command(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    (repo.path / "results").mkdir()
    assert "baseline" in said(capsys, "-C", "results", "show", "0")


def test_another_folder_is_worked_in(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night(repo)
    monkeypatch.chdir(tmp_path)
    assert "baseline" in typed("-C", str(repo.path), "results")


def test_outside_a_repository_every_reading_command_says_so_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["results"], ["show", "1"], ["best"], ["compare", "a", "b"]):
        said_no = refused(capsys, *words)
        assert "is not a git repository: cd to your repository, or give it with -C FOLDER" in said_no
        assert "git init" not in said_no
    assert "No such file" in refused(capsys, "-C", "nowhere", "results")


def test_without_a_campaign_it_says_how_to_begin_one(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert "type `pytest --autoresearch`" in refused(capsys, "results")


def test_a_tag_that_is_not_there_is_answered_with_those_that_are(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    assert "no campaign 'x' in this repository; it has t, u" in refused(capsys, "results", "--tag", "x")


@pytest.mark.parametrize("changes", [{"base": "--output=gone.txt"}, {"commit": "HEAD"}, {"tag": "../../.."}])
def test_a_record_that_no_session_wrote_is_refused(
    changes: dict[str, str], repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    record = replace(repo.records()[3], number=9, **changes)  # type: ignore[arg-type]
    text = f"object {repo.head()}\ntype commit\ntag t/0009\ntagger A <a@b> 0 +0000\n\n{encode(record)}\n"
    done = subprocess.run(["git", "mktag"], input=text, capture_output=True, text=True, check=True)
    repo.git("update-ref", "refs/autoresearch/t/0009", done.stdout.strip())
    for words in (["results"], ["show", "9", "--diff"], ["best"]):
        assert "refs/autoresearch/t/0009 was written by no session" in refused(capsys, *words, "--tag", "t")
    assert not (repo.path / "gone.txt").exists()


def test_a_configuration_that_is_strict_about_other_plugins_keys_is_read(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    strict = "addopts = --strict-config\nstrict_config = true\nfilterwarnings = error\n"
    repo.write("pytest.ini", f"{CONFIG}{strict}timeout = 50\n")
    assert "baseline" in said(capsys, "results")


def test_every_command_prints_json(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    for words in (["results"], ["show", "1"], ["compare", "t", "u"], ["best", "--tag", "t"]):
        assert document(capsys, *words, "--json")


def test_a_reader_that_has_seen_enough_ends_it_quietly(repo: Repo) -> None:
    night(repo)
    (repo.path / "long.tsv").write_text("commit\tval_bpb\tdescription\n" + "abcdef0\t1.0\tx\n" * 20_000)
    words = [*COMMAND, "results", "long.tsv", "--format", "tsv"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_one_sentence(repo: Repo) -> None:
    night(repo)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "show", "0"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "autoresearch show: No space left on device\n"


def test_prepare_has_help_where_no_harness_has_it(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["-h"]):
        text = said(capsys, "prepare", *words)
        assert text.startswith("usage: autoresearch prepare")
        assert "this repository has no harness" in text
    assert "this repository has no harness" in refused(capsys, "prepare")


def test_a_campaign_is_named_with_tag_or_without(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    for words in (["best", "t"], ["best", "--tag", "t"], ["report", "t"], ["report", "--tag", "t"]):
        assert json.loads(typed(*words, "--json"))["tag"] == "t"
    assert document(capsys, "results", "t", "--json") == document(capsys, "results", "--tag", "t", "--json")
    assert "of the campaign t is running" in said(capsys, "watch", "t", status=1)
    assert "no campaign 'x'" in refused(capsys, "audit", "--tag", "x")
    with pytest.raises(SystemExit):
        cli.main(["best", "t", "--tag", "u"])
    assert "two campaigns, t and u: name one" in capsys.readouterr().err


def test_a_report_tells_of_the_session_that_runs_and_counts_as_the_list_does(repo: Repo) -> None:
    night(repo)
    assert "report.html: 1 experiment, " in typed("report")
    assert '"running":false' in (repo.path / "report.html").read_text().replace(" ", "")
    session = Ratchet(repo.path)
    session.choose("u")
    session.open()
    typed("report", "--output", "page/")
    assert '"running":true' in (repo.path / "page" / "report.html").read_text().replace(" ", "")
    session.close()


# ------------------------------------------------------------------------------------------------ output


def test_colours_are_for_terminals_alone(repo: Repo) -> None:
    night(repo)
    words = ("results", "--tag", "t")
    assert "\x1b" not in typed(*words)
    assert "\x1b[32m0001  keep" in on_a_terminal(*words)
    assert "\x1b" not in on_a_terminal(*words, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(*words, TERM="dumb")


def test_a_table_is_cut_to_the_terminal_and_nowhere_else(repo: Repo) -> None:
    night(repo)
    words = ("results", "--tag", "t")
    drawn = on_a_terminal(*words, columns=76, NO_COLOR="1")
    assert [line for line in drawn.splitlines()[:-1] if len(line) > 76] == []
    assert "…" in drawn
    assert "action 2: crash (RuntimeError: the tensor is sad)" in typed(*words)


def test_on_a_narrow_terminal_what_matters_least_goes_first(repo: Repo) -> None:
    night(repo)
    lines = on_a_terminal("results", "--tag", "t", columns=40, NO_COLOR="1").splitlines()
    assert max(map(len, lines[:6])) <= 40
    assert lines[0].split()[:3] == ["no.", "verdict", "val_bpb"]
    assert lines[0].split()[-1] == "description"


def test_a_long_text_of_any_script_is_cut_at_once() -> None:
    assert output.cut("日本語" * 100_000, 8) == "日本語…"
    assert output.cut("e\u0301" * 9, 4) == "e\u0301" * 3 + "…"
    assert output.cut("abc", 3) == "abc"


def test_cells_of_any_script_are_aligned() -> None:
    text = output.table([("日本", 1), ("e\u0301", 22), ("\x1b[31mred\n", None)], [Column("a"), Column("n", right=True)])
    assert text == "a      n\n日本   1\ne\u0301     22\nred"


def test_a_block_of_names_keeps_further_lines_below_the_first() -> None:
    assert output.pairs([("a", "1\n2"), ("long", "x"), ("none", None)], indent=1) == " a     1\n       2\n long  x"


def test_json_has_null_for_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    output.dump({"a": float("nan"), "b": (float("inf"), Path("x")), "\x1b": "é\x1b"})
    text = capsys.readouterr().out
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text) == {"a": None, "b": [None, "x"], "\x1b": "é\x1b"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (3599.7, "1 h 00 min")],
)
def test_times_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert output.duration(seconds) == words


# ------------------------------------------------------------------------------------------------ its page


def test_every_command_and_everything_that_may_stand_behind_it_is_on_its_page() -> None:
    sections = re.split(r"^## ", (ROOT / "docs" / "cli.md").read_text(), flags=re.MULTILINE)
    for name, command in commands().items():
        (section,) = (text for text in sections if name in text.partition("\n")[0].split())
        for action in command._actions:
            words = action.option_strings[-1:] or ([action.metavar] if action.metavar else action.choices or ())
            for word in {*words} - {"--help", "--json", "..."}:  # which stand above, or are the harness's
                assert f"`{word}" in section, (name, word)


def test_every_value_for_programs_is_on_the_page(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    page = (ROOT / "docs" / "cli.md").read_text()
    assert [name for name in document(capsys, "results", "--json")[0] if f"`{name}`" not in page] == []


def commands() -> dict[str, argparse.ArgumentParser]:
    """The command lines of the subcommands."""
    (actions,) = (one for one in cli.parser(whole=True)._actions if isinstance(one, argparse._SubParsersAction))
    return dict(actions.choices)
