"""How a session went so far, for its exit status and its last words."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import pytest

from pytest_autoresearch.core.run import Run


@dataclass(slots=True, eq=False)
class Outcome:
    """How a session went so far. The judge and the loop write it; the terminal and the exit status read it.

    Attributes:
        broken: The report that stops the campaign; nothing is recorded of its experiment. A rule raised something else
            than an assertion, git or a proposer failed, or the baseline did not pass.
        reason: Why the campaign stops, in a sentence.
        crashed_baseline: The last run of the baseline, if it stops because that has no metric.
        infrastructure: Whether it stops because git or a proposer failed.
        teardown_errors: How many fixtures failed after their verdict.
        kept: How many experiments were kept, the baseline not counted.
        signal: The first signal that came.
    """

    broken: pytest.TestReport | None = None
    reason: str = ""
    crashed_baseline: Run | None = None
    infrastructure: bool = False
    teardown_errors: int = 0
    kept: int = 0
    signal: signal.Signals | None = None
