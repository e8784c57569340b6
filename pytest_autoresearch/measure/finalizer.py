"""Finds out what of a finished campaign holds: each keep left out once, and a final program without what is idle.

Composes programs and their runs; knows nothing of branches, pages and the command line.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.keeprule.ablation import Effect, Findings, Transfer, gain
from pytest_autoresearch.keeprule.audit import Difference
from pytest_autoresearch.ledger.stack import Needed, Stack, Step
from pytest_autoresearch.measure.remeasure import Condition, Measured, Program, Remeasurement
from pytest_autoresearch.measure.variants import Variant
from pytest_autoresearch.source.editable import Editable

FIRST, STACK, FINAL = "first", "stack", "final"


class Finalizer:
    """Measures the programs of one campaign.

    Args:
        line: The baseline and the keeps.
        runs: The number of seeds.
        editable: The files with the program's constants.
        variants: Under which other conditions the first and the final program are compared.

    Raises:
        UserError: The program cannot run under one of them.
    """

    def __init__(
        self, stack: Stack, line: Sequence[Experiment], runs: int, measuring: Remeasurement, editable: Editable,
        variants: Sequence[Variant],
    ) -> None:  # fmt: skip
        self._stack = stack
        self._line = tuple(line)
        self._runs = runs
        self._measuring = measuring
        self._editable = editable
        self._variants = tuple(variants)
        self._here = Condition("", line[-1].limits)
        last = line[-1]
        self._programs: dict[str, Program] = {}  # by tree: two that are the same are one
        self._add(FIRST, line[0].tree, line[0], line[0].commit)  # before the others: their probes compare with it
        self._add(STACK, stack.without(())[-1].tree, last, last.commit)
        for variant in variants:
            conditions = [variant.condition(self._here, stack, tree, editable) for tree in self._programs]
            if any(one != conditions[0] for one in conditions):
                raise UserError(f"--set {variant.name}: only one of the first and the last program has this constant")
            for tree in self._programs:
                variant.tree(stack, tree, editable)
        self._lacking: dict[int, str] = {}
        self._bound: dict[int, str] = {}
        for keep in self._line[1:]:
            try:
                self._lacking[keep.number] = self._without({keep.number})
            except Needed as needed:
                self._bound[keep.number] = str(needed)

    @property
    def left(self) -> tuple[int, int]:
        """The number of programs, and of the runs that are still to be made of them."""
        programs = list(self._programs.values())
        return len(programs), self._measuring.left(programs, self._runs, self._here)

    def find(self, drop: Collection[int] | None) -> tuple[Findings, list[Step]]:
        """Measure everything.

        Args:
            drop: The numbers of the keeps to drop; empty for those that no longer help; None for none.

        Returns:
            The findings, and the steps to the final program.

        Raises:
            UserError: A keep cannot be dropped.
        """
        if unknown := sorted(set(drop or ()) - self._lacking.keys()):
            number = unknown[0]
            said = self._bound.get(number, "is no keep of this campaign")
            raise UserError(f"--drop {number}: {number:04d} cannot be dropped: {said}")
        measured = self._measure()
        effects = tuple(self._effect(keep, measured) for keep in self._line[1:])
        first = self._name(self._line[0].tree)
        found = Findings(self._line[-1].tag, self._line, self._runs, self._gain(measured, STACK, first), effects)
        dropped = frozenset(drop) if drop else self._idle(found) if drop is not None else frozenset()
        if dropped:
            try:
                name = self._name(self._without(dropped))
            except Needed as needed:
                raise UserError(f"--drop: {needed}, so these keeps cannot be dropped together: drop fewer") from None
            measured = self._measure()
            found = replace(
                found, dropped=tuple(sorted(dropped)), whole=self._gain(measured, name, first),
                final=self._gain(measured, name, STACK),
            )  # fmt: skip
        steps = self._stack.without(dropped)
        final = steps[-1].tree if steps else self._line[0].tree
        return replace(found, transfers=tuple(self._transfer(variant, final) for variant in self._variants)), steps

    def _transfer(self, variant: Variant, final: str) -> Transfer:
        """The first and the final program under other conditions."""
        sides = {FIRST: (self._line[0].tree, self._line[0]), FINAL: (final, self._line[-1])}
        condition = variant.condition(self._here, self._stack, final, self._editable)
        programs = []
        for name, (tree, like) in sides.items():
            changed = variant.tree(self._stack, tree, self._editable)
            known = self._programs.get(changed)
            programs.append(Program(name, changed, known.commit if known else self._stack.commit(changed), like))
        measured = self._measuring.measure(programs, self._runs, condition)
        found = gain(measured.metrics, FINAL, FIRST, self._line[-1].direction)
        crashes = (f"the {name} program crashes: {crash}" for name in sides if (crash := measured.crash(name)))
        return Transfer(variant.name, found, "" if found else next(crashes, "too few runs"))

    def _idle(self, found: Findings) -> frozenset[int]:
        """The keeps without which the program measures no worse, also without all of them together.

        Two keeps can stand in for each other, so that each alone seems idle. They are dropped one after the other, the
        worst first, as long as the program measures no worse than the whole stack.
        """
        values = {one.keep.number: one.now.gain for one in found.effects if one.now is not None}
        dropped: frozenset[int] = frozenset()
        for number in sorted(found.idle, key=lambda one: values[one]):
            together = dropped | {number}
            try:
                name = self._name(self._without(together))
            except Needed:
                continue
            kept = self._gain(self._measure(), name, STACK)
            if kept is not None and kept.gain >= 0:
                dropped = together
        return dropped

    def _effect(self, keep: Experiment, measured: Measured) -> Effect:
        if keep.number in self._bound:
            return Effect(keep, None, self._bound[keep.number])
        name = self._name(self._lacking[keep.number])
        if name == STACK:
            return Effect(keep, None, "nothing of it is left in the program")
        now = self._gain(measured, STACK, name)
        why = "" if now else f"the program without it crashes: {measured.crash(name) or measured.crash(STACK)}"
        return Effect(keep, now, why)

    def _gain(self, measured: Measured, program: str, over: str) -> Difference | None:
        """The gain of one program over another.

        The programs with most of the keeps tell together how noisy a run is. The first one may differ more from seed to
        seed, so it says nothing about them.
        """
        metrics, first = measured.metrics, self._name(self._line[0].tree)
        if first in (program, over):
            metrics = {name: metrics[name] for name in (program, over)}
        else:
            metrics.pop(first, None)
        return gain(metrics, program, over, self._line[-1].direction)

    def _without(self, numbers: Collection[int]) -> str:
        """The tree of the program without these keeps, which will be measured."""
        steps = self._stack.without(numbers)
        tree = steps[-1].tree if steps else self._line[0].tree
        name = " ".join(["without", *(f"{number:04d}" for number in sorted(numbers))])
        self._add(name, tree, self._line[-1])
        return tree

    def _add(self, name: str, tree: str, like: Experiment, commit: str = "") -> None:
        if tree not in self._programs:
            self._programs[tree] = Program(name, tree, commit or self._stack.commit(tree), like)

    def _name(self, tree: str) -> str:
        return self._programs[tree].name

    def _measure(self) -> Measured:
        return self._measuring.measure(list(self._programs.values()), self._runs, self._here)
