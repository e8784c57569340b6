"""The tokenizer: byte-level BPE, trained on training text alone, and the table of bytes for each token.

Knows nothing of files or rows.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BOS_TEXT = "<|bos|>"


def train(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn at most `vocab_size` tokens from documents; the first, id 0, is BOS.

    Equal documents give equal tokens, on any number of cores.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[str]) -> list[npt.NDArray[np.uint16]]:
    """The tokens of each document, without BOS: uint16 [tokens] each."""
    # If a document contains the text of the special token, it is encoded as ordinary text.
    tokenizer.encode_special_tokens = True
    return [
        np.array(encoding.ids, dtype=np.uint16)
        for encoding in tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    ]


def token_bytes(tokenizer: Tokenizer, vocab_size: int) -> npt.NDArray[np.int32]:
    """Bytes of text of each token, 0 for BOS and for ids that were not learned: int32 [vocab_size]."""
    table = np.zeros(vocab_size, dtype=np.int32)
    for text, number in tokenizer.get_vocab().items():
        if text != BOS_TEXT:
            # In the byte-level alphabet, each byte is one character.
            table[number] = len(text)
    return table
