"""The documents name everything that a user can set, implement or read."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest_autoresearch
from pytest_autoresearch import Context, cli, hookspecs
from pytest_autoresearch.campaign.view import CampaignView
from pytest_autoresearch.core.experiment import Experiment, Proposal, Repair, Status, Verdict
from pytest_autoresearch.core.failure import Stage
from pytest_autoresearch.core.records import encode
from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Run
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.settings import INI_KEYS, OPTIONS, Settings

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def test_every_option_ini_key_and_hook_is_in_the_reference() -> None:
    for option in OPTIONS:
        assert option.hidden or f"`{f'{option.flag} {option.metavar}'.strip()}`" in REFERENCE, option.flag
        assert option.hidden or not option.default or f"| {_written(option.default)} |" in REFERENCE, option.flag
    for key in INI_KEYS:
        assert f"| `{key.key}` |" in REFERENCE, key.key
    for name in dir(hookspecs):
        if name.startswith("pytest_autoresearch_"):
            assert f"`{name}(" in REFERENCE, name


def _written(default: object) -> str:
    return f"`{default}`" if isinstance(default, str) else f"{default:g}"


def test_every_public_name_and_its_fields_are_in_the_reference() -> None:
    hooks = REFERENCE.split("## Hooks")[1].split("## Records")[0]
    assert f"from pytest_autoresearch import {', '.join(pytest_autoresearch.__all__)}\n" in hooks
    for name in pytest_autoresearch.__all__:
        assert f"| `{name}` |" in hooks
        assert getattr(pytest_autoresearch, name).__name__ == name
    for shown in (Proposal, Verdict, Context, CampaignView, Settings):
        missing = {field.name for field in dataclasses.fields(shown) if f"`{field.name}`" not in hooks}
        assert missing == set(), shown.__name__
    assert all(f"Status.{status.name}" in hooks for status in Status)


def test_every_extra_is_in_the_reference() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in extras.keys() - {"dev", "docs", "plugins", "trackers"}:
        row = next(line for line in REFERENCE.splitlines() if line.startswith(f"| `[{extra}]` |"))
        assert extra == "all" or all(re.split(r"\W", library)[0] in row for library in extras[extra])


def test_every_record_field_is_in_the_reference() -> None:
    run = Run(1, None, crash=Crash(CrashClass.EXIT, "no", 1))
    record = Experiment(
        1, "t", "c", "b", "t", Proposal(""), (run,), Limits(1, 1, 1), setting=Setting(),
        refusal=Crash(CrashClass.REFUSED, ""),
        verdict=Verdict(Status.CRASH, "exit 1", "no"), repairs=(Repair(Stage.RUN, Crash(CrashClass.EXIT, "no", 1)),),
    )  # fmt: skip
    document = json.loads(encode(record))
    records = REFERENCE.split("## Records")[1]
    names = {*document, *document["runs"][0], *document["limits"], *document["setting"], *document["usage"]}
    names |= document["repairs"][0].keys()
    assert {name for name in names if f"`{name}`" not in records} == set()


def test_every_subcommand_with_its_options_is_in_the_documents() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    commands = next(
        action.choices
        for action in cli.parser(whole=True)._actions
        if isinstance(action, argparse._SubParsersAction)  # argparse has no other way to ask for them
    )
    assert set(commands) == set(cli.COMMANDS)
    for name, one in commands.items():
        assert re.search(rf"\bautoresearch {name}\b", text), name
        options = {flag for action in one._actions for flag in action.option_strings if flag.startswith("--")}
        missing = {flag for flag in options - {"--help"} if not re.search(rf"{flag}\b", text)}
        assert missing == set(), name


def test_every_command_that_a_page_names_exists() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "skills").rglob("*.md")):
        named = set(re.findall(r"(?:^|`)autoresearch ([a-z]+)", page.read_text(), re.MULTILINE))
        assert named <= set(cli.COMMANDS), page.name
        flags = {option.flag for option in OPTIONS} | {"--autoresearch"}
        unknown = set(re.findall(r"--autoresearch(?:-[a-z]+)*\b", page.read_text())) - flags
        assert unknown == set(), page.name


def test_the_readme_holds_the_commands_that_ci_types() -> None:
    readme = (ROOT / "README.md").read_text()
    script = (ROOT / ".ci" / "run").read_text()
    assert "pip install -c constraints.txt -e '.[all]' && pytest --autoresearch --max 3" in readme
    assert "pip install -c constraints.txt -e '.[dev]' && pytest\n" in readme
    assert "-c constraints.txt -e '.[dev]' && pytest --durations=10\n" in script  # no test more, no test less
    assert "python tests/pages.py docs/tutorial.md" in script  # which installs, and runs `pytest --autoresearch`


def test_the_main_command_starts_in_a_clone(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    command = [sys.executable, "-m", "pytest", "--autoresearch", "--collect-only", "-q", "--max", "2"]
    done = subprocess.run(command, cwd=tmp_path / "clone", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_val_bpb_improves[0002]" in done.stdout


def test_train_py_is_one_readable_file() -> None:
    assert len((ROOT / "train.py").read_text().splitlines()) <= 650
