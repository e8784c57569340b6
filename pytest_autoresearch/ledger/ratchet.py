"""Git as the ledger: the only code that moves the branch.

A campaign is a branch and a folder of refs. Each record is an annotated tag object whose message is the experiment;
it is written, and for a keep the branch moved, in one ref transaction. The user's checkout is read, never written:
proposals are edited and trained in a worktree of the lane's own, under the repository's git folder.

What an experiment is and whether it is kept is decided elsewhere.
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
from pathlib import Path
from typing import TypeVar

from pytest_autoresearch.core.errors import BaseMoved, GitError, NoRepository, NumberTaken, UserError
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.records import decode, encode
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.keeprule.audit import Audit
from pytest_autoresearch.ledger.campaign_lock import Presence
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.ledger.worktree import Worktree

_Record = TypeVar("_Record")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAME, _EMAIL = "autoresearch", "autoresearch@localhost"


class Ratchet:
    """One repository's campaigns, and the one that is open.

    Attributes:
        root: The folder that pytest calls its root; the repository's top or a folder in it.
        top: The top of the user's checkout.
        prefix: `root` relative to `top`.
        tag: The campaign, once `open` was called.
    """

    def __init__(self, root: Path) -> None:
        """Look at the repository.

        Raises:
            UserError: There is none here, git will not work in it, or nothing is committed yet.
        """
        self.root = root
        self.git = Git(root)
        try:
            self.top = Path(self.git("rev-parse", "--show-toplevel"))
        except GitError as error:
            raise _no_repository(root, str(error)) from None
        self.prefix = root.resolve().relative_to(self.top.resolve())
        self.home = Path(self.git("rev-parse", "--path-format=absolute", "--git-common-dir")) / "autoresearch"
        start = self.git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if start is None:
            raise UserError(_nothing_committed(self.git))
        self.start = start
        self.tag = ""
        self.presence = Presence(self.home)
        self._serial = threading.Lock()
        self._identify()

    def _identify(self) -> None:
        ident = self.git.ask("var", "GIT_COMMITTER_IDENT")
        known = re.fullmatch(r"(.+) <(.*)> \d+ [+-]\d+", ident or "")
        self.name, self.email = (known[1], known[2]) if known else (_NAME, _EMAIL)
        self.git.identify(self.name, self.email)

    # ------------------------------------------------------------------------------------ reading, at any time

    @property
    def branch(self) -> str:
        return f"refs/heads/autoresearch/{self.tag}"

    def head(self) -> str | None:
        """The commit of the campaign's branch, or None before its baseline."""
        return self.git.ask("rev-parse", "--verify", "--quiet", f"{self.branch}^{{commit}}")

    def records(self, tag: str = "") -> list[Experiment]:
        """Every record of a campaign (default: the open one), by number; in one git command.

        Raises:
            UserError: One cannot be read, or says what no session writes: it may be a stranger's.
        """
        folder = f"refs/autoresearch/{tag or self.tag}"
        found = sorted(self._tags(folder, r"\d{4,}", decode), key=lambda record: record.number)
        for record in found:  # these become words of git commands and parts of paths
            if not (_COMMIT.fullmatch(record.commit) and _COMMIT.fullmatch(record.base) and _TAG.fullmatch(record.tag)):
                name = f"{folder}/{record.number:04d}"
                raise UserError(f"{name} is the record of no session: type `git update-ref -d {name}` to be without it")
        return found

    def waiting(self) -> list[Experiment]:
        """Candidates that a session committed but could not judge."""
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
        """Every campaign with a record, and when its last one was made, in seconds since the epoch."""
        said = self.git("for-each-ref", "--format=%(taggerdate:unix) %(refname)", "refs/autoresearch/")
        last: dict[str, float] = {}
        for line in said.splitlines():
            when, _, name = line.partition(" ")
            if known := re.fullmatch(r"refs/autoresearch/([^/]+)/\d{4,}", name):
                last[known[1]] = max(last.get(known[1], 0.0), float(when or 0))
        return last

    def dirty(self, paths: Iterable[str], ignored: bool = False) -> list[str]:
        """Which files under the paths are not as they are committed; all relative to `root`.

        Args:
            paths: Or git pathspecs.
            ignored: Whether files that git ignores count too.
        """
        more = ["--ignored=traditional"] if ignored else []
        command = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", *more, "--", *paths)
        found = [entry[3:] for entry in self.git(*command).split("\0") if entry]
        here = [Path(os.path.relpath(self.top / path, self.root)).as_posix() for path in found]
        return [path for path in here if "__pycache__" not in path and not path.endswith(".pyc")]

    def committed(self) -> list[str]:
        """Every file of the commit that a new campaign would start from, relative to `root`."""
        return self.git("ls-tree", "-r", "-z", "--name-only", self.start).split("\0")

    def differ(self, one: str, other: str, paths: Iterable[str]) -> bool:
        """Whether the two commits hold something else under the paths (relative to `root`)."""
        return self.git.ask("diff", "--quiet", one, other, "--", *paths) is None

    def tree_hash(self, paths: Iterable[str]) -> str:
        """A hash of what the user's commit holds under the paths (relative to `root`)."""
        said = self.git("ls-tree", "-r", "-z", self.start, "--", *paths)
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def here(self) -> str:
        """The branch that the user's checkout is on, in full; empty where it is on none."""
        return self.git.ask("symbolic-ref", "--quiet", "HEAD") or ""

    def checked_out(self) -> list[Path]:
        """The worktrees in which somebody has the campaign's branch checked out."""
        folder, found = Path(), []
        for line in self.git("worktree", "list", "--porcelain").splitlines():
            word, _, rest = line.partition(" ")
            if word == "worktree":
                folder = Path(rest)
            if word == "branch" and rest == self.branch:
                found.append(folder)
        return found

    # ------------------------------------------------------------------------------------------------ opening

    def choose(self, tag: str, may_be_here: bool = False) -> None:
        """Name the campaign.

        Args:
            tag: Its name.
            may_be_here: Whether its branch may be checked out in the user's checkout, which then follows it.

        Raises:
            UserError: The tag is no name for a branch, or its branch is checked out somewhere else.
        """
        self.tag = tag
        if not _TAG.fullmatch(tag) or self.git.ask("check-ref-format", self.branch) is None:
            raise UserError(f"--autoresearch-tag {tag!r} cannot name a branch: use letters, digits, '.', '_' and '-'")
        said = self.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/autoresearch", f"{self.branch}/")
        for name in said.split():
            if name == "autoresearch" or name.startswith(f"autoresearch/{tag}/"):
                raise UserError(
                    f"the branch {name} leaves no room for the branch autoresearch/{tag}: "
                    f"type `git branch -m {name} {name.replace('/', '-')}-renamed` first"
                )
        for where in self.checked_out():
            if may_be_here and where.resolve() == self.top.resolve():
                continue
            raise UserError(
                f"the branch autoresearch/{tag} is checked out in {where}, and experiments move it: "
                f"type `git -C {shlex.quote(str(where))} switch --detach` first"
            )

    def open(self) -> list[Experiment]:
        """Take part in the campaign: finish what a killed session left, from the records, which are returned.

        Raises:
            UserError: The branch is where no record put it.
        """
        self.presence.join(self.tag, self._clear_locks)
        head = self.head()  # before the records: another session writes its record, then its branch
        records = self.records()
        self._finish(head, chain(records))
        return records

    def close(self) -> None:
        """Leave the campaign."""
        self.presence.leave()

    def alone(self) -> AbstractContextManager[None]:
        """No other session takes part in the campaign meanwhile; see `Presence`."""
        return self.presence.alone(self.tag)

    def _clear_locks(self) -> None:
        common = self.home.parent
        (common / f"{self.branch}.lock").unlink(missing_ok=True)
        for lock in (common / "refs" / "autoresearch" / self.tag).rglob("*.lock"):
            lock.unlink(missing_ok=True)

    def _finish(self, head: str | None, keeps: list[Experiment]) -> None:
        if not keeps:
            if head is not None:
                raise UserError(
                    f"there is a branch autoresearch/{self.tag}, but no experiment made it: "
                    f"type `git branch -m autoresearch/{self.tag} mine-{self.tag}` first, or choose another "
                    "--autoresearch-tag"
                )
            return
        due = keeps[-1].commit
        if head == due:
            return
        if head is None or self.git.ask("merge-base", "--is-ancestor", head, due) is not None:
            self._transaction([self._move(due, head)])
            return
        raise UserError(
            f"the branch autoresearch/{self.tag} is at {head[:7]}, which no experiment measured: "
            f"type `git branch -f autoresearch/{self.tag} {due[:7]}` to go on from the last keep, "
            "or choose another --autoresearch-tag"
        )

    def worktree(self, lane: int) -> Worktree:
        """The lane's own tree; another session's lanes are passed over."""
        with self._serial:
            return Worktree.claim(self.git, self.home, self.prefix, lane)

    # ------------------------------------------------------------------------------------------------ writing

    def record(self, experiment: Experiment) -> None:
        """Write the record and, for a keep, move the branch: one transaction.

        Raises:
            NumberTaken: The number has a record already.
            BaseMoved: It is a keep, and the branch is no longer at its base.
            GitError: Git said no.
        """
        if experiment.verdict is None:
            raise ValueError(f"{experiment!r} has no verdict")
        name = f"refs/autoresearch/{self.tag}/{experiment.number:04d}"
        lines = [f"create {name} {self._tag_object(experiment)}"]
        old = None if experiment.number == BASELINE else experiment.base
        if experiment.verdict.status is Status.KEEP:
            lines.append(self._move(experiment.commit, old))
        try:
            self._transaction(lines)
        except GitError:
            if self.git.ask("rev-parse", "--verify", "--quiet", name) is not None:
                raise NumberTaken(f"{name} exists") from None
            if experiment.verdict.status is Status.KEEP and self.head() != old:
                raise BaseMoved(f"{self.branch} is no longer at {old or 'its start'}") from None
            raise

    def leave_waiting(self, experiment: Experiment) -> None:
        """Note a committed candidate that gets no verdict in this session, so that the next one tries it first."""
        name = f"refs/autoresearch/{self.tag}/waiting/{experiment.commit[:16]}"
        self._transaction([f"update {name} {self._tag_object(experiment)}"])

    def adopt(self, records: Mapping[str, str], head: str = "", old: str = "") -> None:
        """Take over what another repository has: records that are none here, and its branch where that is ahead.

        Args:
            records: Tag objects by the full names of their refs.
            head: Where the branch belongs then; empty for where it is.
            old: Where it was when that was decided; empty for nowhere.

        Raises:
            GitError: Git said no; nothing was taken over.
        """
        lines = [f"create {name} {tag}" for name, tag in records.items()]
        if head:
            lines.append(self._move(head, old))
        self._transaction(lines)

    def record_audit(self, done: Audit) -> str:
        """Write the record of an audit; the name of its ref. Named by its content: no two repositories' audits collide.

        Raises:
            GitError: Git said no.
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
        """The line of a transaction that moves the branch to a commit, from nowhere else than where it was."""
        return f"update {self.branch} {commit} {old}" if old else f"create {self.branch} {commit}"

    def _transaction(self, lines: list[str]) -> None:
        said = "\n".join(["start", *lines, "prepare", "commit", ""])
        self.git("-c", "core.fsync=all", "update-ref", "-m", "autoresearch", "--stdin", stdin=said)


def _nothing_committed(git: Git) -> str:
    """A clone of what got a campaign alone has its branch, and nothing checked out: a commit would share no history."""
    campaigns = ("refs/heads/autoresearch/", "refs/remotes/*/autoresearch/*", "refs/autoresearch/*/0000")
    said = git("for-each-ref", "--sort=-committerdate", "--count=1", "--format=%(refname)", *campaigns)
    if said:
        mine = git.ask("symbolic-ref", "--short", "HEAD") or "main"
        campaign = re.sub("^refs/(heads|remotes)/", "", said)
        return f"nothing is checked out here yet: type `git switch -c {mine} {campaign}` first"
    if remotes := git("remote").split():
        return (
            f"nothing is committed here yet: type `git fetch {remotes[0]}` first where the repository is to come from "
            "there, else `git add -A && git commit -m baseline`"
        )
    return "nothing is committed yet: type `git add -A && git commit -m baseline` first"


def _no_repository(root: Path, said: str) -> UserError:
    """What is wrong, out of what git said in the C locale: it has one exit status for everything."""
    if distrusted := re.search(r"dubious ownership in repository at '(.*)'", said):
        top = shlex.quote(distrusted[1])
        return UserError(f"git does not trust {root}: type `git config --global --add safe.directory {top}` first")
    if "must be run in a work tree" in said:
        return UserError(f"{root} is a bare git repository: run pytest in a checkout of it")
    if "not a git repository" not in said:
        return UserError(f"git cannot work in {root}: {said.splitlines()[0]}: put that right first")
    return NoRepository(
        f"{root} is not a git repository: type `git init && git add -A && git commit -m baseline` first"
    )
