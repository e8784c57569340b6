"""Work shared out to processes that end when their parent does, however it ends. May not know what the work is."""

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

# A process takes a fifth of a second to start, and so much text about one second to tokenise.
_TEXT_BYTES_OF_A_PROCESS = 2**22


def worth(text_bytes: int, workers: int) -> int:
    """How many processes so much text is worth, at most `workers`; 0 where this one does it sooner by itself."""
    return min(workers, text_bytes // _TEXT_BYTES_OF_A_PROCESS)


def each(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    on_result: Callable[[Result], object],
    *,
    processes: int,
    threads: int = 1,
) -> None:
    """Do each task. Whatever goes wrong, no process is left behind.

    The standard library's pools are not for this: one waits for ever for a process that was killed, the other, until
    something else happens, for one that was killed early.

    Args:
        on_result: Called here with each result as it is ready, in any order.
        processes: How many share the work; 0: this process does it.
        threads: How many threads the tokenizer's library may use in each of them.

    Raises:
        HarnessError: A process ended before its work was done. What a task raises is raised here.
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
            "a worker process ended before its work was done, as when Linux takes memory back; type the same command "
            "again to continue, with fewer --workers."
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
    """Processes that wait for tasks, as the connections to them."""
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
    """Ctrl-C reaches every process of a terminal, and the parent decides what it means: processes that are started here
    never see it, and this one sees it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(function: Callable[[Task], Result], connection: Connection, threads: int) -> None:
    """Do tasks as they come, in a process of its own."""
    # Read when the tokenizer's library first needs them.
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
            # The parent is gone, and nobody is left to work for.
            os._exit(1)
