"""Makes untrusted text safe to display: it cannot control the terminal or hide other text.

A proposal may contain terminal escapes and characters that change the writing direction. They are removed from prose;
in diffs and logs, which people review, each is shown as its code point. Pure: text in, text out.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.reports.harmless import harmless
from pytest_autoresearch.runners.output import sanitise

_BYTES = 0xDC00  # Python decodes a byte that is no UTF-8 to this number and the byte
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control, format, surrogate, line and paragraph separators


def line(text: str) -> str:
    """The text on one line, without escapes, control characters and commands for a CI runner."""
    return harmless(one_line(sanitise(text)))


def plain(text: str) -> str:
    """The text with its line breaks, without escapes, control characters and commands for a CI runner."""
    return harmless(sanitise(text.replace("\r\n", "\n").replace("\r", "\n")))


def visible(text: str) -> str:
    """The text with each invisible character written as `⟨U+202E⟩`, except tabs and line feeds.

    A byte that is no UTF-8, in a text that was decoded with `surrogateescape`, is written as `⟨0xE9⟩`.
    """
    # A pattern looks at each letter; `isprintable` is ten times as fast, and most lines are.
    return "\n".join(row if row.isprintable() else _unseen().sub(_shown, row) for row in text.split("\n"))


@cache
def _unseen() -> re.Pattern[str]:
    """Matches one invisible character. One pattern, because a page may have millions of letters beyond ASCII."""
    unseen = "".join(
        letter
        for letter in map(chr, range(sys.maxunicode + 1))
        if letter not in "\n\t" and unicodedata.category(letter) in _UNSEEN
    )
    return re.compile(f"[{re.escape(unseen)}]")


def _shown(match: re.Match[str]) -> str:
    number = ord(match.group())
    return f"⟨0x{number - _BYTES:02X}⟩" if _BYTES + 0x80 <= number <= _BYTES + 0xFF else f"⟨U+{number:04X}⟩"
