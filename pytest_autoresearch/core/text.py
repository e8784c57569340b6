"""Text from other programs, made safe to print; misspelt names. Pure."""

from __future__ import annotations

from collections.abc import Iterable

_LIKENESS = 0.85  # high, because all names share a long prefix


def one_line(text: str) -> str:
    """The text as one line: whitespace, line ends and control characters become single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shortened(text: str, most: int = 60) -> str:
    """The text as one line of at most `most` characters."""
    line = one_line(text)
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to a misspelt one, or None."""
    import difflib  # needed only after a mistake

    return next(iter(difflib.get_close_matches(name, list(known), 1, _LIKENESS)), None)
