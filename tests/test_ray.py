"""Campaigns on a real Ray cluster of several nodes on this machine: what a node is asked, and what its death costs."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml
from ray_nodes import ENVIRONMENT, kill_node, shared_cluster
from repo import CONFIG, Repo
from test_scorer_files import DESCRIBED, SCORER, TRAIN, told

from pytest_autoresearch.core.loss_curve import CHECKPOINTS
from pytest_autoresearch.core.run import CrashClass, Limits
from pytest_autoresearch.keeprule.racing import Race, Racer
from pytest_autoresearch.ledger import bundle
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.measure.place import RunSpec
from pytest_autoresearch.runners.ray import Node
from pytest_autoresearch.settings import OPTIONS

# What a run does when it is made first, and what it does when it is made again; both say which processes ran it.
FIRST = "do:import pathlib; first = not pathlib.Path({!r}).exists(); " + (
    "p = pathlib.Path({!r} + '.part'); p.write_text(str(os.getpid())); first and p.rename({!r}); "
    "time.sleep(1000 if first else 0); block(0.9)"
)
KILLS_ITS_WATCHER = (
    "do:fields = lambda pid: open('/proc/%d/stat' % pid).read().rpartition(')')[2].split(); "
    "os.kill(int(fields(os.getppid())[1]), 9); time.sleep(1000)"
)

EXAMPLES = Path(__file__).parent.parent / "examples" / "ray"
SECONDS = 400  # with the start of the cluster, and of other tests on it


def on_cluster(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that needs the cluster."""
    return pytest.mark.cluster(pytest.mark.timeout(SECONDS)(test))


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The options of a session on the cluster of `ray_nodes`."""
    if find_spec("ray") is None:
        pytest.skip("needs the extra [ray]")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    base = tmp_path_factory.getbasetemp()
    with shared_cluster(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) as address:
        yield ["--autoresearch-runner", "ray", "--autoresearch-ray-address", address]


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def started(repo: Repo, mark: Path, process: subprocess.Popen[str]) -> int:
    """The process number of the training that left the mark."""
    repo.wait_for(lambda: mark.exists() or process.poll() is not None, 110)
    assert mark.exists(), process.communicate()[0]
    return int(mark.read_text())


def first(mark: Path) -> str:
    return FIRST.format(*[str(mark)] * 3)


@on_cluster
def test_a_campaign_runs_on_the_nodes_that_are_alike(repo: Repo, cluster: list[str]) -> None:
    card = "import json, os; print(json.dumps({'hardware_key': os.environ.get('CARD', 'a card')}))"
    repo.write("describe.py", card)
    repo.write("pytest.ini", CONFIG + "autoresearch_describe = python describe.py\nautoresearch_readable = data\n")
    repo.commit("Described")
    repo.write("data/rows", "untracked")
    repo.plan(0.9, "crash", "do:print(open('data/rows').read()); block(0.8)", KILLS_ITS_WATCHER)
    result = repo.spawn("--max", "4", "--autoresearch-lanes", "auto", "--autoresearch-ray-retries", "1", *cluster)
    result.stdout.fnmatch_lines(
        [
            "  device:   a card",
            "  lanes:    2 on 2 nodes of the Ray cluster, each with GPU=1",
            "  note:     the node *: it differs in hardware (a card, now another), so it is no lane",
        ]
    )
    records = repo.records()
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "crash", 3: "keep", 4: "crash"}
    assert len({run.node for record in records for run in record.runs}) == 2
    assert {run.lane for record in records for run in record.runs} == {0, 1}
    logs = repo.path / "experiments/runs/t"
    assert (logs / "0003/train.log").read_text().startswith("untracked")
    assert "the tensor is sad" in (logs / "0002/train.log").read_text()
    repeated, lost = records[4].runs
    assert repeated.inconclusive
    assert lost.crash is not None
    assert (lost.crash.kind, lost.inconclusive) == (CrashClass.LOST, "")
    repo.check_ledger()


@on_cluster
def test_the_scorer_runs_on_the_node_and_gets_the_losses_of_other_nodes(repo: Repo, cluster: list[str]) -> None:
    scorer = SCORER.replace('".git/told"', f'"{repo.path}/.git/told"')
    scorer += "for name in names:\n    if name.endswith('T_NATS') or name.endswith('E_NATS'):\n"
    scorer += "        print('read', name, open(os.environ[name]).read())\n"
    data = repo.path / ".git" / "validation"
    data.write_text("rows")
    repo.scored_by(scorer, TRAIN, data_files=[str(data)], **DESCRIBED)
    repo.plan("0.9", "0.8")
    repo.spawn("--max", "2", "--autoresearch-lanes", "1", *cluster)
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    kept = {path.stem: path.read_text() for path in (repo.path / ".git/autoresearch/losses/t").glob("*.npy")}
    assert kept == dict(zip([record.commit for record in repo.records()], ["1.0", "0.9", "0.8"], strict=True))
    log = (repo.path / "experiments/runs/t/0002/train.log").read_text()
    assert "read AUTORESEARCH_BASELINE_NATS 1.0" in log
    assert "read AUTORESEARCH_INCUMBENT_NATS 0.9" in log
    assert not any(str(repo.path) in value for one in told(repo) for value in one.values())


@on_cluster
def test_a_run_whose_node_dies_starts_again_on_another(repo: Repo, cluster: list[str], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    repo.plan(first(mark))
    process = repo.start("--max", "1", *cluster)
    training = started(repo, mark, process)
    kill_node(training)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    lost, again = repo.records()[1].runs
    assert lost.node != again.node
    assert lost.inconclusive.startswith(f"the node {lost.node} was lost: ")
    assert (again.metric, repo.statuses()) == (0.9, {0: "keep", 1: "keep"})
    repo.wait_for(lambda: gone(training))


@on_cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_session_that_ends_leaves_nothing_on_the_nodes(
    repo: Repo, cluster: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    mark = tmp_path / "mark"
    repo.plan(first(mark))
    process = repo.start("--max", "1", *cluster)
    training = started(repo, mark, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == (2 if number is signal.SIGINT else -number), output
    repo.wait_for(lambda: gone(training), 60)
    assert repo.statuses() == {0: "keep"}


GIVES_UP = """
import sys, time
from pathlib import Path
from pytest_autoresearch.runners.ray import Cluster

class GivenUp(Exception): ...

mark = Path(sys.argv[2])

def work(post, node):
    mark.write_text("runs")
    try:
        while True:
            time.sleep(0.05)
    finally:
        mark.write_text("ended")

def heard(said):
    print("heard", said)
    if mark.exists():
        raise GivenUp

cluster = Cluster(sys.argv[1])
try:
    cluster.call(work, slot={"GPU": 1}, heard=heard, first="nothing yet")
except GivenUp:
    while mark.read_text() != "ended":
        time.sleep(0.1)
    print("given up")
finally:
    cluster.release()
"""


@on_cluster
def test_a_run_that_is_given_up_ends_on_its_node(cluster: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", GIVES_UP, cluster[-1], str(tmp_path / "mark")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "heard nothing yet\n" in done.stdout
    assert "given up\n" in done.stdout


def test_nobody_answers(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_autoresearch.core.extras.find_spec", lambda name: name)  # asked before ray is imported
    result = repo.run("--max", "1", "--autoresearch-runner", "ray", "--autoresearch-ray-address", "ray://127.0.0.1:9")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        [
            "ERROR: --autoresearch-ray-address ray://127.0.0.1:9: nobody answers there (Connection refused): type "
            "`ray start --head` on the head node, or give the address of a cluster that runs"
        ]
    )
    assert not repo.records()


def test_ray_is_not_installed(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_autoresearch.core.extras.find_spec", lambda name: None)
    result = repo.run("--max", "1", "--autoresearch-runner", "ray")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        [
            "ERROR: --autoresearch-runner ray needs ray, which is not installed: "
            "type `pip install 'pytest-autoresearch[ray]'`"
        ]
    )


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_a_bundle_has_one_commit_and_only_what_changed(tmp_path: Path, form: str) -> None:
    ours, theirs = Git(tmp_path / "ours"), tmp_path / "theirs"
    ours.folder.mkdir()
    ours("init", "--quiet", f"--object-format={form}", ".")
    ours.identify("Ada", "ada@example.org")
    commits = []
    for text in ("large " * 5000, "second"):
        (ours.folder / f"{text[:6]}.txt").write_text("".join(f"{text}{n}\n" for n in range(200)))
        (ours.folder / "train.py").write_text(text[:6])
        ours("add", "-A")
        ours("commit", "--quiet", "-m", text[:6])
        commits.append(ours("rev-parse", "HEAD"))
    start = bundle.pack(ours, commits[0])
    assert start == bundle.pack(ours, commits[0])
    more = bundle.pack(ours, commits[1], start.commit)
    assert len(more.data) < 5000
    bundle.new_checkout(theirs, start)
    there = Git(theirs)
    assert (theirs / "train.py").read_text() == "large "
    bundle.unpack(there, more)
    assert there("rev-parse", f"{more.commit}^{{tree}}") == ours("rev-parse", "HEAD^{tree}")
    assert there("log", "--format=%H", more.commit).split() == [more.commit, start.commit]
    there("fsck", "--strict", "--no-dangling")


def test_the_examples_can_be_read_and_name_options_that_exist() -> None:
    scripts = [(EXAMPLES / "slurm.sbatch").read_text()]
    sky = yaml.safe_load((EXAMPLES / "skypilot.yaml").read_text())
    scripts += [sky["setup"], sky["run"]]
    claim, job = yaml.safe_load_all((EXAMPLES / "kuberay.yaml").read_text())
    assert (claim["kind"], job["kind"]) == ("PersistentVolumeClaim", "RayJob")
    scripts += [job["spec"]["entrypoint"], shlex.split(job["spec"]["entrypoint"])[2]]
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        named = set(re.findall(r"--autoresearch(?:-[a-z]+)*", script))
        assert named <= {"--autoresearch", *(option.flag for option in OPTIONS)}


def test_a_slot_is_what_a_run_takes_of_a_node() -> None:
    (option,) = (option for option in OPTIONS if option.name == "ray-slot")
    slot = dict(option.read("GPU=2, big=0.5"))
    node = Node("a", "1", {"GPU": 8.0, "CPU": 96.0, "big": 1.0})
    assert (slot, node.slots(slot), node.slots({"TPU": 1.0})) == ({"GPU": 2.0, "big": 0.5}, 2, 0)
    for wrong in ("GPU", "GPU=0", "=1", "GPU=none", "GPU=1,"):
        with pytest.raises(argparse.ArgumentTypeError, match="give names and amounts, such as GPU=1"):
            option.read(wrong)


def test_a_race_goes_out_with_its_run() -> None:
    racer = Racer()
    for seed in range(40):
        racer.learn(1, (3.0 + seed / 100,) * len(CHECKPOINTS), 1.0 + seed / 100, won=False)
    spec = RunSpec("abc", 1, 0, Limits(1, 1, 1), race=Race(racer, 1, 0.9, spared=False))
    race = pickle.loads(pickle.dumps(spec)).race
    losses = (9.0, *[None] * (len(CHECKPOINTS) - 1))
    assert race.look(losses) == spec.race.look(losses) != ""
