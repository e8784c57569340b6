"""Reads and writes text as parquet shards: one document in each row, in a column of strings.

Reading needs a bounded amount of memory. A damaged shard is reported in one sentence. Does not know where text comes
from or how it is used.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import HarnessError

TEXT_COLUMN = "text"
"""The default column."""

# For one call of the tokenizer, which needs about 200 bytes a token: about 15 MB.
_CHARACTERS_AT_ONCE = 2**18
_DOCUMENTS_AT_ONCE = 64
# Pages are read when they are needed, because some writers put a whole file into one row group.
_READ_AHEAD_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Shard:
    """A parquet file with text; its footer has been checked.

    Attributes:
        path: The file.
        column: Its column of documents.
        documents: Number of rows.
        text_bytes: Uncompressed size of that column, in bytes.
        remedy: What to do if the file is damaged, for the error message.
        left_out: Numbers of documents that are not read.
    """

    path: Path
    column: str
    documents: int
    text_bytes: int
    remedy: str
    left_out: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Shards:
    """The text of one source.

    Attributes:
        training: Shards to train the tokenizer and the model on, in order.
        validation: The shard with validation text.
        taken_from: Other files and folders that contain the validation text; training must not read them.
    """

    training: tuple[Shard, ...]
    validation: Shard
    taken_from: tuple[Path, ...] = ()


def shard_name(number: int) -> str:
    """The file name of a shard; names sort like their numbers."""
    return f"shard_{number:05d}.parquet"


def open_shards(paths: Sequence[Path], column: str | None, remedy: str) -> Shards:
    """Check the files of a source; the last one is for validation. All files must have the same text column.

    Raises:
        HarnessError: A file is damaged or has no such column; the message names the file and the remedy.
    """
    first = open_shard(paths[0], column, remedy)
    *training, validation = (first, *(open_shard(path, first.column, remedy) for path in paths[1:]))
    return Shards(tuple(training), validation)


def open_shard(path: Path, column: str | None, remedy: str) -> Shard:
    """Check a file by its footer.

    Args:
        column: The column of documents; None for `text` or else the only column of strings.

    Raises:
        HarnessError: The file is damaged or has no such column; the message names the file and the remedy.
    """
    with _opened(path, remedy) as file:
        column = _column(path, file.schema_arrow, column, remedy)
        metadata = file.metadata
        position = [metadata.schema.column(n).path for n in range(metadata.num_columns)].index(column)
        groups = (metadata.row_group(n).column(position) for n in range(metadata.num_row_groups))
        return Shard(path, column, metadata.num_rows, sum(group.total_uncompressed_size for group in groups), remedy)


def write_shard(path: Path, texts: Iterable[str]) -> None:
    """Write documents as one shard. Not atomic: write into a temporary folder and rename it."""
    table = pa.table({TEXT_COLUMN: pa.array(texts, type=pa.large_string())})
    pq.write_table(
        table,
        path,
        compression="zstd",
        row_group_size=1024,
        write_page_checksum=True,
        # All documents are different and none is searched for, so these would only make the file larger.
        use_dictionary=False,
        write_statistics=False,
    )


def each_document(shard: Shard) -> Iterator[str]:
    """All documents in order, none of them split.

    Raises:
        HarnessError: The shard is damaged; the message names the file and the remedy.
    """
    yield from _texts(shard, [range(shard.documents)])


def read_documents(shard: Shard, rows: Sequence[range] | None = None) -> Iterator[list[str]]:
    """Documents in order, in lists of about 2^18 characters. Empty documents are skipped, longer ones are split.

    Args:
        rows: The documents, as ascending ranges that do not overlap; None for all.

    Raises:
        HarnessError: The shard is damaged; the message names the file and the remedy.
    """
    found: list[str] = []
    characters = 0
    for text in _texts(shard, [range(shard.documents)] if rows is None else rows):
        for start in range(0, len(text), _CHARACTERS_AT_ONCE):
            found.append(text[start : start + _CHARACTERS_AT_ONCE])
            characters += len(found[-1])
            if characters >= _CHARACTERS_AT_ONCE:
                yield found
                found, characters = [], 0
    if found:
        yield found


def _texts(shard: Shard, rows: Sequence[range]) -> Iterator[str]:
    with _opened(shard.path, shard.remedy) as file:
        first = 0
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            wanted = [range(max(r.start, first) - first, min(r.stop, end) - first) for r in rows]
            left_out = frozenset(number - first for number in shard.left_out if first <= number < end)
            yield from _texts_of_group(file, group, shard.column, [r for r in wanted if r], left_out)
            first = end


def _texts_of_group(
    file: pq.ParquetFile, group: int, column: str, rows: Sequence[range], left_out: frozenset[int]
) -> Iterator[str]:
    if not rows:
        return
    first = 0
    for batch in file.iter_batches(_DOCUMENTS_AT_ONCE, row_groups=[group], columns=[column], use_threads=False):
        for wanted in rows:
            start, stop = max(wanted.start - first, 0), min(wanted.stop - first, len(batch))
            if start < stop:
                texts = batch.column(0).slice(start, stop - start).to_pylist()
                yield from (text or "" for n, text in enumerate(texts, first + start) if n not in left_out)
        first += len(batch)
        if first >= rows[-1].stop:
            return


@contextmanager
def _opened(path: Path, remedy: str) -> Iterator[pq.ParquetFile]:
    try:
        options = {"page_checksum_verification": True, "pre_buffer": False, "buffer_size": _READ_AHEAD_BYTES}
        with pq.ParquetFile(path, **options) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path} is damaged ({str(error).splitlines()[0].rstrip('.')}); {remedy}.") from error


def _column(path: Path, schema: pa.Schema, wanted: str | None, remedy: str) -> str:
    strings = [field.name for field in schema if _is_text(field.type)]
    name = wanted or (TEXT_COLUMN if TEXT_COLUMN in schema.names or len(strings) != 1 else strings[0])
    if name in strings:
        return name
    if strings:
        remedy = f"choose one of its columns with --text-column: {', '.join(strings)}"
    raise HarnessError(f"{path} has no column `{name}` of strings; {remedy}.")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
