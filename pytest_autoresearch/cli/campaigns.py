"""`autoresearch campaigns`: every campaign of a repository in one line; deletes one."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.output import Column
from pytest_autoresearch.cli.repository import Repository, here
from pytest_autoresearch.cli.rows import moment
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import BASELINE
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.ledger import removal
from pytest_autoresearch.session import live

_EPILOG = """Shows the campaign that was worked on last first. --delete removes the branch and the records of a
campaign, and asks you to type its tag. It keeps both in a bundle below `.git/autoresearch/removed`,
and prints the command that brings them back. Logs and patches under experiments/runs stay.

exit status: 0; 1 if there is no campaign; 2 if it cannot be deleted"""


@dataclass(frozen=True, slots=True)
class _Campaign:
    """One campaign.

    Attributes:
        head: The commit of its branch.
        best: The metric of the best program; None before the baseline.
        last: When its last experiment ended, in seconds since the epoch.
        pid: The process of the session that runs; None if none does.
    """

    tag: str
    head: str
    experiments: int
    kept: int
    metric_name: str
    best: float | None
    last: float
    pid: int | None

    @property
    def document(self) -> dict[str, Any]:
        return {
            "tag": self.tag, "head": self.head, "experiments": self.experiments, "kept": self.kept,
            "metric_name": self.metric_name, "best": self.best, "last_used": moment(self.last), "pid": self.pid,
        }  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `campaigns`."""
    parser.epilog = _EPILOG
    parser.add_argument("--delete", metavar="TAG", help="delete this campaign, after its tag was typed")
    parser.add_argument("--yes", action="store_true", help="with --delete: do not ask")


def command(given: argparse.Namespace) -> int:
    """List the campaigns, or delete one."""
    repository = here(given)
    if given.delete:
        return _delete(repository, given)
    if given.yes:
        raise UserError("--yes goes with --delete TAG")
    found = _campaigns(repository)
    if given.json:
        output.dump([one.document for one in found])
    elif found:
        print(_table(found))
    else:
        print("no campaign yet: type `pytest --autoresearch` to begin one")
    return 0 if found else 1


def _campaigns(repository: Repository) -> list[_Campaign]:
    running = {one["tag"]: int(one["pid"]) for one in live.sessions(repository.settings.experiments_folder)}
    found = []
    for tag, last in repository.ratchet.campaigns().items():
        records = repository.records(tag)
        line = chain(records)
        found.append(
            _Campaign(
                tag, line[-1].commit if line else "", sum(one.number != BASELINE for one in records),
                max(0, len(line) - 1), records[0].metric_name, line[-1].metric if line else None, last,
                running.get(tag),
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: -one.last)


def _table(found: list[_Campaign]) -> str:
    columns = [
        (Column("campaign"), [one.tag for one in found]),
        (Column("head"), [one.head[:7] for one in found]),
        (Column("experiments", right=True), [str(one.experiments) for one in found]),
        (Column("kept", right=True), [str(one.kept) for one in found]),
        (Column("best", right=True), ["" if one.best is None else f"{one.best:.6f}" for one in found]),
        (Column("metric"), [output.cut(one.metric_name, 16) for one in found]),
        (Column("last used"), [time.strftime("%Y-%m-%d %H:%M", time.localtime(one.last)) for one in found]),
        (Column("running"), ["" if one.pid is None else f"process {one.pid}" for one in found]),
    ]
    return output.told(columns)


def _delete(repository: Repository, given: argparse.Namespace) -> int:
    tag = repository.choose(given.delete)
    count = len(repository.ratchet.records())
    if not given.yes:
        if not sys.stdin.isatty():
            raise UserError(f"nobody is here to type the tag: add --yes to delete the campaign {tag}")
        typed = input(f"type {tag} to delete its branch and its {count} records: ")
        if typed.strip() != tag:
            raise UserError(f"{typed.strip()!r} is not {tag}: nothing was deleted")
    bundle = removal.remove(repository.ratchet, tag)
    if given.json:
        output.dump({"tag": tag, "records": count, "bundle": str(bundle)})
    else:
        print(f"deleted the campaign {tag}: {count} records, which are kept in {bundle}")
        print(f"to bring it back: {removal.to_restore(bundle)}")
    return 0
