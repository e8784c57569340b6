"""The failure of a proposal, as reported to its proposer. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pytest_autoresearch.core.run import Crash


class Stage(StrEnum):
    """Where an experiment failed."""

    PROPOSAL = "proposal"  # it could not be applied, or a guard refused it
    PREFLIGHT = "preflight"  # before its clock started
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a proposal goes back to its proposer; `str()` is the text for the proposer.

    Attributes:
        stage: The stage that failed.
        crash: The error.
        log: The end of the run's output; empty without a run.
        near_duplicate: Whether it is only a warning: the proposal is like an earlier one, and is accepted if repeated.
    """

    stage: Stage
    crash: Crash
    log: str = ""
    near_duplicate: bool = False

    def __str__(self) -> str:
        if self.stage is Stage.PROPOSAL:
            return self.crash.message
        return f"in its {self.stage}: {self.crash}\n{self.log}"
