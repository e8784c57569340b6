"""Git as the ledger: record and branch together or not at all, several sessions, kills, and the lanes' own trees."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from places import Place, attempt, git, judged

from pytest_autoresearch.core.errors import BaseMoved, GitError, MergeConflict, NumberTaken, UserError
from pytest_autoresearch.core.experiment import Experiment, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.worktree import Worktree

BRANCH = "refs/heads/autoresearch/t"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "repository")


@pytest.fixture
def ratchet(place: Place) -> Ratchet:
    """Of a campaign that has its baseline."""
    ratchet = place.ratchet()
    ratchet.record(place.baseline())
    return ratchet


def ref(number: int) -> str:
    return f"refs/autoresearch/t/{number:04d}"


# -------------------------------------------------------------------------------------------------- the transaction


def test_a_keep_is_a_record_and_a_branch_that_moved(place: Place, ratchet: Ratchet) -> None:
    kept = judged(place.candidate(1, place.start))
    ratchet.record(kept)
    assert place.head() == kept.commit
    assert git(place.path, "cat-file", "-t", ref(1)) == "tag"
    assert git(place.path, "rev-parse", f"{ref(1)}^{{commit}}") == kept.commit
    assert ratchet.records()[1] == kept


@pytest.mark.parametrize("status", [Status.DISCARD, Status.CRASH])
def test_what_is_not_kept_is_a_record_and_leaves_the_branch(place: Place, ratchet: Ratchet, status: Status) -> None:
    lost = judged(place.candidate(1, place.start), status)
    ratchet.record(lost)
    assert place.head() == place.start
    assert ratchet.records()[1] == lost


def test_a_campaign_in_a_repository_with_sha_256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    place = Place(tmp_path / "repository")
    assert len(place.start) == 64
    ratchet = place.ratchet()
    ratchet.record(place.baseline())
    tree = ratchet.worktree(0)
    tree.reset(place.start)
    (tree.folder / "train.py").write_text("RATE = 2\n")
    assert [change.path for change in tree.changes(place.start)] == ["train.py"]
    commit, made = tree.commit(place.start, "idea 1")
    assert tree.files(commit, lambda path: path == "train.py") == {"train.py": b"RATE = 2\n"}
    ratchet.record(judged(attempt(1, commit=commit, base=place.start, tree=made)))
    assert ratchet.head() == commit
    assert [record.commit for record in Ratchet(place.path).records("t")] == [place.start, commit]


def test_git_show_tells_an_experiment(place: Place, ratchet: Ratchet) -> None:
    ratchet.record(judged(place.candidate(1, place.start, "RATE = 7\n"), Status.DISCARD))
    said = git(place.path, "show", ref(1))
    assert '"status": "discard"' in said
    assert '"description": "idea 1"' in said
    assert "+RATE = 7" in said
    document = json.loads(git(place.path, "for-each-ref", "--format=%(contents)", ref(1)))
    assert next(iter(document.items())) == ("schema", 1)


def test_a_number_that_is_taken_moves_no_branch(place: Place, ratchet: Ratchet) -> None:
    first = judged(place.candidate(1, place.start), Status.DISCARD)
    ratchet.record(first)
    before = place.refs()
    with pytest.raises(NumberTaken, match="0001"):
        ratchet.record(judged(place.candidate(1, place.start, "RATE = 9\n")))
    assert place.refs() == before
    assert ratchet.records()[1] == first  # a record is immutable


def test_a_branch_that_moved_gets_no_record(place: Place, ratchet: Ratchet) -> None:
    ratchet.record(judged(place.candidate(1, place.start)))
    before = place.refs()
    with pytest.raises(BaseMoved):
        ratchet.record(judged(place.candidate(2, place.start)))
    assert place.refs() == before


@pytest.mark.parametrize("locked", [BRANCH, ref(1)], ids=["branch", "record"])
def test_a_ref_that_cannot_be_written_stops_the_other_too(place: Place, ratchet: Ratchet, locked: str) -> None:
    lock = place.path / ".git" / f"{locked}.lock"
    lock.touch()
    before = place.refs()
    with pytest.raises(GitError, match="lock") as raised:
        ratchet.record(judged(place.candidate(1, place.start)))
    assert type(raised.value) is GitError
    lock.unlink()
    assert place.refs() == before
    ratchet.record(judged(place.candidate(1, place.start)))
    assert place.head() != place.start


def test_a_campaign_is_one_of_several(place: Place, ratchet: Ratchet) -> None:
    other = place.ratchet("u")
    other.record(place.baseline("u"))
    other.record(judged(place.candidate(1, place.start, tag="u")))
    assert [record.number for record in ratchet.records()] == [0]
    assert [record.number for record in ratchet.records("u")] == [0, 1]
    assert place.head() == place.start
    assert sorted(ratchet.campaigns()) == ["t", "u"]
    assert all(abs(when - time.time()) < 100 for when in ratchet.campaigns().values())


def test_discarded_work_outlives_garbage_collection(place: Place, ratchet: Ratchet) -> None:
    lost = [judged(place.candidate(number, place.start), Status.DISCARD) for number in range(1, 4)]
    for experiment in lost:
        ratchet.record(experiment)
    waiting = place.candidate(4, place.start)
    ratchet.leave_waiting(waiting)
    git(place.path, "reflog", "expire", "--expire=now", "--all")
    git(place.path, "gc", "-q", "--prune=now")
    for experiment in (*lost, waiting):
        assert git(place.path, "show", f"{experiment.commit}:train.py") == f"RATE = {experiment.number}"
    assert ratchet.records()[1:] == lost
    assert ratchet.waiting() == [waiting]


def test_all_records_are_read_in_one_git_command(
    place: Place, ratchet: Ratchet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 10):
        ratchet.record(judged(place.candidate(number, place.start), Status.DISCARD))
    trace = tmp_path / "trace"
    monkeypatch.setenv("GIT_TRACE", str(trace))
    assert len(ratchet.records()) == 10
    started = [line for line in trace.read_text().splitlines() if "built-in: git" in line]
    assert len(started) == 1, started
    assert "for-each-ref" in started[0]


@pytest.mark.parametrize("text", ['{"schema": 2}', "{}", "no json", ""])
def test_a_record_of_another_version_is_a_sentence_that_names_it(place: Place, ratchet: Ratchet, text: str) -> None:
    git(place.path, "-c", "core.editor=true", "tag", "-a", "-m", text or "x", "made", place.start)
    git(place.path, "update-ref", ref(1), git(place.path, "rev-parse", "refs/tags/made"))
    with pytest.raises(UserError, match=r"refs/autoresearch/t/0001 cannot be read .*: choose another --autoresearch-t"):
        ratchet.records()


def test_a_ref_that_is_no_record_is_a_sentence(place: Place, ratchet: Ratchet) -> None:
    git(place.path, "update-ref", ref(1), place.start)
    with pytest.raises(UserError, match="0001 cannot be read"):
        ratchet.records()


# ----------------------------------------------------------------------------------------------- several sessions


def test_a_taken_number_is_not_an_error_the_record_takes_the_next_and_says_so(place: Place) -> None:
    mine, theirs = (place.ledger(place.ratchet()) for _ in range(2))
    mine.record(place.baseline())
    theirs.record(judged(place.candidate(1, place.start), Status.DISCARD))
    done = mine.record(judged(place.candidate(1, place.start, "RATE = 7\n")))
    assert (done.number, done.planned_number) == (2, 1)
    assert [record.planned_number for record in place.ratchet().records()] == [None, None, 1]
    assert place.head() == done.commit
    assert mine.incumbent == done


def test_a_keep_on_a_base_that_moved_is_a_discard_to_be_tried_again(place: Place) -> None:
    mine, theirs = (place.ledger(place.ratchet()) for _ in range(2))
    mine.record(place.baseline())
    winner = theirs.record(judged(place.candidate(1, place.start)))
    done = mine.record(judged(place.candidate(2, place.start)))
    assert done.verdict is not None
    assert (done.verdict.status, done.verdict.reason) == (Status.DISCARD, "stale")
    assert place.start[:7] in done.verdict.message
    assert winner.commit[:7] in done.verdict.message
    assert place.head() == winner.commit
    assert mine.base() == winner.commit


def test_a_discard_on_a_base_that_moved_stays_a_discard(place: Place) -> None:
    mine, theirs = (place.ledger(place.ratchet()) for _ in range(2))
    mine.record(place.baseline())
    theirs.record(judged(place.candidate(1, place.start)))
    done = mine.record(judged(place.candidate(2, place.start), Status.DISCARD, "not-improved"))
    assert done.verdict is not None
    assert done.verdict.reason == "not-improved"


def test_a_second_sessions_baseline_is_the_first_ones(place: Place) -> None:
    mine, theirs = (place.ledger(place.ratchet()) for _ in range(2))
    first = mine.record(place.baseline())
    second = theirs.record(replace(place.baseline(), finished_at=5.0))
    assert second == first
    assert len(theirs.records) == 1
    assert len((place.path / "results.tsv").read_text().splitlines()) == 2


def test_of_sessions_that_keep_at_the_same_moment_one_wins(place: Place) -> None:
    """In each round four sessions keep a candidate of their own on the same base."""
    ledgers = [place.ledger(place.ratchet()) for _ in range(4)]
    ledgers[0].record(place.baseline())
    head, rounds = place.start, 3
    for turn in range(rounds):
        tried = [judged(place.candidate(1 + 4 * turn, head, f"RATE = {turn}.{n}\n")) for n in range(4)]
        done = together([partial(ledger.record, mine) for ledger, mine in zip(ledgers, tried, strict=True)])
        kept = [experiment for experiment in done if experiment.verdict and experiment.verdict.status is Status.KEEP]
        assert len(kept) == 1
        assert {experiment.verdict.reason for experiment in done if experiment.verdict} == {"keep", "stale"}
        head = kept[0].commit
        assert place.head() == head
    records = place.ratchet().records()
    assert [record.number for record in records] == list(range(1 + 4 * rounds))
    assert len({record.commit for record in records}) == len(records)
    assert [record.commit for record in chain(records)][-1] == head


def together(calls: list[Callable[[], Experiment]]) -> list[Experiment]:
    """Make the calls at the same moment, each on a thread of its own; what they return."""
    barrier = threading.Barrier(len(calls))
    done: list[Experiment] = []

    def call(one: Callable[[], Experiment]) -> None:
        barrier.wait()
        done.append(one())

    threads = [threading.Thread(target=call, args=(one,)) for one in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == len(calls)
    return done


def test_candidates_left_waiting_by_two_sessions_are_both_found(place: Place, ratchet: Ratchet) -> None:
    mine, theirs = place.candidate(1, place.start), place.candidate(1, place.start, "RATE = 7\n")
    ratchet.leave_waiting(mine)
    place.ratchet().leave_waiting(theirs)
    assert {candidate.commit for candidate in ratchet.waiting()} == {mine.commit, theirs.commit}


def test_a_row_of_a_file_that_was_deleted_in_between_is_not_the_only_one(place: Place) -> None:
    ledger = place.ledger(place.ratchet())
    ledger.record(place.baseline())
    (place.path / "results.tsv").unlink()
    ledger.record(judged(place.candidate(1, place.start), Status.DISCARD))
    lines = (place.path / "results.tsv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("commit\t")


# --------------------------------------------------------------------------------------------------- after a kill


def test_a_record_whose_branch_did_not_move_is_finished(place: Place, ratchet: Ratchet) -> None:
    keeps = [judged(place.candidate(1, place.start))]
    keeps.append(judged(place.candidate(2, keeps[0].commit)))
    for experiment in keeps:
        ratchet.record(experiment)
    git(place.path, "update-ref", BRANCH, keeps[0].commit)
    ratchet.close()
    assert place.ratchet().head() == keeps[1].commit
    assert place.head() == keeps[1].commit


@pytest.mark.parametrize("keeps", [0, 1, 2])
def test_a_branch_that_a_ci_checkout_deleted_is_rebuilt_from_the_records(place: Place, keeps: int) -> None:
    ratchet = place.ratchet()
    ratchet.record(place.baseline())
    head = place.start
    for number in range(1, keeps + 1):
        experiment = judged(place.candidate(number, head))
        ratchet.record(experiment)
        head = experiment.commit
    ratchet.record(judged(place.candidate(9, head), Status.DISCARD))
    ratchet.close()
    git(place.path, "branch", "-D", "autoresearch/t")
    place.ratchet()
    assert place.head() == head


def lock_files(place: Place) -> list[Path]:
    """What a git that was killed in a transaction leaves."""
    locks = [place.path / ".git" / f"{name}.lock" for name in (BRANCH, ref(1), f"{ref(1)[:-4]}waiting/0001")]
    for lock in locks:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    return locks


def test_locks_that_a_dead_session_left_are_cleared(place: Place, ratchet: Ratchet) -> None:
    locks = lock_files(place)
    ratchet.close()
    place.ratchet().record(judged(place.candidate(1, place.start)))
    assert not any(lock.exists() for lock in locks)
    assert place.head() != place.start


def test_locks_stay_while_another_session_lives_and_may_hold_them(place: Place, ratchet: Ratchet) -> None:
    locks = lock_files(place)
    other = place.ratchet()
    assert all(lock.exists() for lock in locks)
    ratchet.close()
    place.ratchet()  # `other` still lives
    assert all(lock.exists() for lock in locks)
    other.close()


def test_locks_of_other_branches_and_campaigns_are_nobodys_business(place: Place, ratchet: Ratchet) -> None:
    theirs = [place.path / ".git/refs/heads/main.lock", place.path / ".git/refs/autoresearch/u/0001.lock"]
    for lock in theirs:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    ratchet.close()
    place.ratchet()
    assert all(lock.exists() for lock in theirs)


def test_a_session_that_is_killed_is_not_taken_for_a_living_one(place: Place, ratchet: Ratchet) -> None:
    ratchet.close()
    hold = (
        "import sys; from places import Place, Ratchet, Path; r = Ratchet(Path(sys.argv[1])); r.choose('t'); r.open()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; print('open', flush=True); sys.stdin.read()", str(place.path)],
        cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        locks = lock_files(place)
        place.ratchet().close()
        assert all(lock.exists() for lock in locks)
        other.kill()
    place.ratchet()
    assert not any(lock.exists() for lock in locks)


def test_a_branch_moved_by_hand_is_a_sentence_whose_command_puts_it_right(place: Place, ratchet: Ratchet) -> None:
    ratchet.close()
    git(place.path, "update-ref", BRANCH, place.candidate(1, place.start).commit)
    with pytest.raises(UserError, match=r"^the branch autoresearch/t is at \w{7}, which no experiment") as raised:
        place.ratchet()
    command = str(raised.value).split("`")[1]
    subprocess.run(command, shell=True, cwd=place.path, check=True, capture_output=True)
    assert place.ratchet().head() == place.start


def test_a_branch_without_records_is_a_sentence(place: Place) -> None:
    git(place.path, "branch", "autoresearch/t")
    with pytest.raises(UserError, match="autoresearch/t"):
        place.ratchet()


@pytest.mark.parametrize("name", ["autoresearch", "autoresearch/t/mine"])
def test_a_branch_in_the_way_of_ours_is_a_sentence_before_anything_is_trained(place: Place, name: str) -> None:
    git(place.path, "branch", name)
    with pytest.raises(UserError, match=name):
        place.ratchet()


def test_a_baseline_that_cannot_be_recorded_is_an_error_and_not_an_endless_loop(place: Place) -> None:
    ledger = place.ledger(place.ratchet())
    git(place.path, "branch", "autoresearch/t")  # while the baseline was training
    with limited(5), pytest.raises(GitError):
        ledger.record(place.baseline())


def test_a_keep_whose_branch_was_deleted_under_it_is_an_error_and_the_next_start_mends_it(place: Place) -> None:
    ledger = place.ledger(ratchet := place.ratchet())
    ledger.record(place.baseline())
    git(place.path, "branch", "-D", "autoresearch/t")
    with limited(5), pytest.raises(GitError):
        ledger.record(judged(place.candidate(1, place.start)))
    ratchet.close()
    ledger = place.ledger(place.ratchet())
    assert place.head() == place.start
    assert ledger.record(judged(place.candidate(1, place.start))).number == 1


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """What is inside must be done by then."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"it is still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------------------------------------------- the lanes


def lane(place: Place, ratchet: Ratchet, number: int = 0) -> Worktree:
    """A lane's tree at the campaign's head."""
    tree = ratchet.worktree(number)
    tree.reset(place.start)
    return tree


def train(tree: Worktree, text: str) -> None:
    (tree.top / "train.py").write_text(text)


def test_a_tree_is_reset_to_exactly_the_commit(place: Place, ratchet: Ratchet) -> None:
    tree = lane(place, ratchet)
    train(tree, "changed")
    (tree.top / "untracked").write_text("x")
    (tree.top / "weights.bin").write_text("ignored")
    (tree.out / "model.pt").write_text("x")
    git(tree.top, "init", "-q", "nested")
    (tree.top / "nested" / "file").write_text("x")
    git(tree.top, "add", "untracked")
    tree.reset(place.start)
    assert sorted(path.name for path in tree.top.iterdir()) == [".git", ".gitignore", "train.py"]
    assert (tree.top / "train.py").read_text() == (place.path / "train.py").read_text()
    assert list(tree.out.iterdir()) == []
    assert tree.changes(place.start) == []


def test_a_lane_that_another_session_holds_is_passed_over(place: Place, ratchet: Ratchet) -> None:
    mine, theirs = ratchet.worktree(0), place.ratchet().worktree(0)
    assert mine.top != theirs.top
    mine.reset(place.start)
    train(mine, "mine")
    theirs.reset(place.start)
    assert (mine.top / "train.py").read_text() == "mine"
    mine.release()
    assert place.ratchet().worktree(0).top == mine.top


def test_lanes_made_at_the_same_moment_are_different_trees(place: Place) -> None:
    sessions = [place.ratchet() for _ in range(12)]
    trees: list[Worktree] = []
    threads = [threading.Thread(target=lambda one=one: trees.append(one.worktree(0))) for one in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tree.top for tree in trees}) == 12
    for tree in trees:
        tree.reset(place.start)


def test_a_candidate_is_committed_on_its_base_and_no_branch_moves(place: Place, ratchet: Ratchet) -> None:
    tree = lane(place, ratchet)
    before = place.refs()
    train(tree, "RATE = 2\n")
    assert [(change.path, change.kind, change.regular) for change in tree.changes(place.start)] == [
        ("train.py", "M", True)
    ]
    commit, tree_hash = tree.commit(place.start, "Twice the rate\n\nIt is low.")
    assert git(place.path, "log", "-1", "--format=%P %T %an %ae %B", commit) == (
        f"{place.start} {tree_hash} Ada ada@example.org Twice the rate\n\nIt is low."
    )
    assert git(place.path, "show", f"{commit}:train.py") == "RATE = 2"
    assert place.refs() == before


@pytest.mark.parametrize("said", ["a\0b", "\ud83d", "'\"`$(x)\\", "\u2028\x1b[31m"])
def test_a_commits_message_may_hold_anything_that_a_proposer_says(place: Place, ratchet: Ratchet, said: str) -> None:
    tree = lane(place, ratchet)
    train(tree, "RATE = 2\n")
    tree.changes(place.start)
    commit, _ = tree.commit(place.start, f"An idea\n\n{said}")
    assert git(place.path, "log", "-1", "--format=%s", commit) == "An idea"


def test_every_kind_of_change_is_seen(place: Place, ratchet: Ratchet) -> None:
    (place.path / "was here").write_text("x\n" * 50)
    (place.path / "run.sh").write_text("true\n")
    git(place.path, "add", "-A")
    git(place.path, "commit", "-qm", "More")
    base = git(place.path, "rev-parse", "HEAD")
    tree = ratchet.worktree(0)
    tree.reset(base)
    train(tree, "RATE = 2\n")
    (tree.top / "was here").rename(tree.top / "now here")
    (tree.top / "run.sh").chmod(0o755)
    (tree.top / "link.py").symlink_to("/etc/passwd")
    (tree.top / "line\nend \té").write_text("x")
    (tree.top / os.fsdecode(b"\xff")).write_text("x")
    (tree.top / "ignored.bin").write_text("x")
    assert {change.path: (change.kind, change.regular) for change in tree.changes(base)} == {
        "train.py": ("M", True),
        "was here": ("D", True),
        "now here": ("A", True),
        "run.sh": ("M", False),
        "link.py": ("A", False),
        "line\nend \té": ("A", True),
        os.fsdecode(b"\xff"): ("A", True),
    }


def test_a_head_that_somebody_attached_in_the_lane_moves_no_branch(place: Place, ratchet: Ratchet) -> None:
    tree = lane(place, ratchet)
    git(place.path, "branch", "mine")
    for name in ("mine", "autoresearch/t"):
        git(tree.top, "checkout", "-q", "--ignore-other-worktrees", name)
        other = place.candidate(5, place.start)
        tree.reset(other.commit)
        train(tree, f"RATE = '{name}'\n")
        tree.changes(other.commit)
        tree.reset(tree.commit(other.commit, "x")[0])
        assert git(place.path, "rev-parse", name) == place.start
    assert git(tree.top, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"


@pytest.mark.parametrize("name", ["index.lock", "HEAD.lock"])
def test_a_lock_that_a_killed_git_left_in_the_lane_is_cleared(place: Place, ratchet: Ratchet, name: str) -> None:
    tree = lane(place, ratchet)
    (Path(git(tree.top, "rev-parse", "--absolute-git-dir")) / name).touch()
    tree.release()
    again = place.ratchet().worktree(0)
    assert again.top == tree.top
    again.reset(place.candidate(1, place.start).commit)


@pytest.mark.parametrize("damage", ["empty", "no .git", "gone", "all gone"])
def test_a_damaged_lane_is_made_anew(place: Place, ratchet: Ratchet, damage: str) -> None:
    tree = lane(place, ratchet)
    tree.release()
    if damage == "no .git":
        (tree.top / ".git").unlink()
    elif damage == "all gone":
        shutil.rmtree(ratchet.home)
    else:
        shutil.rmtree(tree.top)
        if damage == "empty":
            tree.top.mkdir()
    again = lane(place, place.ratchet())
    assert (again.top / "train.py").read_text() == (place.path / "train.py").read_text()


def test_a_repository_that_was_moved_works_again(place: Place, ratchet: Ratchet, tmp_path: Path) -> None:
    lane(place, ratchet).release()
    ratchet.close()
    moved = tmp_path / "elsewhere" / "repository"
    moved.parent.mkdir()
    place.path.rename(moved)
    place.path = moved
    ratchet = place.ratchet()
    tree = lane(place, ratchet)
    assert tree.top.is_relative_to(moved)
    train(tree, "RATE = 2\n")
    tree.changes(place.start)
    commit, tree_hash = tree.commit(place.start, "x")
    ratchet.record(judged(attempt(1, commit=commit, base=place.start, tree=tree_hash)))
    assert place.head() == commit


def test_a_copy_of_a_repository_works_without_touching_the_original(
    place: Place, ratchet: Ratchet, tmp_path: Path
) -> None:
    original = lane(place, ratchet)
    copied = tmp_path / "copy"
    shutil.copytree(place.path, copied, symlinks=True)
    copy = Ratchet(copied)
    copy.choose("t")
    copy.open()
    tree = copy.worktree(0)
    tree.reset(place.start)
    train(tree, "RATE = 'copy'\n")
    tree.changes(place.start)
    commit, tree_hash = tree.commit(place.start, "x")
    copy.record(judged(attempt(1, commit=commit, base=place.start, tree=tree_hash)))
    assert copy.head() == commit
    assert git(original.top, "rev-parse", "HEAD") == place.start
    assert git(original.top, "status", "--porcelain") == ""


def test_a_users_own_worktree_that_is_away_for_now_is_not_forgotten(place: Place, tmp_path: Path) -> None:
    git(place.path, "worktree", "add", "-q", "-b", "side", str(tmp_path / "stick"))
    (tmp_path / "stick").rename(tmp_path / "unplugged")
    lane(place, place.ratchet())
    (tmp_path / "unplugged").rename(tmp_path / "stick")
    assert git(tmp_path / "stick", "rev-parse", "--abbrev-ref", "HEAD") == "side"


def test_a_repository_reached_through_a_link_keeps_its_lanes(place: Place, ratchet: Ratchet, tmp_path: Path) -> None:
    tree = lane(place, ratchet)
    (tree.top / "weights.bin").write_text("x")
    tree.release()
    (tmp_path / "link").symlink_to(place.path)
    linked = Ratchet(tmp_path / "link")
    linked.choose("t")
    linked.open()
    assert (linked.worktree(0).top / "weights.bin").exists()  # the same tree, not made anew


def test_a_filter_of_the_repository_does_not_change_what_is_committed(place: Place, ratchet: Ratchet) -> None:
    (place.path / ".gitattributes").write_text("train.py filter=shout\n")
    git(place.path, "add", "-A")
    git(place.path, "commit", "-qm", "Attributes")
    base = git(place.path, "rev-parse", "HEAD")
    for side in ("clean", "smudge"):
        git(place.path, "config", f"filter.shout.{side}", "sed s/RATE/SHOUT/")
    tree = ratchet.worktree(0)
    tree.reset(base)
    assert (tree.top / "train.py").read_text() == (place.path / "train.py").read_text()
    train(tree, "RATE = 2\n")
    tree.changes(base)
    commit, _ = tree.commit(base, "x")
    assert git(place.path, "show", f"{commit}:train.py") == "RATE = 2"
    assert (tree.top / "train.py").read_text() == "RATE = 2\n"


def test_the_line_ends_of_the_users_checkout_are_not_the_candidates(place: Place, ratchet: Ratchet) -> None:
    git(place.path, "config", "core.autocrlf", "true")
    tree = lane(place, ratchet)
    assert b"\r" not in (tree.top / "train.py").read_bytes()
    train(tree, "RATE = 2\r\n")
    tree.changes(place.start)
    commit, _ = tree.commit(place.start, "x")
    done = subprocess.run(["git", "show", f"{commit}:train.py"], cwd=place.path, capture_output=True, check=True)
    assert done.stdout == b"RATE = 2\r\n"


def test_a_candidate_is_compared_with_the_keep_that_it_was_made_from(place: Place, ratchet: Ratchet) -> None:
    ledger = place.ledger(ratchet)
    ledger.record(place.baseline())
    first = ledger.record(judged(place.candidate(1, place.start)))
    second = ledger.record(judged(place.candidate(2, first.commit)))
    assert [ledger.kept_at(commit) for commit in (first.commit, second.commit, "f" * 40)] == [first, second, second]


# ------------------------------------------------------------------------------------------- bringing a change along

LINES = [f"LINE_{n} = {n}\n" for n in range(20)]


def changed(place: Place, base: str, **lines: str) -> str:
    """A commit on the base with some lines changed, named `_3="x"`."""
    text = list(LINES)
    for name, value in lines.items():
        text[int(name[1:])] = f"{value}\n"
    return place.candidate(1, base, "".join(text)).commit


def brought(place: Place, ratchet: Ratchet, head: str, commit: str) -> str:
    tree = ratchet.worktree(0)
    tree.reset(head)
    tree.bring(commit)
    return (tree.top / "train.py").read_text()


def test_a_change_is_brought_to_a_head_that_changed_elsewhere(place: Place, ratchet: Ratchet) -> None:
    base = changed(place, place.start)
    head, mine = changed(place, base, _2="HEAD = 1"), changed(place, base, _17="MINE = 1")
    assert brought(place, ratchet, head, mine).splitlines()[2] == "HEAD = 1"
    assert brought(place, ratchet, head, mine).splitlines()[17] == "MINE = 1"


def test_where_both_changed_a_line_it_is_a_conflict(place: Place, ratchet: Ratchet) -> None:
    base = changed(place, place.start)
    head = changed(place, base, _2="HEAD = 1", _10="HEAD = 1", _12="HEAD = 1")
    with pytest.raises(MergeConflict) as conflict:
        brought(place, ratchet, head, changed(place, base, _10="MINE = 1", _12="MINE = 2"))
    assert conflict.value.lines == (("HEAD = 1", "MINE = 1"), ("HEAD = 1", "MINE = 2"))
    assert str(conflict.value) == ("both sides changed train.py: `HEAD = 1` and `MINE = 1`, `HEAD = 1` and `MINE = 2`")


def test_a_change_of_a_keep_that_is_taken_back_is_brought_to_the_head_before(place: Place, ratchet: Ratchet) -> None:
    head = changed(place, place.start)
    gone = changed(place, head, _2="GONE = 1", _10="GONE = 1")
    mine = changed(place, gone, _2="GONE = 1", _10="MINE = 1")
    lines = brought(place, ratchet, head, mine).splitlines()
    assert (lines[2], lines[10]) == ("LINE_2 = 2", "MINE = 1")


def test_a_line_beside_the_candidates_stays_as_the_head_has_it(place: Place, ratchet: Ratchet) -> None:
    base = changed(place, place.start)
    head = changed(place, base, _9="HEAD = 1", _11="HEAD = 1")
    lines = brought(place, ratchet, head, changed(place, base, _10="MINE = 1", _12="MINE = 1")).splitlines()
    assert lines[9:13] == ["HEAD = 1", "MINE = 1", "HEAD = 1", "MINE = 1"]


def test_a_change_that_the_head_has_already_changes_nothing(place: Place, ratchet: Ratchet) -> None:
    base = changed(place, place.start)
    head = changed(place, base, _2="THE SAME = 1")
    tree = ratchet.worktree(0)
    tree.reset(head)
    tree.bring(changed(place, base, _2="THE SAME = 1"))
    assert tree.changes(head) == []


def test_a_change_that_cannot_be_brought_is_an_error_and_leaves_no_trace(place: Place, ratchet: Ratchet) -> None:
    base = changed(place, place.start)
    empty = git(place.path, "mktree", stdin="")
    gone = git(place.path, "commit-tree", empty, "-p", base, "-m", "Delete it")
    tree = ratchet.worktree(0)
    tree.reset(gone)
    with pytest.raises(GitError):
        tree.bring(changed(place, base, _2="MINE = 1"))
    tree.reset(base)
    assert git(tree.top, "status", "--porcelain", "--branch") == "## HEAD (no branch)"
    assert not (Path(git(tree.top, "rev-parse", "--absolute-git-dir")) / "CHERRY_PICK_HEAD").exists()


# ------------------------------------------------------------------------------------------- looking at the checkout


def test_what_is_not_committed_is_named_as_seen_from_the_root(place: Place) -> None:
    sub = place.path / "sub"
    (sub / "harness").mkdir(parents=True)
    (sub / "harness" / "a.py").write_text("x")
    (sub / "conftest.py").write_text("x")
    git(place.path, "add", "-A")
    git(place.path, "commit", "-qm", "sub")
    ratchet = Ratchet(sub)
    assert ratchet.dirty(["harness", "conftest.py"]) == []
    (sub / "conftest.py").write_text("y")
    (sub / "harness" / "b.py").write_text("new")
    (place.path / "train.py").write_text("not asked for")
    assert sorted(ratchet.dirty(["harness", "conftest.py"])) == ["conftest.py", "harness/b.py"]


def test_a_checkout_with_line_ends_of_its_own_is_not_dirty(place: Place) -> None:
    git(place.path, "config", "core.autocrlf", "true")
    (place.path / "train.py").unlink()
    git(place.path, "checkout", "-q", "--", "train.py")
    assert b"\r\n" in (place.path / "train.py").read_bytes()
    os.utime(place.path / "train.py", (1e9, 1e9))  # git looks at the text again
    assert Ratchet(place.path).dirty(["train.py"]) == []


def test_the_harness_hash_follows_what_is_committed_and_only_that(place: Place) -> None:
    def hashed() -> str:
        return Ratchet(place.path).tree_hash(["harness"])

    nothing = hashed()
    (place.path / "harness").mkdir()
    (place.path / "harness" / "a.py").write_text("x")
    assert hashed() == nothing
    git(place.path, "add", "-A")
    git(place.path, "commit", "-qm", "harness")
    first = hashed()
    assert first != nothing
    (place.path / "train.py").write_text("RATE = 3\n")
    git(place.path, "commit", "-qam", "elsewhere")
    assert hashed() == first
    (place.path / "harness" / "a.py").write_text("y")
    git(place.path, "commit", "-qam", "harness")
    assert hashed() != first


def test_a_campaign_named_like_a_lane_does_not_wait_for_it(place: Place) -> None:
    held = place.ratchet().worktree(0)
    with limited(3):
        named = place.ratchet("lane-0")
    named.close()
    held.release()
