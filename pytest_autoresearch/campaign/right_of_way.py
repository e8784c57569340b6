"""Which experiment's verdict comes first, so that none is overtaken by other lanes' keeps again and again. Pure.

A candidate that beats a head which is no longer the head is merged into the new one and measured again. With many
lanes that could happen to it as often as others keep something. So after a few times others' keeps wait for it.
"""

from __future__ import annotations

from collections import Counter

OFTEN = 2  # so often an experiment is overtaken before others wait for it


class RightOfWay:
    """The experiments that were overtaken often, the first one first.

    An experiment is overtaken at most `OFTEN` times, and once more for each experiment that had the right before it.
    """

    def __init__(self) -> None:
        self._overtaken: Counter[int] = Counter()
        self._first: dict[int, None] = {}  # in the order in which they were overtaken so often

    def overtaken(self, number: int) -> None:
        """The experiment is measured again on a later head."""
        self._overtaken[number] += 1
        if self._overtaken[number] >= OFTEN:
            self._first.setdefault(number)

    def waits(self, number: int) -> bool:
        """Whether a keep of this experiment waits for the verdict of another one."""
        return next(iter(self._first.copy()), number) != number

    def ends(self, number: int) -> None:
        """The experiment has its verdict, or is another proposal from now on."""
        self._overtaken.pop(number, None)
        self._first.pop(number, None)
