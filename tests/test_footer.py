"""pytest's last line: what became of the experiments, red only where something is wrong."""

from __future__ import annotations

import re

import pytest
from repo import RULE, Repo

COLOURS = {"31": "red", "32": "green", "33": "yellow"}


def last(result: pytest.RunResult) -> str:
    """The last line without its frame, its time and colours."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", result.outlines[-1]).strip("= ")
    return re.sub(r" in \d+\.\d\ds( \(.*\))?$", "", plain)


def colour(result: pytest.RunResult) -> str:
    """The colour of the last line's frame."""
    begin = re.match(r"(?:\x1b\[\d+m)*?\x1b\[(3\d)m=", result.outlines[-1])
    assert begin, result.outlines[-1]
    return COLOURS[begin[1]]


def test_a_night_of_discards_is_no_failure(repo: Repo) -> None:
    repo.plan(1.5, "crash", 0.9, 1.1)
    result = repo.run("--max", "4", "--color", "yes")
    assert result.ret == 0
    assert last(result) == "1 baseline, 1 kept, 2 discarded, 1 crashed"
    assert colour(result) == "green"
    assert "\x1b[31m" not in result.outlines[-1]


def test_the_words_are_the_same_where_a_discard_is_an_expected_failure_and_where_only_dots_are_shown(
    repo: Repo,
) -> None:
    repo.plan(1.5, 0.9)
    assert last(repo.run("--max", "1", "--autoresearch-discard", "xfail")) == "1 baseline, 1 discarded"
    assert last(repo.run("--max", "1", "-q")) == "1 kept"


def test_several_tests_of_one_experiment_count_once(repo: Repo) -> None:
    repo.rule(RULE + "\ndef test_again(experiment): assert experiment.val_bpb != 1.1\n")
    repo.plan(1.5, 0.9)
    assert last(repo.run("--max", "2")) == "1 baseline, 1 kept, 1 discarded"


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("--autoresearch-exit", "progress"), 1, "red"),
        (("-x",), 1, "red"),
        (("--autoresearch-exit", "session"), 0, "green"),
    ],
)
def test_red_is_an_exit_status_that_is_not_0(
    repo: Repo, arguments: tuple[str, ...], status: int, expected: str
) -> None:
    repo.plan(1.5, 1.5)
    result = repo.run("--max", "2", "--color", "yes", *arguments)
    assert (result.ret, colour(result)) == (status, expected)


def test_what_is_wrong_is_counted_beside_the_verdicts(repo: Repo) -> None:
    repo.rule("""
        import pytest, warnings
        @pytest.mark.filterwarnings("default")
        def test_it(experiment):
            if experiment.number == 1: warnings.warn("close")
            assert experiment.val_bpb < experiment.best
            assert experiment.number < 3 or experiment.no_such_number
        def test_ordinary(): pass
        """)
    repo.plan(0.9, 1.5, 0.8)
    result = repo.run("--max", "3", "--color", "yes")
    assert result.ret == 1
    assert last(result) == "1 baseline, 1 kept, 1 discarded, 1 failed, 1 deselected, 1 warning"
    assert colour(result) == "red"


def test_a_fixture_that_fails_after_the_verdict_is_an_error(repo: Repo) -> None:
    repo.rule("""
        import pytest
        @pytest.fixture
        def bad():
            yield
            raise OSError("teardown")
        def test_it(experiment, bad): assert experiment.val_bpb < experiment.best
        """)
    repo.plan(1.5)
    result = repo.run("--max", "1", "--color", "yes")
    assert (last(result), colour(result)) == ("1 baseline, 1 discarded, 2 errors", "red")


def test_short_summaries_words_and_tracebacks_are_those_of_pytest(repo: Repo) -> None:
    repo.plan(1.5, "crash", 0.9)
    result = repo.run("--max", "3", "-ra", "-v", "--tb", "short")
    text = result.stdout.str()
    for word in ("[0000] PASSED", "[0001] FAILED", "[0002] ERROR", "[0003] PASSED", "= FAILURES =", "= ERRORS ="):
        assert word in text
    assert "FAILED experiments/test_val_bpb.py::test_val_bpb_improves[0001] - action 1: 1.5: discard: val_bpb" in text
    assert "ERROR experiments/test_val_bpb.py::test_val_bpb_improves[0002] - action 2: crash: crash: exit 1" in text
    assert last(result) == "1 baseline, 1 kept, 1 discarded, 1 crashed"
