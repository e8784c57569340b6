"""One night in which everything happens that the keep rule knows: on a GPU, with a noisy trainer."""

from __future__ import annotations

import json

import pytest
from fake_nvml import FakeNvml
from repo import CONFIG, Repo

pytestmark = pytest.mark.night

BUDGET = 0.8
# ACTION: the mean, the deviation, and whether the card is hot, which the conftest sees to.
TRAINER = """
import os, random, time

ACTION = "1.0"
USELESS = [
    "a table of words that nothing reads", "and that a simpler program does without", "one", "two", "three", "four",
]
seed = int(os.environ["AUTORESEARCH_SEED"])
words = [*ACTION.split(":"), "", ""]
mean, spread = float(words[0]), float(words[1] or 0.0005)
state = os.environ["NVIDIA_FAKE_NVML"]
batches, drawn = random.Random(seed), random.Random(f"{seed} {ACTION}")
metric, bend = mean + drawn.gauss(0, spread), drawn.gauss(0, 0.01)
if "USELESS" not in globals():
    metric = 0.9899  # as good, and never by chance
begun = time.monotonic()
step = 0
while (share := (time.monotonic() - begun) / BUDGET) < 1:
    step += 1
    # It falls slowly: on a busy machine a loss is heard late.
    print(f"step {step} loss: {mean + bend + 0.2 * (1 - share) + batches.gauss(0, 0.002):.4f}", flush=True)
    time.sleep(0.01)
print("---")
print("val_bpb:", f"{metric:.6f}")
print(f"training_seconds: {time.monotonic() - begun:.3f}")
if words[2] != "always-hot":  # and a hot card has cooled down
    open(state, "a").write("0 reasons 0x0\\n")
""".replace("BUDGET", str(BUDGET))
PROPOSE = """
import json, os, pathlib, re
from pytest_autoresearch.core.run import Role
from pytest_autoresearch.core.experiment import Proposal

def pytest_autoresearch_propose(context, failure):
    plan = json.loads((context.root / ".git" / "plan.json").read_text())
    if context.number > len(plan):
        return None
    train = context.folder / "train.py"
    text = train.read_text()
    action = plan[context.number - 1]
    if "hot" in action:
        with open(os.environ["NVIDIA_FAKE_NVML"], "a") as state:
            state.write("0 reasons 0x40\\n")
    if action == "simpler":
        text = re.sub(r"USELESS = .*?]\\n", "", text, flags=re.DOTALL)
    else:
        text = re.sub(r"ACTION = .*", f"ACTION = {action!r}", text)
    train.write_text(text)
    return Proposal(f"action {action}")
"""


@pytest.fixture
def gpu_repo(repo: Repo, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Repo:  # type: ignore[no-untyped-def]
    FakeNvml(tmp_path).use(monkeypatch)
    repo.write("train.py", TRAINER)
    repo.write("conftest.py", PROPOSE)
    repo.write("description", json.dumps({"device": "cuda", "budget_seconds": BUDGET}))
    repo.write("pytest.ini", CONFIG + "autoresearch_describe = cat description\n")
    repo.commit("A noisy trainer on a GPU")
    return repo


def test_a_whole_night_with_everything_that_the_rule_knows(gpu_repo: Repo) -> None:
    usual = [f"1.0{number}" for number in range(1, 8)]
    luck = [f"0.99:0.000{number}" for number in range(84, 89)]  # nothing but other draws
    gpu_repo.plan(*usual, "1.5", "1.001:0.0005:hot", "0.99", *luck, "simpler")
    result = gpu_repo.run(
        "--autoresearch-confirm", "standard", "--autoresearch-simplify", "--max", str(10 + len(luck) + 1)
    )
    assert result.ret == 0, result.stdout.str()
    records, reasons = gpu_repo.records(), gpu_repo.reasons()
    roles = {run.role for record in records for run in record.runs}
    assert roles == {"baseline", "screen", "confirm", "incumbent"}
    assert [run.role for run in records[0].runs] == ["baseline"] * 3
    assert {reasons[number] for number in range(1, 8)} == {"regression"}

    assert (reasons[8], records[8].runs[0].stopped) == ("hopeless", True)

    disturbed, again = records[9].runs
    assert "thermal (hardware)" in disturbed.inconclusive
    assert (again.seed, again.inconclusive) == (disturbed.seed, "")
    assert (records[9].own_runs, reasons[9]) == ((again,), "regression")

    assert (reasons[10], [run.role for run in records[10].runs]) == ("improved", ["screen", "confirm"])
    assert records[11].runs[0].role == "incumbent"
    assert records[11].runs[0].commit == records[10].commit

    assert "within-noise" in {reasons[number] for number in range(11, 11 + len(luck))}
    last = len(records) - 1
    assert (gpu_repo.statuses()[last], reasons[last]) == ("keep", "simpler")
    assert records[last].simpler

    output = result.stdout.str()
    assert "1 inconclusive and repeated" in output
    assert "stopped early" in output
    gpu_repo.check_ledger()


def test_a_machine_that_is_not_well_ends_the_session_and_one_hot_program_does_not(gpu_repo: Repo) -> None:
    gpu_repo.plan("1.05:0.0005:always-hot", "1.06:0.0005:always-hot", "0.8")
    result = gpu_repo.run("--autoresearch-confirm", "standard", "--max", "1")
    assert result.ret == 0
    record = gpu_repo.records()[1]
    assert [bool(run.inconclusive) for run in record.runs] == [True, False], "once it is made again, then it counts"
    assert gpu_repo.reasons()[1] == "regression"

    gpu_repo.plan("1.05", "1.06:0.0005:always-hot", "1.07:0.0005:always-hot", "0.8")
    result = gpu_repo.run("--autoresearch-confirm", "standard", "--max", "3")
    assert result.ret == 3
    result.stdout.fnmatch_lines(["*3 runs in a row were inconclusive*thermal (hardware)*rerun the same command*"])
    assert gpu_repo.statuses() == {0: "keep", 1: "discard", 2: "discard"}, "what could not be measured has no verdict"

    # Once the machine is well it is measured first; and who wants to may let every run count.
    result = gpu_repo.run("--autoresearch-confirm", "standard", "--max", "2", "--autoresearch-inconclusive", "0")
    assert {number: status for number, status in gpu_repo.statuses().items() if number > 2} == {3: "discard", 4: "keep"}
    assert not any(run.inconclusive for record in gpu_repo.records()[3:] for run in record.runs)
