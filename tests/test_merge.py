"""Line by line: what a three-way merge makes of two changes, and which earlier change a later one takes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import Place, git

from pytest_autoresearch.core.errors import MergeConflict
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.ledger.merge import merge, undone
from pytest_autoresearch.source.constants import Constant, edit, find


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "repo")


def tree(place: Place, text: str, name: str = "train.py") -> str:
    blob = git(place.path, "hash-object", "-w", "--stdin", stdin=text)
    return git(place.path, "mktree", stdin=f"100644 blob {blob}\t{name}\n")


def lines(*words: str) -> str:
    return "".join(f"{word}\n" for word in words)


def merged(place: Place, base: str, ours: str, theirs: str, theirs_wins: bool = False) -> str:
    made = merge(Git(place.path), *(tree(place, text) for text in (base, ours, theirs)), theirs_wins=theirs_wins)
    return Git(place.path).run("cat-file", "blob", f"{made}:train.py").decode()


@pytest.mark.parametrize(
    ("ours", "theirs", "both"),
    [
        ("A b c d", "a B c d", "A B c d"),
        ("A b C d", "a B c D", "A B C D"),
        ("a b c d e", "a B c d", "a B c d e"),
        ("new a b c d", "A b c d", "new A b c d"),
        ("a c d", "a b c D", "a c D"),
        ("a B c d", "a B c D", "a B c D"),
        ("a b x c d", "a b x c D", "a b x c D"),
        ("a b c D new", "a b C d", "a b C D new"),
    ],
)
def test_changes_of_different_lines_are_all_made_though_they_are_neighbours(
    place: Place, ours: str, theirs: str, both: str
) -> None:
    texts = [lines(*words.split()) for words in ("a b c d", ours, theirs, both)]
    assert merged(place, *texts[:3]) == texts[3]


@pytest.mark.parametrize(
    ("ours", "theirs", "wins"),
    [
        ("a B c d", "a X c d", "a X c d"),
        ("a c d", "a X c d", "a X c d"),
        ("a b c d new", "a b c d other", "a b c d new other"),
        ("a b c d new", "a b c D other", "a b c D other new"),
        ("A b c d", "", ""),
    ],
)
def test_changes_that_meet_are_a_conflict_and_where_theirs_wins_no_line_is_lost_that_theirs_left_alone(
    place: Place, ours: str, theirs: str, wins: str
) -> None:
    texts = [lines(*words.split()) for words in ("a b c d", ours, theirs, wins)]
    with pytest.raises(MergeConflict, match=r"both sides changed train\.py"):
        merged(place, *texts[:3])
    assert sorted(merged(place, *texts[:3], theirs_wins=True)) == sorted(texts[3])


def test_a_file_without_a_last_line_end_and_one_that_is_not_text_merge_too(place: Place) -> None:
    assert merged(place, "a\nb\nc", "A\nb\nc", "a\nb\nC") == "A\nb\nC"
    assert merged(place, "a\0\nb\n", "A\0\nb\n", "a\0\nB\n") == "A\0\nB\n"


def test_a_file_that_one_side_deleted_and_the_other_changed_is_a_conflict(place: Place) -> None:
    base, ours, theirs = tree(place, "a\n"), tree(place, "a\n", "other.py"), tree(place, "b\n")
    for wins in (False, True):
        with pytest.raises(MergeConflict, match=r"both sides changed train\.py"):
            merge(Git(place.path), base, ours, theirs, theirs_wins=wins)


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("merge") / "repo")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_a_change_on_one_side_alone_is_that_side(shared_place: Place, old: list[str], new: list[str]) -> None:
    base, other = lines(*old), lines(*new)
    assert merged(shared_place, base, other, base) == other
    assert merged(shared_place, base, base, other) == other
    assert merged(shared_place, base, other, other) == other


PROGRAM = (Path(__file__).parents[1] / "train.py").read_text()
CONSTANTS = [one for one in find(PROGRAM) if isinstance(one.value, float)]  # many are on neighbouring lines


def different(one: str, other: str) -> set[int]:
    """The numbers of the lines that differ; both texts have as many."""
    return {at for at, (a, b) in enumerate(zip(one.splitlines(), other.splitlines(), strict=True)) if a != b}


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(CONSTANTS), st.integers(0, 3), st.booleans()), max_size=6, unique_by=lambda c: c[0]
    )
)
def test_the_head_has_every_kept_constant_and_a_candidate_changes_its_own_alone(
    shared_place: Place, candidates: list[tuple[Constant, int, bool]]
) -> None:
    """Each candidate changes a constant of the real program as it was up to three keeps ago, and is then merged."""
    heads = [PROGRAM]
    kept: dict[str, float] = {}
    for constant, ago, keep in candidates:
        value = constant.value * 2 + 1
        base = heads[max(0, len(heads) - 1 - ago)]
        candidate = merged(shared_place, base, heads[-1], edit(base, {constant.name: value}))
        assert different(heads[-1], candidate) == different(PROGRAM, edit(PROGRAM, {constant.name: value}))
        if keep:
            heads.append(candidate)
            kept[constant.name] = value
    assert heads[-1] == edit(PROGRAM, kept)


def test_a_change_takes_back_the_steps_whose_lines_it_restores(place: Place) -> None:
    texts = {
        "start": "a b c d e", "one": "A b c d e", "two": "A b c new d e", "three": "A B c new d e",
        "four": "A B c new d",
    }  # fmt: skip
    trees = {name: tree(place, lines(*words.split())) for name, words in texts.items()}
    names = list(trees)
    steps = {name: (trees[names[at]], trees[name]) for at, name in enumerate(names[1:])}
    for words, found in {
        "a B c new d": ["one"], "A B c d": ["two"], "a B c new D": ["one"], "X B c new d": [],
        "A b c new d e": ["three", "four"], "A B c newer d": [], "A B c new d f": [],
    }.items():  # fmt: skip
        assert undone(Git(place.path), steps, trees["four"], tree(place, lines(*words.split()))) == found, words


def test_many_changed_lines_merge_in_a_moment(place: Place) -> None:
    old = [str(n) for n in range(20_000)]
    ours = [f"{n} ours" if n % 2 else str(n) for n in range(20_000)]
    theirs = [str(n) if n % 2 else f"{n} theirs" for n in range(20_000)]
    both = [f"{n} ours" if n % 2 else f"{n} theirs" for n in range(20_000)]
    assert merged(place, lines(*old), lines(*ours), lines(*theirs)) == lines(*both)
