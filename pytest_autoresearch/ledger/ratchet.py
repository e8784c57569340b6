"""Git as the ledger: the only code that moves the branch.

A campaign is a branch and a folder of refs. A record is an annotated tag object with the experiment as its message.
One ref transaction writes the record and, for a keep, moves the branch. The user's checkout is only read: each lane
edits and trains proposals in its own worktree, in the repository's git folder.

This module does not decide what is kept.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pytest_autoresearch.core.errors import BaseMoved, GitError, NumberTaken, UserError
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status
from pytest_autoresearch.core.history import chain, taken_back
from pytest_autoresearch.core.records import decode, encode
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.keeprule.audit import Audit
from pytest_autoresearch.ledger import objects
from pytest_autoresearch.ledger.campaign_lock import Presence
from pytest_autoresearch.ledger.elsewhere import Elsewhere, find_elsewhere
from pytest_autoresearch.ledger.git import DIFF, Git
from pytest_autoresearch.ledger.merge import merge
from pytest_autoresearch.ledger.objects import Entry
from pytest_autoresearch.ledger.refusals import no_repository, nothing_committed
from pytest_autoresearch.ledger.worktree import Worktree

_Record = TypeVar("_Record")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAME, _EMAIL = "autoresearch", "autoresearch@localhost"


class Ratchet:
    """The campaigns of one repository; one of them is open.

    Attributes:
        root: Pytest's root folder: the repository's top or a folder in it.
        top: The top of the user's checkout.
        prefix: `root` relative to `top`.
        tag: The open campaign, after `choose`.
    """

    def __init__(self, root: Path) -> None:
        """Read the repository.

        Raises:
            UserError: There is no repository here, git cannot work in it, or it has no commit yet.
        """
        self.root = root
        self.git = Git(root)
        try:
            self.top = Path(self.git("rev-parse", "--show-toplevel"))
        except GitError as error:
            raise no_repository(root, str(error)) from None
        self.prefix = root.resolve().relative_to(self.top.resolve())
        self.home = Path(self.git("rev-parse", "--path-format=absolute", "--git-common-dir")) / "autoresearch"
        start = self.git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if start is None:
            raise UserError(nothing_committed(self.git))
        self.start = start
        self.tag = ""
        self._may_be_here = False
        self.presence = Presence(self.home, self.top)
        self._serial = threading.Lock()
        self._identify()

    def _identify(self) -> None:
        ident = self.git.ask("var", "GIT_COMMITTER_IDENT")
        known = re.fullmatch(r"(.+) <(.*)> \d+ [+-]\d+", ident or "")
        self.name, self.email = (known[1], known[2]) if known else (_NAME, _EMAIL)
        self.git.identify(self.name, self.email)

    @cached_property
    def elsewhere(self) -> Elsewhere:
        """What the commit that is checked out names but does not contain."""
        return find_elsewhere(self.git, self.top, self.start, self._started_from)

    # ------------------------------------------------------------------------------------ reading, at any time

    @property
    def branch(self) -> str:
        return f"refs/heads/autoresearch/{self.tag}"

    def head(self) -> str | None:
        """The commit of the campaign's branch, or None before its baseline."""
        return self.git.ask("rev-parse", "--verify", "--quiet", f"{self.branch}^{{commit}}")

    def records(self, tag: str = "") -> list[Experiment]:
        """Every record of a campaign (default: the open one), ordered by number; in one git command.

        Raises:
            UserError: A record cannot be read, or has values that no session writes and may be forged.
        """
        folder = f"refs/autoresearch/{tag or self.tag}"
        found = sorted(self._tags(folder, r"\d{4,}", decode), key=lambda record: record.number)
        for record in found:  # these values go into git commands and paths
            if not (_COMMIT.fullmatch(record.commit) and _COMMIT.fullmatch(record.base) and _TAG.fullmatch(record.tag)):
                name = f"{folder}/{record.number:04d}"
                raise UserError(f"{name} was written by no session: type `git update-ref -d {name}` to delete it")
        return found

    def waiting(self) -> list[Experiment]:
        """Candidates that a session has committed but not judged."""
        found = self._tags(f"refs/autoresearch/{self.tag}/waiting", r"\w+", decode)
        return sorted(found, key=lambda record: record.number)

    def audits(self, tag: str = "") -> list[Audit]:
        """Every audit of a campaign (default: the open one), the oldest first."""
        found = self._tags(f"refs/autoresearch/{tag or self.tag}/audit", r"\w+", audit.decode)
        return sorted(found, key=lambda one: one.finished_at)

    def _tags(self, folder: str, pattern: str, read: Callable[[str], _Record]) -> list[_Record]:
        said = self.git("for-each-ref", "--format=%(refname)%00%(contents)%00", f"{folder}/")
        parts = said.split("\0")
        found = []
        for name, text in zip(parts[0::2], parts[1::2], strict=False):
            if re.fullmatch(pattern, name.strip().removeprefix(f"{folder}/")):
                try:
                    found.append(read(text))
                except ValueError as error:
                    said = f"{name.strip()} cannot be read ({error})"
                    raise UserError(f"{said}: choose another --autoresearch-tag") from None
        return found

    def campaigns(self) -> dict[str, float]:
        """Every campaign with a record, and the time of its last record, in seconds since the epoch."""
        said = self.git("for-each-ref", "--format=%(taggerdate:unix) %(refname)", "refs/autoresearch/")
        last: dict[str, float] = {}
        for line in said.splitlines():
            when, _, name = line.partition(" ")
            if known := re.fullmatch(r"refs/autoresearch/([^/]+)/\d{4,}", name):
                last[known[1]] = max(last.get(known[1], 0.0), float(when or 0))
        return last

    def dirty(self, paths: Iterable[str], ignored: bool = False) -> list[str]:
        """The files under the paths with uncommitted changes; all relative to `root`.

        Args:
            paths: Paths or git pathspecs.
            ignored: Whether ignored files count too.
        """
        more = ["--ignored=traditional"] if ignored else []
        command = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", *more, "--", *paths)
        found = [entry[3:] for entry in self.git(*command).split("\0") if entry]
        here = [Path(os.path.relpath(self.top / path, self.root)).as_posix() for path in found]
        return [path for path in here if "__pycache__" not in path and not path.endswith(".pyc")]

    @cached_property
    def _started_from(self) -> dict[str, Entry]:
        """Every file of the commit that a new campaign starts from; paths are relative to `top`."""
        return objects.entries(self.git, self.start, "--full-tree")

    def committed(self) -> dict[str, Entry]:
        """Every file below `root` of the commit that a new campaign starts from; paths are relative to `root`."""
        if not self.prefix.parts:
            return self._started_from
        inside = f"{self.prefix.as_posix()}/"
        return {
            path.removeprefix(inside): entry for path, entry in self._started_from.items() if path.startswith(inside)
        }

    def texts(self, chosen: Callable[[str], bool]) -> dict[str, bytes]:
        """The chosen plain files, by path relative to `root`, of the commit that the next proposal starts from."""
        return objects.contents(self.git, self.head() or self.start, chosen)

    def complete(self) -> None:
        """Fetch the files of the user's commit that a partial clone lacks: a lane has them all, a sparse checkout not.

        Raises:
            GitError: The remote does not give them.
        """
        if not any((self.home.parent / "objects" / "pack").glob("*.promisor")):
            return
        remote = self.git.ask("config", "--get-regexp", r"^remote\..*\.promisor$")
        if remote is None:
            return
        said = self.git("rev-list", "--objects", "--missing=print", "--no-walk", f"{self.start}^{{tree}}")
        if missing := [line[1:] for line in said.splitlines() if line.startswith("?")]:
            name = remote.splitlines()[0].partition(" ")[0].removeprefix("remote.").removesuffix(".promisor")
            command = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--stdin")
            self.git("-c", "fetch.negotiationAlgorithm=noop", *command, name, stdin="\n".join([*missing, ""]))

    def differ(self, one: str, other: str, paths: Iterable[str]) -> bool:
        """Whether the two commits differ under the paths (relative to `root`)."""
        return self.git.ask("diff", *DIFF, "--quiet", one, other, "--", *paths) is None

    def tree_hash(self, paths: Iterable[str]) -> str:
        """A hash of the files under the paths (relative to `root`) in the user's commit."""
        said = self.git("ls-tree", "-r", "-z", self.start, "--", *paths)
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def here(self) -> str:
        """The full name of the branch of the user's checkout; empty if HEAD is detached."""
        return self.git.ask("symbolic-ref", "--quiet", "HEAD") or ""

    def checked_out(self, branch: str = "") -> list[Path]:
        """The worktrees that have a branch (default: the campaign's) checked out."""
        folder, found = Path(), []
        for line in self.git("worktree", "list", "--porcelain").splitlines():
            word, _, rest = line.partition(" ")
            if word == "worktree":
                folder = Path(rest)
            if word == "branch" and rest == (branch or self.branch):
                found.append(folder)
        return found

    # ------------------------------------------------------------------------------------------------ opening

    def choose(self, tag: str, may_be_here: bool = False) -> None:
        """Choose the campaign.

        Args:
            tag: Its name.
            may_be_here: Whether the user's checkout may be on the campaign's branch; it then follows the branch.

        Raises:
            UserError: The tag cannot name a branch, or the branch is checked out somewhere else.
        """
        self.tag, self._may_be_here = tag, may_be_here
        if not _TAG.fullmatch(tag) or self.git.ask("check-ref-format", self.branch) is None:
            raise UserError(f"--autoresearch-tag {tag!r} cannot name a branch: use letters, digits, '.', '_' and '-'")
        said = self.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/autoresearch", f"{self.branch}/")
        for name in said.split():
            if name == "autoresearch" or name.startswith(f"autoresearch/{tag}/"):
                raise UserError(
                    f"the branch {name} blocks the name of the branch autoresearch/{tag}: "
                    f"type `git branch -m {name} {name.replace('/', '-')}-renamed` first"
                )
        for where in self.checked_out():
            if may_be_here and where.resolve() == self.top.resolve():
                continue
            raise UserError(
                f"the branch autoresearch/{tag} is checked out in {where}, and experiments move it: "
                f"type `git -C {shlex.quote(str(where))} switch --detach` first, and name the campaign with "
                f"--autoresearch-tag {tag}"
            )

    def open(self) -> list[Experiment]:
        """Join the campaign, repair the branch if a session was killed between record and branch, return the records.

        Where the user's checkout may be on the branch and is, commits of the user on the branch are taken off it: their
        changes are in the checkout's files and index, as after `git reset --soft`.

        Raises:
            UserError: The branch is at a commit that no record explains.
        """
        self.presence.join(self.tag, self._clear_locks)
        Worktree.clear(self.home)
        head = self.head()  # before the records: another session writes its record, then its branch
        records = self.records()
        self._finish(head, records)
        return records

    def close(self) -> None:
        """Leave the campaign."""
        self.presence.leave()

    def alone(self) -> AbstractContextManager[None]:
        """Have the campaign for this process alone; see `Presence`."""
        return self.presence.alone(self.tag)

    def _clear_locks(self) -> None:
        common = self.home.parent
        (common / f"{self.branch}.lock").unlink(missing_ok=True)
        for lock in (common / "refs" / "autoresearch" / self.tag).rglob("*.lock"):
            lock.unlink(missing_ok=True)

    def check_head(self) -> None:
        """Check that the records explain the branch.

        Raises:
            UserError: They do not.
        """
        self._due(self.head(), self.records())

    def _finish(self, head: str | None, records: list[Experiment]) -> None:
        due = self._due(head, records)
        if due is not None and head != due:
            self._transaction([self._move(due, head)])

    def _due(self, head: str | None, records: list[Experiment]) -> str | None:
        """Where the branch has to be; None before the baseline."""
        keeps = chain(records)
        if not keeps:
            if head is not None:
                raise UserError(
                    f"there is a branch autoresearch/{self.tag}, but no experiment created it: "
                    f"type `git branch -m autoresearch/{self.tag} mine-{self.tag}` first, or choose another "
                    "--autoresearch-tag"
                )
            return None
        due = keeps[-1].commit
        behind = head is not None and self.git.ask("merge-base", "--is-ancestor", head, due) is not None
        ahead = head in taken_back(records)
        if head is None or head == due or behind or ahead or (self._may_be_here and self.here() == self.branch):
            return due
        raise UserError(
            f"the branch autoresearch/{self.tag} is at {head[:7]}, which no experiment measured: "
            f"type `git branch -f autoresearch/{self.tag} {due[:7]}` to go on from the last keep, "
            "or choose another --autoresearch-tag"
        )

    def worktree(self, lane: int) -> Worktree:
        """A worktree for the lane that no other session holds."""
        with self._serial:
            return Worktree.claim(self.git, self.home, self.prefix, lane)

    # ------------------------------------------------------------------------------------------------ writing

    def record(self, experiment: Experiment) -> None:
        """Write the record and, for a keep, move the branch: one transaction.

        If the record refutes an earlier keep, the branch moves back to the last keep before that one.

        Raises:
            NumberTaken: The number has a record already.
            BaseMoved: It is a keep, and the branch is no longer at its base; or another session has moved the branch
                while this one moved it back.
            GitError: A git command failed.
        """
        if experiment.verdict is None:
            raise ValueError(f"{experiment!r} has no verdict")
        name = f"refs/autoresearch/{self.tag}/{experiment.number:04d}"
        lines = [f"create {name} {self._tag_object(experiment)}", f"delete {self._waiting(experiment.commit)}"]
        old = None if experiment.number == BASELINE else experiment.base
        if experiment.verdict.status is Status.KEEP:
            lines.append(self._move(experiment.commit, old))
        elif experiment.refutes:
            due, old = chain([*self.records(), experiment])[-1].commit, self.head()
            lines += [] if old == due else [self._move(due, old)]
        try:
            self._transaction(lines)
        except GitError:
            if self.git.ask("rev-parse", "--verify", "--quiet", name) is not None:
                raise NumberTaken(f"{name} exists") from None
            if len(lines) > 2 and self.head() != old:
                raise BaseMoved(f"{self.branch} is no longer at {old or 'its start'}") from None
            raise

    def combined(self, base: str, commits: Iterable[str], message: str) -> str:
        """A commit on top of the base with the changes of these commits, each from its own parent. No branch moves.

        Raises:
            MergeConflict: Two of them change the same line.
        """
        made = base
        for commit in commits:
            tree = merge(self.git, f"{commit}^", made, commit)
            made = self.git("commit-tree", tree, "-p", base, stdin=message)
        return made

    def leave_waiting(self, experiment: Experiment, instead_of: str = "") -> None:
        """Record a committed candidate without a verdict, so that the next session measures it first.

        Args:
            instead_of: A commit that waits no longer; empty for none.
        """
        lines = [f"update {self._waiting(experiment.commit)} {self._tag_object(experiment)}"]
        self._transaction([*lines, *([f"delete {self._waiting(instead_of)}"] if instead_of else [])])

    def drop_waiting(self, commit: str) -> None:
        """The commit waits no longer."""
        self._transaction([f"delete {self._waiting(commit)}"])

    def _waiting(self, commit: str) -> str:
        """The ref of a candidate without a verdict."""
        return f"refs/autoresearch/{self.tag}/waiting/{commit[:16]}"

    def adopt(self, records: Mapping[str, str], head: str = "", old: str = "") -> None:
        """Add records from another repository, and move the branch, in one transaction.

        Args:
            records: Tag objects by the full names of their refs.
            head: The new commit of the branch; empty to leave the branch.
            old: The commit that the branch must still be at; empty if there must be no branch.

        Raises:
            GitError: A git command failed; nothing was changed.
        """
        lines = [f"create {name} {tag}" for name, tag in records.items()]
        if head:
            lines.append(self._move(head, old))
        self._transaction(lines)

    def record_audit(self, done: Audit) -> str:
        """Write the record of an audit, and return its ref. The ref is named by a hash, so that audits never collide.

        Raises:
            GitError: A git command failed.
        """
        tag = self._made_tag(done.last, "audit", audit.encode(done))
        name = f"refs/autoresearch/{self.tag}/audit/{tag[:16]}"
        self._transaction([f"create {name} {tag}"])
        return name

    def _tag_object(self, experiment: Experiment) -> str:
        return self._made_tag(experiment.commit, f"{experiment.number:04d}", encode(experiment))

    def _made_tag(self, commit: str, name: str, text: str) -> str:
        return self.git(
            "mktag",
            stdin=(
                f"object {commit}\ntype commit\ntag {self.tag}/{name}\n"
                f"tagger {self.name} <{self.email}> {int(time.time())} +0000\n\n{text}\n"
            ),
        )

    def _move(self, commit: str, old: str | None) -> str:
        """The line of a transaction that moves the branch to a commit, only if the branch is at `old`."""
        return f"update {self.branch} {commit} {old}" if old else f"create {self.branch} {commit}"

    def _transaction(self, lines: list[str]) -> None:
        said = "\n".join(["start", *lines, "prepare", "commit", ""])
        self.git("-c", "core.fsync=all", "update-ref", "-m", "autoresearch", "--stdin", stdin=said)
