"""Makes text from other programs safe to print. Pure."""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text as one line: whitespace, line ends and control characters become single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
