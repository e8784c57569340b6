"""A scored model, asked again, each time in a fresh process that knows nothing of the last: what a probe finds in it,
or how far a trusted one moves. Draws the secret seeds. May not know what a session makes of it."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness import probe
from harness.errors import HarnessError
from harness.isolated import IsolatedModel
from harness.probe import Evidence, Plan

_PROBES = 2


@dataclass(frozen=True, slots=True)
class Again:
    """A model that was scored.

    Attributes:
        start: Starts it anew.
        rows: The evaluation: int64 [rows, sequence + 1].
        sizes: Bytes of text of each target: int64 [rows, sequence].
        nats: The losses that were scored: float32 [rows, sequence].
        batch_rows: Rows of every batch.
    """

    start: Callable[[], IsolatedModel]
    rows: Tensor
    sizes: Tensor
    nats: Tensor
    batch_rows: int

    def threshold(self) -> float:
        """By how much the losses of this model, which is trusted, move, as a threshold in nats."""
        return probe.threshold_of(*self._ask(torch.zeros_like(self.nats)))

    def probe(self, incumbent_nats: Path | None, threshold: float) -> Evidence:
        """What a probe finds; one that rejects the model has to do so twice, with other secret seeds.

        Args:
            incumbent_nats: The losses of the best model so far, as the scorer wrote them.
            threshold: Beyond which difference a loss is another, in nats.

        Raises:
            HarnessError: The model is rejected.
        """
        gain = torch.zeros_like(self.nats)
        if incumbent_nats:
            gain = self._read(incumbent_nats) - self.nats
        for _ in range(_PROBES):
            evidence = probe.judge(*self._ask(gain), threshold)
            if not evidence.rejected:
                return evidence
        raise HarnessError(f"rejected: {_sentence(evidence)}")

    def _ask(self, gain: Tensor) -> tuple[Plan, Tensor]:
        asked = probe.plan(self.rows, self.sizes, gain, self.batch_rows, secrets.randbits(128))
        with self.start() as model:
            return asked, probe.differences(asked, model.nats, self.rows, self.nats, self.batch_rows)

    def _read(self, path: Path) -> Tensor:
        try:
            nats = np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            raise HarnessError(f"{path} holds no losses of an incumbent; unset AUTORESEARCH_INCUMBENT_NATS.") from None
        if nats.shape != tuple(self.nats.shape):
            raise HarnessError(f"{path} holds losses of other data; unset AUTORESEARCH_INCUMBENT_NATS.")
        return torch.from_numpy(nats.astype(np.float32))


def _sentence(evidence: Evidence) -> str:
    if evidence.keeps_state:
        return (
            f"keeps state: {evidence.changed} of {evidence.replayed} losses changed when the same rows were asked in "
            "another order beside other rows; a loss may depend on its own row alone."
        )
    found = f"at {evidence.leaks} of {evidence.cuts} cuts an earlier loss changed"
    if evidence.leaks <= probe.CUTS_ALLOWED:
        found = f"the losses before {evidence.cuts} cuts moved together, by {evidence.drift:+.2f} of the threshold,"
    why = "when only later tokens were replaced; a loss may depend on the tokens before it alone."
    return f"looks ahead: {found} {why}"
