"""The fixtures that all tests of the plugin share. Every test has a deadline and the signals of a terminal."""

from __future__ import annotations

import importlib
import pkgutil
import signal

import pytest
from hypothesis import settings
from repo import Repo

import pytest_autoresearch

SECONDS = 120  # what a test may take; not the ini key `timeout`, which is the deadline of this repository's experiments


# On a busy machine any one example may take its time.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


def pytest_configure() -> None:
    """Start children as a terminal would, also under `nohup pytest &`: a child inherits what is ignored here.

    This process goes on ignoring the signal.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def whole_plugin() -> None:
    """Every module of the plugin, imported: pytester forgets what its test imports, and each would import it anew."""
    importlib.import_module("pynvml")  # which the plugin imports when it looks for a GPU
    for module in pkgutil.walk_packages(pytest_autoresearch.__path__, "pytest_autoresearch."):
        if not module.name.startswith(("pytest_autoresearch.bundled", "pytest_autoresearch.plugin")):
            importlib.import_module(module.name)


@pytest.fixture
def repo(
    whole_plugin: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Repo:
    """A small git repository with a fake `train.py`, a plan of what each proposal does, and an acceptance rule."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_TIMEOUT", "CI", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):  # those of the job that runs these tests
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return Repo(pytester, lanes=getattr(request, "param", 1))
