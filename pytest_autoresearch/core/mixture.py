"""A mix of proposers, `mix:anthropic=0.7,search=0.3`: its parts, and whose turn it is. Pure."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PREFIX = "mix:"
_PART = re.compile(r"(.+?)=(\d+(?:\.\d*)?|\.\d+)(?:,|$)")  # a command may have commas and equals signs
_HOW = "write mix:NAME=SHARE,NAME=SHARE, such as mix:anthropic=0.7,search=0.3"


@dataclass(frozen=True, slots=True)
class Part:
    """One proposer of a mix.

    Attributes:
        share: Of all proposals, from 0 to 1.
    """

    proposer: str
    share: float


def parts(given: str) -> tuple[Part, ...]:
    """The parts of a mix; a proposer that is no mix is its only part.

    Raises:
        argparse.ArgumentTypeError: It is no mix of two or more different proposers.
    """
    if not given.startswith(PREFIX):
        return (Part(given, 1.0),)
    rest = given.removeprefix(PREFIX)
    if rest.startswith(PREFIX) or f",{PREFIX}" in rest:
        raise argparse.ArgumentTypeError(f"{given}: a mix cannot contain a mix: name all its proposers side by side")
    found = _PART.findall(rest)
    if len(found) < 2 or "".join(f"{name}={share}," for name, share in found).rstrip(",") != rest.rstrip(","):
        raise argparse.ArgumentTypeError(f"{given}: {_HOW}")
    names, shares = [name.strip() for name, _ in found], [float(share) for _, share in found]
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{given}: it names one proposer twice: add its shares up")
    if not all(shares):
        raise argparse.ArgumentTypeError(f"{given}: a share must be more than 0")
    return tuple(Part(name, share / sum(shares)) for name, share in zip(names, shares, strict=True))


def turns(shares: Sequence[float]) -> Iterator[int]:
    """Whose turn it is, one after another: always the one that is furthest behind its share, so that any run of turns
    has each in proportion."""
    counts, number = [0] * len(shares), 0
    while True:
        number += 1
        behind = [round(share * number - count, 9) for share, count in zip(shares, counts, strict=True)]
        turn = behind.index(max(behind))
        counts[turn] += 1
        yield turn
