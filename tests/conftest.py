"""The fixtures that every test of the plugin shares."""

from __future__ import annotations

import pytest
from repo import Repo


@pytest.fixture
def repo(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Repo:
    """A small git repository with a fake `train.py`, a plan of what each proposal does, and an acceptance rule."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_TIMEOUT", "CI", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):  # those of the job that runs these tests
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return Repo(pytester, lanes=getattr(request, "param", 1))
