"""A Ray cluster on this machine, as a process of its own that all workers of a test run share.

`python ray_nodes.py OWNER FILE`: it writes its address to FILE, keeps its nodes alive, and ends with the process OWNER.
The nodes: a head that makes no runs, two with one GPU in name, and one that says it has another.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

_STORE_BYTES = 80 * 2**20
ENVIRONMENT = {  # of the cluster and of its sessions; a token in ~/.ray would otherwise decide how they speak
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AUTH_MODE": "disabled",
}  # fmt: skip
_TRIES = 3  # Ray gives a node half a minute to start, which a busy machine may need longer for
ALIKE = 2
_started: list[subprocess.Popen[bytes]] = []  # Python complains of one that is forgotten while it runs


@contextmanager
def shared_cluster(folder: Path) -> Iterator[str]:
    """The address of the cluster, for this process alone until the end of the `with`.

    Args:
        folder: Shared by all workers of this run of pytest.
    """
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    with (folder / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = folder / "ray.address"
        if not file.exists():
            with (folder / "ray.log").open("w") as log:
                command = [sys.executable, __file__, str(owner), str(file)]
                process = subprocess.Popen(
                    command, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            _started.append(process)
            while not file.exists():
                assert process.poll() is None, (folder / "ray.log").read_text()
                time.sleep(0.1)
        yield file.read_text()


def kill_node(pid: int) -> None:
    """Kill the node on which a process runs, as a machine dies: everything at once."""
    raylet = next(one for one in psutil.Process(pid).parents() if one.name() == "raylet")
    for one in (*raylet.children(), raylet):
        with suppress(psutil.NoSuchProcess):  # some children end by themselves
            one.kill()


def _serve(owner: int, file: Path) -> None:
    from ray.cluster_utils import Cluster

    started = psutil.Process(owner).create_time()
    small: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path, because sockets are in it
    cluster = Cluster()
    try:
        nodes: list[Any] = []
        _add(cluster, num_cpus=0, temp_dir=folder, **small)
        _add(cluster, num_cpus=1, num_gpus=1, env_vars={"CARD": "another"}, **small)
        while psutil.pid_exists(owner) and psutil.Process(owner).create_time() == started:
            nodes = [node for node in nodes if all(one.process.poll() is None for one in node.all_processes["raylet"])]
            while len(nodes) < ALIKE:
                nodes.append(_add(cluster, num_cpus=1, num_gpus=1, **small))
            if not file.exists():
                file.with_suffix(".part").write_text(cluster.address)
                file.with_suffix(".part").rename(file)
            time.sleep(0.5)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _add(cluster: Any, **given: Any) -> Any:
    """A new node; the first one is the head."""
    for _ in range(_TRIES - 1):
        with suppress(Exception):
            return cluster.add_node(**given)
    return cluster.add_node(**given)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
