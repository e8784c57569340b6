"""Other conditions than the campaign's: a longer budget, another value of a constant or of an environment variable.

A constant of the program gets its value in the source; any other name is an environment variable of training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.ledger.stack import Stack
from pytest_autoresearch.measure.remeasure import Condition
from pytest_autoresearch.source import constants
from pytest_autoresearch.source.constants import Constant, Value
from pytest_autoresearch.source.editable import Editable

_TIMES = re.compile(r"(\d+(?:\.\d+)?|\.\d+)x")


@dataclass(frozen=True, slots=True)
class Variant:
    """What the user wants to be otherwise.

    Attributes:
        budget: The training seconds, such as `600` or `2x`; empty for those of the campaign.
        values: New values by name, such as `2x` or `16`.
    """

    budget: str = ""
    values: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return f"budget {self.budget}" if self.budget else ",".join(f"{name}={value}" for name, value in self.values)

    def tree(self, stack: Stack, tree: str, editable: Editable) -> str:
        """The program with the new values of its constants.

        Raises:
            UserError: The program has a name twice, or no use for it.
        """
        files = stack.texts(tree, editable)
        for name, value in self.values:
            for path, (found, text) in _constants(files, name).items():
                files[path] = constants.replaced(text, [(found, _value(name, value, found))]).encode()
        return stack.with_files(tree, files)

    def condition(self, usual: Condition, stack: Stack, tree: str, editable: Editable) -> Condition:
        """The conditions of the runs.

        Args:
            usual: Those of the campaign.
            tree: The program.

        Raises:
            UserError: See `tree`.
        """
        files = stack.texts(tree, editable)
        variables = {}
        for name, value in self.values:
            if _constants(files, name):
                continue
            if _TIMES.fullmatch(value):
                raise UserError(f"--set {name}={value}: the program has no constant {name}: give a plain value")
            if not stack.names(tree, name):
                raise UserError(f"--set {name}={value}: nothing in the program reads {name}: correct the name")
            variables[name] = value
        limits = usual.limits
        if self.budget:
            budget = _number(self.budget, limits.budget_seconds) or 0.0
            if budget <= 0:
                raise UserError(f"--budget {self.budget}: give seconds, such as 600, or 2x for twice the campaign's")
            longer = 2 * max(0.0, budget - limits.budget_seconds)
            limits = replace(limits, budget_seconds=budget, deadline_seconds=limits.deadline_seconds + longer)
        return Condition(self.name, limits, {**usual.variables, **variables})


def _constants(files: Mapping[str, bytes], name: str) -> dict[str, tuple[Constant, str]]:
    """The constant of this name with its file's text, by path; empty if there is none.

    Raises:
        UserError: Several files have one.
    """
    found = {}
    for path, raw in files.items():
        if path.endswith(".py"):
            try:
                text = raw.decode()
                known = {one.name: one for one in constants.find(text)}
            except (SyntaxError, ValueError):
                continue
            if name in known:
                found[path] = (known[name], text)
    if len(found) > 1:
        raise UserError(f"--set {name}: {' and '.join(sorted(found))} both have a constant {name}: it cannot be set")
    return found


def _value(name: str, given: str, found: Constant) -> Value:
    """The new value of a constant; `2x` is twice its own."""
    if isinstance(found.value, bool):
        if given not in ("True", "False"):
            raise UserError(f"--set {name}={given}: {name} is {found.value}: give True or False")
        return given == "True"
    if isinstance(found.value, str):
        return given
    value = _number(given, found.value)
    if value is None:
        raise UserError(f"--set {name}={given}: {name} is {found.text}: give a number, or 2x for twice its value")
    whole = isinstance(found.value, int) and float(value).is_integer()
    return int(value) if whole else value


def _number(given: str, own: float) -> float | None:
    """A number, or a multiple of the program's own such as `2x`; None for anything else."""
    times = _TIMES.fullmatch(given)
    return float(times[1]) * own if times else constants.number_of(given)
