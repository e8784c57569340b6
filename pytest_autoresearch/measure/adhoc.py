"""Measures the user's checkout once, outside of any campaign, in the same way as an experiment.

No branch moves, nothing is recorded, and the checkout is only read: its files go into a commit without a ref, which is
checked out in a lane's worktree. Knows nothing of the command line.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pytest_autoresearch.core.run import Limits, Progress, Run
from pytest_autoresearch.ledger.git import DIFF, Git
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.place import Place, RunSpec
from pytest_autoresearch.measure.validity import honestly_out_of_memory
from pytest_autoresearch.source.editable import Editable


def present(ratchet: Ratchet, editable: Editable) -> str:
    """Commit the checkout as it is: tracked and staged files, and new editable files. Returns the commit.

    Raises:
        GitError: A git command failed.
    """
    git = ratchet.git.at(ratchet.top)
    editable = editable.below(ratchet.prefix)
    with tempfile.TemporaryDirectory() as folder:
        index = _copied_index(git, Path(folder, "index"))
        quiet = ("-c", "core.safecrlf=false", "-c", "core.splitIndex=false")
        index(*quiet, "add", "--update")
        others = index("ls-files", "-z", "--others", "--exclude-standard").split("\0")
        new = "".join(f"{path}\0" for path in others if path in editable)
        if new:
            command = ("add", "--pathspec-from-file=-", "--pathspec-file-nul")
            index("--literal-pathspecs", *quiet, *command, stdin=new)
        tree = index("write-tree")
    return git("commit-tree", tree, "-p", ratchet.start, stdin="The checkout as it is\n")


def _copied_index(git: Git, place: Path) -> Git:
    """Git on a copy of the user's index, which saves git from reading every file."""
    theirs = Path(git("rev-parse", "--path-format=absolute", "--git-path", "index"))
    if theirs.is_file():
        shutil.copyfile(theirs, place)
    return git.on_index(place)


def changed(ratchet: Ratchet, commit: str) -> list[str]:
    """The files that the commit of `present` changed, relative to the repository's top."""
    said = ratchet.git("diff", *DIFF, "--name-only", "-z", ratchet.start, commit)
    return [path for path in said.split("\0") if path]


def measure(
    ratchet: Ratchet, harness: Harness, place: Place, commit: str, seed: int, limits: Limits,
    note: Callable[[Progress], None], say: Callable[[str], None],
) -> tuple[tuple[Run, ...], Path]:  # fmt: skip
    """Run a commit, with one retry after running out of memory, as in an experiment.

    Args:
        note: Called repeatedly with the run's progress, on the calling thread.
        say: Called with a sentence for the user.

    Returns:
        The runs (the last one counts) and the path of the log.

    Raises:
        Stopped: The place was closed.
        AutoresearchError: Git or the sandbox failed.
    """
    tree = ratchet.worktree(0)
    log = ratchet.home / f"{tree.top.name}-run.log"

    def run(variables: Mapping[str, str]) -> Run:
        # No probe and no compile cache: the program is the user's own, and nothing of the run is kept.
        made = place.run(RunSpec(commit, seed, 0, limits, variables), tree, log, note, say)
        return replace(made, variables=variables)

    try:
        first, less = run({}), harness.retry_out_of_memory
        if not less or not honestly_out_of_memory(first, limits):
            return (first,), log
        return (first, run(less)), log
    finally:
        tree.release()
