"""Small text in real parquet shards, and the harness's commands as real processes, for the tests of the harness."""

import os
import random
import subprocess
import sys
from pathlib import Path

from harness.shards import shard_name, write_shard

CHECKOUT = Path(__file__).resolve().parent.parent
_WORDS = ["alpha", "beta", "gamma", "naïve", "delta", "epsilon", "return", "def", "loss", "model", "𝛼𝛽"]


def document(number: int, words: int) -> str:
    """Some text; each number gives another."""
    chosen = random.Random(number).choices(_WORDS, k=words)
    return f"document {number}\n" + " ".join(chosen)


def write_folder(folder: Path, *sizes: int) -> Path:
    """A folder with a shard for each size, of documents of 50 to 400 words until the shard has that many words."""
    folder.mkdir(parents=True)
    for shard, size in enumerate(sizes):
        documents: list[str] = []
        words = 0
        while words < size:
            length = random.Random(f"{shard} {words}").randint(50, 400)
            documents.append(document(shard * 1_000_000 + len(documents), length))
            words += length
        write_shard(folder / shard_name(shard), documents)
    return folder


def environment(cache: Path, **more: str) -> dict[str, str]:
    """What a harness process runs under: the CPU profile, that cache, nothing left over from a session around us."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
    kept["AUTORESEARCH_VISIBLE"] = "/nowhere"  # comparing with all packages takes seconds
    return kept | {"AUTORESEARCH_CACHE": str(cache), "AUTORESEARCH_PROFILE": "cpu"} | more


def start(module: str, *arguments: str, env: dict[str, str]) -> "subprocess.Popen[str]":
    """Start `python -m MODULE` in the checkout, with any warning an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", module, *arguments],
        cwd=CHECKOUT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(module: str, *arguments: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run `python -m MODULE` to its end."""
    process = start(module, *arguments, env=env)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def values(printed: str) -> dict[str, str]:
    """The `name: value` lines of a command."""
    return dict(line.split(": ", 1) for line in printed.splitlines())
