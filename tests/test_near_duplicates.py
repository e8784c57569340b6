"""Ideas that were nearly had before are recognised by their constants or their words."""

from __future__ import annotations

import pytest

from pytest_autoresearch.core.experiment import Experiment, Proposal, Status, Verdict
from pytest_autoresearch.source import near_duplicates

BEFORE = b"RATE = 0.04\nDEPTH = 8\nUSE_BIAS = True\n\ndef f(x):\n    return RATE * x\n"


def record(
    number: int, description: str, status: Status = Status.DISCARD, **constants: float | int | bool
) -> Experiment:
    return Experiment(
        number, "t", f"c{number}", "b", "t", Proposal(description), constants=constants,
        verdict=Verdict(status, "not-improved", "val_bpb 1.1, best 1.0 (+0.1)"),
    )  # fmt: skip


def edited(old: bytes, new: bytes) -> dict[str, float | int | bool]:
    return near_duplicates.changed_constants({"train.py": BEFORE}, {"train.py": BEFORE.replace(old, new)})


def test_an_edit_of_constants_alone_is_known_by_their_names_and_values() -> None:
    assert edited(b"0.04", b"0.05") == {"RATE": 0.05}
    assert edited(b"True", b"False") == {"USE_BIAS": False}
    # Comments and layout do not make it another edit.
    assert edited(b"DEPTH = 8", b"# one more\nDEPTH  =  9") == {"DEPTH": 9}


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"RATE * x", b"RATE * x * x"), (b"DEPTH = 8", b"DEPTH = 9\nEXTRA = 1"), (b"return", b"retur"), (b"def", b"#")],
)
def test_an_edit_that_does_anything_else_is_not(old: bytes, new: bytes) -> None:
    assert edited(old, new) == {}


def test_a_file_that_is_no_text_is_no_matter_of_constants() -> None:
    assert near_duplicates.changed_constants({"train.py": BEFORE}, {"train.py": b"\xff\xfe"}) == {}
    assert near_duplicates.changed_constants({"a.py": BEFORE, "b.bin": b"1"}, {"a.py": BEFORE, "b.bin": b"2"}) == {}


def test_near_constants_are_found_and_far_ones_are_not() -> None:
    records = [record(1, "rate up", RATE=0.05), record(2, "both", RATE=0.05, DEPTH=9)]
    near = near_duplicates.like("something else", {"RATE": 0.051}, records)
    assert near is not None
    assert near.number == 1
    assert near_duplicates.like("something else", {"RATE": 0.06}, records) is None
    assert near_duplicates.like("something else", {"RATE": 0.05, "DEPTH": 10}, records) is None
    assert near_duplicates.like("something else", {"USE_BIAS": True}, [record(1, "", USE_BIAS=False)]) is None


def test_the_same_words_are_found_whatever_their_case_and_numbers() -> None:
    records = [record(1, "Add a second embedding, 64 wide"), record(2, "gate the values")]
    near = near_duplicates.like("add a second embedding: 128 wide", {}, records)
    assert near is not None
    assert near.number == 1
    assert near_duplicates.like("add a third embedding, 64 wide", {}, records) is None
    assert near_duplicates.like("12", {}, [record(1, "")]) is None


def test_the_words_of_what_was_kept_may_be_used_again() -> None:
    assert near_duplicates.like("depth 9 to 10", {}, [record(1, "depth 8 to 9", Status.KEEP)]) is None


def test_what_is_told_names_the_experiment_and_its_result_on_one_line() -> None:
    said = near_duplicates.told(record(7, "gate\nthe values"))
    assert said.startswith('it nearly repeats experiment 0007, "gate the values" (val_bpb 1.1, best 1.0 (+0.1))')
