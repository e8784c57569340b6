"""Which proposer a session has: its name looked up, and what can be wrong with it found before anything is touched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from pytest_autoresearch.errors import UserError
from pytest_autoresearch.guard import is_editable
from pytest_autoresearch.proposers.base import Proposer
from pytest_autoresearch.proposers.commits import CommitsProposer, resolve
from pytest_autoresearch.proposers.constants import find
from pytest_autoresearch.proposers.ranges import candidates
from pytest_autoresearch.settings import Settings

_SEARCH_SEED = 42


@dataclass(frozen=True, slots=True)
class Choice:
    """A proposer that is not made yet.

    Attributes:
        said: What the header says of it.
        make: Makes it, importing what only it needs.
    """

    said: str
    make: Callable[[], Proposer]


def choose(settings: Settings, asks_hook: bool) -> Choice:
    """The proposer of that name.

    Args:
        settings: The user's.
        asks_hook: Whether a hook of the user proposes first; a search may then have nothing to vary.

    Raises:
        UserError: It could propose nothing here; says what to type.
    """
    name, _, given = settings.proposer.partition(":")
    if name == "commits":
        commits = resolve(given, settings.root, settings.editable)
        count = f"{len(commits)} commit{'s'[: len(commits) != 1]}"
        return Choice(f"commits:{given}, {count}", lambda: CommitsProposer(commits))
    if name == "queue":
        return Choice(name, _queue)
    if not asks_hook:
        _check_constants(settings)
    return Choice("search", _search)


def _queue() -> Proposer:
    from pytest_autoresearch.proposers.queue import QueueProposer

    return QueueProposer()


def _search() -> Proposer:
    from pytest_autoresearch.proposers.search import SearchProposer

    return SearchProposer(_SEARCH_SEED)


def _check_constants(settings: Settings) -> None:
    """The search has something to vary: said now, and not after a baseline was trained."""
    for path in settings.root.rglob("*.py"):
        if is_editable(path.relative_to(settings.root).as_posix(), settings.editable):
            with contextlib.suppress(SyntaxError):  # the baseline will say so
                if any(candidates(one.name, one.value) for one in find(path.read_text("utf-8", "replace"))):
                    return
    raise UserError(
        f"search finds no constant to vary in {', '.join(settings.editable)}: write the hyperparameters in capitals at "
        "the top level, such as LEARNING_RATE = 0.001, or choose another --autoresearch-proposer"
    )
