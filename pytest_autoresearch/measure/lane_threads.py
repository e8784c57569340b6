"""Several runs at the same time, each on a thread of its own, and runs that can be stopped. Knows nothing of runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

from pytest_autoresearch.core.errors import Stopped

_Result = TypeVar("_Result")
_TICK_SECONDS = 0.2
_GOODBYE_SECONDS = 4.0


def in_threads(works: Sequence[Callable[[], None]]) -> None:
    """Call the functions at the same time, and wait for all; the first one is called on this thread.

    The threads do not keep the process alive: a session that is being ended does not wait for them.

    Raises:
        BaseException: What the first function that failed has raised.
    """
    first, *others = works
    futures: list[Future[None]] = [Future() for _ in others]
    for work, future in zip(others, futures, strict=True):
        threading.Thread(target=_call, args=(work, future), daemon=True).start()
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
    made: Future[_Result] = Future()

    def work() -> None:
        try:
            made.set_result(make())
        except BaseException as error:
            made.set_exception(error)

    # Not an executor: the interpreter would wait at its exit for the executor's thread, even if that hangs.
    threading.Thread(target=work, daemon=True, name="measurement").start()
    try:
        while not wait([made], _TICK_SECONDS).done:
            if stopped():
                raise Stopped(why)
    except BaseException:
        close()
        wait([made], _GOODBYE_SECONDS)
        raise
    return made.result()


def _call(work: Callable[[], None], future: Future[None]) -> None:
    try:
        work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(None)
