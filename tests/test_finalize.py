"""`autoresearch finalize` on small campaigns in which the effect of every keep is known."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repo import CONFIG, Repo

from pytest_autoresearch.cli import main
from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.keeprule import ablation
from pytest_autoresearch.keeprule.ablation import gain, order_of_turns
from pytest_autoresearch.reports import progress

# Each constant has its own effect. STALE helps only without BETTER; RATE only at the usual SIZE; nothing at a WIDTH of
# 2; everything twice as much at a longer budget.
TRAIN = """
import os, random

RATE = 0
STALE = 0
BETTER = 0
WIDTH = 1
SIZE = int(os.environ.get("SIZE", "1"))
seed = int(os.environ["AUTORESEARCH_SEED"])
if os.environ.get("COUNT"):
    open(os.environ["COUNT"], "a").write(".")
noise = random.Random(seed).uniform(-1, 1) + random.Random(f"{seed} {RATE} {STALE} {BETTER}").uniform(-1, 1) * 0.01
effect = (0.3 * RATE if SIZE == 1 else 0) + max(0.2 * STALE, 0.5 * BETTER) - 0.002 * STALE
value = 3.0 - effect * (WIDTH == 1) * (2 if float(os.environ["AUTORESEARCH_BUDGET"]) > 400 else 1)
print("val_bpb:", f"{value + 0.02 * noise:.6f}")
"""
HOOK = """
import json
import re
from pytest_autoresearch import Proposal

def pytest_autoresearch_propose(context, failure):
    plan = json.loads((context.root / ".git" / "plan.json").read_text())
    if context.number > len(plan):
        return None
    name, value = plan[context.number - 1].split("=")
    train = context.folder / "train.py"
    lines = train.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(name))
    lines[at] = f"{name} = {value}"
    train.write_text("\\n".join(lines) + "\\n")
    return Proposal(f"set {name} to {value}", f"{name} should help", proposer="plan")
"""


LEAVES = """
import os, random, socket

ACTION = "1.0"
clock = socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"]))
clock.setblocking(True)
clock.sendall(b"begin\\n")
clock.recv(16)
noise = random.Random(int(os.environ["AUTORESEARCH_SEED"])).uniform(-1, 1) * 0.01
part = os.environ["AUTORESEARCH_OUT"] + "/model.part"
with open(part, "w") as file:
    file.write(str(float(ACTION) + noise))
os.replace(part, os.environ["AUTORESEARCH_OUT"] + "/model.pt")
"""
SCORER = """
import os, pathlib

told = sorted(name for name in os.environ if "NATS" in name or "FRESH" in name)
if nats := os.environ.get("AUTORESEARCH_NATS"):
    pathlib.Path(nats).touch()
pathlib.Path(".git/said").open("a").write(f"{os.environ.get('AUTORESEARCH_ROWS', 'verdict')} {told}\\n")
print("probe_threshold: 0.1")
print("val_bpb:", pathlib.Path(os.environ["AUTORESEARCH_OUT"], "model.pt").read_text())
"""


@pytest.fixture
def night(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A campaign in which 0001 helps, 0002 no longer does, 0003 took its place, and 0004 was discarded."""
    monkeypatch.setenv("COUNT", str(repo.path.with_name(f"{repo.path.name}-count")))
    monkeypatch.setattr(progress, "available", lambda: False)  # sessions in this process unload matplotlib
    repo.write("train.py", TRAIN)
    repo.write("conftest.py", HOOK)
    repo.write("pytest.ini", f"{CONFIG}\nautoresearch_sandbox = off\nautoresearch_environment = COUNT SIZE\n")
    repo.commit("A program with three effects")
    repo.plan("RATE=1", "STALE=1", "BETTER=1", "RATE=-1")
    repo.run("--max", "4")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep", 3: "keep", 4: "discard"}
    return repo


def finalized(repo: Repo, *arguments: str) -> tuple[int, str, str]:
    """`autoresearch finalize …` to its end, in this process: its exit status and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(["-C", str(repo.path), "finalize", *arguments])
        except SystemExit as end:  # of argparse
            status = int(end.code or 0)
    return status, out.getvalue(), err.getvalue()


def count(repo: Repo) -> int:
    """The number of training runs so far."""
    return len(repo.path.with_name(f"{repo.path.name}-count").read_text())


def test_each_keep_is_left_out_once_and_what_is_idle_is_named(night: Repo) -> None:
    before, head, runs = night.checkout_hash(), night.head(), count(night)
    status, out, err = finalized(night, "--json", "--runs", "3")
    assert status == 0, err
    found = json.loads(out)
    assert count(night) - runs == 5 * 3
    helps, idle, took = found["effects"]
    assert (helps["standing"], idle["standing"], took["standing"]) == ("helps", "no longer helps", "helps")
    assert helps["now"]["gain"] == pytest.approx(0.3, abs=0.01)
    assert helps["now"]["margin"] < 0.02, "seeds are shared, so most of their noise cancels"
    assert idle["now"]["gain"] == pytest.approx(0.0, abs=0.01)
    assert took["now"]["gain"] == pytest.approx(0.3, abs=0.01), "without it, the stale one helps again"
    assert found["whole"]["gain"] == pytest.approx(0.8, abs=0.01)
    assert (night.checkout_hash(), night.head()) == (before, head)
    night.check_ledger()


@pytest.mark.lanes
def test_several_lanes_make_the_runs_side_by_side(night: Repo) -> None:
    night.write("pytest.ini", (night.path / "pytest.ini").read_text() + "autoresearch_lanes = 2\n")
    night.commit("Two lanes")
    night.plan("RATE=1", "BETTER=1")
    night.lanes = 2
    night.run("--max", "2", "--autoresearch-tag", "u")
    runs = count(night)
    status, out, err = finalized(night, "u", "--json", "--runs", "3")
    assert status == 0, err
    assert count(night) - runs == 4 * 3
    assert json.loads(out)["whole"]["gain"] == pytest.approx(0.8, abs=0.01)
    lanes = {json.loads(line)["run"]["lane"] for path in (night.path / "experiments/runs/u").glob("finalize-*.jsonl")
             for line in path.read_text().splitlines() if '"run"' in line}  # fmt: skip
    assert lanes == {0, 1}


def test_the_same_command_makes_no_run_twice(night: Repo) -> None:
    _, first, _ = finalized(night, "--json", "--runs", "2")
    runs = count(night)
    _, again, _ = finalized(night, "--json", "--runs", "2")
    assert count(night) == runs
    assert json.loads(again)["effects"] == json.loads(first)["effects"]
    finalized(night, "--runs", "3")
    assert count(night) - runs == 5, "one more seed of each program"


@pytest.mark.kill
def test_an_interrupted_measurement_goes_on_where_it_stopped(night: Repo) -> None:
    runs, folder = count(night), night.path / "experiments/runs/t"
    code = "import sys, pytest_autoresearch.cli as cli; sys.exit(cli.main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "finalize", "--runs", "40"],
        cwd=night.path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    night.wait_for(lambda: any('"run"' in path.read_text() for path in folder.glob("finalize-*.jsonl")))
    out = night.end(process, signal.SIGINT)
    assert process.returncode == 130, out
    assert "the measurement was interrupted: the runs so far are kept, and the same command goes on" in out
    assert night.training() == []
    (kept,) = folder.glob("finalize-*.jsonl")
    done = sum('"run"' in line for line in kept.read_text().splitlines())
    kept.write_text(kept.read_text() + '{"tree": "cut')
    assert 0 < done < 200
    least = count(night)
    assert finalized(night, "--runs", "2")[0] == 0
    again = count(night)
    finalized(night, "--runs", "2")
    assert count(night) == again, "a line that was cut does not spoil the next one"
    assert again - least <= max(0, 10 - min(done, 10)) + 1
    assert least - runs - done <= 1, "at most the run that was interrupted is made again"


def test_dropping_makes_a_final_branch_without_what_is_idle(night: Repo) -> None:
    _, out, _ = finalized(night, "--runs", "3")
    assert "no longer earns its place: 0002; without: autoresearch finalize t --drop" in out
    head, runs = night.head(), count(night)
    status, out, err = finalized(night, "--runs", "3", "--drop")
    assert status == 0, err
    assert count(night) == runs, "the program without it was measured already"
    assert "the final program against the whole stack: val_bpb " in out
    assert night.head() == head
    subjects = night.git("log", "--format=%s", "main..autoresearch/t-final").splitlines()
    assert subjects == ["set BETTER to 1", "set RATE to 1"]
    program = night.git("show", "autoresearch/t-final:train.py")
    assert ("RATE = 1" in program, "STALE = 0" in program, "BETTER = 1" in program) == (True, True, True)
    night.check_ledger()


def test_keeps_that_stand_in_for_each_other_are_not_both_dropped(night: Repo) -> None:
    night.write("train.py", TRAIN.replace("max(0.2 * STALE, 0.5 * BETTER)", "0.5 * max(STALE, BETTER)"))
    night.commit("Either is enough")
    night.plan("RATE=1", "STALE=1", "BETTER=1")
    night.rule("def test_all(experiment): assert experiment.val_bpb")
    night.run("--max", "3", "--autoresearch-tag", "u")
    status, out, err = finalized(night, "u", "--json", "--runs", "3", "--drop")
    assert status == 0, err
    found = json.loads(out)
    dropped = [one["number"] for one in found["effects"] if one["dropped"]]
    assert len(dropped) <= 1
    assert found["effects"][0]["standing"] == "helps"
    if dropped:
        assert abs(found["final"]["gain"]) < 0.05


def test_each_commit_says_what_it_does_and_the_text_is_ready_for_review(night: Repo) -> None:
    status, out, err = finalized(night, "--runs", "3")
    assert status == 0, err
    branches = night.git("for-each-ref", "--format=%(refname:short)", "refs/heads/autoresearch").split()
    assert branches == ["autoresearch/t", *(f"autoresearch/t-final{more}" for more in ("", "-0001", "-0002", "-0003"))]
    message = night.git("log", "-1", "--format=%B", "autoresearch/t-final-0001")
    assert message.splitlines()[0] == "set RATE to 1"
    assert "RATE should help" in message
    assert "val_bpb is lower by 0.30" in message
    assert "on 3 fresh seeds: helps. It was not measured alone." in message.replace("\n", " ")
    assert "Record: refs/autoresearch/t/0001" in message
    assert night.git("diff", "--stat", "main", "autoresearch/t-final-0001").splitlines()[0].split()[0] == "train.py"
    assert night.git("rev-parse", "autoresearch/t-final^{tree}") == night.git("rev-parse", "autoresearch/t^{tree}")
    path = night.path / "experiments/runs/t/pull-request.md"
    text = path.read_text()
    assert re.match(r"# val_bpb lower by 0\.(79|80)", text)
    assert "| set RATE to 1 |" in text
    assert "no longer helps" in text
    assert f"--body-file {path}" in out
    assert "git push -u origin autoresearch/t-final" in out


def test_what_the_night_showed_is_a_patch_of_the_charter(night: Repo) -> None:
    page = night.path / "program.md"
    page.write_text("Lower val_bpb.")  # without a line end
    status, out, err = finalized(night, "--runs", "2", "--set", "WIDTH=2")
    assert status == 0, err
    patch = night.path / "experiments/runs/t/program.patch"
    assert f"git apply {patch}" in out
    assert page.read_text() == "Lower val_bpb."
    night.git("apply", str(patch))
    text = page.read_text()
    assert text.startswith("Lower val_bpb.\n\n## What the campaign t showed\n\n3 of 4 experiments were kept.")
    said = re.sub(r"0\.\d+( ± 0\.\d+)?", "N", text)
    assert "Helped:\n\n- `set " in text
    assert "Kept, but no longer helps beside the others:\n\n- `set STALE to 1` (0002): higher by N" in said
    assert "Did not help, nearest misses first:\n\n- `set RATE to -1` (0004): N worse" in said
    assert "- `set STALE to 1` (0002) does less now: higher by N; when it was kept, N" in said
    assert "- at WIDTH=2, the whole gain is " in text
    page.write_text(f"{text}\n## Mine\n\nKeep this.\n")
    finalized(night, "--runs", "2")
    night.git("apply", str(patch))
    assert page.read_text().count("## What the campaign t showed") == 1
    assert page.read_text().endswith("\n## Mine\n\nKeep this.\n")


def test_first_and_final_program_are_compared_under_other_conditions(night: Repo) -> None:
    more = ("--budget", "2x", "--set", "SIZE=2", "--set", "WIDTH=2x", "--runs", "2")
    status, out, err = finalized(night, "--json", *more)
    assert status == 0, err
    budget, size, width = json.loads(out)["transfers"]
    assert (budget["name"], size["name"], width["name"]) == ("budget 2x", "SIZE=2", "WIDTH=2x")
    assert budget["gain"]["gain"] == pytest.approx(1.6, abs=0.02)
    assert size["gain"]["gain"] == pytest.approx(0.5, abs=0.02)
    assert budget["words"] == size["words"] == "the gain transfers"
    assert width["gain"]["gain"] == pytest.approx(0.0, abs=0.02)
    assert width["words"] != "the gain transfers"
    runs = count(night)
    _, out, _ = finalized(night, *more)
    assert count(night) == runs
    assert re.search(r"^at budget 2x: val_bpb lower by 1\.(59|60)\d* ± 0\.\d+: the gain transfers$", out, re.MULTILINE)
    text = (night.path / "experiments/runs/t/pull-request.md").read_text()
    assert "## Under other conditions" in text
    assert "| budget 2x | lower by 1." in text
    assert "WIDTH = 2" not in night.git("show", "autoresearch/t-final:train.py")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--set", "NONE=2"), "--set NONE=2: nothing in the program reads NONE: correct the name"),
        (("--set", "SIZE=2x"), "--set SIZE=2x: the program has no constant SIZE: give a plain value"),
        (("--set", "WIDTH=wide"), "--set WIDTH=wide: WIDTH is 1: give a number, or 2x for twice its value"),
        (("--set", "WIDTH"), "give NAME=VALUE, such as DEPTH=2x"),
        (("--budget", "long"), "--budget long: give seconds, such as 600, or 2x"),
    ],
)
def test_conditions_that_the_program_cannot_have_are_told_before_anything_runs(
    night: Repo, given: tuple[str, ...], said: str
) -> None:
    runs = count(night)
    status, _, err = finalized(night, *given)
    assert (status, count(night)) == (2, runs)
    assert said in err


def test_a_keep_that_a_later_one_changed_again_is_bound(night: Repo) -> None:
    night.plan("RATE=1", "STALE=1", "BETTER=1", "RATE=-1", "RATE=2")
    night.run("--max", "1")
    assert night.statuses()[5] == "keep"
    status, out, err = finalized(night, "--runs", "2")
    assert status == 0, err
    assert "0001 cannot be left out: 0005 changed the same lines of train.py later" in out
    status, _, err = finalized(night, "--runs", "2", "--drop", "1")
    assert (status, err.strip()) == (
        2, "autoresearch finalize: --drop 1: 0001 cannot be dropped: 0005 changed the same lines of train.py later",
    )  # fmt: skip


def test_a_branch_of_the_users_own_is_not_moved(night: Repo) -> None:
    finalized(night, "--runs", "2")
    night.git("switch", "-q", "autoresearch/t-final")
    status, _, err = finalized(night, "--runs", "2")
    assert status == 2
    assert "the branch autoresearch/t-final is checked out and would move: type `git switch --detach`" in err
    night.write("notes", "mine")
    night.commit("My own")
    night.git("switch", "-q", "main")
    runs = count(night)
    status, _, err = finalized(night, "--runs", "2")
    assert (status, count(night)) == (2, runs)
    assert "type `git branch -m autoresearch/t-final my-t-final` first" in err


def test_programs_are_scored_and_probed_on_rows_that_no_verdict_used(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "available", lambda: False)
    repo.scored_by(SCORER, LEAVES, device="cpu", audit_environment={"AUTORESEARCH_ROWS": "audit"})
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + "autoresearch_sandbox = off\n")
    repo.commit("No sandbox")
    repo.plan(0.9, 0.8)
    repo.run("--max", "2")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    said = repo.path / ".git" / "said"
    before = len(said.read_text().splitlines())
    status, out, err = finalized(repo, "--runs", "2", "--json")
    assert status == 0, err
    lines = [line.split(" ", 1) for line in said.read_text().splitlines()[before:]]
    assert [rows for rows, _ in lines] == ["audit"] * 6
    first, other = "['AUTORESEARCH_FRESH', 'AUTORESEARCH_NATS']", "['AUTORESEARCH_BASELINE_NATS']"
    assert [told for _, told in lines] == [first, other, other, other, other, first]
    found = json.loads(out)
    assert found["whole"]["gain"] == pytest.approx(0.2, abs=0.01)
    bound, last = found["effects"]
    assert (bound["standing"], last["standing"]) == ("cannot be left out", "helps")
    repo.check_ledger()


def test_what_cannot_be_finalized_is_told_before_anything_runs(repo: Repo) -> None:
    assert "there is no campaign" in finalized(repo)[2]
    repo.plan(1.5)
    repo.run("--max", "1")
    assert finalized(repo)[::2] == (
        2, "autoresearch finalize: nothing was kept in t, so there is nothing to finalize\n",
    )  # fmt: skip
    assert "give a whole number, 2 or more" in finalized(repo, "--runs", "1")[2]
    assert "name the campaign before --drop" in finalized(repo, "--drop", "t")[2]


# ------------------------------------------------------------------------------------------------------ arithmetic


@given(
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=8),
    st.integers(-50, 50),
    st.sampled_from(list(Direction)),
)
def test_noise_that_programs_share_does_not_widen_the_interval(
    seeds: list[int], effect: int, direction: Direction
) -> None:
    metrics = {
        "stack": dict(enumerate(map(float, seeds))),
        "without": {seed: value + effect for seed, value in enumerate(map(float, seeds))},
    }
    found = gain(metrics, "stack", "without", direction)
    assert found is not None
    assert found.gain == pytest.approx(direction.gain(0, effect), abs=1e-6)


def test_one_run_is_not_compared() -> None:
    assert gain({"a": {1: 1.0}, "b": {1: 1.0, 2: 2.0}}, "a", "b", Direction.MINIMIZE) is None
    assert gain({"b": {1: 1.0, 2: 2.0}}, "a", "b", Direction.MINIMIZE) is None


def test_every_second_seed_goes_backwards() -> None:
    assert order_of_turns(["a", "b"], [7, 8]) == [("a", 7), ("b", 7), ("b", 8), ("a", 8)]
    assert ablation.RUNS >= ablation.LEAST_RUNS
