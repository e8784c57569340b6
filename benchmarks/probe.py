"""How often the probe is wrong: honest models that it rejects, and others that it lets pass.

    python benchmarks/probe.py [--honest N] [--seeds N] [--tries N]

Each honest model is trained from a seed of its own and probed with so many secret seeds, in float32, in bfloat16,
compiled, and with its attention written out. Each other model is probed so many times, with 1,000 cuts or just above.
The models are small and read bytes of the Python source on this machine (`tests/probe_models.py`); gains are taken
over another trained model. The threshold comes from a model of float32, as a session takes it from its baseline.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import torch
from probe_models import (
    BATCH_ROWS,
    SEQUENCE,
    Forward,
    Tiny,
    dropout,
    learning,
    mixing_rows,
    nats_of,
    peek,
    remembering,
    text_rows,
    trained,
)
from torch import Tensor

from harness import probe

ROWS = text_rows(1344)
SIZES = torch.ones(len(ROWS), SEQUENCE, dtype=torch.int64)
STEPS = 300
Make = Callable[[], Forward]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="False alarms and misses of the probe.")
    parser.add_argument("--honest", type=int, default=20, metavar="N", help="honest models of each kind (20)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="probes of each of them (10)")
    parser.add_argument("--tries", type=int, default=300, metavar="N", help="probes of every other model (300)")
    given = parser.parse_args()
    torch.set_num_threads(1)  # models so small are slower on more
    incumbent = scored(trained(Tiny(), seed=1000, steps=STEPS // 2))
    baseline = trained(Tiny(), seed=1001, steps=STEPS)
    asked, moved, _ = ask(lambda: baseline, incumbent, seed=0)
    threshold = probe.threshold_of(asked, moved)
    print(
        f"{int((~asked.replay).sum())} cuts, {int(asked.judged.sum()):,} losses judged, threshold {threshold:.4f} nats"
    )
    print(
        f"{'model':34}  {'rejected':>11}  {'least leaks':>11}  {'most leaks':>10}  {'largest move':>12}  {'probe':>7}"
    )
    for name, makes in honest(given.honest):
        report(name, [(make, seed) for make in makes for seed in range(given.seeds)], incumbent, threshold)
    for name, make in others(baseline):
        report(name, [(make, seed) for seed in range(given.tries)], incumbent, threshold)


def honest(count: int) -> Iterator[tuple[str, list[Make]]]:
    """Kinds of models that should pass, with so many of each."""
    models = [trained(Tiny(), seed, STEPS) for seed in range(count)]
    yield "honest, float32", [lambda model=model: model for model in models]
    yield "honest, bfloat16", [lambda model=model: copy_of(model).bfloat16() for model in models]
    yield "honest, attention written out", [lambda model=model: copy_of(model, by_hand=True) for model in models]
    compiled = [torch.compile(model, dynamic=False) for model in models]
    yield "honest, compiled", [lambda model=model: model for model in compiled]


def others(model: Tiny) -> Iterator[tuple[str, Make]]:
    """Models that should not pass."""
    yield "bets on the next token", lambda: peek(model)
    yield "at one position in a thousand", lambda: peek(model, one_in=1000)
    yield "on the token eight on, a little", lambda: peek(model, distance=8, strength=0.7)
    yield "bets, and remembers rows", lambda: remembering(model)
    for leak, name in (
        ("head", "one head without a mask"),
        ("block", "means over blocks of 8"),
        ("chunks", "recurrence over chunks of 16"),
        ("filter", "filter by FFT"),
    ):
        leaky = trained(Tiny(leak), seed=7, steps=STEPS)
        yield name, lambda leaky=leaky: leaky
    yield "dropout left on", lambda: dropout(model)
    yield "statistics of the batch", lambda: mixing_rows(model)
    yield "learns while it is asked", lambda: learning(model)


def copy_of(model: Tiny, *, by_hand: bool = False) -> Tiny:
    copied = Tiny(by_hand=by_hand)
    copied.load_state_dict(model.state_dict())
    return copied


def scored(forward: Forward) -> Tensor:
    nats = nats_of(forward)
    return torch.cat([nats(block[:, :-1], block[:, 1:]) for block in torch.split(ROWS, BATCH_ROWS)])


def ask(make: Make, incumbent: Tensor, seed: int) -> tuple[probe.Plan, Tensor, float]:
    """A plan, by how much each loss moved, and the seconds of the probe alone."""
    nats = scored(make())
    start = time.monotonic()
    asked = probe.plan(ROWS, SIZES, incumbent - nats, BATCH_ROWS, seed, count=1344)
    moved = probe.differences(asked, nats_of(make()), ROWS, nats, BATCH_ROWS)
    return asked, moved, time.monotonic() - start


def report(name: str, tries: list[tuple[Make, int]], incumbent: Tensor, threshold: float) -> None:
    """Probe, and print one line. A single probe: a session rejects after two of two."""
    rejected, leaks, largest, seconds = 0, list[int](), 0.0, 0.0
    for make, seed in tries:
        asked, moved, lasted = ask(make, incumbent, seed)
        evidence = probe.judge(asked, moved, threshold)
        rejected += evidence.rejected
        leaks.append(evidence.leaks)
        largest = max(largest, float(moved.abs()[asked.judged].max()))
        seconds += lasted
    print(
        f"{name:34}  {rejected:4} of {len(tries):3}  {min(leaks):11}  {max(leaks):10}  {largest:12.6f}  "
        f"{seconds / len(tries):5.2f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
