"""What a preparation tells the person waiting for it, on stderr: a bar on a terminal, plain lines elsewhere. May not
know what is being prepared."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0


def say(sentence: str) -> None:
    """Tell one thing."""
    print(f"harness: {sentence}", file=sys.stderr, flush=True)


@contextmanager
def counted(name: str, documents: int) -> Iterator[Callable[[int], object]]:
    """Show a stage of work over documents; call what it gives with how many are done since the last call."""
    if sys.stderr.isatty():
        # Asked of stderr, since stdout may be a pipe. A terminal inside a container may claim to be 0 columns wide, and
        # by itself tqdm then draws nothing.
        size = os.get_terminal_size(sys.stderr.fileno())
        columns, lines = size.columns or 80, size.lines or 24
        with tqdm(total=documents, unit=" docs", desc=f"harness: {name}", ncols=columns, nrows=lines) as bar:
            yield bar.update
        return
    say(f"{name} {documents:,} documents")
    start = told = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            say(f"{name}: {done / documents:.0%}")

    yield advance
    say(f"{name}: done in {time.monotonic() - start:.1f} s")
