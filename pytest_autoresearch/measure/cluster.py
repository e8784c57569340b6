"""Runs on the nodes of a Ray cluster, for a session on this machine, which stays the only one that writes git.

At first every node says what it has; the nodes with the campaign's conditions make the runs. A commit goes out as a git
bundle. A run whose node is lost comes back as inconclusive, so that it is repeated.
"""

from __future__ import annotations

import io
import os
import queue
import secrets
import tarfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_autoresearch.core import conditions
from pytest_autoresearch.core.errors import AutoresearchError, NodeLost, Stopped, UserError
from pytest_autoresearch.core.experiment import BASELINE
from pytest_autoresearch.core.run import Crash, CrashClass, Progress, Run
from pytest_autoresearch.hardware.lanes import Lane
from pytest_autoresearch.ledger.bundle import Bundle, pack
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure import node, rows_secret
from pytest_autoresearch.measure.conditions import portable
from pytest_autoresearch.measure.lanes import Taken
from pytest_autoresearch.measure.node import Found, Made, Site, Unfit
from pytest_autoresearch.measure.place import RunSpec
from pytest_autoresearch.measure.setup import Elsewhere, Equipment
from pytest_autoresearch.runners.environment import passed
from pytest_autoresearch.runners.launch import Launch
from pytest_autoresearch.runners.ray import Cluster, Node
from pytest_autoresearch.sandboxes.base import View
from pytest_autoresearch.sandboxes.select import find
from pytest_autoresearch.settings import AUTO, Settings

_FIRST_SECONDS = 900.0  # until the first node has answered: it may have to make its data
_OTHER_SECONDS = 60.0  # after which nodes without a free slot are looked at when they make their first run
_MOST_FREIGHT = 4 * 2**30
_WAITING = Progress("waiting for a node")


@dataclass(frozen=True, slots=True)
class _Shared:
    """References to what every run needs."""

    site: Any
    start: Any
    freight: Any


def equip_cluster(settings: Settings, ratchet: Ratchet, secret: Callable[[], str]) -> Equipment:
    """Connect, and let every node say what it has.

    Args:
        secret: Gives the secret that draws the rows.

    Raises:
        UserError: There is no cluster, or no node of it can make runs.
    """
    freight = freight_of(settings, ratchet)
    start = pack(ratchet.git, ratchet.start)
    cluster = Cluster(settings.ray_address)
    try:
        slot = dict(settings.ray_slot) or _usual_slot(cluster.nodes(), settings.gpus)
        able = [one for one in cluster.nodes() if one.slots(slot)]
        words = ",".join(f"{name}={amount:g}" for name, amount in slot.items())
        if not able:
            raise UserError(f"no node of the Ray cluster has {words}: give --autoresearch-ray-slot what its nodes have")
        variables = portable(os.environ, settings.environment)
        site = Site(secrets.token_hex(8), settings, ratchet.tag, ratchet.prefix, variables)
        shared = _Shared(site, cluster.put(start), cluster.put(freight))
        chosen, unfit = _choose(_look(cluster, slot, able, shared), ratchet, able, slot)
        harness, setting = chosen.harness, chosen.setting
        if harness.draws_rows:
            harness = replace(harness, secret=secret())
            setting = replace(setting, rows=rows_secret.fingerprint(harness.secret))
        shared = replace(shared, site=cluster.put(replace(site, secret=harness.secret, expected=setting)))
        place = ClusterPlace(cluster, slot, ratchet, shared, start.commit, [one.node.ident for one in unfit])
        fit = [one for one in able if one.ident not in place.unfit]
        slots = sum(one.slots(slot) for one in fit)
        count = slots if settings.lanes == AUTO else settings.lanes
        said = f"{count} on {len(fit)} node{'s' * (len(fit) != 1)} of the Ray cluster, each with {words}"
        said += f"; there are only {slots} such slots now, so runs wait" if count > slots else ""
        left = tuple(f"the node {one.node.name}: {one.why}" for one in unfit)
        taken = Taken(tuple(Lane() for _ in range(count)), left, (cluster,), said)
        view = View(settings.root, passed(os.environ), readable=settings.readable_paths, covered=harness.hidden)
        here = find(settings.sandbox, view, [ratchet.home.parent]).backend
        return Equipment(
            harness, taken, chosen.sandbox, settings.command, Launch(settings.command),
            {**variables, **harness.environment}, Elsewhere(place, setting, here),
        )  # fmt: skip
    except BaseException:
        cluster.release()
        raise


class ClusterPlace:
    """The nodes of a cluster that have the campaign's conditions. See `Place`.

    Attributes:
        unfit: The nodes that make no runs, by Ray's own names.
    """

    def __init__(
        self, cluster: Cluster, slot: Mapping[str, float], ratchet: Ratchet, shared: _Shared, start: str,
        unfit: Iterable[str],
    ) -> None:  # fmt: skip
        self.unfit = set(unfit)
        self._cluster = cluster
        self._slot = slot
        self._ratchet = ratchet
        self._shared = shared
        self._start = start
        self._sent: dict[tuple[Path, int], Any] = {}

    def run(
        self, spec: RunSpec, tree: Worktree, log: Path, note: Callable[[Progress], None], say: Callable[[str], None]
    ) -> Run:
        bundle = pack(self._ratchet.git, spec.commit, self._start)
        compiled = pack(self._ratchet.git, spec.compiled, self._start).commit if spec.compiled else ""
        errand = replace(spec, compiled=compiled)
        read = [self._send(path) for path in spec.scorer_reads.values()]
        while True:
            try:
                made = self._call(bundle, errand, read, note)
            except NodeLost as lost:
                crash = Crash(CrashClass.LOST, str(lost))
                return Run(spec.seed, None, lane=spec.lane, node=lost.node, crash=crash)
            if isinstance(made, Made):
                break
            self.unfit.add(made.node.ident)
            say(f"the node {made.node.name} makes no runs: {made.why}")
            if not any(one.slots(self._slot) for one in self._cluster.nodes() if one.ident not in self.unfit):
                raise UserError(f"no node of the Ray cluster is left that can make runs; the last one: {made.why}")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(made.log)
        for name, content in made.written.items():
            path = spec.scorer_writes[name]
            part = path.with_name(f".{path.name}.part-{spec.lane}")
            part.write_bytes(content)
            part.replace(path)
        return replace(made.run, lane=spec.lane)

    def close(self) -> None:
        self._cluster.close()

    def _call(
        self, bundle: Bundle, spec: RunSpec, read: Sequence[Any], note: Callable[[Progress], None]
    ) -> Made | Unfit:
        shared = self._shared
        made: Made | Unfit = self._cluster.call(
            node.conduct, shared.site, shared.start, shared.freight, bundle, spec, tuple(spec.scorer_reads), *read,
            slot=self._slot, heard=note, first=_WAITING, without=frozenset(self.unfit),
        )  # fmt: skip
        return made

    def _send(self, path: Path) -> Any:
        """A reference to the content of a file, which does not go out again while it is the same."""
        key = (path, path.stat().st_mtime_ns)
        if key not in self._sent:
            self._sent = {old: sent for old, sent in self._sent.items() if old[0] != path and old[0].exists()}
            self._sent[key] = self._cluster.put(path.read_bytes())
        return self._sent[key]


def freight_of(settings: Settings, ratchet: Ratchet) -> bytes:
    """The untracked files of the checkout that runs need, as a tar archive: a node has only what is committed.

    Raises:
        UserError: They are too large.
    """
    given = [Path(name).expanduser() for name in settings.readable]
    names = [ratchet.prefix / name for name in given if not name.is_absolute() and (settings.root / name).exists()]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as files:
        for name in (*names, *map(Path, ratchet.elsewhere.present)):
            files.add(ratchet.top / name, name)
            if made.tell() > _MOST_FREIGHT:
                raise UserError(
                    f"autoresearch_readable: {name} is too large to send to every node: put it at one absolute path on "
                    "every node, and name that path"
                )
    return made.getvalue()


def _usual_slot(nodes: Sequence[Node], gpus: int) -> dict[str, float]:
    """The GPUs of a lane; where there is none, all CPUs of the smallest node, because a run uses all that it finds."""
    if any(one.resources.get("GPU", 0) >= 1 for one in nodes):
        return {"GPU": gpus}
    return {"CPU": min((cpus for one in nodes if (cpus := one.resources.get("CPU", 0)) >= 1), default=1)}


def _look(cluster: Cluster, slot: Mapping[str, float], nodes: Sequence[Node], shared: _Shared) -> list[Found | Unfit]:
    """What the nodes say of themselves. Nodes whose slots are all taken are left out."""
    answers: queue.Queue[Found | Unfit | BaseException] = queue.Queue()

    def ask(one: Node) -> None:
        try:
            answers.put(
                cluster.call(
                    node.look,
                    shared.site,
                    shared.start,
                    shared.freight,
                    slot=slot,
                    heard=lambda said: None,
                    on=one.ident,
                )
            )
        except (NodeLost, Stopped) as error:
            answers.put(Unfit(one, str(error)))
        except AutoresearchError as error:
            answers.put(error)
        except Exception as error:  # of Ray's own, or an older version of this package there
            why = f"{type(error).__name__}: {error}: install the same versions of pytest-autoresearch and its "
            answers.put(Unfit(one, f"{why}dependencies there as here"))

    for one in nodes:
        threading.Thread(target=ask, args=(one,), daemon=True, name="look").start()
    found: list[Found | Unfit] = []
    while len(found) < len(nodes):
        try:
            answer = answers.get(timeout=_OTHER_SECONDS if found else _FIRST_SECONDS)
        except queue.Empty:
            break
        if isinstance(answer, BaseException):
            raise answer
        found.append(answer)
    if not found:
        raise UserError("no node of the Ray cluster had a free slot within 15 minutes: type `ray status` to see why")
    return found


def _choose(
    answers: Sequence[Found | Unfit], ratchet: Ratchet, nodes: Sequence[Node], slot: Mapping[str, float]
) -> tuple[Found, list[Unfit]]:
    """A node with the campaign's conditions, or at first with those of most slots; and the nodes that differ."""
    found = sorted((one for one in answers if isinstance(one, Found)), key=lambda one: one.node.name)
    unfit = [one for one in answers if isinstance(one, Unfit)]
    if not found:
        raise UserError(f"no node of the Ray cluster can make runs; {unfit[0].node.name}: {unfit[0].why}")
    first = next((record for record in ratchet.records() if record.number == BASELINE), None) if ratchet.tag else None
    slots = {one.ident: one.slots(slot) for one in nodes}

    def weight(one: Found) -> tuple[bool, int]:
        same = first is not None and not any(
            conditions.of_settings(first.setting, replace(one.setting, rows=first.setting.rows))
        )
        alike = [other for other in found if not node.differences(one.setting, other.setting)]
        return same, sum(slots[other.node.ident] for other in alike)

    chosen = max(found, key=weight)
    others = ((one.node, node.differences(chosen.setting, one.setting)) for one in found)
    return chosen, [*unfit, *(Unfit(other, why) for other, why in others if why)]
