"""This repository's own wiring: its tests drive pytest itself, and share the cores of the machine."""

import compileall
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
if not entry_points(group="pytest11", name="autoresearch"):  # this clone is not installed
    pytest_plugins.append("pytest_autoresearch.plugin")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """One worker more than there are cores, unless `-n` says otherwise: most tests wait for processes of their own."""
    if config.getoption("autoresearch"):
        return
    if not hasattr(config, "workerinput") and sys.dont_write_bytecode:
        compile_once(config.rootpath)
    given = (config.getoption("collectonly"), config.getoption("usepdb"))
    if not any(given) and not hasattr(config, "workerinput") and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = min(os.cpu_count() or 1, 4) + 1
        if config.option.dist == "no":
            config.option.dist = "worksteal"  # a few tests train for real: no worker waits for another's


def compile_once(root: Path) -> None:
    """Where PYTHONDONTWRITEBYTECODE is set: else each of some thousand processes would compile the project anew."""
    for name in ("pytest_autoresearch", "harness"):
        compileall.compile_dir(root / name, quiet=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    items.sort(key=lambda item: not any(map(item.get_closest_marker, ("attack", "night", "training"))))
