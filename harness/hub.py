"""What a hub of datasets (HF_ENDPOINT) says: the parquet files of a dataset at one commit, and, in a sentence, why it
gives none. Decides what is worth another try, and after how long. May not know where files are kept or what is in
them."""

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
"""What requests say who is asking."""

WAYS_OUT = "or give --source a folder of parquet files, or `--source embedded`, which needs no network"

_TRIES = 5
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 600.0
# A listing of thousands of files takes the hub some seconds.
_LISTING_TIMEOUT_SECONDS = 30.0
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a dataset.

    Attributes:
        path: Its place in the dataset.
        size: In bytes.
        digest: Of its content: SHA-256, or for a file that is in git itself, git's own name of it.
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
    """A file did not arrive as the hub describes it; another try may bring it."""


class Stopped(Exception):
    """Somebody else's failure ended this."""


class Patience:
    """How long to go on trying one thing.

    Args:
        dataset: Whose files are asked for.
        what: What is tried, for sentences.
        stop: Ends every wait when set.
    """

    def __init__(self, dataset: str, what: str, stop: threading.Event) -> None:
        self._dataset = dataset
        self._what = what
        self._stop = stop
        self._failures = 0

    def renew(self) -> None:
        """Something was achieved."""
        self._failures = 0

    def after(self, error: Exception) -> None:
        """Wait until another try may do better.

        Raises:
            HarnessError: It cannot, or this was the last.
            Stopped: While it waited.
        """
        if fault := _fault(error, self._dataset):
            raise HarnessError(fault) from error
        self._failures += 1
        if self._failures == _TRIES:
            raise HarnessError(
                f"gave up on {self._what} after {_TRIES} tries ({_reason(error)}); type the same command again to go "
                f"on where it stopped, {WAYS_OUT}."
            ) from error
        wait = _asked_wait(error)
        if wait is None:
            wait = _FIRST_WAIT_SECONDS * 2 ** (self._failures - 1)
        progress.say(f"{self._what}: {_reason(error)}; trying again in {wait:.0f} s")
        if self._stop.wait(wait):
            raise Stopped


def list_files(dataset: str, revision: str | None) -> Listing:
    """Ask for the parquet files of a dataset.

    One request, and not the pages of the tree: a mirror's pages may link to the hub that it mirrors.

    Args:
        revision: A branch, tag or commit; None: the main branch.

    Raises:
        HarnessError: There is no such dataset or revision, it is not open to this user, or the hub cannot be reached.
    """
    patience = Patience(dataset, f"the list of files of {dataset}", threading.Event())
    while True:
        try:
            return _listed(dataset, revision)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # Nothing worked before this, so most likely there is no network, and that does not mend in a minute.
            raise HarnessError(
                f"cannot reach {constants.ENDPOINT} ({_reason(error)}); try again, {WAYS_OUT}."
            ) from error
        except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
            patience.after(error)
        except HFValidationError as error:
            raise HarnessError(f"{dataset} cannot be the name of a dataset ({_reason(error)}).") from error
        except (ValueError, TypeError, KeyError, httpx2.InvalidURL) as error:
            raise HarnessError(
                f"{constants.ENDPOINT} does not answer for {dataset} as a hub does ({_reason(error)}); look at "
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
        # Paths and digests become names of files.
        if path.suffix != ".parquet" or path.is_absolute() or ".." in path.parts:
            continue
        if sibling.size is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest or ""):
            raise ValueError(f"no size or hash for {path}")
        files.append(RemoteFile(str(path), sibling.size, str(digest)))
    if not re.fullmatch("[0-9a-f]{40}", info.sha or ""):
        raise ValueError("no commit")
    return Listing(dataset, str(info.sha), tuple(sorted(files, key=lambda file: file.path)))


def _fault(error: Exception, dataset: str) -> str | None:
    """What to say of an error that another try would only repeat; None for any other."""
    hub = constants.ENDPOINT
    login = "set HF_TOKEN to a token of yours, or type `hf auth login`"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{dataset} is not all on this machine and HF_HUB_OFFLINE is set; unset it, {WAYS_OUT}."
    if isinstance(error, httpx2.UnsupportedProtocol):
        return f"{hub} is no address of a hub; set HF_ENDPOINT to one that begins with https://, or unset it."
    if not isinstance(error, HfHubHTTPError) or error.response.status_code in _BUSY:
        return None
    if isinstance(error, GatedRepoError):
        return (
            f"{dataset} is gated: ask for access at {hub}/datasets/{dataset}, then {login}, and type the same command "
            "again."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{hub} has no dataset {dataset}, or it is private, and there is no such folder here; check the name, or "
            f"{login}."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{dataset} has no such revision at {hub}; `@main` after its name takes it as it is now."
    status = error.response.status_code
    if status in (401, 403):
        return f"{hub} refuses {dataset} to you (status {status}); {login}, and type the same command again."
    if status == 404:
        return (
            f"{hub} has no {error.response.url.path}; where {dataset} was rewritten, `@main` after its name takes it "
            "as it is now."
        )
    return f"{hub} answers {_reason(error)} for {dataset}; try again later, {WAYS_OUT}."


def _asked_wait(error: Exception) -> float | None:
    """Seconds that the hub asks to wait, or None."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    # The hub's own limits come as `ratelimit: "resolvers";r=0;t=55`: none remains, more in 55 s.
    asked = re.search(r";\s*r=0\s*;\s*t=(\d+)", headers.get("ratelimit", ""))
    seconds = asked[1] if asked else headers.get("retry-after", "").strip()
    return min(float(seconds), _LONGEST_WAIT_SECONDS) if seconds.isdecimal() else None


def _reason(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"status {error.response.status_code} {error.response.reason_phrase}".strip()
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
