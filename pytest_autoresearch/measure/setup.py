"""What runs are made with on this machine: the harness by its own word, the GPU, the sandbox that was tried out.

A session and the commands that measure outside one are equipped alike. Knows no campaign and no proposer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from pytest_autoresearch.hardware.gpu import Gpu, visible
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure.harness import Harness, describe
from pytest_autoresearch.runners.environment import passed
from pytest_autoresearch.runners.local import LocalRunner
from pytest_autoresearch.sandboxes.base import View
from pytest_autoresearch.sandboxes.machine import everywhere, gpu_devices
from pytest_autoresearch.sandboxes.select import Sandbox, find
from pytest_autoresearch.settings import Settings


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a run is made with.

    Attributes:
        harness: What it says of itself.
        gpu: The GPU that runs are held to; None where the harness does without.
        sandbox: What training is started in.
    """

    harness: Harness
    gpu: Gpu | None
    sandbox: Sandbox

    def runner(self) -> LocalRunner:
        """A new runner."""
        return LocalRunner(self.gpu, self.sandbox.backend)


def equip(settings: Settings, ratchet: Ratchet) -> Equipment:
    """Ask the harness, look for the GPU and try the sandbox with what training will see.

    Raises:
        UserError: One of them is not as it must be.
    """
    harness, gpu = _harness(settings)
    view = View(
        folder=settings.root,
        environment=passed(os.environ),
        readable=settings.readable_paths,
        covered=harness.hidden,
        devices=gpu_devices(gpu.uuid) if gpu else (),
    )
    hidden = [ratchet.home.parent, *harness.hidden, *([harness.training_rows.parent] if harness.training_rows else [])]
    return Equipment(harness, gpu, find(settings.sandbox, view, hidden))


def _harness(settings: Settings) -> tuple[Harness, Gpu | None]:
    """What the harness says of itself, and the GPU that runs are held to; none where the harness does without."""
    gpu = next(iter(visible(os.environ).gpus), None)
    harness = describe(settings.describe, settings.root, gpu.environment if gpu else {})
    harness = replace(harness, hidden=everywhere(harness.hidden))
    if gpu is None or harness.device == "cpu":
        return harness, None
    # The harness knows the kind of GPU; which one it is, and under which driver, is seen from outside.
    named = [] if harness.hardware_key in gpu.key else [harness.hardware_key]
    key = ", ".join([*named, gpu.key])
    return replace(harness, hardware_key=key, environment={**harness.environment, **gpu.environment}), gpu
