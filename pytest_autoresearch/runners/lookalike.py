"""Finds the line that was meant as the metric, for a process that printed no metric that can be read. Pure.

Only words for a crash come from here, never a metric: the line is quoted with what to print instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_autoresearch.runners.summary import Summary

QUOTED = 100  # characters
BEFORE = 40  # of them before the metric's name

_NUMBER = r"[+-]?(?:\d[\d,_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
# What may stand between the name and its number: `: `, ` = $`, `': np.float64(`.
_BETWEEN = r"""[\s"'\])`*]*(?:[:=|]+|\s)[\s"'(\[{$€£~*]*(?:[\w.]+\()?[\s\[]*"""


def hint(metric_name: str, lines: Sequence[str]) -> str:
    """What to print instead of the last line that looks like the metric; empty if no line does."""
    name = r"[\s_./-]*".join(map(re.escape, re.split(r"[\s_./-]+", metric_name)))
    named = re.compile(rf"(?<![\w./-]){name}(?={_BETWEEN}({_NUMBER}))", re.IGNORECASE)
    for line in reversed(lines):
        for found in reversed(list(named.finditer(line))):
            return _said(metric_name, line, found)
    return ""


def _said(metric_name: str, line: str, found: re.Match[str]) -> str:
    start = max(0, found.start() - BEFORE) if len(line) > QUOTED else 0
    quoted = f"{'…' if start else ''}{line[start:][:QUOTED].strip()}{'…' if start + QUOTED < len(line) else ''}"
    if _is_read(metric_name, line):
        return f"the line `{quoted}` comes before the last line `---`: print it after that line"
    value = re.sub("[,_]", "", found[1])
    looks = f"this line looks like the metric, but is more than its name and a number: `{quoted}`"
    return f"{looks}; print `{metric_name}: {value}` on a line of its own"


def _is_read(metric_name: str, line: str) -> bool:
    """Whether the line alone would be the metric."""
    summary = Summary(metric_name)
    summary.feed(line.encode())
    summary.finish()
    return not summary.missing
