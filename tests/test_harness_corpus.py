"""The embedded corpus: what is training text, what is validation text, and nothing in both."""

from pathlib import Path

import pytest

from harness import corpus
from harness.errors import HarnessError


def write(folder: Path, **contents: str | bytes) -> None:
    """Files by path, with `__` for a slash."""
    for name, content in contents.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "python"
    write(
        folder,
        b="b = 'ü'",
        a="a = 1",
        email__a="email",
        unittest__test__t="a test inside a package",
        test__z="z",
        test__deep__y="y",
        test__copied="a = 1",
        idlelib__i="i",
        turtledemo__t="turtle",
        pydoc_data__p="p",
        test__latin=b"# coding: latin-1\nx = '\xfc'",
        test__empty="\n",
    )
    write(folder / "site-packages", numpy="not part of the language")
    return folder


def test_training_text_is_the_library_alone_in_the_order_of_paths(library: Path) -> None:
    training, _, _ = corpus.texts(library, [], 0)
    assert training == ["a = 1", "b = 'ü'", "email"]


def test_validation_text_is_whole_folders_without_copies_of_training_text(library: Path) -> None:
    _, validation, folders = corpus.texts(library, [], 0)
    assert validation == ["y", "z", "i", "turtle", "p"]
    assert folders == [library / name for name in corpus.VALIDATION_FOLDERS]


def test_where_the_library_holds_too_little_test_folders_of_packages_are_added_until_it_is_enough(
    library: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    write(site, b__tests__one="first" * 10, b__tests__tests__two="b = 'ü'", b__code="code", c__test__three="second")
    before = corpus.texts(library, [], 0)[1]
    own = [library / name for name in corpus.VALIDATION_FOLDERS]
    _, *few = corpus.texts(library, [site], 20)
    assert few == [[*before, "first" * 10], [*own, site / "b" / "tests"]]
    _, *more = corpus.texts(library, [site], 10_000)
    assert more == [[*before, "first" * 10, "second"], [*own, site / "b" / "tests", site / "c" / "test"]]


def test_more_validation_text_than_is_useful_is_thinned_out_evenly() -> None:
    documents = [f"{number:04d}" for number in range(100)]
    kept = [int(document) for document in corpus.spread(documents, 40)]
    assert kept == list(range(9, 100, 10))
    assert corpus.spread(documents, 400) == corpus.spread(documents, 10_000) == documents


def test_a_python_without_source_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="--source FOLDER"):
        corpus.texts(tmp_path / "nothing", [], 100)
