"""The tokenizer: real BPE training on small text."""

import numpy as np
import pytest
from harness_data import document
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from harness import tokenizer
from harness.packing import BOS

VOCAB = 300


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return tokenizer.train([document(number, 100) for number in range(50)], VOCAB)


@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_is_encoded_without_loss_and_its_bytes_are_counted(words: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(words, [text])[0]
    assert words.decode(tokens.tolist()) == text
    assert tokenizer.token_bytes(words, VOCAB)[tokens].sum() == len(text.encode())


def test_a_document_that_spells_out_bos_is_text(words: Tokenizer) -> None:
    tokens = tokenizer.encode(words, [f"a {tokenizer.BOS_TEXT} b"])[0]
    assert BOS not in tokens
    assert words.token_to_id(tokenizer.BOS_TEXT) == BOS


def test_a_stored_tokenizer_encodes_as_the_one_that_was_trained(words: Tokenizer) -> None:
    text = f"return alpha {tokenizer.BOS_TEXT}"
    stored = Tokenizer.from_str(words.to_str())
    np.testing.assert_array_equal(tokenizer.encode(stored, [text])[0], tokenizer.encode(words, [text])[0])


def test_equal_text_gives_an_equal_tokenizer(words: Tokenizer) -> None:
    again = tokenizer.train([document(number, 100) for number in range(50)], VOCAB)
    assert again.to_str() == words.to_str()


def test_every_id_fits_the_table_and_bos_has_no_bytes(words: Tokenizer) -> None:
    table = tokenizer.token_bytes(words, VOCAB)
    assert table.shape == (VOCAB,)
    assert table[BOS] == 0
    assert (table[1:] > 0).all()
    assert sorted(words.get_vocab().values()) == list(range(VOCAB))


def test_ids_that_small_text_leaves_unlearned_have_no_bytes() -> None:
    tiny = tokenizer.train(["ab"], 400)
    table = tokenizer.token_bytes(tiny, 400)
    assert tiny.get_vocab_size() < 400
    assert (table[tiny.get_vocab_size() :] == 0).all()
