"""Make the data: shards of text, a tokenizer trained on the training shards alone, packed rows. The command
`python -m harness.prepare`. Each stage writes its files under temporary names and renames them when they are whole, so
that an interrupted preparation goes on with the stage it was in. May not know of training or scoring."""

import argparse
import hashlib
import shlex
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tokenizers import Tokenizer

from harness import cache, corpus, profiles, progress, tokenizer
from harness.errors import HarnessError, run_command
from harness.packing import Tokens, pack
from harness.profiles import Profile
from harness.shards import Shards, count_documents, read_documents, shards_in

EMBEDDED = "embedded"

# Enough for a vocabulary of 8192; more text takes longer and changes little.
_TOKENIZER_CHARACTERS = 200_000_000


def prepare(profile: Profile, source: str = EMBEDDED, *, force: bool = False) -> cache.Data:
    """Make the data of a source for a profile, or find them made, and select them for the profile.

    Args:
        source: `embedded`, or a folder of parquet files.
        force: Make them anew, even if they are there.

    Raises:
        HarnessError: The source cannot be read or holds too little text.
    """
    if source == EMBEDDED:
        folder = embedded_folder(profile)
    else:
        source = str(Path(source).expanduser().resolve())
        folder = cache.folder_for(_folder_key(Path(source)), profile)
    with cache.locked(folder, on_wait=lambda: progress.say("waiting for another preparation of the same data")):
        if force:
            cache.discard(folder)
        data = cache.load(folder)
        if data is None:
            data = _make(folder, source, profile)
        cache.select(profile, data)
    return data


def embedded_folder(profile: Profile) -> Path:
    """Where the embedded corpus of this interpreter belongs."""
    return cache.folder_for(corpus.source_key(), profile)


def _make(folder: Path, source: str, profile: Profile) -> cache.Data:
    options = ["--source", source, "--profile", profile.name, "--seq-len", str(profile.sequence_length)]
    command = shlex.join(["python", "-m", "harness.prepare", *options])
    shards = _shards(folder, source, profile, command)
    words = _tokenizer(folder / cache.TOKENIZER, shards, profile.vocab_size)
    parts = _parts(folder / "parts", shards, words, profile.sequence_length)
    training_rows, training_hash = _join(folder / cache.TRAINING, parts[:-1], profile.sequence_length)
    evaluation_rows, evaluation_hash = _evaluation(folder / cache.EVALUATION, parts[-1], profile)
    table = tokenizer.token_bytes(words, profile.vocab_size)
    cache.write_atomically(folder / cache.TOKEN_BYTES, partial(np.save, arr=table))
    data = cache.Data(
        folder=folder,
        command=command,
        vocab_size=profile.vocab_size,
        sequence_length=profile.sequence_length,
        evaluation_tokens=evaluation_rows * profile.sequence_length,
        training_rows=training_rows,
        sha256={
            cache.TRAINING: training_hash,
            cache.EVALUATION: evaluation_hash,
            cache.TOKEN_BYTES: _hash_of(folder / cache.TOKEN_BYTES),
            cache.TOKENIZER: _hash_of(folder / cache.TOKENIZER),
        },
    )
    cache.finish(data)
    shutil.rmtree(folder / "parts")
    return data


def _shards(folder: Path, source: str, profile: Profile, command: str) -> Shards:
    if source != EMBEDDED:
        return shards_in(Path(source), f"put a whole copy in its place and type `{command}`")
    shards = folder / "shards"
    if not shards.exists():
        progress.say("reading the Python source on this machine")
        corpus.write_shards(shards, profile.evaluation_tokens)
    return shards_in(shards, f"type `{command} --force` to make it anew")


def _tokenizer(path: Path, shards: Shards, vocab_size: int) -> Tokenizer:
    if not path.exists():
        progress.say(f"learning a vocabulary of {vocab_size}")
        words = tokenizer.train(_sample(shards), vocab_size)
        cache.write_atomically(path, lambda file: file.write(words.to_str().encode()))
    return Tokenizer.from_file(str(path))


def _sample(shards: Shards) -> Iterator[str]:
    """Training documents, as many as the tokenizer needs."""
    characters = 0
    for shard in shards.training:
        for documents in read_documents(shard, shards.remedy):
            yield from documents
            characters += sum(map(len, documents))
            if characters >= _TOKENIZER_CHARACTERS:
                return


def _parts(folder: Path, shards: Shards, words: Tokenizer, sequence_length: int) -> list[Path]:
    """Packed rows of each shard in a file of its own, so that each is a stage of its own; the last is validation's."""
    parts = [folder / f"{path.stem}.bin" for path in shards]
    missing = [(part, shard) for part, shard in zip(parts, shards, strict=True) if not part.exists()]
    total = sum(count_documents(shard, shards.remedy) for _, shard in missing)
    with progress.counted("tokenising and packing", total) as advance:

        def encoded(shard: Path) -> Iterator[Tokens]:
            for documents in read_documents(shard, shards.remedy):
                yield from tokenizer.encode(words, documents)
                advance(len(documents))

        for part, shard in missing:
            cache.write_atomically(part, partial(_write_blocks, blocks=pack(encoded(shard), sequence_length)))
    return parts


def _write_blocks(file: BinaryIO, blocks: Iterable[Tokens]) -> None:
    for block in blocks:
        file.write(block.astype("<u2").tobytes())


def _join(path: Path, parts: list[Path], sequence_length: int) -> tuple[int, str]:
    """Join parts to one file; returns its rows and its hash."""

    def write(file: BinaryIO) -> None:
        for part in parts:
            with part.open("rb") as rows:
                shutil.copyfileobj(rows, file, 1 << 20)

    cache.write_atomically(path, write)
    count = path.stat().st_size // (2 * (sequence_length + 1))
    if count == 0:
        raise HarnessError(f"the training shards hold too little text for one row of {sequence_length + 1} tokens.")
    return count, _hash_of(path)


def _evaluation(path: Path, part: Path, profile: Profile) -> tuple[int, str]:
    """Choose the rows of the metric, spread evenly over the validation shard; returns how many and their hash."""
    rows = np.fromfile(part, dtype="<u2").reshape(-1, profile.sequence_length + 1)
    wanted = profile.evaluation_tokens // profile.sequence_length
    count = min(wanted, len(rows))
    if count == 0:
        raise HarnessError(f"the validation shard holds too little text for one row of {rows.shape[1]} tokens.")
    if count < wanted:
        progress.say(
            f"the validation shard holds {count * profile.sequence_length:,} tokens, fewer than the "
            f"{profile.evaluation_tokens:,} of profile {profile.name}; the metric is taken over all of them"
        )
    chosen = rows[np.arange(count) * len(rows) // count]
    cache.write_atomically(path, lambda file: file.write(chosen.tobytes()))
    return count, _hash_of(path)


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_key(folder: Path) -> str:
    """A name for a folder of shards; other files in it, or files of other sizes, give another."""
    listing = [f"{path.name} {path.stat().st_size}" for path in sorted(folder.glob("*.parquet"))]
    digest = hashlib.sha256("\n".join([str(folder), *listing]).encode()).hexdigest()[:8]
    return f"{folder.name}-{digest}"


_DESCRIPTION = """\
Make the data that training and scoring read: text as parquet shards, a byte-level
BPE tokenizer trained on the training shards alone, and packed rows of tokens.

Sources (the last parquet file by name is for validation, the others for training):
  embedded   the Python source on this machine; needs no network, takes about 20 s
  FOLDER     parquet files with a column `text`, read where they are

Everything is written to a folder of its own, one for each source, profile and sequence
length, in $AUTORESEARCH_CACHE, else $XDG_CACHE_HOME/autoresearch, else
~/.cache/autoresearch. The data prepared last for a profile are the ones it trains on.
A preparation that was interrupted continues when the same command is typed again."""

_EXAMPLES = """\
examples:
  python -m harness.prepare
  python -m harness.prepare --source ~/fineweb --profile h100
  python -m harness.prepare --seq-len 128 --force"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.prepare",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--source", default=EMBEDDED, metavar="embedded|FOLDER", help="where the text comes from (default: embedded)"
    )
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help=f"hardware profile: {', '.join(profiles.names())} (default: $AUTORESEARCH_PROFILE, else the one of the "
        "device found)",
    )
    parser.add_argument(
        "--seq-len",
        type=int,
        metavar="TOKENS",
        help="tokens in a row (default: $AUTORESEARCH_SEQ_LEN, else the profile's: 256 on a CPU, 2048 on an H100)",
    )
    parser.add_argument("--force", action="store_true", help="make the data anew, even if they are there (default: no)")
    arguments = parser.parse_args()
    profile = profiles.named(arguments.profile, arguments.seq_len)
    data = prepare(profile, arguments.source, force=arguments.force)
    print(f"folder: {data.folder}")
    print(f"training_rows: {data.training_rows}")
    print(f"training_tokens: {data.training_rows * data.sequence_length}")
    print(f"evaluation_tokens: {data.evaluation_tokens}")
    print(f"data_hash: {data.data_hash}")


if __name__ == "__main__":
    run_command(main)
