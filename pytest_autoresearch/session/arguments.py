"""Adjusts the command line before pytest uses it: excluded and misspelt options, and what is collected."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterable
from pathlib import Path

import pytest

from pytest_autoresearch.core.artifacts import rule_files
from pytest_autoresearch.core.text import nearest, nearest_setting
from pytest_autoresearch.session import other_plugins
from pytest_autoresearch.session.slots import BUNDLED
from pytest_autoresearch.settings import FLAGS, OPTIONS


def prepare(config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Refuse excluded options, add our own folder and `results.xml`, and be quiet for an agent.

    This must happen early. Later, pytest has fallen back on `testpaths` and imported the conftests of ordinary tests,
    and another plugin may have taken over the session.

    Raises:
        pytest.UsageError: An excluded option; one sentence says what to leave out.
    """
    known = config.known_args_namespace
    other_plugins.check_options(config, parser)
    looking = known.collectonly or known.setuponly or known.setupplan or known.autoresearch_check
    looking = looking or known.autoresearch_dry_run
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
        pytest.UsageError: An option is misspelt, another plugin's or of no use, a path leads to other tests, or two
            outputs would be one file.
    """
    flags = _add_max(parser, args, config.known_args_namespace)
    namespace, unknown = parser.parse_known_and_unknown_args(args)
    strangers = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    for flag in strangers:
        if meant := _meant(flag, namespace.autoresearch):
            raise pytest.UsageError(f"there is no option {flag}: did you mean {meant}?")
    if not namespace.autoresearch:
        typed = (str(word).partition("=")[0] for word in config.invocation_params.args)
        idle = next((flag for flag in typed if flag in flags), None)
        if idle and not (namespace.help or namespace.version):
            raise pytest.UsageError(f"{idle} does nothing without --autoresearch: add --autoresearch, or leave it out")
        return
    if strangers:
        return  # pytest names them; the next word may be the value of one
    paths = [*namespace.file_or_dir, *unknown]  # the latter: pytest 8
    own = _experiments(config)
    for path in paths:
        if not _is_ours(path, config.rootpath, own):
            raise pytest.UsageError(f"--autoresearch runs only the rules in {own.name}/: leave out {path}")
    other_plugins.check_outputs(config.rootpath, namespace)
    if not paths:
        args.append(str(_collected(config)))


def _add_max(parser: pytest.Parser, args: Iterable[str], known: argparse.Namespace) -> frozenset[str]:
    """Add `--max`, unless a conftest or another plugin has added an option of that name.

    Returns:
        The flags of ours that need --autoresearch.
    """
    maximum = next(option for option in OPTIONS if option.name == "max")
    try:
        free = "--max" in parser.parse_known_and_unknown_args(["--max"])[1]
    except pytest.UsageError:  # another plugin's, and it takes a value
        free = False
    if free:
        maximum.add(parser, "--max", f"the same as {maximum.flag}")
        return FLAGS | {"--max"}
    typed = any(word.partition("=")[0] == "--max" for word in args)
    if known.autoresearch and typed and known.autoresearch_max is None:
        raise pytest.UsageError(
            f"--max is an option of this repository's conftest.py or of another plugin: type {maximum.flag} N"
        )
    return FLAGS


def _meant(flag: str, on: bool) -> str | None:
    """The option of ours that an unknown option means; without --autoresearch, only one of a similar prefix."""
    if not (on or flag.startswith("--auto")):
        return None
    if not flag.startswith("--autoresearch-") and nearest(flag, ["--autoresearch"]):
        return "--autoresearch"
    name = nearest_setting(flag, [option.name for option in OPTIONS])
    return f"--autoresearch-{name}" if name else None


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
