"""The user's checkout, for the proposer `checkout`: reads the user's edit, and follows its verdict.

It reads only the editable files, and writes them only after a verdict is recorded. It writes their index entries only
if the checkout is on the campaign's branch. A file is replaced only if its content is in a commit, as a file or as a
merged change. So neither a kill nor an edit made meanwhile can lose work. It decides no verdict.

An edit is what differs from the commit that it was made from. On the campaign's branch, that is what `git diff` shows
against the last keep. Elsewhere it is the nearest of HEAD and the kept commits, so the user may go back to an older
version of a file. A restored candidate was made from that candidate's own base. The user may have committed the edit.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pytest_autoresearch.campaign.bystanders import bystanders
from pytest_autoresearch.campaign.editable import EditableFiles
from pytest_autoresearch.core.errors import GitError, MergeConflict, UserError
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.text import one_line, shortened
from pytest_autoresearch.ledger.merge import merge, undone
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
        self._checked: Edit | None = None
        self._tried: Edit | None = None

    # ------------------------------------------------------------------------------------ before the experiment

    def check(self) -> list[str]:
        """Check that there is an edit to try. Returns what its author should know before anything is trained.

        Raises:
            UserError: There is none, or it does not fit the branch's head.
        """
        keeps = self._keeps()
        self._checked = edit = self._read(keeps)
        if edit is None:
            raise UserError("; ".join([self._nothing(keeps), *self._bystanders(())][:2]))
        notes = []
        if keeps:
            head = keeps[-1].commit
            try:
                tree = merge(self._git, edit.base, head, edit.tree)
            except MergeConflict as conflict:
                raise UserError(self._conflict(edit, conflict)) from None
            if tree == self._git("rev-parse", f"{head}^{{tree}}"):
                raise UserError(self._nothing(keeps))
            notes += self._about(edit, keeps, tree)
        return notes + self._bystanders(edit.paths)

    def _bystanders(self, edited: Iterable[str]) -> list[str]:
        prefix = self._ratchet.prefix
        return bystanders(
            self._git.at(self._ratchet.root), lambda name: self._files.has((prefix / name).as_posix()),
            [os.path.relpath(path, prefix) for path in edited],
        )  # fmt: skip

    def _about(self, edit: Edit, keeps: list[Experiment], merged: str) -> list[str]:
        """What the edit is, where that may surprise; `merged` is its tree on the branch's head."""
        said, head = [], keeps[-1].commit
        here = self._head()
        commits = {one.commit: f"{one.number:04d}" for one in keeps}
        made = commits.get(edit.base, edit.base[:7])
        if edit.subject:
            off = ", which leaves the branch," if self._on_branch() else ""
            on = f", on {commits[head]}, the head" if edit.base != head else ""
            said.append(f"your commit {here[:7]}{off} is tried as an edit of {made}{on}")
        elif edit.base == here and here not in commits:
            said.append(
                f"only the uncommitted edit is tried: other changes of {self._names} in {here[:7]} take no part"
            )
        if edit.base != head and not edit.subject:
            said.append(f"the edit was made from {made}: it is tried on {commits[head]}, the head")
        steps = {
            f"{one.number:04d} ({shortened(one.proposal.description)})": (one.base, one.commit) for one in keeps[1:]
        }
        if names := undone(self._git, steps, head, merged):
            said.append(f"this also undoes {', '.join(names)}")
        return said

    def _nothing(self, keeps: list[Experiment]) -> str:
        """Why there is no edit to try, and what to type."""
        if not keeps:
            return (
                f"there is no uncommitted change in {self._names} to try: edit it first; the baseline, which is the "
                "last commit, runs before it automatically"
            )
        sizes = self._files.distances([self._head(), *(one.commit for one in reversed(keeps))])
        if not sizes[self._head()]:
            return f"there is no uncommitted change in {self._names} to try: edit it first"
        same = next((one for one in reversed(keeps) if not sizes[one.commit]), keeps[-1])
        where = f"autoresearch/{self._ratchet.tag}" if same is keeps[-1] else f"{same.number:04d}"
        return f"there is nothing to try, {self._names} is the same as on {where}: edit it first"

    def _conflict(self, edit: Edit, conflict: MergeConflict) -> str:
        branch, files = f"autoresearch/{self._ratchet.tag}", self._here(edit.paths)
        theirs = self._here(path for path in edit.paths if path in self._files.committed(self._ratchet.branch))
        what = (
            f"`{conflict.line}` of your edit of {conflict.path}" if conflict.line else f"your edit of {conflict.path}"
        )
        aside = "" if edit.subject else f"git stash push --include-untracked -- {files} && "
        look = "git show" if edit.subject else "git stash show -p"
        return (
            f"{what} changes what a keep on {branch} has changed, too: type `{aside}git restore --source={branch} -- "
            f"{theirs}` and make the edit again (`{look}` shows it)"
        )

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
        """The edit in the editable files, committed or not; None if there is none."""
        edit, checked = self._read(self._keeps()), self._checked
        if edit is not None and checked is not None and edit.digest == checked.digest:
            edit = replace(edit, subject=checked.subject)  # the commit may have left the branch since
        self._tried = edit
        return edit

    def _read(self, keeps: list[Experiment]) -> Edit | None:
        """The edit: what differs from the commit that it was made from."""
        here = self._head()
        kept = [one.commit for one in reversed(keeps)]
        sizes = self._files.distances([here])
        committed = bool(kept) and here not in kept and not sizes[here]
        if self._on_branch() and here in kept:
            base = here
        elif self._on_branch() and kept and self._git.ask("merge-base", "--is-ancestor", kept[0], here) is not None:
            base = kept[0]
        else:  # the nearest; a keep before HEAD, a late before an early keep
            sizes = {**self._files.distances(kept), **({} if committed else sizes)}
            base = min(sizes, key=lambda commit: sizes[commit])
        edit = self._files.edit(base)
        if edit is None:
            return None
        again = self._restored(edit)
        if again is not None and again.base != base:
            edit = self._files.edit(again.base) or edit
        return replace(edit, subject=one_line(self._git("log", "-1", "--format=%s", here))) if committed else edit

    def _restored(self, edit: Edit) -> Experiment | None:
        """The latest recorded candidate whose files the edit has, as the command restores them; None if there is none.

        A kept candidate does not count: an edit that equals it goes back to it on purpose.
        """
        wanted = [edit.files[path].split()[1] if path in edit.files else "missing" for path in edit.paths]
        tried = [one for one in reversed(self._ratchet.records()) if one.commit != one.base and not _is_keep(one)]
        asked = "".join(f"{one.commit}:{path}\n" for one in tried for path in edit.paths)
        said = self._git("cat-file", "--batch-check=%(objectname)", stdin=asked).splitlines() if asked else []
        count = len(wanted)
        for at, one in enumerate(tried):
            found = [line.rpartition(" ")[2] for line in said[at * count : (at + 1) * count]]
            if found == wanted:
                return one
        return None

    def _keeps(self) -> list[Experiment]:
        return chain(self._ratchet.records())

    # ------------------------------------------------------------------------------------------ after the verdict

    def follow(self, experiment: Experiment) -> Followed:
        """Update the files to the branch's head, and say how to restore a discarded edit.

        An edit that was refused without a commit stays in the files. Files that were edited meanwhile stay unchanged.
        """
        edit = self._tried if experiment.proposal.proposer == CheckoutProposer.name else None
        moves = (_is_keep(experiment) and experiment.number != BASELINE) or bool(experiment.refutes)
        moved = moves and self._on_branch()
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
        return Followed(f"{said}; `git diff {branch} -- {self._here(edit.paths)}` shows how it differs from the head")

    def _follow(self, experiment: Experiment, edit: Edit | None) -> Followed:
        head = self._ratchet.head() or experiment.commit
        known = [self._files.committed(experiment.base), self._files.committed(experiment.commit)]
        if edit is not None:  # the commit contains the edit, except files that git ignores there
            known.append({path: entry for path, entry in edit.files.items() if path in known[0] | known[1]})
        stale = experiment.is_owed
        with self._files.scratch(head) as git:
            merged = stale and edit is not None and self._files.merge(git, edit, head)
            left = self._files.bring(git, self._files.working(head), known)
        if self._on_branch():
            self._files.move_index(head, known)
        return self._said(experiment, edit, left, merged)

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
        said = f"{self._names} is the same as on autoresearch/{self._ratchet.tag}"
        if not self._on_branch() and self._files.committed(self._head()) != self._files.committed(experiment.commit):
            said += ", but not committed here: `autoresearch best --checkout` switches to a branch that has it"
        return Followed(said)

    def _command(self, experiment: Experiment, edit: Edit) -> str:
        name = f"refs/autoresearch/{self._ratchet.tag}/{experiment.number:04d}"
        whole = all(path in self._files.committed(experiment.commit) for path in edit.paths)
        # Only `git restore` also deletes the files that the edit deleted.
        verb = f"git checkout {name}" if whole else f"git restore --source={name} --staged --worktree"
        return f"{verb} -- {self._here(edit.paths)}"

    def _here(self, paths: Iterable[str]) -> str:
        """The files, quoted for the shell and relative to the current folder."""
        return " ".join(shlex.quote(os.path.relpath(self._ratchet.top / path)) for path in paths)

    # ------------------------------------------------------------------------------------------------ looking

    def _head(self) -> str:
        return self._git("rev-parse", "HEAD")

    def _on_branch(self) -> bool:
        return self._ratchet.here() == self._ratchet.branch


def _is_keep(experiment: Experiment) -> bool:
    return experiment.verdict is not None and experiment.verdict.status is Status.KEEP
