"""Calls functions on the nodes of a Ray cluster. Knows neither git nor runs; imports ray only when it connects.

A call is a Ray task that takes a slot: GPUs, or other resources of one node. What goes out is values, and so is what
comes back. The task says how far it is through a mailbox, because a Ray client has no streaming tasks. Ray ends all
tasks of a session that ends, however it ends.
"""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_autoresearch.core.errors import NodeLost, Stopped, UserError
from pytest_autoresearch.core.extras import need
from pytest_autoresearch.core.text import one_line

_CONNECT_SECONDS = 5.0
_POLL_SECONDS = 0.25
_POST_SECONDS = 0.5
_END_SECONDS = 3.0
_HEAD = "node:__internal_head__"  # a resource that Ray gives to the head node alone
_CLIENT = "ray://"

Post = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster.

    Attributes:
        name: Its name for people.
        ident: Ray's own name of it.
        resources: All that it has.
    """

    name: str
    ident: str
    resources: Mapping[str, float]

    def slots(self, slot: Mapping[str, float]) -> int:
        """How many slots it has in all."""
        return min(int(self.resources.get(name, 0.0) / amount) for name, amount in slot.items())


class Cluster:
    """A connection to a Ray cluster; thread-safe. There is one for each process.

    Args:
        address: `auto`, `local`, `HOST:PORT` or `ray://HOST:PORT`.

    Raises:
        UserError: ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str) -> None:
        need("ray", "ray", "--autoresearch-runner ray")
        _knock(address)
        self._ray = _connect(address)
        # On the head node, without which there is no cluster: what was posted outlives every other node.
        on_head = self._ray.remote(num_cpus=0, max_restarts=-1, resources={_HEAD: 0.001})
        self._mailbox = on_head(_Mailbox).remote()
        self._task = self._ray.remote(max_retries=0, max_calls=0)(_task)
        self._lock = threading.Lock()
        self._running: dict[int, Any] = {}
        self._count = 0
        self._closed = False

    def nodes(self) -> list[Node]:
        """Every node that answers now, by name."""
        found = [
            Node(f"{one['NodeManagerHostname']} {one['NodeID'][:8]}", one["NodeID"], one["Resources"])
            for one in self._ray.nodes()
            if one["Alive"]
        ]
        return sorted(found, key=lambda node: node.name)

    def put(self, value: object) -> Any:
        """Store a value in the cluster: each node fetches it once. `call` takes the reference in place of the value."""
        return self._ray.put(value)

    def call(
        self, work: Callable[..., Any], *given: object, slot: Mapping[str, float], heard: Callable[[Any], None],
        first: Any = None, on: str = "", without: Collection[str] = (),
    ) -> Any:  # fmt: skip
        """Call a function of this package on a node with a free slot, once there is one.

        Args:
            work: Called with a function that posts a value, the node, and `given`.
            slot: What it takes of the node.
            heard: Called again and again on this thread with the value that was posted last. What it raises ends the
                call.
            first: The value before anything was posted.
            on: The node; empty for any.
            without: Nodes that it may not go to.

        Raises:
            Stopped: `close` was called.
            NodeLost: The node ended.
            Exception: What the function raised.
        """
        with self._lock:
            self._check_open()
            self._count += 1
            number = self._count
            task = self._task.options(**_options(slot, on, without)).remote(work, self._mailbox, number, *given)
            self._running[number] = task
        node, said = "", first
        try:
            while not self._ray.wait([task], timeout=_POLL_SECONDS)[0]:
                self._check_open()
                node, said = self._look(number) or (node, said)
                try:
                    heard(said)
                except BaseException:
                    self._ray.cancel(task)
                    self._ray.wait([task], timeout=_END_SECONDS)
                    raise
            return self._result(task, number, node)
        except Stopped:
            self._ray.wait([task], timeout=_END_SECONDS)  # nothing of it is left then
            raise
        finally:
            with self._lock:
                del self._running[number]

    def close(self) -> None:
        """End every call at once; `call` raises Stopped, now and later."""
        with self._lock:
            self._closed = True
            for task in self._running.values():
                self._ray.cancel(task)

    def release(self) -> None:
        """Leave the cluster. Ray ends what still runs for this session."""
        self.close()
        self._ray.shutdown()

    def _check_open(self) -> None:
        if self._closed:
            raise Stopped("the session is ending")

    def _look(self, number: int) -> tuple[str, Any] | None:
        """The node of the task and what it posted last; None if nothing is new."""
        try:
            posted: tuple[str, Any] | None = self._ray.get(self._mailbox.take.remote(number), timeout=_POLL_SECONDS)
            return posted
        except (self._ray.exceptions.RayError, TimeoutError):  # the mailbox starts again elsewhere
            return None

    def _node(self, number: int) -> str:
        """The node that the task posted from; empty if it posted nothing."""
        try:
            return str(self._ray.get(self._mailbox.node.remote(number), timeout=_END_SECONDS))
        except (self._ray.exceptions.RayError, TimeoutError):
            return ""

    def _result(self, task: Any, number: int, node: str) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(task)
        except errors.TaskCancelledError:
            raise Stopped("the session is ending") from None
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.TaskCancelledError):
                raise Stopped("the session is ending") from None
            raise error.cause from None
        except errors.RayError as error:
            raise NodeLost(node or self._node(number), one_line(str(error).partition(". ")[0])) from None


class _Mailbox:
    """What each running task posted last; an actor of the cluster."""

    def __init__(self) -> None:
        self._posted: dict[int, tuple[str, Any]] = {}
        self._nodes: dict[int, str] = {}

    def post(self, number: int, node: str, value: Any) -> None:
        self._posted[number] = node, value
        self._nodes[number] = node

    def node(self, number: int) -> str:
        return self._nodes.get(number, "")

    def take(self, number: int) -> tuple[str, Any] | None:
        return self._posted.pop(number, None)


def _task(work: Callable[..., Any], mailbox: Any, number: int, *given: object) -> Any:
    """On the node."""
    posted_at, node = 0.0, _this_node()

    def post(value: Any) -> None:
        nonlocal posted_at
        if time.monotonic() - posted_at >= _POST_SECONDS:
            posted_at = time.monotonic()
            mailbox.post.remote(number, node.name, value)

    return work(post, node, *given)


def _this_node() -> Node:
    """The node of this task."""
    import ray

    ident = ray.get_runtime_context().get_node_id()
    return Node(f"{platform.node()} {ident[:8]}", ident, {})


def _options(slot: Mapping[str, float], on: str, without: Collection[str]) -> dict[str, Any]:
    others = {name: amount for name, amount in slot.items() if name not in ("CPU", "GPU")}
    taken = {"num_cpus": slot.get("CPU", 0), "num_gpus": slot.get("GPU", 0), "resources": others}
    chosen = on or (f"!in({','.join(sorted(without))})" if without else "")
    return {**taken, "label_selector": {"ray.io/node-id": chosen}} if chosen else taken


def _knock(address: str) -> None:
    """Try the door of a cluster's head: Ray itself waits for minutes until it says that nobody answers."""
    given = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, found, port = given.removeprefix(_CLIENT).rpartition(":")
    if given in ("", "auto", "local"):
        return
    where = _option(address) + (f" (RAY_ADDRESS={given})" if given != address else "")
    if not found or not port.isdecimal():
        raise UserError(f"{where}: give auto, local, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{where}: nobody answers there ({getattr(error, 'strerror', None) or error}): type `ray start --head` on "
            "the head node, or give the address of a cluster that runs"
        ) from None


def _connect(address: str) -> Any:
    import ray

    if ray.is_initialized():
        raise UserError("this process is connected to a Ray cluster already: call ray.shutdown() before the session")
    quiet = {"logging_level": "ERROR"} if address.startswith(_CLIENT) else {"log_to_driver": False, "logging_level": 40}
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says the same
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:
        raise UserError(
            f"{_option(address)}: {one_line(str(error))[:300]}: type `ray start --head` on this machine, or give "
            "HOST:PORT or ray://HOST:PORT of a cluster that runs"
        ) from None
    return ray


def _option(address: str) -> str:
    return f"--autoresearch-ray-address {address}"
