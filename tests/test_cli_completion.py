"""`autoresearch completion`, in real shells; those that are not installed are skipped."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
from pathlib import Path

import pytest
from nights import document, night
from repo import Repo

from pytest_autoresearch import cli
from pytest_autoresearch.cli.completion import script_for

# What the shell does at a TAB behind the last word.
BASH = """
source {script}
complete -p autoresearch >/dev/null || exit 1
COMP_WORDS=({words} "$1")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_autoresearch autoresearch "$1" "${{COMP_WORDS[COMP_CWORD - 1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
EVERY = sorted(cli.COMMANDS)
OPTIONS = sorted(
    ["--help", "--json", "--tag", "--top", "--kept-only", "--grep", "--since", "--format", "--metric", "--direction"]
)
CASES = [
    ("autoresearch", "", EVERY),
    ("autoresearch", "comp", ["compare", "completion"]),
    ("autoresearch results", "--", OPTIONS),
    ("autoresearch results --format", "", ["csv", "json", "parquet", "table", "tsv"]),
    ("autoresearch results --tag", "", ["t", "u"]),
    ("autoresearch compare", "", ["t", "u"]),
    ("autoresearch results", "tra", ["train.py"]),
    ("autoresearch best", "", ["t", "u"]),
    ("autoresearch -C . best", "", ["t", "u"]),
    ("autoresearch -C experiments/.. results --tag", "", ["t", "u"]),
    ("autoresearch -C / results --tag", "", []),
    ("autoresearch completion", "", ["bash", "fish", "zsh"]),
]


def script(shell: str, folder: Path) -> Path:
    """The script as a file outside the repository."""
    path = folder / f"autoresearch.{shell}"
    path.write_text(script_for(shell))
    return path


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")


def test_bash_completes_commands_options_choices_tags_and_files(
    repo: Repo, tmp_path_factory: pytest.TempPathFactory
) -> None:
    needs("bash")
    night(repo)
    file = script("bash", tmp_path_factory.mktemp("bash"))
    for words, begun, expected in CASES:
        text = BASH.format(script=file, words=words)
        done = subprocess.run(["bash", "-c", text, "bash", begun], capture_output=True, text=True, check=True)
        assert sorted(done.stdout.split()) == expected, words


def test_fish_completes_the_same(repo: Repo, tmp_path_factory: pytest.TempPathFactory) -> None:
    needs("fish")
    night(repo)
    folder = tmp_path_factory.mktemp("fish")
    file = script("fish", folder)
    for words, begun, expected in CASES:
        text = f'source {file}; complete -C "{words} {begun}"'
        done = subprocess.run(
            ["fish", "-c", text], capture_output=True, text=True, check=True, env=os.environ | {"HOME": str(folder)}
        )
        names = {line.partition("\t")[0] for line in done.stdout.splitlines()} - {"-h"}
        assert sorted(names) == expected, words


def test_zsh_completes_at_a_terminal(repo: Repo, tmp_path_factory: pytest.TempPathFactory) -> None:
    needs("zsh")
    night(repo)
    folder = tmp_path_factory.mktemp("zsh")
    text = script("zsh", folder)
    shell, end = pty.openpty()
    variables = os.environ | {"TERM": "dumb", "ZDOTDIR": str(folder), "PS1": "> "}
    process = subprocess.Popen(["zsh", "-f", "-i"], stdin=end, stdout=end, stderr=end, env=variables)
    os.close(end)
    try:
        typed(
            shell,
            f'autoload -Uz compinit && compinit -u -d {folder}/dump; eval "$(cat {text})"; echo re""ady\n',
            "ready",
        )
        for begun, whole in (
            ("autoresearch resul", "results "),
            ("autoresearch results --kept", "--kept-only "),
            ("autoresearch results --format j", "json "),
            ("autoresearch results tra", "train.py "),
        ):
            typed(shell, f"{begun}\t", re.escape(begun.rpartition(" ")[0] + " " + whole))
            typed(shell, "\x15\n", "> $")  # away with the line
        typed(shell, "autoresearch compare \t", r"\bt +u\b")
        typed(shell, "\x15\n", "> $")
        typed(shell, f"cd / && autoresearch -C {repo.path} best \t", r"\bt +u\b")
    finally:
        process.kill()
        process.wait()
        os.close(shell)


def typed(shell: int, keys: str, until: str) -> None:
    """Type at the terminal and wait until it shows that."""
    os.write(shell, keys.encode())
    shown = ""
    while not re.search(until, shown.rstrip("\n")):
        assert select.select([shell], [], [], 20)[0], f"{keys!r}: {shown!r}"
        shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x07\x0f\r]", "", os.read(shell, 65536).decode(errors="replace"))


def test_json_holds_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "completion", "bash", "--json")
    assert found == {"shell": "bash", "script": script_for("bash")}


def test_a_shell_that_is_not_known_is_answered_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["completion", "tcsh"])
    assert end.value.code == 2
    assert "bash" in capsys.readouterr().err
