"""How often the probe is wrong: honest models that it rejects, and cheating models that it accepts.

    python benchmarks/probe.py [--honest N] [--seeds N] [--tries N] [--evasions N]

Each honest model is trained from its own seed and probed with several secret seeds, in float32, in bfloat16, compiled,
and with explicit attention. Each cheating model, including those made to evade the probe, is probed several times, with
1,000 cuts or slightly more. 0 skips a part, so that several commands can share the work. The models are small and read
bytes of the Python source on this machine (`tests/probe_models.py`); gains are relative to another trained model. The
threshold comes from a float32 model, as a session takes it from its baseline.
"""

import argparse
import math
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
    choosing,
    dropout,
    learning,
    mixing_rows,
    nats_of,
    peek,
    recalling,
    remembering,
    sure_guess,
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
    parser.add_argument("--evasions", type=int, default=100, metavar="N", help="probes of each that evades (100)")
    given = parser.parse_args()
    torch.set_num_threads(1)  # such small models are slower on more threads
    best = trained(Tiny(), seed=1000, steps=STEPS // 2)
    incumbent = scored(best)
    baseline = trained(Tiny(), seed=1001, steps=STEPS)
    nats = scored(baseline)
    asked, moved = ask(baseline, nats, incumbent, seed=0)
    threshold = probe.threshold_of(asked, moved)
    print(
        f"{int((~asked.replay).sum())} cuts, {int(asked.judged.sum()):,} losses judged, threshold {threshold:.4f} nats"
    )
    print(
        f"{'model':42}  {'bpb less':>8}  {'rejected':>10}  {'leaks':>12}  {'drift':>15}  {'largest':>8}  {'probe':>7}"
    )
    for name, makes in honest(given.honest):
        report(name, makes, given.seeds, nats, incumbent, threshold)
    for name, make in others(baseline):
        report(name, [make], given.tries, nats, incumbent, threshold)
    for name, make in evasions(baseline, best):
        report(name, [make], given.evasions, nats, incumbent, threshold)


def honest(count: int) -> Iterator[tuple[str, list[Make]]]:
    """Kinds of models that should pass, with the number of each."""
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


def evasions(model: Tiny, incumbent: Tiny) -> Iterator[tuple[str, Make]]:
    """Models made to gain by cheating and still pass."""
    yield "bets everywhere, below the threshold", lambda: peek(model, strength=5e-4)
    yield "bets at 1 in 1,000, remembers text", lambda: recalling(model)
    yield "bets at 1 in 100, a little", lambda: peek(model, one_in=100, strength=0.25)
    yield "bets at 1 in 10,000", lambda: peek(model, one_in=10_000)
    yield "surer of right guesses", lambda: sure_guess(model, ROWS)
    yield "surer of right guesses at 1 in 100", lambda: sure_guess(model, ROWS, one_in=100)
    yield "takes the better of two models", lambda: choosing(model, incumbent)
    yield "takes the better where by 2 nats", lambda: choosing(model, incumbent, by=2.0)
    yield "takes the better where by 3 nats", lambda: choosing(model, incumbent, by=3.0)


def copy_of(model: Tiny, *, by_hand: bool = False) -> Tiny:
    copied = Tiny(by_hand=by_hand)
    copied.load_state_dict(model.state_dict())
    return copied


def scored(forward: Forward) -> Tensor:
    nats = nats_of(forward)
    return torch.cat([nats(block[:, :-1], block[:, 1:]) for block in torch.split(ROWS, BATCH_ROWS)])


def ask(forward: Forward, nats: Tensor, incumbent: Tensor, seed: int) -> tuple[probe.Plan, Tensor]:
    """A plan, and the difference of each loss from the scored one."""
    asked = probe.plan(ROWS, SIZES, incumbent - nats, BATCH_ROWS, seed, count=1344)
    return asked, probe.differences(asked, nats_of(forward), ROWS, nats, BATCH_ROWS)


def report(name: str, makes: list[Make], probes: int, honest_nats: Tensor, incumbent: Tensor, threshold: float) -> None:
    """Score each model, probe it several times, and print one line. A session rejects after two failed probes."""
    found, gains, largest, seconds = list[probe.Evidence](), list[float](), 0.0, 0.0
    for make in makes if probes else []:
        nats = scored(make())
        gains.append(float((honest_nats - nats).mean(dtype=torch.float64)) / math.log(2))
        for seed in range(probes):
            forward, start = make(), time.monotonic()
            asked, moved = ask(forward, nats, incumbent, seed)
            found.append(probe.judge(asked, moved, threshold))
            seconds += time.monotonic() - start
            largest = max(largest, float(moved.abs()[asked.judged].max()))
    if not found:
        return
    leaks, drifts = [evidence.leaks for evidence in found], [evidence.drift for evidence in found]
    print(
        f"{name:42}  {sum(gains) / len(gains):8.4f}  {sum(evidence.rejected for evidence in found):3} of {len(found):3}"
        f"  {min(leaks):4} to {max(leaks):4}  {min(drifts):6.3f} to {max(drifts):5.3f}  {largest:8.4f}"
        f"  {seconds / len(found):5.2f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
