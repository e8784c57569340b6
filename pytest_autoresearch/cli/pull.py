"""`autoresearch pull`: a campaign from a remote. What may be taken over is decided in `remotes`."""

from __future__ import annotations

import argparse

from pytest_autoresearch.cli import output, push
from pytest_autoresearch.cli.repository import Repository, here
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.ledger import remotes


def arguments(parser: argparse.ArgumentParser) -> None:
    push.arguments(parser)
    parser.epilog = (
        "Plain git underneath: the branch autoresearch/TAG and refs/autoresearch/TAG/*. No record is replaced, the\n"
        "branch never moves backwards, and nothing moves while a session of the campaign runs here. Without --tag it\n"
        "is the campaign that was worked on here last, else the only one that the remote has."
    )


def command(given: argparse.Namespace) -> int:
    """0 when everything of the remote is here."""
    repository = here(given)
    ratchet = repository.ratchet
    remote = remotes.remote_of(ratchet.git, given.remote)
    sides = remotes.look(ratchet.git, remote)
    tag = remotes.choose(sides, remote, given.tag or _known(repository))
    ratchet.choose(tag, may_be_here=True)
    moved = remotes.pull(ratchet, remote, sides[tag])
    if given.json:
        output.dump(push.document(tag, remote, moved))
        return 0
    if moved.records or moved.advanced:
        print(f"pulled {push.said(tag, moved)} from {output.line(remotes.shown(remote))}")
    else:
        print(f"all of campaign {tag} at {output.line(remotes.shown(remote))} is here already")
    print(f"go on with: pytest --autoresearch --autoresearch-tag {tag}")
    return 0


def _known(repository: Repository) -> str:
    """The campaign that is meant here where none was named; empty where there is none."""
    if repository.settings.tag:
        return repository.settings.tag
    try:
        return repository.choose(None)
    except UserError:
        return ""
