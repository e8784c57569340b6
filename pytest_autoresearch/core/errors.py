"""All exceptions of this package, as one tree.

    AutoresearchError
    ├── UserError           a user's mistake; one sentence says how to fix it, and nothing was touched
    │   └── NoRepository    the folder is in no git repository
    ├── Refused             the guard or a check refused a proposal; the proposer may repair it
    │   └── NearDuplicate   the proposal is like an earlier one; proposed again, it is accepted
    ├── ProposerError       the proposer itself failed (expired key, outage); ends the session
    ├── Spent               the user's budget for proposals is used up; ends the session like any limit
    ├── Stopped             the session is ending; a running experiment gets no result
    ├── SandboxError        the sandbox worked at the start of the session, but failed to start a run
    ├── NodeLost            a node of the cluster ended during a run
    └── GitError            a git command failed
        ├── NumberTaken     another session has recorded an experiment under this number
        ├── BaseMoved       the branch has moved since the verdict
        └── MergeConflict   two changes of the same line

A crash of the candidate is no exception but a result (`run.Crash`).
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.failure import Failure, Stage
from pytest_autoresearch.core.run import Crash, CrashClass

_SHOWN_LINES = 3  # of a conflict


class AutoresearchError(Exception):
    """Base of all errors that this package raises."""


class UserError(AutoresearchError):
    """A user's mistake; the text is one sentence that says what to type next."""


class NoRepository(UserError):
    """The folder is in no git repository."""


class Refused(AutoresearchError):
    """A proposal was refused; the text tells the proposer why.

    Attributes:
        proposal: The refused proposal, for the record.
        crash: The recorded crash if the proposal is not repaired.
    """

    def __init__(self, reason: str, proposal: Proposal, crash: str = CrashClass.REFUSED) -> None:
        super().__init__(reason)
        self.proposal = proposal
        self.crash = Crash.of(crash, reason)

    @property
    def failure(self) -> Failure:
        """The refusal, for the proposer."""
        return Failure(Stage.PROPOSAL, self.crash, near_duplicate=isinstance(self, NearDuplicate))


class NearDuplicate(Refused):
    """A proposal is like an earlier one. The proposer is warned once."""


class ProposerError(AutoresearchError):
    """The proposer itself failed, such as an expired key or an outage. The text says what to type next."""


class Spent(AutoresearchError):
    """The next request might cost more than what is left of the user's budget; the text has the amounts."""


class Stopped(AutoresearchError):
    """The session is ending."""


class SandboxError(AutoresearchError):
    """A run could not be started in its sandbox; the text is the sandbox's own message."""


class NodeLost(AutoresearchError):
    """A node of the cluster ended during a run, or the process that watched the run there.

    Attributes:
        node: Its name; empty if the run ended before the node said it.
    """

    def __init__(self, node: str, why: str) -> None:
        super().__init__(f"the node {node} was lost: {why}" if node else f"a node was lost: {why}")
        self.node = node


class GitError(AutoresearchError):
    """A git command failed; the text is git's own message.

    Attributes:
        crash: The crash class of a proposal that is refused for this.
    """

    crash = CrashClass.REFUSED


class NumberTaken(GitError):
    """Another session has recorded an experiment under this number."""


class BaseMoved(GitError):
    """The branch has moved since the verdict."""


class MergeConflict(GitError):
    """Two sides changed the same line, or one deleted what the other changed.

    Attributes:
        path: The file.
        lines: The conflicting lines, each as the first and as the second side has it; empty if the whole file is in
            conflict.
    """

    crash = CrashClass.STALE

    def __init__(self, path: str, lines: Sequence[tuple[str, str]] = (), head: str = "") -> None:
        """The conflict; `head` is the commit to which a change does not apply, for the message."""
        shown = [f"`{ours}` and `{theirs}`" for ours, theirs in lines[:_SHOWN_LINES]]
        if len(lines) > _SHOWN_LINES:
            shown.append(f"{len(lines) - _SHOWN_LINES} more")
        told = f"both sides changed {path}" + (f": {', '.join(shown)}" if shown else "")
        super().__init__(f"does not apply to {head[:7]}: {told}" if head else told)
        self.path = path
        self.lines = tuple(lines)

    @property
    def line(self) -> str:
        """The first line that is in conflict, as the second side has it, or the first side if the second has none."""
        return next((theirs or ours for ours, theirs in self.lines), "")
