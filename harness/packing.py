"""Packs documents into rows of one length.

Every row begins with BOS, and so does every document inside a row. There is no padding. Pure; knows nothing of files or
text.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

BOS = 0
"""Id of the token that begins every document and every row."""

Tokens = npt.NDArray[np.uint16]

_BUFFERED_PIECES = 1024


def pack(documents: Iterable[Tokens], sequence_length: int) -> Iterator[Tokens]:
    """Pack documents into rows; yields blocks of uint16 [rows, sequence_length + 1].

    A document longer than a row is first cut into full rows and a tail, each beginning with BOS. Rows are then filled
    from a buffer of such pieces, always with the largest piece that fits and does not leave a single free position. If
    no piece fits, the longest piece is cut to fill the row, and its rest goes back to the buffer with a new BOS. So no
    token is lost or used twice, except that a rest at the very end that cannot fill a row is dropped. If a single free
    position cannot be avoided, the row ends with a BOS alone.
    """
    buffer = _Pieces(sequence_length + 1)
    for document in documents:
        full = len(document) // sequence_length * sequence_length
        if full:
            yield _begun(document[:full].reshape(-1, sequence_length))
        if full < len(document):
            buffer.put(_begun(document[None, full:])[0])
        if buffer.pieces >= _BUFFERED_PIECES:
            yield buffer.fill_row()[None]
    while buffer.tokens > sequence_length:
        yield buffer.fill_row()[None]


class _Pieces:
    """Pieces of documents, each beginning with BOS, indexed by length."""

    def __init__(self, row_length: int) -> None:
        self._row_length = row_length
        self._by_length: dict[int, list[Tokens]] = {}
        self._lengths: list[int] = []
        self.pieces = 0
        self.tokens = 0

    def put(self, piece: Tokens) -> None:
        if len(piece) not in self._by_length:
            self._by_length[len(piece)] = []
            insort(self._lengths, len(piece))
        self._by_length[len(piece)].append(piece)
        self.pieces += 1
        self.tokens += len(piece)

    def fill_row(self) -> Tokens:
        """Remove and return one full row: uint16 [row_length]. The buffer must contain enough tokens."""
        row = np.empty(self._row_length, dtype=np.uint16)
        filled = 0
        while filled < self._row_length:
            piece = self._take_at_most(self._row_length - filled)
            row[filled : filled + len(piece)] = piece
            filled += len(piece)
        return row

    def _take_at_most(self, space: int) -> Tokens:
        choice = bisect_right(self._lengths, space) - 1
        if choice >= 0 and self._lengths[choice] == space - 1:
            # This piece would leave a single position, where only a BOS fits.
            choice -= 1
        if choice >= 0:
            return self._take(self._lengths[choice])
        longest = self._take(self._lengths[-1])
        if len(longest) < space:
            return longest
        self.put(_begun(longest[None, space:])[0])
        return longest[:space]

    def _take(self, length: int) -> Tokens:
        bucket = self._by_length[length]
        piece = bucket.pop()
        if not bucket:
            del self._by_length[length]
            del self._lengths[bisect_left(self._lengths, length)]
        self.pieces -= 1
        self.tokens -= length
        return piece


def _begun(pieces: Tokens) -> Tokens:
    """Put BOS before each row: [rows, tokens] to [rows, tokens + 1]."""
    begun = np.empty((pieces.shape[0], pieces.shape[1] + 1), dtype=np.uint16)
    begun[:, 0] = BOS
    begun[:, 1:] = pieces
    return begun
