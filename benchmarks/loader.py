"""The cost of loading batches: steps of `train.py` with `harness.batches`, against the same steps with a fixed batch.

    python benchmarks/loader.py [--rounds N] [--seconds N]

The two alternate, and so does the first turn of each round, so that a warming machine or other work favours neither. A
ratio of 1 means that a training step never waits for its batch; the goal on a GPU is 0.99.
"""

import argparse
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import islice, repeat
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import harness
import train

Feed = Iterator[train.Batch]

# Seconds of one turn. At the end of a turn, a GPU has steps in flight and must be filled again, so its turns are
# long. A CPU has none, and its other work varies, so its turns are short.
TURN = {"cuda": 5.0, "cpu": 0.25}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Training fed by harness.batches, against one constant batch.")
    parser.add_argument("--rounds", type=int, default=6, metavar="N", help="lines of the table (6)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="N", help="for each of the two, in a round (5)")
    given = parser.parse_args()
    profile, trainer, rounds = rates(given.rounds, given.seconds)
    print(f"{profile.device_name}, profile {profile.name}: {trainer.tokens_per_step:,} tokens a step, steps a second")
    print(f"{'round':>6}  {'batches':>8}  {'constant':>8}  {'ratio':>6}")
    ratios = []
    for number, (fed, constant) in enumerate(rounds, 1):
        ratios.append(fed / constant)
        print(f"{number:6}  {fed:8.3f}  {constant:8.3f}  {ratios[-1]:6.3f}", flush=True)
    print(f"{'median':>6}  {'':8}  {'':8}  {statistics.median(ratios):6.3f}")


def rates(rounds: int, seconds: float) -> tuple[harness.Profile, train.Trainer, Iterator[tuple[float, float]]]:
    """The profile, its trainer, and the steps a second of each round: fed by the harness, and with a constant batch."""
    profile = harness.profile()
    trainer = train.Trainer(profile, harness.seed())
    trainer.warm_up(steps=3)
    return profile, trainer, _rates(trainer, rounds, seconds)


def _rates(trainer: train.Trainer, rounds: int, least: float) -> Iterator[tuple[float, float]]:
    rows = harness.begin()
    feeds = {
        "batches": harness.batches(rows, trainer.batch_rows, trainer.device, harness.seed()),
        "constant": repeat(next(harness.batches(rows, trainer.batch_rows, trainer.device, harness.seed()))),
    }
    for number in range(1, rounds + 1):
        steps, seconds = Counter[str](), {"batches": 0.0, "constant": 0.0}
        while min(seconds["batches"], seconds["constant"]) < least:
            for name in feeds if number % 2 else reversed(feeds):
                taken, lasted = turn(trainer, feeds[name], TURN[trainer.device.type])
                steps[name] += taken
                seconds[name] += lasted
        yield steps["batches"] / seconds["batches"], steps["constant"] / seconds["constant"]


def turn(trainer: train.Trainer, feed: Feed, limit: float) -> tuple[int, float]:
    """Steps as in `train.train`, with the same number in flight, and the seconds until the last is done."""
    launched = deque[Callable[[], float]]()
    waiting = list(islice(feed, trainer.batches_per_step))
    steps, start = 0, time.monotonic()
    while True:
        if time.monotonic() - start < limit:
            launched.append(train.later(trainer.step(waiting, progress=0.5)))
            waiting = list(islice(feed, trainer.batches_per_step))
            if len(launched) <= trainer.ahead:
                continue
        elif not launched:
            return steps, time.monotonic() - start
        launched.popleft()()
        steps += 1


if __name__ == "__main__":
    try:
        main()
    except harness.HarnessError as error:
        sys.exit(f"loader.py: {error}")
