"""The hard deadline of a run: pytest-timeout's `timeout`, read before the item runs and enforced by our own runner.

pytest-timeout sets its timer inside the item's protocol, when training is over; and its thread method ends the whole
process. So its own hooks are asked for the value ahead of time, and the timer it would set is switched off.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest

from pytest_autoresearch.session.slots import SLOT, Slot


def timeout_of(config: pytest.Config) -> float | None:
    """What option, environment or ini say of every item in seconds, markers aside; None for nothing."""
    if config.pluginmanager.get_plugin("timeout") is None:
        return None
    for given in (config.getoption("timeout"), os.environ.get("PYTEST_TIMEOUT"), config.getini("timeout")):
        with contextlib.suppress(TypeError, ValueError):
            return float(given) or None  # type: ignore[arg-type]
    return None


class Deadlines:
    """Listens where pytest-timeout would set its timer."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager
        self._found: list[float] = []

    def of(self, slot: Slot) -> float | None:
        """The shortest timeout of the slot's items in seconds, or None where none is set."""
        plugin = self._plugins.get_plugin("timeout")
        if plugin is None:
            return None
        others = [other for other in self._plugins.get_plugins() if other is not plugin]
        self._found = []
        for item in slot.items:
            # It resolves option, ini, environment and marker in two wrappers; each then calls the hook below.
            self._plugins.subset_hook_caller("pytest_runtest_protocol", others)(item=item, nextitem=None)
            self._plugins.subset_hook_caller("pytest_runtest_call", others)(item=item)
        return min(self._found, default=None)

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool | None:
        if SLOT not in item.stash:
            return None
        self._found.append(float(settings.timeout))
        return True
