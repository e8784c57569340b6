"""`autoresearch pull`: fetch a campaign from a remote. `ledger.remotes` decides what may be taken."""

from __future__ import annotations

import argparse

from pytest_autoresearch.cli import output, push
from pytest_autoresearch.cli.repository import Repository, here
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.ledger import remotes


def arguments(parser: argparse.ArgumentParser) -> None:
    push.arguments(parser)
    parser.epilog = (
        "Uses plain git for the branch autoresearch/TAG and refs/autoresearch/TAG/*. It never replaces a record and\n"
        "never moves the branch backwards. It changes nothing while a session of the campaign runs here. Without\n"
        "--tag, it fetches the campaign worked on here last, else the remote's only campaign."
    )


def command(given: argparse.Namespace) -> int:
    """0 if everything from the remote is here."""
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
        print(f"all of campaign {tag} from {output.line(remotes.shown(remote))} is already here")
    print(f"continue with: pytest --autoresearch --autoresearch-tag {tag}")
    return 0


def _known(repository: Repository) -> str:
    """The campaign to pull if none was named; empty if there is none here."""
    if repository.settings.tag:
        return repository.settings.tag
    try:
        return repository.choose(None)
    except UserError:
        return ""
