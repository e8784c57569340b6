"""The keep rule in whole sessions: a noisy trainer, and as many runs as the evidence asks for."""

from __future__ import annotations

import pytest
from repo import CONFIG, Repo

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.run import Role

# The metric is ACTION's mean and a deviation that only the seed and the program decide, within one hundredth.
NOISY = """
import os, random

ACTION = "1.0"
seed = int(os.environ["AUTORESEARCH_SEED"])
mean, _, spread = ACTION.partition(":")
noise = random.Random(f"{seed} {ACTION}").uniform(-1, 1) * float(spread or 0.01)
print("val_bpb:", f"{float(mean) + noise:.6f}")
"""
EXACT = NOISY.replace("0.01", "0.0")


@pytest.fixture
def noisy(repo: Repo) -> Repo:
    repo.write("train.py", NOISY)
    repo.commit("Noise")
    return repo


def session(repo: Repo, *arguments: str) -> str:
    result = repo.run("--autoresearch-confirm", "standard", *arguments)
    assert result.ret == 0, result.stdout.str()
    return result.stdout.str()


def roles(record: Experiment) -> list[str]:
    return [run.role for run in record.runs]


def test_the_baseline_is_run_until_the_noise_is_known(noisy: Repo) -> None:
    noisy.plan(1.5)
    session(noisy, "--max", "1")
    first = noisy.records()[0]
    assert roles(first) == ["baseline"] * 5
    assert [run.seed for run in first.runs] == [42, 43, 44, 45, 46]
    assert len({run.metric for run in first.runs}) == 5
    assert first.metric == pytest.approx(sum(run.metric or 0 for run in first.runs) / 5)


def test_a_candidate_that_is_no_better_costs_one_run(noisy: Repo) -> None:
    noisy.plan(1.05)
    session(noisy, "--max", "1")
    record = noisy.records()[1]
    assert (roles(record), noisy.reasons()[1]) == (["screen"], "regression")
    first = noisy.records()[0]
    assert record.runs[0].seed == first.runs[1].seed  # experiment 1 is screened on the second seed
    assert record.best == pytest.approx(first.metric)  # how much of the noise is the seed's is not known yet


def test_a_clear_gain_is_kept_after_a_confirmation_and_run_once_more_by_its_successor(noisy: Repo) -> None:
    noisy.plan(0.9, 0.95)
    output = session(noisy, "--max", "2")
    kept, next_one = noisy.records()[1:]
    assert (roles(kept), noisy.reasons()[1]) == (["screen", "confirm"], "improved")
    assert [run.seed for run in kept.runs] == [43, 44]
    screen, confirmation = (run.metric or 0 for run in kept.runs)
    assert kept.metric == pytest.approx((screen / 2 + confirmation) / 1.5)
    assert 0 < kept.margin < 0.02
    # The new incumbent runs on another seed of the baseline; its successor on that one, never on that of the screen.
    assert roles(next_one) == ["incumbent", "screen"]
    again, candidate = next_one.runs
    assert again.commit == kept.commit
    assert again.seed in (42, 45, 46)
    assert candidate.seed in (44, again.seed)
    assert next_one.best - next_one.metric < 0
    assert "on the same seed" in next_one.decision.evidence
    assert noisy.reasons()[2] == "regression"
    assert "better after 1 confirmation (P = " in noisy.case(1).findtext(".", "") + output + kept.decision.evidence


def test_luck_is_dropped_within_noise_and_the_failure_says_by_which_evidence(noisy: Repo) -> None:
    noisy.plan(*(f"1.0:0.0{number}" for number in range(11, 31)))
    session(noisy, "--max", "20")
    reasons = list(noisy.reasons().values())
    assert "within-noise" in reasons
    dropped = next(record for record in noisy.records() if record.verdict and record.verdict.reason == "within-noise")
    assert "confirm" in roles(dropped)
    failure = noisy.case(dropped.number).find("failure")
    assert failure is not None
    assert "within noise after" in str(failure.get("message"))
    assert dropped.metric >= dropped.best - dropped.margin
    noisy.check_ledger()


def test_a_deterministic_metric_needs_no_confirmation(repo: Repo) -> None:
    repo.write("train.py", EXACT)
    repo.commit("No noise")
    repo.plan(0.9, 0.95, 0.8)
    session(repo, "--max", "3")
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard", 3: "keep"}
    assert [len(record.runs) for record in repo.records()] == [5, 1, 1, 1]
    assert all(record.margin == 0 for record in repo.records())


def test_a_confirmation_that_crashes_is_the_candidates_crash(noisy: Repo) -> None:
    noisy.write("train.py", NOISY + "assert not (mean == '0.8' and seed == 44), 'only on this seed'\n")
    noisy.commit("A trap")
    noisy.plan(0.8)
    session(noisy, "--max", "1")
    record = noisy.records()[1]
    assert (roles(record), noisy.reasons()[1]) == (["screen", "confirm"], "exit 1")


def test_the_incumbent_may_crash_and_the_campaign_goes_on(noisy: Repo) -> None:
    noisy.write("train.py", NOISY + "assert not (mean == '0.8' and seed not in (43, 44)), 'now and then'\n")
    noisy.commit("A trap")
    noisy.plan(0.8, 0.9)
    session(noisy, "--max", "2")
    assert noisy.statuses() == {0: "keep", 1: "keep", 2: "discard"}
    assert roles(noisy.records()[2])[0] == "incumbent"
    assert noisy.records()[2].runs[0].crash is not None


def test_the_assertion_and_the_rule_never_disagree_in_either_direction(repo: Repo) -> None:
    repo.write("train.py", NOISY.replace('"val_bpb:", f"{', 'f"METRIC score={10 - '))
    repo.write("pytest.ini", CONFIG + "autoresearch_metric = score\nautoresearch_direction = maximize\n")
    repo.rule("""
        def test_score_improves(experiment):
            assert experiment.score > experiment.best + experiment.margin
    """)
    repo.plan(*(f"{1 - number / 1000:.3f}" for number in range(12)))
    session(repo, "--max", "12")
    for record in repo.records()[1:]:
        assert record.verdict is not None
        kept = record.metric > record.best + record.margin
        assert (record.verdict.status == "keep") == kept == (record.decision.decided == "improved")


def test_upstreams_rule_is_one_run_each(noisy: Repo) -> None:
    noisy.plan(0.9, 0.95)
    noisy.run("--max", "2")  # the helper's own default is off
    assert [len(record.runs) for record in noisy.records()] == [1, 1, 1]
    assert all(record.decision.decided is None and not record.decision.evidence for record in noisy.records())


def test_the_log_says_which_run_it_is(noisy: Repo) -> None:
    noisy.plan(0.9, 0.95)
    session(noisy, "--max", "2")
    names: dict[str, set[str]] = {}
    for path in (noisy.path / "experiments" / "runs" / "t").rglob("*.log"):
        names.setdefault(path.parent.name, set()).add(path.name)
    assert names == {
        "0000": {"train.log", "baseline-2.log", "baseline-3.log", "baseline-4.log", "baseline-5.log"},
        "0001": {"train.log", "confirm-1.log"},
        "0002": {"train.log", "incumbent-1.log"},
    }


SHORTER = """
from pytest_autoresearch.core.experiment import Proposal

def pytest_autoresearch_propose(context, failure):
    train = context.folder / "train.py"
    lines = [line for line in train.read_text().splitlines(True) if f"part_{context.number} " not in line]
    train.write_text("".join(lines))
    return Proposal(f"without part {context.number}")
"""


@pytest.mark.parametrize("simplify", [True, False])
def test_a_simpler_program_that_is_no_worse_is_kept_where_that_is_wanted(noisy: Repo, simplify: bool) -> None:
    parts = "".join(f"part_{number} = [{number}, {number}, {number}, {number}, {number}]\n" for number in range(1, 6))
    # The same seed gives every program another number, and none is better in truth.
    program = NOISY.replace("{seed} {ACTION}", "{seed} {open(__file__).read()}")
    noisy.write("train.py", program + parts)
    noisy.write("conftest.py", SHORTER)
    noisy.commit("Parts that do nothing")
    session(noisy, "--max", "5", *(["--autoresearch-simplify"] if simplify else []))
    records = noisy.records()[1:]
    assert all(record.simpler for record in records)
    kept = [record for record in records if record.verdict and record.verdict.reason == "simpler"]
    assert bool(kept) == simplify
    for record in kept:
        assert record.metric < record.best - record.margin
        assert len([run for run in record.runs if run.role is Role.CONFIRM]) <= 6
    noisy.check_ledger()


def test_the_seeds_of_two_campaigns_are_not_the_same(noisy: Repo) -> None:
    """In processes of their own, where seeds are random."""
    noisy.plan()
    for tag in ("t", "u"):
        noisy.spawn("--max", "0", "--autoresearch-confirm", "standard", "--autoresearch-tag", tag)
    seeds = [run.seed for tag in ("t", "u") for record in noisy.records(tag) for run in record.runs]
    assert len(set(seeds)) == len(seeds) == 10
    assert all(0 <= seed < 2**31 for seed in seeds)


# The seed's part is large and the same for every program; the program's own noise is small.
SEEDED = """
import os, random

ACTION = "1.0"
seed = int(os.environ["AUTORESEARCH_SEED"])
shared, own = random.Random(seed).gauss(0, 0.05), random.Random(f"{seed} {ACTION}").gauss(0, 0.001)
print("val_bpb:", f"{float(ACTION) + shared + own:.6f}")
"""


def test_what_a_seed_does_to_all_programs_is_no_part_of_a_comparison(repo: Repo) -> None:
    repo.write("train.py", SEEDED)
    repo.commit("Seeds matter")
    gains = [1.0 - 0.02 * number for number in range(1, 6)]
    losses = [gains[-1] + 0.005 + number / 1e5 for number in range(10)]
    repo.plan(*(f"{mean:.5f}" for mean in (*gains, *losses)))
    session(repo, "--max", "15")
    records = repo.records()
    later = [record for record in records[6:] if record.verdict is not None]
    assert {record.verdict.status for record in later if record.verdict} == {"discard"}
    # The gains that are judged by pairs are right to a tenth of the seeds' standard deviation.
    assert all(record.gain == pytest.approx(-0.005, abs=0.005) for record in later[-6:] if record.number > 10)
    assert len({record.runs[-1].seed for record in later}) > 1  # no single seed decides


def test_a_session_that_begins_after_a_pause_measures_the_incumbent_again(
    noisy: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy.plan(1.5, 1.6, 1.7, 1.8)
    session(noisy, "--max", "1")
    session(noisy, "--max", "1")  # at once: the same time
    monkeypatch.setattr("pytest_autoresearch.keeprule.replicates.PAUSE_SECONDS", 0)
    session(noisy, "--max", "2")
    records = noisy.records()
    assert [roles(record) for record in records[1:]] == [
        ["screen"],
        ["screen"],
        ["incumbent", "screen"],
        ["incumbent", "screen"],
    ]
    assert len({run.block for record in records[:3] for run in record.runs}) == 1
    assert records[3].runs[0].block == records[4].runs[0].block != records[0].runs[0].block
    assert records[3].runs[0].seed == records[3].runs[1].seed != records[4].runs[0].seed
    assert records[3].runs[0].seed in {run.seed for run in records[0].runs}
