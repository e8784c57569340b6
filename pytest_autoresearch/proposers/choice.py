"""Chooses the session's proposer by name, and finds mistakes in its settings before anything is changed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pytest_autoresearch.core.agent_job import AgentJob, Finished
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.extras import need
from pytest_autoresearch.core.mixture import parts
from pytest_autoresearch.proposers.base import Context, Proposer
from pytest_autoresearch.proposers.checkout import CheckoutProposer, Edit
from pytest_autoresearch.proposers.commits import CommitsProposer, resolve
from pytest_autoresearch.proposers.mix import MixProposer
from pytest_autoresearch.proposers.queue import QueueProposer
from pytest_autoresearch.proposers.queue import check as check_queue
from pytest_autoresearch.proposers.search_files import no_number, nothing
from pytest_autoresearch.settings import Settings
from pytest_autoresearch.source import space
from pytest_autoresearch.source.guard import MOST_BYTES

_SEARCH_SEED = 42
_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
_OTHERWISE = ", or choose another --autoresearch-proposer"
_SHORT_SECONDS = 120.0  # of training: up to this, the five-minute prompt cache lasts until the next proposal


class Agents(Protocol):
    """Runs agents."""

    @property
    def confined(self) -> bool: ...

    def run(self, job: AgentJob) -> Finished: ...


class Clock(Protocol):
    """The end of the session; `check` and `wait` raise Stopped or Spent once it has come."""

    def left(self) -> float: ...

    def check(self) -> None: ...

    def wait(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Facts known only once the session has begun.

    Attributes:
        agents: Runs agents.
        clock: The end of the session.
        budget_seconds: Training seconds of one run.
    """

    agents: Agents
    clock: Clock
    budget_seconds: float


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen proposer, not yet created.

    Attributes:
        said: Its description in the session's header.
        make: Creates it and imports what only it needs.
    """

    said: str
    make: Callable[[Surroundings], Proposer]


def choose(
    settings: Settings,
    asks_hook: bool,
    read_checkout: Callable[[], Edit | None],
    head: Callable[[], Mapping[str, bytes]],
) -> Choice:
    """The proposer named in the settings.

    Args:
        settings: The user's.
        asks_hook: Whether a hook of the user proposes first; a search may then have no constants to vary.
        read_checkout: Reads the uncommitted edit of the user's checkout.
        head: Reads the editable files of the commit that the first proposal starts from.

    Raises:
        UserError: The proposer cannot work here; says what to type.
    """
    mixed = [(replace(settings, proposer=part.proposer), part.share) for part in parts(settings.proposer)]
    names = [_name(one) for one, _ in mixed]
    paid = [name for name in names if name in ("anthropic", "command")]
    if settings.cost_usd is not None and not paid:
        raise UserError(
            "--autoresearch-cost limits the cost of the Anthropic API or of an agent, but the proposer is "
            f"{' and '.join(names)}: leave it out, or type --autoresearch-proposer anthropic"
        )
    if settings.cost_usd is not None and len(paid) > 1:
        raise UserError(
            "--autoresearch-cost limits the cost of one proposer, and two of this mix cost money: leave out one of "
            "them, or leave out --autoresearch-cost"
        )
    choices = [_choose(one, asks_hook, read_checkout, head) for one, _ in mixed]
    if len(choices) == 1:
        return choices[0]
    shares = [share for _, share in mixed]

    def make(around: Surroundings) -> Proposer:
        return MixProposer([choice.make(around) for choice in choices], shares)

    return Choice("; ".join(f"{share:.0%} {one.said}" for one, share in zip(choices, shares, strict=True)), make)


def _name(settings: Settings) -> str:
    """The proposer's name without its value; `auto` is decided."""
    name = settings.proposer.partition(":")[0]
    if name != "auto":
        return name
    return "anthropic" if any(map(os.environ.get, _KEYS)) else "search"  # CI sets a missing secret to ""


def _choose(
    settings: Settings, asks_hook: bool, read_checkout: Callable[[], Edit | None],
    head: Callable[[], Mapping[str, bytes]],
) -> Choice:  # fmt: skip
    """One proposer; see `choose`."""
    name, given = _name(settings), settings.proposer.partition(":")[2]
    match name:
        case "anthropic":
            return _anthropic(settings)
        case "command":
            return _command(settings, given)
        case "checkout":
            what = f"checkout, the uncommitted edit in {', '.join(settings.editable)}"
            return Choice(what, lambda around: CheckoutProposer(read_checkout, bool(settings.description)))
        case "commits":
            commits = resolve(given, settings.root, settings.editable)
            count = f"{len(commits)} commit{'s'[: len(commits) != 1]}"
            return Choice(f"commits:{given}, {count}", lambda around: CommitsProposer(commits))
        case "queue":
            if not asks_hook:
                check_queue(settings.experiments_folder, settings.root)
            return Choice(name, lambda around: QueueProposer())
    if settings.proposer != "auto" or not asks_hook:  # a hook that always proposes never needs the default
        _need_optuna(bool(given))
    if not asks_hook:
        _check_space(settings, head(), numbers=bool(given))
    said = "search:cmaes" if given else "search"
    return Choice(said, lambda around: _search(settings, bool(given)))


def _anthropic(settings: Settings) -> Choice:
    need("anthropic", "anthropic", "the proposer anthropic", _OTHERWISE)
    from pytest_autoresearch.proposers import anthropic
    from pytest_autoresearch.proposers.prices import check_cap, prices_of

    model = settings.model or anthropic.DEFAULT_MODEL
    prices = prices_of(model, settings.prices)
    check_cap(model, prices, settings.cost_usd)
    said = model if settings.check else anthropic.check(model)
    if prices is None:
        said += "; its prices are unknown, so only tokens are counted (set autoresearch_prices)"
    if settings.cost_usd is not None and prices is not None:
        anthropic.check_affordable(model, prices, settings.cost_usd, _smallest_context(settings))
        said += f", at most ${settings.cost_usd:.2f}"
    return Choice(
        said,
        lambda around: anthropic.AnthropicProposer(
            model, prices, repairs=settings.repairs, cap_usd=settings.cost_usd,
            long_cache=around.budget_seconds >= _SHORT_SECONDS, patience_seconds=3600 * settings.wait_hours,
            pause=around.clock.wait, check=around.clock.check,
        ),
    )  # fmt: skip


def _smallest_context(settings: Settings) -> Context:
    """What a proposer is shown at least: the user's files, without records and without the harness's words."""
    page = settings.root / "program.md"
    program = page.read_text("utf-8", "replace") if page.is_file() else ""
    folder = settings.experiments_folder
    return Context(1, settings.root, settings.editable, program, (), (), settings.root, folder)


def _command(settings: Settings, given: str) -> Choice:
    from pytest_autoresearch.proposers import agent_command, agent_start, agent_turns, command

    commands = [agent_command.check(one, settings.root) for one in agent_command.alternatives(given)]
    files = agent_command.shared(settings.agent_files, settings.root)
    said = f"command, {' || '.join(map(shlex.join, commands))}, {settings.agent_seconds:g} s per proposal"
    if settings.cost_usd is not None:
        said += f", at most ${settings.cost_usd:.2f} by its own account"

    def make(around: Surroundings) -> Proposer:
        costs = agent_start.AgentCosts(settings.cost_usd)
        agents = [
            command.CommandProposer(
                words, around.agents.run, confined=around.agents.confined, seconds=settings.agent_seconds,
                shared=files, variables=settings.agent_environment, costs=costs, pause=around.clock.wait,
                left=around.clock.left, check=around.clock.check,
            )
            for words in commands
        ]  # fmt: skip
        return agent_turns.AgentTurns(agents, settings.wait_hours, around.clock.wait)

    return Choice(said, make)


def _need_optuna(evolution: bool) -> None:
    library, what = ("cmaes", "search:cmaes") if evolution else ("optuna", "search")
    need("search", library, f"the proposer {what}", _OTHERWISE)


def _search(settings: Settings, evolution: bool) -> Proposer:
    _need_optuna(evolution)
    if evolution:
        from pytest_autoresearch.proposers.cmaes_search import CmaesProposer

        return CmaesProposer(_SEARCH_SEED, settings.search)
    from pytest_autoresearch.proposers.search import SearchProposer

    return SearchProposer(_SEARCH_SEED, settings.search)


def _check_space(settings: Settings, files: Mapping[str, bytes], numbers: bool) -> None:
    """Check the user's ranges, and that there is something to vary, before a baseline is trained.

    Args:
        numbers: Whether only numbers are varied.
    """
    plain = {path: text for path, text in files.items() if len(text) <= MOST_BYTES}
    found = space.read(plain, settings.search, settings.command)
    if found.mistakes:
        raise UserError(found.mistakes[0])
    if not found.near:
        raise UserError(nothing(settings.editable))
    if numbers and all(isinstance(values[0], bool | str) for values in found.near.values()):
        raise UserError(no_number(settings.editable))
