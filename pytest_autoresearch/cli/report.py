"""`autoresearch report`: a campaign's page and picture, from its records and log files."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.repository import Repository, here, tag_argument
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import BASELINE
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.reports.page import About, gather, pieces
from pytest_autoresearch.reports.page.writer import PAGE, PICTURE, check, write
from pytest_autoresearch.reports.progress import MISSING, available, draw
from pytest_autoresearch.reports.summary import plural
from pytest_autoresearch.session import live


def arguments(parser: argparse.ArgumentParser) -> None:
    """The campaign, and the output file."""
    parser.description = (
        f"Write a campaign as one page that needs no network, and as a picture, {PICTURE}.\n"
        "A session writes the page itself while it runs; this command reads every log and diff again."
    )
    tag_argument(parser)
    parser.add_argument(
        "--output", type=_target, metavar="FILE",
        help=f"the page, or with a trailing slash a folder for both ({PAGE} beside results.tsv)",
    )  # fmt: skip


def command(given: argparse.Namespace) -> int:
    """Write both files; without matplotlib only the page, and a note."""
    start = Path.cwd()
    repository = here(given)
    records = [record for record in repository.records(given.tag) if record.verdict is not None]
    ratchet = repository.ratchet
    if not records:
        raise UserError(f"the campaign {ratchet.tag} has no judged experiment yet: type `pytest --autoresearch`")
    target = start / given.output if given.output else repository.root / PAGE
    target = target / PAGE if target.is_dir() else target
    picture = target.with_name(PICTURE) if available() else None
    for path in (target, picture):
        if path is not None:
            check(path)  # before any work
    found = {one.number: artifact for one, artifact in gather(records, ratchet.git, repository.settings.artifacts)}
    audited = audit.of(ratchet.audits(), chain(records))
    about = About(*_running(repository), time.time(), audit.sentence(audited) if audited else "")
    try:
        if target.name == PAGE:
            target.parent.mkdir(parents=True, exist_ok=True)
        write(target, pieces(records, found, about))
        if picture is not None:
            draw(records, picture)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}): choose another --output") from None
    size, count = target.stat().st_size, sum(record.number != BASELINE for record in records)
    if given.json:
        output.dump({
            "tag": ratchet.tag, "experiments": count, "page": str(target), "bytes": size,
            "picture": str(picture) if picture else None,
        })  # fmt: skip
    else:
        print(f"{target}: {plural(count, 'experiment')}, {size / 1e6:.1f} MB; open it in a browser")
        if picture is not None:
            print(picture)
    if picture is None:
        print(f"autoresearch report: {MISSING}", file=sys.stderr)
    return 0


def _target(text: str) -> Path:
    """The page's path; a path with a trailing slash is a folder, which need not exist yet."""
    return Path(text, PAGE) if text.endswith("/") else Path(text)


def _running(repository: Repository) -> tuple[bool, str]:
    """Whether a session of the campaign is running, so that the page is not final; where it is, if it says so."""
    try:
        with repository.ratchet.alone():
            return False, ""
    except UserError:
        session = live.session(repository.settings.campaign_artifacts(repository.ratchet.tag))
        return True, session["position"]["text"] if session else ""
