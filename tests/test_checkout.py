"""The user's checkout is theirs: whole campaigns run beside it, whatever state it is in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from places import git
from repo import Repo, with_one_and_two_lanes

from pytest_autoresearch.ledger.ratchet import Ratchet

pytestmark = pytest.mark.timeout(60)
OURS = (
    *("results.tsv", "results.xml", "report.html", "progress.png"),
    *(".pytest_cache", "__pycache__", "runs", "plan.json"),
)
OURS_IN_GIT = (
    *("objects", "autoresearch", "worktrees"),
    *("refs/autoresearch", "refs/heads/autoresearch", "logs/refs/autoresearch", "logs/refs/heads/autoresearch"),
)


def theirs(top: Path) -> dict[str, bytes | str]:
    """Every file of a checkout and of its git folder that a campaign has no business with, and what is in it."""
    found: dict[str, bytes | str] = {}
    for path in sorted(top.rglob("*")):
        inside = path.relative_to(top)
        in_git = inside.relative_to(".git").as_posix() if inside.parts[0] == ".git" else ""
        if any(part in OURS for part in inside.parts) or any(
            in_git == ours or in_git.startswith(f"{ours}/") for ours in OURS_IN_GIT
        ):
            continue
        if path.is_symlink():
            found[str(inside)] = os.readlink(path)
        elif path.is_file():
            found[str(inside)] = path.read_bytes()
    return found


def session(repo: Repo, folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """A session there, under more variables: its exit status, and all that it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in environment.items():
            patch.setenv(name, value)
        result = repo.run(*arguments)
    return result.ret, result.stdout.str() + result.stderr.str()


def campaign(repo: Repo, folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """A night of one baseline and one keep."""
    repo.plan(0.9)
    plan = folder / ".git" / "plan.json"
    if not plan.exists() and plan.parent.is_dir():
        shutil.copy(repo.path / ".git" / "plan.json", plan)
    return session(repo, folder, "--max", "1", *arguments, **environment)


def kept_one(folder: Path) -> None:
    """The night ended as it should."""
    records = Ratchet(folder).records("t")
    assert [record.verdict and record.verdict.reason for record in records] == ["baseline", "improved"]
    assert git(folder, "rev-parse", "refs/heads/autoresearch/t") == records[1].commit
    assert git(folder, "rev-parse", f"{records[1].commit}^") == records[0].commit
    assert "ACTION = '0.9'" in git(folder, "show", f"{records[1].commit}:./train.py")


def runs_beside(repo: Repo, folder: Path | None = None, **environment: str) -> None:
    """A campaign runs to its end and leaves the checkout alone."""
    top = folder or repo.path
    before = theirs(top)
    status, output = campaign(repo, top, **environment)
    assert status == 0, output
    after = theirs(top)
    assert [name for name in {**before, **after} if before.get(name) != after.get(name)] == []
    kept_one(top)


# ------------------------------------------------------------------------------------------- states of the checkout


def another_branch(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "side")
    repo.write("notes.txt", "mine\n")
    repo.commit("Notes")


def dirty_and_staged(repo: Repo) -> None:
    """An editable file changed, one staged, one deleted, one untracked, one ignored, a stash and a note of a merge."""
    repo.write("other.py", "x = 1\n")
    repo.write("gone.py", "x = 1\n")
    repo.commit()
    repo.write("other.py", "x = 0\n")
    repo.git("stash", "-q")
    with (repo.path / "train.py").open("a") as file:
        file.write("ACTION = 'crash'\n")
    repo.write("other.py", "x = 2\n")
    repo.git("add", "other.py")
    repo.write("other.py", "x = 3\n")
    (repo.path / "gone.py").unlink()
    repo.write("new.py", "x = 4\n")
    repo.write("results.old", "ignored\n")
    repo.write(".git/MERGE_MSG", "half a merge\n")


def detached(repo: Repo) -> None:
    repo.git("checkout", "-q", "--detach")


def in_the_middle_of_a_rebase(repo: Repo) -> None:
    repo.write("other.py", "x = 1\n")
    repo.commit("One")
    subprocess.run(
        ["git", "-c", "sequence.editor=sed -i 1s/pick/edit/", "rebase", "-q", "-i", "HEAD^"], cwd=repo.path, check=True,
        capture_output=True,
    )  # fmt: skip
    assert (repo.path / ".git/rebase-merge").exists()


def locked_index(repo: Repo) -> None:
    (repo.path / ".git/index.lock").touch()


def touched(repo: Repo) -> None:
    """Git would like to refresh its index."""
    for name in ("train.py", "conftest.py", "pytest.ini", "experiments/test_val_bpb.py"):
        os.utime(repo.path / name, (1e9, 1e9))


def hostile(repo: Repo) -> None:
    """Hooks that fail, signatures that cannot be made, and settings that bend what git does."""
    says = repo.path / ".git/hooks/said"
    for name in ("post-checkout", "pre-commit", "commit-msg", "reference-transaction", "post-index-change",
                 "fsmonitor-watchman", "pre-auto-gc", "post-commit", "prepare-commit-msg"):  # fmt: skip
        hook = repo.write(f".git/hooks/{name}", f"#!/bin/sh\necho {name} >> {says}\nexit 1\n")
        hook.chmod(0o755)
    for key, value in {
        "commit.gpgSign": "true", "tag.gpgSign": "true", "gpg.program": "false", "core.autocrlf": "true",
        "core.fsmonitor": ".git/hooks/fsmonitor-watchman", "core.editor": "false", "status.short": "true",
        "status.branch": "true", "status.relativePaths": "true", "diff.noprefix": "true", "diff.external": "false",
        "color.ui": "always", "core.quotePath": "true", "core.pager": "false", "log.showSignature": "true",
        "checkout.defaultRemote": "nowhere", "merge.conflictStyle": "diff3", "i18n.commitEncoding": "latin1",
        "i18n.logOutputEncoding": "latin1", "core.logAllRefUpdates": "always", "rerere.enabled": "true",
        "user.useConfigOnly": "true", "push.default": "matching", "core.abbrev": "40", "core.untrackedCache": "true",
        "feature.manyFiles": "true", "index.threads": "1", "submodule.recurse": "true", "core.safecrlf": "true",
    }.items():  # fmt: skip
        repo.git("config", key, value)


def filtered(repo: Repo) -> None:
    """A filter that would change what is committed, though none of the user's own files."""
    repo.write(".gitattributes", "*.py filter=better\n")
    repo.commit("Attributes")
    repo.git("config", "filter.better.clean", "sed s/0.9/0.1/")
    repo.git("config", "filter.better.smudge", "sed s/0.9/0.2/")
    repo.git("config", "filter.better.required", "true")


def packed(repo: Repo) -> None:
    repo.git("pack-refs", "--all")
    repo.git("gc", "-q")


def with_a_submodule(repo: Repo) -> None:
    inner = repo.path.parent / "inner"
    git(repo.path.parent, "init", "-q", str(inner))
    git(inner, "-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "x")
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "inner")
    repo.commit("A submodule")


def sparse(repo: Repo) -> None:
    repo.write("big/data.txt", "x\n")
    repo.commit()
    repo.git("sparse-checkout", "set", "--no-cone", "/*", "!/big/")
    assert not (repo.path / "big").exists()


def odd_names(repo: Repo) -> None:
    for name in (
        b"with space.py",
        b"new\nline.txt",
        "größer/模型.txt".encode(),
        b"caf\xe9.txt",
        b"-dash",
        b'"quoted"',
        b"a;b",
    ):
        path = repo.path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("x\n")
    repo.commit("Odd names")
    (repo.path / "with space.py").write_text("changed\n")


def windows(repo: Repo) -> None:
    """Line ends of the checkout that git does not store."""
    repo.git("config", "core.autocrlf", "true")
    for path in (repo.path / "train.py", repo.path / "conftest.py", repo.path / "pytest.ini"):
        path.unlink()
    repo.git("checkout", "-q", "--", ".")
    assert b"\r\n" in (repo.path / "train.py").read_bytes()


STATES = [
    another_branch, dirty_and_staged, detached, in_the_middle_of_a_rebase, locked_index, touched, hostile, filtered,
    packed, with_a_submodule, sparse, odd_names, windows,
]  # fmt: skip


@pytest.mark.parametrize("prepare", STATES, ids=lambda prepare: prepare.__name__)
def test_a_campaign_leaves_the_checkout_as_it_is(repo: Repo, prepare: Callable[[Repo], None]) -> None:
    prepare(repo)
    runs_beside(repo)


@with_one_and_two_lanes
def test_no_hook_of_the_user_is_run(repo: Repo) -> None:
    hostile(repo)
    runs_beside(repo)
    assert not (repo.path / ".git/hooks/said").exists()


# --------------------------------------------------------------------------------------------- states of the machine


def bare_environment(home: Path) -> dict[str, str]:
    """No git configuration but the repository's own."""
    return {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
    }


def test_without_any_git_identity(repo: Repo, tmp_path: Path) -> None:
    for key in ("user.name", "user.email"):
        repo.git("config", "--unset", key)
    repo.git("config", "user.useConfigOnly", "true")  # as where git cannot make one up from the machine's name
    runs_beside(repo, None, **bare_environment(tmp_path))
    assert repo.git("log", "-1", "--format=%an <%ae>", "autoresearch/t") == "autoresearch <autoresearch@localhost>"


def test_inside_a_git_hook(repo: Repo, tmp_path: Path) -> None:
    """A hook that starts pytest hands its own repository down in variables."""
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    git(other, "-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "x")
    before = theirs(other)
    runs_beside(
        repo, GIT_DIR=str(other / ".git"), GIT_INDEX_FILE=str(other / ".git/index"), GIT_WORK_TREE=str(other),
        GIT_PREFIX="sub/", GIT_OBJECT_DIRECTORY=str(other / ".git/objects"), GIT_LITERAL_PATHSPECS="1",
        GIT_AUTHOR_DATE="", GIT_REFLOG_ACTION="commit",
    )  # fmt: skip
    assert theirs(other) == before
    assert git(other, "for-each-ref", "refs/autoresearch") == ""


def test_a_shallow_clone(repo: Repo, tmp_path: Path) -> None:
    repo.write("notes.txt", "x\n")
    repo.commit("Second")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repo.path}", str(clone))
    assert (clone / ".git/shallow").exists()
    runs_beside(repo, clone)


@pytest.mark.parametrize("gone", [False, True], ids=["", "remote gone"])
@pytest.mark.parametrize("sparse", [False, True], ids=["", "sparse"])
def test_a_partial_clone(repo: Repo, tmp_path: Path, gone: bool, sparse: bool) -> None:
    """A lane has every file of the commit, also those that a sparse checkout has never fetched."""
    repo.write("big/data.txt", "x\n")
    repo.commit("Data")
    repo.write("train.py", (repo.path / "train.py").read_text() + "# changed\n")
    repo.commit("Not all blobs are in the last commit")
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    clone, source = tmp_path / "clone", repo.path / ".git"
    more = ["--sparse"] if sparse else []
    git(tmp_path, "clone", "-q", "--filter=blob:none", *more, f"file://{source}", str(clone))
    if sparse:
        git(clone, "sparse-checkout", "add", "experiments")
    assert (clone / "big").exists() != sparse
    repo.plan(0.9)
    shutil.copy(source / "plan.json", clone / ".git")
    if gone:
        git(clone, "remote", "set-url", "origin", str(tmp_path / "nowhere"))
    status, output = session(repo, clone, "--max", "1")
    if gone and sparse:
        assert status == 4
        assert "ERROR: this partial clone lacks files of the last commit, and git cannot fetch them ('" in output
        assert Ratchet(clone).records("t") == []
    else:
        assert status == 0, output
        kept_one(clone)


ODD = [b"my folder", b"two\nlines", "größer 模型".encode(), b"caf\xe9", b"quote'\"$(x)`", b"-dash", b"a;b&c"]


@pytest.mark.parametrize("name", ODD, ids=repr)
def test_a_repository_in_a_folder_with_an_odd_name(repo: Repo, tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    repo.plan(0.9)
    shutil.copytree(repo.path, folder, symlinks=True)
    git(folder, "update-index", "-q", "--refresh")
    status, output = campaign(repo, folder)
    assert status == 0, output
    kept_one(folder)


def test_a_worktree_of_a_bare_repository(repo: Repo, tmp_path: Path) -> None:
    repo.plan(0.9)
    git(tmp_path, "clone", "-q", "--bare", str(repo.path), "bare")
    checkout = tmp_path / "checkout"
    git(tmp_path / "bare", "worktree", "add", "-q", str(checkout), "main")
    hook = (checkout / "conftest.py").read_text().replace('context.root / ".git"', f'pathlib.Path("{repo.path}/.git")')
    (checkout / "conftest.py").write_text(hook)
    git(checkout, "-c", "user.name=x", "-c", "user.email=x", "commit", "-qam", "The plan is elsewhere")
    status, output = campaign(repo, checkout)
    assert status == 0, output
    kept_one(checkout)


def test_a_worktree_of_the_users_own(repo: Repo, tmp_path: Path) -> None:
    other = tmp_path / "other"
    repo.git("worktree", "add", "-q", "-b", "side", str(other))
    repo.plan(0.9)
    hook = (other / "conftest.py").read_text().replace('context.root / ".git"', f'pathlib.Path("{repo.path}/.git")')
    (other / "conftest.py").write_text(hook)
    git(other, "commit", "-qam", "The plan is elsewhere")
    before, main_before = theirs(other), theirs(repo.path)
    status, output = campaign(repo, other)
    assert status == 0, output
    kept_one(other)
    assert theirs(other) == before
    assert theirs(repo.path) == main_before


def test_a_root_below_the_top_of_the_repository(repo: Repo, tmp_path: Path) -> None:
    top = tmp_path / "top"
    git(tmp_path, "init", "-q", "-b", "main", str(top))
    shutil.copytree(repo.path, top / "a" / "sub dir", ignore=shutil.ignore_patterns(".git", "tests"))
    folder = top / "a" / "sub dir"
    hook = (folder / "conftest.py").read_text().replace('context.root / ".git"', f'pathlib.Path("{repo.path}/.git")')
    (folder / "conftest.py").write_text(hook)
    (top / "train.py").write_text("raise SystemExit('the wrong one')\n")
    git(top, "add", "-A")
    git(top, "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "A baseline")
    before = theirs(top)
    status, output = campaign(repo, folder)
    assert status == 0, output
    kept_one(folder)
    after = theirs(top)
    assert [name for name in {**before, **after} if before.get(name) != after.get(name)] == []
    assert (folder / "results.tsv").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("below", [False, True], ids=["top", "below the top"])
def test_a_repository_of_another_user_is_one_sentence_whose_command_helps(
    repo: Repo, tmp_path: Path, below: bool
) -> None:
    folder = repo.path
    if below:
        folder = repo.path / "sub"
        folder.mkdir()
        (folder / "pytest.ini").write_text("[pytest]\n")
    for path in (repo.path, *repo.path.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    for name in ("SUDO_UID", "GIT_CONFIG_GLOBAL"):
        assert name not in os.environ
    status, output = campaign(repo, folder, **home)
    assert status == 4, output
    errors = [line for line in output.splitlines() if line.strip()]
    assert len(errors) == 1, output
    assert errors[0].startswith(f"ERROR: git does not trust {folder}: type `git config --global --add safe.directory ")
    subprocess.run(errors[0].split("`")[1], shell=True, env={**os.environ, **home}, check=True)
    assert "git does not trust" not in campaign(repo, folder, "--collect-only", **home)[1]


# --------------------------------------------------------------------------------------- what a candidate may do to it

BREAKS = {
    "deletes .git": "os.remove('.git')",
    "names no repository": "open('.git', 'w').write('gitdir: /nowhere')",
    "names the user's repository": "open('.git', 'w').write('gitdir: ../..')",
    "names another worktree": "open('.git', 'w').write('gitdir: ../../worktrees/side')",
    "makes a repository": "os.remove('.git'); os.system('git init -q .')",
    "is a link to the checkout": "__import__('shutil').rmtree(os.getcwd()); os.symlink(CHECKOUT, os.getcwd())",
}


@pytest.mark.parametrize(
    ("how", "submodule"),
    [*((how, False) for how in BREAKS), ("deletes .git", True), ("names the user's repository", True)],
)
def test_a_candidate_that_breaks_its_own_tree_leads_git_nowhere_else(
    repo: Repo, tmp_path: Path, how: str, submodule: bool
) -> None:
    """In a submodule, git takes any folder below its git folder for the user's checkout."""
    hook = (repo.path / "conftest.py").read_text().replace('context.root / ".git"', f'pathlib.Path("{repo.path}/.git")')
    repo.write("conftest.py", hook)
    repo.commit("The plan is elsewhere")
    folder = repo.path
    if submodule:
        git(tmp_path, "init", "-q", str(tmp_path / "top"))
        git(tmp_path / "top", "-c", "protocol.file.allow=always", "submodule", "-q", "add", str(repo.path), "inner")
        folder = tmp_path / "top" / "inner"
    git(folder, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    (folder / "notes.txt").write_text("not committed\n")
    with (folder / "train.py").open("a") as file:
        file.write("# not committed\n")
    git_folder = Path(git(folder, "rev-parse", "--absolute-git-dir"))

    def all_of_it() -> dict[str, bytes | str]:
        side = git(tmp_path / "side", "rev-parse", "--absolute-git-dir")
        heads = {
            str(path): path.read_bytes() for path in (git_folder / "HEAD", git_folder / "index", Path(side, "HEAD"))
        }
        return theirs(folder) | theirs(tmp_path / "side") | heads

    before = all_of_it()
    act = BREAKS[how].replace("CHECKOUT", repr(str(folder)))
    repo.plan(f"do:{act}; block(0.9)", 0.8, 0.7)
    for count in ("2", "1"):  # and once more in a session that finds the tree as it was left
        status, output = session(repo, folder, "--max", count)
        after = all_of_it()
        assert [name for name in {**before, **after} if before.get(name) != after.get(name)] == []
        assert status == 0, output
