"""What decides: the test is the acceptance rule."""

from __future__ import annotations

import pytest
from repo import RULE, Repo, with_one_and_two_lanes

TWO = """
    import pytest

    @pytest.fixture(scope="module")
    def once():
        print("MODULE UP"); yield; print("MODULE DOWN")

    def test_memory(experiment, once):
        assert experiment.peak_memory_mb < 10_000

    @pytest.fixture(scope="class")
    def each():
        print("CLASS UP"); yield; print("CLASS DOWN")

    class TestQuality:
        @pytest.mark.parametrize("margin", [0, 0.05])
        def test_bpb(self, experiment, margin, each):
            assert experiment.val_bpb < experiment.best - margin
    """


def test_removing_an_assert_makes_git_keep_something_else(repo: Repo) -> None:
    strict = RULE + "    assert experiment.peak_vram_mb < 1000\n"
    repo.rule(strict)
    text = (repo.path / "train.py").read_text()
    repo.write("train.py", text.replace("= 2048.0", "= 512 if ACTION == '1.0' else 2048"))
    repo.commit("A baseline that passes")
    repo.plan(0.9, "0.90")
    repo.run("--max", "1")
    assert repo.statuses() == {0: "keep", 1: "discard"}
    assert "peak_vram_mb" in repo.records()[1].verdict.message  # type: ignore[union-attr]
    repo.rule(RULE)
    repo.run("--max", "1")
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "keep"}
    assert repo.head() == repo.records()[2].commit


def test_a_rule_without_the_metric_keeps_what_is_worse(repo: Repo) -> None:
    repo.rule("def test_anything(experiment): assert experiment.val_bpb < 2\n")
    repo.plan(1.5)
    repo.run("--max", "1")
    assert repo.reasons() == {0: "baseline", 1: "accepted"}


@with_one_and_two_lanes
def test_a_typo_in_the_rule_stops_the_campaign_with_nothing_recorded(repo: Repo) -> None:
    repo.plan(0.9, 0.8, 0.7)
    repo.run("--max", "1")
    repo.rule("def test_it(experiment): assert experiment.val_bbp < experiment.best\n")
    result = repo.run("--max", "2")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the rule is broken*val_bbp*it has *val_bpb*"])
    assert 2 not in repo.statuses()
    repo.check_ledger()
    assert repo.training() == []
    repo.rule(RULE)
    repo.plan(0.9, 0.5, 0.4)
    repo.run("--max", "1")
    record = repo.records()[2]
    assert record.proposal.description == "action 2: 0.8"  # the candidate that got no verdict is tried first
    assert record.verdict is not None
    assert record.verdict.status == "keep"


@with_one_and_two_lanes
@pytest.mark.parametrize("count", ["3", "0"])
def test_several_tests_give_one_verdict(repo: Repo, count: str) -> None:
    stop = """
    def test_stop(experiment):
        if experiment.number == 4: pytest.exit("enough", 0)
    """
    repo.rule(TWO + (stop if count == "0" else ""))
    repo.plan(1.5, "crash", 0.9, "slow:0.7:0.5")  # the last ends last, on two lanes too
    result = repo.run("--max", count, "-s", "-v")
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "crash", 3: "keep"}
    output = result.stdout.str()
    assert output.count("MODULE UP") == output.count("MODULE DOWN") == 1
    assert output.count("CLASS UP") == output.count("CLASS DOWN") > 1
    if count == "3":
        assert result.parseoutcomes() == {"baseline": 1, "kept": 1, "discarded": 1, "crashed": 1}
        assert repo.reports() == {"passed": 3 + 1 + 3, "failure": 2, "error": 3}
        assert {name for name in repo.cases() if "0001" in name} == {
            "test_memory[0001]", "test_bpb[0001-0]", "test_bpb[0001-0.05]",
        }  # fmt: skip
    repo.check_ledger()


def test_the_first_test_that_does_not_pass_decides(repo: Repo) -> None:
    repo.rule("""
        import pytest
        def test_first(experiment):
            assert experiment.number == 0, "the first says no"
        def test_second(experiment):
            if experiment.number: raise KeyError("too late to break the rule")
        """)
    repo.plan(0.9)
    repo.run("--max", "1")
    assert "the first says no" in repo.records()[1].verdict.message  # type: ignore[union-attr]


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="the fixture came with pytest 9")
@pytest.mark.parametrize(("inner", "outer"), [("100", "experiment.best"), ("experiment.best", "100")])
def test_a_subtest_that_passes_decides_nothing(repo: Repo, inner: str, outer: str) -> None:
    repo.rule(f"""
        def test_it(experiment, subtests):
            with subtests.test("inner"):
                assert experiment.val_bpb < {inner}
            assert experiment.val_bpb < {outer}
        """)
    repo.plan(1.5, 0.9)
    repo.run("--max", "2")
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "keep"}
    repo.check_ledger()


def test_a_part_of_several_tests_is_refused(repo: Repo) -> None:
    repo.rule(TWO)
    result = repo.run("--max", "1", "-k", "memory")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*experiment 0000: only 1 of its 3 tests are selected*"])
    assert repo.records() == []


def test_tests_that_take_no_experiment_are_deselected(repo: Repo) -> None:
    repo.rule(RULE + "\ndef test_plain(): raise SystemError\n")
    repo.plan(0.9)
    assert repo.run("--max", "1").parseoutcomes() == {"baseline": 1, "kept": 1, "deselected": 1}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("pytest.skip('not today')", "discard", "skip"),
        ("pytest.xfail('known')", "discard", "xfail"),
        ("request.node.add_marker(pytest.mark.xfail)", "discard", "xpass"),
        ("request.node.add_marker(pytest.mark.xfail(strict=True))", "discard", "assertion"),
        ("pytest.fail('because', pytrace=False)", "discard", "assertion"),
        ("assert False, 'no'", "discard", "assertion"),
    ],
)
def test_what_does_not_plainly_pass_is_never_a_keep(repo: Repo, body: str, status: str, reason: str) -> None:
    repo.rule(f"""
        import pytest
        def test_it(experiment, request):
            if experiment.number: {body}
        """)
    repo.plan(0.9)
    repo.run("--max", "1")
    assert repo.statuses()[1] == status
    assert repo.reasons()[1] == reason
    repo.check_ledger()


@pytest.mark.parametrize("where", ["test", "fixture"])
@pytest.mark.parametrize("error", ["ValueError('boom')", "OSError('no tokenizer')"])
def test_any_other_exception_breaks_the_rule(repo: Repo, where: str, error: str) -> None:
    repo.rule(f"""
        import pytest
        @pytest.fixture
        def before(experiment):
            if experiment.number and {where == "fixture"}: raise {error}
        def test_it(experiment, before):
            if experiment.number and {where == "test"}: raise {error}
        """)
    repo.plan(0.9)
    result = repo.run("--max", "1")
    assert result.ret == 1
    assert repo.statuses() == {0: "keep"}


@with_one_and_two_lanes
def test_a_teardown_error_comes_after_the_verdict(repo: Repo) -> None:
    repo.rule("""
        import pytest
        @pytest.fixture
        def bad(experiment):
            yield
            if experiment.number: raise OSError("teardown")
        def test_it(experiment, bad):
            assert experiment.val_bpb < experiment.best
        """)
    repo.plan(0.9, 1.5)
    result = repo.run("--max", "2")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard"}
    assert result.ret == 1
    assert result.parseoutcomes() == {"baseline": 1, "kept": 1, "discarded": 1, "errors": 2}


def test_fixtures_marks_and_conftest_wrappers_of_the_user_work(repo: Repo) -> None:
    repo.write(
        "experiments/conftest.py",
        """
        import pytest
        @pytest.fixture(scope="session")
        def experiment(experiment):
            assert repr(experiment).startswith("<experiment ")
            return experiment
        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_makereport(item, call):
            report = yield
            if report.when == "call" and "[0002]" in item.nodeid:
                report.outcome, report.longrepr = "failed", "conftest says no"
            return report
        """,
    )
    repo.rule("""
        import pytest
        @pytest.mark.usefixtures("tmp_path")
        def test_it(experiment, request):
            assert experiment.val_bpb < experiment.best
        """)
    repo.plan(1.5, 0.9)
    repo.run("--max", "2")
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "discard"}
    assert "conftest says no" in repo.records()[2].verdict.message  # type: ignore[union-attr]


def test_a_mark_that_cannot_be_evaluated_breaks_the_rule(repo: Repo) -> None:
    repo.rule("import pytest\n@pytest.mark.skipif('nonsense')\ndef test_it(experiment): pass\n")
    result = repo.run("--max", "2")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the rule is broken: Failed: Error evaluating 'skipif' condition*"])
    assert repo.records() == []


@with_one_and_two_lanes
def test_pytest_exit_in_a_body_gives_no_verdict_and_the_number_is_used_again(repo: Repo) -> None:
    repo.rule("""
        import pytest
        def test_it(experiment):
            if experiment.number: pytest.exit("enough", 0)
        """)
    repo.plan(0.9, 0.8)
    repo.run("--max", "2")
    assert repo.statuses() == {0: "keep"}
    assert list(repo.cases()) == ["test_it[0000]"]
    repo.rule(RULE)
    repo.run("--max", "1")
    assert repo.statuses() == {0: "keep", 1: "keep"}


@pytest.mark.parametrize("arguments", [["-x"], ["--maxfail=2"]])
def test_maxfail_counts_discards(repo: Repo, arguments: list[str]) -> None:
    repo.plan(1.5, 1.6, 1.7, 0.5)
    result = repo.run("--max", "4", "--autoresearch-lanes", "1", *arguments)
    failures = 1 if arguments == ["-x"] else 2
    assert list(repo.statuses()) == list(range(failures + 1))
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*stopping after {failures} failures*"])
    assert repo.run("--max", "1").ret == 0
    repo.check_ledger()


@with_one_and_two_lanes
def test_numbers_are_selected_by_k_and_by_node_id(repo: Repo) -> None:
    repo.plan(*[1.5] * 4)
    repo.run("--max", "4", "-k", "0000 or 0002")
    assert list(repo.statuses()) == [0, 2]
    repo.run("--max", "4", "experiments/test_val_bpb.py::test_val_bpb_improves[0004]")
    assert list(repo.statuses()) == [0, 2, 4]


def test_without_a_baseline_no_other_number_runs(repo: Repo) -> None:
    repo.plan(0.9)
    result = repo.run("--max", "1", "-k", "0001")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*the campaign t has no baseline yet: select 0000 as well, or nothing"])
    assert repo.records() == []


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--setup-only"])
def test_looking_trains_nothing(repo: Repo, option: str) -> None:
    result = repo.run("--max", "2", option, "-q")
    assert repo.git("for-each-ref", "refs/heads/autoresearch", "refs/autoresearch") == ""
    assert not (repo.path / "results.tsv").exists()
    if option == "--collect-only":
        ids = [line for line in result.outlines if "::" in line]
        assert ids == [f"experiments/test_val_bpb.py::test_val_bpb_improves[{n:04d}]" for n in range(3)]


@pytest.mark.parametrize(
    ("rule", "said"), [("import nothing_of_that_name\n", "ModuleNotFoundError"), ("def (", "Syntax")]
)
def test_a_rule_that_cannot_be_imported_is_shown_and_runs_nothing(repo: Repo, rule: str, said: str) -> None:
    repo.rule(rule)
    result = repo.run("--max", "2")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*ERROR collecting experiments/test_val_bpb.py*", f"E *{said}*"])
    assert repo.records() == []


def test_a_broken_rule_is_shown_with_its_place(repo: Repo) -> None:
    repo.rule("def helper():\n    return maths.inf\ndef test_it(experiment):\n    assert helper()\n")
    result = repo.run("--max", "1")
    result.stdout.fnmatch_lines(
        ["experiments/test_val_bpb.py:2: in helper", "E *NameError: name 'maths' is not defined"]
    )


def test_looking_leaves_the_last_nights_report_alone(repo: Repo) -> None:
    repo.plan(0.9)
    repo.run("--max", "1")
    before = (repo.path / "results.xml").read_text()
    repo.run("--max", "1", "--collect-only")
    assert (repo.path / "results.xml").read_text() == before


def test_a_night_without_end_passes_over_a_number_that_is_left_out(repo: Repo) -> None:
    repo.rule("""
        import pytest
        def test_it(experiment):
            if experiment.number == 5: pytest.exit("enough", 0)
            assert experiment.val_bpb < experiment.best
        """)
    repo.plan(*[1.5] * 4, 0.5)
    repo.run("--max", "0", "-k", "not 0003", "--autoresearch-lanes", "1")
    assert list(repo.statuses()) == [0, 1, 2, 4]
