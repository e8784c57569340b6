"""Calls NVML, the driver's own library.

The result is None if the driver does not know the function, denies permission, or has lost the GPU. The Python binding
is imported at the first call, so that the plugin loads fast.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def start() -> str:
    """Connect to the driver; returns an error message, empty on success."""
    try:
        import pynvml
    except ImportError:
        return "the package nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML error: {error}"
    return ""


def ask(function: str, *given: Any) -> Any:
    """Call a function of NVML; returns None if it fails."""
    import pynvml

    try:
        return getattr(pynvml, function)(*given)
    except pynvml.NVMLError:
        return None


def value(name: str) -> int:
    """The value of one of NVML's constants."""
    import pynvml

    return int(getattr(pynvml, name))


class TimedCaller:
    """Calls functions on a thread, with a timeout, because a GPU that has fallen off the bus may never answer.

    One call at a time. After a timeout, the old call goes on, and the next call waits for it first.
    """

    def __init__(self) -> None:
        self._running: threading.Thread | None = None
        self._results: list[Any] = []

    def call(self, function: Callable[[], T], seconds: float) -> T | None:
        """The result, or the result of an older call that was still running; None after the timeout."""
        if self._running is None:
            results = self._results = []
            self._running = threading.Thread(target=lambda: results.append(function()), name="nvml", daemon=True)
            self._running.start()
        self._running.join(seconds)
        if self._running.is_alive():
            return None
        self._running = None
        return self._results[0] if self._results else None
