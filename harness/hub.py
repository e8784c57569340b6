"""Asks a dataset hub (HF_ENDPOINT) for the parquet files of a dataset at one commit.

Turns the hub's errors into sentences, and decides which requests are retried, and when. Does not know where files are
stored or what is in them.
"""

import re
import threading
from dataclasses import dataclass
from pathlib import PurePosixPath

import httpx2
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from harness import progress
from harness.errors import HarnessError

PROGRAM = "pytest-autoresearch"
"""The user agent of requests."""

WAYS_OUT = "or give --source a folder of parquet files, or `--source embedded`, which needs no network"

_TRIES = 5
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 600.0
# The hub needs some seconds to list thousands of files.
_LISTING_TIMEOUT_SECONDS = 30.0
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a dataset.

    Attributes:
        path: Its path in the dataset.
        size: Its size in bytes.
        digest: SHA-256 of its content, or for a small file that is stored in git, its git blob hash.
    """

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The parquet files of a dataset at one commit, sorted by path."""

    dataset: str
    commit: str
    files: tuple[RemoteFile, ...]


class Incomplete(Exception):
    """A file did not arrive completely; a retry may succeed."""


class Stopped(Exception):
    """Ended because another download failed."""


class Retries:
    """Decides how often and after how long one request is retried.

    Args:
        dataset: The dataset.
        what: What is requested, for messages.
        stop: Ends every wait when set.
    """

    def __init__(self, dataset: str, what: str, stop: threading.Event) -> None:
        self._dataset = dataset
        self._what = what
        self._stop = stop
        self._failures = 0

    def reset(self) -> None:
        """Reset the number of failures, after progress."""
        self._failures = 0

    def wait_after(self, error: Exception) -> None:
        """Wait before the next try.

        Raises:
            HarnessError: A retry cannot help, or this was the last try.
            Stopped: `stop` was set during the wait.
        """
        if fault := _fault(error, self._dataset):
            raise HarnessError(fault) from error
        self._failures += 1
        if self._failures == _TRIES:
            raise HarnessError(
                f"gave up on {self._what} after {_TRIES} tries ({_reason(error)}); rerun the same command to continue "
                f"where it stopped, {WAYS_OUT}."
            ) from error
        wait = _asked_wait(error)
        if wait is None:
            wait = _FIRST_WAIT_SECONDS * 2 ** (self._failures - 1)
        progress.say(f"{self._what}: {_reason(error)}; trying again in {wait:.0f} s")
        if self._stop.wait(wait):
            raise Stopped


def list_files(dataset: str, revision: str | None) -> Listing:
    """List the parquet files of a dataset.

    Uses one request instead of the paged file list, because the pages of a mirror may link to the original hub.

    Args:
        revision: A branch, tag or commit; None for the main branch.

    Raises:
        HarnessError: The dataset or revision does not exist, this user may not read it, or the hub is unreachable.
    """
    retries = Retries(dataset, f"the list of files of {dataset}", threading.Event())
    while True:
        try:
            return _listed(dataset, revision)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # No retry: this is the first request, so most likely there is no network.
            raise HarnessError(
                f"cannot reach {constants.ENDPOINT} ({_reason(error)}); try again, {WAYS_OUT}."
            ) from error
        except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
            retries.wait_after(error)
        except HFValidationError as error:
            raise HarnessError(f"{dataset} is not a valid name of a dataset ({_reason(error)}).") from error
        except (ValueError, TypeError, KeyError, httpx2.InvalidURL) as error:
            raise HarnessError(
                f"{constants.ENDPOINT} gives no valid answer for {dataset} ({_reason(error)}); check "
                f"HF_ENDPOINT, {WAYS_OUT}."
            ) from error


def _listed(dataset: str, revision: str | None) -> Listing:
    info = HfApi(library_name=PROGRAM).dataset_info(
        dataset, revision=revision, files_metadata=True, timeout=_LISTING_TIMEOUT_SECONDS
    )
    files = []
    for sibling in info.siblings or ():
        path = PurePosixPath(sibling.rfilename)
        digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        # Checked, because paths and digests become names of files.
        if path.suffix != ".parquet" or path.is_absolute() or ".." in path.parts:
            continue
        if sibling.size is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest or ""):
            raise ValueError(f"no size or hash for {path}")
        files.append(RemoteFile(str(path), sibling.size, str(digest)))
    if not re.fullmatch("[0-9a-f]{40}", info.sha or ""):
        raise ValueError("no commit")
    return Listing(dataset, str(info.sha), tuple(sorted(files, key=lambda file: file.path)))


def _fault(error: Exception, dataset: str) -> str | None:
    """The message for an error that a retry cannot fix; None for other errors."""
    hub = constants.ENDPOINT
    login = "set HF_TOKEN to your token, or run `hf auth login`"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{dataset} is not completely on this machine and HF_HUB_OFFLINE is set; unset it, {WAYS_OUT}."
    if isinstance(error, httpx2.UnsupportedProtocol):
        return f"{hub} is not the address of a hub; set HF_ENDPOINT to a URL with https://, or unset it."
    if not isinstance(error, HfHubHTTPError) or error.response.status_code in _BUSY:
        return None
    if isinstance(error, GatedRepoError):
        return (
            f"{dataset} is gated: ask for access at {hub}/datasets/{dataset}, then {login}, and rerun the same command."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{hub} has no dataset {dataset}, or the dataset is private, and there is no such folder here; check the "
            f"name, or {login}."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{dataset} has no such revision at {hub}; `@main` after its name selects the newest version."
    status = error.response.status_code
    if status in (401, 403):
        return f"{hub} denies you access to {dataset} (status {status}); {login}, and rerun the same command."
    if status == 404:
        return (
            f"{hub} has no {error.response.url.path}; if {dataset} was rewritten, `@main` after its name selects the "
            "newest version."
        )
    return f"{hub} answers with {_reason(error)} for {dataset}; try again later, {WAYS_OUT}."


def _asked_wait(error: Exception) -> float | None:
    """Seconds that the hub asks to wait, or None."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    # The hub's rate limit looks like `ratelimit: "resolvers";r=0;t=55`: 0 requests remain, new ones in 55 s.
    asked = re.search(r";\s*r=0\s*;\s*t=(\d+)", headers.get("ratelimit", ""))
    seconds = asked[1] if asked else headers.get("retry-after", "").strip()
    return min(float(seconds), _LONGEST_WAIT_SECONDS) if seconds.isdecimal() else None


def _reason(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"status {error.response.status_code} {error.response.reason_phrase}".strip()
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
