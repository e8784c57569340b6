"""The tokens and costs of a session's requests, and the limit of the next one. Knows prices; sends nothing.

Every request is counted by its reported usage, even if it was refused or cut off. For a broken stream, the input counts
as reported at its start, and the output by the bytes received; with a cost limit, as the longest possible output.
"""

from __future__ import annotations

from typing import Any

from pytest_autoresearch.core.errors import Spent
from pytest_autoresearch.core.experiment import Usage
from pytest_autoresearch.proposers.base import ProposerSession
from pytest_autoresearch.proposers.prices import Prices, check_cap

MOST_TOKENS = 32_000  # of one reply
LEAST_TOKENS = 2_000  # a reply limited to less is not worth its prompt
BYTES_A_TOKEN = 2  # less than in any real text, for an upper estimate


class Purse:
    """Counts spending against the limit.

    Args:
        cap_usd: Cost limit of all requests together; needs prices.
        long_cache: Whether cache entries last, and are billed for, an hour.

    Attributes:
        capped: Whether there is a limit.
        least_usd: What the last request could have cost with the shortest useful reply.
    """

    def __init__(self, model: str, prices: Prices | None, cap_usd: float | None, long_cache: bool) -> None:
        check_cap(model, prices, cap_usd)
        self.capped = cap_usd is not None
        self.least_usd = 0.0
        self._model = model
        self._prices = prices
        self._cap_usd = cap_usd
        self._long_cache = long_cache
        self._spent_usd = 0.0

    def affordable(self, tokens: int) -> int:
        """How many tokens the reply to a request of `tokens` may have.

        Raises:
            Spent: The limit leaves too few tokens for a useful reply.
        """
        if self._cap_usd is None or self._prices is None:
            return MOST_TOKENS
        self.least_usd = self._prices.most_usd(tokens, LEAST_TOKENS, self._long_cache)
        longest = self._prices.affordable(self._cap_usd - self._spent_usd, tokens, self._long_cache)
        if longest < LEAST_TOKENS:
            raise Spent(
                f"${self._spent_usd:.2f} of ${self._cap_usd:.2f} is spent, and the next request could exceed the limit "
                "(--autoresearch-cost)"
            )
        return min(longest, MOST_TOKENS)

    def pay(self, tally: Tally, limit: int, session: ProposerSession) -> None:
        """Count a request's usage and report it to the session.

        Args:
            limit: The token limit of the reply.
        """
        if not tally.began:
            return
        output = tally.output
        if not tally.ended:
            # Hidden thinking is billed, too, but a broken stream does not report it. With a cap, assume the longest
            # possible output, so that the cap holds; without a cap, the received bytes are the better estimate.
            output = limit if self.capped else max(output, tally.bytes // BYTES_A_TOKEN)
        cost = None
        if self._prices is not None:
            kept_long = tally.written_long
            if tally.written_short + tally.written_long != tally.written:  # the usage does not say for how long
                kept_long = tally.written if self._long_cache else 0
            cost = self._prices.cost_usd(tally.fresh, tally.read, tally.written - kept_long, kept_long, output)
            self._spent_usd += cost
        session.spent(Usage(tally.model or self._model, 1, tally.fresh, output, tally.read, tally.written, cost))


class Tally:
    """The usage in the events of one stream; each event reports the totals so far.

    Attributes:
        began: Whether the message has begun; from then on it is billed.
        ended: Whether the message is complete.
        model: The model that answers.
        fresh: Input tokens at the full price.
        read: Tokens read from the cache.
        written: Tokens written to the cache; `written_short` and `written_long` by duration, if reported.
        output: Output tokens.
        bytes: Bytes of the reply so far.
    """

    def __init__(self) -> None:
        self.began = self.ended = False
        self.model = ""
        self.fresh = self.read = self.written = self.written_short = self.written_long = self.output = self.bytes = 0

    def see(self, event: Any) -> None:
        """Count one event."""
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
