"""Downloads the files of a dataset from a hub, several at once by plain HTTP.

A download that was killed or interrupted continues where it stopped. A file counts only if its size and hash are those
that the hub states. The files are stored in the hub library's own cache (HF_HOME), where other programs find them too.
Does not know what is in the files.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx2
from huggingface_hub import constants, get_session, get_token, hf_raise_for_status, try_to_load_from_cache
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.file_download import repo_folder_name

from harness import cache, progress
from harness.errors import HarnessError
from harness.hub import PROGRAM, WAYS_OUT, Incomplete, Listing, RemoteFile, Retries, Stopped

_FILES_AT_ONCE = 8


def fetch(listing: Listing, files: Sequence[RemoteFile], *, check: bool = False) -> list[Path]:
    """Download the files of a dataset that are not on this machine yet.

    The hub library's own download is not used, because it cannot continue a file after a kill.

    Args:
        check: Also compare existing files with their hashes, and download those that differ again.

    Returns:
        The paths of the files in the hub library's cache.

    Raises:
        HarnessError: A file could not be downloaded; the message says why and what to run.
    """
    store = _Store(listing)
    try:
        if check:
            progress.say(f"checking {len(files)} files of {listing.dataset}")
        # First without the lock: a shared cache may be read-only for this user.
        missing = [file for file in files if not store.has(file, check=check)]
        if missing:
            waiting = f"waiting for another download of {listing.dataset}"
            with cache.locked(store.lock, on_wait=lambda: progress.say(waiting)):
                # Files with equal content are downloaded once.
                _fetch(
                    store, list({file.digest: file for file in missing if not store.has(file, check=check)}.values())
                )
                for file in missing:
                    store.link(file)
    except OSError as error:
        raise HarnessError(f"{error}; the hub's cache can be moved with HF_HOME=FOLDER.") from error
    return [store.place(file) for file in files]


def _fetch(store: "_Store", files: list[RemoteFile]) -> None:
    if not files:
        return
    total = sum(file.size for file in files)
    store.check_room(total)
    progress.say(f"{store.listing.dataset} at commit {store.listing.commit[:12]}, into {constants.HF_HUB_CACHE}")
    stop = threading.Event()
    with (
        progress.counted(f"downloading {len(files)} files", total, "bytes") as advance,
        ThreadPoolExecutor(_FILES_AT_ONCE) as threads,
    ):
        try:
            for done in as_completed([threads.submit(_Transfer(store, file, advance, stop).run) for file in files]):
                done.result()
        except BaseException:
            stop.set()
            threads.shutdown(cancel_futures=True)
            raise


class _Store:
    """One dataset's folder in the hub library's cache.

    As in the library's documentation: contents by hash, and for each commit a tree of links to them.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        root = Path(constants.HF_HUB_CACHE)
        name = repo_folder_name(repo_id=listing.dataset, repo_type="dataset")
        self._folder = root / name
        self.lock = root / ".locks" / name / "autoresearch"

    def place(self, file: RemoteFile) -> Path:
        return self._folder / "snapshots" / self.listing.commit / file.path

    def blob(self, file: RemoteFile) -> Path:
        return self._folder / "blobs" / file.digest

    def url(self, file: RemoteFile) -> str:
        return f"{constants.ENDPOINT}/datasets/{self.listing.dataset}/resolve/{self.listing.commit}/{quote(file.path)}"

    def has(self, file: RemoteFile, *, check: bool) -> bool:
        """Whether the complete file is there; an incomplete file is removed."""
        listing = self.listing
        found = try_to_load_from_cache(listing.dataset, file.path, revision=listing.commit, repo_type="dataset")
        for path in (Path(found) if isinstance(found, str) else None, self.blob(file)):
            if path is None or not path.exists():
                continue
            if path.stat().st_size == file.size and (not check or _is_content(path, file)):
                self.link(file)
                return True
            path.resolve().unlink()
        return False

    def link(self, file: RemoteFile) -> None:
        place = self.place(file)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(os.path.relpath(self.blob(file), place.parent))

    def check_room(self, size: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        started = sum(path.stat().st_size for path in self._folder.glob("blobs/*.incomplete"))
        free = shutil.disk_usage(self._folder).free
        if free < size - started:
            raise HarnessError(
                f"{constants.HF_HUB_CACHE} has {progress.size(free)} free, but {progress.size(size - started)} are "
                "needed; set HF_HOME to a folder on a larger disk, or take less data with --num-shards."
            )


class _Transfer:
    """The download of one file."""

    def __init__(
        self, store: _Store, file: RemoteFile, advance: Callable[[int], object], stop: threading.Event
    ) -> None:
        self._store = store
        self._file = file
        self._advance = advance
        self._stop = stop
        self._retries = Retries(store.listing.dataset, file.path, stop)
        self._shown = 0
        self._furthest = 0
        self._spoilt = False

    def run(self) -> None:
        blob = self._store.blob(self._file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        partial = blob.with_name(blob.name + ".incomplete")
        with partial.open("ab") as content:
            self._show(content.tell())
            while not self._is_whole(content, partial):
                try:
                    self._receive(content)
                except (httpx2.HTTPError, OfflineModeIsEnabled, Incomplete) as error:
                    self._retries.wait_after(error)
            os.fsync(content.fileno())
        partial.replace(blob)

    def _receive(self, content: BinaryIO) -> None:
        """Request the missing bytes and write them."""
        have = content.tell()
        # Without compression, because a range of a compressed transfer has other positions.
        headers = {"User-Agent": PROGRAM, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and (token := get_token()):
            headers["Authorization"] = f"Bearer {token}"
        with get_session().stream(
            "GET", self._store.url(self._file), headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            if response.status_code == 416 or (have and response.status_code == 200):
                # The hub's file is shorter than ours, or the hub ignores ranges and sends the whole file.
                self._restart(content)
            if response.status_code == 416:
                raise Incomplete(f"{have:,} of {self._file.size:,} bytes arrived, and the hub has no more")
            hf_raise_for_status(response)
            for block in response.iter_bytes():
                if self._stop.is_set():
                    raise Stopped
                content.write(block)
                content.flush()
                self._show(content.tell())
        if content.tell() < self._file.size:
            raise Incomplete(f"the transfer ended after {content.tell():,} of {self._file.size:,} bytes")

    def _is_whole(self, content: BinaryIO, path: Path) -> bool:
        if content.tell() < self._file.size:
            return False
        if content.tell() == self._file.size and _is_content(path, self._file):
            return True
        self._restart(content)
        if self._spoilt:
            raise HarnessError(
                f"{self._file.path} of {self._store.listing.dataset} arrived twice with a wrong hash; try again "
                f"later, {WAYS_OUT}."
            )
        self._spoilt = True
        progress.say(f"{self._file.path} arrived with a wrong hash; downloading it again")
        return False

    def _restart(self, content: BinaryIO) -> None:
        content.seek(0)
        content.truncate()
        self._show(0)

    def _show(self, position: int) -> None:
        self._advance(position - self._shown)
        self._shown = position
        if position > self._furthest:
            self._furthest = position
            self._retries.reset()


def _is_content(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the hash that the hub states."""
    with path.open("rb") as content:
        if len(file.digest) == 64:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.digest
        return hashlib.sha1(b"blob %d\0" % file.size + content.read()).hexdigest() == file.digest
