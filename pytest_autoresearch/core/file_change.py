"""A file that a proposal changed, as git sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileChange:
    """One path that a proposal changed.

    Attributes:
        path: Relative to the repository's top, with slashes.
        kind: `A`dded, `M`odified, `D`eleted or `T`ype changed.
        regular: Whether it is a plain file after the change, with its old mode.
        size: After the change, in bytes.
        twin: Another path of the tree that some file systems cannot tell from this one, because they differ only in
            case or in the encoding of accents. Empty if there is none.
    """

    path: str
    kind: str
    regular: bool
    size: int = 0
    twin: str = ""
