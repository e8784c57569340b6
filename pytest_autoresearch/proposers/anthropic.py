"""Proposals from the Anthropic API: a conversation for each experiment, until an edit can be applied.

How each kind of reply is handled; a line marked * uses up one of the experiment's repairs:

    reply                                         action
    -------------------------------------------   --------------------------------------------------------------
    `propose`, all edits possible                 the edits are made: a proposal
    `propose`, an edit is impossible            * nothing is changed; the model is told the reason
    a second `propose` in the same reply          with several lanes a proposal for another experiment, which is not
                                                  asked about again; with one, the first counts; the model is told
    `give_up` after a failure                     the idea is dropped
    `give_up` without a failure                 * the model is told
    `look`, `write_notes`, a pause                answered at once, in up to 8 replies; after that *
    an unknown tool, missing or broken arguments* the model is told
    no tool call                                * the model is told
    truncated at its limit                      * the reply is dropped; the model is told
    a refusal                                   * a new conversation, which asks for another direction
    a failure in a conversation of over 100 kB    a new conversation, with the failure
    a conversation that is too long, or that    * a new conversation, first with the failure, then without it; if the
    the API rejects                               API rejects that, too, the session ends

After the last repair, the proposal is `Refused` (as `no-proposal` if there was none), and later failures of the
experiment are not repaired. The session continues with the next experiment; it ends after three experiments in a row
without a proposal. Knows files and text; neither git nor pytest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anthropic
import httpx2

from pytest_autoresearch.core.errors import ProposerError, Refused, Spent, UserError
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.core.run import CrashClass
from pytest_autoresearch.proposers import prompt
from pytest_autoresearch.proposers.base import Asked, Context
from pytest_autoresearch.proposers.conversation import Conversation
from pytest_autoresearch.proposers.deadline import TooLate, in_time
from pytest_autoresearch.proposers.edits import EditError, write_texts
from pytest_autoresearch.proposers.messages import (
    BAD_KEY,
    NO_KEY,
    REQUEST_SECONDS,
    Line,
    NotTaken,
    Service,
    TooLong,
    key_refused,
    unknown_model,
)
from pytest_autoresearch.proposers.prices import Prices
from pytest_autoresearch.proposers.replies import Idea, carry_out, ideas_of, proposal_of, written
from pytest_autoresearch.proposers.spending import BYTES_A_TOKEN, MOST_TOKENS, Purse
from pytest_autoresearch.proposers.tools import EDIT_GONE, EDIT_STANDS, REPLY

DEFAULT_MODEL = "claude-fable-5-2"

_ADDRESS = "https://api.anthropic.com"
_CHECK_SECONDS = 10.0
_MOST_LOOKS = 8  # replies that only look, write notes or pause, in one call
_MOST_BYTES = 100_000  # of a conversation beside its opening, after a failure: each request sends them again
_SAID_CHARACTERS = 2000  # of a fault that begins a new conversation
_MOST_FRUITLESS = 3  # experiments in a row without a proposal
_DECLINED = "The last request was declined. Choose another direction of ordinary model training."
_LOST = "The conversation about this experiment could not continue and begins again: propose without looking further."
_LONG = "Your earlier replies about this experiment were too long to be sent again. Propose a small edit."
_SEVERAL = (
    "Several experiments run at the same time. So answer with {count} calls of `propose` in one reply, for {count} "
    "experiments: {count} different ideas that do not depend on each other. Each is tried alone, on the files as "
    "shown; change as few lines as the idea needs."
)
_MOST_IDEAS = 4  # in one reply
_UNTOLD = f"An earlier proposal for this experiment failed; the details cannot be shown here. {EDIT_GONE}"


def check(model: str) -> str:
    """The proposer's description for the header, after one request to the API. An unreachable API is no error yet.

    Raises:
        UserError: The API cannot work with these settings; says what to type.
    """
    said = ""
    try:
        with anthropic.Anthropic(timeout=_CHECK_SECONDS / 2, max_retries=0) as client:
            address = str(client.base_url.copy_with(userinfo=b"")).rstrip("/")
            said = "" if address == _ADDRESS else f" at {address}"
            told = in_time(lambda: client.models.retrieve(model), _CHECK_SECONDS, lambda: None)
            lifecycle = getattr(told, "lifecycle", "")  # a gateway may answer with anything
            if lifecycle == "retired":
                raise UserError(f"{model} is retired: choose another with --autoresearch-model")
            if lifecycle == "deprecated":
                said = f" (deprecated{f', retires on {str(told.retires_at)[:10]}' if told.retires_at else ''}){said}"
    except (anthropic.AuthenticationError, anthropic.PermissionDeniedError) as error:
        raise UserError(key_refused(client, f"{error.type or error.status_code}: {error.api_message}")) from None
    except anthropic.NotFoundError as error:
        if error.type == "not_found_error" and model in (error.api_message or ""):
            raise UserError(unknown_model(model)) from None
    except httpx2.InvalidURL as error:
        raise UserError(f"ANTHROPIC_BASE_URL is not the address of a service ({error}): write https://…") from None
    except anthropic.APIError as error:
        if isinstance(error.__cause__, httpx2.UnsupportedProtocol):
            raise UserError(
                f"ANTHROPIC_BASE_URL is not the address of a service ({address}): write https://…"
            ) from None
        if isinstance(error.__cause__, httpx2.LocalProtocolError):
            raise UserError(BAD_KEY) from None
    except anthropic.AnthropicError as error:
        raise UserError(f"{error}: set ANTHROPIC_API_KEY") from None
    except (TooLate, ValueError):  # no answer in time, or one that is not JSON
        pass
    except TypeError:  # the SDK raises this if it has no credentials
        raise UserError(f"{NO_KEY}, or choose another --autoresearch-proposer") from None
    return f"anthropic, {model}{said}"


def check_affordable(model: str, prices: Prices, cap_usd: float, context: Context) -> None:
    """Check that the cost limit allows one request. The smallest one is asked about: without history.

    Raises:
        UserError: It does not.
    """
    purse = Purse(model, prices, cap_usd, False)
    service = Service(model, purse, 0.0, _CHECK_SECONDS, time.sleep, lambda: None)
    try:
        with service.line(context.session) as line:
            line.affordable(_opening(context, False))
    except Spent:
        raise UserError(
            f"--autoresearch-cost {cap_usd:g} is too little for one request to {model}, which may cost "
            f"${purse.least_usd:.2f}: give more"
        ) from None
    except ProposerError:  # the first request reports it
        pass


def _opening(context: Context, long_cache: bool, *more: str) -> Conversation:
    context.session.heard(context.messages)
    told = prompt.build(context, REPLY)
    system, seldom = (told.rules, told.charter, told.interface), (told.files, told.sealed)
    return Conversation(system, seldom, (told.recent, *more), long_cache)


@dataclass(slots=True)
class _Memory:
    """What the session keeps of one experiment.

    Attributes:
        talk: The conversation about it; None before the first, and after the model has given it up.
        talks: All conversations about it, for people.
        faults: What was wrong with the replies about it.
    """

    talk: Conversation | None = None
    talks: list[Conversation] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class AnthropicProposer:
    """Asks one model, with a new conversation for every experiment, which continues after a failure.

    Args:
        repairs: How many useless replies about one experiment are allowed before it is given up.
        cap_usd: Cost limit of all requests together.
        long_cache: Whether the prompt cache lasts an hour instead of five minutes.
        patience_seconds: How long to wait for an API that does not answer.
        request_seconds: The deadline of one request.
        pause: Waits for the given seconds.
        check: Raises if the session ends.
    """

    name = "anthropic"
    listens = True

    def __init__(
        self,
        model: str,
        prices: Prices | None,
        *,
        repairs: int = 3,
        cap_usd: float | None = None,
        long_cache: bool = False,
        patience_seconds: float = 1800.0,
        request_seconds: float = REQUEST_SECONDS,
        pause: Callable[[float], None] = time.sleep,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._repairs = repairs
        self._prices = prices
        self._long_cache = long_cache
        purse = Purse(model, prices, cap_usd, long_cache)
        self._service = Service(model, purse, patience_seconds, request_seconds, pause, check)
        self._fruitless: set[int] = set()
        self._ideas: list[Idea] | None = None  # until the first question: an earlier session may have left some

    def asked(self, context: Context) -> Asked:
        """The prompt of the first request, and what that may cost with the longest reply."""
        text = prompt.build(context, REPLY).text()
        if self._prices is None:
            return Asked(text)
        tokens = len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN
        return Asked(text, self._prices.most_usd(tokens, MOST_TOKENS, self._long_cache))

    def propose(self, context: Context) -> Proposal | None:
        """Ask for a proposal. Never returns None; raises as `Proposer.propose` does."""
        context.session.memory = _Memory()
        if (proposal := self._next_idea(context)) is not None:
            return proposal
        count = min(context.terms.lanes, _MOST_IDEAS)
        more = (_SEVERAL.format(count=count),) if count > 1 else ()
        with self._service.line(context.session) as line:
            return self._converse(line, context, self._begin(context, *more))

    def _next_idea(self, context: Context) -> Proposal | None:
        """The first proposal of an earlier reply whose edits are still possible; None if there is none."""
        if self._ideas is None:
            self._ideas = ideas_of(context.session.stock)
        while self._ideas:
            idea = self._ideas.pop(0)
            context.session.stock = written(self._ideas)
            with contextlib.suppress(EditError):  # what was kept since is in its way
                write_texts(context.folder, idea.texts(context))
                context.session.keep("conversation.md", f"This idea is in the conversation of {idea.number:04d}.\n")
                return proposal_of(idea.asked, self.name)
        return None

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """Continue the conversation; None if the model gives up the idea or has used up its repairs.

        A new conversation begins if there is none, or if the branch has moved and the files have changed.
        """
        memory: _Memory = context.session.memory or _Memory()
        context.session.memory = memory
        if len(memory.faults) > self._repairs:
            return None
        untold = prompt.failed(context, proposal, failure, EDIT_GONE)  # for a new conversation
        if proposal.hypothesis:
            untold += f"\n\nWhy it should have helped: {proposal.hypothesis}"
        talk, fresh = memory.talk, self._begin(context, failure=untold)
        if talk is None or talk.seldom[0] != fresh.seldom[0] or talk.size > _MOST_BYTES:
            talk = fresh
        else:
            reply = EDIT_STANDS if talk.open_call else EDIT_GONE
            talk.answer(prompt.failed(context, proposal, failure, reply))
        with self._service.line(context.session) as line:
            return self._converse(line, context, talk, proposal, untold)

    def _begin(self, context: Context, *more: str, failure: str = "") -> Conversation:
        """A new conversation with the task, then the failure.

        The failure is not part of the opening: if both together are too long, the opening alone may still fit.
        """
        talk = _opening(context, self._long_cache, *more)
        talk.say(failure)
        return talk

    def _converse(
        self, line: Line, context: Context, talk: Conversation, failed: Proposal | None = None, failure: str = ""
    ) -> Proposal | None:
        """Ask until an edit can be applied; the tree is unchanged until then.

        Args:
            failed: The proposal to repair.
            failure: The failure, for a new conversation.
        """
        meant: Proposal | None = None
        looks = 0
        memory: _Memory = context.session.memory
        faults = memory.faults
        while len(faults) <= self._repairs:
            if talk is not memory.talk or not memory.talks:
                memory.talks.append(talk)
            memory.talk = talk
            try:
                reply = line.ask(talk)
            except NotTaken as error:
                faults.append(_not_taken(error, talk.grown))
                untold = "" if talk.answered or not failure else _UNTOLD  # the API may reject the failure's text
                failure = "" if untold else failure
                talk = self._begin(context, _LOST, untold, failure=failure)
                continue
            if reply.stop == "refusal":
                faults.append(f"the model declined ({reply.declined})" if reply.declined else "the model declined")
                talk = self._begin(context, _DECLINED, failure=failure)
                continue
            outcome = carry_out(context, talk, reply, self.name, failed is not None, looks >= _MOST_LOOKS)
            transcripts = [one.transcript() for one in memory.talks]
            context.session.keep("conversation.md", "\n\n# A new conversation\n\n".join(transcripts) + "\n")
            meant = outcome.meant or meant
            if outcome.meant is not None:
                self._fruitless.clear()
            if outcome.made:
                if outcome.others:
                    self._ideas = [*(self._ideas or ()), *outcome.others]
                    context.session.stock = written(self._ideas)
                write_texts(context.folder, talk.texts)
                return meant
            if outcome.given_up:
                context.session.memory = None
                return None
            if outcome.fault:
                faults.append(outcome.fault)
                if talk.size > _MOST_BYTES:
                    talk = self._begin(context, _LONG, outcome.fault[:_SAID_CHARACTERS], failure=failure)
            else:
                looks += 1
        if meant is not None:
            raise Refused(faults[-1], meant)
        raise self._nothing(context.number, failed, faults[-1])

    def _nothing(self, number: int, failed: Proposal | None, fault: str) -> Exception:
        """The exception if no reply had a proposal."""
        if failed is not None:
            return Refused(f"the model made no new proposal: {fault}", failed, CrashClass.NO_PROPOSAL)
        self._fruitless.add(number)
        if len(self._fruitless) >= _MOST_FRUITLESS:
            return ProposerError(
                f"the model made no proposal in {len(self._fruitless)} experiments in a row (last: {fault}): "
                "change program.md or choose another --autoresearch-model, and rerun the same command to continue"
            )
        return Refused(
            f"the model made no proposal: {fault}", Proposal("no proposal", proposer=self.name), CrashClass.NO_PROPOSAL
        )


def _not_taken(error: NotTaken, grown: bool) -> str:
    """The fault of a rejected conversation that has more than its opening.

    Raises:
        ProposerError: The API rejects the opening itself, so a new conversation does not help.
    """
    if isinstance(error, TooLong):
        if grown:
            return "the conversation does not fit into the model's context"
        raise ProposerError(
            f"the prompt does not fit into the model's context ({error}): shorten program.md and the editable files, "
            "or choose another --autoresearch-model"
        ) from None
    if grown:
        return f"the API rejects the conversation ({error})"
    raise ProposerError(f"the API rejects the request ({error})") from None
