"""`autoresearch audit`: runs the first and last commit of a campaign again; prints a difference that may be quoted."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.repository import here, tag_argument
from pytest_autoresearch.cli.signals import noted
from pytest_autoresearch.core.errors import Stopped, UserError
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.run import Progress
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.measure.auditor import Auditor
from pytest_autoresearch.measure.conditions import setting_of
from pytest_autoresearch.measure.setup import equip

_INTERRUPTED = 130
_EPILOG = f"""Trains and scores the first and the last commit of the branch {audit.RUNS} times each, on new seeds,
in the order first, last, last, first and so on, with the limits of the campaign's own runs. If the
harness has rows that no verdict used, it scores on those. Quote the last line; docs/verdict.md says why.

exit status:
  0  an improvement is shown, at p <= {audit.LEVEL:g}
  1  no improvement is shown
  2  an audit is not possible now; one sentence says why
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `audit`."""
    parser.epilog = _EPILOG
    tag_argument(parser)
    parser.add_argument(
        "--runs", type=_runs, default=audit.RUNS, metavar="N", help=f"runs of each of the two commits ({audit.RUNS})"
    )


def command(given: argparse.Namespace) -> int:
    """Audit the campaign."""
    repository = here(given)
    settings, ratchet = repository.settings, repository.ratchet
    records = repository.records(given.tag)
    line = chain(records)
    if not line:
        raise UserError(f"the campaign {ratchet.tag} has no baseline yet: there is nothing to audit")
    equipment = equip(settings, ratchet)
    harness, place = equipment.harness, equipment.place(settings, ratchet)
    setting = setting_of(settings, ratchet, equipment)
    before = audit.of(ratchet.audits(), line)
    ledger = Ledger(ratchet, records, settings.root / "results.tsv", like=line[0])
    watching = _Watching()
    auditor = Auditor(settings, ratchet, harness, setting, ledger, place, watching)
    # With --json, standard output holds only the document.
    heard = sys.stderr if given.json else sys.stdout

    def say(text: str) -> None:
        for one in (*watching.news, text):
            print(output.line(one), file=heard, flush=True)
        watching.news.clear()

    try:
        with noted() as came:
            done = auditor.conduct(given.runs, say, lambda: bool(came))
    except Stopped as stopped:
        for one in (*watching.news, str(stopped)):
            print(f"autoresearch audit: {output.line(one)}", file=sys.stderr)
        return _INTERRUPTED if came else 2
    if given.json:
        output.dump(json.loads(audit.encode(done)))
    else:
        print(audit.sentence(done))
        if before is not None and audit.of(ratchet.audits(), line) == before:
            print("reports quote an earlier audit of these commits: repeating it until it passes proves nothing")
    return 0 if done.shown else 1


class _Watching:
    """Collects the messages of the runs; their progress is not shown."""

    def __init__(self) -> None:
        self.news: deque[str] = deque()

    def note(self, number: int, progress: Progress) -> None: ...

    def note_beside(self, number: int, lane: int, progress: Progress | None) -> None: ...

    def say(self, text: str) -> None:
        self.news.append(text)

    def end(self, why: str, failed: bool = False) -> None:
        self.news.append(why)


def _runs(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < audit.LEAST_RUNS:
        raise argparse.ArgumentTypeError(f"give a whole number, {audit.LEAST_RUNS} or more")
    return count
