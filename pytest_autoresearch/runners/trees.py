"""The process trees of one runner: started under one lock, so that its end finds every one of them.

Knows nothing of what they are for.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM

from pytest_autoresearch.core.errors import Stopped
from pytest_autoresearch.runners.plain import PlainTree
from pytest_autoresearch.runners.process import ProcessTree
from pytest_autoresearch.runners.supervised import SupervisedTree

CLOSE_SECONDS = 1.0
TREE = SupervisedTree if sys.platform == "linux" else PlainTree


class Trees:
    """What runs now; any thread may call anything at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[ProcessTree] = set()
        self._closed = False

    def start(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> ProcessTree:
        """A new tree; `forget` it when it has ended.

        Raises:
            Stopped: `close` was called.
            OSError: The program cannot be started.
        """
        # Under the lock, so that `close` either finds the tree or keeps it from being started.
        with self._lock:
            self.check_open()
            tree = TREE(command, folder, environment, pass_fds)
            self._running.add(tree)
            return tree

    def forget(self, tree: ProcessTree) -> None:
        """Nothing of it is left."""
        with self._lock:
            self._running.discard(tree)

    def check_open(self) -> None:
        """What `close` has ended has no result.

        Raises:
            Stopped: `close` was called.
        """
        if self._closed:
            raise Stopped("the session is ending")

    def close(self) -> None:
        """End every process, now."""
        with self._lock:
            self._closed = True
            trees = tuple(self._running)
        for number in (SIGTERM, SIGKILL):
            for tree in trees:
                tree.signal(number)
            until = time.monotonic() + CLOSE_SECONDS
            for tree in trees:
                tree.gone.wait(max(0.0, until - time.monotonic()))
