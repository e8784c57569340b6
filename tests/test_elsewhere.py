"""Git LFS and submodules: a run has the content that the checkout has, or is told how to get it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from repo import Repo

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"
READS = "ACTION = '1.0'\nprint('val_bpb:', open({!r}).read())\n"
SANDBOX = "require" if shutil.which("bwrap") else "off"


def with_large_file(repo: Repo, path: str, content: str) -> None:
    """Commit a pointer as git LFS does; in the checkout is the content."""
    repo.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    repo.write(path, POINTER.format(hashlib.sha256(content.encode()).hexdigest(), len(content)))
    repo.write("train.py", READS.format(path))
    repo.commit("A large file")
    repo.write(path, content)


def with_submodule(repo: Repo, tmp_path: Path, train: str) -> None:
    """Commit a submodule `lib`, whose `value.py` and `value.txt` are in the checkout."""
    other = tmp_path.parent / f"{tmp_path.name}-other"
    other.mkdir()
    (other / "value.py").write_text("VALUE = 0.25\n")
    (other / "value.txt").write_text("0.25")
    for command in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "A library")):
        repo.git("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-C", str(other), *command)
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "lib")
    repo.write("train.py", train)
    repo.commit("A submodule")


def metric(repo: Repo, *arguments: str) -> float | None:
    result = repo.run("--max", "0", "--autoresearch-sandbox", SANDBOX, *arguments)
    assert repo.records(), result.stdout.str()
    return repo.records()[0].metric


@pytest.mark.parametrize("path", ["rows.bin", "data/rows.bin"])
def test_a_file_of_git_lfs_has_its_content(repo: Repo, path: str) -> None:
    with_large_file(repo, path, "0.25")
    before = repo.checkout_hash()
    assert metric(repo) == 0.25
    assert repo.checkout_hash() == before


def test_a_file_of_git_lfs_cannot_be_changed_by_a_run(repo: Repo) -> None:
    with_large_file(repo, "rows.bin", "0.25")
    tries = "try: open('rows.bin', 'w').write('0')\nexcept OSError: pass\n"
    repo.write("train.py", READS.format("rows.bin") + tries)
    repo.git("commit", "-qm", "It writes", "train.py")
    if SANDBOX == "off":
        pytest.skip("without a sandbox a run has the user's rights")
    metric(repo)
    assert (repo.path / "rows.bin").read_text() == "0.25"


def test_a_file_that_was_not_downloaded_is_said_with_the_command(repo: Repo) -> None:
    with_large_file(repo, "rows.bin", "0.25")
    repo.git("checkout", "-q", "rows.bin")
    result = repo.run("--max", "0")
    result.stdout.fnmatch_lines(
        ["the content of rows.bin is not in this checkout: type `git lfs pull --include rows.bin`"]
    )


def test_a_submodule_has_its_content(repo: Repo, tmp_path: Path) -> None:
    train = "ACTION = '1.0'\nimport sys; sys.path.insert(0, '.')\nimport lib.value\n"
    with_submodule(repo, tmp_path, f"{train}print('val_bpb:', lib.value.VALUE)\n")
    assert metric(repo) == 0.25


def test_a_submodule_that_is_not_there_is_said_with_the_command(repo: Repo, tmp_path: Path) -> None:
    with_submodule(repo, tmp_path, READS.format("lib/value.txt"))
    repo.git("submodule", "--quiet", "deinit", "--force", "lib")
    result = repo.run("--max", "0")
    result.stdout.fnmatch_lines(["the content of lib is not in this checkout: type `git submodule update --init lib`"])


def test_a_proposal_gets_no_other_file_of_the_checkout_by_writing_a_pointer(repo: Repo) -> None:
    pointer = POINTER.format(hashlib.sha256(b"0.1").hexdigest(), 3)
    repo.hooks(
        f"""
        def pytest_autoresearch_propose(context, failure):
            (context.folder / "secret.bin").write_text({pointer!r})
            text = (context.folder / "train.py").read_text().replace("rows.bin", "secret.bin")
            (context.folder / "train.py").write_text(text + "print(1)")
            return Proposal("a pointer")
        """
    )
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + "autoresearch_editable = train.py *.bin\n")
    with_large_file(repo, "rows.bin", "0.25")
    repo.write("secret.bin", "0.1")
    repo.run("--max", "1", "--autoresearch-sandbox", SANDBOX, "--autoresearch-repairs", "0")
    assert repo.statuses() == {0: "keep", 1: "crash"}
    (log,) = (repo.path / "experiments").rglob("0001/train.log")
    assert "version https" in log.read_text()
