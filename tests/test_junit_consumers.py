"""A night's JUnit file as its readers take it: the xunit2 schema, the parsers of two programs that show such files, and
the rules of two GitHub actions.

junitparser is what a widely used GitHub action reads with; junit2html makes a page of the file. dorny/test-reporter and
mikepenz/action-junit-report are no packages, so their rules are written here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import xmlschema
from junit2htmlreport.parser import Junit as HtmlJunit
from junitparser import Error, Failure, Skipped
from junitparser.xunit2 import JUnitXml
from repo import RULE, Repo

SCHEMA = xmlschema.XMLSchema(Path(__file__).parent / "xunit2.xsd")
HOSTILE = "do:sys.stdout.buffer.write(bytes(range(256))); raise OSError('</testcase> ]]> & \\x00 \"quoted\" <b>')"
NAME = "test_val_bpb_improves"


def night(repo: Repo, *arguments: str) -> Path:
    repo.plan(1.5, "crash", 0.9, HOSTILE, "do:print('val_bpb: nan')", 0.8123456)
    repo.run("--max", "6", *arguments)
    return repo.path / "results.xml"


@pytest.mark.parametrize("names", ["plain", "verdict"])
@pytest.mark.parametrize("discard", ["fail", "xfail"])
def test_a_file_of_the_second_family_is_what_the_schema_says(repo: Repo, names: str, discard: str) -> None:
    path = night(
        repo, "-o", "junit_family=xunit2", "--autoresearch-junit-names", names, "--autoresearch-discard", discard
    )
    errors = [str(error.reason) for error in SCHEMA.iter_errors(path)]
    assert errors == []


def test_the_schema_takes_no_properties_of_a_case(repo: Repo) -> None:
    assert any("properties" in str(error.reason) for error in SCHEMA.iter_errors(night(repo)))


def test_a_discard_whose_fixture_fails_at_the_end_is_what_the_schema_says(repo: Repo) -> None:
    repo.rule("""
        import pytest
        @pytest.fixture
        def late():
            yield
            raise OSError("teardown")
        def test_it(experiment, late): assert experiment.val_bpb < experiment.best
        """)
    repo.plan(1.5)
    repo.run("--max", "1", "-o", "junit_family=xunit2")
    assert [str(error.reason) for error in SCHEMA.iter_errors(repo.path / "results.xml")] == []


def test_junitparser_reads_every_verdict_with_its_numbers(repo: Repo) -> None:
    (suite,) = JUnitXml.fromfile(str(night(repo)))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (7, 1, 3, 0)
    cases = {case.name: case for case in suite}
    assert [len(case.result) for case in cases.values()].count(0) == 3
    assert all(case.classname == "experiments.test_val_bpb" for case in cases.values())
    (failure,) = cases[f"{NAME}[0001]"].result
    assert isinstance(failure, Failure)
    assert failure.message.startswith("action 1: 1.5: discard: val_bpb 1.500000, best 1.000000 (+0.500000)")
    (error,) = cases[f"{NAME}[0002]"].result
    assert isinstance(error, Error)
    assert error.message.startswith("action 2: crash: crash: exit 1: RuntimeError: the tensor is sad")
    said = {one.name: one.value for one in cases[f"{NAME}[0003]"].properties()}
    assert said["status"] == "keep"
    assert said["val_bpb"] == "0.900000"
    _, verdict, description, *log = cases[f"{NAME}[0003]"].system_out.splitlines()
    assert verdict.startswith("keep: val_bpb 0.900000, best 1.000000")
    assert description == "action 3: 0.9"
    assert "val_bpb:          0.9" in log
    assert "</testcase> ]]> &" in cases[f"{NAME}[0004]"].result[0].message


def test_junit2html_shows_every_experiment_once(repo: Repo) -> None:
    report = HtmlJunit(filename=str(night(repo)))
    (suite,) = report.suites
    cases = {case.name: case for group in suite.classes.values() for case in group.cases}
    assert sorted(cases) == [f"{NAME}[{number:04d}]" for number in range(7)]
    outcomes = {name[-5:-1]: case.outcome() for name, case in cases.items()}
    assert outcomes["0001"] != outcomes["0003"] == outcomes["0000"]
    page = report.html()
    assert "discard: val_bpb 1.500000" in page
    assert "&lt;/testcase&gt; ]]&gt; &amp;" in page
    assert "</testcase>" not in page


def test_names_carry_verdict_and_metric_where_that_is_asked_for(repo: Repo) -> None:
    path = night(repo, "--autoresearch-junit-names", "verdict")
    (suite,) = JUnitXml.fromfile(str(path))
    names = sorted(str(case.name) for case in suite)
    assert [name.partition(": ")[0] for name in names] == [
        f"{NAME}[0000] keep 1",
        f"{NAME}[0001] discard 1.5",
        f"{NAME}[0002] crash exit 1",
        f"{NAME}[0003] keep 0.9",
        f"{NAME}[0004] crash exit 1",
        f"{NAME}[0005] crash nan",
        f"{NAME}[0006] keep 0.812346",
    ]
    assert names[1] == f"{NAME}[0001] discard 1.5: action 1: 1.5"
    assert names[4].startswith(f"{NAME}[0004] crash exit 1: action 4: do:sys.stdout")
    assert max(map(len, names)) < 120


def test_of_several_tests_the_one_that_decides_carries_the_verdict(repo: Repo) -> None:
    repo.rule(RULE + "\ndef test_again(experiment): pass\n")
    repo.plan(0.9, 1.5)
    repo.run("--max", "2", "--autoresearch-junit-names", "verdict", "-o", "junit_family=xunit2")
    names = {name for name in repo.cases() if "[0000]" not in name}
    assert names == {
        f"{NAME}[0001]", "test_again[0001] keep 0.9: action 1: 0.9",
        f"{NAME}[0002] discard 1.5: action 2: 1.5", "test_again[0002]",
    }  # fmt: skip


@dataclass
class Shown:
    """A case on a page of a reader that takes a failure and an error for the same."""

    result: str
    text: str


def dorny(case: ElementTree.Element) -> Shown:
    """As dorny/test-reporter reads with `reporter: java-junit` or `python-xunit`: it shows the text of the element."""
    wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
    if wrong is not None:
        return Shown("failed", wrong.text or "")
    return Shown("success" if case.find("skipped") is None else "skipped", "")


def mikepenz(case: ElementTree.Element) -> Shown:
    """As mikepenz/action-junit-report reads: the attribute first, and a skipped case never fails."""
    if case.find("skipped") is not None:
        return Shown("skipped", "")
    wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
    if wrong is None:
        return Shown("success", "")
    return Shown("failed", wrong.get("message") or "\n".join((wrong.text or "").splitlines()[:2]))


@pytest.mark.parametrize("reader", [dorny, mikepenz])
@pytest.mark.parametrize("family", ["xunit1", "xunit2"])
def test_readers_of_texts_and_of_messages_see_first_what_was_tried(
    repo: Repo, reader: Callable[[ElementTree.Element], Shown], family: str
) -> None:
    night(repo, "-o", f"junit_family={family}")
    shown = {number: reader(repo.case(number)) for number in range(4)}
    assert [one.result for one in shown.values()] == ["success", "failed", "failed", "success"]
    assert shown[1].text.splitlines()[0] == "action 1: 1.5: discard: val_bpb 1.500000, best 1.000000 (+0.500000)"
    assert shown[1].text.splitlines()[1].endswith("assert 1.5 < (1.0 - 0.0)")
    assert shown[2].text.splitlines()[0] == "action 2: crash: crash: exit 1: RuntimeError: the tensor is sad"
    assert "Traceback" in shown[2].text.splitlines()[1]


@pytest.mark.parametrize("reader", [dorny, mikepenz])
def test_readers_see_no_failure_in_a_discard_that_stays_green(
    repo: Repo, reader: Callable[[ElementTree.Element], Shown]
) -> None:
    repo.plan(1.5, "crash", 0.9)
    repo.run("--max", "3", "--autoresearch-discard", "xfail")
    assert [reader(repo.case(number)).result for number in range(4)] == ["success", "skipped", "failed", "success"]
    skipped = repo.case(1).find("skipped")
    assert skipped is not None
    assert str(skipped.get("message")).startswith("action 1: 1.5: discard: val_bpb 1.500000")


def test_a_discard_that_stays_green_is_skipped_to_junitparser(repo: Repo) -> None:
    (suite,) = JUnitXml.fromfile(str(night(repo, "--autoresearch-discard", "xfail")))
    assert suite.failures == 0
    assert suite.skipped == 1
    assert [type(case.result[0]) for case in suite if "[0001]" in case.name] == [Skipped]
