"""An edit in the user's checkout is tried, and the checkout follows the verdict: real git, whole sessions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from repo import CONFIG, Repo

from pytest_autoresearch.cli import main

pytestmark = [pytest.mark.flow, pytest.mark.timeout(60)]
PROPOSER = ("--autoresearch-proposer", "checkout", "--autoresearch-lanes", "1")
ON = [pytest.param("main", id="on main"), pytest.param("autoresearch/t", id="on the branch")]


def edit(repo: Repo, action: object) -> str:
    """Make train.py do something else; its text afterwards."""
    train = repo.path / "train.py"
    lines = train.read_text().split("\n")
    at = next(n for n, line in enumerate(lines) if line.startswith("ACTION"))
    lines[at] = f"ACTION = {str(action)!r}"
    train.write_text("\n".join(lines))
    return train.read_text()


def session(repo: Repo, *arguments: str) -> pytest.RunResult:
    return repo.run("--max", "1", *PROPOSER, *arguments)


def text(repo: Repo, name: str = "train.py") -> str:
    return (repo.path / name).read_text()


@pytest.fixture
def repo(repo: Repo) -> Repo:
    """The repository of every test, in which git passes over what pytester leaves behind."""
    (repo.path / ".git/info/exclude").write_text("runpytest-*\nstdout\nstderr\n")
    return repo


def begun(repo: Repo, branch: str = "main") -> None:
    """A campaign with its baseline, and the checkout on a branch."""
    assert repo.run("--max", "1", "-k", "0000", "--autoresearch-lanes", "1").ret == 0
    repo.git("switch", "-q", branch)


def status(repo: Repo) -> str:
    return repo.git("status", "--porcelain")


def stale_stat(repo: Repo) -> str:
    """The paths that git's plumbing, which never refreshes, takes for changed."""
    return repo.git("diff-files", "--name-only")


def last_json(result: pytest.RunResult) -> dict[str, object]:
    document: dict[str, object] = json.loads([line for line in result.outlines if line.startswith("{")][-1])
    return document


# ------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize("branch", ON)
def test_a_kept_edit_stays_and_the_checkout_is_at_the_head(repo: Repo, branch: str) -> None:
    begun(repo, branch)
    after = edit(repo, 0.9)
    result = session(repo, "--autoresearch-description", "halve the batch")
    assert result.ret == 0
    assert text(repo) == after
    assert repo.git("show", "autoresearch/t:train.py") == after.strip()
    assert status(repo) == ("M train.py" if branch == "main" else "")
    if branch != "main":
        assert stale_stat(repo) == ""
    record = repo.records()[1]
    assert (record.proposal.description, record.proposal.proposer) == ("halve the batch", "checkout")
    result.stdout.fnmatch_lines([
        "keep 0001: val_bpb 0.900000, best 1.000000 (-0.100000): halve the batch",
        "log: experiments/runs/t/0001/train.log",
        f"train.py is the same as on autoresearch/t{', but not committed here: *' if branch == 'main' else ''}",
    ])  # fmt: skip
    assert len(result.outlines) <= 15
    repo.check_ledger()


@pytest.mark.parametrize(("action", "branch"), [(1.5, "main"), ("crash", "autoresearch/t")])
def test_an_edit_that_is_not_kept_is_set_aside_and_the_command_that_is_said_brings_it_back(
    repo: Repo, action: object, branch: str
) -> None:
    begun(repo, branch)
    before, after = text(repo), edit(repo, action)
    result = session(repo)
    assert result.ret == 1
    assert text(repo) == before
    assert status(repo) == ""
    if branch != "main":
        assert stale_stat(repo) == ""
    log = next(line for line in result.outlines if line.startswith("log: ")).removeprefix("log: ")
    assert (repo.path / log).parent == repo.path / "experiments/runs/t/0001"
    assert (repo.path / log).is_file()
    command = "git checkout refs/autoresearch/t/0001 -- train.py"
    verdict = "discard 0001: val_bpb 1.500000, *" if action == 1.5 else "crash 0001: exit 1: RuntimeError: the tensor *"
    result.stdout.fnmatch_lines([
        f"{verdict}: edit of train.py (+1 -1)", f"log: {log}", f"the edit was set aside: {command} restores it",
    ])  # fmt: skip
    assert len(result.outlines) <= 15
    subprocess.run(command, shell=True, cwd=repo.path, check=True, capture_output=True)
    assert text(repo) == after
    again = session(repo)
    assert again.ret == 1
    again.stdout.fnmatch_lines(
        ["crash 0002: refused: the same program was tried as 0001*", "not tried: the edit is still in train.py"]
    )
    assert text(repo) == after


def test_the_next_edit_goes_on_from_a_keep_though_both_change_the_same_line(repo: Repo) -> None:
    begun(repo, "autoresearch/t")
    edit(repo, 0.9)
    assert session(repo).ret == 0
    edit(repo, 1.5)
    assert session(repo).ret == 1
    assert "0.9" in text(repo)
    after = edit(repo, 0.8)
    assert session(repo).ret == 0
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard", 3: "keep"}
    assert repo.git("show", "autoresearch/t:train.py") == after.strip() == text(repo).strip()
    assert status(repo) == ""
    repo.check_ledger()


def test_a_new_campaign_measures_the_commit_first_and_then_the_edit(repo: Repo) -> None:
    edit(repo, 0.9)
    result = session(repo, "--autoresearch-json")
    assert result.ret == 0
    assert {record.number: record.metric for record in repo.records()} == {0: 1.0, 1: 0.9}
    assert len(result.outlines) <= 15
    assert next(line for line in result.outlines if line.strip()) == "keep 0000: val_bpb 1.000000: baseline"


def test_an_edit_is_brought_to_a_head_that_is_ahead_of_the_checkout(repo: Repo) -> None:
    repo.plan(0.9)
    assert repo.run("--max", "1", "--autoresearch-lanes", "1").ret == 0
    assert repo.statuses() == {0: "keep", 1: "keep"}
    repo.plan()
    repo.write("train.py", text(repo).replace("{val_bpb}", "{float(val_bpb) - 0.1:.1f}"))
    result = session(repo)
    assert result.ret == 0
    assert repo.records()[2].metric == 0.8
    assert text(repo).strip() == repo.git("show", "autoresearch/t:train.py")
    assert repo.git("rev-parse", "HEAD") == repo.git("rev-parse", "main")
    assert session(repo).ret == 4, "what the branch has is no edit"


# -------------------------------------------------------------------------------------------------- committed edits


@pytest.mark.parametrize("branch", ON)
def test_an_edit_that_was_committed_is_tried_like_any_other(repo: Repo, branch: str) -> None:
    begun(repo, branch)
    edit(repo, 0.9)
    mine = repo.commit("A better action")
    result = session(repo)
    assert result.ret == 0
    off = ", which leaves the branch," if branch != "main" else ""
    result.stdout.fnmatch_lines(
        [f"note: your commit {mine[:7]}{off} is tried as an edit of 0000", "keep 0001: *: A better action"]
    )
    assert (repo.records()[1].metric, status(repo)) == (0.9, "")
    assert repo.git("rev-parse", "HEAD") == (mine if branch == "main" else repo.head())
    repo.check_ledger()
    assert session(repo).ret == 4
    after = edit(repo, 1.5)
    repo.commit("A worse one")
    result = session(repo)
    assert result.ret == 1
    assert "0.9" in text(repo)
    command = "git checkout refs/autoresearch/t/0002 -- train.py"
    result.stdout.fnmatch_lines(["discard 0002: *: A worse one", f"the edit was set aside: {command} restores it"])
    subprocess.run(command, shell=True, cwd=repo.path, check=True, capture_output=True)
    assert text(repo) == after
    repo.check_ledger()
    edit(repo, 0.8)
    repo.commit("A third")
    assert session(repo).ret == 0
    assert repo.records()[3].metric == 0.8
    assert repo.records()[3].base == repo.records()[1].commit


def test_upstreams_habit_of_resetting_after_a_discard_works(repo: Repo) -> None:
    begun(repo)
    for action, kept in ((0.9, True), (1.5, False), (0.8, True), (1.1, False)):
        edit(repo, action)
        repo.commit(f"action {action}")
        assert session(repo).ret == (0 if kept else 1)
        if not kept:
            repo.git("reset", "-q", "--hard", "HEAD~1")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard", 3: "keep", 4: "discard"}
    assert (text(repo).count("'0.8'"), status(repo)) == (1, "")


def test_an_amended_keep_on_the_branch_is_an_edit_and_nothing_else_is_lost(repo: Repo) -> None:
    begun(repo, "autoresearch/t")
    edit(repo, 0.9)
    assert session(repo).ret == 0
    edit(repo, 0.8)
    repo.write("notes.txt", "mine\n")
    repo.git("add", "-A")
    repo.git("commit", "-q", "--amend", "-m", "Even better")
    assert session(repo).ret == 0
    assert repo.records()[2].base == repo.records()[1].commit
    assert status(repo) == "A  notes.txt"
    repo.check_ledger()


def test_best_switches_a_checkout_whose_keeps_are_not_committed(repo: Repo) -> None:
    begun(repo)
    for action, branch in ((0.9, "main"), (0.8, "best/t"), (0.7, "best/t")):
        edit(repo, action)
        assert session(repo).ret == 0
        assert status(repo) == "M train.py"
        assert repo.git("symbolic-ref", "--short", "HEAD") == branch
        assert main(["best", "--tag", "t", "--checkout"]) == 0
        assert (repo.git("rev-parse", "HEAD"), status(repo)) == (repo.head(), "")
        assert repo.git("symbolic-ref", "--short", "HEAD") == "best/t"


# --------------------------------------------------------------------------------- what has no verdict stays in place


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_text("def"), "crash 0001: syntax: train.py does not parse*"),
        (lambda path: path.write_text(path.read_text() + "# only a comment\n"), "crash 0001: refused: it changes on*"),
        (lambda path: path.chmod(0o755), "crash 0001: refused: it changes the kind or the mode of train.py*"),
    ],
)  # fmt: skip
def test_an_edit_that_was_never_committed_stays_in_the_file(repo: Repo, change: object, said: str) -> None:
    begun(repo, "autoresearch/t")
    train = repo.path / "train.py"
    change(train)  # type: ignore[operator]
    before = train.read_bytes(), train.stat().st_mode, repo.git("ls-files", "--stage"), status(repo)
    result = session(repo)
    assert result.ret == 1
    assert (train.read_bytes(), train.stat().st_mode, repo.git("ls-files", "--stage"), status(repo)) == before
    result.stdout.fnmatch_lines([said, "not tried: the edit is still in train.py"])
    assert not [line for line in result.outlines if line.startswith("log:")]


def test_an_edit_of_a_line_that_a_keep_changed_too_is_a_mistake_whose_advice_git_takes(repo: Repo) -> None:
    begun(repo)
    repo.write("train.py", edit(repo, 0.9).replace("2048.0", "1024.0").replace("import os", "import math, os"))
    assert session(repo).ret == 0
    repo.git("checkout", "-q", "--", "train.py")
    after = edit(repo, 0.8)
    repo.write("train.py", after.replace("loss: 2.5", "loss: 2.4"))
    result = session(repo)
    assert result.ret == 4
    assert text(repo) == after.replace("loss: 2.5", "loss: 2.4")
    assert list(repo.statuses()) == [0, 1]
    said = next(line for line in result.errlines if line.startswith("ERROR"))
    assert said.startswith("ERROR: `ACTION = '0.8'` of your edit of train.py changes what a keep on autoresearch/t has")
    subprocess.run(said.split("type `")[1].split("`")[0], shell=True, cwd=repo.path, check=True, capture_output=True)
    assert text(repo).strip() == repo.git("show", "autoresearch/t:train.py")
    assert "ACTION = '0.8'" in repo.git("stash", "show", "-p")
    edit(repo, 0.8)
    assert session(repo).ret == 0
    assert repo.records()[2].metric == 0.8
    assert "1024.0" in repo.git("show", "autoresearch/t:train.py")


@pytest.mark.parametrize("branch", ["main", "--detach"])
def test_an_edit_of_an_older_version_of_the_file_leaves_the_keep_in_place(repo: Repo, branch: str) -> None:
    begun(repo, branch)
    edit(repo, 0.9)
    assert session(repo).ret == 0
    repo.git("checkout", "-q", "--", "train.py")
    repo.write("train.py", text(repo).replace("2048.0", "1024.0"))
    result = session(repo, "--autoresearch-tag", "t")
    assert "undoes" not in result.stdout.str()
    result.stdout.fnmatch_lines(["note: the edit was made from 0000: it is tried on 0001, the head", "discard 0002: *"])
    tried = repo.git("show", "refs/autoresearch/t/0002:train.py")
    assert "ACTION = '0.9'\nPEAK_VRAM_MB = 1024.0" in tried
    assert repo.records()[2].metric == 0.9


@pytest.mark.parametrize("branch", ON)
def test_a_restored_candidate_is_tried_on_the_keep_that_came_after_it(repo: Repo, branch: str) -> None:
    begun(repo, branch)
    repo.write("train.py", text(repo).replace("2048.0", "1024.0"))
    command = str(last_json(session(repo, "--autoresearch-json"))["set_aside"])
    edit(repo, 0.9)
    assert session(repo).ret == 0
    subprocess.run(command, shell=True, cwd=repo.path, check=True, capture_output=True)
    result = session(repo)
    assert result.ret == 1
    assert "undoes" not in result.stdout.str()
    assert "ACTION = '0.9'\nPEAK_VRAM_MB = 1024.0" in repo.git("show", "refs/autoresearch/t/0003:train.py")
    assert "ACTION = '0.9'\nPEAK_VRAM_MB = 2048.0" in text(repo)


def test_an_edit_that_undoes_a_keep_says_so_before_it_is_trained(repo: Repo) -> None:
    begun(repo, "autoresearch/t")
    edit(repo, 0.9)
    assert session(repo, "--autoresearch-description", "a better action").ret == 0
    repo.write("train.py", text(repo).replace("2048.0", "1024.0"))
    assert session(repo).ret == 1
    repo.write(
        "train.py", text(repo).replace("'0.9'", '"1.0"').replace("2048.0", "4096.0").replace("loss: 2", "loss: 3")
    )
    result = session(repo)
    result.stdout.fnmatch_lines(["note: this also undoes 0001 (a better action)", "discard 0003: *"])


def test_nothing_to_try_is_a_mistake_and_nothing_is_touched(repo: Repo) -> None:
    repo.write("helper.py", "X = 1\n")
    result = session(repo, "--autoresearch-json")
    assert result.ret == 4
    said = "there is no uncommitted change in train.py to try: edit it first; the base*; helper.py takes no part: *"
    result.stderr.fnmatch_lines([f"ERROR: {said}"])
    found = last_json(result)
    assert found["status"] == "error"
    assert f"ERROR: {found['message']}" in result.errlines
    assert repo.records() == []
    assert not (repo.path / "results.tsv").exists()


def test_what_takes_no_part_is_said_before_anything_is_trained(repo: Repo) -> None:
    repo.write("utils.py", "X = 1\n")
    repo.write("pkg/__init__.py", "")
    repo.commit("More")
    begun(repo)
    repo.write("utils.py", "X = 2\n")
    repo.write("helper.py", "Y = 1\n")
    repo.write("pkg/new.py", "Z = 1\n")
    repo.write("train.py", edit(repo, 0.9).replace("import os", "import helper, os"))
    result = session(repo)
    assert result.ret == 1
    result.stdout.fnmatch_lines([
        "note: helper.py is imported but untracked, so no experiment has this version: name it in *",
        "note: pkg/new.py takes no part: untracked, and not in autoresearch_editable",
        "note: utils.py takes no part: not committed, and not in autoresearch_editable",
        "crash 0001: import: ModuleNotFoundError: No module named 'helper': edit of train.py*",
    ])  # fmt: skip
    assert len(result.outlines) <= 15


def test_a_session_that_is_stopped_leaves_the_edit_and_the_next_one_tries_what_is_there_then(repo: Repo) -> None:
    begun(repo, "autoresearch/t")
    after = edit(repo, "hang")
    process = repo.start("--max", "1", *PROPOSER)
    repo.wait_for(lambda: any((repo.path / ".git/autoresearch").glob("lane-*-out/hanging")))
    output = repo.end(process, signal.SIGINT)
    assert process.returncode == 2, output
    assert "no verdict: the edit is still in train.py" in output
    assert len(output.splitlines()) <= 15
    assert text(repo) == after
    edit(repo, 0.9)
    assert session(repo).ret == 0
    assert repo.records()[1].metric == 0.9, "the edit at hand, not the one that was stopped"


@pytest.mark.kill
def test_an_edit_whose_session_was_stopped_is_known_again(repo: Repo) -> None:
    begun(repo)
    edit(repo, "do:os.path.exists(sys.prefix + '/none') or time.sleep(3); block(0.9)")
    process = repo.start("--max", "1", *PROPOSER)
    repo.wait_for(repo.training)
    repo.end(process, signal.SIGINT)
    assert session(repo).ret == 0
    waiting = repo.git("for-each-ref", "--format=%(objectname)", "refs/autoresearch/t/waiting")
    assert repo.records()[1].proposal.repeats == repo.git("rev-parse", f"{waiting}^{{commit}}")
    repo.plan()
    repo.run("--max", "1", "--autoresearch-proposer", "queue")
    assert list(repo.statuses()) == [0, 1], "nobody owes it a verdict any more"


# ----------------------------------------------------------------------------------------- which campaign, which branch


def test_the_branch_may_be_checked_out_here_and_nowhere_else(repo: Repo, tmp_path: Path) -> None:
    begun(repo)
    repo.git("worktree", "add", "-q", str(tmp_path / "other"), "autoresearch/t")
    edit(repo, 0.9)
    result = session(repo)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: the branch autoresearch/t is checked out in {tmp_path / 'other'}*"])


def test_on_a_campaigns_branch_that_campaign_goes_on_without_a_tag(repo: Repo) -> None:
    begun(repo, "autoresearch/t")
    edit(repo, 0.9)
    arguments = [word for word in repo.arguments("--max", "1", *PROPOSER) if word not in ("--autoresearch-tag", "t")]
    assert repo.pytester.runpytest_inprocess(*arguments).ret == 0
    assert list(repo.statuses()) == [0, 1]


def test_what_a_hook_proposes_moves_a_checkout_on_the_branch_too(repo: Repo) -> None:
    repo.write("pytest.ini", CONFIG + "autoresearch_editable = train.py\nautoresearch_proposer = checkout\n")
    repo.commit()
    begun_by_ini = repo.run("--max", "1", "-k", "0000", "--autoresearch-proposer", "queue", "--autoresearch-lanes", "1")
    assert begun_by_ini.ret == 0
    repo.git("switch", "-q", "autoresearch/t")
    mine = edit(repo, 0.8)
    repo.plan(0.9)
    result = repo.run("--max", "1", "--autoresearch-lanes", "1")
    assert repo.records()[1].proposal.proposer == "plan"
    assert text(repo) == mine
    assert repo.git("diff", "--cached") == ""
    result.stdout.fnmatch_lines(["train.py was edited meanwhile and left unchanged"])


# ---------------------------------------------------------------------------------------------------------- output


def test_with_v_all_lines_are_shown(repo: Repo) -> None:
    edit(repo, 1.5)
    result = session(repo, "-v")
    result.stdout.fnmatch_lines([
        "autoresearch: campaign t (new), branch autoresearch/t",
        "  proposer: checkout, the uncommitted edit in train.py",
        " 0001  discard *", "the edit was set aside: *", "1 experiment in this session: *",
    ])  # fmt: skip
    result.stdout.no_fnmatch_line("*are ignored*")


def test_a_rule_that_is_broken_and_a_baseline_that_fails_are_short_too(repo: Repo) -> None:
    edit(repo, 0.9)
    repo.rule("def test_it(experiment):\n    assert experiment.number == 0 or experiment.speed > 1\n")
    edit(repo, 0.8)
    result = session(repo)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["the campaign stopped: the rule is broken: *", "no verdict: the edit is still in *"])
    assert len(result.outlines) <= 15, result.outlines


@pytest.mark.parametrize("arguments", [(), ("-q",), ("-v",), ("-q", "--autoresearch-discard", "xfail")])
def test_json_is_a_line_of_its_own_for_every_proposer(repo: Repo, arguments: tuple[str, ...]) -> None:
    repo.plan(1.5, "crash", 0.9, "do:open('train.py')")
    result = repo.run("--max", "4", "--autoresearch-json", "--autoresearch-lanes", "1", *arguments)
    found = [json.loads(line) for line in result.outlines if line.startswith("{")]
    assert [one["status"] for one in found] == ["keep", "discard", "crash", "keep", "crash"]
    assert found[0] | {"seconds": 0} == {
        "number": 0, "status": "keep", "reason": "baseline", "message": "val_bpb 1.000000", "metric_name": "val_bpb",
        "metric": 1.0, "best": None, "gain": None, "commit": repo.git("rev-parse", "main"), "description": "baseline",
        "log": "experiments/runs/t/0000/train.log", "seconds": 0, "cost_usd": 0.0, "set_aside": None,
    }  # fmt: skip
    assert (found[1]["best"], found[1]["gain"], found[2]["metric"]) == (1.0, -0.5, None)
    assert os.path.isfile(repo.path / found[4]["log"])


def test_json_says_how_the_edit_comes_back(repo: Repo) -> None:
    edit(repo, 1.5)
    found = last_json(session(repo, "--autoresearch-json"))
    assert (found["number"], found["set_aside"]) == (1, "git checkout refs/autoresearch/t/0001 -- train.py")
