"""The files of judged experiments, below a size: those of discards and crashes go first. Records are in git."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_autoresearch.core.experiment import Experiment, Status
from pytest_autoresearch.ledger.leftovers import size


class KeptArtifacts:
    """The folders of one campaign's experiments.

    Args:
        most: The bytes that they may have together.
        folder: Gives the folder of an experiment.
        judged: The experiments of earlier sessions.
    """

    def __init__(self, most: int, folder: Callable[[Experiment], Path], judged: Iterable[Experiment]) -> None:
        self._most = most
        self._folder = folder
        self._sizes: dict[bool, dict[int, tuple[Path, int]]] = {False: {}, True: {}}  # by whether it was kept
        for experiment in judged:
            self._count(experiment)

    def add(self, experiment: Experiment) -> list[int]:
        """The experiment was judged, and its files do not change any more; its own stay for now.

        Returns:
            The numbers of the experiments whose files were deleted: the oldest first, keeps last.
        """
        self._count(experiment)
        gone = list[int]()
        left = sum(count for sizes in self._sizes.values() for _, count in sizes.values())
        for sizes in self._sizes.values():
            for number in sorted(sizes.keys() - {experiment.number}):
                if left <= self._most:
                    return gone
                folder, count = sizes.pop(number)
                shutil.rmtree(folder, ignore_errors=True)
                left -= count
                gone.append(number)
        return gone

    def _count(self, experiment: Experiment) -> None:
        folder = self._folder(experiment)
        if folder.is_dir() and not folder.is_symlink():
            kept = experiment.verdict is not None and experiment.verdict.status is Status.KEEP
            self._sizes[kept][experiment.number] = folder, size(folder)
