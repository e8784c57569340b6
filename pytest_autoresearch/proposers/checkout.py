"""The uncommitted edit of the user's checkout: how a person, or an agent that drives pytest, gets a verdict on it.

It is merged, as a three-way patch, into the branch head of the moment, so the checkout may be on any branch, and tried
once in a session. Somebody else reads what the edit is: knows nothing of the checkout's git, nor of what becomes of its
files afterwards.
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

_PLACES = (b"@@", b"index ", b" ")  # where a change stands, and in what


@dataclass(frozen=True, slots=True)
class Edit:
    """What the editable files have that the commit which they were made from has not.

    Attributes:
        patch: All of it in git's form, with paths from the repository's top.
        paths: The files that it changes, adds or takes away.
        added: Lines that it adds.
        removed: Lines that it takes away.
        files: Mode and blob of every editable file with the edit, by its path.
    """

    patch: bytes
    paths: tuple[str, ...]
    added: int
    removed: int
    files: Mapping[str, str]

    @property
    def what(self) -> str:
        """The file that it changes, or how many."""
        return self.paths[0] if len(self.paths) == 1 else f"{len(self.paths)} files"

    @property
    def digest(self) -> str:
        """Of the changed lines alone, so that the edit is known again on another base."""
        lines = [line for line in self.patch.split(b"\n") if not line.startswith(_PLACES)]
        return hashlib.sha256(b"\n".join(lines)).hexdigest()[:12]


class CheckoutProposer:
    """The one edit that `read` finds.

    Args:
        read: Reads it; None where there is nothing uncommitted.
        described: Whether the session's own prefix says what it is.
    """

    name = "checkout"
    listens = False

    def __init__(self, read: Callable[[], Edit | None], described: bool) -> None:
        self._read = read
        self._described = described
        self._tried = False

    def propose(self, context: Context) -> Proposal | None:
        """Merge the edit into the tree; None once it was tried, and where the head has all of it.

        Raises:
            Refused: It cannot be merged into the branch head; the tree is as it was.
        """
        edit = None if self._tried else self._read()
        if edit is None:
            return None
        self._tried = True
        said = "" if self._described else f"edit of {edit.what} (+{edit.added} -{edit.removed})"
        proposal = Proposal(said, proposer=self.name, source=f"{self.name}:{edit.digest}")
        try:
            return proposal if patches.apply(edit.patch, context.folder) else None
        except GitError as error:
            raise Refused(f"the edit of {edit.what} {error}", proposal) from None

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """None: whoever made the edit makes the next one."""
        return None
