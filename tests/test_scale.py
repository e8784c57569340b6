"""The simulation of many lanes, `benchmarks/scale.py`, in a small size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCALE = Path(__file__).resolve().parent.parent / "benchmarks" / "scale.py"


def simulated(*options: str) -> dict[str, Any]:
    """The figures of one session."""
    command = [sys.executable, str(SCALE), "--alone", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(SCALE.parent.parent)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    assert figures["status"] == 0, done.stderr
    return figures


@pytest.mark.night
@pytest.mark.timeout(600)
def test_a_simulated_session_trains_on_its_own_clock() -> None:
    figures = simulated("--lanes", "3", "--experiments", "5", "--seconds", "3000")
    assert (figures["lanes"], figures["experiments"]) == (3, 5)
    assert figures["runs"] > 5
    assert figures["hours"] * 3600 >= 3000 * figures["runs"] / 3
    assert 0 <= figures["idle"] < 0.5
    assert figures["main"] > 0
    assert figures["objects"] > 5


@pytest.mark.night
@pytest.mark.timeout(1800)
def test_a_long_session_holds_little_more_than_the_records() -> None:
    """An experiment's record is some 15 objects and each of its runs two; three reports of pytest are 30 or more."""
    figures = simulated("--lanes", "8", "--experiments", "150")
    assert figures["growth"] < 45
    assert figures["files"][-1] <= figures["files"][2] + 8  # a lane may be in the middle of a git command
