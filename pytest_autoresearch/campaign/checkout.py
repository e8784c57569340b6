"""The user's checkout, for the proposer `checkout`: reads the user's edit, and follows its verdict.

It reads only the editable files, and writes them only after a verdict is recorded. It writes their index entries only
if the checkout is on the campaign's branch. A file is replaced only if its content is in a commit, as a file or as a
merged change. So neither a kill nor an edit made meanwhile can lose work. It decides no verdict.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.campaign.editable import EditableFiles
from pytest_autoresearch.core.errors import GitError, UserError
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.proposers.checkout import CheckoutProposer, Edit
from pytest_autoresearch.source.editable import Editable


@dataclass(frozen=True, slots=True)
class Followed:
    """What happened to the checkout's files after a verdict.

    Attributes:
        said: A sentence for the author of the edit; empty if nothing happened.
        command: The git command that restores a discarded edit, else empty.
    """

    said: str = ""
    command: str = ""


class Checkout:
    """The editable files of the user's checkout.

    Args:
        ratchet: The ratchet, after `choose`.
        editable: The files that may change, relative to pytest's root.
    """

    def __init__(self, ratchet: Ratchet, editable: Editable) -> None:
        self._ratchet = ratchet
        self._git = ratchet.git.at(ratchet.top)
        self._names = ", ".join(editable)
        self._files = EditableFiles(self._git, editable.below(ratchet.prefix))
        self._tried: Edit | None = None
        self._from = ""
        # If the checkout is not on the branch, this file has the commit that the files were last brought to.
        self._note = Path(self._git("rev-parse", "--absolute-git-dir")) / "autoresearch-checkout"

    # ------------------------------------------------------------------------------------ before the experiment

    def check(self) -> None:
        """Check that there is an edit to try.

        Raises:
            UserError: There is none.
        """
        files = self._files.working(self._head()).files
        head = self._ratchet.head()
        first = "" if head else "; the baseline runs before it automatically"
        if files == self._files.committed(self._head()):
            raise UserError(f"there is no uncommitted change in {self._names} to try: edit it first{first}")
        brought = {head or self._head(), self._base()}  # off the branch, an earlier session may have moved the files
        if any(files == self._files.committed(commit) for commit in brought):
            branch = f"autoresearch/{self._ratchet.tag}"
            raise UserError(f"there is nothing to try, {self._names} is the same as on {branch}: edit it first")

    def finish(self, records: Iterable[Experiment]) -> None:
        """Update the index if a session was killed right after a keep. Call it when the branch has been repaired."""
        head = self._head()
        last = next((one for one in records if one.commit == head and one.number != BASELINE and _is_keep(one)), None)
        if last is None or not self._on_branch():
            return
        before, working = self._files.committed(last.base), self._files.working(head).files
        # A file that equals the base was restored by the user.
        lagging = {path: entry for path, entry in before.items() if working.get(path) != entry}
        with contextlib.suppress(GitError):  # the index is locked or broken; git will tell its next user
            self._files.move_index(head, [lagging])

    def edit(self) -> Edit | None:
        """The uncommitted changes in the editable files, staged or not; None if there are none."""
        self._from = self._base()
        self._tried = self._files.edit(self._from)
        return self._tried

    def _base(self) -> str:
        """The commit that the files were edited from: HEAD, or the one that an earlier session brought them to."""
        head = self._head()
        if not self._on_branch() and self._note.is_file():
            *where, brought = self._note.read_text().split()
            if where == [self._ratchet.tag, head]:
                return brought
        return head

    # ------------------------------------------------------------------------------------------ after the verdict

    def follow(self, experiment: Experiment) -> Followed:
        """Update the files to the branch's head, and say how to restore a discarded edit.

        An edit that was refused without a commit stays in the files. Files that were edited meanwhile stay unchanged.
        """
        edit = self._tried if experiment.proposal.proposer == CheckoutProposer.name else None
        moved = _is_keep(experiment) and experiment.number != BASELINE and self._on_branch()
        if edit is None and not moved:
            return Followed()
        try:
            if edit is not None and experiment.refusal is not None:
                return self._not_tried(edit)
            return self._follow(experiment, edit)
        except (GitError, OSError) as error:
            return Followed(f"{self._names} could not be updated after the verdict ({error}): see `git status`")

    def _not_tried(self, edit: Edit) -> Followed:
        said, head = f"not tried: the edit is still in {self._names}", self._ratchet.head() or self._head()
        with self._files.scratch(head) as git:
            if self._files.merge(git, edit, head):
                return Followed(said)
        branch = f"autoresearch/{self._ratchet.tag}"
        return Followed(f"{said}; `git diff {branch} -- {self._here(edit)}` shows how it differs from the head")

    def _follow(self, experiment: Experiment, edit: Edit | None) -> Followed:
        head = self._ratchet.head() or experiment.commit
        known = [self._files.committed(experiment.base), self._files.committed(experiment.commit)]
        if edit is not None:  # the commit contains the edit, except files that git ignores there
            known.append({path: entry for path, entry in edit.files.items() if path in known[0] | known[1]})
        stale = experiment.verdict is not None and experiment.verdict.reason == Reason.STALE
        with self._files.scratch(head) as git:
            merged = stale and edit is not None and self._files.merge(git, edit, head)
            left = self._files.bring(git, self._files.working(head), known)
        if self._on_branch():
            self._files.move_index(head, known)
            self._note.unlink(missing_ok=True)
        else:
            self._remember(experiment, head, left)
        return self._said(experiment, edit, left, merged)

    def _remember(self, experiment: Experiment, head: str, left: list[str]) -> None:
        """Note the base of the next edit. If files were edited meanwhile, that is the commit they were edited from."""
        if left:
            if not _is_keep(experiment) or self._files.committed(self._from) != self._files.committed(experiment.base):
                return
            head = experiment.commit
        part = self._note.with_name(f"{self._note.name}.{os.getpid()}")
        part.write_text(f"{self._ratchet.tag} {self._head()} {head}\n")
        part.replace(self._note)

    def _said(self, experiment: Experiment, edit: Edit | None, left: list[str], merged: bool) -> Followed:
        kept = _is_keep(experiment)
        command = self._command(experiment, edit) if edit is not None and not (kept or merged) else ""
        if left:
            which = f"{', '.join(left)} {'was' if len(left) == 1 else 'were'} edited meanwhile and left unchanged"
            return Followed(f"{which}; {command} restores the measured edit" if command else which, command)
        if merged:
            return Followed(f"the edit is still in {self._names}, on the new head: rerun the same command")
        if command:
            return Followed(f"the edit was set aside: {command} restores it", command)
        return Followed(f"{self._names} is the same as on autoresearch/{self._ratchet.tag}")

    def _command(self, experiment: Experiment, edit: Edit) -> str:
        name = f"refs/autoresearch/{self._ratchet.tag}/{experiment.number:04d}"
        whole = all(path in self._files.committed(experiment.commit) for path in edit.paths)
        # Only `git restore` also deletes the files that the edit deleted.
        verb = f"git checkout {name}" if whole else f"git restore --source={name} --staged --worktree"
        return f"{verb} -- {self._here(edit)}"

    def _here(self, edit: Edit) -> str:
        """The edit's files, quoted for the shell and relative to the current folder."""
        return " ".join(shlex.quote(os.path.relpath(self._ratchet.top / path)) for path in edit.paths)

    # ------------------------------------------------------------------------------------------------ looking

    def _head(self) -> str:
        return self._git("rev-parse", "HEAD")

    def _on_branch(self) -> bool:
        return self._ratchet.here() == self._ratchet.branch


def _is_keep(experiment: Experiment) -> bool:
    return experiment.verdict is not None and experiment.verdict.status is Status.KEEP
