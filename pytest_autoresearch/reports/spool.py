"""What a long session puts aside: bytes in a temporary file, so that they are not in memory until its end."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from typing import IO, NamedTuple


class Place(NamedTuple):
    """Where something was put."""

    start: int
    size: int


class Spool:
    """A file without a name, which is gone with this object. It is made when something is put there."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0

    def put(self, content: bytes) -> Place:
        """Put the content behind everything before it.

        Raises:
            OSError: It cannot be written; what was put before is still there.
        """
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the spool is used
            weakref.finalize(self, self._file.close)
        self._file.seek(self._end)
        self._file.write(content)
        self._file.flush()
        place = Place(self._end, len(content))
        self._end += len(content)
        return place

    def get(self, place: Place) -> bytes:
        """What was put there."""
        assert self._file is not None
        self._file.seek(place.start)
        return self._file.read(place.size)

    def copy_to(self, file: IO[bytes]) -> None:
        """Write everything to the file, in the order in which it was put."""
        if self._file is not None:
            self._file.seek(0)
            shutil.copyfileobj(self._file, file)
