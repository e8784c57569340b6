"""What requests cost, by the table and by the user's own words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.proposers.prices import KNOWN, Prices, check_cap, prices_of


def test_a_dated_name_has_the_prices_of_its_model() -> None:
    assert prices_of("claude-haiku-4-5-20251001") == prices_of("claude-haiku-4-5") == Prices(1, 5, 0.10)
    assert prices_of("claude-sonnet-4-5@20250929") == KNOWN["claude-sonnet-4-5"]
    assert prices_of("claude-of-tomorrow") is None


def test_the_users_prices_go_before_the_table() -> None:
    words = ["claude-fable-5-2=1/2/0.5", "a=b=3/4"]
    assert prices_of("claude-fable-5-2", words) == Prices(1, 2, 0.5)
    assert prices_of("a=b", words) == Prices(3, 4, 3)
    assert prices_of("claude-opus-5-5", words) == KNOWN["claude-opus-5-5"]
    assert prices_of("free", ["free=0/0"]) == Prices(0, 0, 0)


@pytest.mark.parametrize("word", ["", "x", "x=", "=1/2", "x=1", "x=1/2/3/4", "x=a/b", "x=-1/2", "x=nan/1", "x=inf/1"])
def test_a_word_that_is_no_price_is_a_mistake_with_an_example(word: str) -> None:
    with pytest.raises(UserError, match=r"claude-opus-5-5=4/20/0\.20"):
        prices_of("x", [word])


def test_a_cap_needs_prices() -> None:
    check_cap("x", None, None)
    check_cap("x", Prices(1, 2, 3), 5.0)
    with pytest.raises(UserError, match=r"autoresearch_prices = x=3/15/0\.30"):
        check_cap("x", None, 5.0)


def test_every_kind_of_token_has_its_price() -> None:
    prices = Prices(8, 40, 0.2)
    million = 1_000_000
    assert prices.cost_usd(million, 0, 0, 0, 0) == 8
    assert prices.cost_usd(0, million, 0, 0, 0) == pytest.approx(0.2)
    assert prices.cost_usd(0, 0, million, 0, 0) == 10
    assert prices.cost_usd(0, 0, 0, million, 0) == 16
    assert prices.cost_usd(0, 0, 0, 0, million) == 40


def test_short_prompts_have_prices_of_their_own() -> None:
    prices = KNOWN["claude-haiku-5-5"]
    assert prices.cost_usd(50_000, 50_000, 0, 0, 1000) == pytest.approx((50_000 * 0.1 + 50_000 * 0.01 + 500) / 1e6)
    assert prices.cost_usd(50_000, 50_001, 0, 0, 1000) == pytest.approx((50_000 * 0.5 + 50_001 * 0.05 + 2500) / 1e6)


@given(
    st.sampled_from(list(KNOWN.values())),
    st.floats(0, 10),
    st.lists(st.integers(0, 200_000), min_size=4, max_size=4),
    st.booleans(),
    st.floats(0, 1),
)
def test_what_is_affordable_never_costs_more_than_there_is(
    prices: Prices, usd: float, counts: list[int], long_cache: bool, share: float
) -> None:
    fresh, read, written, written_long = counts
    if not long_cache:
        written, written_long = written + written_long, 0
    tokens = sum(counts)
    longest = prices.affordable(usd, tokens, long_cache)
    if longest > 0:
        cost = prices.cost_usd(fresh, read, written, written_long, int(longest * share))
        assert cost <= usd + 1e-9
        assert prices.most_usd(tokens, longest + 1, long_cache) > usd - 1e-9
