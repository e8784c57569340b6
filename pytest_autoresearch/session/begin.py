"""From a pytest configuration to a running campaign: every check that comes before anything is touched, in order."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_autoresearch.campaign.campaign import Campaign
from pytest_autoresearch.campaign.checkout import Checkout
from pytest_autoresearch.core.errors import AutoresearchError, UserError
from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.setup import equip
from pytest_autoresearch.proposers.choice import Surroundings, choose
from pytest_autoresearch.reports import summary
from pytest_autoresearch.reports.page import PageWriter
from pytest_autoresearch.runners.agent import AgentRunner
from pytest_autoresearch.runners.orphans import sweep
from pytest_autoresearch.session.github import GitHub
from pytest_autoresearch.session.junit import Junit
from pytest_autoresearch.session.loop import Loop
from pytest_autoresearch.session.slots import BUNDLED, Slots
from pytest_autoresearch.session.terminal import Terminal
from pytest_autoresearch.session.timeouts import timeout_of
from pytest_autoresearch.settings import Settings, read, this_python
from pytest_autoresearch.source.guard import is_editable, is_trusted

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
    _check_files(settings, ratchet)
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
    if from_checkout:
        checkout.check()
    asks_hook = bool(config.hook.pytest_autoresearch_propose.get_hookimpls())
    proposer = choose(settings, asks_hook, checkout.edit)
    if settings.racing == "auto":
        settings = replace(settings, racing="on" if _goes_by_margin(config, settings) else "off")
    equipment = equip(settings, ratchet)
    harness, box = equipment.harness, equipment.sandbox
    loop = Loop(config, slots, settings.lanes, settings.discard)
    runner, agents = equipment.runner(), AgentRunner(box.backend, harness.hidden)
    around = Surroundings(agents, settings.budget_seconds or harness.budget_seconds)
    campaign = Campaign(
        settings, ratchet, records, harness, loop, runner, box.words, lambda: proposer.make(around), agents.close
    )
    campaign.open()
    if from_checkout:
        checkout.finish(campaign.ledger.records)
    if swept := sweep():
        campaign.ledger.notices.append(swept)
    header = _header(config, settings, ratchet, harness, campaign, proposer.said)
    terminal = Terminal(config, header, terse=from_checkout, json=settings.json)
    junit = Junit(config, settings.junit_names)
    pages = _pages(settings, ratchet, campaign)
    loop.begin(campaign, terminal, junit, pages, checkout.follow if from_checkout else None)
    terminal.campaign, terminal.judge = campaign, loop.judge
    runs = settings.experiments_folder / "runs" / ratchet.tag
    github = GitHub(settings.root, ratchet.tag, lambda: campaign.ledger.records, runs)
    for plugin, known_as in ((loop, "loop"), (terminal, "terminal"), (junit, "junit"), (github, "github")):
        config.pluginmanager.register(plugin, f"autoresearch-{known_as}")
    config.pluginmanager.register(Ending(loop, settings.exit, pages), "autoresearch-ending")


class Ending:
    """Decides the exit status, names the page, and gives the signals back when every report is written."""

    def __init__(self, loop: Loop, policy: str, pages: PageWriter) -> None:
        self._loop = loop
        self._policy = policy
        self._pages = pages

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._pages.written is not None and terminalreporter.verbosity >= 0:
            terminalreporter.write_sep("-", f"generated page: {self._pages.written}")

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        result = yield
        session.exitstatus = self._status(session)
        return result

    def _status(self, session: pytest.Session) -> int | pytest.ExitCode:
        judge, given = self._loop.judge, session.exitstatus
        if self._loop.signal is not None:
            return pytest.ExitCode.INTERRUPTED
        if judge.infrastructure or self._loop.campaign.failed:
            return pytest.ExitCode.INTERNAL_ERROR
        if judge.reason:  # the rule is broken, or the baseline did not pass
            return pytest.ExitCode.TESTS_FAILED
        if given not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or self._policy == "strict":
            return given
        if session.shouldfail or judge.teardown_errors:
            return pytest.ExitCode.TESTS_FAILED
        if self._policy == "progress" and not judge.kept:
            return pytest.ExitCode.TESTS_FAILED
        return pytest.ExitCode.OK

    def pytest_unconfigure(self) -> None:
        self._loop.restore_signals()


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


def _check_files(settings: Settings, ratchet: Ratchet) -> None:
    committed = ratchet.committed()
    for pattern in settings.editable:
        if any(map(is_trusted, Path(pattern).parts)) or any(
            Path(pattern).is_relative_to(one) for one in settings.frozen
        ):
            raise UserError(
                f"autoresearch_editable names {pattern}, on which the verdict depends: no proposal may change that, so "
                "take it off the list"
            )
        if any(is_editable(path, (pattern,)) for path in committed):
            continue
        if (settings.root / pattern).exists():
            file = shlex.quote(pattern)
            raise UserError(f"{pattern} is not committed yet: type `git add {file} && git commit -m baseline` first")
        raise UserError(
            f"there is no {pattern}: write and commit one, or name the file that experiments may change in the ini key "
            "autoresearch_editable"
        )
    for frozen in settings.frozen:
        if not any(Path(path).is_relative_to(frozen) for path in committed):
            raise UserError(
                f"there is no {frozen} in the last commit: correct or commit what autoresearch_frozen names"
            )
    if not (settings.root / "program.md").is_file():
        raise UserError(
            "there is no program.md, the charter of the research: one line will do, such as "
            f"`echo 'Lower {settings.metric}.' > program.md`"
        )
    program = this_python(settings.command)[:1]
    if not program or not (shutil.which(program[0]) or (settings.root / program[0]).is_file()):
        raise UserError(
            f"the training command {' '.join(settings.command)!r} starts no program on PATH: "
            "correct the ini key autoresearch_command"
        )
    deciding = _deciding(settings)
    dirty = ratchet.dirty(deciding)
    # What git ignores is in no commit either.
    hidden = [path for path in ratchet.dirty(deciding, ignored=True) if path not in dirty and path.endswith(".py")]
    if named := [*dirty, *hidden][:3]:
        files = " ".join(shlex.quote(path) for path in named)
        raise UserError(
            f"{', '.join(named)} decide{'s' if len(named) == 1 else ''} what is kept and must be committed: type "
            f"`git add {'-f ' if hidden else ''}{files} && git commit -m 'Before the campaign'` first"
        )


def _deciding(settings: Settings) -> list[str]:
    """Everything that decides: the frozen paths, the acceptance rules, the configuration."""
    paths = [*settings.frozen, f":(glob){settings.experiments}/**/*.py", "conftest.py"]
    if settings.config_file is not None and settings.config_file.is_relative_to(settings.root):
        paths.append(str(settings.config_file.relative_to(settings.root)))
    return paths


def _header(
    config: pytest.Config, settings: Settings, ratchet: Ratchet, harness: Harness, campaign: Campaign, proposer: str
) -> list[str]:
    tried = len(campaign.ledger.records)
    state = f"the baseline and {summary.plural(tried - 1, 'experiment')} so far" if tried else "new"
    limit = "until stopped" if settings.max == 0 else summary.plural(settings.max, "experiment")
    if settings.total is not None:
        limit += f", {settings.total} in the campaign"
    lines = [
        f"autoresearch: campaign {ratchet.tag} ({state}), branch autoresearch/{ratchet.tag}",
        f"  device:   {harness.hardware_key or harness.device}"
        + (f", profile {harness.profile}" if harness.profile else ""),
        f"  limits:   {limit}; {summary.limits_line(campaign.limits(timeout_of(config)))}",
        f"  metric:   {settings.metric}, {settings.direction}, "
        + ("scored by the harness" if harness.score else "as the training command reports it"),
        f"  rule:     {_rule(config, settings)}",
        f"  proposer: {proposer}",
        f"  sandbox:  {campaign.setting.sandbox}"
        + ("; a proposal runs with your own rights" if campaign.setting.sandbox.startswith("none") else ""),
        f"  best:     {summary.best_line(campaign.ledger.records)}",
    ]
    edited = [path for path in ratchet.dirty(settings.editable) if Path(path).suffix]
    if edited and settings.proposer != "checkout":
        lines.append(f"  note:     uncommitted changes of {', '.join(edited)} take no part; experiments start from git")
    first = campaign.ledger.baseline
    if (
        first is not None
        and ratchet.here() != ratchet.branch
        and all(
            record.commit != ratchet.start for record in campaign.ledger.records
        )  # which `best --checkout` leads to
        and ratchet.differ(first.commit, ratchet.start, settings.editable)
    ):
        lines.append(
            f"  note:     commits that changed {', '.join(settings.editable)} since this campaign began take no part; "
            "choose another --autoresearch-tag to start from them"
        )
    return lines


def _goes_by_margin(config: pytest.Config, settings: Settings) -> bool:
    """Whether a candidate is kept for what the keep rule asks: then a run that cannot come to it is worth nothing.

    A rule of another kind may want a number that is no better, for the sake of something else.
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
