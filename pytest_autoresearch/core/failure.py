"""What went wrong with a proposal, as its proposer is told. Pure."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """Where an experiment failed."""

    PROPOSAL = "proposal"  # it could not be put into the tree, or a guard refused it
    PREFLIGHT = "preflight"  # before its clock was started
    RUN = "run"
