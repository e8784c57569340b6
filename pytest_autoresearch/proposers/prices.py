"""Prices of tokens: a table, the user's own prices, and the arithmetic. Pure; knows no service.

The service bills by its own list. A price here that is too high stops a session early; one that is too low exceeds the
user's cap. So in doubt the table has the higher price.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_autoresearch.core.errors import UserError

WRITE_FACTOR = 1.25  # of the input price, for writing to the cache for five minutes
LONG_WRITE_FACTOR = 2.0  # for writing to the cache for an hour
SHORT_PROMPT_TOKENS = 100_000

_MILLION = 1_000_000
_DATE = re.compile(r"[-@]\d{8}$")


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in US dollars per million tokens.

    Attributes:
        input: Input at the full price.
        output: Output, including thinking.
        cache_read: Input from the prompt cache.
        short: Prices of requests with at most 100,000 input tokens; None if they are the same.
    """

    input: float
    output: float
    cache_read: float
    short: Prices | None = None

    def cost_usd(self, fresh: int, read: int, written: int, written_long: int, output: int) -> float:
        """The cost of one request.

        Args:
            fresh: Input tokens at the full price.
            read: Tokens read from the cache.
            written: Tokens written to the cache for five minutes.
            written_long: Tokens written to the cache for an hour.
            output: Output tokens.
        """
        prices = self._of(fresh + read + written + written_long)
        write = written * WRITE_FACTOR + written_long * LONG_WRITE_FACTOR
        return (prices.input * (fresh + write) + prices.cache_read * read + prices.output * output) / _MILLION

    def most_usd(self, tokens: int, output: int, long_cache: bool) -> float:
        """The highest cost of a request: all input tokens are written to the cache, and all output is used."""
        return self.cost_usd(0, 0, 0, tokens, output) if long_cache else self.cost_usd(0, 0, tokens, 0, output)

    def affordable(self, usd: float, tokens: int, long_cache: bool) -> int:
        """How many output tokens a request with `tokens` of input can have without costing more than `usd`."""
        left = usd - self.most_usd(tokens, 0, long_cache)
        price = self._of(tokens).output
        if left < 0:
            return 0
        return math.floor(left * _MILLION / price) if price else _MILLION

    def _of(self, tokens: int) -> Prices:
        return self.short if self.short is not None and tokens <= SHORT_PROMPT_TOKENS else self


KNOWN = {
    "claude-fable-5-2": Prices(8, 40, 0.20),
    "claude-fable-5-1": Prices(10, 50, 0.25),
    "claude-fable-5": Prices(10, 50, 1.00),
    "claude-opus-5-5": Prices(4, 20, 0.20),
    "claude-opus-5": Prices(5, 25, 0.50),
    "claude-opus-4-8": Prices(5, 25, 0.50),
    "claude-opus-4-7": Prices(5, 25, 0.50),
    "claude-opus-4-6": Prices(5, 25, 0.50),
    "claude-opus-4-5": Prices(5, 25, 0.50),
    "claude-sonnet-5-5": Prices(2, 10, 0.10),
    "claude-sonnet-5": Prices(2, 10, 0.20),
    "claude-sonnet-4-6": Prices(3, 15, 0.30),
    "claude-sonnet-4-5": Prices(3, 15, 0.30),
    "claude-haiku-5-5": Prices(0.50, 2.50, 0.05, short=Prices(0.10, 0.50, 0.01)),
    "claude-haiku-4-5": Prices(1, 5, 0.10),
}


def prices_of(model: str, given: Sequence[str] = ()) -> Prices | None:
    """The prices of a model; None if unknown. A name with a date has the prices of the name without it.

    Args:
        given: The user's prices, MODEL=INPUT/OUTPUT or MODEL=INPUT/OUTPUT/CACHE-READ, which override the table.
            Without the third number, cached tokens cost the full price.

    Raises:
        UserError: A price has another form.
    """
    table = KNOWN | dict(_parse(word) for word in given)
    return table.get(model) or table.get(_DATE.sub("", model))


def check_cap(model: str, prices: Prices | None, cap_usd: float | None) -> None:
    """Check that a cost limit comes with known prices.

    Raises:
        UserError: The prices are unknown.
    """
    if cap_usd is not None and prices is None:
        raise UserError(
            f"--autoresearch-cost {cap_usd:g}: the prices of {model} are unknown: give them in the ini file, such as "
            f"autoresearch_prices = {model}=3/15/0.30, in US dollars per million tokens"
        )


def _parse(word: str) -> tuple[str, Prices]:
    model, _, numbers = word.rpartition("=")
    try:
        prices = [float(number) for number in numbers.split("/")]
    except ValueError:
        prices = []
    if not model or len(prices) not in (2, 3) or not all(0 <= price < math.inf for price in prices):
        raise UserError(
            f"autoresearch_prices = {word}: write MODEL=INPUT/OUTPUT or MODEL=INPUT/OUTPUT/CACHE-READ in US dollars "
            "per million tokens, such as claude-opus-5-5=4/20/0.20"
        )
    return model, Prices(prices[0], prices[1], prices[2] if len(prices) == 3 else prices[0])
