"""The four things that a model may call, as the service is told of them, and its calls read back. Pure.

A strict schema holds the model to its form where the service knows how; a gateway may not, so every call is read as
if nothing had been promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_autoresearch.proposers.edits import TextEdit, WholeFile

NOTES_BYTES = 4000

REPLY = (
    "Answer with one call of the tool `propose`; nobody reads other text. Change files by `edits`: each replaces a "
    "text that occurs exactly once in its file as it then stands. Send a file as a whole, in `files`, only when most "
    "of it changes. Before that you may `look` at earlier experiments, several at a time, and rewrite your notes with "
    "`write_notes`."
)
_REPAIR = "Answer with one call of the tool `propose`, or of `give_up` to drop the idea."
EDIT_STANDS = f"Your edit stands in the files: send what else has to change in them as they are now. {_REPAIR}"
EDIT_GONE = f"Your edit is not in the files: make the whole edit. {_REPAIR}"


class CallError(Exception):
    """A call that cannot be understood; the text says why, for the model."""


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
    """The idea is dropped."""

    reason: str


@dataclass(frozen=True, slots=True)
class Look:
    """At an earlier experiment."""

    number: int


@dataclass(frozen=True, slots=True)
class WriteNotes:
    """The notes are to be these."""

    text: str


Call = Propose | GiveUp | Look | WriteNotes


def read_call(name: str, given: Mapping[str, Any]) -> Call:
    """What a call asks for.

    Raises:
        CallError: There is no such tool, or something is missing or of another type.
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
            raise CallError(f"the notes have {size:,} bytes and at most {NOTES_BYTES:,} are kept: write them shorter")
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
    """A strict schema: all of these and nothing else."""
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False
    }  # fmt: skip


def _objects(description: str, /, **properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "description": description, "items": _object(**properties)}


def _tool(name: str, description: str, /, **properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "description": description, "strict": True, "input_schema": _object(**properties)}


# Always in this order: the prompt cache begins with them.
TOOLS: tuple[dict[str, Any], ...] = (
    _tool(
        "propose",
        "Propose the next experiment: change the editable files. All edits are made or, where one of them cannot be "
        "made, none. After a failure, edits are against the files as your failed proposal left them; with no edits and "
        "no files, the same proposal is made once more.",
        edits=_objects(
            "Replacements, made in this order; empty where there are none.",
            path=_string("The file, as the prompt names it."),
            old=_string("The text to replace, exactly as it stands in the file, where it must occur exactly once."),
            new=_string("The text to put in its place."),
        ),
        files=_objects(
            "Files written anew, none of which may be edited as well; empty where there are none.",
            path=_string("The file, as the prompt names it."),
            text=_string("Its whole text."),
        ),
        description=_string("One line that says what the change is; it is shown in the list of all experiments."),
        hypothesis=_string("Why it should help."),
        expected=_string("What it should do to the metric, as a number where you can; empty where you cannot say."),
        area=_string("The direction of program.md that it belongs to; empty where there is none."),
    ),
    _tool(
        "give_up",
        "Drop the idea that failed, because it cannot be put right. Only an answer to a failure.",
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
        f"text takes the place of the old one; at most {NOTES_BYTES:,} bytes.",
        text=_string("The notes."),
    ),
)
