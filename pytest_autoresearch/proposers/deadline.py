"""A call with a deadline, whatever it waits for: a library that blocks cannot hold the session. Knows no service."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")
_TICK_SECONDS = 0.2


class TooLate(Exception):
    """The call had not ended at its deadline; its thread goes on, and its result is dropped."""


def in_time(call: Callable[[], _Result], seconds: float, check: Callable[[], None]) -> _Result:
    """The result of the call, made on a thread of its own.

    Args:
        seconds: The deadline.
        check: Asked several times a second; raises if the session ends.

    Raises:
        TooLate: The deadline is over.
    """
    done: queue.SimpleQueue[tuple[_Result | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:
            done.put((None, error))

    until = time.monotonic() + seconds
    threading.Thread(target=work, daemon=True, name="autoresearch-request").start()
    while True:
        try:
            result, error = done.get(timeout=_TICK_SECONDS)
        except queue.Empty:
            check()
            if time.monotonic() >= until:
                raise TooLate from None
            continue
        if error is not None:
            raise error
        return result  # type: ignore[return-value]
