"""What a process says, read as it comes and kept in bounded memory, whatever and however much it is.

Bytes go in; out come plain printable lines, a log for the disk and the end of it for a person. Knows text alone:
no processes, no clocks, no files.
"""

from __future__ import annotations

import re
from collections import deque

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 256 * 1024
LINE_BYTES = 8 * 1024
KEPT_LINES = 400
TAIL_LINES = 40
TAIL_CHARACTERS = 4000

_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor movement
    r"|\x1b[\]PX^_][^\x07\x1b\r\n]*(?:\x07|\x1b\\)?"  # titles, links: a string with an end of its own
    r"|\x1b[ -/]*[0-Z\\`-~]"  # the rest: a letter or two
)
_UNUSUAL = re.compile(r"[^ -~\r\n]+")


def sanitise(text: str) -> str:
    """`text` without terminal escapes and control characters: printable, but for its line ends, which stay."""
    return _UNUSUAL.sub(_printable, _ESCAPE.sub("", text) if "\x1b" in text else text)


def _printable(match: re.Match[str]) -> str:
    kept = (c if c.isprintable() else "    " if c == "\t" else " " if c.isspace() else "" for c in match.group())
    return "".join(kept)


class BoundedLog:
    """The first and the last of a text, with a line between them that says how much was left out."""

    def __init__(self, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._head_full = False
        self._left_out = 0

    def add(self, data: bytes) -> None:
        """Take more of the text; whole lines, so that the two cuts fall between lines where they can."""
        if not self._head_full:
            room = self._head_bytes - len(self._head)
            if len(data) <= room:
                self._head += data
                return
            cut = data.rfind(b"\n", 0, room) + 1
            self._head += data[:cut]
            self._head_full = True
            data = data[cut:]
        self._tail += data
        # Twice the size before anything is dropped: each byte is then moved at most once.
        if len(self._tail) > 2 * self._tail_bytes:
            self._shorten()

    def _shorten(self) -> None:
        excess = len(self._tail) - self._tail_bytes
        if excess <= 0:
            return
        line_end = self._tail.find(b"\n", excess - 1)
        cut = line_end + 1 if 0 <= line_end < len(self._tail) - 1 else excess
        self._left_out += cut
        del self._tail[:cut]

    def bytes(self) -> bytes:
        """At most both bounds together, and the line between them."""
        self._shorten()
        note = f"[... {self._left_out:,} bytes left out ...]\n".encode() if self._left_out else b""
        return bytes(self._head) + note + bytes(self._tail)


class Output:
    """One process's output: its log and its last lines.

    Attributes:
        lines: The last lines, at most `KEPT_LINES`; of a run of lines that a terminal would overwrite (they end in
            a carriage return) the last one alone.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._log = BoundedLog()
        self._unfinished = b""
        self._returned = False  # the last line ended in a carriage return

    def feed(self, data: bytes) -> list[str]:
        """Take bytes as they were read; returns the lines that they complete."""
        data = self._unfinished + data
        # A carriage return at the very end may be half of a line end: what follows decides.
        end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
        if len(data) - end > LINE_BYTES:
            # No line is waited for without end: a long one is cut into several.
            complete, self._unfinished = data + b"\n", b""
        else:
            complete, self._unfinished = data[:end], data[end:]
        return self._take(complete) if complete else []

    def finish(self) -> list[str]:
        """The process is gone: what it said last may have no line end."""
        data, self._unfinished = self._unfinished, b""
        return self._take(data if data.endswith(b"\r") else data + b"\n") if data else []

    def _take(self, complete: bytes) -> list[str]:
        text = sanitise(complete.decode("utf-8", "replace"))
        taken: list[str] = []
        for ended in text.splitlines(keepends=True):  # at CR, LF and CRLF: nothing else of the kind is printable
            line, returned = ended.rstrip("\r\n"), ended[-1] == "\r"
            if returned and not line:
                continue  # some begin a progress line with the carriage return
            if returned and self._returned and self.lines:
                self.lines[-1] = line
            else:
                self.lines.append(line)
            self._returned = returned
            taken.append(line)
        if taken:
            self._log.add(("\n".join(taken) + "\n").encode())
        return taken

    def log(self) -> bytes:
        """The whole output in UTF-8 as far as it is kept: the first 64 KiB and the last 256 KiB."""
        return self._log.bytes()

    def tail(self) -> str:
        """The useful end: at most 40 lines and 4,000 characters."""
        lines = [line.rstrip() for line in self.lines]
        while lines and not lines[-1]:
            lines.pop()
        text = "\n".join(lines[-TAIL_LINES:])
        if len(text) <= TAIL_CHARACTERS:
            return text
        text = text[-TAIL_CHARACTERS:]
        line_end = text.find("\n")
        return text[line_end + 1 :]
