"""Draws the rows that a campaign is measured on from the pool of all validation rows.

With a campaign's secret, nobody can say before a run which rows it will be measured on, although the pool is public
text. Pure, except that it reads the secret from the environment. Knows nothing of files or models.
"""

import hashlib
import os
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.errors import HarnessError

SECRET = "AUTORESEARCH_SECRET"
"""The variable with the campaign's secret: 64 hexadecimal digits."""

POOL_FACTOR, LEAST_POOL_TOKENS = 4, 2**22
"""The pool has this many times the tokens of the metric, and at least so many tokens, if there is so much text."""

# In a small pool, the metric leaves one row in this many to the audit, and as many to the look for memorised text.
_SHARE = 5
# Of the rows of the metric, one in this many is enough to see a difference; but few rows show little.
_FRESH_SHARE, _LEAST_FRESH_SHARE, _ENOUGH_FRESH = 20, 4, 64


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows of a pool have each use; no row has two.

    Attributes:
        metric: For the metric.
        audit: For the audit, which no verdict uses.
        fresh: For the look for memorised text, beside the metric; as many again are beside the audit.
    """

    metric: int
    audit: int
    fresh: int


def pool_tokens(evaluation_tokens: int) -> int:
    """Tokens that a pool should have."""
    return max(POOL_FACTOR * evaluation_tokens, LEAST_POOL_TOKENS)


def counts(pool: int, wanted: int) -> Counts:
    """The use of a pool of so many rows.

    Args:
        wanted: Rows that the metric should have, and the audit.
    """
    metric = min(wanted, pool - 2 * (pool // _SHARE))
    left = pool - metric
    enough = max(metric // _FRESH_SHARE, min(metric // _LEAST_FRESH_SHARE, _ENOUGH_FRESH))
    fresh = min(enough, left // _LEAST_FRESH_SHARE)
    return Counts(metric, min(wanted, left - 2 * fresh), fresh)


def order(pool: int, secret: bytes) -> npt.NDArray[np.int64]:
    """The numbers of all rows of a pool in the order that the secret gives: int64 [pool].

    The order of keyed hashes, so that knowing some of it tells nothing of the rest.
    """
    keyed = [hashlib.blake2b(number.to_bytes(8, "little"), key=secret).digest() for number in range(pool)]
    return np.array(sorted(range(pool), key=keyed.__getitem__), dtype=np.int64)


def metric_rows(pool: int, wanted: int, secret: bytes) -> npt.NDArray[np.int64]:
    """The rows for the metric."""
    return order(pool, secret)[: counts(pool, wanted).metric]


def audit_rows(pool: int, wanted: int, secret: bytes) -> npt.NDArray[np.int64]:
    """The rows for the audit."""
    shares = counts(pool, wanted)
    return order(pool, secret)[shares.metric :][: shares.audit]


def fresh_rows(pool: int, wanted: int, secret: bytes, audit: bool = False) -> npt.NDArray[np.int64]:
    """Rows that no number of a verdict comes from: those for the look beside the metric, or beside the audit."""
    shares = counts(pool, wanted)
    first = shares.metric + shares.audit + (shares.fresh if audit else 0)
    return order(pool, secret)[first:][: shares.fresh]


def secret_of_environment() -> bytes:
    """The campaign's secret; empty without one, as by hand: then everybody can draw the same rows.

    Raises:
        HarnessError: The variable has another form.
    """
    text = os.environ.get(SECRET, "")
    if text and not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise HarnessError(
            f"{SECRET} is not 64 hexadecimal digits; unset it, or set it to what "
            "`python -c 'import secrets; print(secrets.token_hex(32))'` prints."
        )
    return bytes.fromhex(text)
