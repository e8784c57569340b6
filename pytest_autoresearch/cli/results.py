"""`autoresearch results`: list the experiments of a campaign, or of any log such as a `results.tsv`.

With filters; as a table for people, or as tsv, csv, JSON or Parquet for programs.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.cli import output, upstream
from pytest_autoresearch.cli.output import Column
from pytest_autoresearch.cli.repository import enter, here, tag_argument
from pytest_autoresearch.cli.rows import Row, first_and_best, row_of
from pytest_autoresearch.cli.tables import parquet
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Direction, Status
from pytest_autoresearch.core.text import shortened
from pytest_autoresearch.reports.summary import plural

_SAID = 200  # characters of a description in the table

FORMATS = ("table", "tsv", "csv", "json", "parquet")
_COLOURS = {Status.KEEP: "green", Status.CRASH: "red"}
_DONE = {Status.KEEP: "kept", Status.DISCARD: "discarded", Status.CRASH: "crashed"}
_WORDS, _WORD = 6, 20  # how many other words of verdicts are counted by name, and how much of each is shown
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BASELINE = "0000"
_FORMULA = ("=", "+", "-", "@")

_EPILOG = """examples:
  autoresearch results                        the campaign of this branch, or the last one
  autoresearch results --kept-only            only the keeps
  autoresearch results --top 5                the best five, kept or not
  autoresearch results --grep warmup          experiments about warmup
  autoresearch results --since 8h             since last night; also 22:30, or 2026-11-26
  autoresearch results --format csv > all.csv
  autoresearch results --format parquet > all.parquet
  autoresearch results ~/night/results.tsv    a file from upstream or from any fork

In the table, `change` is the difference to the best before, and `p` the probability that the
experiment is better than that, from all of its runs.

A file may be TSV, CSV, JSON, JSON lines or a Markdown table. Its columns are found by name, in any
order: commit, a metric, memory_gb or peak_vram_mb, status, description; others are shown, too. If the
wrong column is taken for the metric, name the right one with --metric. Whether a higher metric is
better is told by the file, by the metric's name, or by the verdicts; --direction settles it. Without
a campaign in this repository, its results.tsv is shown.

tsv, csv, json and parquet have more columns than results.tsv: number, reason, best, gain, margin,
probability, runs, seconds, cost_usd, proposer, the full commit and others. In csv, a text that a
spreadsheet would read as a formula starts with '.

exit status: 0; 1 if nothing matches the filters; 2 if there is no such campaign or file."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """A list of experiments before filtering.

    Attributes:
        rows: In the order of the experiments.
        metric_name: The heading of the metric.
        direction: Which way the metric improves; None if unknown.
        extra: Headings of a file's own columns.
        word: The name of a row, for counting.
        doubt: What was guessed or is not known about a file.
    """

    rows: list[Row]
    metric_name: str
    direction: Direction | None
    extra: tuple[str, ...] = ()
    word: str = "experiment"
    doubt: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `results`."""
    parser.epilog = _EPILOG
    tag_argument(parser, plain=False)
    parser.add_argument("--top", type=_count, metavar="N", help="the N with the best metric, best first")
    parser.add_argument("--kept-only", action="store_true", help="only keeps")
    parser.add_argument("--grep", metavar="TEXT", help="only with TEXT in description, hypothesis, verdict or area")
    parser.add_argument("--since", metavar="WHEN", help="only those that ended since then: 8h, 3d, 22:30 or 2026-11-26")
    parser.add_argument("--format", choices=FORMATS, default="table", help="output format (table); --json is json")
    parser.add_argument("--metric", metavar="NAME", help="the column of FILE that is the metric (found by name)")
    parser.add_argument(
        "--direction", type=Direction, choices=tuple(Direction), metavar="WAY",
        help="which way the metric of FILE improves: minimize or maximize (found by name)",
    )  # fmt: skip
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a results.tsv to read instead, or a TAG")


def command(given: argparse.Namespace) -> int:
    """Print the experiments; 1 if there are none."""
    enter(given)
    given.folder = Path()
    if given.file and not given.tag and _is_campaign(given):
        given.tag, given.file = str(given.file), None
    listing = _of_file(given) if given.file else _of_campaign(given)
    rows = _chosen(listing, given)
    if listing.doubt:
        print(output.line(f"autoresearch results: {listing.doubt}"), file=sys.stderr)
    shape = "json" if given.json else given.format
    if shape == "json":
        output.dump([row.document for row in rows])
    elif shape == "parquet":
        if sys.stdout.isatty():
            raise UserError("Parquet is no text: type `autoresearch results --format parquet > all.parquet`")
        sys.stdout.buffer.write(parquet([row.document for row in rows]))
    elif shape == "table":
        print(_table(rows, listing))
        print(output.colour(_account(rows, listing), "dim"))
    else:
        _separated(rows, listing, shape)
    return 0 if rows else 1


def _is_campaign(given: argparse.Namespace) -> bool:
    """Whether FILE is really a campaign's tag, as other commands take it."""
    if given.file.expanduser().exists():
        return False
    try:
        return str(given.file) in here(given).ratchet.campaigns()
    except UserError:
        return False


def _of_campaign(given: argparse.Namespace) -> _Listing:
    repository = here(given)
    tables = (folder / "results.tsv" for folder in (Path(), repository.root))
    table = next((path for path in tables if path.is_file()), None)
    if table and not given.tag and not repository.ratchet.campaigns():
        given.file = table
        return _of_file(given)
    for name in ("metric", "direction"):
        if getattr(given, name):
            raise UserError(f"--{name} is for a FILE: a campaign's records say it, so leave --{name} out")
    records = repository.records(given.tag)
    first = records[0]
    return _Listing([row_of(record) for record in records], first.metric_name, first.direction)


def _of_file(given: argparse.Namespace) -> _Listing:
    if given.tag:
        raise UserError("--tag names a campaign of this repository, FILE another table: leave one of them out")
    found = upstream.read(given.file.expanduser(), given.metric, given.direction)
    return _Listing(list(found.rows), found.metric_name or "metric", found.direction, found.extra, "row", found.doubt)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, 1 or more")
    return int(text)


# ------------------------------------------------------------------------------------------------ filters


def _chosen(listing: _Listing, given: argparse.Namespace) -> list[Row]:
    rows = listing.rows
    if given.since:
        after = moment_of(given.since, time.time())
        if any(row.finished_at is None for row in rows):
            raise UserError(f"{given.file} has no times: --since works only for the campaigns of a repository")
        rows = [row for row in rows if (row.finished_at or 0.0) >= after]
    if given.kept_only:
        rows = [row for row in rows if row.kept]
    if given.grep:
        sought = given.grep.casefold()
        rows = [row for row in rows if sought in row.sought.casefold()]
    if given.top:
        way = listing.direction
        if way is None:
            raise UserError("--top needs to know which way the metric improves: add --direction minimize or maximize")
        measured = [row for row in rows if row.metric is not None]
        rows = sorted(measured, key=lambda row: -way.gain(row.metric or 0.0, 0.0))[: given.top]
    return rows


def moment_of(text: str, now: float) -> float:
    """The time in seconds since the epoch: `2h` ago, a date, a time in the last 24 hours, or a date with a time.

    Raises:
        UserError: The text is none of these.
    """
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|m|h|d|w)", text.strip()):
        return now - float(ago[1]) * _UNITS[ago[2]]
    today = datetime.datetime.fromtimestamp(now)
    try:
        clock = datetime.time.fromisoformat(text)
    except ValueError:
        clock = None
    if clock is not None and ":" in text:
        then = datetime.datetime.combine(today.date(), clock)
        aware = then.timestamp()
        return aware if aware <= now else (then - datetime.timedelta(days=1)).timestamp()
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UserError(
            f"--since {text}: give a time ago such as 8h or 3d, a time of day such as 22:30, or a date such as "
            f"{today:%Y-%m-%d}"
        ) from None


# ------------------------------------------------------------------------------------------------ printing


def _table(rows: Sequence[Row], listing: _Listing) -> str:
    """The table for people, without empty columns; with lanes if there are several."""
    several = len({lane for row in listing.rows for lane in row.lanes.split(", ") if lane}) > 1
    about = [
        (Column("no.", right=True), [row.name for row in rows]),
        (Column("verdict"), [row.status for row in rows]),
        (Column(output.cut(listing.metric_name, 16), right=True), [row.shown for row in rows]),
        (Column("change", right=True), [_change(row) for row in rows]),
        (
            Column("P(better)", right=True),
            [f"{row.probability:.2f}" if row.probability is not None else "" for row in rows],
        ),
        (Column("runs", right=True), [str(row.runs) if row.runs and row.runs > 1 else "" for row in rows]),
        *([(Column("lane", right=True), [row.lanes for row in rows])] if several else []),
        (Column("memory", right=True), [output.memory(row.memory_mb) if row.memory_mb else "" for row in rows]),
        (Column("time", right=True), [output.duration(row.seconds) if row.seconds else "" for row in rows]),
        *((Column(name), [str(row.document.get(name, "")) for row in rows]) for name in listing.extra),
        (Column("description"), [shortened(output.line(row.said), _SAID) for row in rows]),
    ]
    return output.told(about, [_COLOURS.get(row.verdict, "") if row.verdict else "" for row in rows])


def _change(row: Row) -> str:
    return "" if row.metric is None or row.best is None else f"{row.metric - row.best:+.6f}"


def _account(rows: Sequence[Row], listing: _Listing) -> str:
    """The counts by verdict, and the metric of the first and the best keep."""
    readable = [row for row in listing.rows if row.status or row.metric is not None]
    counted = [row for row in readable if row.name != _BASELINE]
    count = Counter(row.status for row in counted)
    said = f"{plural(len(counted), listing.word)}: " + ", ".join(
        f"{count.pop(status, 0)} {done}" for status, done in _DONE.items()
    )
    bare = count.pop("", 0)
    named = [f"{number} {output.cut(word, _WORD)}" for word, number in count.most_common(_WORDS)]
    if left := sum(count.values()) - sum(number for _, number in count.most_common(_WORDS)):
        named.append(f"{left} with other words")
    if bare:
        named.append(f"{bare} without verdict")
    said = ", ".join([said, *named])
    if broken := len(listing.rows) - len(readable):
        said += f"; {plural(broken, 'line')} without verdict and metric"
    first, best = first_and_best(listing.rows, listing.direction)
    if first is not None and best is not None:
        said += f"; {listing.metric_name} {first.shown} -> {best.shown} ({best.name})"
    return output.line(said if len(rows) == len(listing.rows) else f"{len(rows)} shown of {said}")


def _separated(rows: Sequence[Row], listing: _Listing, shape: str) -> None:
    """Print for spreadsheets and scripts: a header line, then a line for each row, without escapes."""
    names = list(dict.fromkeys(name for row in listing.rows for name in row.document))
    texts: list[Sequence[object]] = [names, *([row.document.get(name) for name in names] for row in rows)]
    if shape == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows([[_alone(value) for value in one] for one in texts])
        return
    for one in texts:
        cells = map(_cell, one)
        # Many readers take a leading quote for the start of a quoted field and read on to the end of the file.
        print("\t".join(f"'{cell[1:]}" if cell.startswith('"') else cell for cell in cells))


def _cell(value: object) -> str:
    return "" if value is None else output.line(value)


def _alone(value: object) -> str:
    """The cell, marked so that a spreadsheet does not read text as a formula."""
    cell = _cell(value)
    return f"'{cell}" if isinstance(value, str) and cell.startswith(_FORMULA) else cell
