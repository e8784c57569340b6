"""Several runs at the same time, each on a thread of its own. Knows nothing of runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future


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


def _call(work: Callable[[], None], future: Future[None]) -> None:
    try:
        work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(None)
