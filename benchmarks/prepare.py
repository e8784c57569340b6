"""Speed and memory of `python -m harness.prepare` on generated shards. Prints one table.

Compared with the `tokenizers` library alone, on the same text and the same cores.

    python benchmarks/prepare.py --gigabytes 1
"""

import argparse
import os
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import corpus, profiles, rows, tokenizer
from harness.packing import pack
from harness.progress import size
from harness.shards import Shards, open_shard, read_documents, shard_name, write_shard

_SHARD_BYTES = 250_000_000
# Two parts for each worker, so that no worker idles for long.
_RATE_BYTES_OF_A_WORKER = 2 * 2**25
_SECONDS_BETWEEN_LOOKS = 0.1
_CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Run:
    """One preparation.

    Attributes:
        seconds: By stage, and under `all`.
        peak_bytes: Peak memory of all its processes together, as proportional set sizes, so that shared memory counts
            once.
        folder: The data.
    """

    seconds: dict[str, float]
    peak_bytes: int
    folder: Path


def main() -> None:
    """The command line."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        source = Path(place) / "text"
        text_bytes = write_text(source, int(arguments.gigabytes * 1e9))
        run = prepare(source, Path(place) / "cache", arguments)
        rates = rates_of(source, run.folder / "tokenizer.json", Path(place) / "parts", arguments)
    whole = {
        "learning the vocabulary": min(text_bytes, 200e6) / run.seconds["learning"],
        "tokenising and packing": text_bytes / run.seconds["tokenising"],
        "the whole preparation": text_bytes / run.seconds["all"],
    }
    print(f"{size(text_bytes)} of text, {profiles.usable_cores()} cores, --workers {arguments.workers}")
    print("| what | MB/s | of the library's |\n|---|---|---|")
    library, *_ = rates.values()
    for name, rate in rates.items():
        print(f"| {name} | {rate / 1e6:.1f} | {rate / library:.2f} |")
    for name, rate in whole.items():
        print(f"| {name}, in the run | {rate / 1e6:.1f} | |")
    print(f"peak memory of all processes together: {run.peak_bytes / 2**20:,.0f} MB")


def rates_of(source: Path, tokenizer_file: Path, parts: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Bytes per second of the library and of ours, with the same text. Ours runs between two halves of the library's
    turn, so that other work on the machine favours neither."""
    words = Tokenizer.from_file(str(tokenizer_file))
    wanted = _RATE_BYTES_OF_A_WORKER * arguments.workers
    training = []
    for path in sorted(source.glob("*.parquet"))[:-1]:
        if sum(shard.text_bytes for shard in training) < wanted:
            training.append(open_shard(path, None, ""))
    shards = Shards(tuple(training), open_shard(max(source.glob("*.parquet")), None, ""))
    texts = [text for shard in training for batch in read_documents(shard) for text in batch]
    text_bytes = sum(len(text.encode()) for text in texts)
    profile = profiles.named("h100", arguments.seq_len)
    half = len(texts) // 2
    library = seconds_of(lambda: encode_all(words, texts[:half]))
    ours = seconds_of(lambda: rows.make(parts, shards, words, profile, arguments.workers))
    library += seconds_of(lambda: encode_all(words, texts[half:]))
    tokens = tokenizer.encode(words, texts[:1000])
    packing = seconds_of(lambda: sum(len(block) for block in pack(tokens, arguments.seq_len)))
    return {
        "the library's encode_batch_fast, all cores": text_bytes / library,
        # The validation text is tokenised along with it.
        "tokenising and packing, all workers": (text_bytes + shards.validation.text_bytes) / ours,
        "packing alone, one core": sum(len(text.encode()) for text in texts[:1000]) / packing,
    }


def prepare(source: Path, cache: Path, arguments: argparse.Namespace) -> Run:
    """Run the command and watch its processes."""
    start = time.monotonic()
    options = ["--profile", "h100", "--seq-len", str(arguments.seq_len), "--workers", str(arguments.workers)]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.prepare", "--source", str(source), *options],
        cwd=_CHECKOUT,
        env=os.environ | {"AUTORESEARCH_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, _memory(psutil.Process(process.pid)))
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    out, err = process.communicate()
    if process.returncode:
        sys.exit(err)
    stages = {name: float(seconds) for name, seconds in re.findall(r"harness: (\w+).*: done in ([\d.]+) s", err)}
    (folder,) = re.findall("folder: (.*)", out)
    return Run(stages | {"all": time.monotonic() - start}, peak, Path(folder))


def write_text(folder: Path, text_bytes: int) -> int:
    """Write shards of shuffled lines of this machine's Python source, with an invented word after every fourth word.

    The last, smaller shard is for validation. Returns the bytes of the training text.
    """
    folder.mkdir()
    files, _ = corpus.texts(Path(sysconfig.get_path("stdlib")), [], 0)
    lines = [line for text in files for line in text.splitlines() if line.strip()]
    written = number = 0
    while written < text_bytes:
        wanted = min(_SHARD_BYTES, text_bytes - written)
        written += _write(folder / shard_name(number), lines, wanted, seed=number)
        number += 1
    _write(folder / shard_name(number), lines, 20_000_000, seed=number)
    return written


def _write(path: Path, lines: list[str], text_bytes: int, seed: int) -> int:
    chosen = random.Random(seed)
    written = 0

    def documents() -> Iterator[str]:
        nonlocal written
        while written < text_bytes:
            count = int(chosen.lognormvariate(4, 1)) + 1
            words = (f" {chosen.getrandbits(32):x}" if chosen.random() < 0.25 else "" for _ in range(count))
            text = "\n".join(map("".join, zip(chosen.choices(lines, k=count), words, strict=True)))
            written += len(text.encode())
            yield text

    write_shard(path, documents())
    return written


def encode_all(words: Tokenizer, texts: list[str]) -> None:
    """The library alone, in batches large enough for all cores."""
    for start in range(0, len(texts), 1000):
        words.encode_batch_fast(texts[start : start + 1000])


def seconds_of(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def _memory(process: psutil.Process) -> int:
    total = 0
    for member in (process, *_children(process)):
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.15, metavar="GB", help="training text (default: 0.15)")
    parser.add_argument("--seq-len", type=int, default=2048, metavar="TOKENS", help="tokens in a row (default: 2048)")
    parser.add_argument(
        "--workers", type=int, default=profiles.usable_cores(), metavar="N", help="processes (default: all cores)"
    )
    parser.add_argument("--folder", type=Path, help="where to write, for a while (default: the system's)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
