"""Whether a session has an experiment to run: asked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_autoresearch.session.other_plugins import nothing_left
from pytest_autoresearch.session.slots import FIXTURE, Slot, Slots

_EXAMPLE = f"def test_better({FIXTURE}): assert {FIXTURE}.gain > {FIXTURE}.margin"


def check_selected(config: pytest.Config, slots: Slots, waiting: Sequence[Slot]) -> None:
    """Check that there is a slot, and that marks do not skip all of them.

    Raises:
        pytest.UsageError: One sentence on what leaves nothing.
    """
    if not waiting:
        raise pytest.UsageError(
            nothing_left(config, *slots.span) if slots.offered else _nothing_collected(config, slots)
        )
    skips = [skip_of(config, slot) for slot in waiting]
    if all(isinstance(skip, pytest.skip.Exception) for skip in skips):
        raise pytest.UsageError(
            f"every experiment is skipped ({skips[0]}): remove the mark of the rule, or the conftest or option that "
            "adds it"
        )


def skip_of(config: pytest.Config, slot: Slot) -> BaseException | None:
    """The skip of a mark that keeps the slot from running: pytest's own opinion, asked before anything is trained.

    A mark that cannot be evaluated keeps it too; the item's own setup then says what is wrong with the mark.
    """
    skipping = config.pluginmanager.get_plugin("skipping")
    if skipping is None:
        return None
    others = [other for other in config.pluginmanager.get_plugins() if other is not skipping]
    try:
        for item in slot.items:
            config.pluginmanager.subset_hook_caller("pytest_runtest_setup", others)(item=item)
    except (pytest.skip.Exception, pytest.fail.Exception) as outcome:
        return outcome
    return None


def _nothing_collected(config: pytest.Config, slots: Slots) -> str:
    """The sentence about a folder without a rule."""
    folder = f"{slots.experiments.name}/"
    if slots.others:
        return f"no test in {folder} takes the fixture `{FIXTURE}`: write an acceptance rule such as `{_EXAMPLE}`"
    if slots.module_skip:
        return (
            f"the acceptance rule in {folder} skips itself ({slots.module_skip}): install what it needs, or remove the "
            "skip"
        )
    called = " or ".join(config.getini("python_functions"))
    return (
        f"pytest collected no test from {folder}: write an acceptance rule such as `{_EXAMPLE}`, whose name begins "
        f"with {called} (ini key python_functions), and let no --ignore hide it"
    )


class Checking:
    """Runs nothing, and only checks that a session would have something to run."""

    def __init__(self, config: pytest.Config, slots: Slots) -> None:
        self._config = config
        self._slots = slots

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed:
            return None  # pytest's own loop says so
        check_selected(self._config, self._slots, self._slots.waiting(session.items))
        return True
