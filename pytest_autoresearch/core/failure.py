"""What went wrong with a proposal, as its proposer is told. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pytest_autoresearch.core.run import Crash


class Stage(StrEnum):
    """Where an experiment failed."""

    PROPOSAL = "proposal"  # it could not be put into the tree, or a guard refused it
    PREFLIGHT = "preflight"  # before its clock was started
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a proposal goes back to its proposer; its text is what the proposer is told.

    Attributes:
        stage: Where it failed.
        crash: What was wrong.
        log: The end of what the run said; empty where there was no run.
        near_duplicate: Whether nothing failed: the proposal is like an earlier one, and is taken if made once more.
    """

    stage: Stage
    crash: Crash
    log: str = ""
    near_duplicate: bool = False

    def __str__(self) -> str:
        if self.stage is Stage.PROPOSAL:
            return self.crash.message
        return f"in its {self.stage}: {self.crash}\n{self.log}"
