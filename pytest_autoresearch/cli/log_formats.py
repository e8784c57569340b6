"""Reads the text of a log of experiments as headings and rows of text: TSV, CSV, JSON, JSON lines, a Markdown table.

Knows the formats, and the lines in which a log says what its metric is and which way it improves; what the columns
mean is `log_columns`.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_autoresearch.core.experiment import Direction

_HIGHER = ("higher", "up", "max", "maximize", "maximise")
_LOWER = ("lower", "down", "min", "minimize", "minimise")
_WAY = "|".join((*_HIGHER, *_LOWER))
# `# metric_direction: higher_is_better` above the header, and `# metric: val_loss (lower is better)`
_TOLD = re.compile(rf"direction\W+({_WAY})(?![a-z])|(?<![a-z])(higher|lower)[ _-]is[ _-]better")
_RULE = re.compile(r"\|?[\s:|-]*-[\s:|-]*")  # the line below the headings of a Markdown table
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Log:
    """A log as text.

    Attributes:
        names: The headings, as `heading` writes them.
        rows: One text for each heading, in the order of the file.
        metric: The heading of the metric or its name, if the log says so, else empty.
        direction: Which way it improves, if the log says so.
    """

    names: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    metric: str = ""
    direction: Direction | None = None


def heading(text: str) -> str:
    """A heading in the form in which headings are compared: `Val BPB`, `valBpb` and `val_bpb` are the same."""
    parts = re.sub(r"[^\w%/@.+-]+", "_", _HUMP.sub("_", text.strip())).strip("_").casefold()
    return parts or text.strip()


def parse(data: bytes) -> Log:
    """The log in a file; without headings if there are none."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # some shells write UTF-16 for `>`
    text = data.decode("utf-16" if wide else "utf-8-sig", "replace").replace("\0", "")
    lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
    if lines and lines[0].lstrip()[0] in "[{":
        return _of_json(text, lines)
    remarks, lines = _without_remarks(lines)
    fields = _markdown(lines) or _separated(lines)
    head, *body = fields or [[]]
    names = [heading(name) for name in head]
    told = (_TOLD.search(remark.casefold()) for remark in remarks)
    direction = next((_direction(found[1] or found[2]) for found in told if found), None)
    rows = (dict(zip(names, _filled(each, names), strict=True)) for each in body if each != head)
    return Log(tuple(names), tuple(rows), direction=direction)


# ------------------------------------------------------------------------------------------------ tables


def _without_remarks(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Lines such as `# metric_direction: lower`, and the others; a header may begin with a `#`, too."""
    tabs = any("\t" in line for line in lines if not line.startswith("#"))
    remark = re.compile(r"#[^\t]*" if tabs else r"#[^,;|\t]*(?:[:=(].*)?")
    rest = [line for line in lines if not remark.fullmatch(line)]
    return [line for line in lines if remark.fullmatch(line)], [line.lstrip("# ") for line in rest[:1]] + rest[1:]


def _separated(lines: Sequence[str]) -> list[list[str]]:
    """The fields of each line. With tabs, quotes are mostly literal; a file with commas follows the rules of CSV."""
    if not lines:
        return []
    if "\t" not in lines[0] and "\\t" in lines[0]:  # written by `echo`, which leaves \t as it is
        lines = [line.replace("\\t", "\t") for line in lines]
    for comma in (",", ";"):
        if "\t" not in lines[0] and comma in lines[0]:
            return [[field.strip() for field in fields] for fields in csv.reader(lines, delimiter=comma)]
    columns = re.compile("\t" if "\t" in lines[0] else r"\t|\s{2,}")
    return [[_unquoted(field.strip()) for field in columns.split(line.strip(" "))] for line in lines]


def _markdown(lines: Sequence[str]) -> list[list[str]]:
    """The longest Markdown table among the lines; empty if there is none."""
    tables: list[list[list[str]]] = []
    inside = False
    for above, line in zip(["", *lines], lines, strict=False):
        if "|" not in line:
            inside = False
        elif _RULE.fullmatch(line.strip()) and "|" in above:
            tables.append([_cells(above)])
            inside = True
        elif inside:
            tables[-1].append(_cells(line))
    return max(tables, key=len, default=[])


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [re.sub(r"[`*]", "", cell).strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def _unquoted(field: str) -> str:
    if len(field) > 1 and field[0] == field[-1] == '"':
        return field[1:-1].replace('""', '"')
    return field


def _filled(fields: list[str], names: Sequence[str]) -> list[str]:
    """As many fields as names: missing fields are empty, and extra tabs belong to the last field."""
    last = len(names) - 1
    fields = [*fields[:last], " ".join(fields[last:])]
    return fields + [""] * (len(names) - len(fields))


# ------------------------------------------------------------------------------------------------ JSON


def _of_json(text: str, lines: Sequence[str]) -> Log:
    """A list of objects, an object that holds one, or one object on each line. What is no object is an empty row."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = [_object(line) for line in lines]
    settings: list[Mapping[str, Any]] = []
    if isinstance(whole, dict):
        lists = [value for value in whole.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        settings, whole = ([whole], lists[0]) if lists else ([], [whole])
    objects = [one if isinstance(one, dict) else {} for one in whole]
    settings += [one for one in objects if _is_setting(one)]
    rows = [_flat(one) for one in objects if not _is_setting(one)]
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    said = _flat({name: value for one in settings for name, value in one.items() if isinstance(value, str)})
    metric = next((said[name] for name in ("metric_name", "primary_metric", "metric") if said.get(name)), "")
    ways = (_direction(value) for name, value in said.items() if "direction" in name)
    return Log(
        names,
        tuple({name: row.get(name, "") for name in names} for row in rows),
        metric,
        next((way for way in ways if way), None),
    )


def _object(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_setting(one: Mapping[str, Any]) -> bool:
    """Whether an object describes the session, as the first line of some logs does."""
    return any("direction" in heading(name) for name in one) and not {"status", "verdict", "decision"} & set(one)


def _flat(one: Mapping[str, Any]) -> dict[str, str]:
    """The values of an object as text. Numbers of an object in it are `outer.inner`; its texts are left out."""
    found: dict[str, str] = {}
    for name, value in one.items():
        inner = value.items() if isinstance(value, dict) else ()
        found |= {heading(f"{name}.{below}"): _text(part) for below, part in inner if isinstance(part, int | float)}
        if not isinstance(value, dict):
            found[heading(name)] = _text(value)
    return found


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _direction(word: str) -> Direction | None:
    first = re.split(r"[\W_]", word.strip().casefold())[0]
    return Direction.MAXIMIZE if first in _HIGHER else Direction.MINIMIZE if first in _LOWER else None
