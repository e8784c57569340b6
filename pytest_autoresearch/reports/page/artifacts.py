"""Each experiment's diff, training curves and end of log, for the page.

Diffs come from git, many in one command; curves and logs from the experiment's log folder, which may be gone.
Everything is cut to a size limit, so that no program's output can blow up the page. Knows nothing of the display.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.core.errors import GitError
from pytest_autoresearch.core.experiment import Experiment, Status
from pytest_autoresearch.ledger.git import DIFF, Git
from pytest_autoresearch.reports.page.curves import Curve, curve

DIFF_CHARACTERS = 12_000
LOG_CHARACTERS = 3000
LOG_LINES = 40
CURVE_POINTS = 120
CURVES = 6  # of an experiment's processes
_COUNTS = re.compile(r"(merged-\d+-)?(train|baseline|confirm|incumbent)(-|$)")
_LOG_BYTES = 400_000  # more than a log ever has
_AT_ONCE = 64  # diffs in one git command


@dataclass(frozen=True, slots=True)
class Artifact:
    """The files of one experiment that the page shows.

    Attributes:
        diff: Its change against its base, as a patch.
        log: The end of its last process's output.
        curves: The curves of its processes; the first is the screening or baseline run.
    """

    diff: str = ""
    log: str = ""
    curves: tuple[Curve, ...] = ()


NOTHING = Artifact()


def gather(
    records: Sequence[Experiment], git: Git, folder: Callable[[Experiment], Path], seconds: float | None = None
) -> Iterator[tuple[Experiment, Artifact]]:
    """The artifacts of the records, kept ones first, then the newest, until the time is used up.

    Args:
        records: Judged.
        git: Of the repository that has their commits.
        folder: Gives the log folder of an experiment.
        seconds: Time limit; the remaining records are skipped. None for no limit.
    """
    until = None if seconds is None else time.monotonic() + seconds
    ordered = sorted(records, key=lambda one: (not _is_kept(one), -one.number))
    for start in range(0, len(ordered), _AT_ONCE):
        some = ordered[start : start + _AT_ONCE]
        diffs = _diffs(some, git)
        for one in some:
            yield one, _read(one, diffs.get(one.number, ""), folder(one))
            if until is not None and time.monotonic() > until:
                return


def _is_kept(experiment: Experiment) -> bool:
    return experiment.verdict is not None and experiment.verdict.status is Status.KEEP


def _read(experiment: Experiment, diff: str, folder: Path) -> Artifact:
    texts = {path.stem: _text(path) for path in _logs(folder)}
    drawn = (curve(name, text, CURVE_POINTS) for name, text in list(texts.items())[:CURVES])
    crashed = next((run.log for run in reversed(experiment.runs) if run.crash is not None and run.log), "")
    last = list(texts.values())[-1:] or [crashed]
    return Artifact(shortened(diff, DIFF_CHARACTERS), _tail(last[0]), tuple(one for one in drawn if one is not None))


def _logs(folder: Path) -> list[Path]:
    """The logs of measured processes, in the order in which they were written."""
    try:
        found = [path for path in folder.glob("*.log") if _COUNTS.match(path.stem)]
        return sorted(found, key=lambda path: (path.stem != "train", path.stat().st_mtime_ns))
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _tail(text: str) -> str:
    """The last lines. Of consecutive progress lines, which a terminal overwrites, only the last one stays."""
    lines = text.rstrip().splitlines()
    kept: list[str] = []
    for line in reversed(lines):
        if kept and _is_step(line) and _is_step(kept[-1]):
            continue
        kept.append(line.rstrip()[:400])
        if len(kept) == LOG_LINES:
            break
    return "\n".join(reversed(kept))[-LOG_CHARACTERS:]


def _is_step(line: str) -> bool:
    return re.match(r"\s*(\[[^\]]{0,20}\]\s*)?step\b", line, re.IGNORECASE) is not None


def shortened(text: str, most: int) -> str:
    """The patch; if it has more than `most` characters, its beginning and its end, cut at line ends."""
    text = text.strip("\n")
    if len(text) <= most:
        return text
    head = text[: most * 2 // 3].rpartition("\n")[0] or text[: most * 2 // 3]
    tail = text[-most // 3 :].partition("\n")[2]
    return f"{head}\n[... {len(text) - len(head) - len(tail):,} characters left out ...]\n{tail}"


def _diffs(experiments: Iterable[Experiment], git: Git) -> Mapping[int, str]:
    """The diffs by number; empty for commits that git cannot find."""
    changed = [one for one in experiments if one.commit and one.base and one.commit != one.base]
    pairs = dict.fromkeys((one.commit, one.base) for one in changed)
    if not pairs:
        return {}
    try:
        said = git(
            "diff-tree",
            "--stdin",
            "-r",
            *DIFF,
            "--patch",
            stdin="".join(f"{commit} {base}\n" for commit, base in pairs),
        )
        parts = re.split(r"^([0-9a-f]{40,64})$", said, flags=re.MULTILINE)  # no line of a patch matches
        found = {commit: patch.strip("\n") for commit, patch in zip(parts[1::2], parts[2::2], strict=True)}
    except GitError:  # one missing object fails the whole command
        asked = {commit: git.ask("diff", *DIFF, "--patch", base, commit, "--") for commit, base in pairs}
        found = {commit: patch for commit, patch in asked.items() if patch is not None}
    return {one.number: found.get(one.commit, "") for one in changed}
