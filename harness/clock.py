"""What a training process is given: seed, budget, output folder, and the training rows at the moment its clock starts.
May not know of validation data."""

import os
import socket
from pathlib import Path

from harness import cache, profiles
from harness.cache import Rows
from harness.errors import HarnessError

_begun = False


def begin() -> Rows:
    """Start the clock and get the training rows: uint16 [rows, sequence_length + 1], read-only.

    Build, compile and warm up before this call; budgeted seconds run from it. Under a session it tells the parent and
    returns when the parent has started its clock. By hand it returns at once.

    Raises:
        HarnessError: It was called before, the parent went away, or there are no data.
    """
    global _begun
    if _begun:
        raise HarnessError("harness.begin() was called twice; the clock starts once, so keep the rows it gave.")
    _begun = True
    profile = profiles.profile()
    number = os.environ.get("AUTORESEARCH_CLOCK_FD")
    descriptor = _start_of_parent_clock(number) if number else None
    if descriptor is None:
        return cache.find(profile).open_training_rows()
    try:
        with os.fdopen(descriptor, "rb") as file:
            return cache.rows_from_file(file, profile.sequence_length)
    except ValueError:
        raise HarnessError(
            f"the rows that the session handed over do not fit a sequence length of {profile.sequence_length}; "
            "start the session again so that it asks the harness anew."
        ) from None


def seed() -> int:
    """The seed of this run: AUTORESEARCH_SEED, else 42."""
    text = os.environ.get("AUTORESEARCH_SEED") or "42"
    try:
        return int(text)
    except ValueError:
        raise HarnessError(f"AUTORESEARCH_SEED={text!r} is not a whole number; set it to, say, 42.") from None


def budget_seconds() -> float:
    """Seconds to train after `begin`: AUTORESEARCH_BUDGET, else the profile's."""
    text = os.environ.get("AUTORESEARCH_BUDGET")
    if not text:
        return profiles.profile().budget_seconds
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise HarnessError(f"AUTORESEARCH_BUDGET={text!r} is not a number of seconds above 0; set it to, say, 15.")
    return seconds


def out_folder() -> Path | None:
    """Where to leave `model.pt`: AUTORESEARCH_OUT, or None by hand."""
    folder = os.environ.get("AUTORESEARCH_OUT")
    return Path(folder) if folder else None


def _start_of_parent_clock(number: str) -> int | None:
    """Ask the parent to start its clock; returns the descriptor of the rows if it passes one along."""
    try:
        parent = socket.socket(fileno=int(number))
    except (ValueError, OSError):
        raise HarnessError(
            f"AUTORESEARCH_CLOCK_FD={number!r} is no open socket; unset it to run training by hand."
        ) from None
    with parent:
        parent.setblocking(True)
        answer, descriptors = b"", list[int]()
        try:
            parent.sendall(b"begin\n")
            while not answer.endswith(b"\n"):
                received, passed, _, _ = socket.recv_fds(parent, 64, 4)
                if not received:
                    break
                answer += received
                descriptors += passed
        except OSError as error:
            raise HarnessError(f"the session that started this training went away ({error}).") from None
    if answer != b"go\n":
        raise HarnessError("the session that started this training went away before it started the clock.")
    return descriptors[0] if descriptors else None
