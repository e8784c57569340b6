"""Every option and ini key: one table, and the frozen value that it is read into.

Reading checks what can be checked without looking at the repository; a mistake is one sentence.
"""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pytest_autoresearch.core import artifacts
from pytest_autoresearch.core.artifacts import Artifacts
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Direction, Experiment
from pytest_autoresearch.keeprule.rule import Rule, rule_of

RACING = ("auto", "on", "off")
SANDBOXES = ("auto", "require", "off")
PROPOSERS = ("auto", "anthropic", "command:COMMAND", "queue", "commits:A..B", "checkout", "search")
REPAIRS = 3
AGENT_SECONDS = 900.0
INCONCLUSIVE = 3
_METRIC = re.compile(r"[A-Za-z_][\w./-]{0,99}", re.ASCII)  # what runners.summary reads


class Option(NamedTuple):
    """A command-line option `--autoresearch-NAME`, which is also the ini key `autoresearch_NAME`."""

    name: str
    metavar: str
    help: str
    hidden: bool = False
    switch: bool = False

    @property
    def flag(self) -> str:
        return f"--autoresearch-{self.name}"

    @property
    def key(self) -> str:
        return f"autoresearch_{self.name.replace('-', '_')}"


OPTIONS = (
    Option("max", "N", "stop after N experiments in this session, the baseline not counted; 0: until stopped (20)"),
    Option("total", "N", "stop when the campaign has N experiments, whoever ran them (no limit)"),
    Option("tag", "TAG", "the campaign, whose branch is autoresearch/TAG; one that exists is continued (today's date, "
           "such as nov23, or the campaign whose last experiment is less than 12 hours old)"),
    Option("proposer", "NAME", "where proposals come from: auto, anthropic, command:COMMAND, queue, commits:A..B, "
           "checkout or search (auto: anthropic where a key is set, else search)"),
    Option("model", "MODEL", "the model that proposes, for anthropic (claude-fable-5-2)"),
    Option("confirm", "RULE", "how sure a keep has to be: off (one run decides), standard, strict, lean, or the number "
           "of confirmations at most (standard)"),
    Option("racing", "HOW", "end a run early that cannot come to what the keep rule asks, by its loss curve: on, off, "
           "or auto: where the acceptance tests go by the keep rule's margin (auto)"),
    Option("inconclusive", "N", "make a run again that was disturbed on its GPU, and stop after N of them in a row; "
           "0: every run counts (3)"),
    Option("simplify", "", "keep a simpler program that is no worse, too (off)", switch=True),
    Option("audit", "", "at the end of a session that kept something, run the first and the last program anew, on rows "
           "that no verdict used (off)", switch=True),
    Option("cost", "USD", "stop before this session's proposals have cost so many US dollars (no limit)"),
    Option("repairs", "N", "how often a proposal that was refused, or crashed, goes back to its proposer (3)"),
    Option("agent-seconds", "SECONDS", "an agent's time for one proposal, for command (900)"),
    Option("description", "TEXT", "a prefix for the descriptions of this session's experiments (none)"),
    Option("budget", "SECONDS", "training seconds of one run (the profile's, or 300)"),
    Option("vram", "GB", "memory limit of one run in GB; resident memory on a CPU (the profile's, or none)"),
    Option("hours", "HOURS", "start nothing more after so many hours of this session (no limit)"),
    Option("target", "VALUE", "stop when the metric of the branch is at least as good as this (none)"),
    Option("sandbox", "POLICY", "auto: the best that this machine has; require: no session without one that holds in "
           "everything; off (auto)"),
    Option("discard", "HOW", "how pytest reports a discard: fail, or xfail for dashboards that stay green (fail)"),
    Option("junit-names", "HOW", "what a JUnit test case is called: plain; or verdict, with verdict and metric behind "
           "(plain)"),
    Option("exit", "POLICY", "exit status 0 when the session did its work: session; only if something was kept: "
           "progress; pytest's own: strict (session)"),
    Option("json", "", "one line of JSON for each experiment, too (off)", switch=True),
    Option("lanes", "N", "experiments at a time (1)", hidden=True),
)  # fmt: skip


class IniKey(NamedTuple):
    """A setting of the repository, which has no option."""

    key: str
    type: str
    help: str


INI_KEYS = (
    IniKey("autoresearch_command", "string", "the training command (python train.py)"),
    IniKey("autoresearch_describe", "string", "a trusted command that prints the harness's description as JSON (none)"),
    IniKey("autoresearch_metric", "string", "the name of the metric (val_bpb)"),
    IniKey("autoresearch_direction", "string", "which way the metric improves: minimize or maximize (minimize)"),
    IniKey("autoresearch_editable", "args", "the files that a proposal may change, globs allowed (train.py)"),
    IniKey(
        "autoresearch_frozen", "args", "files and folders that must be committed, and on which results depend (none)"
    ),
    IniKey("autoresearch_experiments", "string", "the folder of acceptance rules (experiments)"),
    IniKey("autoresearch_readable", "args", "untracked files and folders that training needs (none)"),
    IniKey(
        "autoresearch_prices",
        "args",
        "MODEL=INPUT/OUTPUT or MODEL=INPUT/OUTPUT/CACHE-READ, in US dollars for a "
        "million tokens (those of the models that are known)",
    ),
    IniKey("autoresearch_agent_files", "args", "files and folders that an agent may read and write (none)"),
    IniKey(
        "autoresearch_agent_environment",
        "args",
        "variables that an agent is given, globs allowed, beside those of the agents that are known (none)",
    ),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for. The fields are the options and ini keys; None is "not given"."""

    root: Path
    config_file: Path | None
    max: int
    total: int | None
    tag: str | None
    proposer: str
    model: str
    cost_usd: float | None
    rule: Rule
    racing: str
    inconclusive: int
    simplify: bool
    audit: bool
    repairs: int
    agent_seconds: float
    json: bool
    description: str
    budget_seconds: float | None
    memory_limit_mb: float | None
    hours: float | None
    target: float | None
    sandbox: str
    discard: str
    junit_names: str
    exit: str
    lanes: int
    command: tuple[str, ...]
    describe: tuple[str, ...] | None
    metric: str
    direction: Direction
    editable: tuple[str, ...]
    frozen: tuple[str, ...]
    experiments: str
    readable: tuple[str, ...]
    prices: tuple[str, ...]
    agent_files: tuple[str, ...]
    agent_environment: tuple[str, ...]

    @property
    def experiments_folder(self) -> Path:
        return self.root / self.experiments

    def artifacts(self, experiment: Experiment) -> Path:
        """The folder of what an experiment left for people: logs, patches. It may be gone."""
        return artifacts.of(self.experiments_folder, experiment)

    def campaign_artifacts(self, tag: str) -> Artifacts:
        """What a campaign left for people."""
        return artifacts.campaign(self.experiments_folder, tag)

    @property
    def readable_paths(self) -> tuple[Path, ...]:
        """What training may read beside its tree: files and folders that are there."""
        paths = (self.root / Path(name).expanduser() for name in self.readable)
        return tuple(path for path in paths if path.exists())


def read(root: Path, config_file: Path | None, get: Callable[[str], Any], getini: Callable[[str], Any]) -> Settings:
    """The settings, from functions that return an option's or an ini key's value.

    Raises:
        UserError: A value makes no sense.
    """

    def text(name: str) -> str | None:
        given = get(f"autoresearch_{name}")
        return given if given is not None else getini(f"autoresearch_{name}") or None

    repairs, doubted = text("repairs"), text("inconclusive")

    def switch(name: str) -> bool:
        return bool(text(name)) and str(text(name)).casefold() in ("1", "true", "yes", "on")

    proposer = _proposer(text("proposer") or "auto")
    usual_exit = "progress" if proposer == "checkout" else "session"  # whoever types it asks what became of it
    vram = _number("vram", text("vram"), "gigabytes, more than 0")
    return Settings(
        root=root,
        config_file=config_file,
        max=_count("max", text("max"), 0, "0 for no limit") if text("max") is not None else 20,
        total=_count("total", text("total"), 1, "1 or more") if text("total") is not None else None,
        tag=text("tag"),
        proposer=proposer,
        model=text("model") or "",
        cost_usd=_number("cost", text("cost"), "US dollars, more than 0"),
        rule=_rule(text("confirm") or "standard"),
        racing=_choice("racing", text("racing") or "auto", RACING),
        inconclusive=INCONCLUSIVE if doubted is None else _count("inconclusive", doubted, 0, "0 for never"),
        repairs=REPAIRS if repairs is None else _count("repairs", repairs, 0, "0 for never"),
        agent_seconds=_number("agent-seconds", text("agent_seconds"), "seconds, more than 0") or AGENT_SECONDS,
        simplify=switch("simplify"),
        audit=switch("audit"),
        json=switch("json"),
        description=text("description") or "",
        budget_seconds=_number("budget", text("budget"), "seconds, more than 0"),
        memory_limit_mb=None if vram is None else vram * 1024,
        hours=_number("hours", text("hours"), "hours, more than 0"),
        target=_number("target", text("target"), "the metric's unit", least=-math.inf),
        sandbox=_choice("sandbox", text("sandbox") or "auto", SANDBOXES),
        discard=_choice("discard", text("discard") or "fail", ("fail", "xfail")),
        junit_names=_choice("junit-names", text("junit_names") or "plain", ("plain", "verdict")),
        exit=_choice("exit", text("exit") or usual_exit, ("session", "progress", "strict")),
        lanes=_count("lanes", get("autoresearch_lanes") or "1", 1, "1 or more"),
        command=_command(getini("autoresearch_command") or "python train.py", "autoresearch_command"),
        describe=_command(getini("autoresearch_describe"), "autoresearch_describe") or None,
        metric=_metric(getini("autoresearch_metric") or "val_bpb"),
        direction=Direction(
            _choice("direction", getini("autoresearch_direction") or "minimize", tuple(Direction), "autoresearch_")
        ),
        editable=tuple(getini("autoresearch_editable")) or ("train.py",),
        frozen=tuple(getini("autoresearch_frozen")),
        experiments=getini("autoresearch_experiments") or "experiments",
        readable=tuple(getini("autoresearch_readable")),
        prices=tuple(getini("autoresearch_prices")),
        agent_files=tuple(getini("autoresearch_agent_files")),
        agent_environment=tuple(getini("autoresearch_agent_environment")),
    )


def _metric(name: str) -> str:
    if not _METRIC.fullmatch(name):
        raise UserError(
            f"autoresearch_metric = {name}: no line of output could name that: use letters, digits, '_', '.', '/' and "
            "'-', a letter or '_' first, 100 at most"
        )
    if name in dir(Experiment):
        raise UserError(f"autoresearch_metric = {name}: an experiment has something else of that name: choose another")
    return name


def _flag(name: str) -> str:
    return "--max" if name == "max" else f"--autoresearch-{name}"


def _count(name: str, given: str | None, least: int, hint: str) -> int:
    try:
        value = int(given or "")
    except ValueError:
        value = least - 1
    if value < least:
        raise UserError(f"{_flag(name)} {given}: give a whole number, {hint}")
    return value


def _number(name: str, given: str | None, hint: str, least: float = 0.0) -> float | None:
    """The number above `least` that was given."""
    if given is None:
        return None
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not least < value < math.inf:
        raise UserError(f"{_flag(name)} {given}: give a number of {hint}")
    return value


def _choice(name: str, given: str, known: tuple[str, ...], prefix: str = "--autoresearch-") -> str:
    if given not in known:
        raise UserError(f"{prefix}{name} {given}: choose {', '.join(known[:-1])} or {known[-1]}")
    return given


def _proposer(given: str) -> str:
    """One of the names; a range of commits, or a command, stands behind its own."""
    return given if given.startswith(("commits:", "command:")) else _choice("proposer", given, PROPOSERS)


def _rule(given: str) -> Rule:
    try:
        return rule_of(given)
    except ValueError as error:
        raise UserError(f"--autoresearch-confirm {given}: {error}") from None


def _command(given: str, key: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(given))
    except ValueError as error:
        raise UserError(f"{key} = {given!r} cannot be split into words ({error}): check its quotes") from None


def this_python(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command with `python` as this interpreter: the one on PATH may be another, or missing."""
    return (sys.executable, *command[1:]) if command and command[0] in ("python", "python3") else command
