"""The embedded corpus: the Python source code on this machine. It needs no network.

Training text is the standard library. Validation text comes from whole folders that training does not need, so that a
sandbox can hide them. Knows nothing of tokens.
"""

import hashlib
import json
import os
import platform
import shutil
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from harness.errors import HarnessError
from harness.shards import shard_name, write_shard

VALIDATION_FOLDERS = ("test", "idlelib", "turtledemo", "pydoc_data")
"""Folders of the standard library with validation text."""

_TEST_FOLDERS = frozenset({"test", "tests"})
_SITE_FOLDERS = frozenset({"site-packages", "dist-packages"})
_TAKEN_FROM = "taken_from.json"
_SHARD_BYTES = 4_000_000
# Characters of validation text for each token of the metric and the audit. Source code has 2.8 to 4 characters a token,
# so the least is enough; more than the most would only make tokenising slower.
_LEAST_PER_TOKEN, _MOST_PER_TOKEN = 4, 16


def source_key() -> str:
    """A name for this interpreter's text; it is the same in all virtual environments of the interpreter."""
    place = hashlib.sha256(str(_standard_library()).encode()).hexdigest()[:8]
    return f"embedded-python{platform.python_version()}-{place}"


def write_shards(folder: Path, validation_tokens: int) -> None:
    """Write the embedded corpus as parquet shards into a new folder. The folder appears when it is complete.

    Args:
        validation_tokens: Tokens that the validation text must suffice for. If the standard library has too little
            text, as on Debian and in small container images, test folders of installed packages are added.
    """
    sites = sorted({Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib"))})
    training, validation, folders = texts(_standard_library(), sites, validation_tokens * _LEAST_PER_TOKEN)
    validation = spread(validation, validation_tokens * _MOST_PER_TOKEN)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for number, documents in enumerate([*_chunks(training), validation]):
        write_shard(partial / shard_name(number), documents)
    (partial / _TAKEN_FROM).write_text(json.dumps([str(path) for path in folders]), encoding="utf-8")
    partial.rename(folder)


def read_taken_from(folder: Path) -> tuple[Path, ...]:
    """The folders on this machine that contain the validation text of these shards."""
    return tuple(Path(path) for path in json.loads((folder / _TAKEN_FROM).read_text(encoding="utf-8")))


def texts(library: Path, sites: Iterable[Path], least_validation: int) -> tuple[list[str], list[str], list[Path]]:
    """Training documents, validation documents, and the folders of the validation documents.

    Documents are in the order of their paths. No document occurs twice, or in both lists.

    Args:
        library: The standard library.
        sites: Folders of installed packages.
        least_validation: Characters of validation text. Test folders of packages are added until there are enough.

    Raises:
        HarnessError: This Python has no source files.
    """
    seen: set[str] = set()
    training = list(_new(_training_files(library), seen))
    folders = [folder for name in VALIDATION_FOLDERS if (folder := library / name).is_dir()]
    validation = [text for folder in folders for text in _new(_python_files(folder), seen)]
    size = sum(map(len, validation))
    for folder in _test_folders(sites):
        if size >= least_validation:
            break
        more = list(_new(_python_files(folder), seen))
        validation += more
        folders += [folder] if more else []
        size += sum(map(len, more))
    if not training or not validation:
        raise HarnessError(
            f"{library} has no Python source files; run `python -m harness.prepare --source FOLDER` with a folder of "
            "parquet files that have a column `text`."
        )
    return training, validation, folders


def spread(documents: list[str], characters: int) -> list[str]:
    """Documents with about this many characters together, evenly spaced; all documents if they have fewer."""
    share = min(1.0, characters / sum(map(len, documents)))
    return [document for n, document in enumerate(documents) if int((n + 1) * share) > int(n * share)]


def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()


def _training_files(library: Path) -> list[Path]:
    """The standard library without validation folders, installed packages, and test folders inside its packages.

    Some systems remove these test folders; the training text should not depend on that.
    """
    return _python_files(
        library,
        lambda folder: (
            folder.name in _SITE_FOLDERS | _TEST_FOLDERS
            or (folder.parent == library and folder.name in VALIDATION_FOLDERS)
        ),
    )


def _python_files(folder: Path, leave_out: Callable[[Path], bool] = lambda folder: False) -> list[Path]:
    """Source files under a folder, sorted by path."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not leave_out(Path(place, name))]
        found += [Path(place, name) for name in files if name.endswith(".py")]
    return sorted(found)


def _test_folders(sites: Iterable[Path]) -> Iterator[Path]:
    """Test folders of installed packages, sorted, none inside another."""
    for site in sites:
        found: list[Path] = []
        for place, folders, _ in os.walk(site):
            found += [Path(place, name) for name in folders if name in _TEST_FOLDERS]
            folders[:] = [name for name in folders if name not in _TEST_FOLDERS]
        yield from sorted(found)


def _new(paths: Iterable[Path], seen: set[str]) -> Iterator[str]:
    """The contents that are not in `seen`. Skips files that are not UTF-8, such as a few of Python's own tests."""
    for path in paths:
        try:
            text = path.read_bytes().decode("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        if text.strip() and text not in seen:
            seen.add(text)
            yield text


def _chunks(documents: list[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document)
        if size >= _SHARD_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
