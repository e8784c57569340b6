"""Reads the numbers in a process's output: upstream's summary block, `METRIC name=value` lines, steps and losses.

The output is searched as bytes, because a program may print faster than its lines could be read one by one. The result
depends on the bytes alone, not on how they were split into reads. The output is untrusted: memory is bounded, and a
metric that is missing, printed with different values, or not finite is a crash.
"""

from __future__ import annotations

import math
import re
from collections import deque

from pytest_autoresearch.core.run import Crash, CrashClass

KEPT_NAMES = 200
KEPT_LOSSES = 10_000
FULL_BYTES = 4 * 1024 * 1024
WINDOW_BYTES = 64 * 1024
GLANCE_BYTES = 2 * 1024
LINE_BYTES = 8 * 1024  # longer than any line that the patterns below can match

# Every repetition is bounded and possessive, so no line takes long to match. Line ends are always LF here.
_SPACE = rb"[\x00-\x09\x0b-\x1a\x1c-\x20\x7f]{0,99}+"
_BLANK = _SPACE + rb"(?:\x1b\[[0-?]{0,20}+[ -/]{0,2}+[@-~]" + _SPACE + rb"){0,9}+"  # with colours
_NAME = rb"[A-Za-z_\x80-\xff][\w./@%+\x80-\xff-]{0,99}+"  # as in settings.py
_NUMBER = rb"([+-]?(?:(?:\d{1,99}+(?:\.\d{0,99}+)?|\.\d{1,99}+)(?:[eE][+-]?\d{1,9}+)?|(?i:nan|inf(?:inity)?)))"
_RULE = rb"---"


def _line(content: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"\n" + _BLANK + rb"(?:" + content + rb")" + _BLANK + rb"(?=\n)")


def _named(name: bytes) -> bytes:
    return rb"(" + name + rb")" + _BLANK + rb":" + _BLANK + _NUMBER


def _metric(name: bytes) -> bytes:
    return rb"METRIC[ \t]{1,99}+(" + name + rb")" + _BLANK + rb"=" + _BLANK + _NUMBER


def _glued(statement: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"\n" + _BLANK + statement + rb"(?:" + _BLANK + statement + rb")+")


_ANY = _line(rb"(" + _RULE + rb")|" + _metric(_NAME) + rb"|" + _named(_NAME))
_RULES = _line(_RULE)
_COLOUR = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
# For text in lower case. The patterns begin with a literal word and look behind afterwards, because a search for a
# literal is fastest. Only the first match in a line counts.
_STEP = re.compile(rb"step(?<![a-z_]step)[\s:=#]{0,8}(\d{1,18})[^\n]*+")
_LOSS = re.compile(rb"loss(?<![a-z]loss)[\s:=]{1,8}" + _NUMBER + rb"[^\n]*+")


class Summary:
    """The numbers that a process has printed so far.

    A line `name: value` counts if the value is one number and the line comes after the last line `---`; without a line
    `---` it counts anywhere. A line `METRIC name=value` counts anywhere. In the first `full_bytes` and the last
    `window_bytes` of the output, every line is read. Between them, only `---` lines and lines with the metric are read,
    so the metric is the same as if every line had been read.

    Several ranks print into one output, each its own line `---`. Then the metric counts before that line, too.

    Args:
        metric_name: The metric.
        full_bytes: Size of the beginning, in bytes.
        window_bytes: Size of the end, in bytes.
        ranks: How many processes print.

    Attributes:
        step: The last training step that was printed, or None. If much is printed at once, only the last lines are
            searched for steps and losses.
        loss: The last loss that was printed, or None.
    """

    def __init__(
        self, metric_name: str, full_bytes: int = FULL_BYTES, window_bytes: int = WINDOW_BYTES, ranks: int = 1
    ) -> None:
        self._ranks = ranks
        self.step: int | None = None
        self.loss: float | None = None
        self._losses: deque[float] = deque(maxlen=KEPT_LOSSES)
        self._glanced = 0  # bytes of `_unread` that were searched for steps and losses
        self._metric_name = metric_name
        self._needle = metric_name.encode()
        # A name that `_ANY` cannot read never matches.
        name = re.escape(self._needle) if re.fullmatch(_NAME, self._needle) else rb"(?!)"
        self._metric_named, self._metric_line = _line(_named(name)), _line(_metric(name))
        # The ranks of one run may write over each other's line ends: `METRIC loss=1METRIC loss=1`.
        self._statement = re.compile(_metric(name) + rb"|" + _named(name))
        self._glued = _glued(rb"(?:" + self._statement.pattern + rb")")
        self._full_left: int | None = full_bytes  # None after the beginning
        self._window_bytes = window_bytes
        self._unread = b"\n"  # begins with the previous line's end, or inside a line that is too long
        self._block: dict[str, list[float]] = {}
        self._lines: dict[str, list[float]] = {}

    def feed(self, data: bytes) -> None:
        """Take the next bytes of output."""
        data = self._unread[self._glanced :] + data.replace(b"\r", b"\n")
        if data.count(self._needle) > 1:
            data = self._glued.sub(self._parted, data)
        self._unread = self._unread[: self._glanced] + data
        end = self._unread.rfind(b"\n")
        self._glance(end)
        if self._full_left is not None and end >= 0:
            if end < self._full_left:
                self._full_left -= end
            else:
                end, self._full_left = self._unread.find(b"\n", max(self._full_left, 0)), None
            self._read(0, end + 1)
            self._leave(end)
        if self._full_left is None:
            leaving = self._unread.rfind(b"\n", 0, max(0, len(self._unread) - self._window_bytes))
            if leaving > 0:
                self._search(leaving + 1)
                self._leave(leaving)
        if len(self._unread) > LINE_BYTES and self._unread.rfind(b"\n") <= 0:
            if self._full_left is not None:
                self._full_left -= len(self._unread) - 1
            self._unread, self._glanced = b".", 0

    def new_losses(self) -> list[float]:
        """The losses that were printed since the last call, in order."""
        found = list(self._losses)
        self._losses.clear()
        return found

    def finish(self) -> None:
        """Take the end of the output."""
        window = 0 if self._full_left is not None else max(0, len(self._unread) - self._window_bytes)
        self._unread += b"\n"
        first = self._unread.find(b"\n", window)
        if window:
            self._search(first + 1)
        self._read(first, len(self._unread))
        self._unread = b"\n"

    def numbers(self) -> dict[str, float]:
        """Every finite number by its name; the last value if it was printed more than once."""
        last = {name: self._values(name)[-1] for name in {**self._block, **self._lines}}
        return {name: value for name, value in last.items() if math.isfinite(value)}

    @property
    def missing(self) -> bool:
        """Whether the metric was not printed at all."""
        return not self._values(self._metric_name)

    def metric(self) -> float | Crash:
        """The metric, or a crash that says why there is none."""
        name = self._metric_name
        values = self._values(name)
        if not values:
            others = ", ".join(list(self.numbers())[:9])
            said = f"; it printed {others}" if others else ""
            return Crash(CrashClass.NO_METRIC, f"no line `{name}: NUMBER` or `METRIC {name}=NUMBER` was printed{said}")
        if not all(_same(value, values[0]) for value in values):
            said = f"{name} was printed more than once, with different values"
            where = "after a line `---`" if self._ranks == 1 else f"from rank 0 alone, as {self._ranks} ranks may print"
            return Crash(CrashClass.NO_METRIC, f"{said}; print it once, {where}")
        if not math.isfinite(values[0]):
            return Crash(CrashClass.NAN, f"{name} is {values[0]}")
        return values[0]

    def _glance(self, end: int) -> None:
        """Update the step and the losses from the last lines before `end`."""
        text = self._unread[max(0, self._glanced, end - GLANCE_BYTES) : max(0, end)].lower()
        self._glanced = max(self._glanced, end)
        if b"\x1b" in text:
            text = _COLOUR.sub(b"", text)
        for step in deque(_STEP.finditer(text), 1):
            self.step = int(step[1])
        for found in _LOSS.finditer(text):
            self.loss = float(found[1])
            self._losses.append(self.loss)

    def _parted(self, glued: re.Match[bytes]) -> bytes:
        """Each statement on a line of its own."""
        return b"".join(b"\n" + found[0] for found in self._statement.finditer(glued[0]))

    def _leave(self, end: int) -> None:
        """Drop the bytes before `end`, which have been read."""
        self._unread = self._unread[end:]
        self._glanced = max(0, self._glanced - end)

    def _read(self, start: int, end: int) -> None:
        """Take every number from the unread lines; `start` is the line end before the first, `end` follows the last."""
        for rule, *fields in (found.groups() for found in _ANY.finditer(self._unread, start, end)):
            if rule:
                self._begin_block()
            elif fields[0]:
                self._put(self._lines, fields[0], fields[1])
            else:
                self._put(self._block, fields[2], fields[3])

    def _search(self, end: int) -> None:
        """Take only the metric from the unread lines up to `end`; `---` comes first, because it clears the block."""
        start = 0
        if self._unread.rfind(_RULE, 0, end) >= 0 and (rule := self._last_rule(end)):
            start = rule.end() if self._ranks == 1 else 0
            self._begin_block()
        if self._unread.rfind(self._needle, 0, end) < 0:
            return
        self._put_all(self._block, self._metric_named.findall(self._unread, start, end))
        if self._unread.rfind(b"METRIC", 0, end) >= 0:
            self._put_all(self._lines, self._metric_line.findall(self._unread, 0, end))

    def _begin_block(self) -> None:
        """A line `---`: what came before does not count, except the metric of another rank."""
        kept = self._block.get(self._metric_name) if self._ranks > 1 else None
        self._block.clear()
        if kept:
            self._block[self._metric_name] = kept

    def _last_rule(self, end: int) -> re.Match[bytes] | None:
        """The last line `---`. The end is searched first, which is often enough."""
        for start in (max(0, end - GLANCE_BYTES), 0):
            for rule in deque(_RULES.finditer(self._unread, start, end), 1):
                return rule
        return None

    def _put_all(self, into: dict[str, list[float]], found: list[tuple[bytes, bytes]]) -> None:
        """Take values in order. One that was printed a million times is read twice: as the first and as the last."""
        for name, number in (*dict.fromkeys(found), *found[-1:]):
            self._put(into, name, number)

    def _put(self, into: dict[str, list[float]], name: bytes, number: bytes) -> None:
        known, value = name.decode(errors="replace"), float(number)
        if known != self._metric_name and (not known.isprintable() or (known not in into and len(into) >= KEPT_NAMES)):
            return
        # The last value, and a different one before it: enough to see that the metric is not one number.
        others = [one for one in into.get(known, ()) if not _same(one, value)]
        into[known] = [*others[:1], value]

    def _values(self, name: str) -> list[float]:
        return self._block.get(name, []) + self._lines.get(name, [])


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
