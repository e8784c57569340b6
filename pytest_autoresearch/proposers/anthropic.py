"""Proposals from the Anthropic API: a conversation for each experiment, until there is an edit that can be made.

What a reply may be, and what follows; each of the lines marked * uses up one of the repairs of this call:

    a reply                                       what is done
    -------------------------------------------   --------------------------------------------------------------
    `propose`, and all edits can be made          they are made: a proposal
    `propose`, and one cannot be made           * nothing is changed; the reason goes back
    a second `propose` in the same reply          the first is taken; the other is told so
    `give_up` after a failure                     the idea is dropped
    `give_up` where nothing has failed          * told so
    `look`, `write_notes`                         answered at once, in up to 8 replies; after that *
    an unknown tool, missing or broken arguments* told so
    no tool at all                              * told so
    cut off at its limit                        * the reply is dropped; told so
    a refusal                                   * a new conversation, which asks for another direction
    a conversation that got too long            * a new conversation

When the repairs are used up the experiment is `Refused`: as `no-proposal` where there was none, and the session goes on
with the next; after three experiments in a row without one it ends. Knows files and words; neither git nor pytest.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import anthropic
import httpx2

from pytest_autoresearch.errors import ProposerError, Refused, UserError
from pytest_autoresearch.experiment import Proposal
from pytest_autoresearch.proposers import prompt
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.proposers.conversation import Conversation
from pytest_autoresearch.proposers.edits import write_texts
from pytest_autoresearch.proposers.messages import BAD_KEY, NO_KEY, Line, Service, TooLong, key_refused, unknown_model
from pytest_autoresearch.proposers.prices import Prices
from pytest_autoresearch.proposers.replies import carry_out
from pytest_autoresearch.proposers.spending import Purse
from pytest_autoresearch.proposers.tools import EDIT_GONE, EDIT_STANDS, REPLY

DEFAULT_MODEL = "claude-fable-5-2"

_ADDRESS = "https://api.anthropic.com"
_CHECK_SECONDS = 5.0
_MOST_LOOKS = 8  # replies that only look or write, in one call
_MOST_FRUITLESS = 3  # experiments in a row
_DECLINED = "The request was declined when it was last made. Go for another direction of ordinary model training."
_TOO_LONG = "The conversation about this experiment grew too long and begins again: propose without looking further."


def check(model: str) -> str:
    """What the header says of the proposer, after one look at the API; a service that cannot be reached may be later.

    Raises:
        UserError: The API will never answer like this; says what to type.
    """
    said = ""
    try:
        with anthropic.Anthropic(timeout=_CHECK_SECONDS, max_retries=0) as client:
            address = str(client.base_url.copy_with(userinfo=b"")).rstrip("/")
            said = "" if address == _ADDRESS else f" at {address}"
            told = client.models.retrieve(model)
            lifecycle = getattr(told, "lifecycle", "")  # a gateway may answer with anything
            if lifecycle == "retired":
                raise UserError(f"{model} is retired: choose another with --autoresearch-model")
            if lifecycle == "deprecated":
                said = f" (to be retired{f' on {str(told.retires_at)[:10]}' if told.retires_at else ''}){said}"
    except (anthropic.AuthenticationError, anthropic.PermissionDeniedError) as error:
        raise UserError(key_refused(client, f"{error.type or error.status_code}: {error.api_message}")) from None
    except anthropic.NotFoundError as error:
        if error.type == "not_found_error" and model in (error.api_message or ""):
            raise UserError(unknown_model(model)) from None
    except httpx2.InvalidURL as error:
        raise UserError(f"ANTHROPIC_BASE_URL is no address of a service ({error}): write https://…") from None
    except anthropic.APIError as error:
        if isinstance(error.__cause__, httpx2.UnsupportedProtocol):
            raise UserError(f"ANTHROPIC_BASE_URL is no address of a service ({address}): write https://…") from None
        if isinstance(error.__cause__, httpx2.LocalProtocolError):
            raise UserError(BAD_KEY) from None
    except anthropic.AnthropicError as error:
        raise UserError(f"{error}: set ANTHROPIC_API_KEY") from None
    except TypeError:  # how the SDK says that it has nothing to sign in with
        raise UserError(f"{NO_KEY}, or choose another --autoresearch-proposer") from None
    return f"anthropic, {model}{said}"


class AnthropicProposer:
    """One model, asked anew for every experiment; it remembers an experiment's conversation until that is settled.

    Args:
        repairs: How many replies of one call may be of no use.
        cap_usd: What all requests together may cost.
        long_cache: Whether the prompt cache is to last an hour; else it is five minutes.
        patience_seconds: How long an API that does not answer is waited for.
        pause: Waits for so many seconds.
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
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._repairs = repairs
        self._long_cache = long_cache
        self._service = Service(model, Purse(model, prices, cap_usd, long_cache), patience_seconds, pause)
        self._talks: dict[int, Conversation] = {}
        self._fruitless: set[int] = set()

    def propose(self, context: Context) -> Proposal | None:
        """Ask for an experiment; raises as `Proposer` says, and there is always something left to try."""
        with self._service.line(context.desk) as line:
            return self._converse(line, context, self._begin(context), None)

    def repair(self, context: Context, proposal: Proposal, failure: str) -> Proposal | None:
        """Go on with the conversation; None when the model drops the idea, or has had none.

        It is begun anew where there is none, or where the branch has moved and the files are not what they were.
        """
        if context.number in self._fruitless:
            return None
        talk, fresh = self._talks.get(context.number), self._begin(context)
        if talk is None or talk.seldom[0] != fresh.seldom[0]:
            talk = fresh
        reply = EDIT_STANDS if talk.open_call else EDIT_GONE
        why = f"\n\nWhy it should have helped: {proposal.hypothesis}" if proposal.hypothesis and talk is fresh else ""
        talk.answer(prompt.failed(context, proposal, failure, reply) + why)
        with self._service.line(context.desk) as line:
            return self._converse(line, context, talk, proposal)

    def settled(self, number: int) -> None:
        """Its conversation is forgotten."""
        self._talks.pop(number, None)

    def _begin(self, context: Context, *more: str) -> Conversation:
        """A conversation in which only the task was said."""
        told = prompt.build(context, REPLY)
        system, seldom = (told.rules, told.charter, told.interface), (told.files, told.sealed)
        return Conversation(system, seldom, (told.recent, *more), self._long_cache)

    def _converse(
        self, line: Line, context: Context, talk: Conversation, failed: Proposal | None
    ) -> Proposal | None:  # fmt: skip
        """Ask until there is an edit that can be made; the tree is untouched until then."""
        meant: Proposal | None = None
        looks = faults = 0
        while faults <= self._repairs:
            self._talks[context.number] = talk
            try:
                reply = line.ask(talk)
            except TooLong as error:
                if not talk.grown:
                    raise ProposerError(
                        f"the prompt does not fit into the model's context ({error}): shorten program.md and the "
                        "editable files, or choose another --autoresearch-model"
                    ) from None
                fault = "the conversation does not fit into the model's context"
                talk = self._begin(context, _TOO_LONG)
            else:
                if reply.stop == "refusal":
                    fault = f"the model declined ({reply.declined})" if reply.declined else "the model declined"
                    talk = self._begin(context, _DECLINED)
                else:
                    outcome = carry_out(context, talk, reply, self.name, failed is not None, looks >= _MOST_LOOKS)
                    meant, fault = outcome.meant or meant, outcome.fault
                    if outcome.meant is not None:
                        self._fruitless.clear()
                    if outcome.made:
                        write_texts(context.folder, talk.texts)
                        return meant
                    if outcome.given_up:
                        self.settled(context.number)
                        return None
            looks, faults = looks + (not fault), faults + bool(fault)
        if meant is not None:
            raise Refused(fault, meant)
        raise self._nothing(context.number, failed, fault)

    def _nothing(self, number: int, failed: Proposal | None, fault: str) -> Exception:
        """There was no proposal in any reply."""
        if failed is not None:
            return Refused(f"the model made no other proposal: {fault}", failed, "no-proposal")
        self._fruitless.add(number)
        if len(self._fruitless) >= _MOST_FRUITLESS:
            return ProposerError(
                f"the model has proposed nothing for {len(self._fruitless)} experiments in a row (last: {fault}): "
                "change program.md or choose another --autoresearch-model, and type the same command to go on"
            )
        return Refused(
            f"the model proposed nothing: {fault}", Proposal("no proposal", proposer=self.name), "no-proposal"
        )
