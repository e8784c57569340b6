"""Text and output without commands for a CI runner.

A runner reads a job's log and obeys commands in it: GitHub's takes `::name::` at the start of a line and `##[name]`
anywhere in a line, Azure's takes `##vso[name]`, TeamCity `##teamcity[name]`. A proposal must not give any. Knows no
campaign.
"""

from __future__ import annotations

import re
from typing import Any, TextIO

_ANYWHERE = re.compile(r"#(?=#\w*\[)")
_AT_THE_START = re.compile(r"(^|[\r\n])((?:\s|\x1b\[[\d;]*m)*):(?=:)")
_REMEMBERED = 80  # characters of an unfinished line; no command's beginning is longer


def harmless(text: str) -> str:
    """The text with a space inside each beginning of a command: `# #[name]`, `: :name::`."""
    if "##" in text:
        text = _ANYWHERE.sub("# ", text)
    return _AT_THE_START.sub(r"\1\2: ", text) if "::" in text else text


def harmless_json(document: str) -> str:
    """The same JSON document without commands: in its strings, `#` is written as an escape."""
    return _ANYWHERE.sub(r"\\u0023", document)


class HarmlessOutput:
    """A stream that passes on text without commands, also if a command is written in several parts.

    Args:
        stream: Where the text goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = ""  # the end of the unfinished line

    def write(self, text: str) -> int:
        """Write the text, made harmless; returns the number of characters of `text`."""
        whole = harmless(self._line + text)
        # A command that begins in what is already written is broken by a space.
        new = whole[len(self._line) :] if whole.startswith(self._line) else f" {harmless(text)}"
        self._stream.write(new)
        self._ends_with(self._line + new)
        return len(text)

    def command(self, line: str) -> None:
        """Write a line with a trusted command."""
        self._stream.write("\n" * bool(self._line) + line + "\n")
        self._line = ""

    def _ends_with(self, text: str) -> None:
        line = re.split(r"[\r\n]", text)[-1]
        # The letter keeps the rest of a long line from looking like a line of its own.
        self._line = line if len(line) <= _REMEMBERED else "x" + line[-_REMEMBERED:]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
