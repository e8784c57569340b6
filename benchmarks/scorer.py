"""The cost of isolating the scorer: evaluation through a model server, against the same model in this process.

    python benchmarks/scorer.py [--model PATH] [--rounds N]

The two alternate over all evaluation rows, and their order changes in each round. Prints the seconds of each, their
ratio and the difference of val_bpb. The goals are a ratio of at most 1.15 and a difference of at most 1e-6 in float32,
1e-4 in bfloat16. Without `--model`, a model is trained for some steps first.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every reader of PyTorch knows
from torch import Tensor

import harness
import train
from harness import cache
from harness.isolated import IsolatedModel
from harness.metric import bits_per_byte
from harness.scorer import batch_rows_of, evaluate
from harness.server_process import Deadlines, ServerProcess, launches_of_environment

STEPS = 40


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The isolated scorer, against an evaluation in one process.")
    parser.add_argument("--model", type=Path, metavar="PATH", help="a model.pt of this train.py")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="lines of the table (7)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(given.model.resolve() if given.model else trained(Path(folder) / "model.pt"), given.rounds)


def trained(path: Path) -> Path:
    """A slightly trained model, so that its losses are not all similar."""
    trainer = train.Trainer(harness.profile(), harness.seed())
    feed = harness.batches(harness.begin(), trainer.batch_rows, trainer.device, harness.seed())
    for _ in range(STEPS):
        trainer.step(list(islice(feed, trainer.batches_per_step)), progress=0.5)
    trainer.save(path)
    return path


def compare(path: Path, rounds: int) -> None:
    """Print the table."""
    profile = harness.profile()
    data = cache.find(profile)
    token_bytes = torch.from_numpy(data.read_token_bytes())
    rows = torch.from_numpy(data.read_evaluation_rows().astype("int64"))
    sizes = token_bytes[rows[:, 1:]]
    size = batch_rows_of(profile)
    started = time.monotonic()
    process = ServerProcess(launches_of_environment()[0], Deadlines())
    path_of_train = Path(train.__file__)
    with (
        torch.inference_mode(),
        IsolatedModel(process, path_of_train, path, profile, token_bytes, size) as isolated,
    ):
        print(
            f"{profile.device_name}, profile {profile.name}, {rows[:, 1:].numel():,} tokens in batches of {size} rows"
        )
        print(f"model server ready after {time.monotonic() - started:.1f} s, logits through {isolated.transport}")
        model = train.load_model(path, profile.device)
        within(model, rows[:size], size, profile.device)
        turns: dict[str, Callable[[], Tensor]] = {
            "isolated": lambda: evaluate(isolated, rows, size),
            "within": lambda: within(model, rows, size, profile.device),
        }
        print(f"{'round':>6}  {'isolated':>9}  {'within':>9}  {'ratio':>6}  {'difference':>10}")
        ratios = []
        for number in range(1, rounds + 1):
            seconds, bpb = {}, {}
            for name in turns if number % 2 else reversed(turns):
                start = time.monotonic()
                nats = turns[name]()
                seconds[name] = time.monotonic() - start
                bpb[name] = bits_per_byte(nats.masked_fill(sizes == 0, 0.0), sizes)
            ratios.append(seconds["isolated"] / seconds["within"])
            difference = bpb["isolated"] - bpb["within"]
            print(
                f"{number:6}  {seconds['isolated']:7.2f} s  {seconds['within']:7.2f} s  {ratios[-1]:6.3f}  "
                f"{difference:10.1e}",
                flush=True,
            )
    print(f"{'median':>6}  {'':9}  {'':9}  {statistics.median(ratios):6.3f}")


def within(model: torch.nn.Module, rows: Tensor, size: int, device: str) -> Tensor:
    """The evaluation in one process, without any isolation: nats [rows, sequence]."""
    losses = []
    for block in torch.split(rows, size):
        inputs, targets = block[:, :-1].contiguous().to(device), block[:, 1:].to(device)
        nats = F.cross_entropy(model(inputs).float().flatten(0, 1), targets.flatten(), reduction="none")
        losses.append(nats.view(targets.shape).cpu())
    return torch.cat(losses)


if __name__ == "__main__":
    try:
        main()
    except harness.HarnessError as error:
        sys.exit(f"scorer.py: {error}")
