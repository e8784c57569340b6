"""Parsers of option values, for argparse and ini keys. An argparse.ArgumentTypeError says what to type instead."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Callable
from typing import Literal

_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def choice(given: str, known: tuple[str, ...]) -> str:
    if given not in known:
        raise argparse.ArgumentTypeError(f"{given}: choose {', '.join(known[:-1])} or {known[-1]}")
    return given


def count(least: int, hint: str) -> Callable[[str], int]:
    def parse(given: str) -> int:
        try:
            value = int(given)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{given}: give a whole number, {hint}")
        return value

    return parse


def lanes(given: str) -> int | Literal["auto"]:
    return "auto" if given == "auto" else count(1, "1 or more, or auto")(given)


def number(hint: str, least: float = 0.0) -> Callable[[str], float]:
    """A parser of numbers above `least`."""

    def parse(given: str) -> float:
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not least < value < math.inf:
            raise argparse.ArgumentTypeError(f"{given}: give a number of {hint}")
        return value

    return parse


def size(given: str) -> int:
    """A number and a unit, in bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([MGT]B)", given.strip(), re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"{given}: give a size with its unit, such as 500MB or 20GB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def resources(given: str) -> tuple[tuple[str, float], ...]:
    """Pairs of a name and an amount."""
    found = []
    for part in given.split(","):
        name, _, amount = part.partition("=")
        try:
            found.append((name.strip(), float(amount)))
        except ValueError:
            found.append(("", 0.0))
    if not all(name and 0 < amount < math.inf for name, amount in found):
        raise argparse.ArgumentTypeError(f"{given}: give names and amounts, such as GPU=1 or CPU=4,big=1")
    return tuple(found)


def switch(given: str) -> bool:
    if given.casefold() not in _SWITCH:
        raise argparse.ArgumentTypeError(f"{given}: give true or false")
    return _SWITCH[given.casefold()]


def words(given: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(given))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{given!r} cannot be split into words ({error}): check its quotes") from None
