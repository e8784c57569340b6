"""From a pytest configuration to a running campaign: every check comes before anything is touched."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_autoresearch.campaign.campaign import Campaign
from pytest_autoresearch.campaign.checkout import Checkout, Followed
from pytest_autoresearch.core.errors import AutoresearchError
from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure.setup import equip
from pytest_autoresearch.proposers.choice import choose
from pytest_autoresearch.reports.page import PageWriter
from pytest_autoresearch.runners.orphans import sweep
from pytest_autoresearch.session.checks import check_files
from pytest_autoresearch.session.ending import Ending
from pytest_autoresearch.session.github import GitHub
from pytest_autoresearch.session.header import goes_by_margin, header
from pytest_autoresearch.session.judge import Judge
from pytest_autoresearch.session.junit import Junit
from pytest_autoresearch.session.live import Live
from pytest_autoresearch.session.loop import Loop
from pytest_autoresearch.session.main_thread import MainThread, UserHooks
from pytest_autoresearch.session.outcome import Outcome
from pytest_autoresearch.session.slots import Slots
from pytest_autoresearch.session.terminal import Terminal
from pytest_autoresearch.session.views import Views
from pytest_autoresearch.settings import Settings, read

_CONTINUED_SECONDS = 12 * 3600
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NUMBERS_RECUR = ("lfplugin", "nfplugin", "stepwiseplugin", "lfplugin-collwrapper")


def begin(config: pytest.Config) -> None:
    """Check everything, join the campaign and register what runs it.

    Raises:
        pytest.UsageError: One sentence on what to type; nothing was touched.
    """
    try:
        _begin(config)
    except AutoresearchError as error:
        raise pytest.UsageError(str(error)) from None


def _begin(config: pytest.Config) -> None:
    settings = read(config.rootpath, config.inipath, config.getoption, config.getini)
    ratchet = Ratchet(settings.root)
    from_checkout = settings.proposer == "checkout"
    ratchet.choose(
        settings.tag or (_tag_here(ratchet) if from_checkout else "") or _tag(ratchet), may_be_here=from_checkout
    )
    check_files(settings, ratchet)
    for name in _NUMBERS_RECUR:
        if (plugin := config.pluginmanager.get_plugin(name)) is not None:
            config.pluginmanager.unregister(plugin)
    records = ratchet.records()
    first = max((record.number for record in records), default=-1) + 1
    slots = Slots(settings.experiments_folder, first, settings.max)
    config.pluginmanager.register(slots, "autoresearch-slots")
    looking = ("collectonly", "setuponly", "setupplan", "help", "version", "markers")
    if any(getattr(config.option, name, None) for name in looking):
        return
    checkout = Checkout(ratchet, settings.editable)
    notes = checkout.check() if from_checkout else []
    main = MainThread()
    hooks = UserHooks(config, main)
    proposer = choose(settings, hooks.proposes, checkout.edit)
    if settings.racing == "auto":
        settings = replace(settings, racing="on" if goes_by_margin(config, settings) else "off")
    equipment = equip(settings, ratchet)
    campaign = Campaign(settings, ratchet, records, equipment, hooks, proposer)
    campaign.open()
    if from_checkout:
        checkout.finish(campaign.ledger.records)
    if swept := sweep():
        campaign.ledger.notices.append(swept)
    follow = checkout.follow if from_checkout else None
    _register(config, campaign, slots, main, header(config, campaign, proposer.said), notes, follow)


def _register(
    config: pytest.Config, campaign: Campaign, slots: Slots, main: MainThread, first_lines: list[str],
    notes: list[str], follow: Callable[[Experiment], Followed] | None,
) -> None:  # fmt: skip
    """Register the plugins that run the campaign and show it.

    Args:
        notes: What the author of the checkout's edit should know first.
        follow: Brings the user's checkout along after a verdict; None if the session only reads it.
    """
    settings, ratchet, outcome = campaign.settings, campaign.ratchet, Outcome()
    terminal = Terminal(config, campaign, first_lines, notes, outcome)
    junit = Junit(config, settings.junit_names)
    artifacts = settings.campaign_artifacts(ratchet.tag)
    views = Views(terminal, Live(campaign, artifacts), junit, _pages(settings, ratchet, campaign))

    def announce(judged: Experiment) -> None:
        terminal.announce(judged, follow(judged) if follow else None)

    judge = Judge(campaign, outcome, settings.discard, announce)
    loop = Loop(config, campaign, slots, main, judge, outcome, views)
    github = GitHub(settings.root, ratchet.tag, lambda: campaign.ledger.records, artifacts.folder)
    for plugin, known_as in ((loop, "loop"), (terminal, "terminal"), (junit, "junit"), (github, "github")):
        config.pluginmanager.register(plugin, f"autoresearch-{known_as}")
    config.pluginmanager.register(Ending(loop, campaign, outcome, views.page), "autoresearch-ending")


def _pages(settings: Settings, ratchet: Ratchet, campaign: Campaign) -> PageWriter:
    def look() -> tuple[list[Experiment], str]:
        audited = campaign.audited()
        return campaign.ledger.records, audit.sentence(audited) if audited else ""

    return PageWriter(settings.root, ratchet.git, settings.artifacts, look, campaign.ledger.notices.append)


def _tag(ratchet: Ratchet) -> str:
    """The campaign that was worked on last, if that was a short time ago; else today's."""
    now = time.time()
    recent = {tag: when for tag, when in ratchet.campaigns().items() if now - when < _CONTINUED_SECONDS}
    if recent:
        return max(recent, key=lambda tag: recent[tag])
    today = time.localtime(now)
    return f"{_MONTHS[today.tm_mon - 1]}{today.tm_mday:02d}"


def _tag_here(ratchet: Ratchet) -> str:
    """The campaign whose branch is checked out here; empty where it is none's."""
    kind, _, tag = ratchet.here().removeprefix("refs/heads/").partition("/")
    return tag if kind == "autoresearch" and tag in ratchet.campaigns() else ""
