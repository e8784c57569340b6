"""Proposals from patch files in a folder, in the order of their names.

The folder belongs to the user: nothing in it is moved or changed. The campaign's records tell by name and content which
patches were tried, so an edited patch is tried again. Of git it knows only the format of patches.
"""

from __future__ import annotations

import email
import email.errors
import email.header
import hashlib
import re
from collections.abc import Container, Iterator
from pathlib import Path

from pytest_autoresearch.core.errors import GitError, Refused, UserError
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.proposers import patches
from pytest_autoresearch.proposers.base import Context

FOLDER = "queue"  # beside the acceptance rules
_SUFFIXES = (".diff", ".patch")
_TAG = re.compile(r"\[[^\]]*\bPATCH\b[^\]]*\]\s*")
_DIFF = re.compile(r"^(---($|\s)|diff --git |Index: )", re.MULTILINE)


class QueueProposer:
    """The `*.patch` and `*.diff` files of the folder `queue` beside the acceptance rules, in sorted order."""

    name = "queue"
    listens = False

    def __init__(self) -> None:
        self._handed_out: set[str] = set()

    def propose(self, context: Context) -> Proposal | None:
        """Apply the next patch; None when all are done or there is no queue.

        Raises:
            Refused: The patch does not apply to the branch head; the tree is as it was.
        """
        done = self._handed_out | {record.proposal.source for record in context.records}
        for path, patch, source in untried(context.experiments / FOLDER, done):
            self._handed_out.add(source)
            description, hypothesis = described(patch, path.stem)
            proposal = Proposal(description, hypothesis, self.name, source)
            try:
                if patches.apply(patch, context.folder):
                    return proposal
            except GitError as error:
                raise Refused(f"{path.name} {error}", proposal, error.crash) from None
            raise Refused(f"{path.name} changes nothing: the branch has all of it already", proposal)
        return None

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """None: a queued patch is not changed."""
        return None


def check(experiments: Path, root: Path) -> None:
    """Check that there is a queue.

    Raises:
        UserError: The folder has no patch; the sentence names it.
    """
    folder = experiments / FOLDER
    if not _waiting(folder):
        name = folder.relative_to(root).as_posix()
        raise UserError(
            f"the proposer queue takes patches from {name}/, which has no *.patch or *.diff file: put one there, such "
            f"as with `git format-patch -1 -o {name} YOUR_COMMIT`"
        )


def described(patch: bytes, stem: str) -> tuple[str, str]:
    """The description and the hypothesis of a patch: the subject and the message of `git format-patch`.

    A bare diff is described by its file's name without the leading digits, and has no hypothesis.
    """
    text = patch.decode("utf-8", "replace")
    diff = _DIFF.search(text)
    message = email.message_from_string(text[: diff.start()] if diff else text)
    subject = _TAG.sub("", " ".join(_decoded(message["Subject"] or "").split()))
    if not subject:
        return re.sub(r"[-_\s]+", " ", re.sub(r"^[\d\-_.\s]+", "", stem)).strip() or stem, ""
    body = str(message.get_payload()).strip()
    return subject, re.sub(r"\AFrom: .*\n+", "", body)  # git writes the author here if the sender is another person


def untried(folder: Path, done: Container[str]) -> Iterator[tuple[Path, bytes, str]]:
    """The patches of the folder that are not done: path, text and source of each, in order."""
    for path in _waiting(folder):
        patch = path.read_bytes()
        source = f"{QueueProposer.name}:{path.name}@{hashlib.sha256(patch).hexdigest()[:12]}"
        if source not in done:
            yield path, patch, source


def _waiting(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())


def _decoded(header: str) -> str:
    """A header with RFC 2047 words decoded; unchanged if they are damaged."""
    try:
        return str(email.header.make_header(email.header.decode_header(header)))
    except (LookupError, UnicodeError, email.errors.HeaderParseError):
        return header
