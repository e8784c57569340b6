"""What a user's hooks are shown of a campaign: values that cannot change it."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.settings import Settings


@dataclass(frozen=True, slots=True)
class CampaignView:
    """The campaign at the moment of the call.

    Attributes:
        tag: Its name; its branch is `autoresearch/TAG`.
        best: The experiment whose commit is the head of the branch; None before the baseline.
        records: Every judged experiment, by number.
        settings: What the user asked for.
    """

    tag: str
    best: Experiment | None
    records: tuple[Experiment, ...]
    settings: Settings
