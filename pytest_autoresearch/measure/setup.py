"""Finds the equipment for runs: the harness's description, the devices, a tested sandbox.

On a cluster, every node finds its own in the same way. Sessions and the commands that measure outside of a session use
the same equipment. Knows no campaign and no proposer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_autoresearch.core.experiment import BASELINE
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.hardware.gpu import Gpu, variables, visible
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure import lanes, rows_secret
from pytest_autoresearch.measure.harness import Harness, describe
from pytest_autoresearch.measure.lanes import Taken
from pytest_autoresearch.measure.module_folders import module_folders
from pytest_autoresearch.measure.place import Here, Place
from pytest_autoresearch.runners.environment import named, passed
from pytest_autoresearch.runners.lanes import LanesRunner
from pytest_autoresearch.runners.launch import Launch, find_launch
from pytest_autoresearch.runners.local import LocalRunner
from pytest_autoresearch.sandboxes.base import Backend, View
from pytest_autoresearch.sandboxes.machine import everywhere, gpu_devices
from pytest_autoresearch.sandboxes.select import Sandbox, find
from pytest_autoresearch.settings import RAY, Settings


@dataclass(frozen=True, slots=True)
class Equipment:
    """The equipment for runs.

    Attributes:
        harness: The harness's description.
        taken: The lanes, leased until `release`.
        sandbox: The sandbox for training.
        command: The configured training command.
        launch: How it is started.
        variables: The variables of training that are the same in every run.
        elsewhere: Where runs are made, if not on this machine.
    """

    harness: Harness
    taken: Taken
    sandbox: Sandbox
    command: tuple[str, ...]
    launch: Launch
    variables: Mapping[str, str]
    elsewhere: Elsewhere | None = None

    @property
    def driver(self) -> str:
        """The version of the GPUs' driver; empty if the harness uses no GPU."""
        return next((gpu.driver for gpu in self.taken.lanes[0].gpus), "")

    @property
    def agents(self) -> Backend:
        """The sandbox of this machine, where agents work."""
        return self.elsewhere.agents if self.elsewhere else self.sandbox.backend

    def place(self, settings: Settings, ratchet: Ratchet) -> Place:
        """The place of runs; each call gives a new one."""
        if self.elsewhere:
            return self.elsewhere.place
        launches = {self.command: self.launch}
        lanes = [(lane, LocalRunner(lane.gpus, self.sandbox.backend, launches)) for lane in self.taken.lanes]
        return Here(settings, self.harness, ratchet, LanesRunner(lanes))


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Runs on other machines than this one.

    Attributes:
        place: Makes them.
        setting: Their conditions.
        agents: The sandbox for agents, which work on this machine.
    """

    place: Place
    setting: Setting
    agents: Backend


def equip(settings: Settings, ratchet: Ratchet, *, begins: bool = False) -> Equipment:
    """Describe the harness, lease the lanes and test the sandbox with the paths that training will see.

    Args:
        begins: Whether a campaign without a baseline begins now, and needs a secret.

    Raises:
        UserError: One of them does not work.
    """
    if settings.runner == RAY:
        from pytest_autoresearch.measure.cluster import equip_cluster

        return equip_cluster(settings, ratchet, lambda: secret_of(ratchet, begins))
    return equip_here(settings, ratchet, lambda: secret_of(ratchet, begins), of_several=settings.lanes != 1)


def equip_here(settings: Settings, ratchet: Ratchet, secret: Callable[[], str], *, of_several: bool) -> Equipment:
    """The equipment of this machine, where `ratchet` has the checkout.

    Args:
        secret: Gives the secret that draws the rows.
        of_several: Whether runs also go to other devices of the same kind.

    Raises:
        UserError: Something does not work.
    """
    launch = find_launch(settings.command, settings.root, ratchet.committed())
    harness, taken = _harness(settings, launch, of_several)
    try:
        return _equipment(settings, ratchet, launch, harness, taken, secret)
    except BaseException:
        taken.release()
        raise


def _equipment(
    settings: Settings, ratchet: Ratchet, launch: Launch, harness: Harness, taken: Taken, secret: Callable[[], str]
) -> Equipment:
    training = {**passed(os.environ), **launch.environment, **named(os.environ, settings.environment)}
    folders = module_folders(settings, launch.command, ratchet.committed(), {**training, **harness.environment})
    harness = replace(harness, module_folders=folders)
    if harness.draws_rows:
        harness = replace(harness, secret=secret())
    view = View(
        folder=settings.root,
        environment=training,
        readable=(*settings.readable_paths, *launch.readable),
        links=launch.links,
        covered=harness.hidden,
        devices=gpu_devices(taken.lanes[0].gpus),
    )
    hidden = [ratchet.home.parent, *harness.hidden, *([harness.training_rows.parent] if harness.training_rows else [])]
    hidden += [rows_secret.folder()] if harness.secret and rows_secret.folder().exists() else []
    sandbox = find(settings.sandbox, view, hidden)
    return Equipment(harness, taken, sandbox, settings.command, launch, {**training, **harness.environment})


def secret_of(ratchet: Ratchet, begins: bool) -> str:
    """The secret that draws the rows of the campaign; outside a campaign the user's, if there is one."""
    records = ratchet.records() if ratchet.tag else []
    baseline = next((record for record in records if record.number == BASELINE), None)
    if baseline is None:
        return rows_secret.new(ratchet.home, ratchet.tag) if begins else rows_secret.of_environment()
    rows_secret.begun(ratchet.home, ratchet.tag)
    return rows_secret.of_campaign(ratchet.tag, baseline.setting.rows)


def _harness(settings: Settings, launch: Launch, of_several: bool) -> tuple[Harness, Taken]:
    """The harness's description, and the lanes for runs; their GPUs are leased."""
    gpus = visible(os.environ).gpus
    harness = _described(settings, launch, gpus[: settings.gpus])
    if not gpus or harness.device == "cpu":
        taken = lanes.on_cpu(settings.lanes, settings.gpus)
        return replace(harness, environment={**harness.environment, **taken.threads}), taken
    taken = lanes.on_gpus(settings.lanes, gpus, settings.gpus)
    lane = taken.lanes[0]
    if lane.gpus != gpus[: settings.gpus]:
        try:
            harness = _described(settings, launch, lane.gpus)
        except BaseException:
            taken.release()
            raise
    # The harness knows the kind of GPU; NVML adds the devices, unless runs go to any of several, and the driver.
    device = f"{lane.model}, any" if of_several else lane.hardware
    named = [] if harness.hardware_key in device else [harness.hardware_key]
    key = ", ".join([*named, device])
    return replace(harness, hardware_key=key, environment={**harness.environment, **lane.environment}), taken


def _described(settings: Settings, launch: Launch, gpus: Sequence[Gpu]) -> Harness:
    harness = describe(settings.describe, settings.root, variables(gpus))
    return replace(harness, hidden=everywhere(harness.hidden, launch.readable))
