"""The permanent account of an experiment as JSON: `encode` and `decode`. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pytest_autoresearch.core.experiment import (
    Direction,
    Experiment,
    Proposal,
    Repair,
    Setting,
    Status,
    Usage,
    Verdict,
)
from pytest_autoresearch.core.run import Crash, Limits, Run

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
