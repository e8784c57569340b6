"""One path that a proposal changed, as git sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileChange:
    """One path that a proposal changed.

    Attributes:
        path: Relative to the repository's top, with slashes.
        kind: `A`dded, `M`odified, `D`eleted or `T`ype changed.
        regular: Whether it is a plain file afterwards, with the mode it had before.
        size: In bytes, afterwards.
        twin: Another path of the tree that a file system may take for the same: but for case, or the way in which an
            accent is written. Empty where there is none.
    """

    path: str
    kind: str
    regular: bool
    size: int = 0
    twin: str = ""
