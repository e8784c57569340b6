"""Makes the data: shards of text, a tokenizer, packed rows. The command `python -m harness.prepare`.

The tokenizer is trained on the training shards alone. Each stage writes its files under temporary names and renames
complete files, so an interrupted preparation continues where it stopped. Knows nothing of training or scoring.
"""

import argparse
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from harness import cache, corpus, exposed, profiles, progress, rows, sources, tokenizer, workers
from harness.errors import HarnessError, run_command
from harness.profiles import Profile
from harness.shards import Shard, Shards, each_document, read_documents
from harness.sources import EMBEDDED, Source

_PARTS = "parts"
# Enough for a vocabulary of 8192; more text takes longer and changes little. Training needs about 1 GB of memory.
_TOKENIZER_CHARACTERS = 200_000_000
# More processes would wait for the disk and need much memory.
_MOST_WORKERS = 32


def prepare(
    profile: Profile,
    source: str = EMBEDDED,
    *,
    num_shards: int | None = None,
    text_column: str | None = None,
    processes: int | None = None,
    force: bool = False,
) -> cache.Data:
    """Make the data of a source for a profile, unless they exist, and select them for the profile.

    Args:
        source: `embedded`, a folder of parquet files, or a dataset of the hub; see `sources.named`.
        num_shards: Number of training shards; None for the source's default.
        text_column: The column of documents; None to detect it.
        processes: Number of processes; None for one for each usable core. The data do not depend on it.
        force: Make the data again, even if they exist.

    Raises:
        HarnessError: The source cannot be found or read, or has too little text.
    """
    chosen = sources.named(source, num_shards=num_shards, text_column=text_column, anew=force)
    folder = cache.folder_for(chosen.key, profile)
    with cache.locked(folder, on_wait=lambda: progress.say("waiting for another preparation of the same data")):
        if force:
            cache.discard(folder)
        data = cache.load(folder)
        if data is None:
            data = _make(folder, chosen, profile, processes or min(profiles.usable_cores(), _MOST_WORKERS))
        # Also when the data already exist, in case an earlier removal was interrupted.
        shutil.rmtree(folder / _PARTS, ignore_errors=True)
        cache.select(profile, data)
    return data


def embedded_folder(profile: Profile) -> Path:
    """The data folder for the embedded corpus of this interpreter."""
    return cache.folder_for(corpus.source_key(), profile)


def _make(folder: Path, source: Source, profile: Profile, processes: int) -> cache.Data:
    options = [*source.options, "--profile", profile.name, "--seq-len", str(profile.sequence_length)]
    command = shlex.join(["python", "-m", "harness.prepare", *options])
    cache.remove_partial(folder)
    shards = _without_visible(source.shards(folder, profile, command), processes)
    words = _tokenizer(folder / cache.TOKENIZER, shards.training, profile.vocab_size, processes)
    training, validation = rows.make(folder / _PARTS, shards, words, profile, processes)
    training_rows, training_hash = rows.join(folder / cache.TRAINING, training, profile, "training shards have")
    pool_rows, pool_hash = rows.join(folder / cache.POOL, validation, profile, "validation shard has")
    shares = rows.shares_of(pool_rows, profile)
    table = tokenizer.token_bytes(words, profile.vocab_size)
    cache.write_atomically(folder / cache.TOKEN_BYTES, partial(np.save, arr=table))
    hashes = {name: cache.hash_of(folder / name) for name in (cache.TOKEN_BYTES, cache.TOKENIZER)}
    data = cache.Data(
        folder=folder,
        source=source.name,
        command=command,
        vocab_size=profile.vocab_size,
        sequence_length=profile.sequence_length,
        evaluation_tokens=shares.metric * profile.sequence_length,
        audit_tokens=shares.audit * profile.sequence_length,
        pool_rows=pool_rows,
        training_rows=training_rows,
        sha256={cache.TRAINING: training_hash, cache.POOL: pool_hash} | hashes,
        taken_from=tuple(map(str, (shards.validation.path, *shards.taken_from))),
        visible_documents=len(shards.validation.left_out),
    )
    cache.finish(data)
    return data


def _without_visible(shards: Shards, processes: int) -> Shards:
    """The shards, without the validation documents that training can read on this machine, whole or in part."""
    validation = shards.validation
    seen = exposed.visible(shards.taken_from)
    found = exposed.exposed(each_document(validation), validation.text_bytes, seen, processes)
    if found:
        progress.say(
            f"{len(found):,} of {validation.documents:,} validation documents are left out, because files that "
            "training can read on this machine contain them, whole or in part"
        )
    return replace(shards, validation=replace(validation, left_out=frozenset(found)))


def _tokenizer(path: Path, shards: tuple[Shard, ...], vocab_size: int, processes: int) -> Tokenizer:
    if not path.exists():
        text_bytes = min(_TOKENIZER_CHARACTERS, sum(shard.text_bytes for shard in shards))
        # In a separate process, so that its memory is free again before tokenising.
        workers.each(
            partial(_learn, path, vocab_size, text_bytes),
            [shards],
            lambda learned: None,
            processes=workers.worth(text_bytes, 1),
            threads=processes,
        )
    return Tokenizer.from_file(str(path))


def _learn(path: Path, vocab_size: int, text_bytes: int, shards: tuple[Shard, ...]) -> None:
    with progress.counted(f"learning a vocabulary of {vocab_size}", text_bytes, "bytes") as advance:

        def documents() -> Iterator[str]:
            left = text_bytes
            for found in _sample(shards):
                yield from found
                done = min(left, sum(map(len, found)))
                advance(done)
                left -= done
            # There are fewer characters than bytes.
            advance(left)

        words = tokenizer.train(documents(), vocab_size)
    cache.write_atomically(path, lambda file: file.write(words.to_str().encode()))


def _sample(shards: tuple[Shard, ...]) -> Iterator[list[str]]:
    """Enough training documents for the tokenizer, taken as evenly as possible from all shards."""
    left = _TOKENIZER_CHARACTERS
    for number, shard in enumerate(shards):
        share = left // (len(shards) - number)
        for documents in read_documents(shard):
            yield documents
            size = sum(map(len, documents))
            left, share = left - size, share - size
            if share <= 0:
                break


_DESCRIPTION = """\
Make the data that training and scoring read: text as parquet shards, a byte-level
BPE tokenizer trained on the training shards alone, and packed rows of tokens.

Sources (the last parquet file by name is for validation, the others for training):
  climbmix      karpathy/climbmix-400b-shuffle, upstream's dataset: 10 shards and the
                pinned last shard, about 1 GB to download
  fineweb-edu   HuggingFaceFW/fineweb-edu/sample/10BT, about 4 GB to download
  OWNER/DATASET[@REVISION][/FOLDER]
                parquet files of any dataset on the Hugging Face Hub: the first 1 GB
                of files, always from the same commit after the first download
  FOLDER        all parquet files of a folder on this machine; they are not copied
  embedded      the Python source on this machine; needs no network, takes about 20 s

Each source, profile and sequence length has its own data folder, in
$AUTORESEARCH_CACHE, else $XDG_CACHE_HOME/autoresearch, else ~/.cache/autoresearch.
Downloads come from $HF_ENDPOINT and go to $HF_HOME, else ~/.cache/huggingface.
A profile trains on the data that were prepared for it last.
If this is interrupted, rerun the same command to continue."""

_EXAMPLES = """\
examples:
  python -m harness.prepare
  python -m harness.prepare --source fineweb-edu --num-shards 4
  python -m harness.prepare --source ~/texts --profile h100 --text-column content
  python -m harness.prepare --source embedded --seq-len 128 --force"""


def main() -> None:
    """The command line."""
    arguments = _arguments()
    profile = profiles.named(arguments.profile, arguments.seq_len)
    if arguments.workers is not None and arguments.workers < 1:
        raise HarnessError(f"--workers {arguments.workers} is too small; give at least 1.")
    data = prepare(
        profile,
        arguments.source,
        num_shards=arguments.num_shards,
        text_column=arguments.text_column,
        processes=arguments.workers,
        force=arguments.force,
    )
    print(f"source: {data.source}")
    print(f"folder: {data.folder}")
    print(f"training_rows: {data.training_rows}")
    print(f"training_tokens: {data.training_rows * data.sequence_length}")
    print(f"evaluation_tokens: {data.evaluation_tokens}")
    print(f"audit_tokens: {data.audit_tokens}")
    print(f"pool_tokens: {data.pool_rows * data.sequence_length}")
    print(f"visible_documents: {data.visible_documents}")
    print(f"data_hash: {data.data_hash}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m harness.prepare",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--source", default=sources.CLIMBMIX, help=f"where the text comes from (default: {sources.CLIMBMIX})"
    )
    parser.add_argument(
        "--num-shards",
        type=int,
        metavar="N",
        help="number of training shards, from the first (default: 10 of climbmix, 1 GB of another dataset, all of a "
        "folder)",
    )
    parser.add_argument(
        "--text-column",
        metavar="NAME",
        help="the column of documents (default: text, else the only column of strings)",
    )
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help=f"hardware profile: {', '.join(profiles.names())} (default: $AUTORESEARCH_PROFILE, else by the device)",
    )
    parser.add_argument(
        "--seq-len",
        type=int,
        metavar="TOKENS",
        help="tokens in a row (default: $AUTORESEARCH_SEQ_LEN, else the profile's: 256 on a CPU, 2048 on an H100)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help=f"number of processes (default: one for each core, at most {_MOST_WORKERS}); the data do not depend on it",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="make the data again, even if they exist; a dataset is taken at its newest commit, and its files are "
        "compared with the hub's hashes (default: no)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
