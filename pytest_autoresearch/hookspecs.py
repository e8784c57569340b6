"""The hooks that users may implement in a conftest or a plugin. All are called on the main thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_autoresearch.campaign.view import CampaignView
    from pytest_autoresearch.core.experiment import Experiment, Proposal, Verdict
    from pytest_autoresearch.proposers.base import Context


@pytest.hookspec(firstresult=True)
def pytest_autoresearch_propose(campaign: CampaignView, context: Context, failure: str) -> Proposal | None:
    """Edit the files in `context.folder` and describe the edit; return None to leave it to the proposer.

    `failure` says why the previous edit was refused; empty at first.
    """


@pytest.hookspec(firstresult=True)
def pytest_autoresearch_guard(campaign: CampaignView, context: Context, proposal: Proposal) -> str | None:
    """Check the edit in `context.folder` before it is committed; return why it is refused, or None."""


@pytest.hookspec(firstresult=True)
def pytest_autoresearch_verdict(campaign: CampaignView, experiment: Experiment) -> Verdict | None:
    """Decide an experiment that did not crash; return None to leave it to the assertions."""


@pytest.hookspec
def pytest_autoresearch_record(campaign: CampaignView, experiment: Experiment) -> None:
    """Called once for every experiment after it is recorded; use it for trackers.

    An exception is reported at the end of the session and has no other effect.
    """
