"""CMA-ES over all constants: it improves a program, goes on from the records, and learns where programs crash."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from test_proposer_search import TRAIN, Campaign, bowl, judged, values_of

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Direction, Proposal
from pytest_autoresearch.proposers.cmaes_search import CmaesProposer
from pytest_autoresearch.proposers.evolution import Crashes
from pytest_autoresearch.proposers.search import SearchProposer
from pytest_autoresearch.source.axes import axis
from pytest_autoresearch.source.constants import Value
from pytest_autoresearch.source.ranges import candidates
from pytest_autoresearch.source.stated_ranges import parse

NUMBERS = values_of(TRAIN).keys() - {"TIED", "SEED"}


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_coordinate_and_its_value_are_the_same_point(name: str) -> None:
    start = values_of(TRAIN)[name]
    line = axis(name, start, None)
    assert line is not None
    assert line.value(0.0) == start
    for value in candidates(name, start):
        again = line.value(line.coordinate(value))
        assert type(again) is type(value)
        assert again == pytest.approx(value, rel=0.01)
    assert -1.3 < line.coordinate(candidates(name, start)[0]) <= -0.5
    assert 0.5 <= line.coordinate(candidates(name, start)[-1]) < 1.3


@pytest.mark.parametrize(
    ("stated", "start", "low", "high"),
    [
        ("1e-4..1e-1 log", 0.01, 1e-4, 1e-1),
        ("0.5..2", 1.0, 0.5, 2.0),
        ("4..12", 8, 4, 12),
        ("32, 64, 128", 64, 32, 128),
    ],
)
def test_a_stated_range_is_never_left(stated: str, start: Value, low: float, high: float) -> None:
    line = axis("X", start, parse(stated))
    assert line is not None
    values = [line.value(coordinate / 10) for coordinate in range(-100, 101)]
    assert (min(values), max(values)) == (low, high)
    assert all(type(value) is type(start) for value in values)


def test_switches_texts_and_what_is_off_have_no_axis() -> None:
    assert axis("TIED", True, None) is None
    assert axis("ACT", "relu", parse("relu, gelu")) is None
    assert axis("LR", 0.1, parse("off")) is None
    assert axis("SEED", 42, None) is None


def test_a_proposal_changes_all_numbers_and_nothing_else(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, bowl(3))
    proposal = CmaesProposer(0).propose(campaign.context())
    assert proposal is not None
    after = values_of(campaign.edited)
    assert dict(proposal.parameters) == after
    assert (after["TIED"], after["SEED"]) == (True, 42)
    changed = {name for name, value in values_of(TRAIN).items() if after[name] != value}
    assert len(changed) >= 7
    assert proposal.proposer == "search:cmaes"
    assert "over 10 numbers, generation 1" in proposal.hypothesis


def test_a_new_session_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, bowl(1))
    campaign.run(SearchProposer(7), 10)
    old = CmaesProposer(7)
    for _ in range(4):
        campaign.run(old, 9)
        new = CmaesProposer(7)
        assert new.propose(campaign.context()) == old.propose(campaign.context())
        old = new  # what was proposed and not judged is forgotten with the old session
    assert len(campaign.sources) == 47


def test_a_night_improves_the_program(tmp_path: Path) -> None:
    # The statistic: the share of the first loss that is left after 60 experiments, averaged over 4 losses.
    shares = []
    for seed in range(4):
        campaign = Campaign(tmp_path, bowl(seed))
        first = campaign.best
        campaign.run(CmaesProposer(seed), 60)
        shares.append(campaign.best / first)
    assert statistics.mean(shares) < 0.7


def test_maximising_the_opposite_makes_the_same_proposals(tmp_path: Path) -> None:
    score = bowl(2)
    down = Campaign(tmp_path, score)
    up = Campaign(tmp_path, lambda values: -score(values), direction=Direction.MAXIMIZE)
    for campaign in (down, up):
        campaign.run(CmaesProposer(3), 25)
    assert [record.proposal for record in up.records] == [record.proposal for record in down.records]


def test_where_programs_crash_is_learned_and_avoided(tmp_path: Path) -> None:
    def limited(values: Mapping[str, Value]) -> float:
        return math.nan if values["MATRIX_LR"] > 0.042 else bowl(4)(values)

    crashes = []
    for seed in range(3):
        campaign = Campaign(tmp_path, limited)
        campaign.run(CmaesProposer(seed), 60)
        crashed = [record.crash is not None for record in campaign.records]
        crashes.append((sum(crashed[:15]), sum(crashed[-15:])))
    assert sum(last for _, last in crashes) < sum(first for first, _ in crashes) / 2


def test_a_point_beside_crashes_is_expected_to_crash() -> None:
    points = [(x / 10, y / 10) for x in range(-10, 11, 4) for y in range(-10, 11, 4)]
    crashes = Crashes(points, [x > 0.3 for x, _ in points])
    assert crashes.risk(numpy.array([0.9, 0.0])) > 0.8
    assert crashes.risk(numpy.array([-0.9, 0.0])) < 0.1
    assert Crashes(points, [False] * len(points)).risk(numpy.array([0.9, 0.0])) == 0.0


def test_it_begins_at_the_best_program_with_narrow_steps_where_a_change_did_harm(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, lambda values: 0.0, "A_RATE = 1.0\nB_RATE = 1.0\nC_RATE = 1.0\n")
    for number, (name, worse) in enumerate([("A_RATE", 4.0), ("B_RATE", 0.01), ("C_RATE", 0.2)], 1):
        proposal = Proposal("", "", "search", f'{{"{name}": 1.0}}', {"A_RATE": 1.0, "B_RATE": 1.0, "C_RATE": 1.0})
        proposal = replace(proposal, parameters={**proposal.parameters, name: 1.4})
        campaign.records.append(judged(number, proposal, 1.0 + worse, best=1.0))
    drawn = [CmaesProposer(seed).propose(campaign.context()).parameters for seed in range(60)]
    spread = {name: statistics.stdev(math.log2(one[name]) for one in drawn) for name in ("A_RATE", "B_RATE", "C_RATE")}
    assert spread["A_RATE"] < 0.6 * spread["C_RATE"] < spread["B_RATE"]


def test_a_program_without_numbers_is_told_to_use_the_other_search(tmp_path: Path) -> None:
    context = Campaign(tmp_path, lambda values: 0.0, "TIED = True\n").context()
    with pytest.raises(UserError, match="type --autoresearch-proposer search, which also"):
        CmaesProposer(0).propose(context)


def test_what_another_proposer_kept_moves_the_search(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, bowl(5))
    proposer = CmaesProposer(0)
    campaign.run(proposer, 3)
    for _ in range(12):
        campaign.run(SearchProposer(0), 1)
    seen = proposer.propose(campaign.context())
    assert seen is not None
    assert [one.counts for one in proposer._points].count(True) == 3 + sum(
        record.verdict.status == "keep" for record in campaign.records[3:]
    )
