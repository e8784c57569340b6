"""A night of machine-learning research as a pytest session.

The names in `__all__` are the public API: for a conftest.py, and `load_campaign` for a notebook. They are imported on
first use, because pytest imports this package in every session.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_autoresearch.cli.tables import load_campaign
    from pytest_autoresearch.core.errors import Refused
    from pytest_autoresearch.core.experiment import Experiment, Proposal, Status, Verdict
    from pytest_autoresearch.proposers.base import Context

__all__ = ["Context", "Experiment", "Proposal", "Refused", "Status", "Verdict", "load_campaign"]

_MODULES = {
    "Context": "proposers.base",
    "Experiment": "core.experiment",
    "Proposal": "core.experiment",
    "Refused": "core.errors",
    "Status": "core.experiment",
    "Verdict": "core.experiment",
    "load_campaign": "cli.tables",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
