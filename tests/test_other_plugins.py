"""Ten popular plugins of pytest beside this one, all installed: suites as in their documentation, and a session.

They are the extra `plugins`. Some of them change every pytest run, so CI has an environment of their own for this file.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from repo import CONFIG, PROPOSE, Repo

MODULES = (
    "django", "pytest_asyncio", "pytest_bdd", "pytest_benchmark", "pytest_cov", "pytest_html", "pytest_mock",
    "pytest_randomly", "pytest_reportlog", "pytest_rerunfailures", "xdist",
)  # fmt: skip
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, MODULES)), reason="type `pip install -e '.[plugins]'` in an environment for this file"
)

SUITE = {
    "site_settings.py": """
        SECRET_KEY = "x"
        INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        """,
    "tests/conftest.py": """
        import pytest
        @pytest.fixture
        def experiment(): return "their own"
        """,
    "tests/test_ordinary.py": "def test_fixture(experiment): assert experiment == 'their own'\n",
    "tests/test_asyncio.py": """
        import asyncio, pytest, pytest_asyncio
        @pytest_asyncio.fixture
        async def resource():
            await asyncio.sleep(0)
            yield 5
        @pytest.mark.asyncio
        async def test_some_asyncio_code(resource): assert resource == 5
        """,
    "tests/test_mock.py": """
        import os
        def test_unix_fs(mocker):
            mocker.patch("os.remove")
            os.remove("file")
            os.remove.assert_called_once_with("file")
        """,
    "tests/test_benchmark.py": "def test_it(benchmark): assert benchmark(sum, [1, 2]) == 3\n",
    "tests/test_flaky.py": """
        import pytest
        TRIED = []
        @pytest.mark.flaky(reruns=5)
        def test_example():
            TRIED.append(1)
            assert len(TRIED) > 2
        """,
    "tests/test_django.py": """
        import pytest
        @pytest.mark.django_db
        def test_my_user(django_user_model):
            django_user_model.objects.create(username="someone")
            assert django_user_model.objects.count() == 1
        """,
    "tests/publish.feature": """
        Feature: Blog
            Scenario: Publishing the article
                Given I have an article
                When I publish it
                Then it is public
        """,
    "tests/test_bdd.py": """
        from pytest_bdd import given, scenarios, then, when
        scenarios("publish.feature")
        @given("I have an article", target_fixture="article")
        def article(): return {}
        @when("I publish it")
        def publish(article): article["public"] = True
        @then("it is public")
        def public(article): assert article["public"]
        """,
}
INI = f"{CONFIG}DJANGO_SETTINGS_MODULE = site_settings\npythonpath = .\nasyncio_default_fixture_loop_scope = function\n"
SESSION = (  # not `Repo.arguments`, which leave some plugins out
    "--autoresearch", "--autoresearch-confirm=off", "--autoresearch-tag=t", "--autoresearch-sandbox=off",
)  # fmt: skip
OUTCOMES = {"passed": 7, "rerun": 2}


@pytest.fixture
def suite(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """The repository with the suites of all plugins as its ordinary tests."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # pytest-benchmark is off in a worker
    for name, text in SUITE.items():
        repo.write(name, text)
    repo.write("pytest.ini", INI)
    repo.write("conftest.py", PROPOSE)
    with (repo.path / ".gitignore").open("a") as file:
        file.write(".coverage\n.benchmarks/\n*.html\n*.log\n")
    repo.commit("The suites")
    return repo


@pytest.mark.parametrize(
    "given",
    ["", "-n 2", "-p no:randomly", "--html=theirs.html --self-contained-html", "--cov=.", "--report-log=theirs.log"],
)
def test_ordinary_tests_run_as_without_this_plugin(suite: Repo, given: str) -> None:
    result = suite.pytester.runpytest_subprocess(*given.split())
    assert result.ret == 0
    assert result.parseoutcomes() == OUTCOMES


@pytest.mark.parametrize(
    "given",
    [
        "", "-p no:randomly", "--html=theirs.html --self-contained-html", "--cov=.", "--report-log=theirs.log",
        "--asyncio-mode=auto", "--gherkin-terminal-reporter", "--benchmark-skip", "--create-db", "-n 0",
    ],
)  # fmt: skip
def test_a_session_runs_beside_them(suite: Repo, given: str) -> None:
    suite.plan(0.9, 1.5)
    result = suite.pytester.runpytest_subprocess(*SESSION, "--max", "2", *given.split())
    assert result.ret == 0, result.stderr.str()
    assert suite.statuses() == {0: "keep", 1: "keep", 2: "discard"}
    assert (suite.path / "report.html").read_text().count("pytest-autoresearch")
    suite.check_ledger()


def test_a_rule_may_use_their_fixtures_and_markers(suite: Repo) -> None:
    suite.rule(
        """
        import pytest
        @pytest.mark.asyncio
        @pytest.mark.flaky(reruns=2)
        async def test_better(experiment, mocker): assert experiment.gain > experiment.margin
        def test_quick(experiment, benchmark): assert benchmark(lambda: experiment.val_bpb) < experiment.best
        """
    )
    suite.plan(0.9, 1.5)
    result = suite.pytester.runpytest_subprocess(*SESSION, "--max", "2")
    assert suite.statuses() == {0: "keep", 1: "keep", 2: "discard"}
    assert "rerun" not in result.parseoutcomes()


REFUSED = {
    "--html=report.html": "--html and the page of the session would both write report.html: give --html another file "
    "name",
    "--report-log=results.tsv": "--report-log and the table of experiments would both write results.tsv: give "
    "--report-log another file name",
    "--benchmark-only": "every experiment is skipped (Skipping non-benchmark (--benchmark-only active).): remove the "
    "mark of the rule, or the conftest or option that adds it",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_of_theirs_is_in_the_way(suite: Repo, given: str) -> None:
    result = suite.pytester.runpytest_subprocess(*SESSION, given)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line.startswith("ERROR")] == [f"ERROR: {REFUSED[given]}"]
    assert suite.records() == []
