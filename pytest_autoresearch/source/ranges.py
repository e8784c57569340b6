"""What values a constant may be given, judged from its name and the value that it has.

Pure: numbers in, numbers out. It knows nothing of sources, of samplers or of what has been tried. The first proposals
of a campaign come from here with nothing learned yet, so the ranges are those that a researcher would dare.
"""

from __future__ import annotations

import math

from pytest_autoresearch.source.constants import Value

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
    """The words of a name: ADAM_BETA2 is ADAM and BETA."""
    return {word.rstrip("0123456789") for word in name.split("_")}


def candidates(name: str, value: Value) -> tuple[Value, ...]:
    """The values that are worth trying around the present one, which is among them, in ascending order.

    Empty for a constant that is left alone: zeros, which give no scale, negative ints, which are sentinels, numerical
    guards under 1e-6, physical constants over 1e9, and names that are plainly no hyperparameters, such as SEED.
    """
    said = words(name)
    if said & _NOT_TUNED:
        return ()
    if isinstance(value, bool):
        return (False, True)
    found = _integers(value, said) if isinstance(value, int) else _floats(value, said)
    return tuple(sorted({*found, value})) if found else ()


def _floats(value: float, said: set[str]) -> set[float]:
    """Log-uniform from half to twice the value, in steps of a sixteenth of a doubling, nothing within 10%.

    A fraction goes by its odds v / (1 - v): near 1, as betas and momenta are, that is a search in 1 - v.
    """
    size = abs(value)
    if not 1e-6 <= size <= 1e9:
        return set()
    sign = math.copysign(1.0, value)
    factors = [2.0 ** (step / 16) for step in range(-16, 17) if abs(step) >= 3]
    if 0 < value < 1 and (said & _FRACTION or (value >= 0.9 and not said & _AMOUNT)):
        return {_fraction(value / (1 - value) * factor) for factor in factors} - {0.0, 1.0}
    return {sign * float(f"{size * factor:.2g}") for factor in factors}


def _fraction(odds: float) -> float:
    """The fraction of these odds, to two digits of the smaller of itself and what it lacks to 1."""
    fraction, rest = odds / (1 + odds), 1 / (1 + odds)
    return float(f"{fraction:.2g}") if fraction <= rest else round(1 - float(f"{rest:.2g}"), 12)


def _integers(value: int, said: set[str]) -> set[int]:
    """Half and twice a power of two, a quarter up and down for depths and small counts, else half to twice.

    The last go in steps that keep a number as round as it is: 384 is 3 * 128 and goes to 256 or 512, 1000 to 900.
    """
    if not 0 < value < 2**31:
        return set()
    if value < 16 or (value < 128 and said & _DEPTH):
        if said & _SIZE and value.bit_count() == 1 and value > 1:
            return {value // 2, value * 2}
        reach = max(1, value // 4)
        return set(range(max(1, value - reach), value + reach + 1)) - {value}
    if value.bit_count() == 1:
        return {value // 2, value * 2}
    low_bit = value & -value
    grain = max(low_bit if low_bit >= 8 else 1, 10 ** (len(str(value)) - 2))
    around = {round(value * 2.0 ** (step / 16) / grain) * grain for step in range(-16, 17)} - {value}
    return {other for other in around if value <= 2 * other <= 4 * value}
