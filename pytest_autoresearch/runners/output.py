"""What a process says, kept in bounded memory, whatever and however much it is.

Bytes go in as they are, at the speed of a copy; plain printable text comes out when it is asked for: a log for the disk
and the end of it for a person. Knows text alone: no processes, no clocks, no files.
"""

from __future__ import annotations

import re
from collections import deque

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 256 * 1024
CUT_BYTES = 4 * 1024  # as far a line end is looked for, to cut there
KEPT_LINES = 5000  # the message of a compiler's error has hundreds below the line that names it
TAIL_LINES = 40
TAIL_CHARACTERS = 4000

_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor movement
    r"|\x1b[\]PX^_][^\x07\x1b\r\n]*(?:\x07|\x1b\\)?"  # titles, links: a string with an end of its own
    r"|\x1b[ -/]*[0-Z\\`-~]"  # the rest: a letter or two
)
_LINE_END = re.compile(rb"\r\n|\r|\n")
_UNUSUAL = re.compile(r"[^ -~\r\n]+")


def sanitise(text: str) -> str:
    """`text` without terminal escapes and control characters: printable, but for its line ends, which stay."""
    return _UNUSUAL.sub(_printable, _ESCAPE.sub("", text) if "\x1b" in text else text)


def _printable(match: re.Match[str]) -> str:
    kept = (c if c.isprintable() else "    " if c == "\t" else " " if c.isspace() else "" for c in match.group())
    return "".join(kept)


class Output:
    """One process's output: the first and the last bytes of it.

    Args:
        head_bytes: How much of the beginning is kept.
        tail_bytes: How much of the end is kept.
    """

    def __init__(self, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def hear(self, data: bytes) -> None:
        """Take more of it, as it was read."""
        self._total += len(data)
        if room := self._head_bytes - len(self._head):
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        # Twice the size before anything is dropped: each byte is then moved at most once.
        if len(self._tail) > 2 * self._tail_bytes:
            self._shorten()

    def log(self) -> bytes:
        """The output as far as it is kept, plain and in UTF-8, with a line that says how many bytes were left out."""
        head, left_out, tail = self._kept()
        note = [f"[... {left_out:,} bytes left out ...]"] if left_out else []
        lines = [line for line, _ in _lines(head)] + note + [line for line, _ in _lines(tail)]
        return "".join(f"{line}\n" for line in lines).encode()

    @property
    def lines(self) -> list[str]:
        """The last lines, at most `KEPT_LINES`; of lines that a terminal would overwrite one another the last alone."""
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
        """The useful end: at most 40 lines and 4,000 characters."""
        text = "\n".join(line.rstrip() for line in self.lines).rstrip("\n")
        text = "\n".join(text.split("\n")[-TAIL_LINES:])
        if len(text) <= TAIL_CHARACTERS:
            return text
        text = text[-TAIL_CHARACTERS:]
        return text[text.find("\n") + 1 :]

    def _shorten(self) -> None:
        del self._tail[: max(0, len(self._tail) - self._tail_bytes)]

    def _kept(self) -> tuple[bytes, int, bytes]:
        """The beginning, the number of bytes that are left out, and the end; all of it is the end when none is."""
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
    """The lines, plain; and of each whether it ends in a carriage return, so that a terminal would overwrite it."""
    text = sanitise(data.decode("utf-8", "replace"))
    # At CR, LF and CRLF: nothing else of the kind is printable. Some programs begin a line with the carriage return.
    ended = ((line.rstrip("\r\n"), line.endswith("\r")) for line in text.splitlines(keepends=True))
    return [(line, returned) for line, returned in ended if line or not returned]
