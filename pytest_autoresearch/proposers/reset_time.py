"""When a limit ends, from the words of a service: `1pm`, `13:00`, `in 2h 30m`, a date, an epoch. Pure.

Only the first time in the words counts. A clock time without a date is the next one; a clock time of the last minutes
counts as past, because services are late.
"""

from __future__ import annotations

import re
from calendar import day_name, month_name
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

_LATE = timedelta(minutes=30)
_LONGEST = timedelta(days=366)
_MONTHS = [name[:3].casefold() for name in month_name[1:]]
_DAYS = [name[:3].casefold() for name in day_name]
_SPANS = {
    "ms": 0.001, "millisecond": 0.001, "s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0,
    "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0, "w": 604800.0, "week": 604800.0,
}  # fmt: skip
_PART_TEXT = rf"(\d{{1,9}}(?:\.\d+)?)\s*({'|'.join(sorted(_SPANS, key=len, reverse=True))})s?(?![a-z])"
_CLOCK = (
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d)(?::\d\d)?)?\s*(?P<half>[ap])\.?m\b\.?"
    r"|(?P<hour24>\d{1,2}):(?P<minute24>\d\d)(?!\d)"
)


def _names(names: list[str]) -> str:
    return "|".join(f"{name[:3]}(?:{name[3:]})?" if len(name) > 3 else name for name in names)


_EPOCH = re.compile(r"(?<![\d.])(\d{10}|\d{13})(?![\d.])")
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:\s?(?:Z|[+-]\d\d:?\d\d))?")
_PART = re.compile(_PART_TEXT, re.IGNORECASE)
_SPAN = re.compile(rf"(?<![\w.:-])(?<!every )(?:{_PART_TEXT}(?:[\s,]+(?:and\s+)?)?)+", re.IGNORECASE)
_SECONDS = re.compile(r"retry[-_ ]?after\W{1,4}(\d{1,9}(?:\.\d+)?)(?![\d.:]|\s*[a-z])", re.IGNORECASE)
_DATE = re.compile(
    rf"\b(?:(?P<month>{_names(list(month_name[1:]))})\.?\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s+(?P<year>\d{{4}}))?"
    rf"|(?P<tomorrow>tomorrow)|(?P<weekday>{_names(list(day_name))}))\b(?:,?\s+(?:at\s+)?(?:{_CLOCK}))?",
    re.IGNORECASE,
)
_TIME = re.compile(rf"(?<![\w.:-])(?:{_CLOCK})", re.IGNORECASE)
_ZONE = re.compile(r"\(([A-Za-z]\w*(?:/[\w+-]+)*)\)|\b(UTC|GMT)\b")


def parse(words: str, now: datetime) -> datetime | None:
    """The first time in the words, with a time zone; None if there is none.

    Args:
        now: With its time zone, which holds where the words name none.
    """
    readers = (
        (_EPOCH, _epoch), (_ISO, _iso), (_SECONDS, _seconds), (_SPAN, _span), (_DATE, _date), (_TIME, _date),
    )  # fmt: skip
    found: list[tuple[int, datetime]] = []
    for pattern, read in readers:
        if match := pattern.search(words):
            try:
                at = read(match, now, words)
                if at is not None and abs(at - now) <= _LONGEST:
                    found.append((match.start(), at))
            except (ValueError, OverflowError):  # 25:00, or the 31st of February
                continue
    return min(found, key=lambda one: one[0])[1] if found else None


def _epoch(match: re.Match[str], now: datetime, words: str) -> datetime:
    return datetime.fromtimestamp(int(match[1]) / (1000 if len(match[1]) == 13 else 1), UTC).astimezone(now.tzinfo)


def _iso(match: re.Match[str], now: datetime, words: str) -> datetime:
    at = datetime.fromisoformat(match[0].replace(" ", "T", 1).replace(" ", ""))
    return at if at.tzinfo else at.replace(tzinfo=_zone(words) or now.tzinfo)


def _seconds(match: re.Match[str], now: datetime, words: str) -> datetime:
    return now + timedelta(seconds=float(match[1]))


def _span(match: re.Match[str], now: datetime, words: str) -> datetime | None:
    if re.match(r"\s*ago\b", words[match.end() :], re.IGNORECASE):
        return None
    parts = _PART.findall(match[0])
    return now + timedelta(seconds=sum(float(count) * _SPANS[unit.casefold()] for count, unit in parts))


def _date(match: re.Match[str], now: datetime, words: str) -> datetime:
    """A clock time, on its date if there is one; a date without a clock time is its beginning."""
    there = now.astimezone(_zone(words) or now.tzinfo)
    given = match.groupdict()
    hour, minute = _clock(given)
    at = there.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if given.get("month"):
        month = _MONTHS.index(given["month"][:3].casefold()) + 1
        at = at.replace(year=int(given["year"] or there.year), month=month, day=int(given["day"]))
        return at if given["year"] or at > there - timedelta(days=31) else at.replace(year=there.year + 1)
    if given.get("tomorrow"):
        return at + timedelta(days=1)
    period = 1
    if given.get("weekday"):
        at += timedelta(days=(_DAYS.index(given["weekday"][:3].casefold()) - there.weekday()) % 7)
        period = 7
    return at if at >= there - _LATE else at + timedelta(days=period)


def _clock(given: dict[str, str]) -> tuple[int, int]:
    """Hour and minute; both 0 without a clock time."""
    if not given["hour"]:
        return int(given["hour24"] or 0), int(given["minute24"] or 0)
    hour = int(given["hour"])
    if not 1 <= hour <= 12:
        raise ValueError(hour)
    return hour % 12 + 12 * (given["half"].casefold() == "p"), int(given["minute"] or 0)


def _zone(words: str) -> tzinfo | None:
    """The time zone that the words name."""
    for name in (each for pair in _ZONE.findall(words) for each in pair if each):
        try:
            return ZoneInfo(name)
        except (ValueError, OSError, KeyError):  # no time zone, but words in brackets
            continue
    return None
