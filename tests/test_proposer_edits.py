"""Exact edits: each where its text stands exactly once, all or none, and nothing outside the editable files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.proposers.edits import EditError, TextEdit, WholeFile, read_text, rewritten, write_texts
from pytest_autoresearch.source.editable import Editable

TRAIN = """\
WIDTH = 64
DEPTH = 4


def step(x):
    y = x + 1
    return y


def other(x):
    y = x + 1
    return -y
"""
FILES = {"train.py": TRAIN, "model/a.py": "A = 1\n"}
EDITABLE = Editable(("train.py", "model"))


def edit(*edits: tuple[str, str] | TextEdit, files: tuple[WholeFile, ...] = ()) -> dict[str, str]:
    """What becomes of FILES; a pair is an edit of train.py."""
    whole = [one if isinstance(one, TextEdit) else TextEdit("train.py", *one) for one in edits]
    return rewritten(whole, files, EDITABLE, FILES.get)


def said(*edits: tuple[str, str] | TextEdit, files: tuple[WholeFile, ...] = ()) -> str:
    """Why these are not possible."""
    with pytest.raises(EditError) as caught:
        edit(*edits, files=files)
    return str(caught.value)


def test_edits_apply_in_order_and_each_to_what_the_last_one_left() -> None:
    texts = edit(("WIDTH = 64", "WIDTH = 128"), ("WIDTH = 128\nDEPTH = 4", "WIDTH = 128\nDEPTH = 8"))
    assert texts == {"train.py": TRAIN.replace("64", "128").replace("DEPTH = 4", "DEPTH = 8")}


def test_several_files_change_together() -> None:
    texts = edit(
        ("DEPTH = 4\n", ""),
        TextEdit("./model/a.py", "1", "2"),
        files=(WholeFile("model/new/b.py", "B = 1\r\nC = 2\n"),),
    )
    assert texts["model/a.py"] == "A = 2\n"
    assert texts["model/new/b.py"] == "B = 1\nC = 2\n"
    assert "DEPTH" not in texts["train.py"]


def test_a_text_that_occurs_twice_is_ambiguous() -> None:
    assert said(("WIDTH = 64", "W = 1"), ("    y = x + 1\n", "")) == (
        "edit 2 of train.py: the old text occurs 2 times; add the lines around it"
    )


def test_occurrences_may_overlap() -> None:
    with pytest.raises(EditError, match="occurs 2 times"):
        rewritten([TextEdit("train.py", "aa", "b")], [], EDITABLE, lambda path: "aaa")


def test_an_error_shows_the_nearest_lines() -> None:
    text = said(("def step(x):\n  y = x + 1\n  return y\n", ""))
    assert text.startswith("edit 1 of train.py: the old text does not occur; the most similar lines, from line 5:\n")
    assert text.endswith("def step(x):\n    y = x + 1\n    return y")
    assert "from line 2:\nDEPTH = 4" in said(("DEPTHS = 4", ""))
    assert said(("§§§", "")).endswith("the file has no similar lines")
    assert said(("\n\n\n\n", "")).endswith("the file has no similar lines")


def test_what_an_error_shows_is_bounded() -> None:
    text = "\n".join(f"line {number} = {'x' * 500}" for number in range(2000))
    with pytest.raises(EditError) as caught:
        rewritten([TextEdit("train.py", text.replace("line 7 ", "line seven "), "")], [], EDITABLE, lambda path: text)
    assert len(str(caught.value)) < 1500


def test_all_that_is_wrong_is_said_at_once_up_to_a_few() -> None:
    text = said(*[(f"nothing {number}", "") for number in range(9)])
    assert text.count("edit ") == 4
    assert text.endswith("and 5 more")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../train.py", "model/../../x.py", "", ".", "model\\a.py", "model/a\0.py", "a\nb.py",
     "harness/x.py", "conftest.py", "model/conftest.py", "model/.git/config"],
)  # fmt: skip
def test_nothing_but_editable_files_can_be_changed(path: str) -> None:
    for text in (said(TextEdit(path, "a", "b")), said(files=(WholeFile(path, "b"),))):
        assert "it is not a path inside the folder" in text or "it may not change; train.py, model may" in text


def test_a_file_is_edited_or_written_anew_and_not_both() -> None:
    text = said(("DEPTH = 4", "DEPTH = 5"), files=(WholeFile("./train.py", "pass\n"),))
    assert text == "edit 1 of train.py: the file is also given as a whole: do one or the other"
    assert "given twice" in said(files=(WholeFile("train.py", ""), WholeFile("train.py", "")))


def test_edits_that_are_none_are_told_so() -> None:
    assert "neither edits nor files" in said()
    assert "the old text is empty" in said(("", "x"))
    assert "the same" in said(("DEPTH = 4", "DEPTH = 4"))
    assert "there is no such file; give a new file as a whole" in said(TextEdit("model/c.py", "a", "b"))
    assert "a character that a text file cannot hold" in said(("DEPTH = 4", "\ud800"))
    assert "a character that a text file cannot hold" in said(files=(WholeFile("train.py", "\0"),))


@given(st.text("ab\n", max_size=12), st.text("ab\n", max_size=4), st.text("abc\n", max_size=4))
def test_an_edit_replaces_one_occurrence_and_nothing_else(text: str, old: str, new: str) -> None:
    count = sum(text.startswith(old, at) for at in range(len(text)))
    try:
        texts = rewritten([TextEdit("train.py", old, new)], [], EDITABLE, lambda path: text)
    except EditError:
        assert count != 1 or not old or old == new
    else:
        assert count == 1
        assert texts == {"train.py": text.replace(old, new, 1)}


# --------------------------------------------------------------------------------------------- the folder itself


def test_a_folder_gives_and_takes_texts_with_its_own_line_ends(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_bytes(b"a = '\xff'\r\nb = 2\r\n")
    text = read_text(tmp_path, "train.py")
    assert text == "a = '\udcff'\nb = 2\n"
    write_texts(tmp_path, {"train.py": text.replace("2", "3\nc = 4"), "model/new.py": "é\n"})
    assert (tmp_path / "train.py").read_bytes() == b"a = '\xff'\r\nb = 3\r\nc = 4\r\n"
    assert (tmp_path / "model/new.py").read_bytes() == "é\n".encode()
    assert read_text(tmp_path, "model/none.py") is None


def test_no_link_is_followed_and_nothing_but_a_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.py").write_text("x")
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "link.py").symlink_to(tmp_path / "outside/secret.py")
    (folder / "dangling.py").symlink_to(tmp_path / "nothing")
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "folder").mkdir()
    (folder / "file.py").write_text("x")
    os.mkfifo(folder / "pipe.py")
    for path, why in (
        ("link.py", "link"), ("dangling.py", "link"), ("linked/secret.py", "link"), ("linked/new.py", "link"),
        ("folder", "not a plain file"), ("pipe.py", "not a plain file"), ("file.py/x.py", "file.py is not a folder"),
    ):  # fmt: skip
        with pytest.raises(EditError, match=why):
            read_text(folder, path)
