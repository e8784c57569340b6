"""The command line, before pytest goes by it: what `--autoresearch` does not go with, and what is collected."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path

import pytest

from pytest_autoresearch.core.artifacts import rule_files
from pytest_autoresearch.session.slots import BUNDLED

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
    own = config.rootpath / (config.getini("autoresearch_experiments") or "experiments")
    if known.file_or_dir:
        _check_paths(known.file_or_dir, config.rootpath, own)
        return
    path = own if _has_rule(own, config.getini("python_files")) else BUNDLED
    args.append(str(path))
    # The bundled rule is no reason to miss the repository's own conftest. Named by its file: its folder would bring
    # the conftests of test* folders along.
    conftest = config.rootpath / "conftest.py"
    known.file_or_dir = [str(path), *([str(conftest)] if path is BUNDLED and conftest.is_file() else [])]


def _has_rule(experiments: Path, patterns: Iterable[str]) -> bool:
    """Whether the folder holds a test file of its own."""
    return any(fnmatch.fnmatch(path.name, pattern) for path in rule_files(experiments) for pattern in patterns)


def _check_paths(arguments: Iterable[str], root: Path, experiments: Path) -> None:
    ours = (experiments.resolve(), BUNDLED.resolve())
    for argument in arguments:
        path = Path(argument.partition("::")[0])
        full = (path if path.is_absolute() else Path.cwd() / path).resolve()
        if not any(full.is_relative_to(folder) for folder in ours) and full != root.resolve():
            raise pytest.UsageError(
                f"--autoresearch runs the rules in {experiments.name}/ and no other tests: leave out {argument}"
            )
