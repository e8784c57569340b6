"""The plugin while it is off, its options, and lanes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from textwrap import dedent

import pytest
from repo import CONFIG, PROPOSE, Repo

from pytest_autoresearch.cli import main
from pytest_autoresearch.settings import INI_KEYS, OPTIONS

OURS = [
    "pytest_autoresearch",
    "pytest_autoresearch.core",
    "pytest_autoresearch.core.option_values",
    "pytest_autoresearch.hookspecs",
    "pytest_autoresearch.plugin",
    "pytest_autoresearch.settings",
]
HEAVY = ("torch", "pyarrow", "anthropic", "git", "optuna", "ray", "psutil", "numpy", "tokenizers", "pynvml")
NO_OTHER_PLUGINS = ("--disable-plugin-autoload", "-p", "pytest_autoresearch.plugin")  # they import what they like


def test_off_it_imports_its_option_table_and_nothing_else(repo: Repo) -> None:
    repo.write("conftest.py", "")
    repo.write("tests/conftest.py", "")
    repo.write(
        "tests/test_ordinary.py",
        f"""
        import sys
        def test_light():
            assert not set({HEAVY!r}) & set(sys.modules)
            assert sorted(name for name in sys.modules if name.startswith("pytest_autoresearch")) == {OURS!r}
        """,
    )
    repo.pytester.runpytest_subprocess(*NO_OTHER_PLUGINS).assert_outcomes(passed=1)
    repo.pytester.runpytest_subprocess(".", *NO_OTHER_PLUGINS).assert_outcomes(passed=1, skipped=1)
    assert not (repo.path / "results.tsv").exists()


def test_off_a_rule_is_skipped_with_the_option_that_runs_it(repo: Repo) -> None:
    result = repo.pytester.runpytest_subprocess("experiments/test_val_bpb.py", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*experiments run with --autoresearch only"])


def test_off_a_repository_with_a_fixture_of_that_name_keeps_its_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        **{
            "experiments/conftest": "import pytest\n@pytest.fixture\ndef experiment(): return 3\n",
            "experiments/test_theirs": """
                import pytest
                def test_fixture(experiment): assert experiment == 3
                @pytest.mark.parametrize("experiment", [1, 2])
                def test_parameter(experiment): assert experiment
            """,
        }
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=3)


def test_off_it_reads_no_file(pytester: pytest.Pytester) -> None:
    """A module that cannot be read is pytest's own affair, and is reported as pytest reports it."""
    pytester.makepyfile(**{"experiments/test_odd": "def test_it(): pass\n"})
    (pytester.path / "experiments/test_gone.py").symlink_to("nowhere")
    pytester.makeini("[pytest]\npython_files = test_odd.py\n")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


# ------------------------------------------------------------------------------------------------------------ --max


THEIR_MAX = """
def pytest_addoption(parser):
    parser.addoption("--max", type=int, default=7)
"""
PRINT_MAX = "def pytest_report_header(config): return f'their max is {config.getoption(\"max\")}'\n"


def test_a_conftest_with_a_max_of_its_own_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(THEIR_MAX + PRINT_MAX)
    pytester.makepyfile("def test_it(): pass")
    for arguments, value in (((), 7), (("--max", "3"), 3), (("--max=4",), 4)):
        result = pytester.runpytest_subprocess(*arguments)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines([f"their max is {value}"])
    assert pytester.runpytest_subprocess("--help").ret == 0


def test_a_campaign_beside_another_max_is_told_what_to_type(repo: Repo) -> None:
    repo.hooks(THEIR_MAX + PRINT_MAX)
    repo.plan(0.9)
    result = repo.run("--max", "1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line] == [
        "ERROR: --max is an option of this repository's conftest.py or of another plugin: type --autoresearch-max N"
    ]
    assert repo.rows() == []
    result = repo.run("--autoresearch-max", "1", "--max", "5")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["their max is 5"])
    assert repo.statuses() == {0: "keep", 1: "keep"}


@pytest.mark.parametrize("first", [True, False])
def test_a_plugin_with_a_max_of_its_own_is_left_alone(pytester: pytest.Pytester, first: bool) -> None:
    pytester.makepyfile(theirs=THEIR_MAX + PRINT_MAX, test_it="def test_it(): pass")
    plugins = ["theirs", "pytest_autoresearch.plugin"] if first else ["pytest_autoresearch.plugin", "theirs"]
    named = [word for plugin in plugins for word in ("-p", plugin)]
    result = pytester.runpytest_subprocess("--disable-plugin-autoload", *named, "--max=2")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["their max is 2"])


def test_a_folder_that_is_called_like_the_value_of_max_is_no_path(repo: Repo) -> None:
    repo.write("1/conftest.py", "raise RuntimeError\n")
    repo.commit()
    repo.plan(0.9)
    repo.run("--max", "1")
    assert repo.statuses() == {0: "keep", 1: "keep"}


def test_an_option_of_the_repositorys_conftest_goes_with_a_campaign(repo: Repo) -> None:
    repo.hooks("def pytest_addoption(parser): parser.addoption('--mine')\n")
    repo.plan(0.9)
    assert repo.run("--max", "1", "--mine", "tests").ret == 0
    assert repo.statuses() == {0: "keep", 1: "keep"}


# ---------------------------------------------------------------------------------------------------------- options


def test_a_misspelt_option_is_met_with_the_nearest_name_while_off_too(pytester: pytest.Pytester) -> None:
    for given, meant in (
        ("--autoresarch", "--autoresearch"),
        ("--autoresearch-propser=queue", "--autoresearch-proposer"),
    ):
        result = pytester.runpytest_subprocess(given)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        wrong = given.partition("=")[0]
        assert [line for line in result.errlines if line] == [
            f"ERROR: there is no option {wrong}: did you mean {meant}?"
        ]


@pytest.mark.parametrize("given", ["--autoresearch-max 3", "--autoresearch-budget=5", "--max 3", "--max=3"])
def test_an_option_of_ours_without_autoresearch_is_not_silent(pytester: pytest.Pytester, given: str) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess(*given.split())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    flag = given.replace("=", " ").split()[0]
    assert [line for line in result.errlines if line] == [
        f"ERROR: {flag} does nothing without --autoresearch: add --autoresearch, or leave it out"
    ]
    assert pytester.runpytest_subprocess(*given.split(), "--version").ret == 0


def test_options_of_ours_in_the_configuration_leave_ordinary_tests_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\naddopts = --autoresearch-max 3\nautoresearch_budget = 5\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--max 5")
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_only_the_keys_of_pytests_own_table_are_ini_keys(repo: Repo) -> None:
    (repo.path / "pytest.ini").unlink()
    text = """
        [project.scripts]
        autoresearch = "theirs:main"
        [tool.pytest.ini_options]
        autoresearch_command = "python -S train.py"
    """
    repo.write("pyproject.toml", text)
    repo.commit()
    repo.plan(0.9)
    assert repo.run("--max", "1").ret == 0
    repo.write("pyproject.toml", text + '        autoresearch_budgt = "5"\n')
    result = repo.run("--max", "1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "there is no ini key autoresearch_budgt: did you mean autoresearch_budget?" in result.stderr.str()


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest has TOML's own types from 9 on")
@pytest.mark.parametrize(("name", "table"), [("pyproject.toml", "tool.pytest"), ("pytest.toml", "pytest")])
def test_toml_has_types_of_its_own(repo: Repo, name: str, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    (repo.path / "pytest.ini").unlink()
    settings = """
        autoresearch_command = ["python", "-S", "train.py"]
        autoresearch_editable = "train.py"
        autoresearch_frozen = ["conftest.py"]
        autoresearch_budget = 60
        autoresearch_hours = 1.5
        autoresearch_audit = false
    """
    repo.write(name, f"[{table}]{settings}")
    repo.commit()
    repo.plan(0.9)
    result = repo.run("--max", "1")
    assert result.ret == 0, result.stderr.str()
    assert repo.records()[1].budget_seconds == 60
    assert main(["results"]) == 0
    repo.write(name, f"[{table}]{settings}".replace("false", "3"))
    assert "autoresearch_audit = 3: give true or false" in repo.run("--max", "1").stderr.str()


def test_an_ini_key_that_a_conftest_adds_is_not_taken_for_a_misspelt_one(repo: Repo) -> None:
    repo.hooks("def pytest_addoption(parser): parser.addini('autoresearch_comand', 'theirs')\n")
    repo.write("pytest.ini", "[pytest]\nautoresearch_command = python -S train.py\nautoresearch_comand = x\n")
    repo.commit()
    repo.plan(0.9)
    assert repo.run("--max", "1").ret == 0


def test_every_option_is_an_ini_key_with_help_that_names_its_default(repo: Repo) -> None:
    repo.write("tests/conftest.py", "")
    shown = " ".join(repo.pytester.runpytest_subprocess("--help").stdout.str().split())
    for option in OPTIONS:
        assert (f"{option.flag}=" in shown or f"{option.flag} " in shown) is not option.hidden
        assert (f"{option.key} (string)" in shown) is not option.hidden
        assert option.help.endswith(")")
    assert "--max=N" in shown
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
    assert result.parseoutcomes() == {"baseline": 1, "discarded": 2}
    record = repo.records()[1]
    assert record.limits.budget_seconds == 11
    assert record.limits.memory_limit_mb == 3072
    assert record.proposal.description == "ini action 1: 1.5"


# -------------------------------------------------------------------------------------------------- the public face


def test_the_public_names_are_imported_when_they_are_asked_for() -> None:
    code = """if True:
        import sys
        import pytest_autoresearch
        assert not [name for name in sys.modules if name.startswith("pytest_autoresearch.")]
        assert set(pytest_autoresearch.__all__) <= set(dir(pytest_autoresearch))
        from pytest_autoresearch import Context, Experiment, Proposal, Refused, Status, Verdict
        assert issubclass(Refused, Exception)
        assert Verdict(Status.KEEP, "", "") and Proposal("") and Context and Experiment
        assert not {"git", "psutil", "pytest"} & set(sys.modules)
        from pytest_autoresearch import *
        assert callable(load_campaign) and "pandas" not in sys.modules
        try:
            pytest_autoresearch.Campaign
        except AttributeError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "module 'pytest_autoresearch' has no attribute 'Campaign'\n", done.stderr


def test_hooks_are_shown_the_campaign_and_cannot_change_it(repo: Repo) -> None:
    repo.hooks(
        """
        import dataclasses
        SEEN = []

        def pytest_autoresearch_guard(campaign, context, proposal):
            SEEN.append(campaign)

        def pytest_autoresearch_verdict(campaign, experiment):
            SEEN.append(campaign)

        def pytest_autoresearch_record(campaign, experiment):
            SEEN.append(campaign)
            for name in ("tag", "best", "records", "settings"):
                try:
                    setattr(campaign, name, None)
                except dataclasses.FrozenInstanceError:
                    continue
                raise AssertionError(name)
            assert isinstance(campaign.records, tuple)

        def pytest_unconfigure(config):
            seen = [[one.tag, one.best and one.best.number, len(one.records), one.settings.metric] for one in SEEN]
            (config.rootpath / ".git" / "seen").write_text(json.dumps(seen))
        """
    )
    repo.plan(0.9, 1.5)
    result = repo.run("--max", "2")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*raised on*")
    seen = json.loads((repo.path / ".git" / "seen").read_text())
    rest = [[best, records] for tag, best, records, metric in seen if (tag, metric) == ("t", "val_bpb")]
    # The baseline's verdict and record, then guard, verdict and record of 0001 and of 0002.
    assert sorted(rest, key=str) == sorted([[None, 0], [0, 1], [0, 1], [0, 1], [1, 2], [1, 2], [1, 2], [1, 3]], key=str)


def test_two_lanes_run_at_once_and_results_arrive_out_of_order(repo: Repo) -> None:
    repo.plan("slow:1:1.5", 1.6, 0.9, 1.7)
    result = repo.run("--max", "4", "--autoresearch-lanes", "2")
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "discard", 3: "keep", 4: "discard"}
    order = [int(line.split()[0]) for line in result.outlines if line.startswith(" 0")]
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert order.index(2) < order.index(1)
    assert {run.lane for record in repo.records() for run in record.runs} == {0, 1}
    repo.check_ledger()


def test_a_worse_result_on_an_old_head_is_just_discarded(repo: Repo) -> None:
    repo.plan("slow:1:0.95", 0.9, 1.5)
    repo.run("--max", "3", "--autoresearch-lanes", "2")
    assert repo.reasons()[1] == "not-improved"
    assert not any(record.proposal.repeats for record in repo.records())


def test_two_checkouts_share_a_campaign_without_losing_or_doubling(repo: Repo) -> None:
    repo.plan(*[f"slow:0.2:{1.5 - n / 100}" for n in range(8)], *[f"slow:0.2:{0.9 - n / 100}" for n in range(8)])
    repo.write(
        "conftest.py",
        PROPOSE.replace('context.root / ".git" / "plan.json"', f"pathlib.Path('{repo.path}/.git/plan.json')"),
    )
    repo.commit()
    other = repo.path.parent / f"{repo.path.name}-other"
    repo.git("worktree", "add", "-q", "--detach", str(other))
    repo.run("--max", "1", "-k", "0000")
    one, two = repo.start("--max", "6"), repo.start("--max", "6", folder=other)
    outputs = [process.communicate(timeout=120)[0] for process in (one, two)]
    assert [process.returncode for process in (one, two)] == [0, 0], outputs
    assert [record.number for record in repo.records()] == list(range(13))
    assert not any(record.planned_number is not None for record in repo.records())
    (second,) = [n for n, output in enumerate(outputs) if "  note:     the session with pid" in output]
    first, where = ((one, repo.path), (two, other))[1 - second]
    assert f"the session with pid {first.pid} in {where} has worked on this campaign since" in outputs[second]
    cases = [set(repo.cases(str(folder / "results.xml"))) for folder in (repo.path, other)]
    assert len(cases[0]) == len(cases[1]) == 6
    assert not cases[0] & cases[1]
    repo.run("--max", "1")  # the file of the slower session may lag: the next start mends it
    repo.check_ledger()


def test_a_second_session_in_one_checkout_is_refused(repo: Repo) -> None:
    repo.plan("hang")
    process = repo.start("--max", "1")
    try:
        repo.wait_for(lambda: any((repo.path / ".git/autoresearch").glob("lane-*-out/hanging")), 120)
        rows, result = repo.rows(), repo.run("--max", "1")
    finally:
        repo.end(process, signal.SIGINT)
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        [
            f"ERROR: the session with pid {process.pid} has worked on the campaign t in this checkout since *: wait "
            "for its end; for more experiments at a time give one session more --autoresearch-lanes, or start this "
            "one in a clone (`git clone . ../clone`)"
        ]
    )
    assert repo.rows() == rows


@pytest.mark.parametrize("plugin", ["timeout", "cacheprovider", "junitxml", "terminal"])
def test_it_runs_without_any_of_pytests_optional_plugins(repo: Repo, plugin: str) -> None:
    repo.plan(0.9)
    result = repo.run("--max", "1", "-p", f"no:{plugin}")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert repo.statuses() == {0: "keep", 1: "keep"}


def test_a_configuration_that_is_strict_in_every_way(repo: Repo) -> None:
    strict = """
        addopts = --strict-markers --strict-config --import-mode=importlib -W error
        xfail_strict = true
        filterwarnings = error
        markers = slow: takes long
        empty_parameter_set_mark = fail_at_collect
    """
    repo.write("pytest.ini", CONFIG.rstrip() + dedent(strict))
    repo.commit()
    repo.plan(0.9, 1.5, "crash")
    result = repo.run("--max", "3")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard", 3: "crash"}


def test_importlib_mode(repo: Repo) -> None:
    repo.plan(0.9)
    repo.run("--max", "1", "--import-mode=importlib")
    assert repo.statuses() == {0: "keep", 1: "keep"}
