"""Finds the equipment for runs on this machine: the harness's description, the GPU, a tested sandbox.

Sessions and the commands that measure outside of a session use the same equipment. Knows no campaign and no proposer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pytest_autoresearch.core.experiment import BASELINE
from pytest_autoresearch.hardware.gpu import Gpu, visible
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure import rows_secret
from pytest_autoresearch.measure.harness import Harness, describe
from pytest_autoresearch.measure.module_folders import module_folders
from pytest_autoresearch.runners.environment import named, passed
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
        gpu: The only GPU that runs see; None if the harness uses no GPU.
        sandbox: The sandbox for training.
        command: The configured training command.
        launch: How it is started.
        variables: The variables of training that are the same in every run.
    """

    harness: Harness
    gpu: Gpu | None
    sandbox: Sandbox
    command: tuple[str, ...]
    launch: Launch
    variables: Mapping[str, str]

    def runner(self) -> LocalRunner:
        """A new runner."""
        return LocalRunner(self.gpu, self.sandbox.backend, {self.command: self.launch})


def equip(settings: Settings, ratchet: Ratchet, *, begins: bool = False) -> Equipment:
    """Describe the harness, find the GPU and test the sandbox with the paths that training will see.

    Args:
        begins: Whether a campaign without a baseline begins now, and needs a secret.

    Raises:
        UserError: One of them does not work.
    """
    launch = find_launch(settings.command, settings.root, ratchet.committed())
    harness, gpu = _harness(settings, launch)
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
        devices=gpu_devices(gpu.uuid) if gpu else (),
    )
    hidden = [ratchet.home.parent, *harness.hidden, *([harness.training_rows.parent] if harness.training_rows else [])]
    hidden += [rows_secret.folder()] if harness.secret and rows_secret.folder().exists() else []
    sandbox = find(settings.sandbox, view, hidden)
    return Equipment(harness, gpu, sandbox, settings.command, launch, {**training, **harness.environment})


def _secret(ratchet: Ratchet, begins: bool) -> str:
    """The secret that draws the rows of the campaign; outside a campaign the user's, if there is one."""
    records = ratchet.records() if ratchet.tag else []
    baseline = next((record for record in records if record.number == BASELINE), None)
    if baseline is None:
        return rows_secret.new(ratchet.home, ratchet.tag) if begins else rows_secret.of_environment()
    rows_secret.begun(ratchet.home, ratchet.tag)
    return rows_secret.of_campaign(ratchet.tag, baseline.setting.rows)


def _harness(settings: Settings, launch: Launch) -> tuple[Harness, Gpu | None]:
    """The harness's description and the GPU for runs; None if the harness uses no GPU."""
    gpu = next(iter(visible(os.environ).gpus), None)
    harness = describe(settings.describe, settings.root, gpu.environment if gpu else {})
    harness = replace(harness, hidden=everywhere(harness.hidden, launch.readable))
    if gpu is None or harness.device == "cpu":
        return harness, None
    # The harness knows the kind of GPU; NVML adds the device and the driver.
    named = [] if harness.hardware_key in gpu.key else [harness.hardware_key]
    key = ", ".join([*named, gpu.key])
    return replace(harness, hardware_key=key, environment={**harness.environment, **gpu.environment}), gpu
