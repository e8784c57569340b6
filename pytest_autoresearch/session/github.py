"""Output for GitHub Actions: the job summary, annotations and step outputs.

They are written only if the runner's environment variables ask for them. Knows the campaign's records and the syntax
of workflow commands.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.reports.harmless import HarmlessOutput, harmless
from pytest_autoresearch.reports.step_summary import crash_message, crashes, step_summary

SUMMARY_BYTES = 1024 * 1024  # of one step; GitHub does not show a larger summary
_MOST = 10  # GitHub shows so many annotations of one kind for each step
_TEXT = 300
_REPORTS = ("results.tsv", "results.xml", "report.html", "progress.png")


class GitHub:
    """Reports the session's end to the GitHub runner.

    Args:
        root: The repository.
        tag: The campaign.
        records: Gives its current records.
        runs: The folder of its logs and patches.
        output: The terminal, for annotations; None without one.
        environment: The runner's environment variables.
    """

    def __init__(
        self, root: Path, tag: str, records: Callable[[], Sequence[Experiment]], runs: Path,
        output: HarmlessOutput | None, environment: Mapping[str, str] = os.environ,
    ) -> None:  # fmt: skip
        self._root = root
        self._tag = tag
        self._records = records
        self._runs = runs
        self._output = output
        self._environment = environment
        self._session: set[int] = set()

    def pytest_autoresearch_record(self, experiment: Experiment) -> None:
        self._session.add(experiment.number)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self) -> None:
        if self._output is not None and self._environment.get("GITHUB_ACTIONS") == "true":
            for line in commands(self._records(), self._session):
                self._output.command(line)

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # the other reports are written inside the yield
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            with contextlib.suppress(OSError):  # a report must not fail the session
                self._tell()

    def _tell(self) -> None:
        if path := self._environment.get("GITHUB_OUTPUT"):
            with open(path, "a", encoding="utf-8") as file:
                file.write(outputs(self._records(), self._session, self._tag))
        if path := self._environment.get("GITHUB_STEP_SUMMARY"):
            page = step_summary(self._records(), self._session, f"autoresearch/{self._tag}", self._files())
            append(Path(path), page)

    def _files(self) -> list[str]:
        """The files to upload, as paths in the repository."""
        there = [self._root / name for name in _REPORTS if (self._root / name).is_file()]
        there += [self._runs] if self._runs.is_dir() else []
        return [os.path.relpath(path, self._root) for path in there]


def append(path: Path, page: str) -> None:
    """Add the page to a job summary, unless the summary would exceed GitHub's limit."""
    there = path.stat().st_size if path.exists() else 0
    given = page.encode("utf-8", "replace")
    if there + len(given) < SUMMARY_BYTES:
        with path.open("ab") as file:
            file.write(given)


def commands(records: Sequence[Experiment], session: set[int]) -> list[str]:
    """Workflow commands: a notice for each keep, a warning for each class of crash, nothing for discards.

    If there are more of a kind than GitHub shows, the last one says how many are missing.
    """
    keeps = [
        _command("notice", f"kept {one.number:04d}", f"{_measured(one)}: {one.proposal.description}")
        for one in records
        if one.number in session and one.number != BASELINE and _status(one) is Status.KEEP
    ]
    warnings = [
        _command(
            "warning", f"crash: {reason}", f"{_times(count)}, the last was {last.number:04d}: {crash_message(last)}"
        )
        for reason, count, last in crashes(records, session)
    ]
    return [*_at_most(keeps, "notice", "keeps"), *_at_most(warnings, "warning", "classes of crash")]


def outputs(records: Sequence[Experiment], session: set[int], tag: str) -> str:
    """The step's outputs: `tag`, `best`, `best-commit`, and for this session `experiments`, `kept`, `crashed`."""
    line = chain(records)
    mine = [_status(one) for one in records if one.number in session and one.number != BASELINE]
    given = {
        "tag": tag,
        "best": f"{line[-1].metric:.6f}" if line else "",
        "best-commit": line[-1].commit if line else "",
        "experiments": len(mine),
        "kept": mine.count(Status.KEEP),
        "crashed": mine.count(Status.CRASH),
    }
    return "".join(f"{name}={value}\n" for name, value in given.items())


def _at_most(given: list[str], level: str, what: str) -> list[str]:
    if len(given) <= _MOST:
        return given
    left = len(given) - _MOST + 1
    return [*given[: _MOST - 1], _command(level, f"more {what}", f"{left} more {what} are in the summary")]


def _command(level: str, title: str, message: str) -> str:
    """One annotation; in its properties, commas and colons are escaped as well."""
    escaped = _data(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={escaped}::{_data(message)}"


def _data(words: str) -> str:
    return harmless(one_line(words)[:_TEXT]).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _measured(experiment: Experiment) -> str:
    return f"{experiment.metric_name} {experiment.metric:.6f}, {experiment.metric - experiment.best:+.6f}"


def _status(experiment: Experiment) -> Status | None:
    return experiment.verdict.status if experiment.verdict else None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
