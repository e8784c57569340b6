"""A session that would run nothing, or a rule with another fixture: one sentence, before anything is trained."""

from __future__ import annotations

import pytest
from repo import PROPOSE, Repo

RULE = "such as `def test_better(experiment): assert experiment.gain > experiment.margin`"
EVERY = "every experiment is skipped ({}): remove the mark of the rule, or the conftest or option that adds it"
HIDDEN = (
    "{} has a fixture `experiment`, which hides the plugin's: rename it, or let it take the plugin's, as in "
    "`def experiment(experiment)`"
)
SKIP_ALL = """
import pytest
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.skip(reason="slow"))
"""
THEIRS = "import pytest\n@pytest.fixture\ndef experiment(): return 3\n"
WRAPPED = """
import pytest
@pytest.fixture
def experiment(experiment):
    assert experiment.val_bpb > 0
    return experiment
"""


def said(repo: Repo, *arguments: str) -> str:
    """The sentence of a session that trains nothing."""
    result = repo.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR, result.stdout.str()
    assert repo.records() == []
    assert not (repo.path / "experiments/runs").exists()
    (sentence,) = [line.removeprefix("ERROR: ") for line in result.errlines if line]
    return sentence


@pytest.mark.parametrize("limit", ["2", "0"])
@pytest.mark.parametrize("mark", ["skip(reason='closed')", "skipif(True, reason='closed')"])
def test_a_skipped_rule(repo: Repo, mark: str, limit: str) -> None:
    repo.rule(f"import pytest\n@pytest.mark.{mark}\ndef test_it(experiment): pass\n")
    assert said(repo, "--max", limit) == EVERY.format("closed")


def test_a_conftest_that_skips_everything(repo: Repo) -> None:
    repo.write("conftest.py", PROPOSE + SKIP_ALL)
    repo.commit()
    assert said(repo, "--max", "2") == EVERY.format("slow")


def test_a_rule_that_skips_its_module(repo: Repo) -> None:
    repo.rule("import pytest\npytest.importorskip('nowhere')\ndef test_it(experiment): pass\n")
    assert said(repo).startswith("the acceptance rule in experiments/ skips itself (could not import 'nowhere'")


SELECTIONS = {
    "-k nothing": "-k nothing deselects the experiments 0000 to 0002: leave it out",
    "-m slow": "-m slow deselects the experiments 0000 to 0002: leave it out",
    "--deselect experiments": "--deselect experiments deselects the experiments 0000 to 0002: leave it out",
}


@pytest.mark.parametrize("given", SELECTIONS)
def test_a_selection_of_nothing(repo: Repo, given: str) -> None:
    assert said(repo, "--max", "2", *given.split()) == SELECTIONS[given]


def test_a_selection_of_nothing_in_the_configuration(repo: Repo) -> None:
    with (repo.path / "pytest.ini").open("a") as file:
        file.write("addopts = -m slow\n")
    repo.commit()
    assert said(repo, "--max", "0") == (
        "-m slow deselects the experiments 0000 to 0001: addopts in pytest.ini has it, so type `-m ''` as well"
    )
    repo.plan(0.9)
    assert repo.run("--max", "1", "-m", "").ret == 0
    assert repo.statuses() == {0: "keep", 1: "keep"}


def test_a_number_that_this_session_does_not_have(repo: Repo) -> None:
    repo.plan(0.9)
    repo.run("--max", "1")
    result = repo.run("--max", "1", "-k", "0007")
    assert result.errlines[0] == "ERROR: -k 0007 deselects experiment 0002: leave it out"


def test_a_conftest_that_deselects_everything(repo: Repo) -> None:
    repo.hooks("def pytest_collection_modifyitems(items): items.clear()\n")
    assert said(repo, "--max", "2") == "a conftest or a plugin deselects the experiments 0000 to 0002: correct it"


def test_other_names_of_functions(repo: Repo) -> None:
    """The repository's rule is not collected; the built-in rule is."""
    with (repo.path / "pytest.ini").open("a") as file:
        file.write("python_functions = it_*\n")
    repo.commit()
    assert said(repo) == (
        f"pytest collected no test from experiments/: write an acceptance rule {RULE}, whose name begins with it_* "
        "(ini key python_functions), and let no --ignore hide it"
    )
    repo.git("rm", "-q", "experiments/test_val_bpb.py")
    repo.commit()
    repo.plan(0.9)
    assert repo.run("--max", "1").ret == 0
    assert repo.statuses() == {0: "keep", 1: "keep"}


def test_a_folder_without_a_rule(repo: Repo) -> None:
    repo.rule("def test_it(): pass\n")
    assert said(repo) == f"no test in experiments/ takes the fixture `experiment`: write an acceptance rule {RULE}"


@pytest.mark.parametrize("name", ["conftest.py", "experiments/conftest.py"])
def test_another_fixture_of_the_name(repo: Repo, name: str) -> None:
    repo.write(name, (PROPOSE if name == "conftest.py" else "") + THEIRS)
    repo.commit()
    assert said(repo, "--max", "1") == HIDDEN.format(name)


def test_another_fixture_of_the_name_beside_the_rule(repo: Repo) -> None:
    repo.rule(f"{THEIRS}def test_it(experiment): assert experiment.val_bpb\n")
    assert said(repo, "--max", "1") == HIDDEN.format("experiments/test_val_bpb.py")


def test_a_fixture_that_takes_ours_may_have_its_name(repo: Repo) -> None:
    repo.write("experiments/conftest.py", WRAPPED)
    repo.commit()
    repo.plan(0.9)
    assert repo.run("--max", "1").ret == 0
    assert repo.statuses() == {0: "keep", 1: "keep"}


# ---------------------------------------------------------------------------------------- judged once, and to the end


def early(repo: Repo, given: str, *arguments: str) -> list[str]:
    """The notes of a session with this in addopts, about its early end."""
    with (repo.path / "pytest.ini").open("a") as file:
        file.write(f"addopts = {given}\n")
    repo.commit()
    repo.plan(1.5, 1.6, 1.7)
    return notes(repo, "--max", "3", *arguments)


def notes(repo: Repo, *arguments: str) -> list[str]:
    """The notes of a session's header about its early end."""
    lines = repo.run(*arguments).outlines
    return [line.split("note:")[1].strip() for line in lines if "note:" in line and "ends the session" in line]


def test_a_limit_of_failures_in_the_configuration_is_said(repo: Repo) -> None:
    assert early(repo, "-x") == [
        "addopts in pytest.ini has -x, which ends the session at the first discard or crash: type `--maxfail=0` as "
        "well to go on"
    ]
    assert repo.statuses() == {0: "keep", 1: "discard"}
    repo.run("--max", "2", "--maxfail=0")
    assert len(repo.statuses()) == 4


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("-x", "-x ends the session at the first discard or crash: leave it out to go on"),
        ("--maxfail=1", "-x ends the session at the first discard or crash: leave it out to go on"),
        ("--maxfail=2", "--maxfail=2 ends the session after 2 discards or crashes: leave it out to go on"),
    ],
)
def test_a_limit_of_failures_that_is_typed_is_said(repo: Repo, typed: str, said: str) -> None:
    repo.plan(1.5, 1.6, 1.7)
    assert notes(repo, "--max", "3", typed) == [said]


def test_a_limit_of_failures_that_ends_nothing_is_not_mentioned(repo: Repo) -> None:
    assert early(repo, "--maxfail=2", "--autoresearch-discard", "xfail") == []
    assert len(repo.statuses()) == 4


def test_reruns_in_the_configuration_have_no_experiment_judged_again(repo: Repo) -> None:
    with (repo.path / "pytest.ini").open("a") as file:
        file.write("reruns = 2\n")
    repo.rule("import pytest\n@pytest.mark.flaky(reruns=2)\ndef test_it(experiment): assert experiment.gain > 0\n")
    repo.plan(1.5)
    result = repo.pytester.runpytest_inprocess(*repo.arguments("--max", "1"))
    assert repo.reports() == {"passed": 1, "failure": 1}
    assert "rerun" not in result.parseoutcomes()
