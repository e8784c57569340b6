"""What strangers wrote, made fit to be read: nothing in it acts on a screen or hides what stands there.

A proposal is free to hold a terminal's escapes and characters that turn the direction of writing. In prose they are
left out; in a change and a log, by which people judge, each is shown by its number. Pure: text in, text out.
"""

from __future__ import annotations

import re
import unicodedata

from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.runners.output import sanitise

_UNUSUAL = re.compile(r"[^\n\t -~]+")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, formats, halves of pairs, ends of lines and paragraphs


def line(text: str) -> str:
    """The text on one line, without escapes and control characters."""
    return one_line(sanitise(text))


def plain(text: str) -> str:
    """The text with its line ends, without escapes and control characters."""
    return sanitise(text.replace("\r\n", "\n").replace("\r", "\n"))


def visible(text: str) -> str:
    """The text with every character that is not seen as `⟨U+202E⟩`, but for tabs and line feeds."""
    return _UNUSUAL.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    return "".join(f"⟨U+{ord(c):04X}⟩" if unicodedata.category(c) in _UNSEEN else c for c in match.group())
