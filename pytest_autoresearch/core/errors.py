"""Everything that can go wrong on our side of the line, as one tree.

    AutoresearchError
    ├── UserError           a mistake that one sentence and one command put right; nothing was touched
    │   └── NoRepository    git knows no repository here
    ├── Refused             a proposal that the guard or its own form turned down; the proposer may repair it
    │   └── NearDuplicate   it is like an earlier one; made once more, it is taken
    ├── ProposerError       a proposer can propose nothing more, for a reason that is no proposal's; ends the session
    ├── Spent               the user's budget for proposals is used up; ends the session as a limit does
    ├── Stopped             the session is ending; what was running has no result
    ├── SandboxError        a sandbox that worked at the start of the session did not start a run
    └── GitError            git said no
        ├── NumberTaken     another session has recorded an experiment under this number
        └── BaseMoved       the branch is no longer where the verdict was made against

A crash of the candidate is not an error: it is a result (`experiment.Crash`).
"""

from __future__ import annotations

from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.failure import Failure, Stage
from pytest_autoresearch.core.run import Crash, CrashClass


class AutoresearchError(Exception):
    """Base of all errors that this package raises."""


class UserError(AutoresearchError):
    """A mistake of the user's: one sentence that says what to type next."""


class NoRepository(UserError):
    """The folder is in no git repository."""


class Refused(AutoresearchError):
    """A proposal is not taken; the text says why, for the proposer.

    Attributes:
        proposal: What was meant, so that the record can name it.
        crash: The crash that it becomes when nobody repairs it.
    """

    def __init__(self, reason: str, proposal: Proposal, crash: str = CrashClass.REFUSED) -> None:
        super().__init__(reason)
        self.proposal = proposal
        self.crash = Crash.of(crash, reason)

    @property
    def failure(self) -> Failure:
        """The refusal as its proposer is told."""
        return Failure(Stage.PROPOSAL, self.crash, near_duplicate=isinstance(self, NearDuplicate))


class NearDuplicate(Refused):
    """A proposal is like an earlier one, of which its proposer is told once."""


class ProposerError(AutoresearchError):
    """A proposer cannot go on: a key that expired, a service that stays away. The text says what to type next."""


class Spent(AutoresearchError):
    """The next request might cost more than is left of the user's budget; the text says how much that is."""


class Stopped(AutoresearchError):
    """The session is ending."""


class SandboxError(AutoresearchError):
    """A run could not be started in its sandbox; the text is what that said."""


class GitError(AutoresearchError):
    """A git command failed; the text is what git said."""


class NumberTaken(GitError):
    """The record's number belongs to another session's experiment by now."""


class BaseMoved(GitError):
    """The branch has moved since the verdict's base was read."""
