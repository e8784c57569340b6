"""Shows progress on stderr: a bar on a terminal, plain lines elsewhere."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0

# tqdm's default lock is shared between processes; Python reports it as leaked when one of them is killed.
tqdm.set_lock(threading.RLock())


def say(sentence: str) -> None:
    """Print one message, above the bar if there is one."""
    tqdm.write(f"harness: {sentence}", file=sys.stderr)
    sys.stderr.flush()


def size(count: float) -> str:
    """A number of bytes as text, such as `2.1 GB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:.0f} bytes"


@contextmanager
def counted(name: str, total: int, unit: str = "documents") -> Iterator[Callable[[int], object]]:
    """Show the progress of a stage. Yields a thread-safe function; call it with the amount done since the last call.

    Args:
        unit: `documents` or `bytes`.
    """
    counts_bytes = unit == "bytes"
    if sys.stderr.isatty():
        # The size of stderr's terminal, because stdout may be a pipe. In a container it may be 0 columns, and then
        # tqdm would draw nothing.
        terminal = os.get_terminal_size(sys.stderr.fileno())
        columns, lines = terminal.columns or 80, terminal.lines or 24
        unit = "B" if counts_bytes else f" {unit}"
        with tqdm(
            total=total, unit=unit, unit_scale=counts_bytes, desc=f"harness: {name}", ncols=columns, nrows=lines
        ) as bar:
            yield bar.update
        return
    say(f"{name}, {size(total) if counts_bytes else f'{total:,} {unit}'}")
    start = told = time.monotonic()
    done = 0
    one_at_a_time = threading.Lock()

    def advance(count: int) -> None:
        nonlocal done, told
        with one_at_a_time:
            done += count
            if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                say(f"{name}: {done / total:.0%}")

    yield advance
    say(f"{name}: done in {time.monotonic() - start:.1f} s")
