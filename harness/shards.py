"""Text as parquet shards: files with one column `text`, of which the last by name is for validation. Writes them, lists
them, reads them back, and says in a sentence when one is damaged. May not know where text comes from or goes to."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import HarnessError

_DOCUMENTS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Shards:
    """The text of one source.

    Attributes:
        training: Shards to train the tokenizer and the model on, in order.
        validation: The shard that only the metric may read.
        remedy: What to type when one of them is damaged.
    """

    training: tuple[Path, ...]
    validation: Path
    remedy: str

    def __iter__(self) -> Iterator[Path]:
        yield from self.training
        yield self.validation


def shard_name(number: int) -> str:
    """The file name of a shard; names sort as numbers do."""
    return f"shard_{number:05d}.parquet"


def shards_in(folder: Path, remedy: str) -> Shards:
    """The shards of a folder, the last by name for validation.

    Raises:
        HarnessError: There are fewer than two.
    """
    if not folder.is_dir():
        raise HarnessError(f"there is no folder {folder}; give --source a folder of parquet files, or `embedded`.")
    paths = sorted(folder.glob("*.parquet"))
    if len(paths) < 2:
        raise HarnessError(
            f"{folder} holds {len(paths)} parquet files and at least 2 are needed: the last is for validation."
        )
    return Shards(tuple(paths[:-1]), paths[-1], remedy)


def write_shard(path: Path, texts: Iterable[str]) -> None:
    """Write documents as one shard; not atomically, so write it into a folder that counts once it is renamed."""
    table = pa.table({"text": pa.array(texts, type=pa.large_string())})
    pq.write_table(
        table,
        path,
        compression="zstd",
        row_group_size=1024,
        write_page_checksum=True,
        # No two documents are alike and none is searched for: either would only write text a second time.
        use_dictionary=False,
        write_statistics=False,
    )


def count_documents(path: Path, remedy: str) -> int:
    """Documents in a shard, from its footer."""
    with _opened(path, remedy) as file:
        return int(file.metadata.num_rows)


def read_documents(path: Path, remedy: str) -> Iterator[list[str]]:
    """The documents of a shard in order, some hundreds at a time; empty ones are left out.

    Raises:
        HarnessError: The shard is damaged or has no text in a column `text`; names the file and what to type.
    """
    with _opened(path, remedy) as file:
        for batch in file.iter_batches(_DOCUMENTS_AT_ONCE, columns=["text"]):
            yield [text for text in batch.column(0).to_pylist() if text]


@contextmanager
def _opened(path: Path, remedy: str) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            if "text" not in schema.names or not _is_text(schema.field("text").type):
                raise HarnessError(f"{path} has no column `text` of strings; {remedy}.")
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path} is damaged ({str(error).splitlines()[0].rstrip('.')}); {remedy}.") from error


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
