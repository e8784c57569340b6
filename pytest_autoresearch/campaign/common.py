"""What all experiments of a session share, and the user's hooks that look at a proposal."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_autoresearch.campaign.in_flight import Flights
from pytest_autoresearch.campaign.inbox import Inbox
from pytest_autoresearch.campaign.view import CampaignView, view_of
from pytest_autoresearch.core.experiment import Experiment, Proposal
from pytest_autoresearch.keeprule.replicates import resolution
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.proposers.base import Context, ProposerSession, Terms
from pytest_autoresearch.settings import Settings
from pytest_autoresearch.source.editable import Editable


class Hooks(Protocol):
    """The user's hooks. Each call runs on the main thread, whichever thread asks.

    Attributes:
        proposes: Whether a hook of the user proposes, before the session's proposer is asked.
    """

    @property
    def proposes(self) -> bool: ...

    def propose(self, campaign: CampaignView, context: Context, failure: str) -> Proposal | None: ...

    def guard(self, campaign: CampaignView, context: Context, proposal: Proposal) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Common:
    """What all experiments of a session share.

    Attributes:
        settings: What the user asked for.
        ratchet: The repository and its campaign.
        harness: The harness's description of itself.
        ledger: Every judged experiment.
        flights: The experiments under way.
        like: An experiment with the session's tag, limits, metric and setting, from which the others are made.
        hooks: The user's hooks.
    """

    settings: Settings
    ratchet: Ratchet
    harness: Harness
    ledger: Ledger
    flights: Flights
    like: Experiment
    hooks: Hooks

    @property
    def view(self) -> CampaignView:
        """What the hooks see of the campaign now."""
        return view_of(self.ledger, self.settings)

    def context(
        self, number: int, folder: Path, program: str, session: ProposerSession, lanes: int, notes: str
    ) -> Context:  # fmt: skip
        """What a proposer is shown now.

        Args:
            folder: The tree that it edits.
            program: The text of `program.md`.
            lanes: How many experiments run at the same time.
            notes: Notes of earlier proposals.
        """
        settings, harness, ledger = self.settings, self.harness, self.ledger
        terms = Terms(
            settings.metric, settings.direction, self.like.limits, shlex.join(settings.command),
            harness.hardware_key or harness.device, harness.interface, harness.score is not None, lanes,
        )  # fmt: skip
        return Context(
            number=number,
            folder=folder,
            editable=settings.editable,
            program=program,
            records=tuple(ledger.records),
            running=tuple((other.number, other.proposal) for other in self.flights if other.proposal),
            root=settings.root,
            experiments=settings.experiments_folder,
            terms=terms,
            notes=notes,
            session=session,
            messages=Inbox(settings.campaign_artifacts(ledger.tag).inbox).waiting(ledger.records),
            resolution=resolution(ledger.baseline, harness.prior(settings.metric)),
        )

    def from_top(self, paths: Iterable[str]) -> tuple[str, ...]:
        """The paths, relative to the repository's top."""
        return tuple((self.ratchet.prefix / path).as_posix() for path in paths)

    @property
    def editable(self) -> Editable:
        """The files that a proposal may change, relative to the repository's top."""
        return self.settings.editable.below(self.ratchet.prefix)
