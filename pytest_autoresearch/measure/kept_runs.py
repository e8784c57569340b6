"""Runs that an interrupted command has made already: a file with one line for each, which the next one reads.

So nothing is measured twice, and no run that turned out badly is drawn again. A file is for one set of conditions.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from pytest_autoresearch.core.records import from_json, to_json
from pytest_autoresearch.core.run import Run


class KeptRuns:
    """The runs of one file; safe on any thread.

    Args:
        path: The file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seeds: list[int] = []
        self._runs: dict[tuple[str, int], Run] = {}
        known = path.read_text("utf-8") if path.exists() else ""
        self._cut = not known.endswith("\n") and bool(known)
        for line in known.splitlines():
            try:
                told = json.loads(line)
                if "run" in told:
                    self._runs[told["tree"], told["seed"]] = from_json(told["run"], Run)
                else:
                    self._seeds.append(int(told["seed"]))
            except (ValueError, KeyError, TypeError):  # a line that a kill has cut
                continue

    def seeds(self, count: int, draw: Callable[[], int]) -> list[int]:
        """The first seeds of the file; those that are missing are drawn."""
        while len(self._seeds) < count:
            self._seeds.append(draw())
            self._write({"seed": self._seeds[-1]})
        return self._seeds[:count]

    def get(self, tree: str, seed: int) -> Run | None:
        """The run of a program; None if it was not made yet."""
        with self._lock:
            return self._runs.get((tree, seed))

    def add(self, tree: str, seed: int, run: Run) -> None:
        """Keep a run."""
        with self._lock:
            self._runs[tree, seed] = run
            self._write({"tree": tree, "seed": seed, "run": to_json(run)})

    def _write(self, told: object) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("\n" if self._cut else "") + json.dumps(told, allow_nan=False) + "\n")
            self._cut = False
            file.flush()
            os.fsync(file.fileno())
