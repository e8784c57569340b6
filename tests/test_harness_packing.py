"""Packing: rows of one length, begun with BOS, no padding, no token lost or made up."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.packing import BOS, Tokens, pack

# Documents as lengths: the tokens are numbered, so that each is unlike any other.
lengths = st.lists(st.integers(1, 90), max_size=60)
sequence_lengths = st.integers(2, 24)


def numbered(sizes: list[int]) -> list[Tokens]:
    """Documents with tokens 1, 2, 3, ... through all of them."""
    ends = np.cumsum([0, *sizes])
    return [np.arange(start + 1, end + 1, dtype=np.uint16) for start, end in pairwise(ends)]


def packed(documents: list[Tokens], sequence_length: int) -> Tokens:
    blocks = list(pack(documents, sequence_length))
    return np.concatenate(blocks) if blocks else np.empty((0, sequence_length + 1), dtype=np.uint16)


@given(lengths, sequence_lengths)
def test_every_row_is_full_and_begins_with_bos(sizes: list[int], sequence_length: int) -> None:
    rows = packed(numbered(sizes), sequence_length)
    assert rows.dtype == np.uint16
    assert rows.shape[1] == sequence_length + 1
    assert (rows[:, 0] == BOS).all()


@given(lengths, sequence_lengths)
def test_no_position_is_padding(sizes: list[int], sequence_length: int) -> None:
    # BOS stands before a token, or bare in the last position of a row, and nowhere else.
    rows = packed(numbered(sizes), sequence_length)
    assert not ((rows[:, :-1] == BOS) & (rows[:, 1:] == BOS))[:, :-1].any()


@given(lengths, sequence_lengths)
def test_no_token_is_made_up_or_used_twice_and_less_than_a_row_is_left(sizes: list[int], sequence_length: int) -> None:
    rows = packed(numbered(sizes), sequence_length)
    used = Counter(rows[rows != BOS].tolist())
    everything = Counter(range(1, sum(sizes) + 1))
    assert used <= everything
    assert (everything - used).total() <= sequence_length


@given(lengths, sequence_lengths)
def test_what_follows_a_bos_is_a_piece_of_one_document_in_its_order(sizes: list[int], sequence_length: int) -> None:
    starts = {int(document[0]) for document in numbered(sizes)}
    for row in packed(numbered(sizes), sequence_length).tolist():
        for before, token in pairwise(row):
            if BOS not in (before, token):
                assert token == before + 1
                assert token not in starts


@given(lengths, sequence_lengths)
def test_equal_documents_give_equal_rows(sizes: list[int], sequence_length: int) -> None:
    np.testing.assert_array_equal(packed(numbered(sizes), sequence_length), packed(numbered(sizes), sequence_length))


def test_short_documents_are_mostly_left_whole() -> None:
    sizes = np.random.default_rng(0).integers(1, 13, size=3000).tolist()
    pieces = int((packed(numbered(sizes), 52) == BOS).sum())
    # A document that is cut is counted twice; best fit seldom needs to.
    assert pieces <= len(sizes) * 1.005


def test_the_largest_piece_that_fits_is_taken() -> None:
    rows = packed(numbered([3, 1, 4, 2]), 8)
    # Pieces with their BOS are 4, 2, 5 and 3 long: 5 and 4 fill a row of 9, and the rest cannot fill another.
    assert rows.tolist() == [[BOS, 5, 6, 7, 8, BOS, 1, 2, 3]]


@pytest.mark.parametrize("sizes", [[], [3]])
def test_too_little_text_gives_no_row(sizes: list[int]) -> None:
    assert len(packed(numbered(sizes), 8)) == 0
