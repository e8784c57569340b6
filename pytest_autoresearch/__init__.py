"""A night of machine-learning research as a pytest session.

The names in `__all__` are the public API, for use in a conftest.py. They are imported on first use, because pytest
imports this package in every session.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_autoresearch.core.errors import Refused
    from pytest_autoresearch.core.experiment import Experiment, Proposal, Status, Verdict
    from pytest_autoresearch.proposers.base import Context

__all__ = ["Context", "Experiment", "Proposal", "Refused", "Status", "Verdict"]

_MODULES = {
    "Context": "proposers.base",
    "Experiment": "core.experiment",
    "Proposal": "core.experiment",
    "Refused": "core.errors",
    "Status": "core.experiment",
    "Verdict": "core.experiment",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
