"""Distributes tasks to worker processes, which end when their parent ends, even if it is killed."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TypeVar

from harness.errors import HarnessError

Task = TypeVar("Task")
Result = TypeVar("Result")

# A process takes 0.2 s to start; this much text takes about 1 s to tokenise.
_TEXT_BYTES_OF_A_PROCESS = 2**22


def worth(text_bytes: int, workers: int) -> int:
    """How many processes to use for this much text, at most `workers`; 0 if this process alone is faster."""
    return min(workers, text_bytes // _TEXT_BYTES_OF_A_PROCESS)


def each(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    on_result: Callable[[Result], object],
    *,
    processes: int,
    threads: int = 1,
) -> None:
    """Do each task. No process is left behind, even after an error.

    The standard library's pools are not used, because they may wait for ever for a worker that was killed.

    Args:
        on_result: Called in this process with each result as it arrives, in any order.
        processes: Number of worker processes; 0 to do the work in this process.
        threads: Number of threads that the tokenizer's library may use in each process.

    Raises:
        HarnessError: A worker ended before its work was done. Exceptions of a task are raised here too.
    """
    if not processes:
        for task in tasks:
            on_result(function(task))
        return
    try:
        with _started(function, min(processes, len(tasks)), threads) as connections:
            _share(tasks, connections, on_result)
    except (EOFError, ConnectionError):
        raise HarnessError(
            "a worker process ended unexpectedly, perhaps because memory ran out; rerun the same command with "
            "fewer --workers to continue."
        ) from None


def _share(tasks: Sequence[Task], connections: Sequence[Connection], on_result: Callable[[Result], object]) -> None:
    waiting = list(reversed(tasks))
    for connection in connections:
        connection.send(waiting.pop())
    busy = set(connections)
    while busy:
        for connection in [ready for ready in wait(busy) if isinstance(ready, Connection)]:
            result: Result | Exception = connection.recv()
            if isinstance(result, Exception):
                raise result
            on_result(result)
            if waiting:
                connection.send(waiting.pop())
            else:
                busy.remove(connection)


@contextmanager
def _started(function: Callable[[Task], Result], count: int, threads: int) -> Iterator[list[Connection]]:
    """Start worker processes; yields the connections to them."""
    context = multiprocessing.get_context("spawn")
    connections: list[Connection] = []
    members: list[SpawnProcess] = []
    try:
        for _ in range(count):
            connection, other_end = context.Pipe()
            with other_end, _without_interrupts():
                member = context.Process(target=_work, args=(function, other_end, threads), daemon=True)
                member.start()
                connections.append(connection)
                members.append(member)
        yield connections
    finally:
        for member in members:
            member.kill()
        for member, connection in zip(members, connections, strict=True):
            member.join()
            connection.close()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block SIGINT: processes that are started meanwhile ignore Ctrl-C, and this process handles it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(function: Callable[[Task], Result], connection: Connection, threads: int) -> None:
    """The worker process: do tasks as they arrive."""
    # The tokenizer's library reads these on first use.
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    while True:
        result: Result | Exception
        try:
            result = function(tasks.get())
        except (HarnessError, OSError) as error:
            result = error
        with suppress(BrokenPipeError):
            connection.send(result)


def _listen(connection: Connection, tasks: "queue.SimpleQueue[Task]") -> None:
    while True:
        try:
            tasks.put(connection.recv())
        except (EOFError, OSError):
            # The parent has ended.
            os._exit(1)
