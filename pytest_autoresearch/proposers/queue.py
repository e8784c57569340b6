"""Patches that wait in a folder, tried one after the other in the order of their names.

The folder is the user's: nothing in it is moved or changed. What has been tried stands in the campaign's records, by a
patch's name and content, so a patch that was edited is tried again. This module runs `git apply` and knows nothing
else of git.
"""

from __future__ import annotations

import email
import email.errors
import email.header
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

from pytest_autoresearch.errors import Refused
from pytest_autoresearch.experiment import Proposal
from pytest_autoresearch.proposers.base import Context

_SUFFIXES = (".diff", ".patch")
_TAG = re.compile(r"\[[^\]]*\bPATCH\b[^\]]*\]\s*")
_DIFF = re.compile(r"^(---($|\s)|diff --git |Index: )", re.MULTILINE)

# A git hook that starts pytest leaves these set, and git would then patch the repository of the hook.
_REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
_SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.autocrlf=false")


class QueueProposer:
    """The `*.patch` and `*.diff` files of the folder `queue` beside the acceptance rules, in sorted order."""

    name = "queue"

    def __init__(self) -> None:
        self._handed_out: set[str] = set()

    def propose(self, context: Context) -> Proposal | None:
        """Apply the next patch; None when all are done or there is no queue.

        Raises:
            Refused: The patch does not apply to the branch head; the tree is as it was.
        """
        done = self._handed_out | {record.proposal.source for record in context.records}
        for path in _waiting(context.experiments / "queue"):
            patch = path.read_bytes()
            source = f"{self.name}:{path.name}@{hashlib.sha256(patch).hexdigest()[:12]}"
            if source in done:
                continue
            self._handed_out.add(source)
            description, hypothesis = described(patch, path.stem)
            proposal = Proposal(description, hypothesis, self.name, source)
            failure = _apply(patch, context.folder)
            if failure:
                raise Refused(f"{path.name} does not apply: {failure}", proposal)
            return proposal
        return None

    def repair(self, context: Context, proposal: Proposal, failure: str) -> Proposal | None:
        """None: a queued patch is not ours to change."""
        return None


def described(patch: bytes, stem: str) -> tuple[str, str]:
    """The description and the hypothesis of a patch: the subject and the message of `git format-patch`.

    A bare diff is described by the stem of its file, less the digits that order it, and has no hypothesis.
    """
    text = patch.decode("utf-8", "replace")
    diff = _DIFF.search(text)
    message = email.message_from_string(text[: diff.start()] if diff else text)
    subject = _TAG.sub("", " ".join(_decoded(message["Subject"] or "").split()))
    if not subject:
        return re.sub(r"[-_\s]+", " ", re.sub(r"^[\d\-_.\s]+", "", stem)).strip() or stem, ""
    body = str(message.get_payload()).strip()
    return subject, re.sub(r"\AFrom: .*\n+", "", body)  # git writes the author here where the sender is another


def _waiting(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())


def _decoded(header: str) -> str:
    """A header with its RFC 2047 words decoded; as it stands where they are damaged."""
    try:
        return str(email.header.make_header(email.header.decode_header(header)))
    except (LookupError, UnicodeError, email.errors.HeaderParseError):
        return header


def _apply(patch: bytes, folder: Path) -> str:
    """Apply a patch to the files of the worktree that the folder is in; why not, or nothing when it is done.

    A three-way merge leaves conflict markers where it fails, so it is made in an index of its own, and what it comes
    to is then applied like any patch, which `git apply` does wholly or not at all.
    """
    top = _git(["rev-parse", "--show-toplevel"], folder)
    if top.returncode:
        return _first(top.stderr)
    # In a subfolder `git apply` passes over what lies outside it, without a word.
    root = Path(os.fsdecode(top.stdout.removesuffix(b"\n")))
    with tempfile.TemporaryDirectory() as scratch:
        index = str(Path(scratch) / "index")
        _git(["read-tree", "HEAD"], root, index=index)
        if not _git(["apply", "--cached", "--3way", "--whitespace=nowarn"], root, patch, index).returncode:
            merged = _git(["diff-index", "--cached", "--patch", "--binary", "HEAD"], root, index=index)
            if not merged.returncode and not merged.stdout:
                return "the branch has all of it already"
            if not merged.returncode and not _git(["apply", "--whitespace=nowarn"], root, merged.stdout).returncode:
                return ""
    plain = _git(["apply", "--whitespace=nowarn"], root, patch)
    return _first(plain.stderr) if plain.returncode else ""


def _git(command: list[str], folder: Path, given: bytes = b"", index: str = "") -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in _REDIRECTIONS}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"} | ({"GIT_INDEX_FILE": index} if index else {})
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    return subprocess.run(
        ["git", *settings, *command],
        cwd=folder,
        env=environment,
        input=given,
        capture_output=True,
        start_new_session=True,  # a Ctrl-C must not stop git between two files
        check=False,
    )


def _first(said: bytes) -> str:
    """The first line of git's that says something, without its `error:`."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines()]
    wrong = [line for line in lines if line.startswith(("error: ", "fatal: "))]
    return re.sub(r"^(error|fatal): ", "", (wrong or [line for line in lines if line] or ["git gave no reason"])[0])
