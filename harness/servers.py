"""The model servers of one score. Those that may be needed are started early, because to import torch takes seconds.

A server that waits has loaded none of the candidate's code, no model and no text, and has not opened the GPU. Each
answers for one question and is ended: the probe is asked of a server that has not seen what the first one saw. Knows
nothing of torch or losses.
"""

from collections.abc import Sequence
from typing import Self

from harness.profiles import usable_cores
from harness.server_process import Deadlines, Launch, ServerProcess

_CORES_FOR_A_SPARE = 4  # with fewer, a second import delays the start of training by as much as it may save later


class Servers:
    """Starts servers, and ends those that were not taken.

    Args:
        launches: How to start them. At most one running server has each, so a server that follows takes the next.
        asked_again: Whether the model may be asked again, by a second server.
    """

    def __init__(self, launches: Sequence[Launch], deadlines: Deadlines, asked_again: bool) -> None:
        self._launches, self._deadlines = launches, deadlines
        self._started = 0
        self._waiting: list[ServerProcess] = []
        spare = asked_again and len(launches) > 1 and usable_cores() >= _CORES_FOR_A_SPARE
        for _ in range(2 if spare else 1):
            self._waiting.append(self._start())

    def await_up(self) -> None:
        """Wait until every server that was started can take a job.

        Call it before the first one sees text: that one could change how fast another's imports are read.

        Raises:
            NoAnswer: A server did not start in time.
        """
        for process in self._waiting:
            process.await_up()

    def take(self) -> ServerProcess:
        """The next server, which the caller closes."""
        return self._waiting.pop(0) if self._waiting else self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._waiting:
            process.close()

    def _start(self) -> ServerProcess:
        self._started += 1
        return ServerProcess(self._launches[(self._started - 1) % len(self._launches)], self._deadlines)
