"""Encodes and decodes an experiment's record as JSON. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from cattrs import Converter
from cattrs.gen import make_dict_unstructure_fn

from pytest_autoresearch.core.experiment import Constant, Experiment, Reason
from pytest_autoresearch.core.run import Crash, Limits, Run
from pytest_autoresearch.core.setting import Setting

SCHEMA = 1
_LOG_CHARACTERS = 2000  # the record of a crash explains it without the log file, which may be deleted

# The order in the document. Proposal, verdict and decision are not nested.
_FIELDS = (
    "schema", "number", "tag", "status", "reason", "message", "commit", "base", "made_on", "tree", "program",
    "description", "hypothesis", "proposer", "source", "parameters", "repeats", "expected", "area",
    "metric_name", "direction", "metric", "best", "gain", "margin", "decided", "evidence", "probability", "rule",
    "refusal", "runs", "limits", "setting", "program_hash", "repairs", "usage", "constants", "simpler", "comparable",
    "lines_added", "lines_removed", "notes", "planned_number", "timings", "finished_at",
    "share", "heard",
)  # fmt: skip
_LATER = (  # missing in records of earlier versions
    "program", "expected", "area", "decided", "evidence", "probability", "rule", "repairs", "usage", "constants",
    "simpler", "comparable", "lines_added", "lines_removed", "notes", "made_on", "share", "heard",
)  # fmt: skip
_IF_GIVEN = ("made_on", "share", "heard")
_LATER_OF_RUNS = (
    "block", "scored", "startup_cpu_seconds", "began_at", "node", "total_memory_mb", "startup_gpu_seconds",
)  # fmt: skip
_LATER_LIMITS = ("startup_cpu_seconds", "startup_gpu_seconds")
_LATER_CONDITIONS = ("rows", "command", "environment", "readable", "python", "packages", "driver")
_REQUIRED = [name for name in _FIELDS if name not in (*_LATER, "metric")]  # `metric` is computed from the runs
_NO_VERDICT = {"status": None, "reason": None, "message": None, "gain": None}

T = TypeVar("T")


def encode(experiment: Experiment) -> str:
    """The JSON document of an experiment's record."""
    nested = to_json(experiment)
    flat = nested | nested["proposal"] | nested["decision"] | (nested["verdict"] or _NO_VERDICT)
    flat |= {"schema": SCHEMA, "metric": to_json(experiment.metric)}
    # An earlier version's record is written again as it was.
    known = {name: flat[name] for name in _FIELDS if name not in _IF_GIVEN or flat[name]}
    return json.dumps(known, indent=1, allow_nan=False)


def as_recorded(experiment: Experiment) -> Experiment:
    """The experiment with what its record keeps of its logs: the end of that of a crash."""
    return replace(experiment, runs=tuple(replace(run, log=_recorded_log(run)) for run in experiment.runs))


def decode(text: str) -> Experiment:
    """The experiment of a document that `encode` wrote.

    Raises:
        ValueError: The text is no record, or has an unknown schema.
    """
    flat = document(text, SCHEMA, "record", _REQUIRED)
    verdict = None if flat["status"] is None else flat
    return from_json({**flat, "proposal": flat, "decision": flat, "verdict": verdict}, Experiment)


# ------------------------------------------------------------------------------------------- for every kind of record


def to_json(value: Any) -> Any:
    """A value as plain JSON data; infinities and NaN become strings, because standard JSON has no such numbers."""
    return _converter.unstructure(value)


def document(text: str, schema: int, name: str, required: Iterable[str]) -> dict[str, Any]:
    """The parsed JSON document of a record.

    Raises:
        ValueError: The text is no such document, a required field is missing, or the schema is another one.
    """
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"not a {name}")
    if found.get("schema") != schema:
        raise ValueError(f"{name} schema {found.get('schema')}: this version of pytest-autoresearch reads {schema}")
    if missing := [field for field in required if field not in found]:
        raise ValueError(f"not a {name}: it lacks {', '.join(missing)}")
    return found


def from_json(value: Any, kind: type[T]) -> T:
    """The inverse of `to_json`. Unknown fields are ignored.

    Raises:
        ValueError: The data does not fit the type.
    """
    try:
        return _converter.structure(value, kind)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a record: {error!r}") from error


def _only(value: Any, kind: type[T]) -> T:
    """The value, which must have the type already."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} instead of {kind.__name__}")
    return value


def _recorded_log(run: Run) -> str:
    return run.log[-_LOG_CHARACTERS:] if run.crash else ""


def _run_to_json(run: Run) -> dict[str, Any]:
    """Without later fields that are empty, so that an earlier version's record is written again as it was."""
    found = _run_as_it_is(run) | {"log": _recorded_log(run)}
    return {name: value for name, value in found.items() if name not in _LATER_OF_RUNS or value not in ("", None)}


def _limits_to_json(limits: Limits) -> dict[str, Any]:
    """Without a limit of a later version that is infinite, so that an earlier record is written again as it was."""
    found = _limits_as_they_are(limits)
    return {name: value for name, value in found.items() if name not in _LATER_LIMITS or value != "inf"}


def _setting_to_json(setting: Setting) -> dict[str, Any]:
    """Without the later conditions that are unknown, so that an earlier version's record is written again as it was."""
    found = _setting_as_it_is(setting)
    return {name: value for name, value in found.items() if name not in _LATER_CONDITIONS or value not in ("", None)}


def _crash_to_json(crash: Crash) -> dict[str, str]:
    return {"reason": crash.reason, "message": crash.message}


def _crash_from_json(value: Any, _: object) -> Crash:
    return Crash.of(_only(value["reason"], str), _only(value["message"], str))


_NOT_FINITE = ("nan", "inf", "-inf")
_converter = Converter(detailed_validation=False)
_converter.register_structure_hook_func(lambda kind: kind in (str, int, bool), _only)
_converter.register_structure_hook(Constant, lambda value, _: float(value) if value in _NOT_FINITE else value)
_converter.register_unstructure_hook(float, lambda value: value if math.isfinite(value) else str(value))
_converter.register_structure_hook(Crash, _crash_from_json)
_converter.register_unstructure_hook(Crash, _crash_to_json)
_converter.register_structure_hook(Reason | None, lambda value, _: Reason(value) if value else None)
_converter.register_unstructure_hook(Reason | None, lambda value: value or "")
_run_as_it_is = make_dict_unstructure_fn(Run, _converter)
_converter.register_unstructure_hook(Run, _run_to_json)
_limits_as_they_are = make_dict_unstructure_fn(Limits, _converter)
_converter.register_unstructure_hook(Limits, _limits_to_json)
_setting_as_it_is = make_dict_unstructure_fn(Setting, _converter)
_converter.register_unstructure_hook(Setting, _setting_to_json)
