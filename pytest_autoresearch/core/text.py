"""Text that comes from elsewhere, made fit to print. Pure."""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text with every run of white space, line end or control character as one space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
