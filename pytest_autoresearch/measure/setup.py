"""Finds the equipment for runs on this machine: the harness's description, the GPU, a tested sandbox.

Sessions and the commands that measure outside of a session use the same equipment. Knows no campaign and no proposer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_autoresearch.core.experiment import BASELINE
from pytest_autoresearch.hardware.gpu import Gpu, variables, visible
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure import lanes, rows_secret
from pytest_autoresearch.measure.harness import Harness, describe
from pytest_autoresearch.measure.lanes import Taken
from pytest_autoresearch.measure.module_folders import module_folders
from pytest_autoresearch.runners.environment import named, passed
from pytest_autoresearch.runners.lanes import LanesRunner
from pytest_autoresearch.runners.launch import Launch, find_launch
from pytest_autoresearch.runners.local import LocalRunner
from pytest_autoresearch.sandboxes.base import View
from pytest_autoresearch.sandboxes.machine import everywhere, gpu_devices
from pytest_autoresearch.sandboxes.select import Sandbox, find
from pytest_autoresearch.settings import Settings


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
    """

    harness: Harness
    taken: Taken
    sandbox: Sandbox
    command: tuple[str, ...]
    launch: Launch
    variables: Mapping[str, str]

    @property
    def driver(self) -> str:
        """The version of the GPUs' driver; empty if the harness uses no GPU."""
        return next((gpu.driver for gpu in self.taken.lanes[0].gpus), "")

    def runner(self) -> LanesRunner:
        """A new runner for all lanes."""
        launches = {self.command: self.launch}
        return LanesRunner(
            [(lane, LocalRunner(lane.gpus, self.sandbox.backend, launches)) for lane in self.taken.lanes]
        )


def equip(settings: Settings, ratchet: Ratchet, *, begins: bool = False) -> Equipment:
    """Describe the harness, lease the lanes and test the sandbox with the paths that training will see.

    Args:
        begins: Whether a campaign without a baseline begins now, and needs a secret.

    Raises:
        UserError: One of them does not work.
    """
    launch = find_launch(settings.command, settings.root, ratchet.committed())
    harness, taken = _harness(settings, launch)
    try:
        return _equipment(settings, ratchet, launch, harness, taken, begins)
    except BaseException:
        taken.release()
        raise


def _equipment(
    settings: Settings, ratchet: Ratchet, launch: Launch, harness: Harness, taken: Taken, begins: bool
) -> Equipment:
    training = {**passed(os.environ), **launch.environment, **named(os.environ, settings.environment)}
    folders = module_folders(settings, launch.command, ratchet.committed(), {**training, **harness.environment})
    harness = replace(harness, module_folders=folders)
    if harness.draws_rows:
        harness = replace(harness, secret=_secret(ratchet, begins))
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


def _secret(ratchet: Ratchet, begins: bool) -> str:
    """The secret that draws the rows of the campaign; outside a campaign the user's, if there is one."""
    records = ratchet.records() if ratchet.tag else []
    baseline = next((record for record in records if record.number == BASELINE), None)
    if baseline is None:
        return rows_secret.new(ratchet.home, ratchet.tag) if begins else rows_secret.of_environment()
    rows_secret.begun(ratchet.home, ratchet.tag)
    return rows_secret.of_campaign(ratchet.tag, baseline.setting.rows)


def _harness(settings: Settings, launch: Launch) -> tuple[Harness, Taken]:
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
    device = lane.hardware if settings.lanes == 1 else f"{lane.model}, any"
    named = [] if harness.hardware_key in device else [harness.hardware_key]
    key = ", ".join([*named, device])
    return replace(harness, hardware_key=key, environment={**harness.environment, **lane.environment}), taken


def _described(settings: Settings, launch: Launch, gpus: Sequence[Gpu]) -> Harness:
    harness = describe(settings.describe, settings.root, variables(gpus))
    return replace(harness, hidden=everywhere(harness.hidden, launch.readable))
