"""Quotes untrusted text for a language model: printable, limited in size, inside a fence that the text cannot close.

Pure: text in, text out. Knows nothing of experiments.
"""

from __future__ import annotations

import hashlib
import itertools
import re

from pytest_autoresearch.core.text import one_line

_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor movements
    r"|\x1b[\]PX^_][^\x07\x1b\r\n]*(?:\x07|\x1b\\)?"  # titles and links, with their own terminator
    r"|\x1b[ -/]*[0-Z\\`-~]"  # all others
)
_LINE_END = re.compile(r"\r\n?")
_UNUSUAL = re.compile(r"[^ -~\n\t]+")


def plain(text: str) -> str:
    """The text without terminal escapes, control and invisible characters; line breaks and tabs stay."""
    return _UNUSUAL.sub(_printable, _LINE_END.sub("\n", _ESCAPE.sub("", text)))


def line(text: str, most_bytes: int) -> str:
    """The text on one line, at most `most_bytes` of UTF-8, ending in … if it was cut.

    Bytes, not characters: a script with three bytes per character also needs more tokens.
    """
    said = one_line(plain(text[: 4 * most_bytes]))  # the rest of a very long text is not needed
    raw = said.encode()
    if len(raw) <= most_bytes:
        return said
    return raw[: most_bytes - len("…".encode())].decode(errors="ignore").rstrip() + "…"


def fenced(what: str, text: str) -> str:
    """The text as data, between two tags whose id does not occur in the text.

    The id is a hash of the text, so that the same text gets the same fence. It is computed again until the text does
    not contain it, so no text can close its own fence.

    Args:
        what: A label for the model.
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
