"""The command line, before pytest goes by it: what `--autoresearch` does not go with, what is misspelt, and what is
collected."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Container, Iterable
from pathlib import Path

import pytest

from pytest_autoresearch.core.artifacts import rule_files
from pytest_autoresearch.session.slots import BUNDLED
from pytest_autoresearch.settings import FLAGS, OPTIONS, nearest

_REFUSED = {
    "numprocesses": "-n: experiments run on lanes of their own, not on xdist's workers: leave it out",
    "tx": "--tx: experiments run on lanes of their own, not on xdist's workers: leave it out",
    "looponfail": "-f: a campaign goes on by itself: leave it out",
    "reruns": "--reruns: an experiment is judged once: leave it out",
    "lf": "--lf: a number never recurs, so there is nothing to run again: leave it out",
    "failedfirst": "--ff: a number never recurs, so there is nothing to run first: leave it out",
    "newfirst": "--nf: experiments run by number: leave it out",
    "stepwise": "--sw: a discard is a result and the next number goes on from it: leave it out",
    "usepdb": "--pdb: a campaign runs unattended: leave it out",
    "trace": "--trace: a campaign runs unattended: leave it out",
}


def prepare(config: pytest.Config, args: list[str]) -> None:
    """Refuse what cannot be, name our own folder and `results.xml`, and be quiet where an agent listens.

    Later would be too late: pytest would fall back on `testpaths` and import the conftests of the ordinary tests, and
    another plugin might take the session over.

    Raises:
        pytest.UsageError: One sentence on what to leave out.
    """
    known = config.known_args_namespace
    for name, sentence in _REFUSED.items():
        if getattr(known, name, None):
            raise pytest.UsageError(f"--autoresearch does not go with {sentence}")
    looking = known.collectonly or known.setuponly or known.setupplan
    if getattr(known, "xmlpath", "") is None and not looking:  # which would replace the last night's file
        args.append(f"--junitxml={config.rootpath / 'results.xml'}")
    if (known.autoresearch_proposer or config.getini("autoresearch_proposer")) == "checkout" and not looking:
        args += ["-q", "--disable-warnings"]  # an agent reads it all; a -v of its own takes the -q back
    # What is not ours may be the value of an option that a conftest will add: `complete` knows.
    own = _experiments(config)
    known.file_or_dir = [word for word in known.file_or_dir if word and _is_ours(word, config.rootpath, own)]
    if not known.file_or_dir:
        path = _collected(config)
        # The bundled rule is no reason to miss the repository's own conftest. Named by its file: its folder would bring
        # the conftests of test* folders along.
        conftest = config.rootpath / "conftest.py"
        known.file_or_dir = [str(path), *([str(conftest)] if path is BUNDLED and conftest.is_file() else [])]


def complete(config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Look at the whole command line, now that every plugin and conftest has added its options.

    Raises:
        pytest.UsageError: An option is misspelt or somebody else's, or a path is not ours.
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
            raise pytest.UsageError(
                f"--autoresearch runs the rules in {own.name}/ and no other tests: leave out {path}"
            )
    if not paths:
        args.append(str(_collected(config)))


def _add_max(parser: pytest.Parser, typed: Container[str], known: argparse.Namespace) -> None:
    """`--max` may be an option of a conftest or of another plugin: it is ours only where nobody else adds it."""
    maximum = next(option for option in OPTIONS if option.name == "max")
    try:
        free = "--max" in parser.parse_known_and_unknown_args(["--max"])[1]
    except pytest.UsageError:  # somebody's, and it takes a value
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
    """What is collected where no path is given."""
    own = _experiments(config)
    return own if _has_rule(own, config.getini("python_files")) else BUNDLED


def _has_rule(experiments: Path, patterns: Iterable[str]) -> bool:
    """Whether the folder holds a test file of its own."""
    return any(fnmatch.fnmatch(path.name, pattern) for path in rule_files(experiments) for pattern in patterns)


def _is_ours(argument: str, root: Path, experiments: Path) -> bool:
    full = Path(argument.partition("::")[0]).resolve()
    return full == root.resolve() or any(full.is_relative_to(one.resolve()) for one in (experiments, BUNDLED))
