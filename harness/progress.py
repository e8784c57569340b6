"""What a preparation tells the person waiting for it, on stderr: a bar on a terminal, plain lines elsewhere. May not
know what is being prepared."""

import shutil
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
def stage(name: str, documents: int | None = None) -> Iterator[Callable[[int], object]]:
    """Show a stage of work; call what it gives with the documents done since the last call.

    Args:
        documents: How many there are to do; None for a stage of a few seconds that does not count them.
    """
    if documents is None:
        say(name)
        yield lambda count: None
    elif sys.stderr.isatty():
        # Some terminals inside containers claim to have no width at all, and tqdm then draws nothing.
        columns = shutil.get_terminal_size().columns
        with tqdm(total=documents, unit=" documents", desc=f"harness: {name}", ncols=columns) as bar:
            yield bar.update
    else:
        with _lines(name, documents) as advance:
            yield advance


@contextmanager
def _lines(name: str, documents: int) -> Iterator[Callable[[int], object]]:
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
