"""Keeps a process's output in bounded memory, however much it prints.

Bytes go in at the speed of a copy. Plain printable text comes out on request: a log for the disk, and its end for a
person. Knows text alone: no processes, clocks or files.
"""

from __future__ import annotations

import re
from collections import deque

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 256 * 1024
CUT_BYTES = 4 * 1024  # a cut is moved to a line end that is at most this far away
KEPT_LINES = 5000  # a compiler prints hundreds of lines below the line with the error
TAIL_LINES = 40
TAIL_CHARACTERS = 4000

_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor movement
    r"|\x1b[\]PX^_][^\x07\x1b\r\n]*(?:\x07|\x1b\\)?"  # titles and links: a string with a terminator
    r"|\x1b[ -/]*[0-Z\\`-~]"  # other escapes: one or two letters
)
_LINE_END = re.compile(rb"\r\n|\r|\n")
_UNUSUAL = re.compile(r"[^ -~\r\n]+")


def sanitise(text: str) -> str:
    """`text` without terminal escapes and control characters; line ends stay."""
    return _UNUSUAL.sub(_printable, _ESCAPE.sub("", text) if "\x1b" in text else text)


def _printable(match: re.Match[str]) -> str:
    text = match.group()
    if text.isprintable():  # letters beyond ASCII, at full speed
        return text
    return "".join(c if c.isprintable() else "    " if c == "\t" else " " if c.isspace() else "" for c in text)


class Output:
    """The first and the last bytes of one process's output.

    Args:
        head_bytes: How many bytes of the beginning are kept.
        tail_bytes: How many bytes of the end are kept.
    """

    def __init__(self, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of output."""
        self._total += len(data)
        if room := self._head_bytes - len(self._head):
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        # Shortened only at twice the size, so that each byte is moved at most once.
        if len(self._tail) > 2 * self._tail_bytes:
            self._shorten()

    def log(self) -> bytes:
        """The kept output as plain UTF-8 text; one line says how many bytes were left out."""
        head, left_out, tail = self._kept()
        note = [f"[... {left_out:,} bytes left out ...]"] if left_out else []
        lines = [line for line, _ in _lines(head)] + note + [line for line, _ in _lines(tail)]
        return "".join(f"{line}\n" for line in lines).encode()

    @property
    def lines(self) -> list[str]:
        """The last `KEPT_LINES` lines, without lines that a carriage return overwrites."""
        kept: deque[str] = deque(maxlen=KEPT_LINES)
        overwritten = False
        for line, returned in _lines(self._kept()[2]):
            if overwritten and returned:
                kept[-1] = line
            else:
                kept.append(line)
            overwritten = returned
        return list(kept)

    def tail(self) -> str:
        """The end of the output: at most 40 lines and 4,000 characters."""
        text = "\n".join(line.rstrip() for line in self.lines).rstrip("\n")
        text = "\n".join(text.split("\n")[-TAIL_LINES:])
        if len(text) <= TAIL_CHARACTERS:
            return text
        text = text[-TAIL_CHARACTERS:]
        return text[text.find("\n") + 1 :]

    def _shorten(self) -> None:
        del self._tail[: max(0, len(self._tail) - self._tail_bytes)]

    def _kept(self) -> tuple[bytes, int, bytes]:
        """The beginning, the number of bytes left out, and the end. If no byte is left out, the end is everything."""
        self._shorten()
        head, tail = bytes(self._head), bytes(self._tail)
        if len(head) + len(tail) == self._total:
            return b"", 0, head + tail
        near = max(0, len(head) - CUT_BYTES)
        head = head[: max(head.rfind(b"\n", near), head.rfind(b"\r", near)) + 1] or head
        if line_end := _LINE_END.search(tail, 0, CUT_BYTES):
            tail = tail[line_end.end() :] or tail
        return head, self._total - len(head) - len(tail), tail


def _lines(data: bytes) -> list[tuple[str, bool]]:
    """The plain lines, each with whether it ends in a carriage return: a terminal would overwrite that line."""
    text = sanitise(data.decode("utf-8", "replace"))
    # Splits at CR, LF and CRLF alone, because `sanitise` removes other line ends. Some programs print CR first.
    ended = ((line.rstrip("\r\n"), line.endswith("\r")) for line in text.splitlines(keepends=True))
    return [(line, returned) for line, returned in ended if line or not returned]
