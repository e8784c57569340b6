"""The experiments of a campaign as a table for programs: a DataFrame, or Parquet."""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_autoresearch.cli.repository import chosen
from pytest_autoresearch.cli.rows import document_of
from pytest_autoresearch.core.extras import need
from pytest_autoresearch.ledger.ratchet import Ratchet

_TIME = "finished_at"


def load_campaign(folder: str | Path = ".", tag: str | None = None) -> Any:
    """The experiments of a campaign, one row each, by number.

    The columns are those of `autoresearch results --format json`; a missing value is None or NaN.

    Args:
        folder: In the repository.
        tag: The campaign's name. The default is the campaign of the branch that is checked out, else the one that was
            worked on last.

    Returns:
        A `pandas.DataFrame` if pandas is installed, else a list with a dictionary for each row. `finished_at` is a time
        with its zone.

    Raises:
        UserError: There is no such campaign, or the folder is in no git repository.
    """
    ratchet = Ratchet(Path(folder).resolve())
    ratchet.tag = chosen(ratchet, tag)
    rows = [timed(document_of(record)) for record in ratchet.records()]
    if find_spec("pandas") is None:
        return rows
    return import_module("pandas").DataFrame(rows)


def parquet(documents: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as a Parquet file. A column without a value has the type of text.

    Raises:
        UserError: pyarrow is not installed.
    """
    need("harness", "pyarrow", "--format parquet", "; or take --format csv")
    arrow, writer = import_module("pyarrow"), import_module("pyarrow.parquet")
    names = list(dict.fromkeys(name for row in documents for name in row))
    rows = [timed(row) for row in documents]
    columns = {name: arrow.array([row.get(name) for row in rows]) for name in names}
    table = arrow.table(
        {name: one.cast(arrow.string()) if arrow.types.is_null(one.type) else one for name, one in columns.items()}
    )
    file = io.BytesIO()
    writer.write_table(table, file)
    return file.getvalue()


def timed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row, its time as a value of that type instead of text."""
    when = row.get(_TIME)
    return {**row, _TIME: datetime.datetime.fromisoformat(when)} if isinstance(when, str) else dict(row)
