"""Somebody else's branch is replayed by real git: each commit once, in order, onto the head of the moment."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from places import refusal
from trees import TRAIN, Tree, recorded

from pytest_autoresearch.core.errors import Refused, UserError
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.proposers.commits import CommitsProposer, resolve
from pytest_autoresearch.source.editable import Editable

EDITABLE = Editable(("train.py",))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Its branch `theirs` begins at main's first commit."""
    tree = Tree(tmp_path)
    tree.git("checkout", "-q", "-b", "theirs")
    return tree


def replay(tree: Tree, given: str = "main..theirs", editable: Editable = EDITABLE) -> CommitsProposer:
    """The proposer of a session that is started on main, in a tree at main's head."""
    tree.git("checkout", "-q", "main")
    return CommitsProposer(resolve(given, tree.top, editable))


def next_change(tree: Tree, proposer: CommitsProposer) -> tuple[str, set[str]] | None:
    """The next proposal's description, and the lines that it brought; the tree is as it was."""
    before = set(tree.text().splitlines())
    proposal = proposer.propose(tree.context())
    if proposal is None:
        return None
    brought = set(tree.text().splitlines()) - before
    tree.git("checkout", "-q", ".")
    return proposal.description, brought


def test_each_commit_is_proposed_once_oldest_first_with_its_message_and_hash(tree: Tree) -> None:
    first = tree.change("LINE_10 = 10", "LINE_10 = 100", "Größer: ten times\n\nMore steps help.\n\nÜberall.")
    tree.change("LINE_2 = 2", "LINE_2 = 22", "deeper")
    proposer = replay(tree)

    proposal = proposer.propose(tree.context())
    assert proposal == Proposal("Größer: ten times", "More steps help.\n\nÜberall.", "commits", f"commits:{first}")
    assert tree.text() == TRAIN.replace("LINE_10 = 10", "LINE_10 = 100")
    assert tree.git("diff", "--cached") == ""  # the index is the campaign's, not ours
    tree.git("checkout", "-q", ".")

    assert next_change(tree, proposer) == ("deeper", {"LINE_2 = 22"})
    assert proposer.propose(tree.context()) is None
    assert proposer.repair(tree.context(), proposal, refusal("no")) is None


def test_a_commit_is_merged_into_a_head_that_has_moved_on(tree: Tree) -> None:
    tree.change("LINE_10 = 10", "LINE_10 = 100", "theirs")
    proposer = replay(tree)
    tree.change("LINE_1 = 1\n", "")
    tree.change("LINE_8 = 8", "LINE_8 = 88")
    assert next_change(tree, proposer) == ("theirs", {"LINE_10 = 100"})


def test_a_commit_is_merged_into_a_head_that_changed_the_lines_beside_it(tree: Tree) -> None:
    tree.change("LINE_10 = 10", "LINE_10 = 100", "theirs")
    proposer = replay(tree)
    tree.change("LINE_9 = 9\n", "LINE_9 = 99\n")
    tree.change("LINE_11 = 11\n", "LINE_11 = 111\n")
    assert next_change(tree, proposer) == ("theirs", {"LINE_10 = 100"})


def test_a_new_session_goes_on_after_what_the_records_hold(tree: Tree) -> None:
    tree.change("LINE_3 = 3", "LINE_3 = 33", "one")
    tree.change("LINE_13 = 13", "LINE_13 = 0", "two")
    first = replay(tree).propose(tree.context())
    tree.git("checkout", "-q", ".")
    second = replay(tree).propose(tree.context((recorded(first), recorded(Proposal("other", source="search")))))
    assert second is not None
    assert second.description == "two"


def test_the_range_is_what_it_was_when_the_session_began(tree: Tree) -> None:
    tree.change("LINE_3 = 3", "LINE_3 = 33", "one")
    proposer = replay(tree)
    tree.git("checkout", "-q", "theirs")
    tree.change("LINE_5 = 5", "LINE_5 = 55", "late")
    tree.git("checkout", "-q", "main")
    assert next_change(tree, proposer) == ("one", {"LINE_3 = 33"})
    assert next_change(tree, proposer) is None


def test_a_commit_that_does_not_apply_is_refused_by_name_and_the_next_one_comes(tree: Tree) -> None:
    bad = tree.change("LINE_10 = 10", "LINE_10 = 100", "a clash")
    tree.change("LINE_20 = 20", "LINE_20 = 0", "fine")
    proposer = replay(tree)
    head = tree.change("LINE_10 = 10", "LINE_10 = 7")
    before = tree.state()
    lines = "`LINE_10 = 7` and `LINE_10 = 100`"
    sentence = f"^commit {bad[:7]} does not apply to {head[:7]}: both sides changed train.py: {lines}$"
    with pytest.raises(Refused, match=sentence) as refused:
        proposer.propose(tree.context())
    assert refused.value.proposal == Proposal("a clash", "", "commits", f"commits:{bad}")
    assert refused.value.crash.reason == "stale"
    assert tree.state() == before
    assert next_change(tree, proposer) == ("fine", {"LINE_20 = 0"})


def test_only_what_a_commit_does_to_editable_files_is_replayed(tree: Tree) -> None:
    tree.commit("notes only", "notes.md", "so and so\n")
    (tree.top / "notes.md").write_text("more\n")
    tree.git("add", "notes.md")
    tree.change("LINE_4 = 4", "LINE_4 = 44", "both")
    proposer = replay(tree)
    before = tree.git("status", "--porcelain")
    proposal = proposer.propose(tree.context())
    assert proposal is not None
    assert proposal.description == "both"
    assert (before, tree.git("status", "--porcelain")) == ("", " M train.py\n")
    assert proposer.propose(tree.context()) is None


def test_what_the_head_has_already_is_passed_over(tree: Tree) -> None:
    tree.change("LINE_10 = 10", "LINE_10 = 100", "had it")
    tree.change("LINE_2 = 2", "LINE_2 = 22", "new")
    proposer = replay(tree)
    tree.change("LINE_10 = 10", "LINE_10 = 100", "the same by hand")
    assert next_change(tree, proposer) == ("new", {"LINE_2 = 22"})


def test_a_merge_is_one_patch_of_all_that_it_brought_in(tree: Tree) -> None:
    tree.change("LINE_2 = 2", "LINE_2 = 22", "before")
    tree.git("checkout", "-q", "-b", "side")
    tree.change("LINE_10 = 10", "LINE_10 = 100", "side one")
    tree.change("LINE_20 = 20", "LINE_20 = 200", "side two")
    tree.git("checkout", "-q", "theirs")
    tree.git("merge", "-q", "--no-ff", "-m", "a merge", "side")
    proposer = replay(tree)
    assert next_change(tree, proposer) == ("before", {"LINE_2 = 22"})
    assert next_change(tree, proposer) == ("a merge", {"LINE_10 = 100", "LINE_20 = 200"})
    assert next_change(tree, proposer) is None


def test_globs_and_new_files_in_a_project_that_is_a_subfolder(tree: Tree) -> None:
    tree.commit("outside", "models/out.py", "a = 1\n")
    tree.commit("inside", "project/models/deep/new.py", "a = 1\n")
    tree.git("checkout", "-q", "main")
    tree.commit("a project", "project/train.py", "")
    editable = Editable(("models/**/*.py", "train.py"))
    (commit,) = resolve("..theirs", tree.top / "project", editable)
    context = replace(tree.context(folder="project"), editable=editable)
    assert CommitsProposer([commit]).propose(context) is not None
    assert tree.git("status", "--porcelain", "-uall") == "?? project/models/deep/new.py\n"


def test_a_branch_with_a_beginning_of_its_own_is_replayed_from_its_first_commit(tree: Tree) -> None:
    tree.git("checkout", "-q", "--orphan", "another")
    tree.git("rm", "-q", "--cached", "train.py")
    tree.commit("the first", "model.py", "a = 1\n")
    (tree.top / "train.py").unlink()
    tree.git("checkout", "-q", "main")
    (commit,) = resolve("..another", tree.top, Editable(("*.py",)))
    assert CommitsProposer([commit]).propose(replace(tree.context(), editable=Editable(("*.py",)))) is not None
    assert tree.git("status", "--porcelain") == "?? model.py\n"


@pytest.mark.parametrize(
    ("given", "descriptions"),
    [
        ("main..theirs", ["one", "two"]),
        ("..theirs", ["one", "two"]),
        ("main..theirs~1", ["one"]),
        ("theirs~1..theirs", ["two"]),
        ("a-tag..theirs", ["two"]),
    ],
)
def test_either_end_of_a_range_may_be_anything_that_git_knows(tree: Tree, given: str, descriptions: list[str]) -> None:
    tree.change("LINE_3 = 3", "LINE_3 = 33", "one")
    tree.git("tag", "-a", "-m", "a tag", "a-tag")
    tree.change("LINE_5 = 5", "LINE_5 = 55", "two")
    tree.git("checkout", "-q", "main")
    tree.change("LINE_20 = 20", "LINE_20 = 0", "main goes on")  # so main is no ancestor
    assert [commit.subject for commit in resolve(given, tree.top, EDITABLE)] == descriptions
    tree.git("checkout", "-q", "theirs")
    assert [commit.subject for commit in resolve("main..", tree.top, EDITABLE)] == ["one", "two"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("theirs", "is no range of commits: type commits:HEAD..theirs for what it has and your checkout has not, or"
                   " commits:theirs~1..theirs for one"),
        ("", "is no range of commits: type commits:HEAD..their-branch for"),
        ("..", "is no range of commits: type commits:HEAD..their-branch for"),
        ("main...theirs", "is no range of commits: type commits:main..theirs with two dots"),
        ("main..their", ": there is no commit their here: see `git branch --all` for what there is, or fetch it first"),
        ("--all..theirs", ": there is no commit --all here"),
        ("main..theirs:train.py", ": there is no commit theirs:train.py here"),
        ("theirs..main", ": main has nothing that theirs has not: did you mean commits:main..theirs?"),
        ("main..main", ": main has nothing that main has not: name another range, older commit first"),
        ("main..theirs~1", ": the one commit in it does not change train.py, so there is nothing to try: name another"),
        ("main..notes", ": none of its 2 commits changes train.py, so there is nothing to try: name another range"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_range_is_one_sentence(tree: Tree, given: str, sentence: str) -> None:
    tree.commit("notes", "notes.md", "a\n")
    tree.git("branch", "one-note")
    tree.commit("more notes", "notes.md", "b\n")
    tree.git("branch", "notes")
    tree.git("reset", "-q", "--hard", "one-note")
    tree.change("LINE_3 = 3", "LINE_3 = 33", "one")
    tree.git("checkout", "-q", "main")
    with pytest.raises(UserError, match=f"^--autoresearch-proposer commits:{re.escape(given)}:? ?") as error:
        resolve(given, tree.top, EDITABLE)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_users_git_settings_and_a_git_hooks_variables_do_not_matter(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.change("LINE_10 = 10", "LINE_10 = 100  ", "theirs")
    tree.git("checkout", "-q", "main")
    tree.change("LINE_8 = 8", "LINE_8 = 88")
    settings = {
        "diff": "noprefix = true\nexternal = false\ncontext = 0\nrelative = true",
        "apply": "whitespace = error",
        "color": "ui = always",
        "core": "autocrlf = true",
        "log": "showSignature = true\nfollow = true",
        "i18n": "logOutputEncoding = UTF-16",
    }
    (tmp_path / "gitconfig").write_text("".join(f"[{section}]\n{lines}\n" for section, lines in settings.items()))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    other = Tree(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other.top / ".git"))
    assert next_change(tree, replay(tree)) == ("theirs", {"LINE_10 = 100  "})


def test_a_commit_whose_text_is_not_here_is_refused_and_not_a_traceback(tree: Tree) -> None:
    bad = tree.change("LINE_10 = 10", "LINE_10 = 100", "half fetched")
    proposer = replay(tree)
    blob = tree.git("rev-parse", f"{bad}:train.py").strip()
    (tree.top / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(Refused, match=f"^commit {bad[:7]} cannot be read: "):
        proposer.propose(tree.context())
