"""How a command that has processes under way is interrupted: a signal is noted, and the command ends them itself."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def noted() -> Iterator[list[int]]:
    """The signals that have come meanwhile, of those that would end the command; ignored ones stay ignored."""
    came: list[int] = []
    numbers = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
