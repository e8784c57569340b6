"""Text sources: turns the option SOURCE into shards on this machine.

A source is the embedded corpus, a folder of parquet files, or a dataset on the Hugging Face Hub. The hub is asked once
for the newest commit; later preparations use the same commit. Knows nothing of tokens.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from harness import cache, corpus, draw, progress
from harness.errors import HarnessError
from harness.profiles import Profile
from harness.shards import Shards, open_shards

if TYPE_CHECKING:
    from harness.hub import Listing, RemoteFile

EMBEDDED = "embedded"
CLIMBMIX = "climbmix"


@dataclass(frozen=True, slots=True)
class _Choice:
    """The default selection from a dataset: the number of training shards, and the shard for validation."""

    training_shards: int
    validation: str


_UPSTREAM = {"karpathy/climbmix-400b-shuffle": _Choice(10, "shard_06542.parquet")}

_SHORT_NAMES = {
    CLIMBMIX: "karpathy/climbmix-400b-shuffle",
    "fineweb-edu": "HuggingFaceFW/fineweb-edu/sample/10BT",
}
# Parquet files with about 2.5 GB of text: more than an H200 can train on in 300 seconds.
_ENOUGH_BYTES = 1_000_000_000
# Revisions with slashes in their names are not supported, except the hub's own.
_DATASET = re.compile(
    r"(?P<dataset>[\w.-]+/[\w.-]+)(@(?P<revision>refs/(convert/[\w-]+|pr/\d+)|[^/@]+))?(/(?P<folder>.+?))?/?"
)


class Source(Protocol):
    """A source of text.

    Attributes:
        name: Its name in the manifest.
        key: Its part of the data folder's name; different text has a different key.
        options: Command-line options that select exactly this source.
    """

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...]: ...

    def shards(self, folder: Path, profile: Profile, command: str) -> Shards:
        """Make the shards available on this machine, and check them.

        Args:
            folder: The data folder, for a source that writes its shards.
            command: The command that prepares the data, for error messages.
        """


def named(text: str, *, num_shards: int | None = None, text_column: str | None = None, anew: bool = False) -> Source:
    """The source that the option `text` means.

    Args:
        num_shards: Number of training shards, from the first; None for the source's default.
        text_column: The column of documents; None to detect it.
        anew: Ask the hub for the newest commit, and compare existing files with their hashes.

    Raises:
        HarnessError: There is no such source, or it has too few files.
    """
    if num_shards is not None and num_shards < 1:
        raise HarnessError(f"--num-shards {num_shards} leaves nothing to train on; give at least 1.")
    if text == EMBEDDED:
        if num_shards or text_column:
            raise HarnessError("the embedded corpus has no shards or columns to choose; remove these options.")
        return _Embedded()
    path = Path(text).expanduser()
    if text not in _SHORT_NAMES and (path.is_dir() or path.is_absolute() or text.startswith(".")):
        return _folder(path.resolve(), num_shards, text_column)
    match = _DATASET.fullmatch(_SHORT_NAMES.get(text, text))
    if not match:
        raise HarnessError(
            f"there is no folder {text}, and no source of this name; give --source a folder of parquet files, "
            f"OWNER/DATASET for a dataset on the Hugging Face Hub, {', '.join(_SHORT_NAMES)}, or `{EMBEDDED}`."
        )
    listing = _listing(match["dataset"], match["revision"], anew)
    return _dataset(listing, (match["folder"] or "").strip("/"), num_shards, text_column, anew)


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The Python source code on this machine, written as shards on first use."""

    @property
    def name(self) -> str:
        return EMBEDDED

    @property
    def key(self) -> str:
        return corpus.source_key()

    @property
    def options(self) -> tuple[str, ...]:
        return ("--source", EMBEDDED)

    def shards(self, folder: Path, profile: Profile, command: str) -> Shards:
        written = folder / "shards"
        if not written.exists():
            progress.say("reading the Python source on this machine")
            corpus.write_shards(written, draw.pool_tokens(profile.evaluation_tokens))
        found = open_shards(sorted(written.glob("*.parquet")), None, f"run `{command} --force` to make it again")
        return replace(found, taken_from=corpus.read_taken_from(written))


@dataclass(frozen=True, slots=True)
class _Folder:
    """Parquet files of a folder, read where they are."""

    folder: Path
    files: tuple[Path, ...]
    options: tuple[str, ...]
    text_column: str | None

    @property
    def name(self) -> str:
        return str(self.folder)

    @property
    def key(self) -> str:
        """Changes when the names or the sizes of the files change."""
        listing = [f"{path.name} {path.stat().st_size}" for path in self.files]
        return f"{self.folder.name}-{_digest(str(self.folder), self.text_column, listing)}"

    def shards(self, folder: Path, profile: Profile, command: str) -> Shards:
        return open_shards(self.files, self.text_column, f"replace it by an undamaged copy and run `{command}`")


@dataclass(frozen=True, slots=True)
class _Dataset:
    """Parquet files of a dataset at one commit."""

    listing: "Listing"
    files: "tuple[RemoteFile, ...]"
    options: tuple[str, ...]
    text_column: str | None
    check: bool

    @property
    def name(self) -> str:
        return f"{self.listing.dataset}@{self.listing.commit}"

    @property
    def key(self) -> str:
        owner, _, dataset = self.listing.dataset.partition("/")
        paths = [file.path for file in self.files]
        return f"{dataset}-{self.listing.commit[:12]}-{_digest(owner, self.text_column, paths)}"

    def shards(self, folder: Path, profile: Profile, command: str) -> Shards:
        from harness.download import fetch

        paths = fetch(self.listing, self.files, check=self.check)
        return open_shards(paths, self.text_column, f"run `{command} --force` to download it again")


def _folder(folder: Path, num_shards: int | None, text_column: str | None) -> _Folder:
    if not folder.is_dir():
        raise HarnessError(f"there is no folder {folder}; give --source a folder of parquet files, or `{EMBEDDED}`.")
    files = sorted(folder.glob("*.parquet"))
    _check_number(num_shards, len(files), str(folder))
    options = ("--source", str(folder), *(("--num-shards", str(num_shards)) if num_shards else ()))
    chosen = (*files[: num_shards or len(files) - 1], files[-1])
    return _Folder(folder, chosen, (*options, *_column_options(text_column)), text_column)


def _dataset(listing: "Listing", folder: str, num_shards: int | None, text_column: str | None, check: bool) -> _Dataset:
    name = f"{listing.dataset}/{folder}".rstrip("/")
    files = [file for file in listing.files if not folder or file.path.startswith(f"{folder}/")]
    if not files:
        raise HarnessError(_no_files(listing, name))
    _check_number(num_shards, len(files), name)
    validation, count = files[-1], num_shards or _enough(files[:-1])
    if upstream := _UPSTREAM.get(listing.dataset):
        validation = next((file for file in files if file.path == upstream.validation), validation)
        count = num_shards or min(upstream.training_shards, len(files) - 1)
    training = [file for file in files if file != validation][:count]
    exact = f"{listing.dataset}@{listing.commit}" + (f"/{folder}" if folder else "")
    options = ("--source", exact, "--num-shards", str(count), *_column_options(text_column))
    return _Dataset(listing, (*training, validation), options, text_column, check)


def _listing(dataset: str, revision: str | None, anew: bool) -> "Listing":
    """The files of a dataset: the stored list if there is one, so that the text stays the same without a network."""
    from harness.hub import Listing, RemoteFile, list_files

    def memory(revision: str) -> Path:
        return cache.root() / "sources" / f"{quote(f'{dataset}@{revision}', safe='@')}.json"

    is_commit = bool(revision and re.fullmatch("[0-9a-f]{40}", revision))
    if is_commit or not (revision or anew):
        try:
            stored = json.loads(memory(revision or "").read_text(encoding="utf-8"))
            return Listing(dataset, stored["commit"], tuple(RemoteFile(**file) for file in stored["files"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
    listing = list_files(dataset, revision)
    content = json.dumps({"commit": listing.commit, "files": [asdict(file) for file in listing.files]}).encode()
    # Also stored under the commit, which the command in the manifest names.
    for name in (listing.commit, *(() if revision else ("",))):
        cache.write_atomically(memory(name), lambda file: file.write(content))
    return listing


def _check_number(num_shards: int | None, files: int, name: str) -> None:
    if files < 2:
        raise HarnessError(f"{name} has {files} parquet files; at least 2 are needed: the last is for validation.")
    if num_shards and num_shards >= files:
        raise HarnessError(
            f"{name} has {files} parquet files, one of them for validation; lower --num-shards to {files - 1}."
        )


def _enough(files: "Sequence[RemoteFile]") -> int:
    """The number of files, from the first, that together have enough text."""
    size = 0
    for count, file in enumerate(files, 1):
        size += file.size
        if size >= _ENOUGH_BYTES:
            return count
    return len(files)


def _no_files(listing: "Listing", name: str) -> str:
    folders = sorted({file.path.rpartition("/")[0] for file in listing.files} - {""})
    if folders:
        named = ", ".join(f"`{listing.dataset}/{folder}`" for folder in folders[:5])
        return f"{name} has no parquet files; give --source one of {named}{' and others' if folders[5:] else ''}."
    if listing.files:
        return f"{name} has no parquet files; give `--source {listing.dataset}`."
    return (
        f"{name} has no parquet files; if the hub has converted the dataset, "
        f"`--source {listing.dataset}@refs/convert/parquet` finds them."
    )


def _column_options(text_column: str | None) -> tuple[str, ...]:
    return ("--text-column", text_column) if text_column else ()


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
