"""What to type where there is no repository, or nothing in it yet."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from pytest_autoresearch.core.errors import NoRepository, UserError
from pytest_autoresearch.ledger.git import Git


def nothing_committed(git: Git) -> str:
    """The error message for a HEAD without commits.

    A clone of a repository that received only a campaign has the campaign's branch, but nothing is checked out. A first
    commit there would share no history with the campaign, so the message names the branch.
    """
    campaigns = ("refs/heads/autoresearch/", "refs/remotes/*/autoresearch/*", "refs/autoresearch/*/0000")
    said = git("for-each-ref", "--sort=-committerdate", "--count=1", "--format=%(refname)", *campaigns)
    if said:
        mine = git.ask("symbolic-ref", "--short", "HEAD") or "main"
        campaign = re.sub("^refs/(heads|remotes)/", "", said)
        return f"nothing is checked out here yet: type `git switch -c {mine} {campaign}` first"
    if remotes := git("remote").split():
        return (
            f"nothing is committed here yet: type `git fetch {remotes[0]}` first to get the repository from there, "
            "or else `git add -A && git commit -m baseline`"
        )
    return "nothing is committed yet: type `git add -A && git commit -m baseline` first"


def no_repository(root: Path, said: str) -> UserError:
    """The error for git's message, which must be in the C locale: git has one exit status for all of these errors."""
    if distrusted := re.search(r"dubious ownership in repository at '(.*)'", said):
        top = shlex.quote(distrusted[1])
        return UserError(f"git does not trust {root}: type `git config --global --add safe.directory {top}` first")
    if "must be run in a work tree" in said:
        return UserError(f"{root} is a bare git repository: run pytest in a checkout of it")
    if "not a git repository" not in said:
        return UserError(f"git cannot work in {root}: {said.splitlines()[0]}: fix this first")
    return NoRepository(
        f"{root} is not a git repository: type `git init && git add -A && git commit -m baseline` first"
    )
