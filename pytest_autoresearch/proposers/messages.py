"""The Messages API: one request, retried until it is answered. Knows nothing of proposals.

    response                                              action
    ---------------------------------------------------   ----------------------------------------------------------
    408, 409, 429, 5xx, 529; an `error` event in a        wait for `retry-after`, else 1, 2, 4 … 300 s, and try again;
    stream; no connection, a timeout, a stream that       ProposerError if all waiting together exceeds the patience
    ends early or is invalid; a 200 that is no stream of
    events, such as a gateway's login page; no complete
    reply at the deadline of a request
    403, 404 not in the API's format, after earlier       the same: a gateway sent it, and requests worked before
    answers in this session
    429 because a spending limit is reached               ProposerError at once
    401, 403: a wrong key, or no permission               ProposerError at once; names the variable
    402, `billing_error`, no credit                       ProposerError at once
    404: unknown model, or wrong address                  ProposerError at once; names the option or the variable
    413, prompt too long, context window full             TooLong: the caller may begin a shorter conversation
    400 and all other errors                              NotTaken, with the API's message: another conversation may
                                                          be accepted
    a call whose arguments are not JSON                   a reply with `broken`
    a refusal, a truncated reply, a pause                 a reply with that `stop`

The SDK's own retries are off: they would wait silently, and longer than our patience.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from random import random
from typing import Any

import anthropic
import httpx2

from pytest_autoresearch.core.errors import ProposerError
from pytest_autoresearch.proposers.base import ProposerSession
from pytest_autoresearch.proposers.conversation import Block, Conversation
from pytest_autoresearch.proposers.deadline import TooLate, in_time
from pytest_autoresearch.proposers.quoting import line
from pytest_autoresearch.proposers.spending import BYTES_A_TOKEN, Purse, Tally
from pytest_autoresearch.proposers.tools import TOOLS

_LONGEST_WAIT = 300.0
_FIRST_PATIENCE = 1800.0  # with an API that has not answered in this session: its address may be wrong
_SILENCE = httpx2.Timeout(300.0, connect=10.0)  # the API sends a ping every few seconds
_COUNT_SECONDS = 20.0  # to count the tokens of a request
REQUEST_SECONDS = 1800.0  # for a whole reply: the longest one, from a slow model
_NOT_ALLOWED = ("authentication_error", "permission_error")
_PASSING = ("rate_limit_error", "overloaded_error", "api_error", "timeout_error", "conflict_error")
_SPENDING_LIMITS = ("enforced_spend_limit_reached", "contract_spend_limit_reached")
_TOO_LONG = ("prompt is too long", "context window", "context limit", "exceeds the maximum size")
_SAID_BYTES = 300  # of the API's message, in a sentence of ours
_GO_ON = "rerun the same command to continue"

NO_KEY = "there is no key for the API: set ANTHROPIC_API_KEY"
BAD_KEY = "the key for the API has an invalid character, such as a line break: set ANTHROPIC_API_KEY again"


class NotTaken(Exception):
    """The API rejects this conversation; the text is the API's message."""


class TooLong(NotTaken):
    """The conversation does not fit into the model's context; the text is the API's message."""


class _Again(Exception):
    """A temporary error; the text describes it.

    Attributes:
        wait: The seconds to wait, if the API names them.
    """

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Reply:
    """The model's reply.

    Attributes:
        content: Its blocks, in the form in which they are sent back.
        stop: The API's stop reason.
        limit: The token limit of the reply.
        declined: Why the request was refused, if the API says so.
        broken: Why the arguments of a call are unreadable; empty if they are readable.
    """

    content: tuple[Block, ...]
    stop: str
    limit: int
    declined: str = ""
    broken: str = ""


class Service:
    """The API for one session.

    Args:
        purse: Counts the costs.
        patience_seconds: Total time to wait for an API that does not answer, over all requests of one proposal.
        request_seconds: The deadline of one request.
        pause: Waits for the given seconds.
        check: Raises if the session ends.
    """

    def __init__(
        self, model: str, purse: Purse, patience_seconds: float, request_seconds: float,
        pause: Callable[[float], None], check: Callable[[], None],
    ) -> None:  # fmt: skip
        self.model = model
        self.purse = purse
        self.patience_seconds = patience_seconds
        self.request_seconds = request_seconds
        self.pause = pause
        self.check = check
        self.counts = True  # until the API turns out to have no token counting
        self.answered = False  # true after the first answer: key, model and address are right

    @contextmanager
    def line(self, session: ProposerSession) -> Iterator[Line]:
        """A connection for one proposal. Between two proposals, a connection could drop and a login expire.

        Raises:
            ProposerError: There are no credentials.
        """
        line = Line(self, session)
        try:
            yield line
        finally:
            line.close()


class Line:
    """One connection to the API, with the patience left for it."""

    def __init__(self, service: Service, session: ProposerSession) -> None:
        self._service = service
        self._connect()
        self._desk = session
        self._waited = 0.0
        self._failures = 0

    def _connect(self) -> None:
        try:
            self._client = anthropic.Anthropic(max_retries=0, timeout=_SILENCE)
        except anthropic.AnthropicError as error:
            raise ProposerError(f"{error}; {_GO_ON}") from None

    def close(self) -> None:
        """Close the connection, also under a request that still waits on it."""
        self._client.close()

    def affordable(self, talk: Conversation) -> int:
        """How many tokens the reply may have; more than any has without a cost limit.

        Raises:
            Spent: Too few for a useful reply.
        """
        return self._affordable({**talk.request(), "tools": TOOLS})

    def ask(self, talk: Conversation) -> Reply:
        """Ask for the model's next reply.

        Raises:
            NotTaken: The API rejects this conversation; `TooLong` if it does not fit.
            Spent: The request could exceed the cost limit.
            ProposerError: The API does not answer.
        """
        request = {**talk.request(), "tools": TOOLS}
        while True:
            limit = self._affordable(request)
            began = time.monotonic()
            try:
                reply = self._answer(request, limit)
                self._failures = 0
                self._service.answered = True
                return reply
            except _Again as trouble:
                self._wait(str(trouble), trouble.wait, time.monotonic() - began)

    def _wait(self, what: str, asked: float | None, lost: float) -> None:
        """Wait before the same request is sent again.

        Args:
            asked: The seconds that the API names.
            lost: The duration of the failed request.

        Raises:
            ProposerError: The patience is used up.
        """
        patience = self._service.patience_seconds
        if not asked and not self._service.answered:
            patience = min(patience, _FIRST_PATIENCE)
        seconds = asked or min(_LONGEST_WAIT, 2.0**self._failures) * (1 - random() / 4)
        self._waited += lost + seconds
        if self._waited > patience:
            if asked and asked > patience:
                raise ProposerError(
                    f"the API asks to wait for {asked:,.0f} s, longer than --autoresearch-wait-hours "
                    f"{patience / 3600:g} ({what}); {_GO_ON} after that"
                )
            raise ProposerError(f"the API has not answered for {_span(patience)} (last: {what}); {_GO_ON}")
        self._failures += 1
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
        self._desk.say(f"{what}; asking again in {seconds:.0f} s")
        self._desk.wait_for(f"waiting until {until} for the API")
        try:
            self._service.pause(seconds)
        finally:
            self._desk.wait_for("")

    def _affordable(self, request: dict[str, Any]) -> int:
        purse = self._service.purse
        return purse.affordable(self._count(request) if purse.capped else 0)

    def _count(self, request: dict[str, Any]) -> int:
        """An upper estimate of a request's tokens; from its bytes if the API does not count."""
        if self._service.counts:
            count = self._client.messages.count_tokens
            try:
                told = in_time(
                    lambda: count(model=self._service.model, timeout=10.0, **request),
                    _COUNT_SECONDS, self._service.check,
                )  # fmt: skip
                return math.ceil(told.input_tokens * 1.02)  # the API's count is an estimate
            except anthropic.NotFoundError:
                self._service.counts = False
            except (anthropic.AnthropicError, TooLate, TypeError, ValueError, AttributeError):
                pass  # the request itself reports the error
        return len(json.dumps(request, ensure_ascii=False).encode("utf-8", "replace")) // BYTES_A_TOKEN

    # ------------------------------------------------------------------------------------------------ one request

    def _answer(self, request: dict[str, Any], limit: int) -> Reply:
        tally, seconds = Tally(), self._service.request_seconds
        try:
            return in_time(lambda: self._send(request, limit, tally), seconds, self._service.check)
        except TooLate:
            self._client.close()
            self._connect()
            raise _Again(f"the API sent no complete reply within {_span(seconds)}") from None
        finally:
            self._service.purse.pay(tally, limit, self._desk)

    def _send(self, request: dict[str, Any], limit: int, tally: Tally) -> Reply:
        """One request and its reply, on a thread of its own."""
        try:
            # The model is set in the body because the SDK warns of deprecated models, and under pytest a warning may
            # be an error. The session's header shows the deprecation.
            with self._client.messages.stream(
                model="", max_tokens=limit, extra_body={"model": self._service.model}, **request
            ) as stream:  # fmt: skip
                return self._read(stream, limit, tally)
        except anthropic.APIStatusError as error:
            raise self._said_no(error) from None
        except anthropic.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.LocalProtocolError):
                raise ProposerError(f"{BAD_KEY} and {_GO_ON}") from None
            raise _Again(f"the API cannot be reached ({_cause(error.__cause__)})") from None
        except anthropic.AnthropicError as error:
            raise ProposerError(f"{error}; {_GO_ON}") from None
        except httpx2.HTTPError as error:
            raise _Again(f"the connection to the API broke ({_cause(error)})") from None
        except TypeError as error:
            if "authentication" in str(error):
                raise ProposerError(f"{NO_KEY} and {_GO_ON}") from None
            raise

    def _read(self, stream: anthropic.MessageStream[Any], limit: int, tally: Tally) -> Reply:
        kind = stream.response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise _Again(
                f"something in between answers instead of the API (with {line(kind, 60) or 'no content type'})"
            )
        try:
            for event in stream:
                tally.see(event)
            if not tally.ended:
                raise _Again("the stream ended before the message did")
            reply = _reply(stream.current_message_snapshot, limit)
        except ValueError as error:
            # The SDK raises a plain ValueError if a call's arguments are not JSON. Its subclasses tell of bytes that
            # are not UTF-8, events that are not JSON, and the like: the connection's fault, and not the model's.
            if type(error) is not ValueError or not isinstance(error.__cause__, ValueError):
                raise _Again("the API sent an unreadable stream") from None
            broken = str(error).partition(" JSON: ")[0].rpartition("Error: ")[2][:200]
            return Reply((), "", limit, broken=broken or "unreadable")
        except (AttributeError, LookupError, AssertionError, RuntimeError, TypeError):
            raise _Again("the API sent something that is not a message") from None
        if reply.stop == "model_context_window_exceeded":
            raise TooLong("the context window is full")
        return reply

    def _said_no(self, error: anthropic.APIStatusError) -> Exception:
        """The exception for an error of the API."""
        said = line(f"{error.type or error.status_code}: {error.api_message or 'no reason given'}", _SAID_BYTES)
        message = (error.api_message or "").casefold()
        code = error.status_code
        if code == 402 or error.type == "billing_error" or "credit balance" in message:
            return ProposerError(f"the account has no credit for the API ({said}): add some and {_GO_ON}")
        if error.error_code in _SPENDING_LIMITS:
            return ProposerError(f"the account's spending limit is reached ({said}): raise it and {_GO_ON}")
        gateway = code in (403, 404) and self._service.answered and error.type not in (*_NOT_ALLOWED, "not_found_error")
        if error.type in _NOT_ALLOWED or (code in (401, 403) and not gateway):
            return ProposerError(f"{key_refused(self._client, said)} and {_GO_ON}")
        if code == 413 or (code == 400 and any(words in message for words in _TOO_LONG)):
            return TooLong(said)
        passing = code < 400 and (error.type or _PASSING[0]) in _PASSING
        if code in (408, 409, 429) or code >= 500 or passing or gateway:
            return _Again(f"the API is not available ({said})", _asked_wait(error.response.headers))
        if code == 404 and error.type == "not_found_error":
            return ProposerError(f"{unknown_model(self._service.model)} ({said}) and {_GO_ON}")
        if code == 404:
            return ProposerError(f"there is no Messages API at this address: set ANTHROPIC_BASE_URL and {_GO_ON}")
        return NotTaken(said)


def _reply(message: anthropic.types.Message, limit: int) -> Reply:
    """The reply from a complete message, without empty texts, which the API would reject."""
    content = (_sent_back(block) for block in message.content if block.type != "text" or block.text.strip())
    why = message.stop_details
    declined = line(why.explanation or why.category or "", _SAID_BYTES) if why else ""
    return Reply(tuple(content), str(message.stop_reason or ""), limit, declined)


def _sent_back(block: Any) -> Block:
    """A block in the form in which it is sent back to the API."""
    match block.type:
        case "text":
            return {"type": "text", "text": _sane(block.text)}
        case "thinking":
            return {"type": "thinking", "thinking": block.thinking, "signature": block.signature}
        case "tool_use":
            given = block.input if isinstance(block.input, dict) else {}
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": _sane(given)}
        case _:
            return dict(block.to_dict(mode="json"))


def _sane(value: Any) -> Any:
    """The value without lone surrogates, which no request and no file can hold."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_sane(name): _sane(one) for name, one in value.items()}
        case list():
            return [_sane(one) for one in value]
        case _:
            return value


def _cause(error: BaseException | None) -> str:
    """Why a connection failed. Messages of other errors are not shown, because they might contain a key."""
    told = isinstance(error, (httpx2.ConnectError, httpx2.RemoteProtocolError)) and str(error)
    return told or type(error).__name__


def _asked_wait(headers: httpx2.Headers) -> float | None:
    """The seconds in `retry-after`, which may be a date; None if missing or invalid."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return seconds if 0 < seconds < math.inf else None


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:g} seconds"


def key_refused(client: anthropic.Anthropic, said: str) -> str:
    """The error message for a rejected key; names the variable to set."""
    if client.api_key is None and client.auth_token is None and client.credentials is not None:
        return f"the API rejects this login ({said}): log in again, or set ANTHROPIC_API_KEY"
    variable = "ANTHROPIC_AUTH_TOKEN" if client.api_key is None else "ANTHROPIC_API_KEY"
    return f"the API rejects the key in {variable} ({said}): set {variable} to a valid key"


def unknown_model(model: str) -> str:
    """The error message for an unknown model; names the option."""
    return f"the API does not know the model {model}: choose another with --autoresearch-model"
