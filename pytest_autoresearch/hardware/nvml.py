"""One door to NVML, the driver's own library: how a question is put, and nothing of what the questions are for.

An answer that there is not is None: where the driver knows no such function, has no permission, or has lost the GPU.
The binding is imported with the first question, so that loading the plugin stays light.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def start() -> str:
    """Connect to the driver; why there is none, or nothing when there is."""
    try:
        import pynvml
    except ImportError:
        return "the package nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML says: {error}"
    return ""


def ask(function: str, *given: Any) -> Any:
    """What the driver answers, or None where it has no answer."""
    import pynvml

    try:
        return getattr(pynvml, function)(*given)
    except pynvml.NVMLError:
        return None


def value(name: str) -> int:
    """One of NVML's constants."""
    import pynvml

    return int(getattr(pynvml, name))


class Patience:
    """Asks on a thread of its own: a GPU that has fallen off the bus may never answer, and nobody can wait for that.

    One question at a time; one whose answer is owed goes on, and comes before the next.
    """

    def __init__(self) -> None:
        self._asked: threading.Thread | None = None
        self._answers: list[Any] = []

    def ask(self, question: Callable[[], T], seconds: float) -> T | None:
        """The answer, or that to the question before where it was owed; None where it takes longer than that."""
        if self._asked is None:
            answers = self._answers = []
            self._asked = threading.Thread(target=lambda: answers.append(question()), name="nvml", daemon=True)
            self._asked.start()
        self._asked.join(seconds)
        if self._asked.is_alive():
            return None
        self._asked = None
        return self._answers[0] if self._answers else None
