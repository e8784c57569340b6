"""Text that is data, as a language model is shown it: printable, in bounds, in a fence that it cannot close.

Pure: text in, text out. It knows nothing of experiments.
"""

from __future__ import annotations

import hashlib
import itertools
import re

from pytest_autoresearch.core.text import one_line

_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and movements of the cursor
    r"|\x1b[\]PX^_][^\x07\x1b\r\n]*(?:\x07|\x1b\\)?"  # titles and links: a string with an end of its own
    r"|\x1b[ -/]*[0-Z\\`-~]"  # the rest
)
_LINE_END = re.compile(r"\r\n?")
_UNUSUAL = re.compile(r"[^ -~\n\t]+")


def plain(text: str) -> str:
    """The text without terminal escapes, control characters and what cannot be seen; line ends and tabs stay."""
    return _UNUSUAL.sub(_printable, _LINE_END.sub("\n", _ESCAPE.sub("", text)))


def line(text: str, most_bytes: int) -> str:
    """The text on one line of at most so many bytes of UTF-8, with a mark where it was cut.

    Bytes and not characters: a language that needs three bytes for a character needs more tokens for it as well.
    """
    said = one_line(plain(text[: 4 * most_bytes]))  # of a whole book the rest is never looked at
    raw = said.encode()
    if len(raw) <= most_bytes:
        return said
    return raw[: most_bytes - len("…".encode())].decode(errors="ignore").rstrip() + "…"


def fenced(what: str, text: str) -> str:
    """The text as data: between two tags whose id occurs nowhere in it.

    The id is made from the text, so that the same text has the same fence; and made again until the text lacks it, so
    that nobody can write a text that closes its own.

    Args:
        what: What it is, for the model to read.
    """
    content = plain(text).removesuffix("\n")
    for salt in itertools.count():
        key = hashlib.sha256(f"{salt} {content}".encode()).hexdigest()[:8]
        if key not in content.lower():
            break
    label = line(what, 200).translate(str.maketrans('"<>', "'()"))
    return f'<data id="{key}" what="{label}">\n{content}\n</data id="{key}">'


def _printable(match: re.Match[str]) -> str:
    return "".join(c if c.isprintable() else " " if c.isspace() else "" for c in match.group())
