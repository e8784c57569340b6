"""What becomes of the user's files and index after a verdict: real git, and experiments whose numbers are made up."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from places import Place, apart, attempt, git, judged

from pytest_autoresearch.campaign.checkout import Checkout, Followed
from pytest_autoresearch.campaign.editable import EditableFiles
from pytest_autoresearch.core.errors import Refused, UserError
from pytest_autoresearch.core.experiment import Experiment, Status, Verdict
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.proposers.checkout import CheckoutProposer
from pytest_autoresearch.source.editable import Editable

MAIN, BRANCH = "main", "autoresearch/t"
ON = pytest.mark.parametrize("branch", [MAIN, BRANCH, "--detach"])
VERDICTS = pytest.mark.parametrize("status", [Status.KEEP, Status.DISCARD])


class Here:
    """A checkout in whose repository a campaign has its baseline, and sessions that need no pytest."""

    def __init__(self, path: Path, editable: tuple[str, ...] = ("train.py",), root: str = ".") -> None:
        self.place = Place(path)
        self.path = path
        self.root = path / root
        self.editable = Editable(editable)
        (path / ".git/info/exclude").write_text("*.part\n")

    def begin(self, branch: str = MAIN) -> Here:
        """Everything committed, the baseline recorded, the checkout on a branch."""
        self.git("add", "-A")
        if self.git("status", "--porcelain"):
            self.git("commit", "-qm", "More")
        self.place.start = self.git("rev-parse", "HEAD")
        ratchet = self.ratchet()
        ratchet.record(self.place.baseline())
        ratchet.close()
        self.git("switch", "-q", branch)
        os.chdir(self.root)
        return self

    def git(self, *command: str) -> str:
        return git(self.path, *command)

    def ratchet(self) -> Ratchet:
        ratchet = apart(Ratchet(self.root))
        ratchet.choose("t", may_be_here=True)
        ratchet.open()
        return ratchet

    def session(self, status: Status, meanwhile: str = "", reason: str = "") -> Followed:
        """Propose the edit, record a verdict on it and let the checkout follow.

        Args:
            status: The verdict.
            meanwhile: Text that somebody appends to train.py while it trains.
            reason: Of the verdict; `stale` moves the branch first, as another session's keep would.
        """
        ratchet = self.ratchet()
        checkout = Checkout(ratchet, self.editable)
        checkout.check()
        records = ratchet.records()
        checkout.finish(records)
        tree = ratchet.worktree(0)
        base = ratchet.head() or ""
        tree.reset(base)
        number = len(records)
        context = Context(
            number, tree.folder, self.editable, "", tuple(records), (), self.root, self.root / "experiments"
        )
        proposal = CheckoutProposer(checkout.edit, described=False).propose(context)
        assert proposal is not None
        tree.changes(base)
        commit, hashed = tree.commit(base, proposal.description)
        tried = attempt(number, commit=commit, base=base, tree=hashed, proposal=proposal)
        if reason == "stale":
            ratchet.record(judged(self.theirs(number + 1, base)))
        if meanwhile:
            with (self.root / "train.py").open("a") as file:
                file.write(meanwhile)
        done = judged(tried, status, reason)
        ratchet.record(done)
        followed = checkout.follow(done)
        tree.release()
        ratchet.close()
        return followed

    def theirs(self, number: int, base: str) -> Experiment:
        """Another session's candidate: a line more at the end of train.py."""
        ratchet = Ratchet(self.root)
        tree = ratchet.worktree(1)
        tree.reset(base)
        with (tree.folder / "train.py").open("a") as file:
            file.write("THEIRS = 1\n")
        tree.changes(base)
        commit, hashed = tree.commit(base, "theirs")
        tree.release()
        return attempt(number, commit=commit, base=base, tree=hashed)

    def change(self, old: str, new: str, name: str = "train.py") -> bytes:
        """Replace something in a file; its bytes afterwards."""
        path = self.root / name
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
        return path.read_bytes()

    def text(self, name: str = "train.py") -> str:
        return (self.root / name).read_text()

    def status(self) -> str:
        return self.git("status", "--porcelain")

    def clean(self) -> bool:
        """Whether git finds nothing changed, its plumbing included, which believes what the index remembers."""
        return self.git("diff-files", "--name-only") == "" == self.status()


@pytest.fixture(autouse=True)
def where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands that are said are meant for where pytest was typed: each test types in its own repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path / "repo")


def typed(command: str, folder: Path) -> None:
    """Do what a person does who is told to type something."""
    assert command
    subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)


@ON
@VERDICTS
def test_the_file_is_as_the_branch_has_it_and_the_checkout_stays_where_it_is(
    here: Here, branch: str, status: Status
) -> None:
    here.begin(branch)
    head = here.git("rev-parse", "--symbolic-full-name", "HEAD"), here.git("rev-parse", "main")
    before, after = (here.root / "train.py").read_bytes(), here.change("RATE = 1", "RATE = 2")
    followed = here.session(status)
    assert (here.root / "train.py").read_bytes() == (after if status is Status.KEEP else before)
    assert (here.git("rev-parse", "--symbolic-full-name", "HEAD"), here.git("rev-parse", "main")) == head
    if branch == BRANCH or status is Status.DISCARD:
        assert here.status() == ""
    if branch == BRANCH:
        assert here.clean()
    assert bool(followed.command) is (status is Status.DISCARD)


@ON
def test_edits_follow_each_other_on_any_branch_though_they_touch_the_same_lines(here: Here, branch: str) -> None:
    here.begin(branch)
    here.change("RATE = 1", "RATE = 2")
    here.session(Status.KEEP)
    here.change("RATE = 2\nDEPTH = 4", "RATE = 2\nDEPTH = 5")
    here.session(Status.DISCARD)
    here.change("RATE = 2\nDEPTH = 4", "RATE = 3\nDEPTH = 6")
    here.session(Status.KEEP)
    assert here.text() == "RATE = 3\nDEPTH = 6\nWIDTH = 8\nSTEPS = 16\n"
    assert here.git("show", f"{BRANCH}:train.py") == here.text().strip()


@ON
def test_an_edit_of_an_older_commit_is_merged_into_the_head(here: Here, branch: str) -> None:
    here.begin()
    ratchet = here.ratchet()
    ratchet.record(judged(here.theirs(1, ratchet.head() or "")))
    here.change("RATE = 1", "RATE = 2")
    here.session(Status.KEEP)
    assert here.text() == "RATE = 2\nDEPTH = 4\nWIDTH = 8\nSTEPS = 16\nTHEIRS = 1\n"


@ON
@VERDICTS
def test_other_changes_staged_or_not_stay_as_they_are(here: Here, branch: str, status: Status) -> None:
    def write(text: str, *names: str) -> None:
        for name in names:
            (here.path / name).write_text(text)

    write("x = 1\n", "staged.py", "dirty.py", "both.py", "gone.py", "unstaged.py")
    here.begin(branch)
    write("x = 2\n", "staged.py", "both.py", "added.py")
    here.git("add", "staged.py", "both.py", "added.py")
    write("x = 3\n", "both.py", "dirty.py", "new.py")
    here.git("rm", "-q", "--cached", "gone.py")
    os.utime(here.path / "unstaged.py", (1e9, 1e9))
    before = here.status(), here.git("diff"), here.git("diff", "--cached")
    here.change("RATE = 1", "RATE = 2")
    here.session(status)
    if branch != BRANCH and status is Status.KEEP:
        here.git("checkout", "-q", "--", "train.py")
    assert (here.status(), here.git("diff"), here.git("diff", "--cached")) == before


@ON
@VERDICTS
def test_a_staged_edit_is_tried_and_only_the_branchs_index_moves(here: Here, branch: str, status: Status) -> None:
    here.begin(branch)
    before, after = here.text(), here.change("RATE = 1", "RATE = 2").decode()
    here.git("add", "train.py")
    index = here.git("ls-files", "--stage")
    here.session(status)
    assert here.text() == (after if status is Status.KEEP else before)
    if branch == BRANCH:
        assert here.clean()
    else:
        assert here.git("ls-files", "--stage") == index


def test_what_was_staged_and_then_changed_again_is_not_lost(here: Here) -> None:
    here.begin(BRANCH)
    here.change("RATE = 1", "RATE = 7")
    here.git("add", "train.py")
    here.change("RATE = 7", "RATE = 2")
    here.session(Status.DISCARD)
    assert "RATE = 7" in here.git("show", ":train.py")
    assert "RATE = 1" in here.text()


@ON
@VERDICTS
def test_a_file_that_was_edited_meanwhile_is_left_alone(here: Here, branch: str, status: Status) -> None:
    here.begin(branch)
    after = here.change("RATE = 1", "RATE = 2").decode()
    followed = here.session(status, meanwhile="NEXT = 1\n")
    assert here.text() == f"{after}NEXT = 1\n"
    assert followed.said.startswith("train.py was edited meanwhile and left unchanged")
    assert here.git("diff", "--cached") == ""
    here.change("RATE = 2", "RATE = 3")
    here.session(Status.KEEP)
    assert here.git("show", f"{BRANCH}:train.py") == here.text().strip() == f"{after}NEXT = 1".replace("= 2", "= 3")


@ON
def test_an_edit_that_was_measured_on_an_old_head_stays_on_the_new_one(here: Here, branch: str) -> None:
    here.begin(branch)
    here.change("RATE = 1", "RATE = 2")
    followed = here.session(Status.DISCARD, reason="stale")
    assert followed == Followed("the edit is still in train.py, on the new head: rerun the same command")
    assert here.text() == "RATE = 2\nDEPTH = 4\nWIDTH = 8\nSTEPS = 16\nTHEIRS = 1\n"
    assert here.git("diff", "--cached") == ""
    here.session(Status.KEEP)
    records = here.ratchet().records()
    assert records[1].proposal.source == records[3].proposal.source, "it is known again"
    assert here.git("show", f"{BRANCH}:train.py") == here.text().strip()


def test_an_old_edit_that_does_not_fit_the_new_head_is_set_aside(here: Here) -> None:
    here.begin(BRANCH)
    after = here.change("STEPS = 16\n", "STEPS = 17\nTHEIRS = 2\n")
    followed = here.session(Status.DISCARD, reason="stale")
    assert here.clean()
    assert here.text().endswith("THEIRS = 1\n")
    typed(followed.command, here.path)
    assert (here.root / "train.py").read_bytes() == after


@ON
def test_new_and_deleted_files_follow_too(tmp_path: Path, branch: str) -> None:
    here = Here(tmp_path / "repo", ("train.py", "models/*.py"))
    (here.path / "models").mkdir()
    (here.path / "models/old.py").write_text("x = 1\n")
    here.begin(branch)

    def change(rate: int) -> None:
        here.change("RATE = 1", f"RATE = {rate}")
        (here.path / "models/new.py").write_text(f"x = {rate}\n")
        (here.path / "models/old.py").unlink()

    change(2)
    followed = here.session(Status.DISCARD)
    assert here.status() == ""
    assert not (here.path / "models/new.py").exists()
    assert here.text("models/old.py") == "x = 1\n"
    typed(followed.command, here.path)
    assert here.text("models/new.py") == "x = 2\n"
    assert not (here.path / "models/old.py").exists()
    here.git("restore", "--staged", "--worktree", ".")
    change(3)
    here.session(Status.KEEP)
    assert here.ratchet().records()[2].proposal.description == "edit of 3 files (+2 -2)"
    if branch == BRANCH:
        assert here.clean()
        assert here.git("ls-files", "models") == "models/new.py"


def test_a_new_file_that_was_only_announced_to_git_is_clean_once_it_is_kept(tmp_path: Path) -> None:
    here = Here(tmp_path / "repo", ("*.py",)).begin(BRANCH)
    (here.path / "new.py").write_text("x = 1\n")
    here.git("add", "-N", "new.py")
    here.session(Status.KEEP)
    assert here.clean()


@ON
@pytest.mark.parametrize("how", ["in the commit", "by attribute", "by configuration"])
def test_line_ends_are_kept(here: Here, branch: str, how: str) -> None:
    if how == "by attribute":
        (here.path / ".gitattributes").write_text("*.py text eol=crlf\n")
    if how == "by configuration":
        here.git("config", "core.autocrlf", "true")
    here.change("\n", "\r\n")
    here.begin(branch)
    here.git("config", "core.safecrlf", "true")
    before = (here.root / "train.py").read_bytes()
    assert before.count(b"\r\n") == 4
    assert here.status() == ""
    here.change("RATE = 1", "RATE = 2")
    here.session(Status.DISCARD)
    assert (here.root / "train.py").read_bytes() == before
    after = here.change("RATE = 1", "RATE = 3")
    here.session(Status.KEEP)
    assert (here.root / "train.py").read_bytes() == after
    assert here.ratchet().records()[2].proposal.description == "edit of train.py (+1 -1)"
    if branch == BRANCH:
        assert here.clean()


def test_a_filter_of_the_users_is_applied_both_ways(here: Here) -> None:
    (here.path / ".gitattributes").write_text("*.py filter=shout\n")
    here.git("config", "filter.shout.clean", "tr a-z A-Z")
    here.git("config", "filter.shout.smudge", "tr A-Z a-z")
    here.git("config", "filter.shout.required", "true")
    here.begin()
    (here.path / "train.py").unlink()
    here.git("checkout", "-q", "--", "train.py")
    here.git("switch", "-q", BRANCH)
    before = here.text()
    assert before.startswith("rate = 1")
    here.change("rate = 1", "rate = 2")
    here.session(Status.DISCARD)
    assert here.text() == before
    assert here.clean()


@pytest.mark.parametrize("mode", [0o750, 0o664, 0o600])
def test_the_mode_of_a_file_is_kept(here: Here, mode: int) -> None:
    (here.root / "train.py").chmod(mode)
    here.begin(BRANCH)
    here.change("RATE = 1", "RATE = 2")
    here.session(Status.DISCARD)
    assert (here.root / "train.py").stat().st_mode & 0o777 == mode
    assert here.clean()


@ON
@VERDICTS
def test_a_root_below_the_top_of_the_repository(
    tmp_path: Path, branch: str, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Here(tmp_path / "repo", root="a/sub dir")
    here.root.mkdir(parents=True)
    (here.root / "train.py").write_bytes((here.path / "train.py").read_bytes())
    here.begin(branch)
    (here.path / "train.py").write_text("another file\n")
    before, after = here.text(), here.change("RATE = 1", "RATE = 2").decode()
    monkeypatch.chdir(here.path / "a")
    followed = here.session(status)
    assert here.text() == (after if status is Status.KEEP else before)
    assert (here.path / "train.py").read_text() == "another file\n"
    if branch == BRANCH:
        assert here.git("diff", "--cached", "--name-only") == ""
        assert here.git("diff-files", "--name-only") == "train.py"
    if status is Status.DISCARD:
        typed(followed.command, here.path / "a")
        assert here.text() == after


def test_a_worktree_of_the_users_own_follows_by_itself(here: Here, tmp_path: Path) -> None:
    here.begin()
    other = tmp_path / "other"
    here.git("worktree", "add", "-q", str(other), BRANCH)
    here.path, here.root, main = other, other, here.path
    here.change("RATE = 1", "RATE = 2")
    here.session(Status.KEEP)
    assert here.clean()
    assert git(main, "status", "--porcelain") == ""


# --------------------------------------------------------------------------------------------- kills, locks, mistakes


def test_a_keep_whose_session_was_killed_before_the_index_followed_is_finished(here: Here) -> None:
    here.begin(BRANCH)
    (here.path / "other.py").write_text("x = 1\n")
    here.git("add", "other.py")
    index, before = here.path / ".git/index", here.path / ".git/before"
    shutil.copy2(index, before)  # its time too: git trusts what an index remembers of files that are older
    here.change("RATE = 1", "RATE = 2")
    here.session(Status.KEEP)
    before.replace(index)
    assert "MM train.py" in here.status()
    ratchet = here.ratchet()
    Checkout(ratchet, here.editable).finish(ratchet.records())
    assert here.status() == "A  other.py"
    assert "RATE = 2" in here.text()


def test_an_older_version_that_was_staged_on_purpose_stays_staged(here: Here) -> None:
    here.begin(BRANCH)
    here.change("RATE = 1", "RATE = 2")
    here.session(Status.KEEP)
    here.git("checkout", "HEAD^", "--", "train.py")
    ratchet = here.ratchet()
    Checkout(ratchet, here.editable).finish(ratchet.records())
    assert here.status() == "M  train.py"


def test_a_locked_index_is_said_and_loses_nothing(here: Here) -> None:
    here.begin(BRANCH)
    after = here.change("RATE = 1", "RATE = 2")
    (here.path / ".git/index.lock").touch()
    followed = here.session(Status.KEEP)
    assert "train.py could not be updated after the verdict (git update-index: " in followed.said
    assert "index.lock" in followed.said
    (here.path / ".git/index.lock").unlink()
    assert (here.root / "train.py").read_bytes() == after
    ratchet = here.ratchet()
    Checkout(ratchet, here.editable).finish(ratchet.records())
    assert here.clean()


def test_a_candidate_that_was_never_committed_is_not_followed(here: Here) -> None:
    here.begin(BRANCH)
    after = here.change("RATE = 1", "RATE =")
    ratchet = here.ratchet()
    checkout = Checkout(ratchet, here.editable)
    assert checkout.edit() is not None
    refused = here.place.crashed(1, ratchet.head() or "")
    refused = replace(refused, proposal=replace(refused.proposal, proposer="checkout"))
    assert checkout.follow(refused) == Followed("not tried: the edit is still in train.py")
    assert (here.root / "train.py").read_bytes() == after


@pytest.mark.parametrize("branch", [MAIN, BRANCH])
def test_somebody_elses_keep_moves_a_checkout_on_the_branch_only(here: Here, branch: str) -> None:
    here.begin(branch)
    ratchet = here.ratchet()
    theirs = judged(here.theirs(1, ratchet.head() or ""))
    checkout = Checkout(ratchet, here.editable)
    ratchet.record(theirs)
    followed = checkout.follow(theirs)
    assert here.clean()
    assert ("THEIRS" in here.text()) is (branch == BRANCH)
    assert bool(followed.said) is (branch == BRANCH)


@ON
def test_nothing_to_try_is_a_mistake(here: Here, branch: str) -> None:
    here.begin(branch)
    ratchet = here.ratchet()
    with pytest.raises(UserError, match=r"no uncommitted change in train\.py to try: edit it first$"):
        Checkout(ratchet, here.editable).check()
    here.change("RATE = 1", "RATE = 2")
    here.session(Status.KEEP)
    with pytest.raises(UserError, match=r"edit it first$"):
        Checkout(ratchet, here.editable).check()


def test_where_a_commit_of_the_users_comes_in_between_the_edit_is_made_from_that(here: Here) -> None:
    here.begin()
    here.change("RATE = 1", "RATE = 2")
    here.session(Status.KEEP)
    here.git("checkout", "-q", "--", "train.py")
    here.change("WIDTH = 8", "WIDTH = 9")
    here.git("commit", "-qam", "Mine")
    here.change("STEPS = 16", "STEPS = 17")
    edit = Checkout(here.ratchet(), here.editable).edit()
    assert edit is not None
    assert (edit.added, edit.removed) == (1, 1)


def test_a_file_that_git_ignores_in_the_campaign_alone_is_refused_and_not_taken_away(tmp_path: Path) -> None:
    """What the lane's tree passes over would be in no commit, though the edit has it."""
    here = Here(tmp_path / "repo", ("*.py",))
    (here.path / ".gitignore").write_text("new.py\n")
    here.begin()
    (here.path / ".gitignore").write_text("")
    here.git("commit", "-qam", "No longer ignored")
    here.change("RATE = 1", "RATE = 2")
    (here.path / "new.py").write_text("x = 1\n")
    with pytest.raises(Refused, match=r"adds new\.py, which git ignores"):
        here.session(Status.DISCARD)
    assert here.text("new.py") == "x = 1\n"
    assert "RATE = 2" in here.text()


def test_a_file_that_is_edited_between_the_look_and_the_write_is_left_alone(here: Here) -> None:
    here.begin()
    head = here.git("rev-parse", "HEAD")
    files = EditableFiles(Git(here.path), here.editable)
    here.change("RATE = 1", "RATE = 2")
    now = files.working(head)
    here.change("RATE = 2", "RATE = 3")
    with files.scratch(head) as git_:
        assert files.bring(git_, now, [now.files]) == ["train.py"]
    assert "RATE = 3" in here.text()


def test_the_verdict_of_a_baseline_moves_nothing(here: Here) -> None:
    here.begin()
    here.change("RATE = 1", "RATE = 2")
    checkout = Checkout(here.ratchet(), here.editable)
    first = replace(here.place.baseline(), verdict=Verdict(Status.KEEP, "baseline", "1.0"))
    assert checkout.follow(first) == Followed()
    assert "RATE = 2" in here.text()
