"""The keep rules: their thresholds, and how many runs they ask for. Pure: numbers and names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Credit:
    """Makes the threshold depend on the campaign's success: the more proposals are kept, the lower the threshold.

    A keep needs a probability of `1 - rate * (kept + 1) / (tried + start)`, or the rule's own threshold if that is
    higher. So the threshold rises quickly in a campaign whose proposals change nothing.

    Attributes:
        rate: How much the share of kept proposals lowers the threshold.
        start: A pseudo-count: the campaign counts as if one keep in so many proposals came before it.
    """

    rate: float
    start: float

    def asks(self, kept: int, tried: int) -> float:
        """The probability that a keep needs now."""
        return 1 - self.rate * (kept + 1) / (tried + self.start)


@dataclass(frozen=True, slots=True)
class Rule:
    """A keep rule: the thresholds for keeping and dropping, and the number of runs.

    A look is a decision after a confirmation.

    Attributes:
        name: The name in `--autoresearch-confirm`.
        keep: For each look, the probability of being better above which a candidate is kept. Empty: one run decides.
        drop: For each look except the last, the probability below which a candidate is dropped. After the last look,
            every candidate that is not kept is dropped.
        renew: Whether every new incumbent is run once more.
        slack: How much better than the incumbent the first run must be, in standard deviations of the residual.
        credit: If given, it may raise the threshold above `keep`.
    """

    name: str
    keep: tuple[float, ...] = ()
    drop: tuple[float, ...] = ()
    renew: bool = True
    slack: float = 0.0
    credit: Credit | None = None

    @property
    def looks(self) -> int:
        """The largest number of confirmations."""
        return len(self.keep)

    def threshold(self, look: int, kept: int, tried: int) -> float:
        """The probability above which a candidate is kept after `look` confirmations (1 or more)."""
        own = self.keep[min(look, len(self.keep)) - 1]
        return max(own, self.credit.asks(kept, tried)) if self.credit else own


OFF = Rule("off", renew=False)
STANDARD = Rule("standard", (0.88, 0.65), (0.40,), credit=Credit(3, 15))
STRICT = Rule("strict", (0.98, 0.95, 0.90), (0.40, 0.55))
LEAN = Rule("lean", (0.50,), slack=0.5, credit=Credit(6.8, 40))


# The share of proposals that are kept though they change nothing, measured by benchmarks/aa.py over several shares of
# the seed. A proposal of a batch is not kept itself.
_BY_CHANCE = {"batch": 0.0, "off": 0.039, "standard": 0.013, "strict": 0.007, "lean": 0.008}


def kept_by_chance(name: str) -> float:
    """The share of proposals that the rule keeps though they change nothing."""
    return _BY_CHANCE.get(name, _BY_CHANCE["standard"])


def rule_of(word: str) -> Rule:
    """The rule for a value of `--autoresearch-confirm`: a name, or the largest number of confirmations.

    For a number, the thresholds fall in equal steps from the standard rule's first to its last.

    Raises:
        ValueError: The word is neither.
    """
    named = {rule.name: rule for rule in (OFF, LEAN, STANDARD, STRICT)}
    if word in named:
        return named[word]
    if not (word.isascii() and word.isdecimal()) or int(word) < 1:
        raise ValueError(f"{word!r} is neither {', '.join(named)} nor a number of confirmations (1 or more)")
    looks = int(word)
    first, last = STANDARD.keep
    keep = tuple(round(first - (first - last) * look / max(looks - 1, 1), 6) for look in range(looks))
    return Rule(word, keep, STANDARD.drop * (looks - 1), credit=STANDARD.credit)
