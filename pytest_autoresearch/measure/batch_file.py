"""The file with the runs of a batch that goes on, so that a killed session loses none of them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.core.records import from_json, to_json
from pytest_autoresearch.core.run import Run

Made = Mapping[frozenset[int], tuple[int, tuple[Run, ...]]]


@dataclass(frozen=True, slots=True)
class Saved:
    """A batch as it was saved.

    Attributes:
        seed: The seed of its runs; it names the batch.
        head: The branch head's commit.
        programs: The digest of each member's program.
        made: The runs of the design, by the places of the members in them; each with the place of the member in whose
            record it is.
        alone: The runs of members that were run alone, by place.
    """

    seed: int
    head: str
    programs: tuple[str, ...]
    made: Made
    alone: Mapping[int, tuple[Run, ...]]


class BatchFile:
    """The file of one campaign; every batch takes the place of the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, saved: Saved) -> None:
        """Write the file; a disk that is full costs no run."""
        text = json.dumps(
            {
                "seed": saved.seed,
                "head": saved.head,
                "programs": saved.programs,
                "made": [[sorted(has), by, to_json(runs)] for has, (by, runs) in saved.made.items()],
                "alone": [[at, to_json(runs)] for at, runs in saved.alone.items()],
            }
        )
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_text(text, "utf-8")
            os.replace(new, self._path)

    def load(self) -> Saved | None:
        """The batch of an earlier session, or of this one; None if there is none that can be read."""
        try:
            found = json.loads(self._path.read_text("utf-8"))
            return Saved(
                int(found["seed"]),
                str(found["head"]),
                tuple(map(str, found["programs"])),
                {frozenset(map(int, has)): (int(by), _runs(runs)) for has, by, runs in found["made"]},
                {int(at): _runs(runs) for at, runs in found["alone"]},
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _runs(found: Sequence[object]) -> tuple[Run, ...]:
    return tuple(from_json(one, Run) for one in found)
