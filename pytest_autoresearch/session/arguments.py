"""Adjusts the command line before pytest uses it: excluded options, misspelt options, and what is collected."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Container, Iterable
from pathlib import Path

import pytest

from pytest_autoresearch.core.artifacts import rule_files
from pytest_autoresearch.core.text import nearest
from pytest_autoresearch.session.slots import BUNDLED
from pytest_autoresearch.settings import FLAGS, OPTIONS

_REFUSED = {
    "numprocesses": "-n: experiments run on their own lanes, not on xdist's workers: leave it out",
    "tx": "--tx: experiments run on their own lanes, not on xdist's workers: leave it out",
    "looponfail": "-f: a campaign continues by itself: leave it out",
    "reruns": "--reruns: an experiment is judged once: leave it out",
    "lf": "--lf: a number is never used twice, so there is nothing to rerun: leave it out",
    "failedfirst": "--ff: a number is never used twice, so there is nothing to run first: leave it out",
    "newfirst": "--nf: experiments run by number: leave it out",
    "stepwise": "--sw: a discard is a result, and the next number continues after it: leave it out",
    "usepdb": "--pdb: a campaign runs unattended: leave it out",
    "trace": "--trace: a campaign runs unattended: leave it out",
}


def prepare(config: pytest.Config, args: list[str]) -> None:
    """Refuse excluded options, add our own folder and `results.xml`, and be quiet for an agent.

    This must happen early. Later, pytest has fallen back on `testpaths` and imported the conftests of ordinary tests,
    and another plugin may have taken over the session.

    Raises:
        pytest.UsageError: An excluded option; one sentence says what to leave out.
    """
    known = config.known_args_namespace
    for name, sentence in _REFUSED.items():
        if getattr(known, name, None):
            raise pytest.UsageError(f"--autoresearch cannot be combined with {sentence}")
    looking = known.collectonly or known.setuponly or known.setupplan
    if getattr(known, "xmlpath", "") is None and not looking:  # --collect-only must not replace the last session's file
        args.append(f"--junitxml={config.rootpath / 'results.xml'}")
    if (known.autoresearch_proposer or config.getini("autoresearch_proposer")) == "checkout" and not looking:
        args += ["-q", "--disable-warnings"]  # an agent reads all output; a -v on the command line cancels the -q
    # Another word may be the value of an option that a conftest will add: `complete` knows.
    own = _experiments(config)
    known.file_or_dir = [word for word in known.file_or_dir if word and _is_ours(word, config.rootpath, own)]
    if not known.file_or_dir:
        path = _collected(config)
        # With the bundled rule, the repository's own conftest still applies. It is named by its file: its folder would
        # also load the conftests of test* folders.
        conftest = config.rootpath / "conftest.py"
        known.file_or_dir = [str(path), *([str(conftest)] if path is BUNDLED and conftest.is_file() else [])]


def complete(config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Check the whole command line after every plugin and conftest has added its options.

    Raises:
        pytest.UsageError: An option is misspelt or another plugin's, or a path leads to other tests.
    """
    _add_max(parser, {word.partition("=")[0] for word in args}, config.known_args_namespace)
    namespace, unknown = parser.parse_known_and_unknown_args(args)
    for word in unknown:
        flag = word.partition("=")[0]
        if meant := nearest(flag, FLAGS - {"--autoresearch"}) or nearest(flag, ["--autoresearch"]):
            raise pytest.UsageError(f"there is no option {flag}: did you mean {meant}?")
    if not namespace.autoresearch:
        return
    paths = [*namespace.file_or_dir, *(word for word in unknown if not word.startswith("-"))]  # the latter: pytest 8
    own = _experiments(config)
    for path in paths:
        if not _is_ours(path, config.rootpath, own):
            raise pytest.UsageError(f"--autoresearch runs only the rules in {own.name}/: leave out {path}")
    if not paths:
        args.append(str(_collected(config)))


def _add_max(parser: pytest.Parser, typed: Container[str], known: argparse.Namespace) -> None:
    """Add `--max`, unless a conftest or another plugin has added an option of that name."""
    maximum = next(option for option in OPTIONS if option.name == "max")
    try:
        free = "--max" in parser.parse_known_and_unknown_args(["--max"])[1]
    except pytest.UsageError:  # another plugin's, and it takes a value
        free = False
    if free:
        maximum.add(parser, "--max", f"the same as {maximum.flag}")
    elif known.autoresearch and "--max" in typed and known.autoresearch_max is None:
        raise pytest.UsageError(
            f"--max is an option of this repository's conftest.py or of another plugin: type {maximum.flag} N"
        )


def _experiments(config: pytest.Config) -> Path:
    return config.rootpath / (config.getini("autoresearch_experiments") or "experiments")


def _collected(config: pytest.Config) -> Path:
    """What is collected without a path on the command line."""
    own = _experiments(config)
    return own if _has_rule(own, config.getini("python_files")) else BUNDLED


def _has_rule(experiments: Path, patterns: Iterable[str]) -> bool:
    """Whether the folder holds a test file of its own."""
    return any(fnmatch.fnmatch(path.name, pattern) for path in rule_files(experiments) for pattern in patterns)


def _is_ours(argument: str, root: Path, experiments: Path) -> bool:
    full = Path(argument.partition("::")[0]).resolve()
    return full == root.resolve() or any(full.is_relative_to(one.resolve()) for one in (experiments, BUNDLED))
