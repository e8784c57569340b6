"""The values that a search may try for a constant: those of the user's range, else what its name and value suggest.

Pure: numbers in, numbers out. Knows nothing of source code, samplers or earlier experiments. At the start of a campaign
nothing is known about good values, so the suggested ranges are moderate: values that a researcher would try.
"""

from __future__ import annotations

import math

from pytest_autoresearch.source.constants import Value
from pytest_autoresearch.source.stated_ranges import Choices, Interval, Range

_NOT_TUNED = frozenset(
    {
        *(
            "BOS",
            "BUDGET",
            "BYTES",
            "CHECKPOINT",
            "COMPILE",
            "CUDA",
            "DEADLINE",
            "DEBUG",
            "DIR",
            "EOS",
            "EVAL",
            "FLOPS",
        ),
        *("GB", "GPUS", "HOURS", "ID", "IGNORE", "INDEX", "LOG", "MB", "MINUTES", "PAD", "PATH", "PORT", "PRINT"),
        *("PROFILE", "RANK", "REPORT", "SAVE", "SECONDS", "SEED", "TEST", "THREADS", "TIMEOUT", "VAL", "VERBOSE"),
        *("VERSION", "VOCAB", "WORKERS"),
    }
)
_FRACTION = frozenset({"BETA", "DROPOUT", "EMA", "FRAC", "FRACTION", "MOMENTUM", "PROB", "RATIO"})
_AMOUNT = frozenset({"CAP", "CLIP", "GAIN", "INIT", "LR", "RATE", "SCALE", "STD"})
_SIZE = frozenset({"BATCH", "CHANNELS", "DIM", "DIVISOR", "EMBD", "HEAD", "HEADS", "HIDDEN", "SIZE", "WIDTH", "WINDOW"})
_DEPTH = frozenset({"DEPTH", "LAYER", "LAYERS"})


def words(name: str) -> set[str]:
    """The words of a name, without digits: ADAM_BETA2 and --adam-beta2 give ADAM and BETA; of a path, its last part."""
    last = name.rpartition(":")[2].rpartition(".")[2].lstrip("-").replace("-", "_").upper()
    return {word.rstrip("0123456789") for word in last.split("_")}


def candidates(name: str, value: Value, stated: Range | None = None) -> tuple[Value, ...]:
    """The values worth trying, in ascending order, including the current value.

    Empty for constants that are not tuned: zeros (they give no scale), negative ints (sentinels), values under 1e-6
    (numerical guards) or over 1e9 (physical constants), and names that are not hyperparameters, such as SEED. Texts
    have the order of their choices.

    Args:
        stated: The user's range, which is taken as it is.
    """
    match stated:
        case Choices(values):
            found = dict.fromkeys((*values, value) if values else ())
            return tuple(found) if isinstance(value, str) else tuple(sorted(found))
        case Interval() if not isinstance(value, str):
            return tuple(sorted({*stated.grid(isinstance(value, int)), value}))
    said = words(name)
    if said & _NOT_TUNED or isinstance(value, str):
        return ()
    if isinstance(value, bool):
        return (False, True)
    suggested = _integers(name, value) if isinstance(value, int) else _floats(name, value)
    return tuple(sorted({*suggested, value})) if suggested else ()


def is_fraction(name: str, value: float) -> bool:
    """Whether a float is searched by its odds, as betas, momenta and shares are."""
    said = words(name)
    return 0 < value < 1 and bool(said & _FRACTION or (value >= 0.9 and not said & _AMOUNT))


def is_small(name: str, value: int) -> bool:
    """Whether a whole number is varied in steps of one, as depths and small counts are."""
    said = words(name)
    power = bool(said & _SIZE) and value.bit_count() == 1 and value > 1
    return (value < 16 or (value < 128 and bool(said & _DEPTH))) and not power


def roundness(value: int) -> int:
    """The unit in which a whole number is varied, so that it stays as round as it is: 384 = 3 * 128 gives 128."""
    low_bit = value & -value
    return max(low_bit if low_bit >= 8 else 1, int(10 ** (len(str(value)) - 2)))


def _floats(name: str, value: float) -> set[float]:
    """Log-uniform from half to twice the value, in steps of a factor of 2^(1/16), without values within 10%.

    For a fraction v, the odds v / (1 - v) are scaled instead. Near 1, as for betas and momenta, this searches in 1 - v.
    """
    size = abs(value)
    if not 1e-6 <= size <= 1e9:
        return set()
    sign = math.copysign(1.0, value)
    factors = [2.0 ** (step / 16) for step in range(-16, 17) if abs(step) >= 3]
    if is_fraction(name, value):
        return {fraction(value / (1 - value) * factor) for factor in factors} - {0.0, 1.0}
    return {sign * float(f"{size * factor:.2g}") for factor in factors}


def fraction(odds: float) -> float:
    """The fraction with these odds, where v or 1 - v, whichever is smaller, is rounded to two digits."""
    fraction, rest = odds / (1 + odds), 1 / (1 + odds)
    return float(f"{fraction:.2g}") if fraction <= rest else round(1 - float(f"{rest:.2g}"), 12)


def _integers(name: str, value: int) -> set[int]:
    """Depths and small counts: up to a quarter less or more. Powers of two: half and twice. Others: half to twice.

    The others keep their roundness: 384 = 3 * 128 goes to 256 or 512, and 1000 goes to 900.
    """
    if not 0 < value < 2**31:
        return set()
    if is_small(name, value):
        reach = max(1, value // 4)
        return set(range(max(1, value - reach), value + reach + 1)) - {value}
    if value.bit_count() == 1:
        return {value // 2, value * 2}
    grain = roundness(value)
    around = {round(value * 2.0 ** (step / 16) / grain) * grain for step in range(-16, 17)} - {value}
    return {other for other in around if value <= 2 * other <= 4 * value}
