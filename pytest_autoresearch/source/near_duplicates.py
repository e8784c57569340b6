"""Finds an earlier experiment that a proposal nearly repeats: similar constants, or the same words. Pure.

A program that was already tried is always refused (`guard.check_new`). A near-duplicate may still be worth a run, so
the proposer is only warned, once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from pytest_autoresearch.core.experiment import Experiment, Status
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.source import constants, fingerprint
from pytest_autoresearch.source.constants import Value

NEAR = 0.05  # two values are near if they differ by less than this share of the larger one
_NUMBER = re.compile(r"[-+]?\d[\d_,.]*(e[-+]?\d+)?%?")
_WORD = re.compile(r"[a-z#]+")
_SHOWN = 200


def changed_constants(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, Value]:
    """The constants that an edit changes, with their new values; empty if it changes anything else too."""
    changes: dict[str, Value] = {}
    written = dict(before)
    for path in before.keys() & after.keys():
        if before[path] == after[path] or not path.endswith(".py"):
            continue
        try:
            text = before[path].decode()
            old = {one.name: one.value for one in constants.find(text)}
            new = {one.name: one.value for one in constants.find(after[path].decode())}
            mine = {name: value for name, value in new.items() if name in old and old[name] != value}
            written[path] = constants.edit(text, mine).encode()
        except (SyntaxError, UnicodeError, ValueError):
            return {}
        changes |= mine
    return changes if changes and fingerprint.digest(written) == fingerprint.digest(after) else {}


def like(description: str, changes: Mapping[str, Value], records: Iterable[Experiment]) -> Experiment | None:
    """The latest experiment that is nearly the same, or None.

    Either the same constants were set to near values; or neither edit is about constants alone, the earlier one was not
    kept, and the descriptions differ only in case, numbers and punctuation.
    """
    words = _words(description)
    for record in sorted(records, key=lambda one: one.number, reverse=True):
        kept = record.verdict is not None and record.verdict.status is Status.KEEP
        if changes and record.constants.keys() == changes.keys():
            if all(_near(value, record.constants[name]) for name, value in changes.items()):
                return record
        elif words and not kept and not changes and words == _words(record.proposal.description):
            return record
    return None


def told(record: Experiment) -> str:
    """The warning for the proposer."""
    said = record.verdict.message if record.verdict else "under way"
    return (
        f'it nearly repeats experiment {record.number:04d}, "{one_line(record.proposal.description)[:_SHOWN]}" '
        f"({one_line(said)[:_SHOWN]})"
    )


def _near(one: Value, other: Value) -> bool:
    if isinstance(one, bool | str) or isinstance(other, bool | str):
        return one == other
    return math.isclose(one, other, rel_tol=NEAR)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(_NUMBER.sub("#", text.casefold())))
