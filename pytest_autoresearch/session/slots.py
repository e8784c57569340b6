"""Numbered slots: how ordinary test functions become experiments.

A slot is one experiment's place in the session. Every collected test with the fixture `experiment` is parametrised
with the slots, so its items are `test_val_bpb_improves[0001]` and so on. The items of one slot judge one experiment
together. Nothing here runs anything.
"""

from __future__ import annotations

import fnmatch
import inspect
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_autoresearch.core.experiment import Experiment, Verdict

FIXTURE = "experiment"
BUNDLED = Path(__file__).parents[1] / "bundled"
SLOT = pytest.StashKey["Slot"]()


@dataclass(eq=False)  # compared by identity, as pytest's cache of parametrised fixtures does
class Slot:
    """One experiment's place: the items that judge it, and its result.

    Attributes:
        number: The experiment's number.
        items: The items that judge it, in order.
        experiment: The result, once a lane has finished it.
        error: The failure of git or a proposer that prevented a result; never the candidate's.
        ruling: The verdict of a user's hook, decided before the tests.
        passed: The items that passed so far.
        verdict: The recorded verdict.
        timed: Whether a report already has the experiment's duration.
        described: Whether a report already has the experiment's numbers.
    """

    number: int
    items: list[pytest.Item] = field(default_factory=list)
    experiment: Experiment | None = None
    error: BaseException | None = None
    ruling: Verdict | None = None
    passed: set[pytest.Item] = field(default_factory=set)
    verdict: Verdict | None = None
    timed: bool = False
    described: bool = False

    def __str__(self) -> str:
        return f"{self.number:04d}"


class Slots:
    """The session's slots, as a plugin that takes part in collection.

    Args:
        experiments: The folder of acceptance rules.
        numbers: The numbers of the session's experiments, ascending.
        claim: Gives the number of one more experiment, for a session without a limit; else None.

    Attributes:
        offered: How many tests were collected that judge an experiment; `others`: that do not.
        module_skip: Why a module skipped itself; empty if none did.
    """

    def __init__(self, experiments: Path, numbers: Iterable[int], claim: Callable[[], int] | None = None) -> None:
        self.experiments = experiments
        self.unlimited = claim is not None
        self._claim = claim
        self._made = {number: Slot(number) for number in numbers}
        self._batch = list(self._made.values())
        self._functions: list[tuple[pytest.Collector, str]] = []
        self.offered = self.others = 0
        self.module_skip = ""
        self._hidden = ""

    def waiting(self, items: Iterable[pytest.Item]) -> list[Slot]:
        """The slots that have a test among the items, by number."""
        items = list(items)
        self._functions = list(dict.fromkeys((item.parent, _name(item)) for item in items if item.parent is not None))
        return sorted({item.stash[SLOT] for item in items}, key=lambda slot: slot.number)

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last number that was made."""
        return min(self._made), max(self._made)

    def of(self, number: int) -> Slot:
        """The slot of a number that was made."""
        return self._made[number]

    def more(self, session: pytest.Session) -> list[Slot]:
        """Collect the next number from the same functions: a session without a limit cannot be collected at once.

        A number that -k deselects is skipped; after a hundred in a row the session ends.
        """
        for _ in range(100):
            if slots := self._next(session):
                return slots
        return []

    def _next(self, session: pytest.Session) -> list[Slot]:
        assert self._claim is not None
        slot = Slot(self._claim())
        self._made[slot.number] = slot
        self._batch = [slot]
        items: list[pytest.Item] = []
        for parent, name in self._functions:
            made = parent.ihook.pytest_pycollect_makeitem(
                collector=parent,
                name=name,
                obj=inspect.getattr_static(parent.obj, name),  # type: ignore[attr-defined]
            )
            for item in made if isinstance(made, list) else [made]:
                item.ihook.pytest_itemcollected(item=item)
                items.append(item)
        session.config.hook.pytest_collection_modifyitems(session=session, config=session.config, items=items)
        session.items += items
        session.testscollected += len(items)
        return [slot] if items else []

    # ------------------------------------------------------------------------------------------------- collection

    @pytest.hookimpl
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        ours = (self.experiments, BUNDLED)
        above = any(folder.is_relative_to(collection_path) for folder in ours)
        return None if above or any(collection_path.is_relative_to(folder) for folder in ours) else True

    @pytest.hookimpl
    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
        patterns = parent.config.getini("python_files")
        if file_path.parent != BUNDLED or any(fnmatch.fnmatch(file_path.name, pattern) for pattern in patterns):
            return None
        return _Bundled.from_parent(parent, path=file_path) if file_path.name.startswith("test_") else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
        return _Bundled.from_parent(parent, path=module_path) if module_path.parent == BUNDLED else None

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self.module_skip = report.longrepr[2].removeprefix("Skipped: ")

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if FIXTURE in metafunc.fixturenames:
            self._hidden = self._hidden or _hidden_fixture(metafunc)
            metafunc.parametrize(FIXTURE, self._batch, indirect=True, ids=[str(slot) for slot in self._batch])

    @pytest.hookimpl
    def pytest_itemcollected(self, item: pytest.Item) -> None:
        slot = item.callspec.params.get(FIXTURE) if hasattr(item, "callspec") else None
        if isinstance(slot, Slot):
            item.stash[SLOT] = slot

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Runs outermost, so that it sees the items left by -k, -m and every conftest."""
        if self._hidden:
            raise pytest.UsageError(self._hidden)
        others = [item for item in items if SLOT not in item.stash]
        items[:] = [item for item in items if SLOT in item.stash]
        self.others, self.offered = len(others), len(items)
        if others:
            config.hook.pytest_deselected(items=others)
        offered: dict[Slot, int] = {}
        for item in items:
            offered[item.stash[SLOT]] = offered.get(item.stash[SLOT], 0) + 1
        result = yield
        items.sort(key=lambda item: item.stash[SLOT].number)  # stable: the order of definition within a slot
        for slot in offered:
            slot.items = [item for item in items if item.stash[SLOT] is slot]
            if slot.items and len(slot.items) != offered[slot]:
                raise pytest.UsageError(
                    f"experiment {slot}: only {len(slot.items)} of its {offered[slot]} tests are selected, but they "
                    "decide together: select by number (-k 0007) or not at all"
                )
        return result


class _Bundled(pytest.Module):
    """The rule of this package, whatever functions are called in the user's tests."""

    def funcnamefilter(self, name: str) -> bool:
        return name.startswith("test_")


def _name(item: pytest.Item) -> str:
    return str(getattr(item, "originalname", None) or item.name)


def _hidden_fixture(metafunc: pytest.Metafunc) -> str:
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
