"""A run on a node of a cluster: what goes there, what is made of it there, and what comes back.

The node's process has a checkout of its own, made from a git bundle, and finds its equipment in it as a session on that
machine would.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pytest_autoresearch.core import conditions
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.run import Progress, Run
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.ledger.bundle import Bundle, new_checkout, unpack
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure import lanes
from pytest_autoresearch.measure.conditions import portable, setting_of
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.integrity import Frozen, remove_bytecode
from pytest_autoresearch.measure.node_folder import hold, locked
from pytest_autoresearch.measure.place import RunSpec
from pytest_autoresearch.measure.setup import Equipment, equip_here
from pytest_autoresearch.runners.ray import Node, Post
from pytest_autoresearch.sandboxes.select import Sandbox
from pytest_autoresearch.settings import Settings


@dataclass(frozen=True, slots=True)
class Site:
    """What every run of a session needs on a node.

    Attributes:
        session: Names the session.
        settings: The session's; `root` is the session's too.
        tag: The campaign.
        prefix: Pytest's root, relative to the top of the repository.
        variables: Those of training that are the same on every node.
        secret: Draws the rows of the evaluation; empty for none.
        expected: The conditions that a node must have; None for any.
    """

    session: str
    settings: Settings
    tag: str
    prefix: Path
    variables: Mapping[str, str]
    secret: str = ""
    expected: Setting | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a node says of itself."""

    node: Node
    harness: Harness
    setting: Setting
    sandbox: Sandbox


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a node makes no runs for this session, in words."""

    node: Node
    why: str


@dataclass(frozen=True, slots=True)
class Made:
    """A run, the whole log, and what the scorer wrote, by the name of the variable."""

    node: Node
    run: Run
    log: bytes
    written: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Station:
    """The checkout and the equipment of this process, for one session."""

    ratchet: Ratchet
    settings: Settings
    equipment: Equipment
    setting: Setting
    frozen: Frozen


def look(post: Post, node: Node, site: Site, start: Bundle, freight: bytes) -> Found | Unfit:
    """What a session would find on this node."""
    try:
        station = _station(site, start, freight)
    except UserError as error:
        return Unfit(node, str(error))
    return Found(node, station.equipment.harness, station.setting, station.equipment.sandbox)


def conduct(
    post: Post, node: Node, site: Site, start: Bundle, freight: bytes, bundle: Bundle, spec: RunSpec,
    names: tuple[str, ...], *read: bytes,
) -> Made | Unfit:  # fmt: skip
    """Make one run on this node.

    Args:
        post: Called with the run's progress.
        site: The same for every run.
        start: The commit that the user has checked out, with the frozen files.
        freight: See `cluster.freight_of`.
        bundle: The commit to run.
        spec: The run; files that it names are the session's.
        names: The variables of `spec.scorer_reads`, in the order of `read`.
        read: The content of these files.
    """
    post(Progress(f"preparing on {node.name}"))
    try:
        station = _station(site, start, freight)
        if site.expected is not None and (why := differences(site.expected, station.setting)):
            return Unfit(node, why)
        gpus = station.equipment.taken.lanes[0].gpus
        taken = lanes.on_gpus(1, gpus, len(gpus)) if gpus else None
    except UserError as error:
        return Unfit(node, str(error))
    try:
        unpack(station.ratchet.git, bundle)
        made = _run(
            post, node, station, replace(spec, commit=bundle.commit, lane=0), dict(zip(names, read, strict=True))
        )
        changed = station.frozen.changed()
        return Unfit(node, f"{changed[0]} was changed there while the session ran") if changed else made
    finally:
        if taken:
            taken.release()


def differences(expected: Setting, setting: Setting) -> str:
    """Why results of a node cannot be compared with the session's, in words; empty if they can."""
    found = [str(one) for one in conditions.of_settings(expected, setting)]
    if expected.sandbox != setting.sandbox:
        found.append(f"sandbox ({expected.sandbox}, now {setting.sandbox})")
    return f"it differs in {', '.join(found)}" if found else ""


def _run(post: Post, node: Node, station: _Station, spec: RunSpec, read: Mapping[str, bytes]) -> Made:
    place = station.equipment.place(station.settings, station.ratchet)
    tree = station.ratchet.worktree(0)
    files = Path(tempfile.mkdtemp(dir=station.ratchet.home))
    try:
        reads = {name: files / f"read-{name}" for name in read}
        writes = {name: files / f"written-{name}" for name in spec.scorer_writes}
        for name, path in reads.items():
            path.write_bytes(read[name])
        local, log = replace(spec, scorer_reads=reads, scorer_writes=writes), files / "log"
        run = place.run(local, tree, log, post, lambda text: None)
        written = {name: path.read_bytes() for name, path in writes.items() if path.exists()}
        return Made(node, replace(run, node=node.name), log.read_bytes() if log.exists() else b"", written)
    finally:
        place.close()
        shutil.rmtree(files, ignore_errors=True)
        tree.empty()
        tree.release()


# ------------------------------------------------------------------------------------------------- the node's checkout

_stations: dict[tuple[str, str, str], _Station] = {}


def _station(site: Site, start: Bundle, freight: bytes) -> _Station:
    """The equipment of this process for the session, found once for each GPU that Ray gives it.

    Raises:
        UserError: It cannot be used; says why.
    """
    for name in portable(os.environ, site.settings.environment):
        del os.environ[name]  # such as the number of threads that Ray sets
    os.environ |= site.variables
    key = (site.session, site.secret, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    if key not in _stations:
        folder = _folder(site.session)
        top = folder / "checkout"
        with locked(folder / "making"):
            if not (top / ".git" / "autoresearch").exists():
                new_checkout(top, start)
                with tarfile.open(fileobj=io.BytesIO(freight)) as files:
                    files.extractall(top, filter="fully_trusted")
                (top / ".git" / "autoresearch").mkdir()
        settings = replace(site.settings, root=top / site.prefix, lanes=1)
        ratchet = Ratchet(settings.root)
        ratchet.tag = site.tag
        equipment = equip_here(settings, ratchet, lambda: site.secret, of_several=True)
        equipment.taken.release()  # each run takes the GPU that Ray has given it
        trusted = [settings.root / path for path in settings.frozen]
        remove_bytecode(trusted)
        frozen = Frozen([*trusted, *equipment.harness.data_files])
        _stations[key] = _Station(ratchet, settings, equipment, setting_of(settings, ratchet, equipment), frozen)
    return _stations[key]


@cache
def _folder(session: str) -> Path:
    try:
        return hold(session)
    except OSError as error:
        raise UserError(f"it has no folder for runs: {error}") from None
