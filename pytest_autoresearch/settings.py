"""Every option and ini key: one table, and the frozen value that it is read into.

Reading checks what can be checked without looking at the repository; a mistake is one sentence. Every pytest run loads
the table, so the rest of the package is imported only where something is read.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pytest

    from pytest_autoresearch.core.artifacts import Artifacts
    from pytest_autoresearch.core.experiment import Direction, Experiment
    from pytest_autoresearch.keeprule.rule import Rule

PROPOSERS = ("auto", "anthropic", "command:COMMAND", "queue", "commits:A..B", "checkout", "search")
_METRIC = re.compile(r"[A-Za-z_][\w./-]{0,99}", re.ASCII)  # what runners.summary reads
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_LIKENESS = 0.85  # names share a long prefix


# ------------------------------------------------------ from text to a value, for argparse and for ini keys alike


def _choice(given: str, known: tuple[str, ...]) -> str:
    if given not in known:
        raise argparse.ArgumentTypeError(f"{given}: choose {', '.join(known[:-1])} or {known[-1]}")
    return given


def _count(least: int, hint: str) -> Callable[[str], int]:
    def parse(given: str) -> int:
        try:
            value = int(given)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{given}: give a whole number, {hint}")
        return value

    return parse


def _number(hint: str, least: float = 0.0) -> Callable[[str], float]:
    """Of a number above `least`."""

    def parse(given: str) -> float:
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not least < value < math.inf:
            raise argparse.ArgumentTypeError(f"{given}: give a number of {hint}")
        return value

    return parse


def _proposer(given: str) -> str:
    """One of the names; a range of commits, or a command, stands behind its own."""
    return given if given.startswith(("commits:", "command:")) else _choice(given, PROPOSERS)


def _rule(given: str) -> str:
    from pytest_autoresearch.keeprule.rule import rule_of

    try:
        return rule_of(given).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _switch(given: str) -> bool:
    if given.casefold() not in _SWITCH:
        raise argparse.ArgumentTypeError(f"{given}: give true or false")
    return _SWITCH[given.casefold()]


class Option(NamedTuple):
    """A command-line option `--autoresearch-NAME`, which is also the ini key `autoresearch_NAME`.

    Attributes:
        default: Its value where it was not given.
        parse: From what was given to its value; raises argparse.ArgumentTypeError.
        choices: All that can be given; empty where `parse` says it.
    """

    name: str
    metavar: str
    help: str
    default: Any = None
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    hidden: bool = False

    @property
    def flag(self) -> str:
        return f"--autoresearch-{self.name}"

    @property
    def key(self) -> str:
        return f"autoresearch_{self.name.replace('-', '_')}"

    @property
    def switch(self) -> bool:
        """Whether it is given without a value."""
        return self.parse is _switch

    def add(self, parser: pytest.Parser, flag: str, text: str) -> None:
        """Let argparse know it by a flag."""
        group = parser.getgroup("autoresearch")
        if self.switch:
            group.addoption(flag, dest=self.key, action="store_true", default=None, help=text)
        else:
            group.addoption(
                flag, dest=self.key, metavar=self.metavar, type=self.parse, choices=self.choices or None, default=None,
                help=text,
            )  # fmt: skip

    def read(self, given: str) -> Any:
        """The value of an ini key."""
        return self.parse(_choice(given, self.choices) if self.choices else given)


OPTIONS = (
    Option("max", "N", "stop after N experiments in this session, the baseline not counted; 0: until stopped (20)",
           20, _count(0, "0 for no limit")),
    Option("total", "N", "stop when the campaign has N experiments, whoever ran them (no limit)",
           None, _count(1, "1 or more")),
    Option("tag", "TAG", "the campaign, whose branch is autoresearch/TAG; one that exists is continued (today's date, "
           "such as nov23, or the campaign whose last experiment is less than 12 hours old)"),
    Option("proposer", "NAME", "where proposals come from: auto, anthropic, command:COMMAND, queue, commits:A..B, "
           "checkout or search (auto: anthropic where a key is set, else search)", "auto", _proposer),
    Option("model", "MODEL", "the model that proposes, for anthropic (claude-fable-5-2)", ""),
    Option("confirm", "RULE", "how sure a keep has to be: off (one run decides), standard, strict, lean, or the number "
           "of confirmations at most (standard)", "standard", _rule),
    Option("racing", "HOW", "end a run early that cannot come to what the keep rule asks, by its loss curve: on, off, "
           "or auto: where the acceptance tests go by the keep rule's margin (auto)",
           "auto", choices=("auto", "on", "off")),
    Option("inconclusive", "N", "make a run again that was disturbed on its GPU, and stop after N of them in a row; "
           "0: every run counts (3)", 3, _count(0, "0 for never")),
    Option("simplify", "", "keep a simpler program that is no worse, too (off)", False, _switch),
    Option("audit", "", "at the end of a session that kept something, run the first and the last program anew, on rows "
           "that no verdict used (off)", False, _switch),
    Option("cost", "USD", "stop before this session's proposals have cost so many US dollars (no limit)",
           None, _number("US dollars, more than 0")),
    Option("repairs", "N", "how often a proposal that was refused, or crashed, goes back to its proposer (3)",
           3, _count(0, "0 for never")),
    Option("agent-seconds", "SECONDS", "an agent's time for one proposal, for command (900)",
           900.0, _number("seconds, more than 0")),
    Option("description", "TEXT", "a prefix for the descriptions of this session's experiments (none)", ""),
    Option("budget", "SECONDS", "training seconds of one run (the profile's, or 300)",
           None, _number("seconds, more than 0")),
    Option("vram", "GB", "memory limit of one run in GB; resident memory on a CPU (the profile's, or none)",
           None, _number("gigabytes, more than 0")),
    Option("hours", "HOURS", "start nothing more after so many hours of this session (no limit)",
           None, _number("hours, more than 0")),
    Option("target", "VALUE", "stop when the metric of the branch is at least as good as this (none)",
           None, _number("the metric's unit", least=-math.inf)),
    Option("sandbox", "POLICY", "auto: the best that this machine has; require: no session without one that holds in "
           "everything; off (auto)", "auto", choices=("auto", "require", "off")),
    Option("discard", "HOW", "how pytest reports a discard: fail, or xfail for dashboards that stay green (fail)",
           "fail", choices=("fail", "xfail")),
    Option("junit-names", "HOW", "what a JUnit test case is called: plain; or verdict, with verdict and metric behind "
           "(plain)", "plain", choices=("plain", "verdict")),
    Option("exit", "POLICY", "exit status 0 when the session did its work: session; only if something was kept: "
           "progress; pytest's own: strict (session)", choices=("session", "progress", "strict")),
    Option("json", "", "one line of JSON for each experiment, too (off)", False, _switch),
    Option("lanes", "N", "experiments at a time (1)", 1, _count(1, "1 or more"), hidden=True),
)  # fmt: skip
FLAGS = frozenset(("--autoresearch", *(option.flag for option in OPTIONS)))


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
        from pytest_autoresearch.core import artifacts

        return artifacts.of(self.experiments_folder, experiment)

    def campaign_artifacts(self, tag: str) -> Artifacts:
        """What a campaign left for people."""
        from pytest_autoresearch.core import artifacts

        return artifacts.campaign(self.experiments_folder, tag)

    @property
    def readable_paths(self) -> tuple[Path, ...]:
        """What training may read beside its tree: files and folders that are there."""
        paths = (self.root / Path(name).expanduser() for name in self.readable)
        return tuple(path for path in paths if path.exists())


def read(root: Path, config_file: Path | None, get: Callable[[str], Any], getini: Callable[[str], Any]) -> Settings:
    """The settings, from functions that return an option's or an ini key's value.

    Raises:
        UserError: A value makes no sense, or an ini key is misspelt.
    """
    from pytest_autoresearch.core.errors import UserError
    from pytest_autoresearch.core.experiment import Direction
    from pytest_autoresearch.keeprule.rule import rule_of

    def ini(key: str, parse: Callable[[str], Any], default: str = "") -> Any:
        given = getini(key) or default
        try:
            return parse(given)
        except argparse.ArgumentTypeError as error:
            raise UserError(f"{key} = {error}") from None

    def value(option: Option) -> Any:
        given = get(option.key)
        if given is None and not option.hidden and getini(option.key):
            return ini(option.key, option.read)
        return option.default if given is None else given

    _check_keys(config_file, getini)
    given = {option.name: value(option) for option in OPTIONS}
    proposer, vram = given["proposer"], given["vram"]
    return Settings(
        root=root,
        config_file=config_file,
        max=given["max"],
        total=given["total"],
        tag=given["tag"],
        proposer=proposer,
        model=given["model"],
        cost_usd=given["cost"],
        rule=rule_of(given["confirm"]),
        racing=given["racing"],
        inconclusive=given["inconclusive"],
        simplify=given["simplify"],
        audit=given["audit"],
        repairs=given["repairs"],
        agent_seconds=given["agent-seconds"],
        json=given["json"],
        description=given["description"],
        budget_seconds=given["budget"],
        memory_limit_mb=None if vram is None else vram * 1024,
        hours=given["hours"],
        target=given["target"],
        sandbox=given["sandbox"],
        discard=given["discard"],
        junit_names=given["junit-names"],
        exit=given["exit"] or ("progress" if proposer == "checkout" else "session"),  # an agent asks what became of it
        lanes=given["lanes"],
        command=ini("autoresearch_command", _words, "python train.py"),
        describe=ini("autoresearch_describe", _words) or None,
        metric=ini("autoresearch_metric", _metric, "val_bpb"),
        direction=Direction(ini("autoresearch_direction", lambda one: _choice(one, tuple(Direction)), "minimize")),
        editable=tuple(getini("autoresearch_editable")) or ("train.py",),
        frozen=tuple(getini("autoresearch_frozen")),
        experiments=getini("autoresearch_experiments") or "experiments",
        readable=tuple(getini("autoresearch_readable")),
        prices=tuple(getini("autoresearch_prices")),
        agent_files=tuple(getini("autoresearch_agent_files")),
        agent_environment=tuple(getini("autoresearch_agent_environment")),
    )


def _metric(name: str) -> str:
    from pytest_autoresearch.core.experiment import Experiment

    if not _METRIC.fullmatch(name):
        raise argparse.ArgumentTypeError(
            f"{name}: no line of output could name that: use letters, digits, '_', '.', '/' and '-', a letter or '_' "
            "first, 100 at most"
        )
    if name in dir(Experiment):
        raise argparse.ArgumentTypeError(f"{name}: an experiment has something else of that name: choose another")
    return name


def _words(given: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(given))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{given!r} cannot be split into words ({error}): check its quotes") from None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one is like, or None."""
    import difflib  # only a mistake needs it

    return next(iter(difflib.get_close_matches(name, list(known), 1, _LIKENESS)), None)


def _check_keys(config_file: Path | None, getini: Callable[[str], Any]) -> None:
    """Meet a misspelt ini key: pytest only warns, when the session is over."""
    from pytest_autoresearch.core.errors import UserError

    if config_file is None:
        return
    known = [*(option.key for option in OPTIONS if not option.hidden), *(key.key for key in INI_KEYS)]
    text = config_file.read_text("utf-8", "replace")
    for key in re.findall(r"^[\"']?(auto\w+)[\"']?\s*[=:]", text, re.MULTILINE):
        meant = nearest(key, known)
        if meant not in (key, None) and not _is_known(key, getini):
            raise UserError(f"{config_file.name}: there is no ini key {key}: did you mean {meant}?")


def _is_known(key: str, getini: Callable[[str], Any]) -> bool:
    """Whether somebody else has an ini key of that name."""
    try:
        getini(key)
    except ValueError:
        return False
    return True


def this_python(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command with `python` as this interpreter: the one on PATH may be another, or missing."""
    return (sys.executable, *command[1:]) if command and command[0] in ("python", "python3") else command
