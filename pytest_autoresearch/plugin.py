"""The plugin's options, ini keys and hooks. No logic: without --autoresearch, it imports only `settings`."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch.settings import INI_KEYS, OPTIONS

if TYPE_CHECKING:
    from pytest_autoresearch.session.measured import Measured

pytest.register_assert_rewrite("pytest_autoresearch.bundled")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("autoresearch", "unattended research: every experiment is a test, git keeps improvements")
    group.addoption(
        "--autoresearch",
        action="store_true",
        help="run experiments instead of ordinary tests: propose, train, measure, keep or discard (off)",
    )
    for option in OPTIONS:
        option.add(parser, option.flag, argparse.SUPPRESS if option.hidden else option.help)
        if not option.hidden:
            parser.addini(option.key, option.help, type="string", default="")
    for key in INI_KEYS:
        parser.addini(key.key, key.help, type=key.type, default="" if key.type == "string" else [])  # type: ignore[arg-type]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_autoresearch import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, object, object]:
    known = early_config.known_args_namespace
    ours = any(word.startswith("--auto") or word.partition("=")[0] == "--max" for word in args)
    if not (known.autoresearch or known.help or ours):
        return (yield)
    from pytest_autoresearch.session import arguments
    from pytest_autoresearch.session.mistakes import told

    if known.autoresearch:
        with told(early_config):
            arguments.prepare(early_config, parser, args)
    result = yield
    with told(early_config):
        arguments.complete(early_config, parser, args)
    return result


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("autoresearch"):
        from pytest_autoresearch.session.begin import begin
        from pytest_autoresearch.session.mistakes import told

        with told(config):
            begin(config)


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
