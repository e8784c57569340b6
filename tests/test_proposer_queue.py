"""Queued patches are applied in order by real git, each once, and one that does not apply leaves no trace."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from places import refusal
from trees import TRAIN, Tree, recorded

from pytest_autoresearch.core.errors import Refused
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.proposers.queue import QueueProposer, described


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_patches_are_proposed_in_the_order_of_their_names_each_once(tree: Tree) -> None:
    tree.enqueue("0002-deeper.patch", tree.diff("LINE_2 = 2", "LINE_2 = 22"))
    tree.enqueue("0010-wider.diff", tree.diff("LINE_10 = 10", "LINE_10 = 100"))
    tree.enqueue("0001-hotter.patch", tree.diff("LINE_1 = 1\n", "LINE_1 = 11\n"))
    tree.enqueue("notes.txt", "not a patch")
    (tree.queue / "folder.patch").mkdir()
    queue = {path: path.read_bytes() for path in tree.queue.iterdir() if path.is_file()}
    proposer = QueueProposer()

    said = []
    for _ in range(3):
        proposal = proposer.propose(tree.context())
        assert proposal is not None
        said.append((proposal.description, *(set(tree.text().splitlines()) - set(TRAIN.splitlines()))))
        assert proposal.proposer == "queue"
        tree.git("checkout", "-q", ".")

    assert proposer.propose(tree.context()) is None
    assert said == [("hotter", "LINE_1 = 11"), ("deeper", "LINE_2 = 22"), ("wider", "LINE_10 = 100")]
    assert {path: path.read_bytes() for path in tree.queue.iterdir() if path.is_file()} == queue


def test_a_new_session_skips_what_the_records_hold_and_tries_an_edited_patch_again(tree: Tree) -> None:
    tree.enqueue("1-a.patch", tree.diff("LINE_2 = 2", "LINE_2 = 22"))
    tree.enqueue("2-b.patch", tree.diff("LINE_5 = 5", "LINE_5 = 55"))
    first = QueueProposer().propose(tree.context())
    assert first is not None
    assert first.source.startswith("queue:1-a.patch@")
    assert len(first.source.partition("@")[2]) == 12
    tree.git("checkout", "-q", ".")

    records = (recorded(first), recorded(Proposal("other", source="search")))
    second = QueueProposer().propose(tree.context(records))
    assert second is not None
    assert second.source.startswith("queue:2-b.patch@")
    assert QueueProposer().propose(tree.context((*records, recorded(second)))) is None

    tree.git("checkout", "-q", ".")
    tree.enqueue("1-a.patch", tree.diff("LINE_2 = 2", "LINE_2 = 222"))
    again = QueueProposer().propose(tree.context((*records, recorded(second))))
    assert again is not None
    assert again.source.startswith("queue:1-a.patch@")
    assert "LINE_2 = 222" in tree.text()


def test_no_queue_and_an_empty_queue_end_the_campaign(tree: Tree) -> None:
    assert QueueProposer().propose(tree.context()) is None
    tree.queue.mkdir(parents=True)
    assert QueueProposer().propose(tree.context()) is None


def test_a_queued_patch_is_not_ours_to_repair(tree: Tree) -> None:
    assert QueueProposer().repair(tree.context(), Proposal("x"), refusal("no")) is None


def test_a_patch_made_on_an_older_commit_is_merged(tree: Tree) -> None:
    patch = tree.diff("LINE_10 = 10", "LINE_10 = 100")
    tree.commit("move on", "train.py", tree.text().replace("LINE_8 = 8", "LINE_8 = 88").replace("LINE_1 = 1\n", ""))
    tree.enqueue("1.patch", patch)
    assert QueueProposer().propose(tree.context()) is not None
    assert "LINE_10 = 100" in tree.text()
    assert "LINE_8 = 88" in tree.text()
    assert tree.git("diff", "--cached") == ""  # the index is the campaign's, not ours


def test_a_patch_is_merged_into_a_head_that_changed_the_lines_beside_it(tree: Tree) -> None:
    patch = tree.diff("LINE_10 = 10", "LINE_10 = 100")
    tree.change("LINE_9 = 9\n", "LINE_9 = 99\n")
    tree.change("LINE_11 = 11\n", "LINE_11 = 111\n")
    tree.enqueue("1.patch", patch)
    assert QueueProposer().propose(tree.context()) is not None
    assert {"LINE_9 = 99", "LINE_10 = 100", "LINE_11 = 111"} <= set(tree.text().splitlines())


def test_a_bare_diff_of_unknown_blobs_is_applied_plainly(tree: Tree) -> None:
    patch = "--- a/train.py\n+++ b/train.py\n@@ -1,2 +1,2 @@\n-LINE_1 = 1\n+LINE_1 = 11\n LINE_2 = 2\n"
    tree.enqueue("0003_raise the-rate.diff", patch)
    proposal = QueueProposer().propose(tree.context())
    assert proposal is not None
    assert (proposal.description, proposal.hypothesis) == ("raise the rate", "")
    assert tree.text().startswith("LINE_1 = 11\nLINE_2 = 2\n")


def conflicting(tree: Tree) -> str:
    patch = tree.diff("LINE_10 = 10", "LINE_10 = 100")
    tree.change("LINE_10 = 10", "LINE_10 = 7")
    return patch


def half_applying(tree: Tree) -> str:
    tree.commit("another file", "other.py", "a = 1\n")
    good = tree.diff("LINE_10 = 10", "LINE_10 = 100")
    bad = tree.diff("a = 1", "a = 2", "other.py")
    tree.commit("and it changes", "other.py", "a = 3\n")
    return good + bad


def already_there(tree: Tree) -> str:
    patch = tree.diff("LINE_10 = 10", "LINE_10 = 100")
    tree.change("LINE_10 = 10", "LINE_10 = 100")
    return patch


NEW = "diff --git a/{0} b/{0}\nnew file mode {1}\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+{2}\n"


def with_a_submodule(tree: Tree) -> str:
    return tree.diff("LINE_10 = 10", "LINE_10 = 100") + NEW.format("model", "160000", f"Subproject commit {'1' * 40}")


def with_a_moved_submodule(tree: Tree) -> str:
    tree.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},model")
    tree.git("commit", "-q", "-m", "a submodule")
    (tree.top / "model").mkdir()
    change = (
        "diff --git a/model b/model\n--- a/model\n+++ b/model\n@@ -1 +1 @@\n"
        "-Subproject commit {}\n+Subproject commit {}\n"
    )
    return tree.diff("LINE_10 = 10", "LINE_10 = 100") + change.format("1" * 40, "2" * 40)


def with_a_compiled_module(tree: Tree) -> str:
    tree.commit("ignores", ".gitignore", "__pycache__/\n*.so\n")
    for name in ("__pycache__/train.cpython-311.pyc", "fast.so"):
        (tree.top / name).parent.mkdir(exist_ok=True)
        (tree.top / name).write_bytes(bytes(range(256)))
        tree.git("add", "--force", name)
    patch = tree.diff("LINE_10 = 10", "LINE_10 = 100") + tree.git("diff", "--cached", "--binary")
    tree.git("reset", "-q", "--hard")
    return patch


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_a_submodule, r"1\.patch changes the submodule model; a proposal may change only files of this"),
        (with_a_moved_submodule, r"1\.patch changes the submodule model; a proposal may change only files of this"),
        (
            with_a_compiled_module,
            r"1\.patch adds __pycache__/train.cpython-311.pyc, which git ignores, so that no commit",
        ),
        (
            conflicting,
            r"1\.patch does not apply to {head}: both sides changed train\.py: `LINE_10 = 7` and `LINE_10 = 100`$",
        ),
        (half_applying, r"1\.patch does not apply to {head}: both sides changed other\.py: `a = 3` and `a = 2`$"),
        (already_there, r"1\.patch changes nothing: the branch has all of it already$"),
        (lambda tree: "this is no patch\n", r"1\.patch does not apply to {head}: No valid patches in input"),
        (lambda tree: "", r"1\.patch does not apply to {head}: No valid patches in input"),
        (
            lambda tree: "--- a/gone.py\n+++ b/gone.py\n@@ -1 +1 @@\n-a\n+b\n",
            r"1\.patch does not apply to {head}: gone\.py: does not exist in index$",
        ),
        (
            lambda tree: (
                "diff --git a/../out.py b/../out.py\nnew file mode 100644\n--- /dev/null\n"
                "+++ b/../out.py\n@@ -0,0 +1 @@\n+x\n"
            ),
            r"1\.patch does not apply to {head}: invalid path",
        ),
    ],
)
def test_a_patch_that_does_not_apply_is_refused_and_leaves_no_trace(
    tree: Tree, make: Callable[[Tree], str], reason: str
) -> None:
    tree.enqueue("1.patch", make(tree))
    tree.enqueue("2-next.patch", tree.diff("LINE_20 = 20", "LINE_20 = 0"))
    before = tree.state()
    proposer = QueueProposer()

    with pytest.raises(Refused, match=reason.replace("{head}", tree.head()[:7])) as refused:
        proposer.propose(tree.context())

    assert refused.value.proposal.source.startswith("queue:1.patch@")
    assert tree.state() == before
    following = proposer.propose(tree.context((recorded(refused.value.proposal),)))
    assert following is not None
    assert following.description == "next"


def test_patches_are_relative_to_the_repository_where_the_project_is_a_subfolder(tree: Tree) -> None:
    tree.commit("a project inside", "project/train.py", "a = 1\n")
    patch = tree.diff("a = 1", "a = 2", "project/train.py") + tree.diff("LINE_3 = 3", "LINE_3 = 33")
    tree.enqueue("1.patch", patch)
    assert QueueProposer().propose(tree.context(folder="project")) is not None
    assert tree.text("project/train.py") == "a = 2\n"
    assert "LINE_3 = 33" in tree.text()  # git would pass over it in silence; the guard is there to say no


def test_new_deleted_and_binary_files_are_applied(tree: Tree) -> None:
    tree.commit("to delete", "old.py", "a = 1\n")
    (tree.top / "new.bin").write_bytes(bytes(range(256)))
    (tree.top / "old.py").unlink()
    tree.git("add", "--all")
    tree.enqueue("1.patch", tree.git("diff", "--cached", "--binary"))
    tree.git("reset", "-q", "--hard")
    assert QueueProposer().propose(tree.context()) is not None
    assert (tree.top / "new.bin").read_bytes() == bytes(range(256))
    assert not (tree.top / "old.py").exists()


def test_line_ends_and_letters_of_any_kind_survive(tree: Tree) -> None:
    (tree.top / ".gitattributes").write_text("* -text\n")
    (tree.top / "train.py").write_bytes("A = 1  # größer →\r\nB = 2\r\n".encode())
    tree.git("add", "--all")
    tree.git("commit", "-q", "-m", "other line ends")
    (tree.top / "train.py").write_bytes("A = 3  # größer →\r\nB = 2\r\n".encode())
    patch = subprocess.run(["git", "diff"], cwd=tree.top, check=True, capture_output=True).stdout
    tree.git("checkout", "-q", ".")
    tree.queue.mkdir(parents=True)
    (tree.queue / "1.patch").write_bytes(patch)
    assert QueueProposer().propose(tree.context()) is not None
    assert (tree.top / "train.py").read_bytes() == "A = 3  # größer →\r\nB = 2\r\n".encode()


def test_a_git_hook_that_starts_pytest_does_not_lead_us_to_its_repository(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Tree(tmp_path / "other")
    before = other.state()
    tree.enqueue("1.patch", tree.diff("LINE_3 = 3", "LINE_3 = 33"))
    monkeypatch.setenv("GIT_DIR", str(other.top / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.top / ".git" / "index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.top))
    assert QueueProposer().propose(tree.context()) is not None
    assert "LINE_3 = 33" in tree.text()
    assert other.state() == before


def test_the_users_git_settings_do_not_matter(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = tree.diff("LINE_10 = 10", "LINE_10 = 100  ")
    tree.change("LINE_8 = 8", "LINE_8 = 88")
    tree.enqueue("1.patch", patch)
    settings = {
        "diff": "noprefix = true\nexternal = false\nrenames = copies",
        "apply": "whitespace = error",
        "color": "ui = always",
        "core": "autocrlf = true",
    }
    (tmp_path / "gitconfig").write_text("".join(f"[{section}]\n{lines}\n" for section, lines in settings.items()))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert QueueProposer().propose(tree.context()) is not None
    expected = TRAIN.replace("LINE_10 = 10", "LINE_10 = 100  ").replace("LINE_8 = 8", "LINE_8 = 88")
    assert (tree.top / "train.py").read_bytes() == expected.encode()


def test_a_patch_of_format_patch_is_described_by_its_message(tree: Tree) -> None:
    subject = "Größere Stapel: halve the batch, since a small budget has too few steps for the large one and " * 2
    (tree.top / "train.py").write_text(TRAIN.replace("LINE_4 = 4", "LINE_4 = 44"))
    tree.git("commit", "-q", "-a", "-m", f"{subject.strip()}\n\nMore steps help.\nÜberall.\n\nSecond part.")
    tree.enqueue("0007-x.patch", tree.git("format-patch", "-1", "--stdout", "--subject-prefix=RFC PATCH v2 1/3"))
    tree.git("reset", "-q", "--hard", "HEAD~1")

    proposal = QueueProposer().propose(tree.context())

    assert proposal is not None
    assert proposal.description == subject.strip()
    assert proposal.hypothesis == "More steps help.\nÜberall.\n\nSecond part."
    assert "LINE_4 = 44" in tree.text()


@pytest.mark.parametrize(
    ("patch", "stem", "expected"),
    [
        (b"Subject: [PATCH 2/7] plain\n\nwhy\n---\n x | 1 +\n", "s", ("plain", "why")),
        (b"Subject: [lr] [PATCH] kept tag\n\n---\n", "s", ("[lr] kept tag", "")),
        (b"Subject: folded over\n two lines\n\n---\n", "s", ("folded over two lines", "")),
        (b"Subject: =?UTF-8?q?gr=C3=B6=C3=9Fer?=\n =?UTF-8?q?_werden?=\n\n---\n", "s", ("größer werden", "")),
        (b"Subject: =?UTF-8?b?w6k=?= and more\n\n---\n", "s", ("é and more", "")),
        ("Subject: [PATCH] raw é\n\n---\n".encode(), "s", ("raw é", "")),
        (b"Subject: =?klingon?q?=C3?=\n\n---\n", "s", ("=?klingon?q?=C3?=", "")),
        (b"Subject: =?UTF-8?b?w?=\n\n---\n", "s", ("=?UTF-8?b?w?=", "")),
        (b"Subject: \xff\xfe\n\n---\n", "s", ("\ufffd\ufffd", "")),
        (b"Subject: [PATCH]\n\nwhy\n---\n", "0004-some-idea", ("some idea", "")),
        (b"Subject: s\n\nFrom: Bob <b@example.org>\n\nwhy\n---\n", "s", ("s", "why")),
        (b"Subject: s\n\nwhy --- not\n\ndiff --git a/x b/x\n", "s", ("s", "why --- not")),
        (b"diff --git a/x b/x\n", "0003-wider-model", ("wider model", "")),
        (b"--- a/x\n+++ b/x\n Subject: no\n", "12_a_b", ("a b", "")),
        (b"diff --git a/x b/x\n", "0003", ("0003", "")),
        (b"", "2-ok", ("ok", "")),
    ],
)
def test_descriptions_come_from_the_subject_else_from_the_files_name(
    patch: bytes, stem: str, expected: tuple[str, str]
) -> None:
    assert described(patch, stem) == expected


def test_a_refused_patch_can_be_told_from_the_same_patch_under_way(tree: Tree) -> None:
    tree.enqueue("1.patch", tree.diff("LINE_3 = 3", "LINE_3 = 33"))
    proposer = QueueProposer()
    assert proposer.propose(tree.context()) is not None
    assert proposer.propose(replace(tree.context(), number=2)) is None
