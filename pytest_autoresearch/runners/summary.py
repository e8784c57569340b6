"""The numbers in a process's output: upstream's summary block, `METRIC name=value` lines, and how far training is.

Lines go in as they come, so nothing is missed that the bounded log leaves out. Knows text alone, and trusts none of it:
what is kept has a bound, and a metric that is missing, doubled or not finite is a crash.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from pytest_autoresearch.experiment import Crash

RULE = "---"
KEPT_NAMES = 200
LINE_CHARACTERS = 500

_NAME = r"([A-Za-z_][\w./-]*)"
_NUMBER = r"([+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|nan|inf(?:inity)?))"
_FLAGS = re.ASCII | re.IGNORECASE
_NAMED = re.compile(rf"\s*{_NAME}\s*:\s*{_NUMBER}\s*", _FLAGS)
_METRIC = re.compile(rf"\s*METRIC\s+{_NAME}\s*=\s*{_NUMBER}\s*", _FLAGS)
_STEP = re.compile(r"(?<![A-Za-z_])step[\s:=#]{0,8}(\d{1,18})", _FLAGS)
_LOSS = re.compile(rf"(?<![A-Za-z])loss[\s:=]{{1,8}}{_NUMBER}", _FLAGS)


class Summary:
    """What a process printed about itself, as far as it has come.

    A line `name: value` counts when its whole value is one number and it comes after the last line `---`, or anywhere
    while there is no such line. A line `METRIC name=value` counts anywhere.

    Attributes:
        step: The last training step that a line named, or None.
        loss: The last loss that a line named, or None.
    """

    def __init__(self, metric_name: str) -> None:
        self.step: int | None = None
        self.loss: float | None = None
        self._metric_name = metric_name
        self._block: dict[str, list[float]] = {}
        self._lines: dict[str, list[float]] = {}

    def read(self, lines: Iterable[str]) -> None:
        """Take the next lines."""
        for line in lines:
            if len(line) > LINE_CHARACTERS:
                continue  # no summary and no progress looks like this, and a search in it may take long
            if ":" in line and (named := _NAMED.fullmatch(line)):
                self._put(self._block, named)
            elif line.strip() == RULE:
                self._block.clear()
            elif metric := _METRIC.fullmatch(line):
                self._put(self._lines, metric)
            if step := _STEP.search(line):
                self.step = int(step[1])
            if loss := _LOSS.search(line):
                self.loss = float(loss[1])

    def _put(self, into: dict[str, list[float]], match: re.Match[str]) -> None:
        name = match[1]
        if name not in into and name != self._metric_name and len(into) >= KEPT_NAMES:
            return
        # Two values are all that a doubled metric needs, and the second is the last.
        into[name] = [*into.get(name, [])[:1], float(match[2])]

    def _values(self, name: str) -> list[float]:
        return self._block.get(name, []) + self._lines.get(name, [])

    def numbers(self) -> dict[str, float]:
        """Every finite number by its printed name; of one that was printed twice the last."""
        last = {name: self._values(name)[-1] for name in {**self._block, **self._lines}}
        return {name: value for name, value in last.items() if math.isfinite(value)}

    def metric(self) -> float | Crash:
        """The metric, or why there is none."""
        name = self._metric_name
        values = self._values(name)
        if not values:
            others = ", ".join(list(self.numbers())[:9])
            said = f"; it printed {others}" if others else ""
            return Crash("no-metric", f"no line `{name}: NUMBER` or `METRIC {name}=NUMBER` was printed{said}")
        if len(values) > 1:
            return Crash("no-metric", f"{name} was printed more than once; print it once, after a line `{RULE}`")
        if not math.isfinite(values[0]):
            return Crash("nan", f"{name} is {values[0]}")
        return values[0]
