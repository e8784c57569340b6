"""Other plugins and pytest's own options beside a session: what is refused or off, and what would write the same file.

An option may come from the configuration, where it is right for ordinary tests. Then the sentence says what to type
beside it.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_autoresearch.reports.page.writer import PAGE, PICTURE


class _Option(NamedTuple):
    """An option of another plugin.

    Attributes:
        flag: As a user types it.
        why: Why a session does not take it.
        undo: What cancels it when typed later; empty if nothing does.
    """

    flag: str
    why: str
    undo: str = ""


_WORKERS = "experiments run on their own lanes, not on xdist's workers"
_UNATTENDED = "a campaign runs unattended"
_REFUSED = {  # by the name of the parsed value
    "numprocesses": _Option("-n", _WORKERS, "-n 0"),
    "tx": _Option("--tx", _WORKERS),
    "looponfail": _Option("-f", "a campaign continues by itself"),
    "reruns": _Option("--reruns", "an experiment is judged once", "--reruns 0"),
    "lf": _Option("--lf", "a number is never used twice, so there is nothing to rerun"),
    "failedfirst": _Option("--ff", "a number is never used twice, so there is nothing to run first"),
    "newfirst": _Option("--nf", "experiments run by number"),
    "stepwise": _Option("--sw", "a discard is a result, and the next number continues after it"),
    "usepdb": _Option("--pdb", _UNATTENDED),
    "trace": _Option("--trace", _UNATTENDED),
}
_SELECTING = {"keyword": ("-k", "-k ''"), "markexpr": ("-m", "-m ''"), "deselect": ("--deselect", "")}  # and the undo
_OUTPUTS = {
    "xmlpath": "--junitxml",
    "htmlpath": "--html",
    "report_log": "--report-log",
    "log_file": "--log-file",
    "json_report_file": "--json-report-file",
}
_OFF = (
    *("lfplugin", "nfplugin", "stepwiseplugin", "lfplugin-collwrapper"),  # a number is never used twice
    "rerunfailures",  # its ini key and its marker, too, would have an experiment judged again
)
_SOURCES = pytest.StashKey[Mapping[str, str]]()


def check_options(config: pytest.Config, parser: pytest.Parser) -> None:
    """Refuse what a session cannot be combined with, and remember where selecting options come from.

    Raises:
        pytest.UsageError: One sentence on what to type.
    """
    known = config.known_args_namespace
    for name, option in _REFUSED.items():
        if getattr(known, name, None):
            raise pytest.UsageError(
                f"--autoresearch cannot be combined with {option.flag}: {option.why}: "
                + _remedy(_source(config, parser, name), option.undo)
            )
    noted = [name for name in (*_SELECTING, "maxfail") if getattr(known, name, None)]
    config.stash[_SOURCES] = {name: _source(config, parser, name) for name in noted}


def _source(config: pytest.Config, parser: pytest.Parser, name: str) -> str:
    """Where the configuration sets an option; empty if the command line does."""
    file = config.inipath.name if config.inipath else "the configuration"
    sources = {
        "": config.invocation_params.args,
        "PYTEST_ADDOPTS": shlex.split(os.environ.get("PYTEST_ADDOPTS", "")),
        f"addopts in {file}": config.getini("addopts"),
    }
    for source, words in sources.items():
        if getattr(parser.parse_known_args([str(word) for word in words]), name, None):
            return source
    return ""


def _remedy(source: str, undo: str) -> str:
    """What to type about an option from there."""
    if not source:
        return "leave it out"
    if undo:
        return f"{source} has it, so type `{undo}` as well"
    return f"take it out of {source}" + ("" if source.isupper() else ", or type `-o addopts=` as well")


def first_failure(config: pytest.Config) -> str:
    """The sentence about a limit of failures, typed or from the configuration; empty if there is none."""
    source, most = config.stash.get(_SOURCES, {}).get("maxfail", ""), config.getoption("maxfail", 0)
    if not most:
        return ""
    flag = "-x" if most == 1 else f"--maxfail={most}"
    ends = "ends the session " + ("at the first discard or crash" if most == 1 else f"after {most} discards or crashes")
    if source:
        return f"{source} has {flag}, which {ends}: type `--maxfail=0` as well to go on"
    return f"{flag} {ends}: leave it out to go on"


def nothing_left(config: pytest.Config, first: int, last: int) -> str:
    """The sentence about what deselects all of these experiments."""
    numbers = f"experiment {first:04d}" if first == last else f"the experiments {first:04d} to {last:04d}"
    sources = config.stash.get(_SOURCES, {})
    given = {name: value for name in _SELECTING if (value := config.getoption(name, None))}
    if not given:
        return f"a conftest or a plugin deselects {numbers}: correct it"
    words = [
        f"{_SELECTING[name][0]} {shlex.join([value] if name != 'deselect' else value)}" for name, value in given.items()
    ]
    name = min(given, key=lambda one: sources.get(one, ""))  # what was typed comes first
    remedy = _remedy(sources.get(name, ""), _SELECTING[name][1])
    return f"{' '.join(words)} deselects {numbers}: {remedy}"


def switch_off(config: pytest.Config) -> None:
    """Unregister the plugins that would run an item again, or only some of them."""
    for name in _OFF:
        if (plugin := config.pluginmanager.get_plugin(name)) is not None:
            config.pluginmanager.unregister(plugin)


def check_outputs(root: Path, namespace: argparse.Namespace) -> None:
    """Check that no two outputs of the session are the same file.

    Raises:
        pytest.UsageError: Two are.
    """
    taken = {
        (root / "results.tsv").resolve(): "the table of experiments",
        (root / PAGE).resolve(): "the page of the session",
        (root / PICTURE).resolve(): "the picture of the session",
    }
    for name, flag in _OUTPUTS.items():
        if not (given := getattr(namespace, name, None)):
            continue
        path = Path(os.path.expandvars(given)).expanduser()
        other = taken.setdefault(path.resolve(), flag)
        if other != flag:
            raise pytest.UsageError(f"{flag} and {other} would both write {given}: give {flag} another file name")
