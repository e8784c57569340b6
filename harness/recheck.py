"""Rechecks a scored model: looks for memorised text, and asks it again in fresh processes.

Runs the causality probe, or calibrates its threshold. Draws the secret seeds. Does not know how a session uses the
results.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness import memorised, probe
from harness.errors import HarnessError
from harness.isolated import IsolatedModel
from harness.memorised import Look
from harness.probe import Evidence, Plan

_PROBES = 2


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A model that was scored.

    Attributes:
        start: Starts the model in a fresh process.
        rows: The evaluation rows: int64 [rows, sequence + 1].
        sizes: Bytes of text of each target: int64 [rows, sequence].
        nats: The scored losses: float32 [rows, sequence].
        batch_rows: Rows in every batch.
    """

    start: Callable[[], IsolatedModel]
    rows: Tensor
    sizes: Tensor
    nats: Tensor
    batch_rows: int

    def threshold(self) -> float:
        """The probe's threshold in nats, measured with this model, which must be trusted."""
        return probe.threshold_of(*self._ask(torch.zeros_like(self.nats)))

    def probe(self, incumbent_nats: Path | None, threshold: float) -> Evidence:
        """Probe the model. It is rejected only if two probes with different secret seeds reject it.

        Args:
            incumbent_nats: The losses of the best model so far, as written by the scorer.
            threshold: A loss counts as changed if it differs by more than this, in nats.

        Raises:
            HarnessError: The model is rejected.
        """
        gain = torch.zeros_like(self.nats)
        if incumbent_nats:
            gain = _read(incumbent_nats, self.nats.shape, "AUTORESEARCH_INCUMBENT_NATS") - self.nats
        for _ in range(_PROBES):
            evidence = probe.judge(*self._ask(gain), threshold)
            if not evidence.rejected:
                return evidence
        raise HarnessError(f"rejected: {_sentence(evidence)}")

    def _ask(self, gain: Tensor) -> tuple[Plan, Tensor]:
        asked = probe.plan(self.rows, self.sizes, gain, self.batch_rows, secrets.randbits(128))
        with self.start() as model:
            return asked, probe.differences(asked, model.nats, self.rows, self.nats, self.batch_rows)


def looked(nats: Tensor, baseline_nats: Path | None, sizes: Tensor, measured: int) -> Look | None:
    """Look for memorised text. See `memorised.look`.

    Raises:
        HarnessError: The model is rejected.
    """
    if len(nats) == measured:
        return None
    baseline = memorised.even(nats, sizes, measured)
    if baseline_nats is not None:
        baseline = _read(baseline_nats, nats.shape, "AUTORESEARCH_BASELINE_NATS")
    found = memorised.look(nats, baseline, sizes, measured)
    if found is not None and found.rejected:
        raise HarnessError(
            f"rejected: memorised: it gains {found.excess:.3f} bits per byte more on the rows that it is measured on "
            f"than on {found.rows} other rows of the same text, and chance gives at most {found.most:.3f}; "
            "a program may not carry validation text."
        )
    return found


def _read(path: Path, shape: Sequence[int], variable: str) -> Tensor:
    """The first rows of the file of losses that a variable names: float32 of this shape. Fresh rows come last."""
    try:
        nats = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise HarnessError(f"{path} is not a file of losses; unset {variable}.") from None
    if nats[: shape[0]].shape != tuple(shape):
        raise HarnessError(f"{path} has losses of other data; unset {variable}.")
    return torch.from_numpy(nats[: shape[0]].astype(np.float32))


def _sentence(evidence: Evidence) -> str:
    if evidence.keeps_state:
        return (
            f"keeps state: {evidence.changed} of {evidence.replayed} losses changed when the same rows came in "
            "another order next to other rows; a loss may depend only on its own row."
        )
    found = f"at {evidence.leaks} of {evidence.cuts} cuts an earlier loss changed"
    if evidence.leaks <= probe.CUTS_ALLOWED:
        found = f"the losses before {evidence.cuts} cuts changed together, by {evidence.drift:+.2f} of the threshold,"
    why = "when only later tokens were replaced; a loss may depend only on the tokens before it."
    return f"looks ahead: {found} {why}"
