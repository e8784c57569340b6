"""Why a session would run no experiment, and whose fixture its tests would get: found before anything is trained."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence

import pytest

FIXTURE = "experiment"
_EXAMPLE = f"def test_better({FIXTURE}): assert {FIXTURE}.gain > {FIXTURE}.margin"


def hidden_fixture(metafunc: pytest.Metafunc) -> str:
    """The sentence about another fixture that hides ours from a rule; empty if the rule gets ours."""
    chain: Sequence[pytest.FixtureDef[object]] = metafunc._arg2fixturedefs.get(FIXTURE, ())
    for fixture in reversed(chain):  # the last is the nearest to the test
        asked = inspect.signature(fixture.func).parameters
        if fixture.func.__module__ == "pytest_autoresearch.plugin" or FIXTURE in asked or "request" in asked:
            return ""
        file = os.path.relpath(inspect.getfile(fixture.func), metafunc.config.rootpath)
        return (
            f"{file} has a fixture `{FIXTURE}`, which hides the plugin's: rename it, or let it take the plugin's, as "
            f"in `def {FIXTURE}({FIXTURE})`"
        )
    return ""


def nothing_collected(config: pytest.Config, folder: str, others: int, skipped: str) -> str:
    """The sentence about a folder without a rule.

    Args:
        folder: The folder of acceptance rules.
        others: How many tests without the fixture it has.
        skipped: Why a module in it skipped itself; empty if none did.
    """
    if others:
        return f"no test in {folder}/ takes the fixture `{FIXTURE}`: write an acceptance rule such as `{_EXAMPLE}`"
    if skipped:
        return f"the acceptance rule in {folder}/ skips itself ({skipped}): install what it needs, or remove the skip"
    called = " or ".join(config.getini("python_functions"))
    return (
        f"pytest collected no test from {folder}/: write an acceptance rule such as `{_EXAMPLE}`, "
        f"whose name begins with {called} (ini key python_functions), and let no --ignore hide it"
    )
