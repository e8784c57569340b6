"""`results.tsv`: the records as a table in upstream's format, which can be rebuilt from them at any time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_autoresearch.core.experiment import Experiment, Status
from pytest_autoresearch.core.text import one_line


def header(metric_name: str) -> str:
    """The first line of `results.tsv`; for the metric `val_bpb`, the same as upstream's."""
    return f"commit\t{metric_name}\tmemory_gb\tstatus\tdescription\n"


def row(experiment: Experiment) -> str:
    """One line of `results.tsv`: 7 characters of the commit, 6 decimals, GB (MiB / 1024) with one decimal.

    The memory is the allocator's peak if training prints it, as upstream does, else the peak measured from outside.
    A crash has zeros for metric and memory.
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
    if said.startswith('"'):  # TSV readers would read a quoted field that reaches to the end of the file
        said = f"'{said[1:]}"
    return f"{experiment.commit[:7]}\t{metric:.6f}\t{memory_mb / 1024:.1f}\t{status}\t{said}\n"


class ResultsFile:
    """`results.tsv` in the user's checkout. Rows are appended as experiments end; a stale file is rebuilt."""

    def __init__(self, path: Path, metric_name: str) -> None:
        self.path = path
        self._header = header(metric_name)

    def rebuild(self, records: Iterable[Experiment], others: Callable[[], Iterable[Experiment]] = tuple) -> Path | None:
        """Rebuild the file from the records.

        A file with rows of no record, neither of this campaign nor of `others`, may be the user's work. It is renamed,
        not overwritten.

        Args:
            records: The campaign's records.
            others: Returns the records of the repository's other campaigns.

        Returns:
            The new path of a renamed file, or None.
        """
        lines = [row(record) for record in sorted(records, key=lambda record: (record.finished_at, record.number))]
        text = (self._header + "".join(lines)).encode()
        have = self.path.read_bytes() if self.path.exists() else None
        if have == text:
            return None
        aside = None
        if have is not None and not text.startswith(have):  # a kill while writing leaves a prefix of the text
            theirs = list(others())
            heads = {self._header, *(header(record.metric_name) for record in theirs)}
            known = {line.encode() for line in (*heads, *lines, *(row(record) for record in theirs))}
            if any(line.strip() and line + b"\n" not in known for line in have.split(b"\n")):
                aside = self._set_aside()
        # A unique name, because two sessions may rebuild at once.
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
