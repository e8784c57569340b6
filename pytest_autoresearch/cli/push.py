"""`autoresearch push`: send a campaign to a remote. `ledger.remotes` decides what may be sent."""

from __future__ import annotations

import argparse

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.repository import here, tag_argument
from pytest_autoresearch.ledger import remotes
from pytest_autoresearch.ledger.remotes import CampaignCopy, Moved


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `push` and of `pull`."""
    parser.add_argument("remote", nargs="?", metavar="REMOTE", help="its name or address (origin, or the only one)")
    tag_argument(parser, plain=False)
    parser.epilog = (
        "Uses plain git: one atomic push of the branch autoresearch/TAG and refs/autoresearch/TAG/*, which never\n"
        "replaces a record. Logs and patches under experiments/runs/ stay on this machine. In a clone,\n"
        "`autoresearch pull` fetches the campaign, and `pytest --autoresearch` continues with the next number."
    )


def command(given: argparse.Namespace) -> int:
    """0 if the remote has everything."""
    repository = here(given)
    tag = repository.choose(given.tag)
    remote = remotes.remote_of(repository.ratchet.git, given.remote)
    sides = remotes.look(repository.ratchet.git, remote)
    moved = remotes.push(repository.ratchet, remote, sides.get(tag, CampaignCopy()))
    if given.json:
        output.dump(document(tag, remote, moved))
    elif not (moved.records or moved.advanced):
        print(f"{output.line(remotes.shown(remote))} already has all of campaign {tag}")
    else:
        print(f"pushed {said(tag, moved)} to {output.line(remotes.shown(remote))}")
    return 0


def document(tag: str, remote: str, moved: Moved) -> dict[str, object]:
    """What was transferred, for programs."""
    return {
        "tag": tag,
        "remote": remotes.shown(remote),
        "records": moved.records,
        "branch": f"autoresearch/{tag}",
        "commit": moved.head or None,
        "advanced": moved.advanced,
    }


def said(tag: str, moved: Moved) -> str:
    """What was transferred, in words."""
    what = f"{remotes.span(moved.records) or 'no experiment'} of campaign {tag}"
    return f"{what}, and the branch autoresearch/{tag} ({moved.head[:7]})," if moved.advanced else what
