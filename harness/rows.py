"""Makes packed rows on disk: cuts shards into parts, tokenises and packs the parts in parallel, and joins them.

The parts keep their order, so the rows do not depend on the number of processes. Does not know where shards come from
or how rows are used.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import BinaryIO

from tokenizers import Tokenizer

from harness import cache, draw, progress, tokenizer, workers
from harness.errors import HarnessError
from harness.packing import Tokens, pack
from harness.profiles import Profile
from harness.shards import Shard, Shards, read_documents

# About 8 million tokens and a few seconds of work. Each part drops less than one row: 0.01% of it.
_PART_BYTES = 2**25
# Validation text is taken from this many places, evenly spread over the shard.
_PLACES = 32
# More than any language needs, so that there are rows to choose from.
_BYTES_PER_TOKEN = 8


@dataclass(frozen=True, slots=True)
class _Part:
    """Documents of one shard that become one file of rows.

    Attributes:
        path: The file of rows; if it exists, it is complete.
        rows: The documents, as ascending ranges of the shard's rows.
    """

    path: Path
    shard: Shard
    rows: tuple[range, ...]

    @property
    def documents(self) -> int:
        return sum(map(len, self.rows))


def make(
    folder: Path, shards: Shards, words: Tokenizer, profile: Profile, processes: int
) -> tuple[list[Path], list[Path]]:
    """Tokenise and pack all training text and as much of the validation text as the pool should have.

    Args:
        folder: For the parts, which are files of uint16 rows. Existing parts are not made again.
        processes: Number of processes.

    Returns:
        The training parts and the validation parts, both in order.
    """
    training = [part for number, shard in enumerate(shards.training) for part in _training(folder, number, shard)]
    tokens = draw.pool_tokens(profile.evaluation_tokens)
    wanted = tokens * _BYTES_PER_TOKEN
    validation = _validation(folder, shards.validation, wanted)
    _make([*validation, *training], words, profile, processes)
    while sum(_rows(part.path, profile) for part in validation) * profile.sequence_length < tokens:
        if sum(part.documents for part in validation) == shards.validation.documents:
            break
        wanted *= 4
        validation = _validation(folder, shards.validation, wanted)
        _make(validation, words, profile, processes)
    return [part.path for part in training], [part.path for part in validation]


def join(path: Path, parts: Sequence[Path], profile: Profile, of: str) -> tuple[int, str]:
    """Join parts into one file; returns the number of rows and the SHA-256.

    Args:
        of: `training shards have` or the like, for the error message.

    Raises:
        HarnessError: There is not one row.
    """
    digest = hashlib.sha256()

    def write(file: BinaryIO) -> None:
        for part in parts:
            with part.open("rb") as content:
                while block := content.read(1 << 20):
                    digest.update(block)
                    file.write(block)

    count = sum(_rows(part, profile) for part in parts)
    if count == 0:
        raise HarnessError(f"the {of} too little text for one row of {profile.sequence_length + 1} tokens.")
    cache.write_atomically(path, write)
    return count, digest.hexdigest()


def shares_of(pool: int, profile: Profile) -> draw.Counts:
    """The use of a pool of so many rows; says if it is too small for the profile."""
    wanted = profile.evaluation_tokens // profile.sequence_length
    shares = draw.counts(pool, wanted)
    if shares.metric < wanted:
        progress.say(
            f"the validation shard has only {pool * profile.sequence_length:,} tokens; profile {profile.name} "
            f"needs {profile.evaluation_tokens:,} for the metric and as many for the audit; the metric now uses "
            f"{shares.metric * profile.sequence_length:,}"
        )
    return shares


def _training(folder: Path, number: int, shard: Shard) -> list[_Part]:
    count = max(1, ceil(shard.text_bytes / _PART_BYTES))
    edges = [shard.documents * n // count for n in range(count + 1)]
    return [_Part(folder / f"{number:05d}-{n:04d}.bin", shard, (range(edges[n], edges[n + 1]),)) for n in range(count)]


def _validation(folder: Path, shard: Shard, text_bytes: int) -> list[_Part]:
    share = min(1.0, text_bytes / max(1, shard.text_bytes))
    edges = [shard.documents * n // _PLACES for n in range(_PLACES + 1)]
    rows = [range(edges[n], edges[n] + ceil((edges[n + 1] - edges[n]) * share)) for n in range(_PLACES)]
    taken = sum(map(len, rows))
    count = min(_PLACES, max(1, ceil(share * shard.text_bytes / _PART_BYTES)))
    groups = [rows[_PLACES * n // count : _PLACES * (n + 1) // count] for n in range(count)]
    return [_Part(folder / f"validation-{taken}-{n:02d}.bin", shard, tuple(group)) for n, group in enumerate(groups)]


def _make(parts: list[_Part], words: Tokenizer, profile: Profile, processes: int) -> None:
    missing = [part for part in parts if not part.path.exists()]
    if not missing:
        return
    # An estimate: a part's share of the documents is about its share of the bytes.
    text_bytes = sum(part.shard.text_bytes * part.documents // max(1, part.shard.documents) for part in missing)
    with progress.counted("tokenising and packing", sum(part.documents for part in missing)) as advance:
        workers.each(
            partial(_make_part, words, profile.sequence_length),
            missing,
            advance,
            processes=workers.worth(text_bytes, processes),
        )


def _make_part(words: Tokenizer, sequence_length: int, part: _Part) -> int:
    """Write the rows of a part; returns the number of its documents."""

    def tokens() -> Iterator[Tokens]:
        for documents in read_documents(part.shard, part.rows):
            yield from tokenizer.encode(words, documents)

    def write(file: BinaryIO) -> None:
        for block in pack(tokens(), sequence_length):
            file.write(block.astype("<u2").tobytes())

    cache.write_atomically(part.path, write)
    return part.documents


def _rows(part: Path, profile: Profile) -> int:
    return part.stat().st_size // (2 * (profile.sequence_length + 1))
