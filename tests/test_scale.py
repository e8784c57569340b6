"""The simulation of many lanes, `benchmarks/scale.py`, in a small size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCALE = Path(__file__).resolve().parent.parent / "benchmarks" / "scale.py"


@pytest.mark.night
@pytest.mark.timeout(600)
def test_a_simulated_session_trains_on_its_own_clock() -> None:
    command = [sys.executable, str(SCALE), "--alone", "--lanes", "3", "--experiments", "5", "--seconds", "3000"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(SCALE.parent.parent)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["status"], figures["lanes"], figures["experiments"]) == (0, 3, 5), done.stderr
    assert figures["runs"] > 5
    assert figures["hours"] * 3600 >= 3000 * figures["runs"] / 3
    assert 0 <= figures["idle"] < 0.5
    assert figures["main"] > 0
    assert figures["objects"] > 5
