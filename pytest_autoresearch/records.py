"""The permanent account of an experiment: its text in git, and `results.tsv` as a view of all of them.

`encode` and `decode` are pure. `ResultsFile` is the only thing here that touches a disk, and what it writes can be
written again from the records at any time.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pytest_autoresearch.experiment import (
    BASELINE,
    Direction,
    Experiment,
    Proposal,
    Repair,
    Setting,
    Status,
    Usage,
    Verdict,
)
from pytest_autoresearch.run import Crash, Limits, Run

SCHEMA = 1
_LOG_CHARACTERS = 2000  # a crash is explained by its record alone; everything else is in the artifacts


def encode(experiment: Experiment) -> str:
    """The JSON document of a record, schema version first.

    Infinities and NaN are strings, so that any JSON reader takes the document.
    """
    verdict = experiment.verdict
    document = {
        "schema": SCHEMA,
        "number": experiment.number,
        "tag": experiment.tag,
        "status": verdict.status if verdict else None,
        "reason": verdict.reason if verdict else None,
        "message": verdict.message if verdict else None,
        "commit": experiment.commit,
        "base": experiment.base,
        "tree": experiment.tree,
        "program": experiment.program,
        **asdict(experiment.proposal),
        "metric_name": experiment.metric_name,
        "direction": experiment.direction,
        "metric": experiment.metric,
        "best": experiment.incumbent,
        "gain": verdict.gain if verdict else None,
        "margin": experiment.margin,
        "decided": experiment.decided,
        "evidence": experiment.evidence,
        "probability": experiment.probability,
        "rule": experiment.rule,
        "refusal": asdict(experiment.refusal) if experiment.refusal else None,
        "runs": [encode_run(run) for run in experiment.runs],
        "limits": asdict(experiment.limits),
        "setting": asdict(experiment.setting),
        "program_hash": experiment.program_hash,
        "repairs": [asdict(repair) for repair in experiment.repairs],
        "usage": asdict(experiment.usage),
        "constants": dict(experiment.constants),
        "simpler": experiment.simpler,
        "comparable": experiment.comparable,
        "lines_added": experiment.lines_added,
        "lines_removed": experiment.lines_removed,
        "notes": experiment.notes,
        "planned_number": experiment.planned_number,
        "timings": dict(experiment.timings),
        "finished_at": experiment.finished_at,
    }
    return json.dumps(finite(document), indent=1, allow_nan=False)


def encode_run(run: Run) -> dict[str, Any]:
    """One run, as it stands in a record."""
    return asdict(run) | {"log": run.log[-_LOG_CHARACTERS:] if run.crash else ""}


def decode(text: str) -> Experiment:
    """The experiment that `encode` wrote.

    Raises:
        ValueError: It is no record, or one of a schema that this version does not know.
    """
    try:
        document: dict[str, Any] = json.loads(text)
        if document["schema"] != SCHEMA:
            raise ValueError(f"record schema {document['schema']}: this version of pytest-autoresearch reads {SCHEMA}")
        return _experiment(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a record: {error!r}") from error


def _experiment(document: Mapping[str, Any]) -> Experiment:
    verdict = None
    if document["status"] is not None:
        verdict = Verdict(
            Status(document["status"]), document["reason"], document["message"], _number(document["gain"])
        )
    return Experiment(
        number=document["number"],
        tag=document["tag"],
        commit=document["commit"],
        base=document["base"],
        tree=document["tree"],
        program=document.get("program", ""),
        proposal=_proposal(document),
        runs=tuple(decode_run(run) for run in document["runs"]),
        limits=Limits(**{name: float(value) for name, value in document["limits"].items()}),
        metric_name=document["metric_name"],
        direction=Direction(document["direction"]),
        incumbent=_number(document["best"]),
        margin=float(document["margin"]),
        decided=document.get("decided", ""),
        evidence=document.get("evidence", ""),
        probability=_number(document.get("probability")),
        rule=document.get("rule", ""),
        refusal=Crash(**document["refusal"]) if document["refusal"] else None,
        verdict=verdict,
        setting=Setting(**document["setting"]),
        program_hash=document["program_hash"],
        repairs=tuple(_repair(repair) for repair in document.get("repairs", ())),
        usage=Usage(**document.get("usage", {})),
        constants={name: _value(value) for name, value in document.get("constants", {}).items()},
        simpler=document.get("simpler", False),
        comparable=document.get("comparable", False),
        lines_added=document.get("lines_added", 0),
        lines_removed=document.get("lines_removed", 0),
        notes=document.get("notes", ""),
        planned_number=document["planned_number"],
        timings={name: float(value) for name, value in document["timings"].items()},
        finished_at=float(document["finished_at"]),
    )


_LATER = ("expected", "area")  # which the proposals of earlier versions do not have


def _proposal(document: Mapping[str, Any]) -> Proposal:
    given = {name: document[name] for name in Proposal.__slots__ if name in document or name not in _LATER}
    return Proposal(**given | {"parameters": {name: _value(value) for name, value in given["parameters"].items()}})


def _repair(document: Mapping[str, Any]) -> Repair:
    return Repair(document["stage"], Crash(**document["crash"]), document["commit"])


def decode_run(document: Mapping[str, Any]) -> Run:
    """The run that `encode_run` gave."""
    # A record of an earlier version lacks what came later, which then is what it was: nothing.
    given = {name: document[name] for name in _RUN_FIELDS if name in document}
    given |= {name: _value(given[name]) for name in _RUN_NUMBERS if name in given}
    given["losses"] = tuple(map(_number, given.get("losses", ())))
    if given.get("others") is not None:
        given["others"] = tuple(given["others"])
    if given.get("throttling") is not None:
        given["throttling"] = {name: float(share) for name, share in given["throttling"].items()}
    given["metrics"] = {name: float(value) for name, value in given["metrics"].items()}
    given["crash"] = Crash(**given["crash"]) if given["crash"] else None
    return Run(**given)


_RUN_FIELDS = tuple(field.name for field in fields(Run))
_RUN_NUMBERS = tuple(field.name for field in fields(Run) if field.type in ("float", "float | None"))


def _value(value: Any) -> Any:
    """A number as it was: infinities and NaN are strings in the document."""
    return float(value) if isinstance(value, str) else value


def finite(value: Any) -> Any:
    """The document with infinities and NaN as strings, which JSON has no numbers for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def _number(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def chain(records: Iterable[Experiment]) -> list[Experiment]:
    """The keeps in the order of the branch, the baseline first.

    Two sessions that share a campaign may keep a lower number after a higher one, so the order is that of the bases.
    """
    keeps = [record for record in records if record.verdict and record.verdict.status is Status.KEEP]
    after = {record.base: record for record in keeps if record.number != BASELINE}
    line = [record for record in keeps if record.number == BASELINE]
    while line and line[-1].commit in after:
        line.append(after.pop(line[-1].commit))
    return line


def untried(records: Iterable[Experiment], waiting: Iterable[Experiment]) -> list[Experiment]:
    """Candidates that are owed a verdict, oldest first.

    Those that a session left without one, and those that were measured against a base that had moved by then; less
    those that a later record repeats. Nothing needs to be deleted to take one off the list.
    """
    done, left = list(records), list(waiting)
    repeated = {candidate.proposal.repeats for candidate in (*done, *left)}
    recorded = {record.commit for record in done}
    stale = [record for record in done if record.verdict and record.verdict.reason == "stale"]
    owed = [*(candidate for candidate in left if candidate.commit not in recorded), *stale]
    return sorted((one for one in owed if one.commit not in repeated), key=lambda candidate: candidate.number)


# ------------------------------------------------------------------------------------------------ results.tsv


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


def one_line(text: str) -> str:
    """The text with every run of white space, line end or control character as one space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


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
