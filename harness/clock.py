"""The inputs of a training process: seed, budget, output folder, batch size, and, once the clock starts, training rows.

Knows nothing of validation data.
"""

import os
import socket
from pathlib import Path

from harness import cache, profiles
from harness.cache import Rows
from harness.errors import HarnessError

_begun = False


def begin() -> Rows:
    """Start the clock and return the training rows: uint16 [rows, sequence_length + 1], read-only.

    Build, compile and warm up before this call: the budget starts with it. In a session it asks the parent process to
    start its clock and waits until the clock runs. By hand it returns at once.

    With several ranks, call it in each one that reads rows, after a barrier: the clock starts with the first call, and
    every rank gets all rows. Let each take its own, such as `rows[rank::ranks]`.

    Raises:
        HarnessError: It was called before, the parent has ended, or there are no data.
    """
    global _begun
    if _begun:
        raise HarnessError("harness.begin() was called twice; call it once and keep the rows that it returns.")
    _begun = True
    profile = profiles.profile()
    descriptor = _start_of_parent_clock()
    if descriptor is None:
        return cache.find(profile).open_training_rows()
    try:
        with os.fdopen(descriptor, "rb") as file:
            return cache.rows_from_file(file, profile.sequence_length)
    except ValueError:
        raise HarnessError(
            f"the session's training rows do not fit a sequence length of {profile.sequence_length}; "
            "restart the session so that it reads the profile again."
        ) from None


def seed() -> int:
    """The seed of this run: AUTORESEARCH_SEED, else 42."""
    text = os.environ.get("AUTORESEARCH_SEED") or "42"
    try:
        return int(text)
    except ValueError:
        raise HarnessError(f"AUTORESEARCH_SEED={text!r} is not a whole number; set it to, say, 42.") from None


def budget_seconds() -> float:
    """Seconds to train after `begin`: AUTORESEARCH_BUDGET, else the profile's budget."""
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


def device_batch(default_rows: int, step_rows: int) -> int:
    """Rows of one batch on the device, when one training step uses `step_rows` rows.

    At most AUTORESEARCH_DEVICE_BATCH if set, else at most `default_rows`. AUTORESEARCH_HALVE_BATCH=1 halves the result.
    Always a divisor of `step_rows`, so that whole batches add up to one step.

    Raises:
        HarnessError: `step_rows` is below 1, or a variable has a bad value.
    """
    if step_rows < 1:
        raise HarnessError(f"a step of {step_rows} rows is empty; give harness.device_batch() at least 1.")
    rows = _largest_divisor(step_rows, device_batch_of_environment() or default_rows)
    halved = os.environ.get("AUTORESEARCH_HALVE_BATCH") or "0"
    if halved not in ("0", "1"):
        raise HarnessError(f"AUTORESEARCH_HALVE_BATCH={halved!r} is neither 1 nor 0; unset it.")
    return _largest_divisor(step_rows, rows // 2) if halved == "1" else rows


def device_batch_of_environment() -> int | None:
    """The value of AUTORESEARCH_DEVICE_BATCH, or None if it is not set."""
    text = os.environ.get("AUTORESEARCH_DEVICE_BATCH")
    if not text:
        return None
    if not (text.isdecimal() and int(text) > 0):
        raise HarnessError(f"AUTORESEARCH_DEVICE_BATCH={text!r} is not a number of rows above 0; set it to, say, 16.")
    return int(text)


def out_folder() -> Path | None:
    """The folder for `model.pt`: AUTORESEARCH_OUT, or None by hand."""
    folder = os.environ.get("AUTORESEARCH_OUT")
    return Path(folder) if folder else None


def _largest_divisor(rows: int, most: int) -> int:
    """The largest divisor of `rows` that is at most `most`, at least 1."""
    return next((part for part in range(min(rows, most), 1, -1) if rows % part == 0), 1)


def _start_of_parent_clock() -> int | None:
    """Ask the parent to start its clock; returns the descriptor of the rows if the parent sends one."""
    path, number = os.environ.get("AUTORESEARCH_CLOCK"), os.environ.get("AUTORESEARCH_CLOCK_FD")
    if not path and not number:
        return None
    # A launcher such as torchrun hands no descriptor on to its ranks, so they ask by a path: to connect is to ask.
    parent, question = (_connected(path), b"") if path else (_inherited(number or ""), b"begin\n")
    with parent:
        answer, descriptors = b"", list[int]()
        try:
            if question:
                parent.sendall(question)
            while not answer.endswith(b"\n"):
                received, passed, _, _ = socket.recv_fds(parent, 64, 4)
                if not received:
                    break
                answer += received
                descriptors += passed
        except OSError as error:
            raise HarnessError(f"the session that started this training has ended ({error}).") from None
    if answer != b"go\n":
        raise HarnessError("the session that started this training ended before it started the clock.")
    return descriptors[0] if descriptors else None


def _connected(path: str) -> socket.socket:
    parent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        parent.connect(path)
    except OSError as error:
        parent.close()
        raise HarnessError(
            f"AUTORESEARCH_CLOCK={path!r} does not answer ({error}); unset it to run training by hand."
        ) from None
    return parent


def _inherited(number: str) -> socket.socket:
    try:
        parent = socket.socket(fileno=int(number))
    except (ValueError, OSError):
        raise HarnessError(
            f"AUTORESEARCH_CLOCK_FD={number!r} is not an open socket; unset it to run training by hand."
        ) from None
    parent.setblocking(True)
    return parent
