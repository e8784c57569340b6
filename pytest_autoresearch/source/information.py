"""How much information a change of programs carries, as the size that it is compressed to beside the old text. Pure.

A compressed text says all that the text says, so no edit carries more than this, whether in code, comments, strings,
numbers or names.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping

_PRESET = 6  # a window of 8 MB: the old text stays in reach


def added(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> int:
    """Bytes of information that the files `after` add to those `before`, by path."""
    known = _text(before)
    changed = {path: text for path, text in after.items() if before.get(path) != text}
    return max(0, _size(known + _text(changed)) - _size(known)) if changed else 0


def _text(files: Mapping[str, bytes]) -> bytes:
    return b"".join(path.encode("utf-8", "surrogateescape") + b"\0" + text for path, text in sorted(files.items()))


def _size(text: bytes) -> int:
    return len(lzma.compress(text, lzma.FORMAT_ALONE, preset=_PRESET))
