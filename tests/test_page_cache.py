"""After a server, the page cache says nothing of what the server read, or took out of memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_states import drop, resident, states, touch, write_cold

from pytest_autoresearch.sandboxes import page_cache
from pytest_autoresearch.sandboxes.page_cache import View


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that sandboxes share, with a cold file and one that nobody sees."""
    for name in ("shared/deep", "shared/covered"):
        (tmp_path / name).mkdir(parents=True)
    write_cold(tmp_path / "shared/deep/file")
    write_cold(tmp_path / "shared/covered/file")
    (tmp_path / "shared/link").symlink_to("deep")
    (tmp_path / "shared/broken").symlink_to("nowhere")
    return tmp_path / "shared"


def test_pages_that_were_read_or_dropped_are_as_all_others(shared: Path) -> None:
    file, view = shared / "deep/file", View((str(shared), str(shared / "deep")), (str(shared / "covered"),))
    touch(file, 7)
    assert states(file)[7]
    assert resident(file) == {True, False}, "a message"
    assert view.restore()
    assert resident(file) == {True}
    drop(file, 16, 16)
    assert resident(file) == {True, False}, "another one"
    assert view.restore()
    assert resident(file) == {True}
    assert resident(shared / "covered/file") == {False}


def test_with_too_little_memory_all_pages_are_dropped(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "_available", lambda: 0)
    file = shared / "deep/file"
    touch(file, 7)
    assert not View((str(shared),)).restore()
    assert resident(file) == {False}


def test_a_file_that_is_gone_or_alone_is_no_obstacle(shared: Path) -> None:
    assert View((str(shared / "deep/file"), str(shared / "none"))).restore()
    assert resident(shared / "deep/file") == {True}
    assert View().restore()
