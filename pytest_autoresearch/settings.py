"""The table of options and ini keys, and the frozen `Settings` with their values.

Reading checks everything that needs no look at the repository; a mistake is reported in one sentence. Every pytest run
imports this module, so functions import the rest of the package only when they need it.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pytest_autoresearch.core.option_values import choice, count, lanes, number, resources, size, switch, words

if TYPE_CHECKING:
    import pytest

    from pytest_autoresearch.core.artifacts import Artifacts
    from pytest_autoresearch.core.experiment import Direction, Experiment
    from pytest_autoresearch.keeprule.rule import Rule
    from pytest_autoresearch.source.editable import Editable
    from pytest_autoresearch.source.stated_ranges import Range

PROPOSERS = (
    *("auto", "anthropic", "command:COMMAND", "queue", "commits:A..B", "checkout", "search", "search:cmaes"),
    "mix:NAME=SHARE,NAME=SHARE",
)
_ALONE = ("auto", "checkout")
LOCAL, RAY = "local", "ray"
AUTO: Literal["auto"] = "auto"  # of lanes: every idle GPU
Lanes = int | Literal["auto"]
_METRIC, _METRIC_BYTES = re.compile(r"[^\W\d][\w./@%+-]*"), 100  # what runners.summary reads


def _proposer(given: str) -> str:
    """A proposer's name; `commits:` and `command:` are followed by a value, `mix:` by names and shares."""
    if given.startswith("mix:"):
        from pytest_autoresearch.core import mixture

        for part in mixture.parts(given):
            if _proposer(part.proposer) in _ALONE:
                raise argparse.ArgumentTypeError(f"{given}: {part.proposer} works only alone: leave it out of the mix")
        return given
    return given if given.startswith(("commits:", "command:")) else choice(given, PROPOSERS)


def _rule(given: str) -> str:
    from pytest_autoresearch.keeprule.rule import rule_of

    try:
        return rule_of(given).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _batch(given: str) -> int:
    """The most proposals of a batch; 0 for none."""
    from pytest_autoresearch.keeprule.designs import LEAST, MOST, USUAL

    if given in ("off", "0"):
        return 0
    if given == "auto":
        return USUAL
    if given.isascii() and given.isdecimal() and LEAST <= int(given) <= MOST:
        return int(given)
    raise argparse.ArgumentTypeError(f"{given!r} is not a number from {LEAST} to {MOST}, auto or off")


class Option(NamedTuple):
    """A command-line option `--autoresearch-NAME`, which is also the ini key `autoresearch_NAME`.

    Attributes:
        default: The value if the option is not given.
        parse: Converts the given text; raises argparse.ArgumentTypeError.
        choices: The allowed texts; empty if `parse` checks them.
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
        """Whether the option takes no value."""
        return self.parse is switch

    def add(self, parser: pytest.Parser, flag: str, text: str) -> None:
        """Add the option to argparse under a flag."""
        group = parser.getgroup("autoresearch")
        if self.switch:
            group.addoption(flag, dest=self.key, action="store_true", default=None, help=text)
        else:
            group.addoption(
                flag, dest=self.key, metavar=self.metavar, type=self.parse, choices=self.choices or None, default=None,
                help=text,
            )  # fmt: skip

    def read(self, given: str) -> Any:
        """Parse the text of the ini key."""
        return self.parse(choice(given, self.choices) if self.choices else given)


OPTIONS = (
    Option("max", "N", "stop after N experiments in this session, not counting the baseline; 0: until stopped (20)",
           20, count(0, "0 for no limit")),
    Option("total", "N", "stop when the campaign has N experiments, from all sessions (no limit)",
           None, count(1, "1 or more")),
    Option("tag", "TAG", "the campaign; its branch is autoresearch/TAG; an existing campaign is continued (the one "
           "whose branch is checked out, else the one of the last 12 hours, else today's date, such as nov23)"),
    Option("proposer", "NAME", "where proposals come from: auto, anthropic, command:COMMAND, queue, commits:A..B, "
           "checkout, search, search:cmaes or mix:NAME=SHARE,NAME=SHARE (auto: anthropic if a key is set, else search)",
           "auto", _proposer),
    Option("model", "MODEL", "the model that proposes, for anthropic (claude-fable-5-2)", ""),
    Option("confirm", "RULE", "the keep rule: off (one run decides), standard, strict, lean, or the largest number of "
           "confirmations (standard)", "standard", _rule),
    Option("batch", "M", "measure up to M proposals together, in a design of M + 1 runs that tells their effects apart "
           "(4 to 23), or auto: 15; off: one at a time (off)", 0, _batch),
    Option("racing", "HOW", "stop a run early if its loss curve shows that it cannot pass the keep rule: on, off, or "
           "auto: on if the acceptance tests use the keep rule's margin (auto)",
           "auto", choices=("auto", "on", "off")),
    Option("inconclusive", "N", "repeat a run that was disturbed on its GPU, and stop after N such runs in a row; "
           "0: every run counts (3)", 3, count(0, "0 for never")),
    Option("simplify", "", "also keep a simpler program that is no worse (off)", False, switch),
    Option("audit", "", "at the end of a session with a keep, run the first and the last program again, on rows that "
           "no verdict used (off)", False, switch),
    Option("cost", "USD", "stop before this session's proposals cost more than USD US dollars (no limit)",
           None, number("US dollars, more than 0")),
    Option("repairs", "N", "how often a refused or crashed proposal goes back to its proposer for repair (3)",
           3, count(0, "0 for never")),
    Option("agent-seconds", "SECONDS", "time limit of an agent for one proposal, for command (900)",
           900.0, number("seconds, more than 0")),
    Option("wait-hours", "HOURS", "how long to wait for a model or an agent that is at a limit or does not answer (6)",
           6.0, number("hours, more than 0")),
    Option("description", "TEXT", "a prefix for the descriptions of this session's experiments (none)", ""),
    Option("budget", "SECONDS", "training seconds of one run (the profile's, or 300)",
           None, number("seconds, more than 0")),
    Option("vram", "GB", "memory limit of one run in GB; resident memory on a CPU (the profile's, or none)",
           None, number("gigabytes, more than 0")),
    Option("hours", "HOURS", "start no more experiments after HOURS hours of this session (no limit)",
           None, number("hours, more than 0")),
    Option("target", "VALUE", "stop when the branch's metric reaches VALUE (none)",
           None, number("the metric's unit", least=-math.inf)),
    Option("lanes", "N", "experiments at a time, each on a GPU of its own, or auto: one for every idle GPU; on a CPU "
           "they share the cores (1)", 1, lanes),
    Option("runner", "NAME", "where runs are made: local: on this machine; ray: on the nodes of a Ray cluster (local)",
           LOCAL, choices=(LOCAL, RAY)),
    Option("ray-address", "ADDRESS", "the Ray cluster: auto, the one of this machine or of RAY_ADDRESS; HOST:PORT; "
           "ray://HOST:PORT; or local, one made of this machine alone (auto)", AUTO),
    Option("ray-slot", "NAME=N,...", "what a run takes of its node, in Ray's resources, such as GPU=1 or CPU=4 (GPU=1, "
           "or without GPUs all CPUs of the smallest node)", (), resources),
    Option("ray-retries", "N", "how often a run starts again whose node was lost (3)",
           3, count(0, "0 for never")),
    Option("gpus", "N", "the GPUs of a lane, for training that uses several at a time; without a GPU, how many "
           "processes share the cores of a lane (1)", 1, count(1, "1 or more")),
    Option("ahead", "N", "how many experiments a model or an agent proposes while all lanes train (1)",
           1, count(0, "0 for none")),
    Option("sandbox", "POLICY", "auto: the best sandbox of this machine; require: no session without a complete "
           "sandbox; off: none (auto)", "auto", choices=("auto", "require", "off")),
    Option("discard", "HOW", "how pytest reports a discard: fail, or xfail to keep dashboards green (fail)",
           "fail", choices=("fail", "xfail")),
    Option("junit-names", "HOW", "the name of a JUnit test case: plain, or verdict: followed by verdict, metric "
           "and description (plain)", "plain", choices=("plain", "verdict")),
    Option("exit", "POLICY", "exit status 0 if the session did its work: session; only if something was kept: "
           "progress; pytest's own: strict (session)", choices=("session", "progress", "strict")),
    Option("keep-artifacts", "SIZE", "delete the oldest files of discards below experiments/runs, then those of keeps, "
           "if the campaign has more than SIZE of them, such as 20GB; records stay (no limit)", None, size),
    Option("json", "", "also print one line of JSON for each experiment (off)", False, switch),
    Option("dry-run", "", "show the settings, the sandbox, what would be proposed first and what it may cost; run and "
           "record nothing (off)", False, switch),
    Option("check", "", "check all that a session needs, and stop; for doctor (off)", False, switch, hidden=True),
)  # fmt: skip
FLAGS = frozenset(("--autoresearch", *(option.flag for option in OPTIONS)))


class IniKey(NamedTuple):
    """A setting of the repository that has no command-line option."""

    key: str
    type: str
    help: str


INI_KEYS = (
    IniKey("autoresearch_command", "string", "the training command (python train.py)"),
    IniKey("autoresearch_describe", "string", "a trusted command that prints the harness's description as JSON (none)"),
    IniKey("autoresearch_metric", "string", "the name of the metric (val_bpb)"),
    IniKey("autoresearch_direction", "string", "which way the metric improves: minimize or maximize (minimize)"),
    IniKey("autoresearch_editable", "args", "the files that a proposal may change, globs allowed (train.py)"),
    IniKey("autoresearch_frozen", "args", "files and folders that results depend on; they must be committed (none)"),
    IniKey(
        "autoresearch_search",
        "linelist",
        "NAME = RANGE, the values that a search may try, such as LR = 1e-4..1e-1 log; also a table of pyproject.toml, "
        "[tool.autoresearch.search] (what names and values suggest)",
    ),
    IniKey("autoresearch_experiments", "string", "the folder of acceptance rules (experiments)"),
    IniKey("autoresearch_readable", "args", "untracked files and folders that training needs (none)"),
    IniKey("autoresearch_environment", "args", "more environment variables for training, globs allowed (none)"),
    IniKey(
        "autoresearch_prices",
        "args",
        "MODEL=INPUT/OUTPUT or MODEL=INPUT/OUTPUT/CACHE-READ, in US dollars per million tokens (those of known models)",
    ),
    IniKey("autoresearch_agent_files", "args", "files and folders that an agent may read and write (none)"),
    IniKey(
        "autoresearch_agent_environment",
        "args",
        "environment variables for agents, globs allowed, beside those that known agents need (none)",
    ),
)
KEYS = frozenset((*(option.key for option in OPTIONS if not option.hidden), *(key.key for key in INI_KEYS)))


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the options and ini keys; None means "not given"."""

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
    wait_hours: float
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
    keep_artifacts: int | None
    lanes: Lanes
    runner: str
    ray_address: str
    ray_slot: tuple[tuple[str, float], ...]
    ray_retries: int
    gpus: int
    ahead: int
    batch: int
    check: bool
    dry_run: bool
    command: tuple[str, ...]
    describe: tuple[str, ...] | None
    metric: str
    direction: Direction
    editable: Editable
    frozen: tuple[str, ...]
    search: Mapping[str, Range]
    experiments: str
    readable: tuple[str, ...]
    environment: tuple[str, ...]
    prices: tuple[str, ...]
    agent_files: tuple[str, ...]
    agent_environment: tuple[str, ...]

    @property
    def experiments_folder(self) -> Path:
        return self.root / self.experiments

    def artifacts(self, experiment: Experiment) -> Path:
        """The folder with an experiment's logs and patches, which may have been deleted."""
        from pytest_autoresearch.core import artifacts

        return artifacts.of(self.experiments_folder, experiment)

    def campaign_artifacts(self, tag: str) -> Artifacts:
        """The files that a campaign wrote for people."""
        from pytest_autoresearch.core import artifacts

        return artifacts.campaign(self.experiments_folder, tag)

    @property
    def readable_paths(self) -> tuple[Path, ...]:
        """Existing files and folders that training may read, beside its tree."""
        paths = (self.root / Path(name).expanduser() for name in self.readable)
        return tuple(path for path in paths if path.exists())


def read(root: Path, config_file: Path | None, get: Callable[[str], Any], getini: Callable[[str], Any]) -> Settings:
    """The settings, from functions that return an option's or an ini key's value.

    Raises:
        UserError: A value is invalid, or an ini key is misspelt.
    """
    from pytest_autoresearch.core.errors import UserError
    from pytest_autoresearch.core.experiment import Direction
    from pytest_autoresearch.keeprule.rule import rule_of
    from pytest_autoresearch.source.editable import Editable

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
    getini = _any_type(config_file, getini)
    given = {option.name: value(option) for option in OPTIONS}
    proposer, vram = given["proposer"], given["vram"]
    frozen, experiments = tuple(getini("autoresearch_frozen")), getini("autoresearch_experiments") or "experiments"
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
        wait_hours=given["wait-hours"],
        json=given["json"],
        description=given["description"],
        budget_seconds=given["budget"],
        memory_limit_mb=None if vram is None else vram * 1024,
        hours=given["hours"],
        target=given["target"],
        sandbox=given["sandbox"],
        discard=given["discard"],
        junit_names=given["junit-names"],
        exit=given["exit"] or ("progress" if proposer == "checkout" else "session"),  # an agent checks for a keep
        keep_artifacts=given["keep-artifacts"],
        lanes=given["lanes"],
        runner=given["runner"],
        ray_address=given["ray-address"],
        ray_slot=given["ray-slot"],
        ray_retries=given["ray-retries"],
        gpus=given["gpus"],
        ahead=given["ahead"],
        batch=given["batch"],
        check=given["check"],
        dry_run=given["dry-run"],
        command=ini("autoresearch_command", words, "python train.py"),
        describe=ini("autoresearch_describe", words) or None,
        metric=ini("autoresearch_metric", _metric, "val_bpb"),
        direction=Direction(ini("autoresearch_direction", lambda one: choice(one, tuple(Direction)), "minimize")),
        editable=Editable(
            tuple(getini("autoresearch_editable")) or ("train.py",), (*frozen, experiments, "program.md")
        ),
        frozen=frozen,
        search=_search(root, getini("autoresearch_search")),
        experiments=experiments,
        readable=tuple(getini("autoresearch_readable")),
        environment=tuple(getini("autoresearch_environment")),
        prices=tuple(getini("autoresearch_prices")),
        agent_files=tuple(getini("autoresearch_agent_files")),
        agent_environment=tuple(getini("autoresearch_agent_environment")),
    )


def _any_type(config_file: Path | None, getini: Callable[[str], Any]) -> Callable[[str], Any]:
    """A function that returns an ini key's value.

    A TOML file may have a number, a switch or a list where pytest wants text, and text where pytest wants a list.
    """
    import pytest

    lists = {key.key for key in INI_KEYS if key.type == "args"}
    lines = {key.key for key in INI_KEYS if key.type == "linelist"}

    def value(key: str) -> Any:
        try:
            return getini(key)
        except (TypeError, pytest.UsageError):
            from pytest_autoresearch.core.config_file import text

            if config_file is None:
                raise
            given = text(config_file, key)
            return list(words(given)) if key in lists else given.splitlines() if key in lines else given

    return value


def _search(root: Path, lines: Iterable[str]) -> dict[str, Range]:
    """The user's ranges, by the names of constants: from the table of pyproject.toml and from the ini key."""
    from pytest_autoresearch.core.config_file import own_tables
    from pytest_autoresearch.core.errors import UserError
    from pytest_autoresearch.source.stated_ranges import HOW, parse

    where, key = "pyproject.toml, [tool.autoresearch.search]", "autoresearch_search"
    try:
        tables = own_tables(root)
    except ValueError as error:
        raise UserError(f"pyproject.toml cannot be read: {error}") from None
    table = tables.get("search", {})
    if unknown := sorted(tables.keys() - {"search"}):
        raise UserError(f"pyproject.toml: there is no table [tool.autoresearch.{unknown[0]}]: only .search")
    if not isinstance(table, dict):
        raise UserError(f'{where}: it is no table: write lines such as LR = "1e-4..1e-1 log" below it')
    stated = [(where, name, given) for name, given in table.items()]
    for line in filter(None, map(str.strip, lines)):
        name, sign, given = line.partition("=")
        if not sign:
            raise UserError(f"{key}: {line!r} has no range: write NAME = RANGE; {HOW}")
        stated.append((key, name.strip(), given.strip()))
    found: dict[str, Range] = {}
    for place, name, given in stated:
        if name in found:
            raise UserError(f"{place}: {name} has two ranges: delete one")
        try:
            found[name] = parse(given)
        except ValueError as error:
            raise UserError(f"{place}: {name}: {error}") from None
    return found


def _metric(name: str) -> str:
    from pytest_autoresearch.core.experiment import Experiment

    if not _METRIC.fullmatch(name) or len(name.encode()) > _METRIC_BYTES:
        raise argparse.ArgumentTypeError(
            f"{name}: not a valid metric name: use at most {_METRIC_BYTES} letters, digits, '_', '.', '/', '@', '%', "
            "'+' and '-', and begin with a letter or '_'"
        )
    if name in dir(Experiment):
        raise argparse.ArgumentTypeError(f"{name}: an experiment has another attribute of this name: choose another")
    return name


def _check_keys(config_file: Path | None, getini: Callable[[str], Any]) -> None:
    """Raise UserError for a misspelt ini key; pytest only warns about it, at the end of the session."""
    from pytest_autoresearch.core.config_file import keys
    from pytest_autoresearch.core.errors import UserError
    from pytest_autoresearch.core.text import nearest_setting

    if config_file is None:
        return
    names = [key.removeprefix("autoresearch_").replace("_", "-") for key in KEYS]
    for key in sorted(keys(config_file) - KEYS):
        if not key.startswith("auto") or _is_known(key, getini):
            continue
        if meant := nearest_setting(key, names):
            meant = f"autoresearch_{meant.replace('-', '_')}"
            raise UserError(f"{config_file.name}: there is no ini key {key}: did you mean {meant}?")
        if key.startswith("autoresearch_"):
            raise UserError(f"{config_file.name}: there is no ini key {key}: `pytest --help` lists all")


def _is_known(key: str, getini: Callable[[str], Any]) -> bool:
    """Whether another plugin defines this ini key."""
    try:
        getini(key)
    except ValueError:
        return False
    return True


def this_python(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command with `python` replaced by this interpreter, because the one on PATH may be another, or missing."""
    return (sys.executable, *command[1:]) if command and command[0] in ("python", "python3") else command
