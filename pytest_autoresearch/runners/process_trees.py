"""The process trees of one runner. They start under one lock, so that `close` ends every one of them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM

from pytest_autoresearch.core.errors import Stopped
from pytest_autoresearch.runners.process import ProcessTree
from pytest_autoresearch.runners.supervised import SupervisedTree
from pytest_autoresearch.runners.unsupervised import UnsupervisedTree

CLOSE_SECONDS = 1.0
TREE = SupervisedTree if sys.platform == "linux" else UnsupervisedTree


class ProcessTrees:
    """The running trees; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[ProcessTree] = set()
        self._closed = False

    def start(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> ProcessTree:
        """Start a tree; call `forget` when it has ended.

        Raises:
            Stopped: `close` was called.
            OSError: The program could not be started.
        """
        # Under the lock, so that `close` either ends the tree or prevents its start.
        with self._lock:
            self.check_open()
            tree = TREE(command, folder, environment, pass_fds)
            self._running.add(tree)
            return tree

    def forget(self, tree: ProcessTree) -> None:
        """Drop a tree that has ended."""
        with self._lock:
            self._running.discard(tree)

    def check_open(self) -> None:
        """Check that `close` was not called.

        Raises:
            Stopped: `close` was called.
        """
        if self._closed:
            raise Stopped("the session is ending")

    def close(self) -> None:
        """End every process at once."""
        with self._lock:
            self._closed = True
            trees = tuple(self._running)
        for number in (SIGTERM, SIGKILL):
            for tree in trees:
                tree.signal(number)
            until = time.monotonic() + CLOSE_SECONDS
            for tree in trees:
                tree.gone.wait(max(0.0, until - time.monotonic()))
