"""Shards: which column holds the text, and reading it in pieces that fit a bounded memory."""

import os
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.shards import open_shard, open_shards, read_documents

REMEDY = "type the same command again"


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred documents, each its own number, in row groups of 30."""
    path = tmp_path_factory.mktemp("shards") / "numbered.parquet"
    pq.write_table(pa.table({"text": [str(n) for n in range(100)]}), path, row_group_size=30)
    return path


@given(st.lists(st.integers(0, 100), max_size=8, unique=True))
def test_any_ranges_of_documents_are_read_across_row_groups(numbered: Path, edges: list[int]) -> None:
    edges.sort()
    rows = [range(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=False)]
    read = list(chain.from_iterable(read_documents(open_shard(numbered, None, REMEDY), rows)))
    assert read == [str(n) for n in chain.from_iterable(rows)]


def test_documents_come_in_pieces_of_a_bounded_size_and_nothing_is_lost(tmp_path: Path) -> None:
    texts = ["long " * 200_000, "", None, "short", "x" * 2**18, *["some words"] * 50_000]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    lists = list(read_documents(open_shard(tmp_path / "a.parquet", None, REMEDY)))
    assert "".join(chain.from_iterable(lists)) == "".join(text or "" for text in texts)
    assert all(0 < len(text) <= 2**18 for texts in lists for text in texts)
    assert all(2**18 <= sum(map(len, texts)) < 2**19 for texts in lists[:-1])


@pytest.mark.parametrize(
    ("columns", "wanted", "found"),
    [
        ({"url": ["u"], "text": ["t"]}, None, "text"),
        ({"url": ["u"], "text": ["t"]}, "url", "url"),
        ({"id": [1], "content": ["c"]}, None, "content"),
    ],
)
def test_the_column_of_documents_is_found(
    tmp_path: Path, columns: dict[str, list[object]], wanted: str | None, found: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    shard = open_shard(tmp_path / "a.parquet", wanted, REMEDY)
    assert shard.column == found
    assert list(read_documents(shard)) == [[columns[found][0]]]


@pytest.mark.parametrize(
    ("columns", "wanted", "words"),
    [
        ({"url": ["u"], "body": ["b"]}, None, "no column `text` of strings; .* with --text-column: url, body"),
        ({"text": ["t"]}, "body", "no column `body` of strings; choose one .* with --text-column: text"),
        ({"text": [1]}, None, "no column `text` of strings; type the same command again"),
    ],
)
def test_a_file_without_such_a_column_is_a_sentence(
    tmp_path: Path, columns: dict[str, list[object]], wanted: str | None, words: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(HarnessError, match=rf"a.parquet has {words}\.$"):
        open_shard(tmp_path / "a.parquet", wanted, REMEDY)


def test_all_shards_have_their_text_in_the_same_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["b"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["t"]}), tmp_path / "b.parquet")
    with pytest.raises(HarnessError, match=r"b.parquet has no column `body` of strings"):
        open_shards([tmp_path / "a.parquet", tmp_path / "b.parquet"], None, REMEDY)


def test_a_file_of_one_large_row_group_is_not_read_into_memory_at_once(tmp_path: Path) -> None:
    texts = [os.urandom(500).hex() for _ in range(24_000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=len(texts), use_dictionary=False)
    before = pa.total_allocated_bytes()
    documents = read_documents(open_shard(tmp_path / "a.parquet", None, REMEDY))
    assert next(documents)[0] == texts[0]
    assert pa.total_allocated_bytes() - before < (tmp_path / "a.parquet").stat().st_size / 3
