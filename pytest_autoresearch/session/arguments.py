"""Adjusts the command line before pytest uses it: options that `--autoresearch` excludes, and what is collected."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path

import pytest

from pytest_autoresearch.session.slots import BUNDLED

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
    own = config.rootpath / (config.getini("autoresearch_experiments") or "experiments")
    if known.file_or_dir:
        _check_paths(known.file_or_dir, config.rootpath, own)
        return
    path = own if _has_rule(own, config.getini("python_files")) else BUNDLED
    args.append(str(path))
    # With the bundled rule, the repository's own conftest still applies. It is named by its file: its folder would
    # also load the conftests of test* folders.
    conftest = config.rootpath / "conftest.py"
    known.file_or_dir = [str(path), *([str(conftest)] if path is BUNDLED and conftest.is_file() else [])]


def _has_rule(experiments: Path, patterns: Iterable[str]) -> bool:
    """Whether the folder holds a test file of its own."""
    return any(
        fnmatch.fnmatch(path.name, pattern)
        for path in experiments.rglob("*.py")
        for pattern in patterns
        if "runs" not in path.relative_to(experiments).parts
    )


def _check_paths(arguments: Iterable[str], root: Path, experiments: Path) -> None:
    ours = (experiments.resolve(), BUNDLED.resolve())
    for argument in arguments:
        path = Path(argument.partition("::")[0])
        full = (path if path.is_absolute() else Path.cwd() / path).resolve()
        if not any(full.is_relative_to(folder) for folder in ours) and full != root.resolve():
            raise pytest.UsageError(f"--autoresearch runs only the rules in {experiments.name}/: leave out {argument}")
