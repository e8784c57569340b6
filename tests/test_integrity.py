"""Files that decide are seen to change, whoever hides it; and nothing else is."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_autoresearch.measure.integrity import Frozen


@pytest.fixture
def harness(tmp_path: Path) -> Path:
    """A folder with files, folders, a link to a file elsewhere, and an empty folder."""
    folder = tmp_path / "harness"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "metric.py").write_text("def bits(): return 1\n")
    (folder / "deep" / "er" / "rows.bin").write_bytes(bytes(1000))
    (tmp_path / "blob").write_bytes(bytes(50))
    (folder / "link").symlink_to(tmp_path / "blob")
    return folder


def forged(path: Path) -> None:
    """Written in place, with the same size and the time of writing put back."""
    before = path.stat()
    path.write_text(path.read_text().replace("1", "0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) == (
        before.st_size, before.st_mtime_ns, before.st_ino,
    )  # fmt: skip


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_text(path.read_text())
    os.replace(other, path)


def made_a_link(path: Path) -> None:
    path.rename(path.parent.parent / "away.py")
    path.symlink_to(path.parent.parent / "away.py")


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a forged time": (lambda folder: forged(folder / "metric.py"), "metric.py"),
    "a copy in its place": (lambda folder: replaced(folder / "metric.py"), "metric.py"),
    "a link in its place": (lambda folder: made_a_link(folder / "metric.py"), "metric.py"),
    "another mode": (lambda folder: (folder / "metric.py").chmod(0o777), "metric.py"),
    "gone": (lambda folder: (folder / "metric.py").unlink(), "metric.py"),
    "written deep inside": (lambda folder: (folder / "deep/er/rows.bin").write_bytes(b"x"), "deep/er/rows.bin"),
    "a module that is found first": (lambda folder: (folder / "torch.py").write_text(""), "torch.py"),
    "a file in an empty folder": (lambda folder: (folder / "empty" / "x").write_text(""), "empty/x"),
    "a linked file": (lambda folder: (folder.parent / "blob").write_bytes(bytes(49) + b"x"), "link"),
    "a missing file that appears": (lambda folder: (folder.parent / "conftest.py").write_text(""), "../conftest.py"),
}


@pytest.mark.parametrize("how", ATTACKS)
def test_a_change_is_seen_and_named(harness: Path, how: str) -> None:
    frozen = Frozen([harness, harness.parent / "conftest.py"])
    assert frozen.changed() == []
    act, name = ATTACKS[how]
    act(harness)
    assert frozen.changed() == [Path(os.path.normpath(harness / name))]


def test_reading_compiling_and_what_may_change_is_no_change(harness: Path) -> None:
    frozen = Frozen([harness], but=[harness / "deep" / "er"])
    (harness / "metric.py").read_text()
    (harness / "__pycache__").mkdir()
    (harness / "__pycache__" / "metric.pyc").write_bytes(b"x")
    (harness / "deep" / "er" / "log").write_text("x")
    (harness.parent / "beside.py").write_text("x")
    assert frozen.changed() == []


def test_a_folder_that_is_reached_through_a_link_is_looked_into(harness: Path) -> None:
    (harness.parent / "by link").symlink_to(harness)
    frozen = Frozen([harness.parent / "by link"])
    (harness / "metric.py").write_text("x")
    assert frozen.changed() == [harness.resolve() / "metric.py"]


def test_odd_things_in_a_folder_are_no_error(harness: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(harness / "pipe")
    (harness / "dangling").symlink_to("/nowhere/at/all")
    (harness / os.fsdecode(b"\xff\n")).write_text("x")
    monkeypatch.chdir(harness)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    frozen = Frozen([harness])
    assert len(frozen) == 11
    assert frozen.changed() == []
    (harness / os.fsdecode(b"\xff\n")).write_text("y")
    assert frozen.changed() == [harness / os.fsdecode(b"\xff\n")]
