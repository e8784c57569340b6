"""The causality probe: checks that each loss depends only on the earlier tokens of its own row.

It asks the model again and compares each loss with the scored loss:
- *replay*: the same rows in another order, next to other rows. No loss may change.
- *cut*: rows whose tokens after a cut are replaced. No loss before the cut may change.

Losses are compared one by one, because a mean would hide a leak at a few positions. Pure except for the calls of the
model; knows nothing of processes or files.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Nats = Callable[[Tensor, Tensor], Tensor]
"""From inputs and targets, int64 [rows, sequence], to losses, 0 for special tokens: float32 of the same shape."""

REPLAY_SHARE = 0.25
CUTS_ALLOWED = 2
"""The number of cuts with a changed loss that an honest model may have."""
DRIFT_ALLOWED = 0.1
"""The largest mean change, in thresholds. The mean finds a leak that is in every loss, but too small to see in each.
With 1,000 cuts, noise like the trusted model's gives 0.02; it gives 0.08 if the gain is all noise and chooses the cuts.
"""
REPLAY_ALLOWED = 0.001
"""Share of replayed losses that may change."""
SMALLEST_THRESHOLD = 1e-3
"""In nats. A smaller leak into every loss gains less than 0.0004 bits per byte on ordinary text."""

_QUANTILE, _FACTOR = 0.9999, 5.0
_DRAWS = 8
_SMALLEST_GAIN = 1e-6


@dataclass(frozen=True, slots=True)
class Plan:
    """The N rows to ask, in order; a whole number of batches.

    Attributes:
        source: The evaluation row that each row is made from: int64 [N]. A row keeps its position in the batch.
        inputs: int64 [N, sequence].
        cut: The position where another row's tokens begin, or the row's length for a replay: int64 [N].
        judged: Losses that must not change: bool [N, sequence]. False for special tokens.
    """

    source: Tensor
    inputs: Tensor
    cut: Tensor
    judged: Tensor

    @property
    def replay(self) -> Tensor:
        """The rows that are asked unchanged: bool [N]."""
        return self.cut == self.inputs.shape[1]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The result of a probe.

    Attributes:
        replayed: Number of losses in replayed rows.
        changed: Number of those that changed by more than the threshold.
        cuts: Number of rows with a cut.
        leaks: Number of those in which a loss before the cut changed by more than the threshold.
        drift: Mean change of the losses right before the cuts, in thresholds; each change is clamped to one threshold.
    """

    replayed: int
    changed: int
    cuts: int
    leaks: int
    drift: float

    @property
    def keeps_state(self) -> bool:
        """Whether losses depend on other rows, earlier batches or randomness."""
        return self.changed > REPLAY_ALLOWED * self.replayed

    @property
    def looks_ahead(self) -> bool:
        """Whether losses depend on later tokens."""
        return self.leaks > CUTS_ALLOWED or abs(self.drift) > DRIFT_ALLOWED

    @property
    def rejected(self) -> bool:
        return self.keeps_state or self.looks_ahead


def plan(
    rows: Tensor,
    sizes: Tensor,
    gain: Tensor,
    batch_rows: int,
    seed: int,
    count: int | None = None,
) -> Plan:
    """Draw the rows to ask.

    Args:
        rows: The evaluation rows in the order and batches in which they were scored: int64 [rows, sequence + 1].
        sizes: Bytes of text of each target: int64 [rows, sequence].
        gain: The incumbent's loss minus the candidate's, in nats: [rows, sequence]. Most cuts are drawn where the gain
            is large, because a leak pays there. If the gain is 0 everywhere, cuts are drawn uniformly.
        seed: Must be secret from the model.
        count: Number of rows to ask, rounded down to whole batches; None for as many as the evaluation has.
    """
    rng = np.random.default_rng(seed)
    slots = min(batch_rows, len(rows))
    each = max(2, (count or len(rows)) // batch_rows)  # rows for each position in a batch
    replays = max(1, round(REPLAY_SHARE * each))
    length = sizes.shape[1]
    possible = sizes > 0
    possible[:, -1] = False  # the last position has no later token
    weights = gain.double().clamp_min(0).masked_fill(~possible, -1.0).numpy()
    source = np.empty((each, batch_rows), np.int64)
    cut = np.empty((each, batch_rows), np.int64)
    for slot in range(batch_rows):
        # A row keeps its position in the batch, because kernels may round differently at another position.
        here = np.arange(slot % slots, len(rows), batch_rows)
        cut_rows, positions = _draw(weights[here], each - replays, rng)
        drawn = np.concatenate([rng.choice(here, replays, replace=replays > len(here)), here[cut_rows]])
        cuts = np.concatenate([np.full(replays, length), positions + 1])
        order = rng.permutation(each)
        source[:, slot], cuts = drawn[order], cuts[order]
        # Cuts of the same row are sorted, so that no request shows tokens that are hidden in a later one: the model may
        # remember them.
        cut[np.argsort(source[:, slot], kind="stable"), slot] = cuts[np.lexsort((cuts, source[:, slot]))]
    return _made(rows, sizes, source.ravel(), cut.ravel(), rng)


def differences(asked: Plan, nats_of: Nats, rows: Tensor, nats: Tensor, batch_rows: int) -> Tensor:
    """The change of each loss, in nats: float32 [N, sequence].

    Args:
        nats: The scored losses: float32 [rows, sequence].
    """
    targets = rows[asked.source, 1:]
    blocks = zip(torch.split(asked.inputs, batch_rows), torch.split(targets, batch_rows), strict=True)
    return torch.cat([nats_of(inputs, true) for inputs, true in blocks]) - nats[asked.source]


def judge(asked: Plan, moved: Tensor, threshold: float) -> Evidence:
    """Judge the changes `moved` of a plan; they and the threshold are in nats."""
    far = (moved.abs() > threshold) & asked.judged
    before = moved[~asked.replay].gather(1, asked.cut[~asked.replay, None] - 1)
    return Evidence(
        replayed=int(asked.judged[asked.replay].sum()),
        changed=int(far[asked.replay].sum()),
        cuts=int((~asked.replay).sum()),
        leaks=int(far[~asked.replay].any(1).sum()),
        drift=float(before.clamp(-threshold, threshold).mean() / threshold),
    )


def threshold_of(asked: Plan, moved: Tensor) -> float:
    """The threshold above which a loss counts as changed, in nats; measured with a trusted model."""
    return max(SMALLEST_THRESHOLD, _FACTOR * float(np.quantile(moved.abs()[asked.judged].numpy(), _QUANTILE)))


def _draw(
    gain: npt.NDArray[np.float64], count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw `count` different rows and positions: a third uniformly, a third by gain, a third by gain to the sixth.

    The sixth power finds a rare large leak among many small honest gains. The uniform draw finds a leak that hides
    where the model would otherwise be worse than the incumbent. Without replacement, by the Gumbel top-k trick.
    """
    gains = gain.ravel()
    left = gains >= 0
    logarithms = np.log(np.maximum(gains, _SMALLEST_GAIN))
    third, parts = count // 3, []
    for power, share in ((0, third), (1, third), (6, count - 2 * third)):
        noisy = np.where(left, power * logarithms + rng.gumbel(size=len(left)), -np.inf)
        parts.append(np.argpartition(noisy, -share)[len(noisy) - share :])
        left[parts[-1]] = False
    rows, positions = np.divmod(np.concatenate(parts), gain.shape[1])
    return rows, positions


def _made(
    rows: Tensor,
    sizes: Tensor,
    source: npt.NDArray[np.int64],
    cut: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> Plan:
    """The plan for these rows; from its cut on, each row has the tokens of another row."""
    inputs = rows[:, :-1]
    length = inputs.shape[1]
    first = np.minimum(cut, length - 1)
    # The other rows are rows without a cut if possible, so that a model that remembers them learns nothing.
    ends = np.setdiff1d(np.arange(len(rows)), source[cut < length])
    ends = ends if len(ends) else np.arange(len(rows))
    other = rng.choice(ends, len(source))
    for _ in range(_DRAWS):  # the first token after the cut should differ
        same = (inputs[other, first] == inputs[source, first]).numpy()
        other[same] = rng.choice(ends, int(same.sum()))
    before = torch.arange(length) < torch.from_numpy(cut)[:, None]
    mixed = torch.where(before, inputs[source], inputs[other])
    index = torch.from_numpy(source)
    return Plan(index, mixed, torch.from_numpy(cut), before & (sizes[index] > 0))
