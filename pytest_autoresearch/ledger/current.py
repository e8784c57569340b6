"""The one rule for which campaign a session or a command is about."""

from __future__ import annotations

import math
import time

from pytest_autoresearch.ledger.ratchet import Ratchet


def current(ratchet: Ratchet, named: str | None, within: float = math.inf) -> str:
    """The named campaign; else the one whose branch is checked out here; else the one worked on last.

    Args:
        named: As the user typed or configured it; it need not exist.
        within: How many seconds ago the campaign may have been worked on last.

    Returns:
        Its tag; empty if no campaign is named, checked out or recent enough.
    """
    if named:
        return named
    known = ratchet.campaigns()
    kind, _, here = ratchet.here().removeprefix("refs/heads/").partition("/")
    if kind == "autoresearch" and here in known:
        return here
    recent = {tag: when for tag, when in known.items() if time.time() - when < within}
    return max(recent, key=lambda tag: recent[tag], default="")
