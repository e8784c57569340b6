"""Options, ini keys and hook declarations of the plugin. No logic: without --autoresearch, nothing else is imported."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch.settings import INI_KEYS, OPTIONS

if TYPE_CHECKING:
    from pytest_autoresearch.session.measured import Measured

pytest.register_assert_rewrite("pytest_autoresearch.bundled")

_RULE = re.compile(rb"def test\w*\s*\([^)]*\bexperiment\b")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("autoresearch", "unattended research: every experiment is a test, git keeps what improved")
    group.addoption(
        "--autoresearch",
        action="store_true",
        help="run experiments, and nothing else: propose, train, measure, keep or discard (off)",
    )
    for option in OPTIONS:
        flags = [option.flag, *(["--max"] if option.name == "max" else [])]
        text = argparse.SUPPRESS if option.hidden else option.help
        if option.switch:
            group.addoption(*flags, dest=option.key, action="store_true", default=None, help=text)
        else:
            group.addoption(*flags, dest=option.key, metavar=option.metavar, default=None, help=text)
        if not option.hidden:
            parser.addini(option.key, option.help, type="string", default="")
    for key in INI_KEYS:
        parser.addini(key.key, key.help, type=key.type, default=[] if key.type == "args" else "")  # type: ignore[arg-type]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_autoresearch import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    if early_config.known_args_namespace.autoresearch:
        from pytest_autoresearch.session.arguments import prepare

        prepare(early_config, args)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("autoresearch"):
        from pytest_autoresearch.session.begin import begin

        begin(config)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Acceptance rules are collected with --autoresearch only. Other tests in a folder of that name are not ours."""
    if config.getoption("autoresearch") or collection_path.suffix != ".py":
        return None
    folder = config.rootpath / (config.getini("autoresearch_experiments") or "experiments")
    if collection_path.is_relative_to(folder) and _RULE.search(collection_path.read_bytes()):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.config.getoption("autoresearch"):
        from pytest_autoresearch.session.loop import log_section

        log_section(item)


@pytest.fixture(scope="session")
def experiment(request: pytest.FixtureRequest) -> Measured:
    """The finished experiment: its metrics, limits and the best so far. A crash is raised here, in setup."""
    if not request.config.getoption("autoresearch"):
        pytest.skip("experiments run with --autoresearch only")
    from pytest_autoresearch.session.loop import fixture_value

    return fixture_value(request.param)
