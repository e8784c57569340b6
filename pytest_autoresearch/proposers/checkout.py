"""Proposes the edit in the user's checkout, for a person or an agent that drives pytest.

The edit is merged into the current branch head, so the checkout may be on any branch. It is tried once in a session.
The edit is read elsewhere: this module knows nothing of the checkout's git or of its files later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pytest_autoresearch.core.errors import GitError, Refused
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.proposers import patches
from pytest_autoresearch.proposers.base import Context

_PLACES = (b"@@", b"index ", b" ")  # lines of a patch that only locate the change


@dataclass(frozen=True, slots=True)
class Edit:
    """The changes of the editable files.

    Attributes:
        base: The commit that they were made from.
        tree: The tree of the base with the changes.
        patch: The changes, with paths from the repository's top.
        paths: The files that are changed, added or removed.
        added: Number of added lines.
        removed: Number of removed lines.
        files: Mode and blob of every editable file with the edit, by its path.
        subject: The subject of the user's commit that has the edit; empty for an uncommitted edit.
    """

    base: str
    tree: str
    patch: bytes
    paths: tuple[str, ...]
    added: int
    removed: int
    files: Mapping[str, str]
    subject: str = ""

    @property
    def what(self) -> str:
        """The name of the changed file, or the number of files."""
        return self.paths[0] if len(self.paths) == 1 else f"{len(self.paths)} files"

    @property
    def digest(self) -> str:
        """A hash of the changed lines alone, which identifies the edit on another base, too."""
        lines = [line for line in self.patch.split(b"\n") if not line.startswith(_PLACES)]
        return hashlib.sha256(b"\n".join(lines)).hexdigest()[:12]


class CheckoutProposer:
    """Proposes the edit that `read` finds, once.

    Args:
        read: Reads the edit; None if there is none.
        described: Whether the session's description already describes the edit.
    """

    name = "checkout"
    listens = False

    def __init__(self, read: Callable[[], Edit | None], described: bool) -> None:
        self._read = read
        self._described = described
        self._tried = False

    def propose(self, context: Context) -> Proposal | None:
        """Merge the edit into the tree; None after it was tried or if the head already has it.

        Raises:
            Refused: The edit does not merge into the branch head; the tree is unchanged.
        """
        edit = None if self._tried else self._read()
        if edit is None:
            return None
        self._tried = True
        told = edit.subject or f"edit of {edit.what} (+{edit.added} -{edit.removed})"
        said = "" if self._described else told
        proposal = Proposal(said, proposer=self.name, source=f"{self.name}:{edit.digest}")
        try:
            return proposal if patches.bring(edit.base, edit.tree, context.folder) else None
        except GitError as error:
            raise Refused(f"the edit of {edit.what} {error}", proposal, error.crash) from None

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """None: the next edit comes from the user or the agent."""
        return None
