"""How a session went so far, for its exit status and its last words."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

import pytest

from pytest_autoresearch.core.experiment import BASELINE, Status
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
        verdicts: What was recorded, by number.
        judged: The ids of the items whose experiment has a recorded verdict.
        signal: The first signal that came.
    """

    broken: pytest.TestReport | None = None
    reason: str = ""
    crashed_baseline: Run | None = None
    infrastructure: bool = False
    teardown_errors: int = 0
    verdicts: dict[int, Status] = field(default_factory=dict)
    judged: set[str] = field(default_factory=set)
    signal: signal.Signals | None = None

    @property
    def kept(self) -> int:
        """How many experiments were kept, the baseline not counted."""
        return sum(status is Status.KEEP for number, status in self.verdicts.items() if number != BASELINE)
