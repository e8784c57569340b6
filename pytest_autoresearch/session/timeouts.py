"""The hard timeout of a run: pytest-timeout's `timeout`, read before the item runs and enforced by our own runner.

pytest-timeout sets its timer inside the item's protocol, when training is already over, and its thread method ends the
whole process. So we ask its hooks for the value ahead of time and switch its own timer off.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest

from pytest_autoresearch.session.slots import SLOT, Slot


def timeout_of(config: pytest.Config) -> float | None:
    """The timeout from option, environment or ini in seconds, ignoring markers; None if not set."""
    if config.pluginmanager.get_plugin("timeout") is None:
        return None
    for given in (config.getoption("timeout"), os.environ.get("PYTEST_TIMEOUT"), config.getini("timeout")):
        with contextlib.suppress(TypeError, ValueError):
            return float(given) or None  # type: ignore[arg-type]
    return None


def too_short(config: pytest.Config, budget_seconds: float) -> str:
    """Says that the timeout ends a run before its budget is over; empty if it does not."""
    timeout = timeout_of(config)
    if timeout is None or timeout > budget_seconds:
        return ""
    return (
        f"pytest-timeout's timeout of {timeout:g} s ends a run before its {budget_seconds:g} s of training are over: "
        f"type --timeout {max(2 * budget_seconds, budget_seconds + 120):g}, or set a smaller autoresearch_budget"
    )


class Deadlines:
    """Reads timeouts from the hook in which pytest-timeout would set its timer."""

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
            # pytest-timeout resolves option, ini, environment and marker in two wrappers; each calls the hook below.
            self._plugins.subset_hook_caller("pytest_runtest_protocol", others)(item=item, nextitem=None)
            self._plugins.subset_hook_caller("pytest_runtest_call", others)(item=item)
        return min(self._found, default=None)

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool | None:
        if SLOT not in item.stash:
            return None
        self._found.append(float(settings.timeout))
        return True
