"""How often the look for memorised text is wrong: honest models that it rejects, and what it sees of carried rows.

    python benchmarks/memorised.py [--models N] [--draws N]

Honest models are trained from their own seeds, with more or fewer steps and another width than the baseline, and each
is judged with many secrets, which draw 256 rows for the verdict and 64 fresh ones from a pool of 6,000. `selected` are
the models that look best among all on their draw, as a campaign would keep them. For memorised rows, each loss of some
rows of the verdict is 0.1 nats. The models are small and read bytes of the Python source (`tests/probe_models.py`).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import torch
from probe_models import SEQUENCE, Tiny, nats_of, text_rows, trained
from torch import Tensor

from harness import draw
from harness.memorised import Look, even, look

POOL, METRIC = 6000, 256
CARRIED = (4, 8, 16, 32, 128)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="False alarms and misses of the look for memorised text.")
    parser.add_argument("--models", type=int, default=20, metavar="N", help="honest models (20)")
    parser.add_argument("--draws", type=int, default=10, metavar="N", help="secrets for each of them (10)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = text_rows(POOL + 6000)[6000:]
    sizes = torch.ones(len(rows), SEQUENCE, dtype=torch.int64)
    baseline = losses(trained(Tiny(), seed=1000, steps=300), rows)
    models = []
    for seed in range(given.models):
        width, steps = (24, 32, 48)[seed % 3], (250, 300, 450, 600)[seed % 4]
        models.append(losses(trained(Tiny(width=width), seed=seed, steps=steps), rows))
    report("honest", [seen(nats, baseline, sizes, n) for nats in models for n in range(given.draws)])
    alone = [seen(nats, even(nats, sizes, 0), sizes, n) for nats in models for n in range(given.draws)]
    report("honest, without a baseline", alone)
    best = []
    for number in range(given.draws):
        chosen = draw.metric_rows(len(rows), METRIC, key(number))
        best.append(seen(min(models, key=lambda nats: float(nats[chosen].sum())), baseline, sizes, number))
    report("selected", best)
    for carried in CARRIED:
        looks = [seen(nats, baseline, sizes, n, carried) for nats in models for n in range(given.draws)]
        report(f"{carried} of {METRIC} rows memorised", looks)


def losses(model: Tiny, rows: Tensor) -> Tensor:
    """The losses of a model."""
    nats = nats_of(model)
    return torch.cat([nats(block[:, :-1], block[:, 1:]) for block in torch.split(rows, 256)])


def key(number: int) -> bytes:
    """The secret of a draw."""
    return number.to_bytes(32, "little")


def seen(nats: Tensor, baseline: Tensor, sizes: Tensor, number: int, carried: int = 0) -> Look:
    """What a look finds."""
    measured = draw.metric_rows(len(nats), METRIC, key(number))
    fresh = draw.fresh_rows(len(nats), METRIC, key(number))
    ours = torch.cat([nats[measured], nats[fresh]])
    ours[:carried] = 0.1
    found = look(
        ours, torch.cat([baseline[measured], baseline[fresh]]), torch.cat([sizes[measured], sizes[fresh]]), METRIC
    )
    assert found is not None
    return found


def report(name: str, looks: list[Look]) -> None:
    """One line of the table."""
    rejected = sum(one.rejected for one in looks)
    excess = torch.tensor([one.excess for one in looks])
    most = torch.tensor([one.most for one in looks])
    print(
        f"{name:28}  rejected {rejected:4} of {len(looks):4}   excess {float(excess.mean()):+.3f} (largest "
        f"{float(excess.max()):+.3f}), allowed {float(most.mean()):.3f}, largest excess / allowed "
        f"{float((excess / most).max()):+.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
