"""What tokens cost: one table, the user's own words for it, and the arithmetic. Pure; knows no service.

A service bills by its own list. A price here that is too high stops a session early, one that is too low passes the
user's cap: where there is a choice, the higher one stands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_autoresearch.core.errors import UserError

WRITE_FACTOR = 1.25  # writing to the cache for five minutes, in input prices
LONG_WRITE_FACTOR = 2.0  # the same for an hour
SHORT_PROMPT_TOKENS = 100_000

_MILLION = 1_000_000
_DATE = re.compile(r"[-@]\d{8}$")


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for a million tokens.

    Attributes:
        input: Read at the full price.
        output: Written, thinking included.
        cache_read: Read from the prompt cache.
        short: What holds instead where a request reads at most 100,000 tokens; None where it makes no difference.
    """

    input: float
    output: float
    cache_read: float
    short: Prices | None = None

    def cost_usd(self, fresh: int, read: int, written: int, written_long: int, output: int) -> float:
        """Of one request.

        Args:
            fresh: Tokens read at the full price.
            read: Tokens read from the cache.
            written: Tokens written to the cache for five minutes.
            written_long: Tokens written to it for an hour.
            output: Tokens of the answer.
        """
        prices = self._of(fresh + read + written + written_long)
        write = written * WRITE_FACTOR + written_long * LONG_WRITE_FACTOR
        return (prices.input * (fresh + write) + prices.cache_read * read + prices.output * output) / _MILLION

    def most_usd(self, tokens: int, output: int, long_cache: bool) -> float:
        """The most that a request of so many tokens can cost: all of them written to the cache, all of its answer."""
        return self.cost_usd(0, 0, 0, tokens, output) if long_cache else self.cost_usd(0, 0, tokens, 0, output)

    def affordable(self, usd: float, tokens: int, long_cache: bool) -> int:
        """The longest answer, in tokens, that a request of `tokens` can be given without passing `usd`."""
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
    """The prices of a model; None where nobody knows them. A dated name is its undated model.

    Args:
        given: The user's words, MODEL=INPUT/OUTPUT or MODEL=INPUT/OUTPUT/CACHE-READ, which go before the table.
            Without the third number cached tokens count at the full price.

    Raises:
        UserError: A word is none of these.
    """
    table = KNOWN | dict(_parse(word) for word in given)
    return table.get(model) or table.get(_DATE.sub("", model))


def check_cap(model: str, prices: Prices | None, cap_usd: float | None) -> None:
    """A limit in dollars can be kept only where there are prices.

    Raises:
        UserError: There are none.
    """
    if cap_usd is not None and prices is None:
        raise UserError(
            f"--autoresearch-cost {cap_usd:g}: the prices of {model} are not known: give them in the ini file, such as "
            f"autoresearch_prices = {model}=3/15/0.30, in US dollars for a million tokens"
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
            "for a million tokens, such as claude-opus-5-5=4/20/0.20"
        )
    return model, Prices(prices[0], prices[1], prices[2] if len(prices) == 3 else prices[0])
