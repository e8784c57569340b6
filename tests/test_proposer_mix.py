"""A mix of proposers: exact shares, records that name the one that made each, and failures that go back to it."""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import islice
from pathlib import Path

import cmaes  # noqa: F401 - numpy cannot be loaded again by each session in this process
import numpy  # noqa: F401
import optuna  # noqa: F401
import pytest
from places import refusal
from repo import Repo
from test_command_sessions import proposing

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.core.mixture import parts, turns
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.proposers.mix import MixProposer
from pytest_autoresearch.source.editable import Editable


def test_ten_proposals_of_seven_tenths_and_three_tenths_are_seven_and_three() -> None:
    found = list(islice(turns([0.7, 0.3]), 1000))
    assert all(Counter(found[start : start + 10]) == {0: 7, 1: 3} for start in range(0, 1000, 10))
    assert all(abs(found[:count].count(1) - 0.3 * count) < 1 for count in range(1, 1000))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mix:anthropic=0.7,search=0.3", [("anthropic", 0.7), ("search", 0.3)]),
        ("mix:search:cmaes=1,search=1,queue=2", [("search:cmaes", 0.25), ("search", 0.25), ("queue", 0.5)]),
        ("mix:command:claude -p a,b --x=y=0.5,search=.5", [("command:claude -p a,b --x=y", 0.5), ("search", 0.5)]),
        ("search", [("search", 1.0)]),
    ],
)
def test_a_mix_is_read_from_its_text(given: str, expected: list[tuple[str, float]]) -> None:
    assert [(part.proposer, pytest.approx(part.share)) for part in parts(given)] == expected


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("mix:", "write mix:NAME=SHARE"),
        ("mix:search", "write mix:NAME=SHARE"),
        ("mix:search=1", "write mix:NAME=SHARE"),
        ("mix:search=1,anthropic", "write mix:NAME=SHARE"),
        ("mix:search=0.5,search=0.5", "names one proposer twice"),
        ("mix:search=0,queue=1", "more than 0"),
        ("mix:mix:search=0.5,queue=0.5", "a mix cannot contain a mix"),
        ("mix:search=0.5,mix:queue=0.5", "a mix cannot contain a mix"),
    ],
)
def test_a_bad_mix_is_a_sentence(given: str, why: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        parts(given)


class Member:
    def __init__(self, name: str, left: int = 99, listens: bool = False) -> None:
        self.name, self.left, self.listens = name, left, listens
        self.repaired = 0

    def propose(self, context: Context) -> Proposal | None:
        self.left -= 1
        return Proposal("", proposer=self.name) if self.left >= 0 else None

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        self.repaired += 1
        return None


class Agent(Member):
    rehearsed = False

    def rehearse(self, context: Context) -> None:
        self.rehearsed = True


def context(number: int) -> Context:
    here = Path()
    return Context(number, here, Editable(("train.py",)), "", (), (), here, here)


def names(mix: MixProposer, count: int = 10) -> str:
    proposals = [mix.propose(context(number)) for number in range(1, count + 1)]
    return "".join(proposal.proposer for proposal in proposals if proposal)


def test_the_order_depends_on_the_numbers_alone() -> None:
    def made() -> MixProposer:
        return MixProposer([Member("a"), Member("b")], [0.7, 0.3])

    assert names(made()) == "abaaaba" + "aba"
    later = made()
    assert [later.propose(context(number)).proposer for number in (6, 7, 10, 9)] == ["b", "a", "a", "b"]


def test_another_one_steps_in_for_one_that_has_nothing_left() -> None:
    mix = MixProposer([Member("a", left=2), Member("b", left=3)], [0.5, 0.5])
    assert names(mix, 5) == "ababb"
    assert mix.propose(context(6)) is None


class Hindered(Member):
    def propose(self, context: Context) -> Proposal | None:
        raise UserError("search finds no constant to vary")


def test_another_one_steps_in_where_the_program_is_nothing_for_one() -> None:
    assert names(MixProposer([Member("a"), Hindered("b")], [0.5, 0.5]), 4) == "aaaa"
    with pytest.raises(UserError):
        MixProposer([Hindered("a"), Hindered("b")], [0.5, 0.5]).propose(context(1))


def test_a_failure_goes_back_to_the_one_that_made_the_proposal() -> None:
    a, b = Member("a", listens=True), Member("b")
    mix = MixProposer([a, b], [0.5, 0.5])
    names(mix, 2)
    mix.repair(context(2), Proposal(""), refusal("no"))
    assert (a.repaired, b.repaired) == (0, 1)
    assert (mix.listens, mix.maker(1).listens, mix.maker(2).listens) == (True, True, False)


def test_the_one_that_was_tried_before_the_baseline_proposes_first_and_keeps_its_share() -> None:
    agent = Agent("b")
    mix = MixProposer([Member("a"), agent], [0.7, 0.3])
    mix.rehearse(context(1))
    assert agent.rehearsed
    found = names(mix)
    assert found[0] == "b"
    assert Counter(found) == {"a": 7, "b": 3}


AGENT = """
text = open("train.py").read()
open("train.py", "w").write(text.replace("B = 0.0", f"B = {NUMBER}.0"))
describe(description=f"try {NUMBER}", cost_usd=0.5, notes=f"noted {NUMBER}")
"""
TRAIN = "A_RATE = 1.0\nB = 0.0\nprint('step 1 loss: 2.5')\nprint('---')\nprint('val_bpb:', 1.0 + A_RATE)\n"


def prepared(repo: Repo) -> str:
    repo.write("train.py", TRAIN)
    repo.write("conftest.py", "")
    repo.commit("A program")
    return proposing(repo, AGENT)[1]


def test_a_session_with_an_agent_and_a_search(repo: Repo) -> None:
    command = prepared(repo)
    result = repo.run(
        "--max", "4", "--autoresearch-proposer", f"mix:{command}=0.5,search=0.5", "--autoresearch-cost", "10",
        "--autoresearch-confirm", "off", "--autoresearch-ahead", "1", "--autoresearch-sandbox", "off",
    )  # fmt: skip
    records = repo.records()[1:]
    assert [record.proposal.proposer for record in records] == ["command", "search", "command", "search"]
    assert [record.usage.cost_usd or 0.0 for record in records] == [0.5, 0.0, 0.5, 0.0]
    assert "noted 3" in records[2].notes
    assert "50% command" in result.stdout.str()
    repo.check_ledger()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("mix:search=0.5,checkout=0.5",), "checkout works only alone"),
        (("mix:search=0.5,mix:queue=0.5",), "a mix cannot contain a mix"),
        (("mix:search=0.5,serach=0.5",), "serach: choose auto"),
        (("mix:search=0.5,search:cmaes=0.5", "--autoresearch-cost", "1"), "but the proposer is search and search"),
        (("mix:command:true=1,command:false=1", "--autoresearch-cost", "1"), "two of this mix cost money"),
    ],
)
def test_a_mix_that_cannot_work_is_refused_before_anything_is_touched(
    repo: Repo, given: tuple[str, ...], why: str
) -> None:
    result = repo.run("--max", "1", "--autoresearch-proposer", *given)
    assert result.ret == 4
    assert why in result.stderr.str() + result.stdout.str()
