"""What an agent says about its edit: in a file, or in the last lines that it prints. The text may be anything."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from pytest_autoresearch.proposers.quoting import line, plain

FILE = "proposal.json"
MOST_BYTES = 64 * 1024
_MOST_CHARACTERS, _MOST_NOTES = 2000, 4000
_LAST_LINE_BYTES = 200
_MOST_USD = 10_000.0  # for one start; more is a mistake
_COST = re.compile(r'"(?:total_)?cost_usd"\s*:\s*([0-9][0-9.eE+-]*)')  # the output may begin in the middle of its JSON


@dataclass(frozen=True, slots=True)
class Answer:
    """The agent's answer about its edit; every field may be missing."""

    description: str = ""
    hypothesis: str = ""
    expected: str = ""
    area: str = ""
    notes: str = ""
    cost_usd: float | None = None


def read(file: bytes, output: str) -> Answer:
    """The answer in the file; what it lacks is taken from the output.

    Args:
        file: The content of the file; empty if there is none.
        output: The end of what the agent printed, which may be a JSON report with `result` and `total_cost_usd`.
    """
    given = _object(file.decode("utf-8", "replace")) if len(file) <= MOST_BYTES else {}

    def said(name: str, most: int = _MOST_CHARACTERS) -> str:
        value = given.get(name)
        return plain(value).strip()[:most] if isinstance(value, str) else ""

    costs = map(_usd, [given.get("cost_usd"), given.get("total_cost_usd"), *reversed(_COST.findall(output))])
    return Answer(
        " ".join(said("description").split()) or _last_line(output), said("hypothesis"), said("expected"),
        said("area"), said("notes", _MOST_NOTES), next((usd for usd in costs if usd is not None), None),
    )  # fmt: skip


def last(output: str, count: int) -> str:
    """The last lines of the output, on one line."""
    return " / ".join(line(each, _LAST_LINE_BYTES) for each in _lines(output)[-count:]) or "nothing"


def _last_line(output: str) -> str:
    lines = _lines(output)
    if lines and lines[-1].endswith("}"):  # a report for programs
        result = _object(lines[-1]).get("result")
        lines = _lines(result) if isinstance(result, str) else []
    return line(lines[-1], _LAST_LINE_BYTES) if lines else ""


def _lines(output: str) -> list[str]:
    """The lines with a letter or a digit."""
    return [each for each in output.splitlines() if any(letter.isalnum() for letter in each)]


def _object(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}


def _usd(value: object) -> float | None:
    """A cost in US dollars; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        usd = float(value)
    except ValueError:
        return None
    return usd if math.isfinite(usd) and 0 <= usd <= _MOST_USD else None
