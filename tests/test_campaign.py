"""Whole campaigns: what is kept, what is not, and what is left behind."""

from __future__ import annotations

import json
import time

import pytest
from repo import CONFIG, RULE, Repo, with_one_and_two_lanes

from pytest_autoresearch.cli import main
from pytest_autoresearch.ledger.current import current
from pytest_autoresearch.ledger.ratchet import Ratchet


@with_one_and_two_lanes
def test_each_outcome_is_a_report_a_row_and_a_ref(repo: Repo) -> None:
    repo.plan(1.5, "crash", 0.9)
    result = repo.run("--max", "3")
    assert result.parseoutcomes() == {"baseline": 1, "kept": 1, "discarded": 1, "crashed": 1}
    assert repo.reports() == {"passed": 2, "failure": 1, "error": 1}
    assert result.ret == 0
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "crash", 3: "keep"}
    rows = {row[4]: row for row in repo.rows()}
    assert rows["baseline"][1:4] == ["1.000000", "2.0", "keep"]
    assert rows["action 1: 1.5"][1:4] == ["1.500000", "2.0", "discard"]
    assert rows["action 2: crash"][1:4] == ["0.000000", "0.0", "crash"]
    assert rows["action 3: 0.9"][1:4] == ["0.900000", "2.0", "keep"]
    repo.check_ledger()
    assert repo.git("log", "-1", "--format=%s %an", "autoresearch/t") == "action 3: 0.9 Ada"
    assert repo.git("rev-parse", "autoresearch/t^") == repo.git("rev-parse", "main")


def test_a_discarded_commit_stays_reachable_under_its_record(repo: Repo) -> None:
    repo.plan(1.5)
    repo.run("--max", "1")
    repo.git("gc", "--quiet", "--prune=now")
    assert "ACTION = '1.5'" in repo.git("show", "refs/autoresearch/t/0001^{commit}:train.py")


@with_one_and_two_lanes
def test_the_next_session_continues_the_numbers_and_the_best(repo: Repo) -> None:
    repo.plan(0.9, 0.95, 0.8)
    repo.run("--max", "1")
    result = repo.run("--max", "2")
    assert min(repo.cases()).endswith("[0002]")  # two lanes may end in any order
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard", 3: "keep"}
    result.stdout.fnmatch_lines(
        ["*campaign t (the baseline and 1 experiment so far)*", "*best:*val_bpb 0.900000 (0001 action 1: 0.9)"]
    )
    repo.check_ledger()


def test_an_experiment_starts_from_the_last_keep(repo: Repo) -> None:
    repo.plan(0.9, 1.5, 0.8)
    repo.run("--max", "3")
    records = repo.records()
    assert records[2].base == records[3].base == records[1].commit
    assert records[3].best == 0.9


def test_without_a_tag_a_recent_campaign_goes_on(repo: Repo) -> None:
    repo.plan(0.9, 0.8)
    repo.run("--max", "1")
    arguments = [word for word in repo.arguments("--max", "1") if word not in ("--autoresearch-tag", "t")]
    repo.pytester.runpytest_inprocess(*arguments)
    assert list(repo.statuses()) == [0, 1, 2]


def test_the_campaign_whose_branch_is_checked_out_is_the_one_for_all_commands(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    repo.plan(0.9, 0.8)
    repo.run("--max", "1")
    time.sleep(1 - time.time() % 1)  # git's dates have whole seconds
    repo.run("--max", "1", "--autoresearch-tag", "later")
    arguments = [word for word in repo.arguments("--max", "1") if word not in ("--autoresearch-tag", "t")]
    ratchet = Ratchet(repo.path)
    assert current(ratchet, None) == "later"
    assert current(ratchet, None, within=-1) == ""
    assert current(ratchet, "other") == "other"
    repo.git("checkout", "-q", "autoresearch/t")
    assert current(ratchet, None) == current(ratchet, None, within=-1) == "t"
    capsys.readouterr()
    assert main(["results", "--json"]) == 0
    assert {row["tag"] for row in json.loads(capsys.readouterr().out)} == {"t"}
    result = repo.pytester.runpytest_inprocess(*arguments)
    assert result.ret == 4
    said = "\n".join(result.errlines)
    assert f"the branch autoresearch/t is checked out in {repo.path}, and experiments move it" in said
    assert "--autoresearch-tag t" in said
    assert len(repo.records("later")) == 2
    result = repo.pytester.runpytest_inprocess(*arguments, "--autoresearch-tag", "later")
    assert result.ret == 0
    assert [len(repo.records(tag)) for tag in ("t", "later")] == [2, 3]


@with_one_and_two_lanes
def test_total_counts_the_whole_campaign(repo: Repo) -> None:
    repo.plan(1.5, 1.6, 1.7, 1.8)
    repo.run("--max", "2")
    result = repo.run("--max", "5", "--autoresearch-total", "3")
    assert list(repo.statuses()) == [0, 1, 2, 3]
    assert result.ret == 0
    result.stdout.fnmatch_lines(["ended: the campaign has its 3 experiments*"])


def test_a_target_that_is_reached_ends_the_campaign(repo: Repo) -> None:
    repo.plan(1.5, 0.9, 0.8)
    result = repo.run("--max", "3", "--autoresearch-target", "0.95", "--autoresearch-lanes", "1")
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "keep"}
    result.stdout.fnmatch_lines(["ended: val_bpb 0.900000 has reached 0.95 (--autoresearch-target)"])
    assert repo.run("--max", "3", "--autoresearch-target", "0.9").ret == 0
    assert 3 not in repo.statuses(), "a campaign that has reached it starts nothing"


@with_one_and_two_lanes
def test_after_its_hours_a_session_starts_nothing_more_and_ends_what_runs(repo: Repo) -> None:
    repo.plan(*["slow:1:1.5"] * 9)
    result = repo.run("--max", "9", "--autoresearch-hours", f"{1.5 / 3600:.9f}")
    assert result.ret == 0
    assert len(repo.statuses()) < 10
    result.stdout.fnmatch_lines(["ended: * hours are over (--autoresearch-hours)"])
    repo.check_ledger()


HUNGRY = """do:
if not os.environ.get("LESS"): raise MemoryError("40 GiB more")
block({})
"""


def test_a_run_that_is_out_of_memory_is_made_once_more_with_less(repo: Repo) -> None:
    repo.write("description", json.dumps({"retry_out_of_memory": {"LESS": "1"}}))
    repo.write("pytest.ini", CONFIG + "autoresearch_describe = cat description\n")
    repo.commit()
    repo.plan(HUNGRY.format(0.9), "crash", HUNGRY.format(0.8), "do:raise MemoryError('and 1 GiB more')", 0.7)
    result = repo.run("--max", "5", "--autoresearch-lanes", "1")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "crash", 3: "keep", 4: "crash", 5: "keep"}
    tried = {
        record.number: [(run.crash.reason if run.crash else "", dict(run.variables)) for run in record.runs]
        for record in repo.records()
    }
    less = {"LESS": "1"}
    assert tried[1] == [("oom", {}), ("", less)]
    assert tried[2] == [("exit 1", less)], "what follows has less from the start; memory alone is tried again"
    assert tried[3] == [("", less)]
    assert tried[4] == [("oom", less)], "once is enough"
    result.stdout.fnmatch_lines([" 0001  keep * (again with LESS=1 after oom)", " 0004  crash * oom * and 1 GiB more*"])


def test_the_campaign_ends_when_nothing_is_left_to_propose(repo: Repo) -> None:
    repo.plan(0.9)
    repo.write("pytest.ini", "[pytest]\nautoresearch_command = python -S train.py\nautoresearch_proposer = queue\n")
    repo.commit()
    result = repo.run("--max", "9")
    assert repo.statuses() == {0: "keep", 1: "keep"}
    assert result.ret == 0
    result.stdout.fnmatch_lines(["ended: there is nothing left to propose"])


def test_a_description_prefix_and_one_line(repo: Repo) -> None:
    repo.hooks("""
        @__import__("pytest").hookimpl(tryfirst=True)
        def pytest_autoresearch_propose(context):
            (context.folder / "train.py").write_text("print('val_bpb: 0.5')")
            return Proposal("a\\ttab\\nand a line")
        """)
    repo.run("--max", "1", "--autoresearch-description", "night 1:")
    assert repo.rows()[-1][4] == "night 1: a tab and a line"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ("(folder / 'evil.py').write_text('')", "it changes evil.py; only train.py may change"),
        ("(folder / 'train.py').write_text('def')", "train.py does not parse, line 1"),
        ("None", "it changes nothing"),
        ("(folder / 'train.py').chmod(0o755)", "it changes the kind or the mode of train.py"),
        ("(folder / 'train.py').write_text('# ' + 'x' * 600_000)", "train.py has 600,002 bytes"),
        ("((folder / 'train.py').unlink(), (folder / 'train.py').symlink_to('/etc/passwd'))", "the kind or the mode"),
    ],
)
def test_a_refused_proposal_is_a_crash_at_the_base_and_costs_no_training(repo: Repo, edit: str, reason: str) -> None:
    repo.hooks(f"""
        tries = []
        @__import__("pytest").hookimpl(tryfirst=True)
        def pytest_autoresearch_propose(context, failure):
            folder = context.folder
            {edit}
            tries.append(failure)
            (context.root / ".git" / "tries.json").write_text(json.dumps(tries))
            return Proposal("an idea")
        """)
    result = repo.run("--max", "1")
    record = repo.records()[1]
    assert record.verdict is not None
    assert record.verdict.status == "crash"
    assert reason in record.verdict.message
    assert record.commit == record.base == repo.git("rev-parse", "main")
    assert record.runs == ()
    tries = (repo.path / ".git" / "tries.json").read_text()
    assert tries.count(reason) == 3  # it was told why, three times
    result.stdout.fnmatch_lines(
        ["* 0001  crash *refused*an idea*" if "parse" not in reason else "* 0001  crash *syntax*"]
    )
    repo.check_ledger()


def test_the_same_program_is_not_tried_twice(repo: Repo) -> None:
    repo.hooks("""
        @__import__("pytest").hookimpl(tryfirst=True)
        def pytest_autoresearch_propose(context):
            (context.folder / "train.py").write_text("print('val_bpb: 1.5')")
            return Proposal(f"idea {context.number}")
        """)
    repo.run("--max", "2", "--autoresearch-lanes", "1")
    assert repo.reasons() == {0: "baseline", 1: "not-improved", 2: "refused"}
    assert "tried as 0001" in repo.records()[2].verdict.message  # type: ignore[union-attr]


def test_hooks_refuse_decide_and_are_told(repo: Repo) -> None:
    repo.hooks("""
        from pytest_autoresearch import Status, Verdict

        def pytest_autoresearch_guard(context, proposal):
            return "no sevens" if "0.7" in proposal.description else None

        def pytest_autoresearch_verdict(experiment):
            if experiment.val_bpb == 1.5:
                return Verdict(Status.KEEP, "charity", "it looked so sad")
            if experiment.val_bpb == 0.8:
                return Verdict(Status.DISCARD, "envy", "too good")

        def pytest_autoresearch_record(campaign, experiment):
            with open(campaign.settings.root / ".git" / "told", "a") as file:
                print(experiment.number, experiment.verdict.status, file=file)
            raise OSError("the tracker is down")
        """)
    repo.plan(0.7, 1.5, 0.8)
    result = repo.run("--max", "3", "--autoresearch-lanes", "1")
    assert repo.reasons() == {0: "baseline", 1: "refused", 2: "charity", 3: "envy"}
    assert repo.statuses()[2] == "keep"
    assert repo.head() == repo.records()[2].commit
    assert result.parseoutcomes() == {"baseline": 1, "kept": 1, "discarded": 1, "crashed": 1}
    told = (repo.path / ".git" / "told").read_text()
    assert told == "0 keep\n1 crash\n2 keep\n3 discard\n"
    result.stdout.fnmatch_lines(["note: pytest_autoresearch_record raised*the tracker is down"])
    assert result.ret == 0


@pytest.mark.parametrize("policy", ["session", "progress", "strict"])
@pytest.mark.parametrize(
    ("actions", "expected"), [((1.5, "crash"), (0, 1, 1)), ((0.9,), (0, 0, 0)), ((1.5, 0.9), (0, 0, 1))]
)
def test_the_exit_status_follows_the_policy(
    repo: Repo, policy: str, actions: tuple[object, ...], expected: tuple[int, int, int]
) -> None:
    repo.plan(*actions)
    result = repo.run("--max", str(len(actions)), "--autoresearch-exit", policy)
    assert result.ret == expected[("session", "progress", "strict").index(policy)]


def test_a_discard_can_be_an_expected_failure(repo: Repo) -> None:
    repo.plan(1.5)
    result = repo.run("--max", "1", "--autoresearch-discard", "xfail")
    assert result.parseoutcomes() == {"baseline": 1, "discarded": 1}
    assert repo.reports() == {"passed": 1, "skipped": 1}
    assert repo.statuses()[1] == "discard"
    assert repo.case(1).find("failure") is None


@with_one_and_two_lanes
@pytest.mark.parametrize("action", ["crash", "do:print('hello')", "do:print('val_bpb: nan')"])
def test_a_baseline_that_does_not_pass_is_said_and_not_recorded(repo: Repo, action: str) -> None:
    repo.write("train.py", (repo.path / "train.py").read_text().replace('"1.0"', repr(action)))
    repo.commit("A bad baseline")
    result = repo.run("--max", "3")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the baseline did not pass: crash*"])
    assert repo.records() == []
    assert repo.git("for-each-ref", "refs/heads/autoresearch", "refs/autoresearch") == ""


def test_readable_files_are_where_training_expects_them(repo: Repo) -> None:
    repo.write("pytest.ini", "[pytest]\nautoresearch_command = python -S train.py\nautoresearch_readable = data/big\n")
    repo.write(".gitignore", "data/\n__pycache__/\nresults.*\n")
    repo.commit()
    repo.write("data/big/loss", "0.25")
    repo.plan("do:block(open('data/big/loss').read())")
    repo.run("--max", "1")
    assert repo.rows()[-1][1] == "0.250000"
    assert (repo.path / "data/big/loss").read_text() == "0.25"


def test_training_sees_the_contract_and_no_secrets(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("GITHUB_TOKEN", "ghp-secret")
    repo.plan("do:print(sorted(os.environ), os.listdir(os.environ['AUTORESEARCH_OUT'])); block(0.5)")
    repo.run("--max", "1", "--autoresearch-budget", "7")
    log = (repo.path / "experiments/runs/t/0001/train.log").read_text()
    assert "'AUTORESEARCH_SEED'" in log
    assert "'AUTORESEARCH_BUDGET'" in log
    assert "SECRET" not in log.upper()
    assert "ANTHROPIC" not in log
    assert "TOKEN" not in log
    assert repo.git("status", "--porcelain", "experiments") == ""


@with_one_and_two_lanes
def test_the_experiment_that_ends_a_session_is_told_too(repo: Repo) -> None:
    repo.hooks("""
        def pytest_autoresearch_record(campaign, experiment):
            with open(campaign.settings.root / ".git" / "told", "a") as file:
                print(experiment.number, file=file)
        """)
    repo.plan(1.5)
    repo.run("--max", "1", "-x")
    assert (repo.path / ".git" / "told").read_text() == "0\n1\n"


def test_every_one_of_several_tests_reports_what_became_of_its_experiment(repo: Repo) -> None:
    repo.hooks("""
        from pytest_autoresearch import Status, Verdict
        def pytest_autoresearch_verdict(experiment):
            if experiment.val_bpb == 1.5:
                return Verdict(Status.KEEP, "charity", "it looked so sad")
        """)
    repo.rule(RULE + "\ndef test_again(experiment): assert experiment.val_bpb < experiment.best\n")
    repo.plan(1.5, 1.6)
    result = repo.run("--max", "2", "--autoresearch-discard", "xfail", "--autoresearch-exit", "strict")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard"}
    assert result.parseoutcomes() == {"baseline": 1, "kept": 1, "discarded": 1}
    assert repo.reports() == {"passed": 4, "skipped": 2}
    assert result.ret == 0


def test_a_broken_fixture_breaks_the_rule_whatever_a_hook_decided(repo: Repo) -> None:
    repo.hooks("""
        from pytest_autoresearch import Status, Verdict
        def pytest_autoresearch_verdict(experiment):
            return Verdict(Status.KEEP, "charity", "it looked so sad") if experiment.number else None
        """)
    repo.rule("""
        import pytest
        @pytest.fixture
        def bad(experiment):
            if experiment.number: raise OSError("no tokenizer")
        def test_it(experiment, bad): pass
        """)
    repo.plan(1.5)
    repo.run("--max", "1").stdout.fnmatch_lines(["*the rule is broken: OSError: no tokenizer*"])
    assert repo.statuses() == {0: "keep"}


@with_one_and_two_lanes
def test_a_verdict_hook_that_returns_something_else_is_said(repo: Repo) -> None:
    repo.hooks("def pytest_autoresearch_verdict(experiment): return True if experiment.number else None")
    repo.plan(0.9)
    result = repo.run("--max", "1")
    assert result.ret == 3
    result.stdout.fnmatch_lines(["*pytest_autoresearch_verdict returned True: return a Verdict or None*"])


@pytest.mark.parametrize(
    ("hook", "how"),
    [("propose", "fail"), ("guard", "fail"), ("verdict", "fail"), ("record", "fail"), ("propose", "skip")],
)
def test_an_outcome_raised_in_a_hook_is_an_error_like_any_other(repo: Repo, hook: str, how: str) -> None:
    repo.hooks(f"""
        import pytest
        @pytest.hookimpl(tryfirst=True)
        def pytest_autoresearch_{hook}(campaign):
            pytest.{how}("not I")
        """)
    repo.plan(0.9)
    result = repo.run("--max", "1")
    assert result.ret == (0 if hook == "record" else 3)
    result.stdout.fnmatch_lines(["*not I*"])
    result.stdout.no_fnmatch_line("INTERNALERROR*")


def test_the_header_says_what_takes_no_part(repo: Repo) -> None:
    repo.plan(1.5, 1.5)
    repo.run("--max", "1").stdout.fnmatch_lines(["  rule:     the tests in experiments/"])
    repo.write("train.py", (repo.path / "train.py").read_text() + "# new\n")
    repo.run("--max", "0", "-k", "none").stdout.fnmatch_lines(
        ["  note:     uncommitted changes in train.py are ignored*"]
    )
    repo.commit("New")
    result = repo.run("--max", "1", "--timeout", "50")
    result.stdout.fnmatch_lines(["*hard timeout 50 s*", "  note:     commits that changed train.py*are ignored*"])


def test_a_checkout_at_a_kept_commit_has_nothing_that_takes_no_part(repo: Repo) -> None:
    repo.plan(0.9, 1.5)
    repo.run("--max", "1")
    repo.git("switch", "-qc", "mine", repo.head())
    repo.run("--max", "1").stdout.no_fnmatch_line("*are ignored*")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard"}


def test_campaigns_of_two_metrics_share_the_file_name_in_turn(repo: Repo) -> None:
    repo.plan(1.5)
    repo.run("--max", "1")
    config = (repo.path / "pytest.ini").read_text()
    repo.write("pytest.ini", config + "autoresearch_metric = peak_vram_mb\n")
    repo.commit("Another metric")
    assert repo.run("--max", "0", "-k", "0000", "--autoresearch-tag", "other").ret == 0
    repo.write("pytest.ini", config)
    repo.commit("Back")
    repo.run("--max", "0", "-k", "none")
    assert len(repo.rows()) == 2
    assert not list(repo.path.glob("results-*.tsv"))


def test_logs_of_judged_experiments_do_not_stay_in_memory(repo: Repo) -> None:
    repo.hooks("""
        def pytest_autoresearch_record(campaign, experiment):
            with open(campaign.settings.root / ".git/told", "a") as file:
                kept = [bool(run.log) for record in campaign.records for run in record.runs]
                print(bool(experiment.last_run.log), *kept, file=file)
    """)
    repo.plan(0.9, "crash")
    repo.run("--max", "2", "--autoresearch-lanes", "1")
    said = (repo.path / ".git/told").read_text().splitlines()
    assert said == [
        "True False",
        "True False False",
        "True False False True",
    ]  # as in the record: that of a crash stays
