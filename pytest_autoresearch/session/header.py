"""The lines that a session begins with, and which acceptance rule it has."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pytest_autoresearch.campaign.campaign import Campaign
from pytest_autoresearch.core import conditions
from pytest_autoresearch.keeprule.noise import DETERMINISTIC
from pytest_autoresearch.keeprule.replicates import is_exact
from pytest_autoresearch.measure.conditions import package_changes
from pytest_autoresearch.reports import summary
from pytest_autoresearch.reports.position import rough
from pytest_autoresearch.session.other_plugins import first_failure
from pytest_autoresearch.session.slots import BUNDLED
from pytest_autoresearch.session.timeouts import timeout_of, too_short
from pytest_autoresearch.settings import Settings


def header(config: pytest.Config, campaign: Campaign, proposer: str) -> list[str]:
    """The lines that a session begins with.

    Args:
        proposer: What the header says about the proposer.
    """
    settings, ratchet, harness = campaign.settings, campaign.ratchet, campaign.harness
    tried, first = len(campaign.ledger.records), campaign.ledger.baseline
    state = f"the baseline and {summary.plural(tried - 1, 'experiment')} so far" if tried else "new"
    limit = "until stopped" if settings.max == 0 else summary.plural(settings.max, "experiment")
    if settings.total is not None:
        limit += f", {settings.total} in the campaign"
    return [
        f"autoresearch: campaign {ratchet.tag} ({state}), branch autoresearch/{ratchet.tag}",
        f"  device:   {harness.hardware_key or harness.device}"
        + (f", driver {campaign.setting.driver}" if campaign.setting.driver else "")
        + (f", profile {harness.profile}" if harness.profile else ""),
        *_lanes(campaign),
        f"  limits:   {limit}; {summary.limits_line(campaign.limits(timeout_of(config)))}",
        *_time(campaign),
        f"  metric:   {settings.metric}, {settings.direction}, "
        + ("scored by the harness" if harness.score else "as the training command reports it")
        + (f"; {DETERMINISTIC}" if first is not None and is_exact(first) else ""),
        *_data(harness.visible_documents),
        f"  rule:     {_rule(config, settings)}",
        *([f"  batch:    up to {settings.batch} proposals in one design of runs"] if settings.batch else []),
        f"  proposer: {proposer}",
        f"  sandbox:  {campaign.setting.sandbox}"
        + ("; a proposal runs with your own rights" if not campaign.setting.confined else ""),
        f"  best:     {summary.best_line(campaign.ledger.records)}",
        *([f"  note:     {said}"] if (said := too_short(config, campaign.budget)) else []),
        *_others(campaign),
        *_notes(config, campaign),
        *_changes(campaign),
    ]


def _time(campaign: Campaign) -> list[str]:
    """What runs first, and how long the session takes; nothing where neither is known."""
    pace, settings = campaign.pace, campaign.settings
    seconds = pace.now(0, settings.max or None).seconds_left
    whole = "" if seconds is None else rough(seconds)
    if campaign.ledger.baseline is None and pace.baseline_runs > 1:
        whole = f"{pace.baseline_runs} runs of the baseline first, to measure the noise" + (
            whole and f"; {whole} in all"
        )
    return [f"  time:     {whole}"] if whole else []


def _data(left_out: int | None) -> list[str]:
    """How many validation documents the harness has left out."""
    if left_out is None:
        return []
    return [
        f"  data:     {summary.plural(left_out, 'validation document')} left out, visible to training on this machine"
    ]


def _lanes(campaign: Campaign) -> list[str]:
    """Which devices are lanes and which are not; nothing for one lane that has what every program would have."""
    lanes = campaign.lanes
    left = [f"  note:     {said}, so it is no lane" for said in campaign.not_taken]
    if campaign.where:
        return [f"  lanes:    {campaign.where}", *left]
    if len(lanes) == 1:
        return left
    if lanes[0].gpus:
        return [f"  lanes:    {', '.join(f'{number} on {lane}' for number, lane in enumerate(lanes))}", *left]
    if not lanes[0].cores:
        return left
    cores = summary.plural(len(lanes[0].cores), "core")
    return [
        f"  lanes:    {len(lanes)} with {cores} each; they share memory and caches, so results vary more than on one"
    ]


def _others(campaign: Campaign) -> list[str]:
    """The earlier sessions that work on the same campaign, in other checkouts of the repository."""
    return [
        f"  note:     the session with pid {other.pid} in {other.folder} has worked on this campaign since "
        f"{time.strftime('%H:%M', time.localtime(other.began))}; its numbers and programs are not tried again here"
        for other in campaign.ratchet.presence.earlier
    ]


def _notes(config: pytest.Config, campaign: Campaign) -> list[str]:
    """What ends the session early, and what it ignores in the user's checkout."""
    settings, ratchet, first = campaign.settings, campaign.ratchet, campaign.ledger.baseline
    notes = []
    if settings.discard == "fail" and (early := first_failure(config)):
        notes.append(f"  note:     {early}")
    edited = ratchet.dirty(settings.editable.pathspecs())
    if edited and settings.proposer != "checkout":
        notes.append(f"  note:     uncommitted changes in {', '.join(edited)} are ignored; experiments start from git")
    if first is None or ratchet.here() == ratchet.branch or settings.proposer == "checkout":
        return notes
    # `autoresearch best --checkout` leads to a recorded commit, which is no change of the user's.
    recorded = any(record.commit == ratchet.start for record in campaign.ledger.records)
    if not recorded and ratchet.differ(first.commit, ratchet.start, settings.editable.pathspecs()):
        notes.append(
            f"  note:     commits that changed {', '.join(settings.editable)} since this campaign began are ignored; "
            "choose another --autoresearch-tag to start from them"
        )
    return notes


def _changes(campaign: Campaign) -> list[str]:
    """What changed since the campaign began, although its results are still compared."""
    first = campaign.ledger.baseline
    if first is None:
        return []
    artifacts = campaign.settings.campaign_artifacts(campaign.ratchet.tag)
    notes = []
    for change in conditions.reported(first.setting, campaign.setting):
        names = package_changes(artifacts, first.setting) if change.what == "packages" else ""
        said = names or f"{change.then} -> {change.now}"
        notes.append(f"  note:     {change.what} changed since this campaign began, which may change results: {said}")
    return notes


def goes_by_margin(config: pytest.Config, settings: Settings) -> bool:
    """Whether the acceptance rule asks for the keep rule's margin: then a run that cannot reach it may be ended early.

    Another acceptance rule may keep a worse metric, for the sake of something else.
    """
    if config.hook.pytest_autoresearch_verdict.get_hookimpls():
        return False
    rules = [path for path in settings.experiments_folder.rglob("*.py") if "runs" not in path.parts]
    written = [text for path in rules if "experiment" in (text := path.read_text("utf-8", "replace"))]
    return _is_bundled(config) or any(".margin" in text for text in written)


def _is_bundled(config: pytest.Config) -> bool:
    return any(Path(argument.partition("::")[0]).resolve() == BUNDLED.resolve() for argument in config.args)


def _rule(config: pytest.Config, settings: Settings) -> str:
    if _is_bundled(config):
        return f"built in: within budget and memory, and {settings.metric} better than the best"
    return f"the tests in {settings.experiments}/"
