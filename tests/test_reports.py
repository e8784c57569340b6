"""What people and dashboards see: JUnit, the terminal, pytest-timeout's deadline in both."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from repo import RULE, Repo, with_one_and_two_lanes


def message(repo: Repo, number: int, kind: str) -> str:
    element = repo.case(number).find(kind)
    assert element is not None
    return str(element.get("message"))


@with_one_and_two_lanes
def test_junit_says_the_verdict_first_and_carries_the_numbers(repo: Repo) -> None:
    repo.plan(1.5, "crash", 0.9)
    repo.run("--max", "3")
    discard = message(repo, 1, "failure")
    assert discard.startswith("action 1: 1.5: discard: val_bpb 1.500000, best 1.000000 (+0.500000)\n")
    assert "assert 1.5 < (1.0 - 0.0)" in discard
    assert len(discard) <= 500
    assert message(repo, 2, "error").startswith("action 2: crash: crash: exit 1: RuntimeError: the tensor is sad")
    properties = {str(p.get("name")): p.get("value") for p in repo.case(3).iter("property")}
    assert properties["status"] == "keep"
    assert properties["total_seconds"] == f"{repo.records()[3].seconds:.1f}"
    assert properties["val_bpb"] == "0.900000"
    assert properties["gain"] == "0.100000"
    assert properties["description"] == "action 3: 0.9"
    assert properties["commit"] == repo.head()
    assert "step 1 loss: 2.5" in (repo.case(3).findtext("system-out") or "")
    assert "the tensor is sad" in (repo.case(2).findtext("system-out") or "")
    assert {case.get("classname") for case in repo.cases().values()} == {"experiments.test_val_bpb"}


def test_xunit2_leaves_properties_out_and_a_file_of_ones_own_is_used(repo: Repo) -> None:
    repo.plan(1.5)
    repo.run("--max", "1", "--junitxml=mine.xml", "-o", "junit_family=xunit2")
    assert not (repo.path / "results.xml").exists()
    cases = repo.cases("mine.xml")
    assert len(cases) == 2
    assert not [p for case in cases.values() for p in case.iter("property")]


def test_a_long_night_of_output_stays_bounded_in_junit(repo: Repo) -> None:
    repo.plan("do:[print('x' * 1000) for _ in range(20000)]; block(0.9)")
    repo.run("--max", "1")
    assert (repo.path / "results.xml").stat().st_size < 100_000


@with_one_and_two_lanes
def test_durations_are_the_experiments_own_and_counted_once(repo: Repo) -> None:
    repo.rule(RULE + "\ndef test_again(experiment): pass\n")
    repo.plan("slow:1:0.9")
    repo.run("--max", "1")
    times = {name: float(case.get("time") or 0) for name, case in repo.cases().items() if "0001" in name}
    assert 1 <= times["test_val_bpb_improves[0001]"] < 8
    assert times["test_again[0001]"] < 1


@pytest.mark.parametrize(("metric", "decides", "status"), [(0.9, "again", "keep"), (1.5, "val_bpb", "discard")])
def test_the_numbers_are_with_the_test_that_decides(repo: Repo, metric: float, decides: str, status: str) -> None:
    repo.rule(RULE + "\ndef test_again(experiment): pass\n")
    repo.plan(metric)
    repo.run("--max", "1")
    found = {name: p.get("value") for name, case in repo.cases().items() for p in case.iter("property")
             if "0001" in name and p.get("name") == "status"}  # fmt: skip
    assert list(found.values()) == [status]
    assert decides in next(iter(found))


def test_a_junit_file_that_cannot_be_written_does_not_end_the_night(repo: Repo) -> None:
    repo.plan(0.9, 0.8)
    repo.run("--max", "2", "--junitxml=program.md/results.xml", "--autoresearch-lanes", "1")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}


def test_the_junit_file_is_whole_when_a_fixture_fails_at_the_very_end(repo: Repo) -> None:
    repo.rule("""
        import pytest
        @pytest.fixture(scope="module")
        def bad():
            yield
            raise OSError("teardown")
        def test_it(experiment, bad): pass
        """)
    repo.plan(0.9, 0.8)
    repo.write("pytest.ini", "[pytest]\nautoresearch_command = python -S train.py\nautoresearch_proposer = queue\n")
    repo.commit()
    repo.run("--max", "9", "--autoresearch-lanes", "1")
    assert len(repo.cases()) == 3
    assert not (repo.path / "results.xml.part").exists()


def test_bytes_that_xml_forbids_and_terminal_escapes_reach_no_report(repo: Repo) -> None:
    repo.plan(
        "do:sys.stdout.buffer.write(bytes(range(256))); "
        "print('\\x1b[2J\\x1b]0;gone\\x07'); raise OSError('\\x00\\x1b[31mred')"
    )
    result = repo.run("--max", "1")
    assert repo.statuses()[1] == "crash"
    assert len(repo.cases()) == 2
    assert "\x1b" not in result.stdout.str()


def test_a_plain_log_has_one_line_an_experiment_and_a_summary(repo: Repo) -> None:
    repo.plan(1.5, "crash", 0.9)
    result = repo.run("--max", "3", "--autoresearch-lanes", "1")
    result.stdout.fnmatch_lines(
        [
            "autoresearch: campaign t (new), branch autoresearch/t",
            "  limits:   3 experiments; 300 s of training, no memory limit, hard timeout 600 s",
            "  sandbox:  none *",
            "  best:     none yet*",
            "  no.  verdict       val_bpb      change    memory  seconds  description",
            " 0000  keep         1.000000 * baseline",
            " 0001  discard      1.500000   +0.500000 * action 1: 1.5",
            " 0002  crash          exit 1 * action 2: crash (RuntimeError: the tensor is sad)",
            " 0003  keep         0.900000   -0.100000 * action 3: 0.9",
            "*= autoresearch t =*",
            "3 experiments in this session: 1 kept, 1 discarded, 1 crashed; 3 in the campaign",
            "val_bpb 1.000000 -> 0.900000 (-0.100000): 1 kept, each measured once*",
            "all keeps: git log --oneline *..autoresearch/t",
            "next:",
            "  autoresearch show 3 --diff*the largest gain, with its change",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "test_val_bpb.py ." not in result.stdout.str()


def test_a_long_description_is_a_short_line_and_the_record_has_the_whole(repo: Repo) -> None:
    long = ("word " * 390).strip()
    repo.plan(0.9)
    result = repo.run("--max", "1", "--autoresearch-description", long)
    assert max(map(len, result.outlines)) < 300
    whole = f"{long} action 1: 0.9"
    assert repo.records()[1].proposal.description == whole
    subject, _, rest = repo.git("log", "-1", "--format=%B", "autoresearch/t").partition("\n")
    assert len(subject) == 160
    assert rest.strip() == whole


@pytest.mark.parametrize(("flag", "pattern"), [("-v", "*::test_val_bpb_improves?0001? FAILED*"), ("-q", "*.F*")])
def test_verbosity_is_pytests_own(repo: Repo, flag: str, pattern: str) -> None:
    repo.plan(1.5)
    repo.run("--max", "1", flag).stdout.fnmatch_lines([pattern])


def test_a_short_summary_is_there_for_those_who_ask(repo: Repo) -> None:
    repo.plan(1.5)
    result = repo.run("--max", "1", "-rf")
    result.stdout.fnmatch_lines(["FAILED *0001] - action 1: 1.5: discard: val_bpb 1.500000*"])


def test_a_terminal_shows_the_running_experiment(repo: Repo) -> None:
    repo.plan("do:print('step 7 loss: 4.25', flush=True); time.sleep(1.5); block(0.9)")
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "160", "PY_COLORS": "1"}
    command = [sys.executable, "-m", "pytest", *repo.arguments("--max", "1", "--autoresearch-lanes", "1")]
    process = subprocess.Popen(command, cwd=repo.path, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    seen = b""
    while True:
        try:
            seen += os.read(master, 65536)
        except OSError:
            break
    os.close(master)
    assert process.wait(30) == 0
    text = seen.decode()
    live = re.findall(r"\r(1 of \d[^\r\n]*\| 0001 [^\r\n]*)", text)
    assert any("step 7" in line and "loss 4.2500" in line and " MB" in line and "action 1" in line for line in live)
    assert all(len(line) < 160 for line in live)
    assert "\r\x1b[32m 0001  keep" in text  # from the left margin


def test_a_log_shows_that_a_long_run_lives(repo: Repo) -> None:
    repo.hooks("import pytest_autoresearch.session.terminal as t; t._HEARTBEAT_SECONDS = 0.5")
    repo.plan("slow:1.5:0.9")
    repo.spawn("--max", "1").stdout.fnmatch_lines([" ...   experiment 1 of 1, * left | 0001 *action 1*"])


@pytest.mark.parametrize(
    ("how", "method"),
    [(how, "signal") for how in ("option", "ini", "marker", "environment", "func_only")] + [("option", "thread")],
)
def test_pytest_timeout_is_the_deadline_of_each_run(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, how: str, method: str
) -> None:
    repo.plan("hang", 0.8)
    arguments = [f"--timeout-method={method}"]
    ini = "[pytest]\nautoresearch_command = python -S train.py\n"
    if how == "option":
        arguments.append("--timeout=0.8")
    elif how == "environment":
        monkeypatch.setenv("PYTEST_TIMEOUT", "0.8")
    elif how == "marker":
        repo.rule("import pytest\npytestmark = pytest.mark.timeout(0.8)\n" + RULE)
    else:
        repo.write("pytest.ini", ini + "timeout = 0.8\n" + ("timeout_func_only = true\n" if how == "func_only" else ""))
        repo.commit()
    repo.run("--max", "2", *arguments)
    assert repo.statuses() == {0: "keep", 1: "crash", 2: "keep"}
    assert "killed after 0.8 s" in message(repo, 1, "error")
    assert repo.reasons()[1] == "timeout"
    assert repo.training() == []


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("do:import nothing_of_that_name", "import"),
        ("do:exec('a b')", "syntax"),
        ("do:raise MemoryError", "oom"),
        ("do:print('FAIL'); sys.exit(1)", "nan"),
        ("do:print('val_bpb: nan')", "nan"),
        ("do:print('val_bpb: 0.5'); print('val_bpb: 0.4')", "no-metric"),
        ("do:print('hello')", "no-metric"),
        ("do:sys.exit(7)", "exit 7"),
        ("do:os.kill(os.getpid(), 11)", "signal 11"),
        ("do:x = bytearray(300 << 20); time.sleep(20)", "over-memory"),
    ],
)
def test_each_crash_has_its_class_and_its_log(repo: Repo, action: str, reason: str) -> None:
    repo.plan("do:print('the last words', flush=True); " + action.removeprefix("do:"))
    repo.run("--max", "1", "--autoresearch-vram", "0.2")
    record = repo.records()[1]
    assert record.crash is not None
    assert record.crash.reason == reason
    assert "the last words" in record.runs[0].log
    assert repo.rows()[1][1:4] == ["0.000000", "0.0", "crash"]


def test_training_that_goes_on_past_its_budget_is_over_budget(repo: Repo) -> None:
    repo.plan("do:print('val_bpb: 0.1', flush=True); time.sleep(1000)")
    repo.hooks("import pytest_autoresearch.measure.limits as c; c.LEAST_STARTUP_SECONDS = 0.5")
    repo.spawn("--max", "1", "--autoresearch-budget", "0.5")
    assert repo.reasons()[1] == "over-budget"
    assert repo.training() == []


def test_texts_of_any_length_stay_short_in_every_view(repo: Repo) -> None:
    repo.plan("do:raise RuntimeError('y' * 200_000)", 0.9)
    propose = (repo.path / "conftest.py").read_text()
    repo.write("conftest.py", propose.replace('Proposal(f"action', 'Proposal("x" * 200_000, "h" * 900_000)  #'))
    repo.commit("Long texts")
    result = repo.run("--max", "2", "-rA")
    assert repo.statuses() == {0: "keep", 1: "crash", 2: "keep"}
    assert max(map(len, result.outlines)) < 1000
    for name in ("results.tsv", "results.xml", "report.html"):
        assert "x" * 2001 not in (repo.path / name).read_text()
    assert [len(record.proposal.description) for record in repo.records()[1:]] == [2000, 2000]
    assert len(repo.git("log", "-1", "--format=%B", repo.records()[2].commit)) < 30_000
