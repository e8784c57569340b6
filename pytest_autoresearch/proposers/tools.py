"""The four tools of the model: their schemas for the service, and the parsing of calls. Pure.

The schemas are strict, but a gateway may not enforce them, so every call is checked again here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_autoresearch.proposers.edits import TextEdit, WholeFile

NOTES_BYTES = 4000

REPLY = (
    "Answer with one call of the tool `propose`; nobody reads other text. Change files with `edits`: each replaces a "
    "text that occurs exactly once in the file at that point. Send a whole file, in `files`, only if most of it "
    "changes. Before that, you may `look` at earlier experiments, several at a time, and rewrite your notes with "
    "`write_notes`."
)
_REPAIR = "Answer with one call of the tool `propose`, or of `give_up` to drop the idea."
EDIT_STANDS = f"Your edit is still in the files: send only the further changes. {_REPAIR}"
EDIT_GONE = f"Your edit is not in the files: send the whole edit again. {_REPAIR}"


class CallError(Exception):
    """An invalid call; the text says why, for the model."""


@dataclass(frozen=True, slots=True)
class Propose:
    """A proposal, in the model's words."""

    edits: tuple[TextEdit, ...]
    files: tuple[WholeFile, ...]
    description: str
    hypothesis: str
    expected: str
    area: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Drops the idea."""

    reason: str


@dataclass(frozen=True, slots=True)
class Look:
    """Looks at an earlier experiment."""

    number: int


@dataclass(frozen=True, slots=True)
class WriteNotes:
    """Replaces the notes."""

    text: str


Call = Propose | GiveUp | Look | WriteNotes


def read_call(name: str, given: Mapping[str, Any]) -> Call:
    """Parse a call.

    Raises:
        CallError: The tool is unknown, or an argument is missing or has the wrong type.
    """
    if name not in (tool["name"] for tool in TOOLS):
        known = ", ".join(str(tool["name"]) for tool in TOOLS)
        raise CallError(f"there is no tool {name[:50]!r}; there are {known}")
    if name == "look":
        number = given.get("number")
        if not isinstance(number, int) or isinstance(number, bool):
            raise CallError("number: give the number of an experiment")
        return Look(number)
    if name == "write_notes":
        text = _text(given, "text")
        if (size := len(text.encode())) > NOTES_BYTES:
            raise CallError(f"the notes have {size:,} bytes, but at most {NOTES_BYTES:,} are kept: shorten them")
        return WriteNotes(text)
    if name == "give_up":
        return GiveUp(_text(given, "reason", needed=False))
    edits = tuple(TextEdit(_text(one, "path"), _text(one, "old"), _text(one, "new")) for one in _list(given, "edits"))
    files = tuple(WholeFile(_text(one, "path"), _text(one, "text")) for one in _list(given, "files"))
    if not _text(given, "description").strip():
        raise CallError("description: say in one line what the change is")
    said = (_text(given, name, needed=False) for name in ("hypothesis", "expected", "area"))
    return Propose(edits, files, _text(given, "description"), *said)


def _text(given: Mapping[str, Any], name: str, needed: bool = True) -> str:
    value = given.get(name, None if needed else "")
    if not isinstance(value, str):
        raise CallError(f"{name}: {'a text is missing' if value is None else 'give a text'}")
    return value


def _list(given: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = given.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise CallError(f"{name}: give a list of objects")
    return value


def _string(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """A strict schema: exactly these properties, all required."""
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False
    }  # fmt: skip


def _objects(description: str, /, **properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "description": description, "items": _object(**properties)}


def _tool(name: str, description: str, /, **properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "description": description, "strict": True, "input_schema": _object(**properties)}


# The order must not change: the prompt cache begins with the tools.
TOOLS: tuple[dict[str, Any], ...] = (
    _tool(
        "propose",
        "Propose the next experiment: change the editable files. If one edit is impossible, none is made. After a "
        "failure, edits apply to the files of your failed proposal; without edits and files, the same proposal is made "
        "again.",
        edits=_objects(
            "Replacements, made in this order; may be empty.",
            path=_string("The file, as named in the prompt."),
            old=_string("The text to replace, exactly as in the file, where it must occur exactly once."),
            new=_string("The new text."),
        ),
        files=_objects(
            "Whole files to write; a file may not be in both `files` and `edits`; may be empty.",
            path=_string("The file, as named in the prompt."),
            text=_string("Its whole text."),
        ),
        description=_string("The change in one line, shown in the list of all experiments."),
        hypothesis=_string("Why it should help."),
        expected=_string("The expected effect on the metric, as a number if possible; may be empty."),
        area=_string("The direction in program.md that it belongs to; may be empty."),
    ),
    _tool(
        "give_up",
        "Drop the failed idea, because it cannot be fixed. Only as an answer to a failure.",
        reason=_string("Why."),
    ),
    _tool(
        "look",
        "Look at an earlier experiment: its record, its diff, its curve and the end of its log.",
        number={"type": "integer", "description": "Its number."},
    ),
    _tool(
        "write_notes",
        "Rewrite the notes that are shown with every later proposal: what you have learned and want to try. The new "
        f"text replaces the old one; at most {NOTES_BYTES:,} bytes.",
        text=_string("The notes."),
    ),
)
