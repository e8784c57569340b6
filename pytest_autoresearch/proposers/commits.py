"""Replays the commits of a range as proposals, oldest first, to judge another branch here.

Each commit is merged into the current branch head as a three-way patch. A commit that builds on a discarded one may not
apply; it is then a crash with that message. A branch is replayed along its first parents, so a merge is one patch. Only
changes of the editable files are replayed. A commit that changes none of them, or that the head already contains, is
skipped and is no experiment. The campaign's records tell by full hash which commits were tried. The range is fixed when
`resolve` reads it, even if the branch moves later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.core.errors import GitError, Refused, UserError
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.ledger.git import PATCH, Git, reason
from pytest_autoresearch.proposers import patches
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.source.editable import Editable


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit to replay.

    Attributes:
        name: Its full hash.
        parent: The full hash of its first parent; empty for a root commit.
        subject: The first paragraph of its message, on one line.
        body: The rest of its message.
    """

    name: str
    parent: str
    subject: str
    body: str


def resolve(given: str, root: Path, editable: Editable) -> tuple[Commit, ...]:
    """The commits of `A..B` that change editable files, oldest first; a missing end means HEAD.

    Args:
        given: A range in git's notation.
        root: Pytest's root in the user's checkout.
        editable: The files that may change, relative to `root`.

    Raises:
        UserError: It is not a range, names an unknown commit, or has nothing to try.
    """
    start, dots, end = given.partition("..")
    if not dots or not start + end or end.startswith("."):
        other = given.replace("...", "..").strip(".") or "their-branch"
        hint = f"commits:HEAD..{other} for what it has and your checkout has not, or commits:{other}~1..{other} for one"
        if ".." in other:
            hint = f"commits:{other} with two dots"
        raise UserError(f"--autoresearch-proposer commits:{given} is no range of commits: type {hint}")
    git = Git(root)
    first, last = (_find(given, name or "HEAD", git) for name in (start, end))
    paths = ["--", *editable.pathspecs()]
    # With a format, a line of git's own stands before each commit: the first of the five fields.
    listed = _listed(given, ["--reverse", "--format=%x00%H%x00%P%x00%s%x00%b%x00", f"{first}..{last}", *paths], git)
    fields = listed.split("\0")
    found = tuple(
        Commit(name, parents.partition(" ")[0], subject, body.strip())
        for name, parents, subject, body in zip(*(fields[n::5] for n in range(1, 5)), strict=True)
    )
    if not found:
        raise UserError(f"--autoresearch-proposer commits:{given}: {_why_empty(given, first, last, editable, git)}")
    return found


class CommitsProposer:
    """The commits that `resolve` found, in order."""

    name = "commits"
    listens = False

    def __init__(self, commits: Iterable[Commit]) -> None:
        self._commits = tuple(commits)
        self._handed_out: set[str] = set()

    def propose(self, context: Context) -> Proposal | None:
        """Merge the next commit into the tree; None when all are done.

        Raises:
            Refused: The commit does not apply to the branch head; the tree is as it was.
        """
        done = self._handed_out | {record.proposal.source for record in context.records}
        for commit in self._commits:
            source = f"{self.name}:{commit.name}"
            if source in done:
                continue
            self._handed_out.add(source)
            proposal = Proposal(commit.subject, commit.body, self.name, source)
            try:
                if patches.apply(_patch(commit, context), context.folder):
                    return proposal
            except GitError as error:
                raise Refused(f"commit {commit.name[:7]} {error}", proposal, error.crash) from None
        return None

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """None: a replayed commit is not changed."""
        return None


def _find(given: str, name: str, git: Git) -> str:
    # A name with a leading dash would be an option.
    found = None if name.startswith("-") else git.ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if found is None:
        raise UserError(
            f"--autoresearch-proposer commits:{given}: there is no commit {name} here: see `git branch --all` for what "
            "there is, or fetch it first"
        )
    return found


def _listed(given: str, arguments: list[str], git: Git) -> str:
    try:
        said = git.run("rev-list", "--first-parent", "--encoding=UTF-8", *arguments)
    except GitError as error:
        raise UserError(f"--autoresearch-proposer commits:{given}: git says: {reason(error)}") from None
    return said.decode("utf-8", "replace")


def _why_empty(given: str, first: str, last: str, editable: Editable, git: Git) -> str:
    """Why a range has nothing to try, and what to type."""
    count = int(_listed(given, ["--count", f"{first}..{last}"], git))
    if count:
        changes = "the one commit in it does not change" if count == 1 else f"none of its {count} commits changes"
        return f"{changes} {', '.join(editable)}, so there is nothing to try: name another range"
    start, _, end = given.partition("..")
    if _listed(given, [f"{last}..{first}", "--", *editable.pathspecs()], git):
        return f"{end or 'HEAD'} has nothing that {start or 'HEAD'} has not: did you mean commits:{end}..{start}?"
    return f"{end or 'HEAD'} has nothing that {start or 'HEAD'} has not: name another range, older commit first"


def _patch(commit: Commit, context: Context) -> bytes:
    """The commit's changes of the editable files.

    Raises:
        GitError: Git cannot read the commit.
    """
    what = [commit.parent, commit.name] if commit.parent else ["--root", "--no-commit-id", commit.name]
    try:
        return Git(context.folder).run("diff-tree", *PATCH, *what, "--", *context.editable.pathspecs())
    except GitError as error:
        raise GitError(f"cannot be read: {reason(error)}") from None
