"""The first proposal of a session that does not take place: made where that is free, else only what would be asked.

Works in a folder that is gone afterwards. No ref, worktree or object of the user's repository is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.campaign.common import Common
from pytest_autoresearch.core.errors import AutoresearchError, Refused
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.ledger.git import PATCH, Git
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.proposers.base import Asked, Asking, Mixed, NoSession, Proposer


@dataclass(frozen=True, slots=True)
class Preview:
    """What a session would begin with.

    Attributes:
        proposer: Whose turn it is.
        asked: What a proposer that costs something would be asked; None for one that is free.
        proposal: The first proposal of a free one; None if it has none.
        diff: Its change.
        refused: Why it cannot be made; empty if it can.
    """

    proposer: str
    asked: Asked | None = None
    proposal: Proposal | None = None
    diff: str = ""
    refused: str = ""


def preview(common: Common, proposer: Proposer, number: int, program: str, lanes: int) -> Preview:
    """The first proposal.

    Args:
        number: The number of the first experiment.
        program: The text of `program.md`.
    """
    if isinstance(proposer, Mixed):
        proposer = proposer.maker(number)
    with _tree(common.ratchet) as git:
        folder = git.folder / common.ratchet.prefix
        context = common.context(number, folder, program, NoSession(), lanes, notes="")
        if isinstance(proposer, Asking):
            return Preview(proposer.name, asked=proposer.asked(context))
        try:
            proposal = proposer.propose(context)
        except Refused as error:
            return Preview(proposer.name, proposal=error.proposal, refused=str(error))
        except AutoresearchError as error:
            return Preview(proposer.name, refused=str(error))
        git("add", "--all", "--intent-to-add")
        return Preview(proposer.name, proposal=proposal, diff=git("diff", *PATCH))


@contextmanager
def _tree(ratchet: Ratchet) -> Iterator[Git]:
    """Git in a repository of its own, at the commit that the next proposal starts from; it borrows the objects."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as folder:
        git = Git(Path(folder), raw=True)
        git("init", "--quiet", "--template=", f"--object-format={ratchet.git('rev-parse', '--show-object-format')}")
        objects = ratchet.git("rev-parse", "--path-format=absolute", "--git-path", "objects")
        Path(folder, ".git", "objects", "info").mkdir(exist_ok=True)
        Path(folder, ".git", "objects", "info", "alternates").write_text(f"{objects}\n", "utf-8")
        git.without_filters()
        git("update-ref", "--no-deref", "HEAD", ratchet.head() or ratchet.start)
        git("reset", "--quiet", "--hard")
        yield git
