"""Text from other programs, made safe to print; misspelt names. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

_LIKENESS = 0.85
_NAME_LIKENESS = 0.6  # of the short rest behind the prefix that all settings share
_PREFIX = "autoresearch"


def one_line(text: str) -> str:
    """The text as one line: whitespace, line ends and control characters become single spaces."""
    words = text.split()
    if any(not word.isprintable() for word in words):
        words = "".join(c if c.isprintable() else " " for c in text).split()
    return " ".join(words)


def shortened(text: str, most: int = 60) -> str:
    """The text as one line of at most `most` characters."""
    line = one_line(text)
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def nearest(name: str, known: Iterable[str], likeness: float = _LIKENESS) -> str | None:
    """The known name that is most similar to a misspelt one, or None."""
    import difflib  # needed only after a mistake

    return next(iter(difflib.get_close_matches(name, list(known), 1, likeness)), None)


def nearest_setting(given: str, names: Collection[str]) -> str | None:
    """The setting that a misspelt option or ini key means, without its prefix; None if it means none of ours.

    Args:
        given: Such as `--autoresearch-budegt`, `autoresearch_budegt` or `--budget`.
        names: The names of settings, without prefix, with hyphens.
    """
    word = given.lstrip("-").replace("_", "-")
    prefix, _, name = word.partition("-")
    if word in names:
        return word
    if nearest(prefix, [_PREFIX]):
        return nearest(name, names, _NAME_LIKENESS)
    whole = nearest(word, [f"{_PREFIX}-{name}" for name in names])
    return whole.removeprefix(f"{_PREFIX}-") if whole else None
