"""The documents name everything that a user can set, implement or read."""

from __future__ import annotations

import json
from pathlib import Path

from pytest_autoresearch import hookspecs
from pytest_autoresearch.experiment import Crash, Experiment, Limits, Proposal, Run, Setting, Status, Verdict
from pytest_autoresearch.records import encode
from pytest_autoresearch.settings import INI_KEYS, OPTIONS

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def test_every_option_ini_key_and_hook_is_in_the_reference() -> None:
    for option in OPTIONS:
        assert option.hidden or f"`{f'{option.flag} {option.metavar}'.strip()}`" in REFERENCE, option.flag
    for key in INI_KEYS:
        assert f"| `{key.key}` |" in REFERENCE, key.key
    for name in dir(hookspecs):
        if name.startswith("pytest_autoresearch_"):
            assert f"`{name}(" in REFERENCE, name


def test_every_record_field_is_in_the_reference() -> None:
    run = Run(1, None, crash=Crash("exit 1", "no"))
    record = Experiment(
        1, "t", "c", "b", "t", Proposal(""), (run,), Limits(1, 1, 1), refusal=Crash("refused", ""), setting=Setting(),
        verdict=Verdict(Status.CRASH, "exit 1", "no"),
    )  # fmt: skip
    document = json.loads(encode(record))
    records = REFERENCE.split("## Records")[1]
    names = {*document, *document["runs"][0], *document["limits"], *document["setting"], *document["usage"]}
    assert {name for name in names if f"`{name}`" not in records} == set()


def test_the_readme_holds_the_commands_that_ci_types() -> None:
    readme = (ROOT / "README.md").read_text()
    script = (ROOT / ".ci" / "run").read_text()
    assert "pip install -c constraints.txt -e . && pytest --autoresearch --max 3" in readme
    assert "pip install -c constraints.txt -e '.[dev]' && pytest\n" in readme
    assert "-c constraints.txt -e '.[dev]' && pytest\n" in script
    assert "-c constraints.txt -e . && pytest --autoresearch --max 1\n" in script


def test_train_py_is_one_readable_file() -> None:
    assert len((ROOT / "train.py").read_text().splitlines()) <= 650
