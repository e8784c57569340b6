"""Whether a model's losses are what they seem: those of a model that sees only what came before, in this row. Asks for
rows again, among other neighbours and in another order (*replay*), and with everything after a cut replaced (*cut*),
and compares loss by loss with what was scored: a loss before the cut may not change. Position by position, since a leak
at a few positions is lost in a mean. Pure, but for the model that it asks; may not know of processes or files."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Nats = Callable[[Tensor, Tensor], Tensor]
"""Inputs and targets, int64 [rows, sequence], to each target's loss, 0 for special tokens: float32 of that shape."""

REPLAY_SHARE = 0.25
CUTS_ALLOWED = 2
"""Cuts before which a loss may change all the same."""
DRIFT_ALLOWED = 0.1
"""Of the threshold: a mean that finds a leak into every loss that is too small at each. With 1,000 cuts, noise such as
that of the trusted model makes 0.02, and 0.08 where the gain is nothing else, so that noise chooses the cuts."""
REPLAY_ALLOWED = 0.001
"""Share of replayed losses that may change."""
SMALLEST_THRESHOLD = 1e-3
"""In nats. Below this a leak into every loss is worth less than 0.0004 bits per byte of ordinary text."""

_QUANTILE, _FACTOR = 0.9999, 5.0
_DRAWS = 8
_SMALLEST_GAIN = 1e-6


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask; N rows, a whole number of batches, in their order.

    Attributes:
        source: The row of the evaluation that each is made of: int64 [N]. It keeps that row's place in its batch.
        inputs: int64 [N, sequence].
        cut: Where another row's tokens begin; the length where the row is asked unchanged: int64 [N].
        judged: Losses that may not change: bool [N, sequence]. Those of special tokens never are.
    """

    source: Tensor
    inputs: Tensor
    cut: Tensor
    judged: Tensor

    @property
    def replay(self) -> Tensor:
        """Rows that are asked unchanged: bool [N]."""
        return self.cut == self.inputs.shape[1]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a probe found.

    Attributes:
        replayed: Losses asked again with nothing before or in their row changed.
        changed: How many of those moved beyond the threshold.
        cuts: Rows asked with another end.
        leaks: How many of those have a loss before the cut that moved beyond the threshold.
        drift: Mean by which the losses right before the cuts moved, in thresholds, of which none counts more than one.
    """

    replayed: int
    changed: int
    cuts: int
    leaks: int
    drift: float

    @property
    def keeps_state(self) -> bool:
        """Whether losses depend on other rows, on earlier batches or on chance."""
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
    """Draw what to ask, from a seed that the model may not know.

    Args:
        rows: The evaluation: int64 [rows, sequence + 1], which was asked in batches of `batch_rows` in this order.
        sizes: Bytes of text of each target: int64 [rows, sequence].
        gain: How much less each loss is than the incumbent's, in nats: [rows, sequence]. Most cuts are drawn where
            it is large, so that a rare leak is looked for where it pays; where it is 0 everywhere, anywhere.
        count: How many rows to ask, rounded down to whole batches; as many as the evaluation has where None.
    """
    rng = np.random.default_rng(seed)
    slots = min(batch_rows, len(rows))
    each = max(2, (count or len(rows)) // batch_rows)  # rows of every place in a batch
    replays = max(1, round(REPLAY_SHARE * each))
    length = sizes.shape[1]
    possible = sizes > 0
    possible[:, -1] = False  # has no later token
    weights = gain.double().clamp_min(0).masked_fill(~possible, -1.0).numpy()
    source = np.empty((each, batch_rows), np.int64)
    cut = np.empty((each, batch_rows), np.int64)
    for slot in range(batch_rows):
        # Kernels may compute a row's numbers in another order at another place in the batch: each keeps its place.
        here = np.arange(slot % slots, len(rows), batch_rows)
        cut_rows, positions = _draw(weights[here], each - replays, rng)
        drawn = np.concatenate([rng.choice(here, replays, replace=replays > len(here)), here[cut_rows]])
        cuts = np.concatenate([np.full(replays, length), positions + 1])
        order = rng.permutation(each)
        source[:, slot], cuts = drawn[order], cuts[order]
        # No request of a row shows what stands behind the cut of a later one, since a model may remember it.
        cut[np.argsort(source[:, slot], kind="stable"), slot] = cuts[np.lexsort((cuts, source[:, slot]))]
    return _made(rows, sizes, source.ravel(), cut.ravel(), rng)


def differences(asked: Plan, nats_of: Nats, rows: Tensor, nats: Tensor, batch_rows: int) -> Tensor:
    """By how much each loss moved, in nats: float32 [N, sequence].

    Args:
        nats: The losses that were scored: float32 [rows, sequence].
    """
    targets = rows[asked.source, 1:]
    blocks = zip(torch.split(asked.inputs, batch_rows), torch.split(targets, batch_rows), strict=True)
    return torch.cat([nats_of(inputs, true) for inputs, true in blocks]) - nats[asked.source]


def judge(asked: Plan, moved: Tensor, threshold: float) -> Evidence:
    """Weigh the differences of a plan, in nats."""
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
    """Beyond which difference a loss counts as another, in nats, from a model that is trusted."""
    return max(SMALLEST_THRESHOLD, _FACTOR * float(np.quantile(moved.abs()[asked.judged].numpy(), _QUANTILE)))


def _draw(
    gain: npt.NDArray[np.float64], count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and positions, no two alike: a third anywhere, others in proportion to the gain or to its sixth power.

    The last finds a leak that is rare and large among many honest gains that are small; the first one that hides where
    the model would be worse than the incumbent. Drawn by the largest of noisy logarithms (Gumbel's trick), which
    repeats none.
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
    """The plan that asks for these rows, each with another row's end from its cut on."""
    inputs = rows[:, :-1]
    length = inputs.shape[1]
    first = np.minimum(cut, length - 1)
    # Ends of rows that are cut nowhere, which tell a model that remembers them nothing; of any where each is cut.
    ends = np.setdiff1d(np.arange(len(rows)), source[cut < length])
    ends = ends if len(ends) else np.arange(len(rows))
    other = rng.choice(ends, len(source))
    for _ in range(_DRAWS):  # the first token behind the cut should be another
        same = (inputs[other, first] == inputs[source, first]).numpy()
        other[same] = rng.choice(ends, int(same.sum()))
    before = torch.arange(length) < torch.from_numpy(cut)[:, None]
    mixed = torch.where(before, inputs[source], inputs[other])
    index = torch.from_numpy(source)
    return Plan(index, mixed, torch.from_numpy(cut), before & (sizes[index] > 0))
