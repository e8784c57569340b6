"""What a session's requests have used and cost, and how much the next one may. Knows prices; sends nothing.

Every request is paid for as its usage says, also one that was refused or cut off. Of a stream that broke the input
counts as its start says it, and the output by the bytes that came; where there is a cap, as the longest that it might
have been.
"""

from __future__ import annotations

from typing import Any

from pytest_autoresearch.core.errors import Spent
from pytest_autoresearch.core.experiment import Usage
from pytest_autoresearch.proposers.base import ProposerSession
from pytest_autoresearch.proposers.prices import Prices, check_cap

MOST_TOKENS = 32_000  # of one reply
LEAST_TOKENS = 2_000  # a reply that may be no longer than this is not worth its prompt
BYTES_A_TOKEN = 2  # fewer than any text has: for an upper estimate


class Purse:
    """What may still be spent.

    Args:
        cap_usd: What all requests together may cost; needs prices.
        long_cache: Whether what is written to the cache is kept, and paid, for an hour.

    Attributes:
        capped: Whether there is a limit.
    """

    def __init__(self, model: str, prices: Prices | None, cap_usd: float | None, long_cache: bool) -> None:
        check_cap(model, prices, cap_usd)
        self.capped = cap_usd is not None
        self._model = model
        self._prices = prices
        self._cap_usd = cap_usd
        self._long_cache = long_cache
        self._spent_usd = 0.0

    def affordable(self, tokens: int) -> int:
        """How many tokens the reply to a request of `tokens` may have.

        Raises:
            Spent: Too few to be worth it.
        """
        if self._cap_usd is None or self._prices is None:
            return MOST_TOKENS
        longest = self._prices.affordable(self._cap_usd - self._spent_usd, tokens, self._long_cache)
        if longest < LEAST_TOKENS:
            raise Spent(
                f"${self._spent_usd:.2f} of ${self._cap_usd:.2f} is spent and the next request might pass that "
                "(--autoresearch-cost)"
            )
        return min(longest, MOST_TOKENS)

    def pay(self, tally: Tally, limit: int, session: ProposerSession) -> None:
        """Count what a request has used, and tell the session.

        Args:
            limit: How many tokens the reply might have had.
        """
        if not tally.began:
            return
        output = tally.output
        if not tally.ended:
            # Thinking that is not shown is paid for too, and how much of it there was nobody says any more. An upper
            # bound holds the cap whatever it was; without a cap what came is the better guess.
            output = limit if self.capped else max(output, tally.bytes // BYTES_A_TOKEN)
        cost = None
        if self._prices is not None:
            kept_long = tally.written_long
            if tally.written_short + tally.written_long != tally.written:  # it does not say which
                kept_long = tally.written if self._long_cache else 0
            cost = self._prices.cost_usd(tally.fresh, tally.read, tally.written - kept_long, kept_long, output)
            self._spent_usd += cost
        session.spent(Usage(tally.model or self._model, 1, tally.fresh, output, tally.read, tally.written, cost))


class Tally:
    """What the events of one stream say of its usage; each says all that is known so far.

    Attributes:
        began: Whether the message has begun, from where on it is paid.
        ended: Whether all of it has come.
        model: Who answers.
        fresh: Tokens read at the full price.
        read: Tokens read from the cache.
        written: Tokens written to it; `written_short` and `written_long` for how long, where it says so.
        output: Tokens of the reply.
        bytes: Of the reply, so far.
    """

    def __init__(self) -> None:
        self.began = self.ended = False
        self.model = ""
        self.fresh = self.read = self.written = self.written_short = self.written_long = self.output = self.bytes = 0

    def see(self, event: Any) -> None:
        """Take one event in."""
        match event.type:
            case "message_start":
                self.began = True
                self.model = event.message.model or ""
                self._count(event.message.usage)
                if made := event.message.usage.cache_creation:
                    self.written_short = made.ephemeral_5m_input_tokens or 0
                    self.written_long = made.ephemeral_1h_input_tokens or 0
            case "message_delta":
                self._count(event.usage)
            case "content_block_delta":
                words = (getattr(event.delta, name, "") for name in ("text", "thinking", "partial_json"))
                self.bytes += sum(len((word or "").encode("utf-8", "replace")) for word in words)
            case "message_stop":
                self.ended = True

    def _count(self, usage: Any) -> None:
        self.fresh = _known(usage.input_tokens, self.fresh)
        self.read = _known(usage.cache_read_input_tokens, self.read)
        self.written = _known(usage.cache_creation_input_tokens, self.written)
        self.output = _known(usage.output_tokens, self.output)


def _known(value: int | None, before: int) -> int:
    return before if value is None else value
