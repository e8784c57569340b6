"""`autoresearch clean`: what sessions left on the disk and no session uses."""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.output import Column
from pytest_autoresearch.cli.repository import Repository, here
from pytest_autoresearch.core import artifacts
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.ledger import leftovers
from pytest_autoresearch.session import live

_EPILOG = """Lists the worktrees that no session holds, with their caches, and the logs, patches and models of each
campaign below `experiments/runs`. Only --yes deletes them. Records, branches and bundles of deleted
campaigns stay, and so do a proposer's notes and the ideas that it has not tried yet. What a running
session uses is named and left alone. The next session makes the worktrees that it needs.

exit status: 0; 1 if there is nothing to delete; 2 if a named campaign has no files here"""

_MB = 2**20
_WORKTREE, _FILES = "worktree", "files"


@dataclass(frozen=True, slots=True)
class _Found:
    """Something that can be deleted, unless a session uses it.

    Attributes:
        kind: `worktree`, or `files` of a campaign.
        name: Of the worktree or the campaign.
        folders: What would be deleted.
        used: Whether a session uses it.
    """

    kind: str
    name: str
    folders: tuple[Path, ...]
    used: bool

    @property
    def size(self) -> int:
        return sum(map(leftovers.size, self.folders))


def arguments(parser: argparse.ArgumentParser) -> None:
    """The campaigns."""
    parser.description = "List what sessions left on the disk and no session uses, or delete it."
    parser.epilog = _EPILOG
    parser.add_argument("tags", nargs="*", metavar="TAG", help="only the files of these campaigns (everything)")
    parser.add_argument("--yes", action="store_true", help="delete what is listed")


def command(given: argparse.Namespace) -> int:
    """List, or delete."""
    repository = here(given)
    found = [*_files(repository, given.tags), *([] if given.tags else _worktrees(repository))]
    sizes = [(one, one.size) for one in found]
    free = [(one, size) for one, size in sizes if not one.used]
    gone = [(one, size) for one, size in free if given.yes and _delete(repository, one)]
    if given.json:
        deleted = [one for one, _ in gone]
        rows = [
            {"kind": one.kind, "name": one.name, "bytes": size, "used": one.used, "deleted": one in deleted}
            for one, size in sizes
        ]
        output.dump(rows)
        return 0 if free else 1
    for one, _ in sizes:
        if one.used:
            print(f"a session uses the {one.kind} {output.line(one.name)}: left alone")
    if not free:
        print("nothing to delete")
        return 1
    shown = gone if given.yes else free
    print(_table(shown))
    total = f"{sum(size for _, size in shown) / _MB:.1f} MB"
    print(f"deleted {total}" if given.yes else f"{total} in all; to delete it, type the same with --yes")
    return 0


def _files(repository: Repository, tags: list[str]) -> list[_Found]:
    """The files of the campaigns: those of the experiments, and nothing that a later session reads."""
    every = {one.folder.name: one for one in artifacts.campaigns(repository.settings.experiments_folder)}
    every = {tag: one for tag, one in every.items() if one.folder.is_dir() and not one.folder.is_symlink()}
    for tag in tags:
        if tag not in every:
            have = ", ".join(sorted(every)) or "no campaign has"
            raise UserError(
                f"the campaign {tag} has no files here: type `autoresearch clean` to list what has ({have})"
            )
    found = []
    for tag in dict.fromkeys(tags or every):
        folders = tuple(one for one in sorted(every[tag].folder.iterdir()) if one.name.isdecimal() and _is_plain(one))
        if folders:
            with _alone(repository, tag) as ours:
                found.append(_Found(_FILES, tag, folders, used=not ours))
    return found


def _is_plain(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink()


def _worktrees(repository: Repository) -> list[_Found]:
    home = repository.ratchet.home
    free, held = leftovers.worktrees(home)
    return [
        _Found(_WORKTREE, name, tuple(leftovers.folders(home, name)), used=name in held)
        for name in sorted((*free, *held))
    ]


def _delete(repository: Repository, one: _Found) -> bool:
    """Delete it; False if a session has begun to use it."""
    if one.kind == _WORKTREE:
        return leftovers.remove(repository.ratchet.home, one.name)
    with _alone(repository, one.name) as ours:
        for folder in one.folders if ours else ():
            shutil.rmtree(folder)
        return ours


@contextlib.contextmanager
def _alone(repository: Repository, tag: str) -> Iterator[bool]:
    """Whether no session of the campaign runs; none begins meanwhile."""
    campaign = artifacts.campaign(repository.settings.experiments_folder, tag)
    if live.session(campaign) is not None:  # perhaps on another machine, which has other locks
        yield False
        return
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(repository.ratchet.presence.alone(tag))
        except UserError:
            yield False
        else:
            yield True


def _table(found: list[tuple[_Found, int]]) -> str:
    columns = [
        (Column("what"), [one.kind for one, _ in found]),
        (Column("name"), [output.line(one.name) for one, _ in found]),
        (Column("folders", right=True), [str(len(one.folders)) for one, _ in found]),
        (Column("size", right=True), [f"{size / _MB:.1f} MB" for _, size in found]),
    ]
    return output.told(columns)
