"""The skill is in the open agent-skills format, and its scripts do what it says in a real repository."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from pages import EDIT, ROOT, Clone

from pytest_autoresearch.cli import COMMANDS
from pytest_autoresearch.settings import INI_KEYS, OPTIONS

pytestmark = pytest.mark.flow

SKILL = ROOT / "skills" / "autoresearch"
SCRIPTS = sorted((SKILL / "scripts").iterdir())
TEXT = (SKILL / "SKILL.md").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("skill"))


@pytest.fixture
def clone(made: Clone, tmp_path: Path) -> Clone:
    return Clone(tmp_path, like=made)


def script(name: str) -> str:
    return f"skills/autoresearch/scripts/{name}"


def test_the_frontmatter_is_as_the_format_wants_it() -> None:
    _, front, body = TEXT.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["name"] == SKILL.name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", fields["name"])
    assert len(fields["name"]) <= 64
    assert 1 <= len(fields["description"]) <= 1024
    assert "<" not in fields["description"]
    assert len(fields["compatibility"]) <= 500
    assert all(isinstance(value, str) for value in fields["metadata"].values())
    assert fields.keys() <= {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
    assert len(body.splitlines()) < 500


def test_what_the_skill_names_is_there() -> None:
    assert {path.name for path in SCRIPTS} == set(re.findall(r"scripts/([\w-]+\.sh)", TEXT))
    texts = [TEXT, *(path.read_text() for path in SCRIPTS)]
    assert {word for text in texts for word in re.findall(r"`autoresearch ([a-z]+)", text)} <= set(COMMANDS)
    flags = {option.flag for option in OPTIONS} | {"--autoresearch"}
    assert {word for text in texts for word in re.findall(r"--autoresearch[a-z-]*\b(?!-)", text)} <= flags
    keys = {key.key for key in INI_KEYS} | {option.key for option in OPTIONS}
    assert set(re.findall(r"^ *(autoresearch_\w+) =", TEXT, re.MULTILINE)) <= keys


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.stem))
def test_a_script_says_how_it_is_used(path: Path, clone: Clone) -> None:
    assert os.access(path, os.X_OK)
    assert clone.type(f"{script(path.name)} --help").startswith(f"usage: {path.name}")


def test_a_repository_is_set_up_and_nothing_in_it_is_overwritten(clone: Clone) -> None:
    before = {name: (clone.path / name).read_text() for name in ("program.md", "train.py", "pytest.ini")}
    said = clone.type(script("set-up.sh"))
    assert '"python_ok"' in said
    assert "next: write program.md" in said
    assert before.items() <= {name: (clone.path / name).read_text() for name in before}.items()


def test_experiments_are_run_and_waited_for(clone: Clone) -> None:
    said = clone.type(f"{script('run.sh')} --foreground --max 1 --tag here --description again --proposer search -- -q")
    last = json.loads(next(line for line in reversed(said.splitlines()) if line.startswith("{")))
    assert last["number"] == 1
    assert last["description"].startswith("again")


@pytest.mark.kill
def test_a_night_runs_in_the_background_until_it_is_stopped(clone: Clone) -> None:
    said = clone.type(f"{script('run.sh')} --max 0 --tag night")
    found = re.search(r"running as (\d+)", said)
    assert found, said
    log, end = clone.path / "autoresearch.log", time.monotonic() + 60
    while " 0001 " not in log.read_text():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    clone.type(f"kill -TERM {found[1]}; while kill -0 {found[1]} 2>/dev/null; do sleep 0.05; done")
    assert "stopped by SIGTERM" in (clone.path / "autoresearch.log").read_text()


def test_a_mistake_in_the_background_is_said_at_once(clone: Clone) -> None:
    said = clone.type(f"{script('run.sh')} --max many || test $? = 4")
    assert "give a whole number" in said
    assert "running as" not in said


def test_an_edit_in_the_checkout_gets_a_verdict(clone: Clone) -> None:
    said = clone.type(f"autoresearch best --checkout && {EDIT} && {script('try.sh')} 'a higher cap'")
    assert "keep 0003" in said
    said = clone.type(f"{EDIT.replace('500', '7')} && {{ {script('try.sh')} 'a lower cap' || test $? = 1; }}")
    assert "discard 0004" in said
    assert "LOGIT_CAP = 500.0" in (clone.path / "train.py").read_text()


def test_a_campaign_is_read(clone: Clone) -> None:
    rows = json.loads(clone.type(f"{script('read.sh')} --json --top 2"))
    assert len(rows["experiments"] if isinstance(rows, dict) else rows) == 2
    assert "baseline" in clone.type(script("read.sh"))
    shown = clone.type(f"{script('read.sh')} --show 1")
    assert "+LOGIT_CAP" in shown or "+MLP_RATIO" in shown
