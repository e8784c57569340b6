"""Several runs at the same time, each on a thread of its own, and runs that can be stopped. Knows nothing of runs.

The threads do not keep the process alive: a session that is being ended does not wait for them. An executor's would, at
the exit of the interpreter, even if they hang.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

from pytest_autoresearch.core.errors import Stopped

_Result = TypeVar("_Result")
_TICK_SECONDS = 0.2
_GOODBYE_SECONDS = 4.0


def in_thread(work: Callable[[], _Result]) -> Future[_Result]:
    """Call the function on a thread of its own."""
    future: Future[_Result] = Future()

    def call() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def in_threads(works: Sequence[Callable[[], None]]) -> None:
    """Call the functions at the same time, and wait for all; the first one is called on this thread.

    Raises:
        BaseException: What the first function that failed has raised.
    """
    first, *others = works
    futures = [in_thread(work) for work in others]
    try:
        first()
    finally:
        for future in futures:
            future.exception()
    for future in futures:
        future.result()


def interruptible(
    make: Callable[[], _Result], stopped: Callable[[], bool], close: Callable[[], None],
    why: str = "the measurement was interrupted",
) -> _Result:  # fmt: skip
    """Call `make` on a thread of its own, while this thread checks several times a second whether to stop.

    Args:
        close: Ends what `make` does.

    Raises:
        Stopped: `stopped` returned True.
    """
    made = in_thread(make)
    try:
        while not wait([made], _TICK_SECONDS).done:
            if stopped():
                raise Stopped(why)
    except BaseException:
        close()
        wait([made], _GOODBYE_SECONDS)
        raise
    return made.result()
