"""From a pytest configuration to a running campaign: every check comes before anything is touched."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_autoresearch.campaign.campaign import Campaign
from pytest_autoresearch.campaign.checkout import Checkout, Followed
from pytest_autoresearch.core.errors import AutoresearchError, UserError
from pytest_autoresearch.core.experiment import BASELINE, Experiment
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.ledger.current import current
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure.limits import limits_of
from pytest_autoresearch.measure.setup import Equipment, equip
from pytest_autoresearch.proposers.choice import Choice, choose
from pytest_autoresearch.reports.page import PageWriter
from pytest_autoresearch.runners.orphans import sweep
from pytest_autoresearch.session.arenas import use_one_arena
from pytest_autoresearch.session.checks import check_files, unusable
from pytest_autoresearch.session.dry_run import DryRun
from pytest_autoresearch.session.ending import Ending
from pytest_autoresearch.session.footer import Footer
from pytest_autoresearch.session.github import GitHub
from pytest_autoresearch.session.header import goes_by_margin, header
from pytest_autoresearch.session.judge import Judge
from pytest_autoresearch.session.junit import Junit
from pytest_autoresearch.session.live import Live
from pytest_autoresearch.session.loop import Loop
from pytest_autoresearch.session.main_thread import MainThread, UserHooks
from pytest_autoresearch.session.other_plugins import switch_off
from pytest_autoresearch.session.outcome import Outcome
from pytest_autoresearch.session.selection import Checking
from pytest_autoresearch.session.slots import Slots
from pytest_autoresearch.session.terminal import Terminal
from pytest_autoresearch.session.timeouts import too_short
from pytest_autoresearch.session.views import Views
from pytest_autoresearch.settings import Settings, read

_CONTINUED_SECONDS = 12 * 3600
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def begin(config: pytest.Config) -> None:
    """Check everything, join the campaign and register what runs it.

    Raises:
        pytest.UsageError: One sentence on what to type; nothing was touched.
    """
    try:
        _begin(config)
    except AutoresearchError as error:
        raise pytest.UsageError(str(error)) from None
    except OSError as error:  # such as a disk that is full from now on
        raise pytest.UsageError(unusable(error)) from None


def _begin(config: pytest.Config) -> None:
    settings = read(config.rootpath, config.inipath, config.getoption, config.getini)
    ratchet = Ratchet(settings.root)
    from_checkout = settings.proposer == "checkout"
    ratchet.choose(current(ratchet, settings.tag, _CONTINUED_SECONDS) or _today(), may_be_here=from_checkout)
    check_files(settings, ratchet)
    switch_off(config)
    records = ratchet.records()
    looking = ("collectonly", "setuponly", "setupplan", "help", "version", "markers")
    if any(getattr(config.option, name, None) for name in looking):
        config.pluginmanager.register(_unclaimed(settings, records), "autoresearch-slots")
        return
    checkout = Checkout(ratchet, settings.editable)
    notes = checkout.check() if from_checkout and not settings.check else []
    main = MainThread()
    hooks = UserHooks(config, main)
    proposer = choose(settings, hooks.proposes, checkout.edit, lambda: ratchet.texts(settings.editable.__contains__))
    if settings.racing == "auto":
        settings = replace(settings, racing="on" if goes_by_margin(config, settings) else "off")
    equipment = equip(settings, ratchet, begins=not (settings.check or settings.dry_run))
    try:
        _join(config, settings, ratchet, records, equipment, main, hooks, proposer, checkout, notes)
    except BaseException:
        equipment.taken.release()
        raise


def _join(
    config: pytest.Config, settings: Settings, ratchet: Ratchet, records: list[Experiment], equipment: Equipment,
    main: MainThread, hooks: UserHooks, proposer: Choice, checkout: Checkout, notes: list[str],
) -> None:  # fmt: skip
    """Join the campaign with the equipment, or only check that it could."""
    stated = settings.budget_seconds is not None or settings.describe is not None
    if stated and (said := too_short(config, limits_of(settings, equipment.harness).budget_seconds)):
        raise UserError(said)
    use_one_arena()  # before there are threads
    campaign = Campaign(settings, ratchet, records, equipment, hooks, proposer)
    if settings.check:
        campaign.check()
        equipment.taken.release()
        slots = _unclaimed(settings, records)
        config.pluginmanager.register(slots, "autoresearch-slots")
        config.pluginmanager.register(Checking(config, slots), "autoresearch-checking")
        return
    if settings.dry_run:
        campaign.check()
        equipment.taken.release()
        slots = _unclaimed(settings, records)
        first_lines = [*header(config, campaign, proposer.said), *(f"  note:     {note}" for note in notes)]
        config.pluginmanager.register(slots, "autoresearch-slots")
        dry_run = DryRun(config, campaign, slots, first_lines, hooks.proposes)
        config.pluginmanager.register(dry_run, "autoresearch-dry-run")
        return
    campaign.open()
    from_checkout = settings.proposer == "checkout"
    if from_checkout:
        checkout.finish(campaign.ledger.records)
    slots = _claimed(settings, ratchet, campaign.ledger.records)
    config.pluginmanager.register(slots, "autoresearch-slots")
    if swept := sweep():
        campaign.ledger.notices.append(swept)
    follow = checkout.follow if from_checkout else None
    _register(config, campaign, slots, main, header(config, campaign, proposer.said), notes, follow)


def _unclaimed(settings: Settings, records: list[Experiment]) -> Slots:
    """The slots that a session would have now, for a process that runs no experiment."""
    return Slots(settings.experiments_folder, _numbers(records, _next(records), settings.max or 1))


def _claimed(settings: Settings, ratchet: Ratchet, records: list[Experiment]) -> Slots:
    """The slots of a session, with numbers that no other session has."""
    first = ratchet.presence.claim(_next(records), settings.max or 1)
    numbers = _numbers(records, first, settings.max or 1)
    one_more = None if settings.max else lambda: ratchet.presence.claim(first, 1)
    return Slots(settings.experiments_folder, numbers, one_more)


def _next(records: list[Experiment]) -> int:
    return max((record.number for record in records), default=BASELINE) + 1


def _numbers(records: list[Experiment], first: int, count: int) -> list[int]:
    """The numbers of a session: the baseline, if it has no record yet, and the given ones."""
    known = any(record.number == BASELINE for record in records)
    return [*([] if known else [BASELINE]), *range(first, first + count)]


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

    def where() -> str:
        return loop.where.sentence

    views = Views(terminal, Live(campaign, artifacts), junit, _pages(settings, ratchet, campaign, where))

    def announce(judged: Experiment) -> None:
        terminal.announce(judged, follow(judged) if follow else None)

    judge = Judge(campaign, outcome, settings.discard, announce)
    loop = Loop(config, campaign, slots, main, judge, outcome, views)
    github = GitHub(settings.root, ratchet.tag, lambda: campaign.ledger.records, artifacts.folder, terminal.output)
    footer = Footer(config, outcome)
    plugins = {"loop": loop, "terminal": terminal, "footer": footer, "junit": junit, "github": github}
    for known_as, plugin in plugins.items():
        config.pluginmanager.register(plugin, f"autoresearch-{known_as}")
    config.pluginmanager.register(Ending(loop, campaign, outcome, views.page), "autoresearch-ending")


def _pages(settings: Settings, ratchet: Ratchet, campaign: Campaign, where: Callable[[], str]) -> PageWriter:
    def look() -> tuple[list[Experiment], str]:
        audited = campaign.audited()
        return campaign.ledger.records, audit.sentence(audited) if audited else ""

    return PageWriter(settings.root, ratchet.git, settings.artifacts, look, campaign.ledger.notices.append, where)


def _today() -> str:
    """The tag of a campaign that begins today."""
    today = time.localtime()
    return f"{_MONTHS[today.tm_mon - 1]}{today.tm_mday:02d}"
