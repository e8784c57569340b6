"""The cost of a prompt: characters and tokens by part, the time to build it, and the savings of a prompt cache.

    python benchmarks/prompt.py [--records 10 100 1000]

The records are simulated like those of a night: keeps that become rarer, near misses, crashes, and an edit of
`train.py` with every keep. The charter, the program and the harness's text are this repository's. For the cache, the
prompts of the last 50 experiments are built in order, and each is compared with the one before it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random

from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import corpus, tokenizer
from harness.describe import interface
from pytest_autoresearch.core.experiment import Decision, Experiment, Proposal, Repair, Status, Verdict
from pytest_autoresearch.core.failure import Stage
from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Run
from pytest_autoresearch.proposers.base import Context, Terms
from pytest_autoresearch.proposers.prompt import Prompt, build
from pytest_autoresearch.source.editable import Editable

TOP = Path(__file__).resolve().parent.parent
VOCABULARY = 8192
LOOKED_BACK = 50
PARTS = [field.name for field in fields(Prompt)]
BREAKPOINTS = ("interface", "files", "sealed", "recent")  # parts that end in a cache breakpoint
REPLY = "Answer with the tools that you are given; the last of them is `propose`, once, when all is edited. " * 6
AREAS = ("speed", "shape", "batch and schedule", "optimizer", "architecture", "numbers", "removal")
NAMES = ("MATRIX_LR", "EMBEDDING_LR", "WARMDOWN_FRACTION", "ROPE_BASE", "MLP_RATIO", "VALUE_DECAY", "MOMENTUM")
IDEAS = (
    "{name} {old} to {new}",
    "Raise {name} from {old} to {new} and lower the floor of the rate",
    "Halve the batch to {new} rows and scale {name} by its square root",
    "Replace the squared ReLU by a gated unit of {new} times the width, at the same number of parameters",
    "Share the value embeddings of neighbouring blocks, and give what is saved to {name} = {new}",
    "Remove the {name} ramp",
)
REASONS = (
    "The last three changes of {name} each gained a little, so the best lies further on.",
    "Late in the run the loss falls in steps as long as the rate is high; {name} decides how long that is.",
    "The profile shows that a fifth of a step goes into this part, which no ablation has found to help.",
    "A wider first layer helped in 0012, but took 9% of the steps; this has the same effect at a third of the cost.",
)
FAILURES = (
    Crash(
        CrashClass.OOM,
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has 79.10 GiB of which 1.20 GiB is free.",
    ),
    Crash(CrashClass.EXIT, "RuntimeError: mat1 and mat2 shapes cannot be multiplied (16384x512 and 640x512)", 1),
    Crash(CrashClass.REFUSED, "it changes harness/clock.py; only train.py may change"),
    Crash(CrashClass.NAN, "training printed FAIL: the loss is no number, or far too large"),
)


def campaign(count: int, random: Random) -> list[Experiment]:
    """A baseline and a number of experiments."""
    best, head, records = 0.9979, f"{0:040x}", []
    for number in range(count + 1):
        commit = f"{number:040x}"
        status = Status.KEEP if number == 0 else drawn(number, random)
        gain = abs(random.gauss(0, 0.004 / (1 + number / 20))) * (1 if status is Status.KEEP else -1.5)
        gain = gain if number else 0.0
        crash = random.choice(FAILURES) if status is Status.CRASH else None
        metric = None if crash else best - gain
        memory = random.uniform(30_000, 60_000)
        metrics = {} if crash else {"num_steps": float(random.randint(900, 1800))}
        run = Run(42, metric, metrics=metrics, peak_memory_mb=memory, crash=crash)
        added, removed = (random.randint(1, 30), random.randint(1, 20)) if number else (0, 0)
        one = Experiment(
            number, "night", commit, head, commit, thought(random) if number else Proposal("baseline"), (run,),
            Limits(300, 120, 600, 76_000), decision=Decision(best if number else None),
            verdict=Verdict(status, reason(number, status, crash), "", None if crash or not number else gain),
            repairs=(Repair(Stage.PREFLIGHT, random.choice(FAILURES)),) if random.random() < 0.1 else (),
            lines_added=added, lines_removed=removed, finished_at=float(number),
        )  # fmt: skip
        records.append(one)
        if status is Status.KEEP:
            best, head = best - gain, commit
    return records


def drawn(number: int, random: Random) -> Status:
    """A fifth are kept at first, fewer and fewer later; one in twenty crashes."""
    chance = random.random()
    if chance < 0.05:
        return Status.CRASH
    return Status.KEEP if chance < 0.05 + 0.2 / (1 + number / 100) else Status.DISCARD


def reason(number: int, status: Status, crash: Crash | None) -> str:
    if crash:
        return crash.reason
    return "baseline" if not number else "improved" if status is Status.KEEP else "not-improved"


def thought(random: Random) -> Proposal:
    words = {"name": random.choice(NAMES), "old": random.randint(1, 99) / 100, "new": random.randint(1, 99) / 100}
    description = random.choice(IDEAS).format(**words)
    hypothesis = " ".join(random.sample(REASONS, random.randint(1, 3))).format(**words)
    return Proposal(description, hypothesis, "anthropic", expected="-0.001", area=random.choice(AREAS))


def contexts(records: list[Experiment], counts: range, folder: Path) -> Iterator[Context]:
    """The proposer's context after each record; `train.py` contains the number of keeps."""
    terms = Terms(
        limits=Limits(300, 120, 600, 76_000), hardware="NVIDIA H100 80GB HBM3", interface=interface(), scored=True,
    )  # fmt: skip
    program = (TOP / "program.md").read_text()
    train = (TOP / "train.py").read_text()
    for count in counts:
        seen = tuple(records[:count])
        kept = sum(one.verdict is not None and one.verdict.status is Status.KEEP for one in seen)
        (folder / "train.py").write_text(train.replace("WARMUP_FRACTION = 0.0", f"WARMUP_FRACTION = 0.{kept}"))
        notes = f"Shorter windows pay; wider does not. {kept} keeps so far. " * 10
        yield Context(count, folder, Editable(("train.py",)), program, seen, (), folder, folder, terms, notes)


def hit(before: Prompt, now: Prompt, tokens: Callable[[str], int]) -> tuple[int, int]:
    """The tokens up to the last cache breakpoint before which both prompts are equal, and all tokens."""
    sizes = [tokens(getattr(now, part)) for part in PARTS]
    held = 0
    for part, upto in zip(PARTS, accumulate(sizes), strict=True):
        if getattr(before, part) != getattr(now, part):
            break
        held = upto if part in BREAKPOINTS else held
    return held, sum(sizes)


def counter() -> Callable[[str], int]:
    """The tokens of a text, cached by text."""
    texts, _, _ = corpus.texts(Path(sysconfig.get_path("stdlib")), [], 0)
    words: Tokenizer = tokenizer.train(texts, VOCABULARY)
    known: dict[str, int] = {}

    def tokens(text: str) -> int:
        if text not in known:
            known[text] = len(words.encode(text).ids)
        return known[text]

    return tokens


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[10, 100, 1000], metavar="N", help="(10 100 1000)")
    given = parser.parse_args()
    tokens = counter()
    columns = [f"{count:,} records" for count in given.records]
    prompts, milliseconds, hits = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for count in given.records:
            records = campaign(count, Random(count))
            counts = range(max(1, count + 1 - LOOKED_BACK), count + 2)
            row, taken = [], []
            for context in contexts(records, counts, Path(scratch)):
                began = time.perf_counter()
                row.append(build(context, REPLY))
                taken.append(1000 * (time.perf_counter() - began))
            prompts.append(row[-1])
            milliseconds.append(statistics.median(taken))
            pairs = [hit(before, now, tokens) for before, now in pairwise(row)]
            hits.append(sum(held for held, _ in pairs) / sum(whole for _, whole in pairs))
    print(f"{'characters / tokens':20}" + "".join(f"{column:>20}" for column in columns))
    for name in (*PARTS, "text"):
        texts = [prompt.text() if name == "text" else str(getattr(prompt, name)) for prompt in prompts]
        label = "all" if name == "text" else name
        print(f"{label:20}" + "".join(f"{f'{len(text):,} / {tokens(text):,}':>20}" for text in texts))
    print(f"{'to build it':20}" + "".join(f"{f'{taken:.1f} ms':>20}" for taken in milliseconds))
    print(f"{'from the cache':20}" + "".join(f"{share:>20.1%}" for share in hits))
    print(
        f"""
Tokens of a byte-level BPE of {VOCABULARY:,} entries, trained on the standard library's source. A large model's own
vocabulary is many times that and needs fewer for the same text, so these are upper estimates. From the cache: tokens up
to the last breakpoint (the ends of {", ".join(BREAKPOINTS)}) that the prompt before has as well, over the last
{LOOKED_BACK} prompts."""
    )


if __name__ == "__main__":
    main()
