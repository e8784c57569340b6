"""The price of what keeps validation text secret: listing, comparing and restoring the files that a sandbox shows.

`python benchmarks/shared_files.py`
"""

from __future__ import annotations

import os
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from harness import corpus, exposed, profiles
from pytest_autoresearch.sandboxes import page_cache, shown


def main() -> None:
    library = Path(sysconfig.get_path("stdlib")).resolve()
    _, documents, folders = corpus.texts(library, [], 0)
    readable, covered = shown.places((), os.environ)
    view = page_cache.View(tuple(map(str, readable)), tuple(map(str, covered)))
    seen = exposed.visible(folders)
    cores = profiles.usable_cores()
    print("| | seconds | of processor time |\n|---|---|---|")
    report("the paths that a sandbox shows", lambda: shown.places((), os.environ))
    report("the page cache restored, at first", view.restore)
    report("the page cache restored", view.restore)
    report(
        f"{len(documents)} documents compared, {cores} processes",
        lambda: exposed.exposed(documents, sum(map(len, documents)), seen, cores),
    )


def report(name: str, call: Callable[[], object]) -> None:
    """Print a row with the time of one call."""
    begun, before = time.perf_counter(), os.times()
    call()
    after = os.times()
    used = sum(after[:4]) - sum(before[:4])
    print(f"| {name} | {time.perf_counter() - begun:.2f} | {used:.2f} |", flush=True)


if __name__ == "__main__":
    main()
