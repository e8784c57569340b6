"""What the user's hooks see of a campaign: a value that changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.settings import Settings


@dataclass(frozen=True, slots=True)
class CampaignView:
    """A campaign as it is at the moment of a hook call.

    Attributes:
        tag: The campaign's tag; its branch is `autoresearch/<tag>`.
        best: The experiment at the branch head; None before the baseline.
        records: Every judged experiment, by number.
        settings: What the user asked for.
    """

    tag: str
    best: Experiment | None
    records: tuple[Experiment, ...]
    settings: Settings


def view_of(ledger: Ledger, settings: Settings) -> CampaignView:
    """The campaign as it is now. Safe on any thread."""
    return CampaignView(ledger.tag, ledger.incumbent, tuple(ledger.records), settings)
