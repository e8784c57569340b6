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


class Patience:
    """Asks on a thread with a timeout, because a GPU that has fallen off the bus may never answer.

    One question at a time. After a timeout, the old question stays open and is waited for before the next is asked.
    """

    def __init__(self) -> None:
        self._asked: threading.Thread | None = None
        self._answers: list[Any] = []

    def ask(self, question: Callable[[], T], seconds: float) -> T | None:
        """The answer, or the answer to an older question that was still open; None after the timeout."""
        if self._asked is None:
            answers = self._answers = []
            self._asked = threading.Thread(target=lambda: answers.append(question()), name="nvml", daemon=True)
            self._asked.start()
        self._asked.join(seconds)
        if self._asked.is_alive():
            return None
        self._asked = None
        return self._answers[0] if self._answers else None
