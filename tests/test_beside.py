"""Runs of one experiment side by side: which ones, on which lanes, and that no decision depends on it."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nights import document, said
from repo import Repo
from test_command_sessions import proposing

from pytest_autoresearch.campaign.free_lanes import FreeLanes
from pytest_autoresearch.core.experiment import Direction, Experiment, Proposal
from pytest_autoresearch.core.run import Crash, CrashClass, Progress, Role, Run
from pytest_autoresearch.keeprule import verdict
from pytest_autoresearch.keeprule.blocks import Block, Observation
from pytest_autoresearch.keeprule.decision import Step, following, next_action
from pytest_autoresearch.keeprule.evidence import Evidence
from pytest_autoresearch.keeprule.noise import NO_PRIOR
from pytest_autoresearch.keeprule.rule import LEAN, OFF, STANDARD, STRICT, Rule, rule_of
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure import lanes as measure_lanes
from pytest_autoresearch.measure import runs as measure_runs
from pytest_autoresearch.measure.beside import Beside, Borrowed
from pytest_autoresearch.measure.place import RunSpec
from pytest_autoresearch.measure.runs import RunMaker

RULES = (OFF, LEAN, STANDARD, STRICT, rule_of("5"))
TREE = cast(Worktree, None)


# ------------------------------------------------------------------------------------------------------ which runs


@given(
    st.sampled_from(RULES), st.integers(0, 2**32), st.integers(2, 6), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
def test_the_rule_asks_next_for_the_run_that_was_foreseen_or_for_none(
    rule: Rule, world: int, seeds: int, due: bool, paused: bool, simpler: bool
) -> None:
    draw = random.Random(world)
    known = [Observation("a", Block(seed, "then"), draw.gauss(1.0, 0.01)) for seed in range(seeds)]
    known += [Observation("head", Block(seed, "then"), draw.gauss(1.0, 0.01)) for seed in range(seeds - 1)]
    evidence = Evidence(
        rule, Direction.MINIMIZE, tuple(known), "head", "new", time="now" if paused else "then",
        number=draw.randrange(9), line=("a", "head"), due=due and rule.renew, simpler=simpler,
    )  # fmt: skip
    fresh = itertools.count(100)
    foreseen: list[tuple[Step, int | None]] = []
    while (action := next_action(evidence)).step in (Step.RUN_CANDIDATE, Step.RUN_INCUMBENT):
        seed = action.seed if action.seed is not None else next(fresh)
        if foreseen:
            assert (action.step, seed) == foreseen[0]
        fresh, later = itertools.tee(fresh)  # type: ignore[assignment]
        foreseen = [(one.step, one.seed) for one in following(replace(action, seed=seed), later)]
        assert len(foreseen) <= 3
        assert foreseen or action.step is Step.RUN_CANDIDATE
        if action.step is Step.RUN_INCUMBENT:
            evidence = evidence.plus_incumbent(seed, draw.gauss(1.0, 0.01))
        else:
            assert evidence.runs or not foreseen  # nothing is begun beside a first run
            evidence = evidence.plus(seed, draw.gauss(0.99, 0.01))


# --------------------------------------------------------------------------------------------------- the decisions


class Lanes:
    """Lanes of which some are free, by chance. See `FreePlaces`."""

    def __init__(self, chance: random.Random, share: float) -> None:
        self._chance, self._share = chance, share
        self._lock = threading.Lock()
        self.out: set[int] = set()
        self.borrowed = 0

    def borrow(self) -> tuple[Worktree, int] | None:
        with self._lock:
            if self._chance.random() >= self._share:
                return None
            self.borrowed += 1
            self.out.add(self.borrowed)
            return TREE, self.borrowed

    def is_wanted(self, lane: int) -> bool:
        with self._lock:
            return self._chance.random() < 0.1

    def give(self, lane: int) -> None:
        with self._lock:
            self.out.remove(lane)


class World:
    """A campaign of simulated runs: a metric depends on the commit and the seed alone. See `measure.place.Place`."""

    def __init__(self, world: int, rule: Rule, direction: Direction) -> None:
        self.draw = random.Random(world)
        self.world, self.rule, self.direction = world, rule, direction
        self.sign = 1 if direction is Direction.MINIMIZE else -1
        self.truth: dict[str, float] = {"c0": 1.0}
        self.records: list[Experiment] = []

    def run(
        self, spec: RunSpec, tree: Worktree, log: Path, note: Callable[[Progress], None], say: Callable[[str], None]
    ) -> Run:
        for step in range(3):
            note(Progress("training", step))
        draw = random.Random(f"{self.world} {spec.commit} {spec.seed}")
        seed = random.Random(f"{self.world} {spec.seed}").gauss(0, 0.02)
        metric = 1.0 + self.sign * (self.truth[spec.commit] - 1.0 + seed + draw.gauss(0, 0.01))
        fate = draw.random()
        if spec.commit != "c0" and fate < 0.03:
            kind = CrashClass.REJECTED if fate < 0.005 else CrashClass.NAN
            return Run(spec.seed, None, crash=Crash(kind, "by chance"), lane=spec.lane)
        return Run(spec.seed, metric, lane=spec.lane)

    def close(self) -> None: ...

    def night(self, patch: pytest.MonkeyPatch, length: int) -> list[Experiment]:
        """A campaign with one run after the other."""
        for number in range(length):
            if (head := self.head()) is not None:
                self.truth[f"c{number}"] = self.truth[head.commit] + self.draw.choice((-0.03, -0.01, 0, 0, 0.01, 0.03))
            self.records.append(self.judged(self.measured(patch, number, None)))
        return self.records

    def head(self) -> Experiment | None:
        return next((one for one in reversed(self.records) if one.verdict and one.verdict.status == "keep"), None)

    def measured(self, patch: pytest.MonkeyPatch, number: int, lanes: Lanes | None) -> Experiment:
        """The experiment after the records."""
        head, fresh = self.head(), random.Random(f"{self.world} {number} fresh")
        base = head.commit if head else f"c{number}"
        like = Experiment(number, "t", f"c{number}", base, "", Proposal(""), direction=self.direction)
        patch.setattr(measure_runs, "new_seed", lambda: fresh.randrange(2**31))
        ledger = SimpleNamespace(
            records=self.records, baseline=next(iter(self.records), None), incumbent=head, kept_at=lambda commit: head
        )
        settings = SimpleNamespace(
            rule=self.rule, metric="val_bpb", racing="off", simplify=False, inconclusive=0, ray_retries=0,
            campaign_artifacts=lambda tag: SimpleNamespace(make_experiment=lambda n: None, log=lambda n, name: Path()),
        )  # fmt: skip
        harness = SimpleNamespace(prior=lambda metric: NO_PRIOR, retry_out_of_memory={})
        files = SimpleNamespace(input=lambda *given: SimpleNamespace(variables={}, reads={}, writes={}))
        watcher = SimpleNamespace(
            note=lambda *said: None, note_beside=lambda *said: None, say=lambda *said: None, end=lambda *said: None
        )
        maker = RunMaker(*cast(Any, (settings, SimpleNamespace(tag="t"), harness, ledger, self, files, watcher)))
        maker._time = "now"
        return maker.measure(like, TREE, 0, lanes)

    def judged(self, made: Experiment) -> Experiment:
        if made.crash is not None:
            return made.judged(verdict.crashed(made.crash), 1.0)
        if made.refutes:
            return made.judged(verdict.refuting(made), 1.0)
        kept = made.number == 0 or made.gain > made.margin
        return made.judged(verdict.kept(made) if kept else verdict.discarded(made, ""), 1.0)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_with_free_lanes_every_decision_is_that_of_one_run_after_the_other(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    borrowed = extra = 0
    for number in range(25):
        world = World(number, rule, (Direction.MINIMIZE, Direction.MAXIMIZE)[number % 2])
        records = world.night(monkeypatch, 12)
        for alone in records:
            world.records = records[: alone.number]
            lanes = Lanes(random.Random(number), (0.4, 1.0)[number // 2 % 2])
            beside = world.measured(monkeypatch, alone.number, lanes)
            assert lanes.out == set()
            borrowed += lanes.borrowed
            extra += sum(run.role is Role.EXTRA for run in beside.runs)
            if rejected(beside) and not rejected(alone):
                continue  # what was found out beside the others is not kept
            assert beside.decision == alone.decision
            assert (beside.metric, beside.crash) == (pytest.approx(alone.metric, nan_ok=True), alone.crash)
            assert told(beside.runs[: len(alone.runs)]) == told(alone.runs)
            assert {run.role for run in beside.runs[len(alone.runs) :]} <= {Role.EXTRA, Role.INCUMBENT}
    assert (borrowed > 50) == bool(rule.looks)
    assert extra or rule.looks < 2


def told(runs: Iterable[Run]) -> list[tuple[object, ...]]:
    return [(run.commit, run.seed, run.role, run.metric, run.crash) for run in runs]


def rejected(experiment: Experiment) -> bool:
    return any(run.crash is not None and run.crash.kind is CrashClass.REJECTED for run in experiment.runs)


# --------------------------------------------------------------------------------------------------------- the lanes


def test_only_a_lane_that_nobody_waits_for_is_borrowed_and_it_goes_back_when_an_experiment_wants_it() -> None:
    free = FreeLanes(3, lambda: "")
    assert free.take(1) == 0
    assert [free.borrow(), free.borrow(), free.borrow()] == [2, 1, None]
    assert not free.is_wanted(1)
    waiting = [threading.Thread(target=free.take, args=(number,)) for number in (2, 3)]
    waiting[0].start()
    wait_until(lambda: free.is_wanted(1))
    assert not free.is_wanted(2)  # one waits, so one goes back: the last that was borrowed
    waiting[1].start()
    wait_until(lambda: free.is_wanted(2))
    free.give(0)  # the experiment that waits longest has it
    wait_until(lambda: not free.is_wanted(2))
    assert free.is_wanted(1)
    assert free.borrow() is None
    free.give(1)
    for thread in waiting:
        thread.join()
    assert free.borrowed == (2,)
    free.give(2)
    assert free.borrow() == 2


def test_a_run_that_is_given_up_or_not_needed_leaves_nothing_and_frees_its_lane() -> None:
    lanes = Lanes(random.Random(0), 1.0)
    going = threading.Event()

    def make(order: str, tree: Worktree, lane: int, borrowed: Borrowed) -> tuple[Run, ...]:
        if order == "done":
            return (Run(1, 1.0),)
        going.set()
        while True:
            borrowed.check()

    with Beside[str](lanes, make) as beside:
        assert beside.begin("wanted by another", lambda: "endless")
        assert beside.result("wanted by another") == ()
        assert not beside.has("wanted by another")
        assert beside.begin("done", lambda: "done")
        wait_until(lambda: lanes.out == set())
        lanes.is_wanted = lambda lane: False  # type: ignore[method-assign]
        assert beside.begin("not needed", lambda: "endless")
        assert beside.has("not needed")
        assert beside.result("never begun") == ()
    assert beside.left == (Run(1, 1.0),)
    assert lanes.out == set()


def wait_until(what: Callable[[], bool]) -> None:
    over = threading.Event()
    while not what():
        over.wait(0.01)


# ------------------------------------------------------------------------------------------------------ in a session

# By these numbers, the rule asks for two confirmations if the first gains 0.002, and for one if it gains 0.03. Each of
# them goes on until the other one runs, too; then the second one does `second`.
TOGETHER = """
import os, time

ACTION = "1.0"
seed = os.environ["AUTORESEARCH_SEED"]
known = {{"42": 1.00, "43": 1.01, "44": 0.99, "45": 1.02, "46": 0.98}}
gains = {{"43": 0.02, "44": {first}, "45": 0.03}} if ACTION != "1.0" else {{}}
open(os.path.join({folder!r}, ACTION + "-" + seed), "w").close()
others = {{"44": "45", "45": "44"}}
while gains and seed in others and not os.path.exists(os.path.join({folder!r}, ACTION + "-" + others[seed])):
    time.sleep(0.02)
if gains and seed == "45":
    {second}
print("val_bpb:", known[seed] - gains.get(seed, 0))
"""


@pytest.fixture
def four_lanes(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Callable[[float, str], list[str]]:
    """Makes the program above, and gives the options of a session with four lanes."""
    monkeypatch.setattr(measure_lanes, "usable_cores", lambda: (0,) * 4)
    folder = repo.path / ".git" / "began"
    folder.mkdir()

    def made(first: float, second: str) -> list[str]:
        repo.write("train.py", TOGETHER.format(folder=str(folder), first=first, second=second))
        repo.commit("Noise")
        repo.plan(0.9)
        return ["--autoresearch-confirm", "standard", "--autoresearch-lanes", "4", "--max", "1"]

    return made


def test_a_run_that_the_verdict_does_not_need_is_ended_with_it(
    repo: Repo, four_lanes: Callable[[float, str], list[str]]
) -> None:
    repo.run(*four_lanes(0.03, "time.sleep(1000)"))
    kept = repo.records()[1]
    assert [(run.role, run.seed) for run in kept.runs] == [("screen", 43), ("confirm", 44)]
    assert (repo.path / ".git" / "began" / "0.9-45").exists()
    assert (repo.statuses(), repo.training()) == ({0: "keep", 1: "keep"}, [])
    repo.check_ledger()


def test_confirmations_run_side_by_side_on_free_lanes(
    repo: Repo, four_lanes: Callable[[float, str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    output = repo.run(*four_lanes(0.002, "pass")).stdout.str()
    baseline, kept = repo.records()
    assert len({run.lane for run in baseline.runs}) == 4
    assert [(run.role, run.seed) for run in kept.runs] == [("screen", 43), ("confirm", 44), ("confirm", 45)], output
    screen, first, second = kept.runs
    assert (screen.lane, first.lane) == (0, 0)
    assert second.lane != 0
    assert (second.began_at or 0) < (first.began_at or 0) + first.total_seconds
    assert "better after 2 confirmations (P = 0.87)" in kept.decision.evidence
    assert repo.statuses() == {0: "keep", 1: "keep"}
    repo.check_ledger()
    shown = said(capsys, "show", "1").partition("\nruns\n")[2].splitlines()
    assert [line.split()[1:4] for line in shown[1:4]] == [
        ["screen", "0", "43"], ["confirm", "0", "44"], ["confirm", str(second.lane), "45"]
    ]  # fmt: skip
    rows = document(capsys, "results", "--format", "json")
    assert [row["lanes"] for row in rows] == ["0, 1, 2, 3", f"0, {second.lane}"]
    assert f" 0, {second.lane} " in said(capsys, "results")
    properties = {node.get("name"): node.get("value") for node in repo.case(1).iter("property")}
    assert properties["lane"] == str(second.lane)


# Confirmations of the first change go on until the second change trains: one on the experiment's own lane, one beside.
# The second change is proposed when both run, and is in no hurry.
WANTED = """
import os, random, time

A = 0.0



B = 0.0
number = 0
seed = os.environ["AUTORESEARCH_SEED"]
log = open({log!r}, "a")
print(f"trains {{A}} {{B}}", file=log, flush=True)
while A and not B and open({log!r}).read().count("trains 0.1 0.0") > 1 and "trains 0.0 0.1" not in open({log!r}).read():
    time.sleep(0.02)
print(f"ends {{A}} {{B}}", file=log, flush=True)
print("val_bpb:", 1.0 - A - B + random.Random(f"{{seed}} {{A}} {{B}}").uniform(-0.01, 0.01))
"""
PROPOSER = """
while NUMBER == 2 and open({log!r}).read().count("trains 0.1 0.0") < 3:
    time.sleep(0.02)
text = open("train.py").read()
open("train.py", "w").write(text.replace(*{{1: ("A = 0.0", "A = 0.1"), 2: ("B = 0.0", "B = 0.1")}}[NUMBER]))
describe(description=f"try {{NUMBER}}")
"""


@pytest.mark.timeout(300)
def test_an_experiment_that_waits_for_a_lane_gets_the_borrowed_one(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_lanes, "usable_cores", lambda: (0,) * 2)
    log = repo.path / ".git" / "when"
    log.touch()
    repo.write("train.py", WANTED.format(log=str(log)))
    repo.write("conftest.py", "")
    repo.commit("Two constants")
    options = [*proposing(repo, PROPOSER.format(log=str(log))), "--autoresearch-confirm", "standard"]
    repo.run(*options, "--autoresearch-lanes", "2", "--autoresearch-ahead", "0", "--max", "2")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
    first, second = repo.records()[1:]
    assert [run.role for run in first.runs] == ["screen", "confirm"]  # what was given up has left no run
    said = log.read_text().splitlines()
    assert said.count("trains 0.1 0.0") - said.count("ends 0.1 0.0") == 1
    assert second.runs[0].lane != first.runs[0].lane
    assert second.base == first.commit
    repo.check_ledger()
