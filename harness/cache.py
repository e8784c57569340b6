"""Where prepared data live and how they are found again: the user's cache folder, never the tree. One folder holds all
that belongs to one source, profile and format version; its manifest is written last, so a folder without one is
unfinished. May not know how data are made."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from harness.errors import HarnessError
from harness.profiles import Profile

FORMAT_VERSION = 4
"""Raised when the same text would give other rows, or the manifest says more; data of another version are not read."""

Rows = npt.NDArray[np.uint16]
"""Packed token rows, uint16 [rows, sequence_length + 1]."""

TRAINING, EVALUATION, AUDIT = "train.bin", "validation.bin", "audit.bin"
TOKEN_BYTES, TOKENIZER = "token_bytes.npy", "tokenizer.json"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Data:
    """Prepared data, as their manifest describes them.

    Attributes:
        folder: Where they are.
        source: What text they were made from; a dataset with the commit it was at.
        command: What to type to make them; with `--force` it makes them anew.
        vocab_size: Entries of the token-bytes table; every token id is smaller.
        sequence_length: Tokens of a row, less one.
        evaluation_tokens: Targets of the metric; fewer than the profile asks for where the text held no more.
        audit_tokens: Targets of the final audit, in other rows of the same text; fewer, or none, for the same reason.
        training_rows: Rows of the training file.
        sha256: Hash of the contents of each file, by name.
        taken_from: Files and folders of this machine that hold the validation text, too.
    """

    folder: Path
    source: str
    command: str
    vocab_size: int
    sequence_length: int
    evaluation_tokens: int
    audit_tokens: int
    training_rows: int
    sha256: dict[str, str]
    taken_from: tuple[str, ...]

    @property
    def data_hash(self) -> str:
        """One hash of all that training and scoring read; equal data anywhere have equal hashes."""
        here = dict.fromkeys(("folder", "source", "command", "taken_from"))
        facts = asdict(self) | here | {"format": FORMAT_VERSION}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that a campaign reads of it."""
        return (self.folder / _MANIFEST, *(self.folder / name for name in sorted(self.sha256)))

    def check(self) -> None:
        """Read everything once and compare it with its hashes.

        Raises:
            HarnessError: A file is missing or was changed.
        """
        for name, expected in self.sha256.items():
            path = self.folder / name
            if not path.exists() or hash_of(path) != expected:
                raise self._damaged(path)

    def open_training_rows(self) -> Rows:
        """The training rows, read-only and mapped from disk: uint16 [rows, sequence_length + 1]."""
        path = self.folder / TRAINING
        try:
            with path.open("rb") as file:
                rows = rows_from_file(file, self.sequence_length)
        except (FileNotFoundError, ValueError):
            raise self._damaged(path) from None
        if len(rows) != self.training_rows:
            raise self._damaged(path)
        return rows

    def read_evaluation_rows(self) -> Rows:
        """The rows of the metric, checked against their hash: uint16 [rows, sequence_length + 1]."""
        return self._rows(EVALUATION)

    def read_audit_rows(self) -> Rows:
        """The rows that no verdict may use, none of them among those of the metric; checked and shaped alike."""
        return self._rows(AUDIT)

    def _rows(self, name: str) -> Rows:
        return np.frombuffer(self._read(name), dtype="<u2").reshape(-1, self.sequence_length + 1)

    def read_token_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of text that each token stands for, 0 for special tokens: int64 [vocab]."""
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
        return HarnessError(f"{path} is damaged; type `{self.command} --force` to make it anew.")


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows_from_file(file: BinaryIO, sequence_length: int) -> Rows:
    """Map the training rows of an open file, read-only: uint16 [rows, sequence_length + 1].

    Raises:
        ValueError: The file is empty or holds no whole number of rows.
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
    """Where data of that source for that profile belong."""
    return root() / f"{source_key}-{_profile_key(profile)}"


def chosen(profile: Profile) -> str | None:
    """Name of the data to use: what AUTORESEARCH_DATA says, else what was prepared last for this profile."""
    return _named_by_environment() or _selected(profile)


def find(profile: Profile) -> Data:
    """The data to use: those named by AUTORESEARCH_DATA, else those prepared last for this profile.

    Raises:
        HarnessError: There are none.
    """
    name = chosen(profile)
    data = load(root() / name) if name else None
    if data is None:
        raise HarnessError(f"there is no {name or f'data for profile {profile.name}'} in {root()}; {_remedy(profile)}.")
    if (data.vocab_size, data.sequence_length) != (profile.vocab_size, profile.sequence_length):
        raise HarnessError(
            f"the data {name} do not fit profile {profile.name} with sequence length {profile.sequence_length}; "
            "unset AUTORESEARCH_DATA or choose the profile they were made for."
        )
    return data


def load(folder: Path) -> Data | None:
    """The finished data in a folder, or None."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return Data(folder=folder, **(manifest | {"taken_from": tuple(manifest["taken_from"])}))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise HarnessError(
            f"{folder / _MANIFEST} is damaged; type `rm -r {folder}` and prepare the data once more."
        ) from None


def finish(data: Data) -> None:
    """Write the manifest: from now on the folder counts as finished."""
    manifest = {name: value for name, value in asdict(data).items() if name != "folder"}
    write_atomically(data.folder / _MANIFEST, lambda file: file.write(json.dumps(manifest, indent=1).encode() + b"\n"))


def discard(folder: Path) -> None:
    """Remove a data folder. It counts as unfinished from the first moment, in case this is interrupted."""
    (folder / _MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def select(profile: Profile, data: Data) -> None:
    """Make these the data that the profile uses from now on."""
    path = _selection(profile)
    with locked(path, on_wait=lambda: None):
        write_atomically(path, lambda file: file.write(f"{data.folder.name}\n{data.command}\n".encode()))


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is there entire or not at all, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: a process that should have ended long ago must not write into what a later one writes.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder."""
    for path in folder.rglob("*.partial"):
        if path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the one right to write a file or folder; the system takes it back when the process ends, however it ends.

    Args:
        on_wait: Called once when another process has it, before waiting for that process.
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
    """The folder's name and the command that made it; empty when nothing was selected."""
    try:
        return _selection(profile).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def _remedy(profile: Profile) -> str:
    """What to type where data are missing. Never what would start a download that nobody asked for."""
    options = f"--profile {profile.name} --seq-len {profile.sequence_length}"
    made = _selection_lines(profile)[1:]
    command = made[0] if made else f"python -m harness.prepare --source embedded {options}"
    return f"unset AUTORESEARCH_DATA and type `{command}`" if _named_by_environment() else f"type `{command}`"
