"""Text of a candidate's gives no command to a CI runner, in whichever form and place."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from io import StringIO

import pytest
from repo import Repo

from pytest_autoresearch.reports.harmless import HarmlessOutput, harmless, harmless_json

# Those of GitHub's runner, and two of Azure's.
NAMES = (
    *("set-output", "add-mask", "stop-commands", "set-env", "add-path", "group", "endgroup", "error", "warning"),
    *("notice", "debug", "save-state", "add-matcher", "remove-matcher", "echo", "section", "internal-set-repo-path"),
    *("vso[task.setvariable variable=x]", "vso[task.prependpath]"),
)


def forms(name: str) -> list[str]:
    """The ways to give a command, some of them in the middle of a line."""
    if "[" in name:
        return [f"##{name}value", f"said ##{name}value"]
    return [
        f"::{name} name=x::value", f"  ::{name}::value", f"\t::{name}::", f"\x1b[31m::{name}::value",
        f"##[{name}]value", f"said ##[{name} name=x;]value", f"###[{name}]value",
    ]  # fmt: skip


COMMANDS = [form for name in NAMES for form in forms(name)]


def obeyed(log: str) -> list[str]:
    """The lines of a log in which GitHub's runner, or Azure's, finds a command."""
    return [
        line
        for line in re.split(r"[\r\n]+", log)
        if re.sub(r"\x1b\[[\d;]*m", "", line).strip().startswith("::") or "##[" in line or "##vso[" in line
    ]


def test_no_form_of_a_command_is_left() -> None:
    assert [text for text in COMMANDS if not obeyed(text)] == []
    logs = [(text, f"line\n{text}", f"line\r{text}", f"0001 keep {text}\r\n{text}\n") for text in COMMANDS]
    for log in (log for several in logs for log in several):
        said = harmless(log)
        assert not obeyed(said)
        assert re.sub(r"[ :#]", "", said) == re.sub(r"[ :#]", "", log)


def test_a_command_in_parts_is_none_either() -> None:
    for text, size in itertools.product(COMMANDS, (1, 2, 3, 7)):
        stream = StringIO()
        output = HarmlessOutput(stream)
        output.write("x" * 200 + "\n")
        for at in range(0, len(text), size):
            output.write(text[at : at + size])
        assert not obeyed(stream.getvalue())


def test_ordinary_text_stays() -> None:
    for text in ("# heading\n## [link](x)\nC++ std::vector", "a::b ::c\n", "progress 5%\rprogress 6%", "#[derive]"):
        stream = StringIO()
        HarmlessOutput(stream).write(text)
        assert (harmless(text), stream.getvalue()) == (text, text)
    output = HarmlessOutput(stream := StringIO())
    output.write("...")
    output.command("::notice::kept")
    assert stream.getvalue() == "...\n::notice::kept\n"


def test_json_keeps_its_meaning() -> None:
    for text in COMMANDS:
        document = {"description": text, text: [1]}
        said = harmless_json(json.dumps(document))
        assert not obeyed(said)
        assert json.loads(said) == document


# In a session and in the commands, with every text that is a candidate's.

TEXT = "##[set-output name=x;]y ::add-mask::y"
FAILS = f"print({TEXT!r}); print('::stop-commands::x'); raise RuntimeError({TEXT!r})"


@pytest.mark.parametrize("options", [(), ("-q",), ("-v",), ("-rA",), ("-q", "--autoresearch-json"), ("--tb=long",)])
def test_nothing_of_a_candidate_commands_the_runner(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    repo.plan(f"do:{FAILS}", 0.9)
    propose = (repo.path / "conftest.py").read_text()
    repo.write("conftest.py", propose.replace('Proposal(f"action', f'Proposal(f"{TEXT}'))
    repo.commit("A description")
    result = repo.run("--max", "2", *options)
    ours = [line for line in result.outlines if re.match(r"::(notice|warning) title=[^:]*::", line)]
    assert len(ours) == 2
    assert obeyed("\n".join([*result.outlines, *result.errlines])) == ours
    assert repo.statuses() == {0: "keep", 1: "crash", 2: "keep"}
    monkeypatch.setenv("CI", "true")
    for command in (["results"], ["show", "2"], ["show", "2", "--diff"], ["show", "1", "--log"], ["best"],
                    ["results", "--json"]):  # fmt: skip
        said = subprocess.run(
            [sys.executable, "-c", "import sys; from pytest_autoresearch.cli import main; sys.exit(main())", *command],
            cwd=repo.path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert said.stdout
        assert not obeyed(said.stdout + said.stderr), command
