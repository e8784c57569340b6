"""Which conditions of a measurement must be equal before results are compared, and which changes are only reported.

Pure. A record of an earlier version holds fewer conditions; a condition that it does not hold is not compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.setting import Setting

_DRIVER = re.compile(r", driver [^,]*")  # earlier versions wrote the driver into the hardware key
_FEW = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """A condition that differs between two measurements.

    Attributes:
        what: The condition, in words.
        then: Its value in the first measurement; empty for none.
        now: Its value in the second. Both are empty if the values mean nothing to people.
    """

    what: str
    then: str
    now: str

    def __str__(self) -> str:
        """`metric (loss, now val_bpb)`."""
        return f"{self.what} ({self.then or 'none'}, now {self.now or 'none'})" if self.then or self.now else self.what


_EQUAL: Mapping[str, Callable[[Setting], str]] = {
    "hardware": lambda one: _DRIVER.sub("", one.hardware_key),
    "harness": lambda one: one.harness_hash,
    "data": lambda one: one.data_hash,
    "rows of the data": lambda one: one.rows,
}
_OF_EXPERIMENT: Mapping[str, Callable[[Experiment], str]] = {
    "metric": lambda one: one.metric_name,
    "direction": lambda one: str(one.direction),
    "training seconds": lambda one: f"{one.budget_seconds:g}",
}
_REPORTED: Mapping[str, Callable[[Setting], str]] = {
    "Python": lambda one: one.python,
    "packages": lambda one: one.packages,
    "driver": lambda one: one.driver,
}


def differences(then: Experiment, now: Experiment) -> list[Difference]:
    """The differences because of which the two experiments cannot be compared."""
    found = list(of_settings(then.setting, now.setting))
    for what, look in _OF_EXPERIMENT.items():
        if look(then) != look(now):
            found.append(Difference(what, look(then), look(now)))
    return found


def of_settings(then: Setting, now: Setting) -> Iterator[Difference]:
    """The differences of two settings because of which their results cannot be compared."""
    for what, look in _EQUAL.items():
        if look(then) != look(now):
            yield Difference(what, look(then), look(now))
    if then.command and now.command and then.command != now.command:
        yield Difference("command", then.command, now.command)
    yield from _of_maps("environment variable", then.environment, now.environment, shown=True)
    yield from _of_maps("content of the readable path", then.readable, now.readable, shown=False)


def reported(then: Setting, now: Setting) -> list[Difference]:
    """The differences that the user must know, although results are still compared."""
    pairs = [(what, look(then), look(now)) for what, look in _REPORTED.items()]
    return [Difference(what, one, other) for what, one, other in pairs if one and other and one != other]


def _of_maps(
    what: str, then: Mapping[str, str] | None, now: Mapping[str, str] | None, *, shown: bool
) -> Iterator[Difference]:
    """The entries that differ, as one difference.

    Args:
        shown: Whether the values mean something to people; else the difference names only the entries.
    """
    if then is None or now is None:
        return
    names = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
    if not names:
        return
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    if shown:
        sides = [" ".join(f"{name}={side[name]}" for name in names[:_FEW] if name in side) for side in (then, now)]
        yield Difference(f"{what}{'s' if len(names) > 1 else ''}", sides[0], sides[1] + more)
    else:
        yield Difference(f"{what} {', '.join(names[:_FEW])}{more}", "", "")
