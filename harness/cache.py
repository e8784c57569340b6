"""Stores prepared data in the user's cache folder, and finds them again.

One folder contains the data of one source, profile and format version. Its manifest is written last, so a folder
without a manifest is unfinished. Does not know how data are made.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from harness import draw
from harness.errors import HarnessError
from harness.profiles import Profile

FORMAT_VERSION = 5
"""Increased when the same text gives different rows, or the manifest changes. Data of other versions are not read."""

Rows = npt.NDArray[np.uint16]
"""Packed token rows, uint16 [rows, sequence_length + 1]."""

TRAINING, POOL = "train.bin", "validation.bin"
TOKEN_BYTES, TOKENIZER = "token_bytes.npy", "tokenizer.json"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Data:
    """Prepared data, as described by their manifest.

    Attributes:
        folder: The data folder.
        source: The text source; for a dataset, with its commit.
        command: The command that makes the data; with `--force` it makes them again.
        vocab_size: Entries of the token-bytes table; every token id is smaller.
        sequence_length: Tokens in a row minus one.
        evaluation_tokens: Targets of the metric; fewer than in the profile if there was too little text.
        audit_tokens: Targets of the final audit, in other rows of the pool; fewer, or 0, for the same reason.
        pool_rows: Rows of the pool, from which a campaign's secret draws the rows for the metric and the audit.
        training_rows: Rows of the training file.
        sha256: SHA-256 of each file, by name.
        taken_from: Other files and folders on this machine that contain the validation text.
        visible_documents: Validation documents that were left out, because training can read them on this machine.
    """

    folder: Path
    source: str
    command: str
    vocab_size: int
    sequence_length: int
    evaluation_tokens: int
    audit_tokens: int
    pool_rows: int
    training_rows: int
    sha256: dict[str, str]
    taken_from: tuple[str, ...]
    visible_documents: int

    @property
    def data_hash(self) -> str:
        """One hash of everything that training and scoring read. Equal data on two machines have equal hashes."""
        here = dict.fromkeys(("folder", "source", "command", "taken_from", "visible_documents"))
        facts = asdict(self) | here | {"format": FORMAT_VERSION}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the data that a campaign reads."""
        return (self.folder / _MANIFEST, *(self.folder / name for name in sorted(self.sha256)))

    def check(self) -> None:
        """Read every file and compare it with its hash.

        Raises:
            HarnessError: A file is missing or has changed.
        """
        for name, expected in self.sha256.items():
            path = self.folder / name
            if not path.exists() or hash_of(path) != expected:
                raise self._damaged(path)

    def open_training_rows(self) -> Rows:
        """The training rows, memory-mapped and read-only: uint16 [rows, sequence_length + 1]."""
        path = self.folder / TRAINING
        try:
            with path.open("rb") as file:
                rows = rows_from_file(file, self.sequence_length)
        except (FileNotFoundError, ValueError):
            raise self._damaged(path) from None
        if len(rows) != self.training_rows:
            raise self._damaged(path)
        return rows

    def read_evaluation_rows(self, secret: bytes = b"") -> Rows:
        """The rows for the metric of the campaign with this secret; checked: uint16 [rows, sequence_length + 1]."""
        return self._drawn(draw.metric_rows, secret)

    def read_audit_rows(self, secret: bytes = b"") -> Rows:
        """The rows for its audit, which no verdict uses; checked: uint16 [rows, sequence_length + 1]."""
        return self._drawn(draw.audit_rows, secret)

    def read_fresh_rows(self, secret: bytes = b"", audit: bool = False) -> Rows:
        """The rows that no number of a verdict comes from, or of an audit; checked: uint16 [rows, length + 1]."""
        return self._drawn(partial(draw.fresh_rows, audit=audit), secret)

    def _drawn(self, choose: Callable[[int, int, bytes], npt.NDArray[np.int64]], secret: bytes) -> Rows:
        pool = np.frombuffer(self._read(POOL), dtype="<u2").reshape(-1, self.sequence_length + 1)
        # In a small pool, `draw.counts` has made this number less than the profile's; it gives the same shares for it.
        rows: Rows = pool[choose(len(pool), self.evaluation_tokens // self.sequence_length, secret)]
        rows.setflags(write=False)
        return rows

    def read_token_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of text of each token, 0 for special tokens: int64 [vocab]."""
        self._read(TOKEN_BYTES)
        table: npt.NDArray[np.int64] = np.load(self.folder / TOKEN_BYTES).astype(np.int64)
        return table

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != self.sha256[name]:
            raise self._damaged(path)
        return content

    def _damaged(self, path: Path) -> HarnessError:
        return HarnessError(f"{path} is damaged; run `{self.command} --force` to make it again.")


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows_from_file(file: BinaryIO, sequence_length: int) -> Rows:
    """Map the training rows of an open file, read-only: uint16 [rows, sequence_length + 1].

    Raises:
        ValueError: The file is empty, or its size is not a whole number of rows.
    """
    rows: Rows = np.memmap(file, dtype="<u2", mode="r")
    return rows.reshape(-1, sequence_length + 1)


def root() -> Path:
    """The cache folder: AUTORESEARCH_CACHE, else `autoresearch` in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("AUTORESEARCH_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "autoresearch"


def folder_for(source_key: str, profile: Profile) -> Path:
    """The folder for the data of a source and a profile."""
    return root() / f"{source_key}-{_profile_key(profile)}"


def chosen(profile: Profile) -> str | None:
    """Name of the data to use: AUTORESEARCH_DATA, else the data prepared last for this profile; None if neither."""
    return _named_by_environment() or _selected(profile)


def find(profile: Profile) -> Data:
    """The data to use: those named by AUTORESEARCH_DATA, else those prepared last for this profile.

    Raises:
        HarnessError: There are no such data, or they do not fit the profile.
    """
    name = chosen(profile)
    data = load(root() / name) if name else None
    if data is None:
        raise HarnessError(f"there is no {name or f'data for profile {profile.name}'} in {root()}; {_remedy(profile)}.")
    if (data.vocab_size, data.sequence_length) != (profile.vocab_size, profile.sequence_length):
        raise HarnessError(
            f"the data {name} do not fit profile {profile.name} with sequence length {profile.sequence_length}; "
            "unset AUTORESEARCH_DATA or choose the profile that they were made for."
        )
    return data


def load(folder: Path) -> Data | None:
    """The finished data in a folder; None if unfinished.

    Raises:
        HarnessError: The manifest is damaged.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return Data(folder=folder, **(manifest | {"taken_from": tuple(manifest["taken_from"])}))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise HarnessError(
            f"{folder / _MANIFEST} is damaged; run `rm -r {folder}` and prepare the data again."
        ) from None


def finish(data: Data) -> None:
    """Write the manifest, which marks the folder as finished."""
    manifest = {name: value for name, value in asdict(data).items() if name != "folder"}
    write_atomically(data.folder / _MANIFEST, lambda file: file.write(json.dumps(manifest, indent=1).encode() + b"\n"))


def discard(folder: Path) -> None:
    """Remove a data folder, the manifest first: if this is interrupted, the folder counts as unfinished."""
    (folder / _MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def select(profile: Profile, data: Data) -> None:
    """Make the profile use these data from now on."""
    path = _selection(profile)
    with locked(path, on_wait=lambda: None):
        write_atomically(path, lambda file: file.write(f"{data.folder.name}\n{data.command}\n".encode()))


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file completely or not at all, even if the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A unique name, so that two processes never write to the same file.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def remove_partial(folder: Path) -> None:
    """Remove the unfinished files that killed processes left in a folder."""
    for path in folder.rglob("*.partial"):
        if path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file or folder; the system releases it when the process ends, even if it is killed.

    Args:
        on_wait: Called once before waiting for another process that holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _profile_key(profile: Profile) -> str:
    return (
        f"vocab{profile.vocab_size}-seq{profile.sequence_length}-eval{profile.evaluation_tokens}-format{FORMAT_VERSION}"
    )


def _selection(profile: Profile) -> Path:
    return root() / f"{_profile_key(profile)}.selected"


def _named_by_environment() -> str | None:
    return os.environ.get("AUTORESEARCH_DATA") or None


def _selected(profile: Profile) -> str | None:
    return next(iter(_selection_lines(profile)), None)


def _selection_lines(profile: Profile) -> list[str]:
    """The name of the selected folder and the command that made it; empty if no data are selected."""
    try:
        return _selection(profile).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def _remedy(profile: Profile) -> str:
    """The command to run when data are missing; never one that starts a download the user did not ask for."""
    options = f"--profile {profile.name} --seq-len {profile.sequence_length}"
    made = _selection_lines(profile)[1:]
    command = made[0] if made else f"python -m harness.prepare --source embedded {options}"
    return f"unset AUTORESEARCH_DATA and run `{command}`" if _named_by_environment() else f"run `{command}`"
