"""`autoresearch show`: everything about one experiment; its diff and its logs on request."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.account import sections
from pytest_autoresearch.cli.repository import Repository, here, tag_argument
from pytest_autoresearch.core.artifacts import logs
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Experiment, Status
from pytest_autoresearch.core.history import chain, taken_back
from pytest_autoresearch.core.records import encode
from pytest_autoresearch.ledger.git import PATCH

_COLOURS = {Status.KEEP: "green", Status.CRASH: "red"}
_LOG_BYTES = 4 * 1024 * 1024

_EPILOG = """examples:
  autoresearch show 17               also 0017, a commit such as 3f2a9c1, `best` or `last`
  autoresearch show 17 --diff        with its diff against the commit that it started from
  autoresearch show 17 --log         with the output of its runs
  autoresearch show 17 --json        its record; docs/reference.md lists the fields

With --json, --diff and --log add the fields `diff` and `logs`. Invisible characters in a diff or a
log are shown as code points.

exit status: 0; 2 if there is no such campaign or experiment."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `show`."""
    parser.epilog = _EPILOG
    tag_argument(parser, plain=False)
    parser.add_argument("experiment", metavar="NNNN", help="its number, its commit (may be shortened), best or last")
    parser.add_argument("--diff", action="store_true", help="with its diff")
    parser.add_argument("--log", action="store_true", help="with the logs of its runs")


def command(given: argparse.Namespace) -> int:
    """Print one experiment."""
    repository = here(given)
    records = repository.records(given.tag)
    experiment = find(records, given.experiment)
    change = _change(repository, experiment) if given.diff else None
    logs = _logs(repository, experiment) if given.log else None
    if given.json:
        document = json.loads(encode(experiment))
        folder = repository.settings.artifacts(experiment)
        document["artifacts"] = str(folder) if folder.is_dir() else None
        more = {"diff": change, "logs": logs}
        output.dump(document | {name: value for name, value in more.items() if value is not None})
        return 0
    _print(repository, records, experiment, near=given.folder == Path())
    if change is not None:
        _title("change")
        print("\n".join(_painted(change)) if change else "none: it has no commit of its own")
    for name, text in (logs or {}).items():
        _title(output.line(name))
        print(text)
    if logs == {}:
        _title("log")
        print("none: nothing was run, or the files are gone")
    return 0


def find(records: Sequence[Experiment], text: str) -> Experiment:
    """Find an experiment by its number, by the beginning of its commit, or as `best` or `last`.

    Raises:
        UserError: No experiment or several match.
    """
    if text == "last":
        return records[-1]
    if text == "best":
        if line := chain(records):
            return line[-1]
        raise UserError("nothing is kept yet, so there is no best")
    if text.isdecimal() and text.isascii():
        for record in records:
            if record.number == int(text):
                return record
    if re.fullmatch(r"[0-9a-f]{4,64}", text.casefold()):
        found = [record for record in records if record.commit.startswith(text.casefold())]
        own = [record for record in found if record.commit != record.base or not record.number]
        if len({record.commit for record in found}) == 1:
            return (own or found)[0]  # a refused experiment has the commit of its base
        if found:
            names = ", ".join(f"{record.commit[:10]} ({record.number:04d})" for record in found[:5])
            raise UserError(f"{text} matches several commits: {names}; type more characters")
    raise UserError(
        f"there is no experiment {text} in the campaign {records[0].tag}: it has {records[0].number:04d} to "
        f"{records[-1].number:04d}; type `autoresearch results --tag {records[0].tag}` to list them"
    )


def _print(repository: Repository, records: Sequence[Experiment], experiment: Experiment, near: bool) -> None:
    """Print everything except the diff and the logs. `near`: show paths relative to the current folder."""
    ruling = experiment.verdict
    status = ruling.status if ruling else None
    print(
        output.colour(f"experiment {experiment.number:04d} of {experiment.tag}: ", "bold")
        + output.colour(status or "no verdict", _COLOURS.get(status, "bold") if status else "")
        + _taken_back(records, experiment)
    )
    known = {record.commit: record.number for record in records if record.commit != record.base or not record.number}
    folder = repository.settings.artifacts(experiment)
    where = (os.path.relpath(folder) if near else str(folder)) if folder.is_dir() else "not on this machine"
    several = len({run.lane for record in records for run in record.runs}) > 1
    for heading, text in sections(experiment, known, where, several_lanes=several):
        print(f"\n{output.colour(heading, 'bold')}" if heading else "")
        print(text)


def _taken_back(records: Sequence[Experiment], experiment: Experiment) -> str:
    """That this keep is no longer on the branch, and which record says why; empty if it is."""
    if experiment.commit not in taken_back(records):
        return ""
    line = [record for record in records if record.refutes == experiment.commit]
    return f", taken back: see {line[0].number:04d}" if line else ", taken back with the keep that it was made from"


def _title(text: str) -> None:
    print(f"\n{output.colour(text, 'bold')}")


def _change(repository: Repository, experiment: Experiment) -> str:
    if experiment.commit == experiment.base:
        return ""
    return output.change(repository.ratchet.git("diff", *PATCH, experiment.base, experiment.commit))


def _painted(change: str) -> list[str]:
    """The diff in git's colours. Git's own colours would be removed together with untrusted escapes."""
    colours = {"+": "green", "-": "red", "@": "cyan"}
    head, lines = True, []
    for line in change.split("\n"):
        head = not line.startswith("@@") and (head or line.startswith("diff --git "))
        lines.append(output.colour(line, "bold" if head else colours.get(line[:1], "")))
    return lines


def _logs(repository: Repository, experiment: Experiment) -> dict[str, str]:
    """Its logs by name, in the order in which they were written; from the record if the files are gone."""
    folder = repository.settings.artifacts(experiment)
    try:
        return {path.name: _text(path) for path in logs(folder)} or _recorded(experiment)
    except OSError as error:
        raise UserError(f"the logs in {folder} cannot be read: {error.strerror}") from None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return output.visible(file.read(_LOG_BYTES).decode("utf-8", "replace"))


def _recorded(experiment: Experiment) -> dict[str, str]:
    return {f"run {n}, the end": output.visible(run.log) for n, run in enumerate(experiment.runs, 1) if run.log.strip()}
