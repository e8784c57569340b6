"""The plugin while it is off, its options, and lanes."""

from __future__ import annotations

import pytest
from repo import Repo

from pytest_autoresearch.settings import INI_KEYS, OPTIONS

HEAVY = ("torch", "pyarrow", "anthropic", "git", "optuna", "ray", "psutil", "numpy", "tokenizers", "pynvml")


def test_off_it_imports_nothing_heavy_and_collects_no_experiment(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.write("tests/conftest.py", "")
    repo.write(
        "tests/test_ordinary.py",
        f"""
        import sys
        def test_light():
            assert not set({HEAVY!r}) & set(sys.modules)
            assert "pytest_autoresearch.session.begin" not in sys.modules
        """,
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins import what they like
    ours = ("-p", "pytest_autoresearch.plugin")
    repo.pytester.runpytest_subprocess(*ours).assert_outcomes(passed=1)
    repo.pytester.runpytest_subprocess(".", *ours).assert_outcomes(passed=1)
    assert not (repo.path / "results.tsv").exists()


def test_off_a_rule_named_by_its_path_is_skipped(repo: Repo) -> None:
    repo.pytester.runpytest_inprocess("experiments/test_val_bpb.py").assert_outcomes(skipped=1)


def test_off_other_tests_in_a_folder_of_that_name_are_collected(repo: Repo) -> None:
    repo.write("tests/conftest.py", "")
    repo.write("tests/test_ordinary.py", "")
    repo.write("experiments/test_other.py", "def test_plain(): pass\n")
    repo.pytester.runpytest_inprocess("experiments").assert_outcomes(passed=1)


def test_every_option_is_an_ini_key_with_help_that_names_its_default(repo: Repo) -> None:
    shown = " ".join(repo.pytester.runpytest_inprocess("--help").stdout.str().split())
    for option in OPTIONS:
        assert (option.flag in shown) is not option.hidden
        assert (f"{option.key} (string)" in shown) is not option.hidden
        assert option.help.endswith(")")
    for key in INI_KEYS:
        assert f"{key.key} ({key.type})" in shown
        assert key.help.endswith(")")


def test_an_ini_key_does_what_its_option_does(repo: Repo) -> None:
    repo.write(
        "pytest.ini",
        """
        [pytest]
        autoresearch_command = python -S train.py
        autoresearch_max = 2
        autoresearch_budget = 11
        autoresearch_vram = 3
        autoresearch_description = ini
        autoresearch_discard = xfail
        """,
    )
    repo.commit()
    repo.plan(1.5, 1.6, 1.7)
    result = repo.run()
    result.assert_outcomes(passed=1, xfailed=2)
    record = repo.records()[1]
    assert record.limits.budget_seconds == 11
    assert record.limits.memory_limit_mb == 3072
    assert record.proposal.description == "ini action 1: 1.5"


def test_two_lanes_run_at_once_and_results_arrive_out_of_order(repo: Repo) -> None:
    repo.plan("slow:1:1.5", 1.6, 0.9, 1.7)
    result = repo.run("--max", "4", "--autoresearch-lanes", "2")
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "discard", 3: "keep", 4: "discard"}
    order = [int(line.split()[0]) for line in result.outlines if line.startswith(" 0")]
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert order.index(2) < order.index(1)
    assert {run.lane for record in repo.records() for run in record.runs} == {0, 1}
    repo.check_ledger()


def test_what_was_measured_on_an_old_head_is_tried_again_on_the_new_one(repo: Repo) -> None:
    repo.plan("slow:1:0.8", 0.9, 1.5)
    result = repo.run("--max", "3", "--autoresearch-lanes", "2")
    assert repo.reasons() == {0: "baseline", 1: "stale", 2: "improved", 3: "not-improved"}
    repo.run("--max", "1")
    again = next(record for record in repo.records() if record.proposal.repeats)
    stale = repo.records()[1]
    assert again.proposal.repeats == stale.commit
    assert again.base == repo.records()[2].commit
    assert again.verdict is not None
    assert again.verdict.status == "keep"
    assert result.ret == 0
    repo.check_ledger()


def test_a_worse_result_on_an_old_head_is_just_discarded(repo: Repo) -> None:
    repo.plan("slow:1:0.95", 0.9, 1.5)
    repo.run("--max", "3", "--autoresearch-lanes", "2")
    assert repo.reasons()[1] == "not-improved"
    assert not any(record.proposal.repeats for record in repo.records())


def test_two_sessions_share_a_campaign_without_losing_or_doubling(repo: Repo) -> None:
    repo.plan(*[f"slow:0.2:{1.5 - n / 100}" for n in range(8)], *[f"slow:0.2:{0.9 - n / 100}" for n in range(8)])
    repo.run("--max", "1", "-k", "0000")
    one, two = repo.start("--max", "6"), repo.start("--max", "6", "--junitxml=two.xml")
    for process in (one, two):
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 0, output
    assert len(repo.records()) == 13
    assert any(record.planned_number is not None for record in repo.records())
    repo.run("--max", "1")  # the file of the slower session may lag: the next start mends it
    repo.check_ledger()


@pytest.mark.parametrize("plugin", ["timeout", "cacheprovider", "junitxml", "terminal"])
def test_it_runs_without_any_of_pytests_optional_plugins(repo: Repo, plugin: str) -> None:
    repo.plan(0.9)
    result = repo.run("--max", "1", "-p", f"no:{plugin}")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert repo.statuses() == {0: "keep", 1: "keep"}


def test_importlib_mode(repo: Repo) -> None:
    repo.plan(0.9)
    repo.run("--max", "1", "--import-mode=importlib")
    assert repo.statuses() == {0: "keep", 1: "keep"}
