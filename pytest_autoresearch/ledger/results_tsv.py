"""`results.tsv`: a view of the records in upstream's format, which can be written again from them at any time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_autoresearch.core.experiment import Experiment, Status
from pytest_autoresearch.core.text import one_line


def header(metric_name: str) -> str:
    """The first line of `results.tsv`, upstream's where the metric is `val_bpb`."""
    return f"commit\t{metric_name}\tmemory_gb\tstatus\tdescription\n"


def row(experiment: Experiment) -> str:
    """One line of `results.tsv`: 7 characters of the commit, 6 decimals, GB (MiB / 1024) with one decimal.

    The memory is the allocator's peak where training prints one, which is what upstream means, else the outside
    measurement. A crash has zeros for both.
    """
    if experiment.verdict is None:
        raise ValueError(f"{experiment!r} has no verdict")
    status = experiment.verdict.status
    metric, memory_mb = 0.0, 0.0
    if status is not Status.CRASH:
        metric = experiment.metric
        printed = experiment.allocator_mb
        memory_mb = experiment.peak_memory_mb if printed is None else printed
    said = one_line(experiment.proposal.description)
    if said.startswith('"'):  # readers of tables take it for the start of a quoted field, to the end of the file
        said = f"'{said[1:]}"
    return f"{experiment.commit[:7]}\t{metric:.6f}\t{memory_mb / 1024:.1f}\t{status}\t{said}\n"


class ResultsFile:
    """`results.tsv` in the user's checkout: written as experiments end, and again from the records when it lags."""

    def __init__(self, path: Path, metric_name: str) -> None:
        self.path = path
        self._header = header(metric_name)

    def rebuild(self, records: Iterable[Experiment], others: Callable[[], Iterable[Experiment]] = tuple) -> Path | None:
        """Make the file say what the records say.

        A row that belongs to no record, of this campaign or of the `others` in the repository, is somebody's work:
        such a file is renamed, never overwritten. Returns its new name then.
        """
        lines = [row(record) for record in sorted(records, key=lambda record: (record.finished_at, record.number))]
        text = (self._header + "".join(lines)).encode()
        have = self.path.read_bytes() if self.path.exists() else None
        if have == text:
            return None
        aside = None
        if have is not None and not text.startswith(have):  # a prefix is what a kill in mid-row leaves
            theirs = list(others())
            heads = {self._header, *(header(record.metric_name) for record in theirs)}
            known = {line.encode() for line in (*heads, *lines, *(row(record) for record in theirs))}
            if any(line.strip() and line + b"\n" not in known for line in have.split(b"\n")):
                aside = self._set_aside()
        # A name of its own: two sessions may be at it at once.
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}-{threading.get_ident()}")
        with part.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)
        return aside

    def append(self, experiment: Experiment) -> None:
        """Add a row, flushed and synced."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(row(experiment))
            file.flush()
            os.fsync(file.fileno())

    def _set_aside(self) -> Path:
        name = next(
            path
            for n in range(1, 10_000)
            if not (path := self.path.with_name(f"{self.path.stem}-{n}{self.path.suffix}")).exists()
        )
        self.path.rename(name)
        return name
