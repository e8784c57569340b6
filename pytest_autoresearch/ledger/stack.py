"""The keeps of a campaign as a stack that can be put together again: without some of them, or each alone.

Makes trees, commits and branches of its own. Never moves the campaign's branch, and never reads or writes a checkout.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.core.errors import MergeConflict, UserError
from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.ledger import objects
from pytest_autoresearch.ledger.merge import merge
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.source.editable import Editable

_TRAILER = "Finalized-from"


class Needed(Exception):
    """A keep that stays does not apply without those that are left out.

    Attributes:
        number: The number of the keep that stays.
    """

    def __init__(self, number: int, conflict: MergeConflict) -> None:
        super().__init__(f"{number:04d} changed the same lines of {conflict.path} later")
        self.number = number


@dataclass(frozen=True, slots=True)
class Step:
    """A keep, and the tree of the program up to it.

    Attributes:
        keep: The kept experiment.
        tree: The git tree.
    """

    keep: Experiment
    tree: str


class Stack:
    """The line of a campaign.

    Args:
        line: The baseline and the keeps, in the order of the branch.
    """

    def __init__(self, ratchet: Ratchet, line: Sequence[Experiment]) -> None:
        self._ratchet = ratchet
        self._git = ratchet.git
        self._first, *self._keeps = line

    @property
    def name(self) -> str:
        """The branch of the final program."""
        return f"autoresearch/{self._ratchet.tag}-final"

    def without(self, numbers: Collection[int]) -> list[Step]:
        """The steps from the baseline to the program that lacks these keeps.

        Raises:
            Needed: A later keep does not apply without them.
        """
        tree, steps = self._git("rev-parse", f"{self._first.commit}^{{tree}}"), []
        for keep in self._keeps:
            if keep.number not in numbers:
                try:
                    tree = merge(self._git, keep.base, tree, keep.commit)
                except MergeConflict as conflict:
                    raise Needed(keep.number, conflict) from None
                steps.append(Step(keep, tree))
        return steps

    def alone(self, keep: Experiment) -> Step | None:
        """A keep on the baseline; None if it does not apply there."""
        try:
            return Step(keep, merge(self._git, keep.base, self._first.commit, keep.commit))
        except MergeConflict:
            return None

    def commit(self, tree: str, message: str = "A program to measure\n", parent: str = "") -> str:
        """A commit of the tree that no branch has; on the baseline if no parent is given."""
        return self._git("commit-tree", tree, "-p", parent or self._first.commit, stdin=message)

    def texts(self, tree: str, editable: Editable) -> dict[str, bytes]:
        """The editable files of a tree, by path from the repository's top."""
        inside = editable.below(self._ratchet.prefix)
        return objects.contents(self._git, tree, lambda path: path in inside, "--full-tree")

    def with_files(self, tree: str, files: Mapping[str, bytes]) -> str:
        """The tree with other contents of some of its plain files."""
        known = objects.entries(self._git, tree, "--full-tree")
        with tempfile.TemporaryDirectory() as folder:
            index, file = self._git.on_index(Path(folder, "index")), Path(folder, "file")
            index("read-tree", tree)
            lines = ""
            for path, text in files.items():
                file.write_bytes(text)
                lines += f"{known[path].mode} {index('hash-object', '-w', '--no-filters', str(file))}\t{path}\0"
            index("update-index", "-z", "--index-info", stdin=lines)
            return index("write-tree")

    def names(self, tree: str, word: str) -> bool:
        """Whether a file of the tree has this word."""
        return self._git.ask("grep", "-q", "-w", "-F", "-e", word, tree) is not None

    def branch_of(self, keep: Experiment) -> str:
        """The branch with a keep alone."""
        return f"{self.name}-{keep.number:04d}"

    def check_branches(self) -> None:
        """Check that every branch that `publish` could move is free, or an earlier one of its own.

        Raises:
            UserError: It is not; says what to type.
        """
        for name in (self.name, *map(self.branch_of, self._keeps)):
            message = self._git.ask("log", "-1", "--format=%B", f"refs/heads/{name}", "--")
            if message is None:
                continue
            if f"{_TRAILER}: {self._ratchet.tag}" not in message.splitlines():
                mine = f"my-{name.rpartition('/')[2]}"
                raise UserError(f"the branch {name} has a commit of your own: type `git branch -m {name} {mine}` first")
            if self._ratchet.checked_out(f"refs/heads/{name}"):
                raise UserError(
                    f"the branch {name} is checked out and would move: type `git switch --detach` there first"
                )

    def publish(self, name: str, steps: Sequence[tuple[Step, str]]) -> str:
        """Make a branch on the baseline with one commit for each step, or move an earlier one of this name.

        Args:
            steps: Each with the text of its commit's message.

        Returns:
            The last commit.
        """
        head = self._first.commit
        for step, text in steps:
            printable = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
            head = self.commit(step.tree, f"{printable.rstrip()}\n{_TRAILER}: {self._ratchet.tag}\n", head)
        self._git("update-ref", "-m", "autoresearch finalize", f"refs/heads/{name}", head)
        return head
