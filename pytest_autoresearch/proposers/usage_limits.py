"""Whether an agent stopped at a limit of its account, and when the limit ends. Pure: output in, facts out.

Fields count first, wherever an agent prints JSON; else the words that the agent is known to print. The words are taken
from the agents' issue trackers; the agents were not run here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pytest_autoresearch.proposers import reset_time
from pytest_autoresearch.proposers.quoting import line

_SAID_BYTES = 200
_TIME_WITHIN = 300  # characters behind the words
# One pattern for each agent; a program of another name may be a script around any of them.
_WORDS = {
    "claude": r"limit reached|(?:hit|reached) your (?:[\w-]+ ){0,2}limit|would exceed your \S+ rate limit",
    "codex": r"(?:hit|reached) your (?:usage|rate) limit|usage limit has been reached|rate limit reached",
    "gemini": r"exhausted your (?:daily )?(?:capacity|quota)|quota exceeded|resource (?:has been )?exhausted",
}
_TYPES = ("usage_limit_reached", "rate_limit_error", "rate_limit_exceeded", "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED")
_TIMES = ("resetsAt", "resets_at", "quotaResetTimeStamp")
_MESSAGES = ("message", "result", "rateLimitType")
_SPANS = ("resets_in_seconds", "retryDelay", "retry_after", "retry-after")


@dataclass(frozen=True, slots=True)
class UsageLimit:
    """A limit of an account.

    Attributes:
        said: The agent's words about it, on one line.
        ends: When it ends; None if the agent does not say.
    """

    said: str
    ends: datetime | None


def read(agent: str, output: str, now: datetime) -> UsageLimit | None:
    """The limit at which an agent stopped; None if its output tells of none.

    Args:
        agent: The name of its program.
        output: The end of what it printed.
        now: With its time zone.
    """
    for document in _documents(output):
        if limit := _in_fields(document, now):
            return limit
    found = list(re.finditer(_WORDS.get(agent) or "|".join(_WORDS.values()), output, re.IGNORECASE))
    if not found:
        return None
    last = found[-1]  # earlier ones may be of limits that the agent waited for itself
    begin = output.rfind("\n", 0, last.start()) + 1
    said = output[begin:].splitlines()[0]
    return UsageLimit(line(said.strip(), _SAID_BYTES), reset_time.parse(output[last.end() :][:_TIME_WITHIN], now))


def _documents(output: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in the output, the last first."""
    decoder, found, at = json.JSONDecoder(), [], output.find("{")
    while at >= 0:
        try:
            document, end = decoder.raw_decode(output, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(document, dict):
                found.append(document)
        at = output.find("{", end)
    return reversed(found)


def _in_fields(document: dict[str, Any], now: datetime) -> UsageLimit | None:
    """The limit that a JSON object tells of in its fields, or in the fields of an object inside it."""
    inner = [value for value in document.values() if isinstance(value, dict)]
    inner += [one for value in document.values() if isinstance(value, list) for one in value if isinstance(one, dict)]
    limited = (
        document.get("code") == 429
        or document.get("status_code") == 429
        or document.get("api_error_status") == 429
        or document.get("status") == "RESOURCE_EXHAUSTED"
        or (document.get("status") == "rejected" and "rateLimitType" in document)
        or any(document.get(name) in _TYPES for name in ("type", "reason", "error"))
    )
    if limited:
        fields = {name: value for one in (document, *inner) for name, value in _flat(one)}
        said = str(next((fields[name] for name in _MESSAGES if fields.get(name)), "limit reached"))
        return UsageLimit(line(said, _SAID_BYTES), _ends(fields, now) or reset_time.parse(said, now))
    return next((limit for one in inner if (limit := _in_fields(one, now))), None)


def _flat(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The plain fields of an object and of all objects inside it; the outer ones last."""
    for value in document.values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from _flat(one)
    yield from ((name, value) for name, value in document.items() if isinstance(value, str | int | float))


def _ends(fields: dict[str, Any], now: datetime) -> datetime | None:
    for name in _TIMES:
        if name in fields and (at := reset_time.parse(str(fields[name]), now)):
            return at
    for name in _SPANS:
        text = str(fields.get(name, "")).removesuffix("s")
        try:
            return now + timedelta(seconds=float(text))
        except (ValueError, OverflowError):
            continue
    return None
