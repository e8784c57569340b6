"""Where text comes from: turns what a person types as SOURCE into shards on this machine. The embedded corpus, a folder
of parquet files, or a dataset on the Hugging Face Hub, which is asked once which commit is its newest and then stays at
that commit. May not know of tokens."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from harness import cache, corpus, progress
from harness.errors import HarnessError
from harness.profiles import Profile
from harness.shards import Shards, open_shards

if TYPE_CHECKING:
    from harness.hub import Listing, RemoteFile

EMBEDDED = "embedded"
CLIMBMIX = "climbmix"


@dataclass(frozen=True, slots=True)
class _Choice:
    """What somebody takes of a dataset: the number of training shards, and the shard held back for validation."""

    training_shards: int
    validation: str


_UPSTREAM = {"karpathy/climbmix-400b-shuffle": _Choice(10, "shard_06542.parquet")}

_SHORT_NAMES = {
    CLIMBMIX: "karpathy/climbmix-400b-shuffle",
    "fineweb-edu": "HuggingFaceFW/fineweb-edu/sample/10BT",
}
# Parquet files of some 2.5 GB of text: more than one H200 reads in 300 seconds.
_ENOUGH_BYTES = 1_000_000_000
# A branch may have slashes in its name; of those only the hub's own are of use here.
_DATASET = re.compile(
    r"(?P<dataset>[\w.-]+/[\w.-]+)(@(?P<revision>refs/(convert/[\w-]+|pr/\d+)|[^/@]+))?(/(?P<folder>.+?))?/?"
)


class Source(Protocol):
    """Text that shards can be had of.

    Attributes:
        name: What it is, for the manifest.
        key: A name for the folder of the data; other text has another.
        options: What to type for exactly this source.
    """

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...]: ...

    def shards(self, folder: Path, profile: Profile, command: str) -> Shards:
        """Have the shards on this machine, checked.

        Args:
            folder: The data folder, for a source that must write them.
            command: What to type to prepare them, for the sentence that says that one is damaged.
        """


def named(text: str, *, num_shards: int | None = None, text_column: str | None = None, anew: bool = False) -> Source:
    """The source that a person means.

    Args:
        num_shards: Training shards to take, from the first on; None: the source's default.
        text_column: The column of documents; None: found by itself.
        anew: Ask the hub for the newest commit, and compare files fetched before with their hashes.

    Raises:
        HarnessError: There is no such source, or it has too few files.
    """
    if num_shards is not None and num_shards < 1:
        raise HarnessError(f"--num-shards {num_shards} leaves nothing to train on; give at least 1.")
    if text == EMBEDDED:
        if num_shards or text_column:
            raise HarnessError("the embedded corpus has no shards or columns to choose; leave those options out.")
        return _Embedded()
    path = Path(text).expanduser()
    if text not in _SHORT_NAMES and (path.is_dir() or path.is_absolute() or text.startswith(".")):
        return _folder(path.resolve(), num_shards, text_column)
    match = _DATASET.fullmatch(_SHORT_NAMES.get(text, text))
    if not match:
        raise HarnessError(
            f"there is no folder {text}, and it is no source either; give --source a folder of parquet files, "
            f"OWNER/DATASET for a dataset on the Hugging Face Hub, {', '.join(_SHORT_NAMES)}, or `{EMBEDDED}`."
        )
    listing = _listing(match["dataset"], match["revision"], anew)
    return _dataset(listing, (match["folder"] or "").strip("/"), num_shards, text_column, anew)


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The Python source on this machine, written as shards on first use."""

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
            corpus.write_shards(written, 2 * profile.evaluation_tokens)
        found = open_shards(sorted(written.glob("*.parquet")), None, f"type `{command} --force` to make it anew")
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
        """Other files in the folder, or files of other sizes, give another."""
        listing = [f"{path.name} {path.stat().st_size}" for path in self.files]
        return f"{self.folder.name}-{_digest(str(self.folder), self.text_column, listing)}"

    def shards(self, folder: Path, profile: Profile, command: str) -> Shards:
        return open_shards(self.files, self.text_column, f"put a whole copy in its place and type `{command}`")


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
        return open_shards(paths, self.text_column, f"type `{command} --force` to fetch it again")


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
    """The files of a dataset: as the hub said before, so that a night needs no network and the text stays the same."""
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
    # Under its commit as well, since that is what the manifest tells people to type.
    for name in (listing.commit, *(() if revision else ("",))):
        cache.write_atomically(memory(name), lambda file: file.write(content))
    return listing


def _check_number(num_shards: int | None, files: int, name: str) -> None:
    if files < 2:
        raise HarnessError(f"{name} holds {files} parquet files and at least 2 are needed: the last is for validation.")
    if num_shards and num_shards >= files:
        raise HarnessError(
            f"{name} holds {files} parquet files, one of them for validation; lower --num-shards to {files - 1}."
        )


def _enough(files: "Sequence[RemoteFile]") -> int:
    """How many files from the first on hold enough text."""
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
        f"{name} has no parquet files; where the hub has converted the dataset, "
        f"`--source {listing.dataset}@refs/convert/parquet` gives them."
    )


def _column_options(text_column: str | None) -> tuple[str, ...]:
    return ("--text-column", text_column) if text_column else ()


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
