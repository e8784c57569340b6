"""An experiment that was overtaken often has its verdict before others keep anything."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.campaign.right_of_way import OFTEN, RightOfWay


@given(st.integers(1, 8), st.floats(0.1, 1.0), st.integers(0, 2**32))
def test_nobody_is_overtaken_more_often_than_the_lanes_allow(lanes: int, share: float, seed: int) -> None:
    """Runs end in any order, and this share of them beats their head; a keep is a new head."""
    draw = random.Random(seed)
    right = RightOfWay()
    head, new = 0, lanes
    lane_of = {lane: (lane, 0) for lane in range(lanes)}  # the number of its experiment, and the head it runs on
    waiting: set[int] = set()
    overtaken: dict[int, int] = {}

    def settle(lane: int, beats: bool) -> None:
        nonlocal head, new
        number, base = lane_of[lane]
        waiting.discard(lane)
        if beats and base != head:
            right.overtaken(number)
            overtaken[number] = overtaken.get(number, 0) + 1
            lane_of[lane] = number, head
        elif beats and right.waits(number):
            waiting.add(lane)
        else:
            right.ends(number)
            head += beats
            lane_of[lane], new = (new, head), new + 1

    for _ in range(300):
        settle(draw.choice([lane for lane in range(lanes) if lane not in waiting]), draw.random() < share)
        for other in sorted(waiting):
            settle(other, True)
        assert len(waiting) < lanes, "all wait, and nothing runs"
    assert max(overtaken.values(), default=0) <= OFTEN + lanes - 1


def test_the_first_one_that_was_overtaken_often_goes_first() -> None:
    right = RightOfWay()
    for number in (7, 7, 3, 3):
        right.overtaken(number)
    assert [right.waits(number) for number in (3, 7, 9)] == [True, False, True]
    right.ends(7)
    assert [right.waits(number) for number in (3, 9)] == [False, True]
    right.ends(3)
    assert not right.waits(9)
