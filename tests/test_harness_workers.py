"""Work shared out to processes: they do all of it, and none of them outlives the work or its parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from harness_data import CHECKOUT

from harness import workers
from harness.errors import HarnessError


def process_of(task: int) -> tuple[int, int, str]:
    return task, os.getpid(), os.environ["RAYON_NUM_THREADS"]


def fail(folder: Path, task: int) -> None:
    """The first ends badly, the others would take long."""
    (folder / str(os.getpid())).touch()
    if task == 0:
        raise HarnessError("a shard is damaged.")
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def all_gone(folder: Path) -> bool:
    return all(gone(int(path.name)) for path in folder.iterdir())


def test_every_task_is_done_once_by_one_of_the_processes() -> None:
    results: list[tuple[int, int, str]] = []
    workers.each(process_of, range(20), results.append, processes=2, threads=3)
    assert sorted(task for task, _, _ in results) == list(range(20))
    assert 1 <= len({process for _, process, _ in results} - {os.getpid()}) <= 2
    assert {threads for _, _, threads in results} == {"3"}


@pytest.mark.parametrize(
    ("first", "words"),
    [(0, "a shard is damaged"), (1, "ended unexpectedly.* with fewer --workers to continue")],
)
def test_what_goes_wrong_in_one_process_ends_the_others(tmp_path: Path, first: int, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        workers.each(partial(fail, tmp_path), [2, first], print, processes=2)
    assert all_gone(tmp_path)


@pytest.mark.parametrize(("how", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, 1)])
def test_the_processes_end_with_their_parent(tmp_path: Path, how: signal.Signals, status: int) -> None:
    program = (
        "from functools import partial; from pathlib import Path; from harness import errors, workers\n"
        "import test_harness_workers as tests\n"
        f"work = partial(workers.each, partial(tests.fail, Path({str(tmp_path)!r})), [2, 3], print, processes=2)\n"
        "if __name__ == '__main__': errors.run_command(work)\n"
    )
    script = tmp_path.with_suffix(".py")
    script.write_text(program)
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")])
    process = subprocess.Popen([sys.executable, script], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE)
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    if how == signal.SIGINT:
        assert said == b"harness: interrupted; rerun the same command to continue.\n"
    for _ in range(1000):
        if all_gone(tmp_path):
            return
        time.sleep(0.01)
    raise AssertionError("a process outlived its parent")
