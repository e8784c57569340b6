"""`autoresearch watch`: follow a running session from another terminal.

Reads the session's progress file and the records; the session does not notice.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.repository import Repository, here, tag_argument
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status
from pytest_autoresearch.core.history import chain, untried
from pytest_autoresearch.core.run import Progress
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.proposers import queue
from pytest_autoresearch.reports import summary
from pytest_autoresearch.session import live

_LOOK_SECONDS = 1.0
_LOG_SECONDS = 30.0  # between two frames without a terminal
_LAST = 5
_SHOWN = ("tag", "pid", "began", "written", "proposer", "left", "position", "lanes", "running")  # of the progress file
_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.-:=+*#"  # for terminals without block characters
_WIDE = 60
_COLOURS = {Status.KEEP: "green", Status.CRASH: "red"}


@dataclass(frozen=True, slots=True)
class Frame:
    """A snapshot of a session.

    Attributes:
        session: Its progress file; see `session.live`.
        records: Every experiment with a verdict.
        waiting: Descriptions of the next known proposals: those left by earlier sessions, then the queue.
    """

    session: dict[str, Any]
    records: list[Experiment]
    waiting: list[str]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `watch`."""
    tag_argument(parser, unnamed="the one whose session began last")
    parser.add_argument("--once", action="store_true", help="print one snapshot and exit; so does --json")
    parser.epilog = (
        "Ends with the session. Ctrl-C stops watching and does not disturb the session.\n"
        "exit status: 0; 1 if no session runs here."
    )


def command(given: argparse.Namespace) -> int:
    """0 if a session is running."""
    repository = here(given)
    watcher = Screen(repository)
    running = live.sessions(repository.settings.experiments_folder)
    if given.tag:
        running = [one for one in running if one["tag"] == given.tag]
    if not running:
        return _nothing(given, repository)
    frame = watcher.frame(running[0])
    if given.json:
        output.dump(document(frame))
    elif given.once:
        print("\n".join(lines(frame)))
    else:
        _follow(watcher, frame)
    return 0


def _nothing(given: argparse.Namespace, repository: Repository) -> int:
    if given.json:
        output.dump(None)
    else:
        which = f" of the campaign {output.line(given.tag)}" if given.tag else ""
        known = " `autoresearch results` lists earlier experiments." if repository.ratchet.campaigns() else ""
        print(f"no session{which} is running here: type `pytest --autoresearch` to begin one.{known}")
    return 1


def _follow(watcher: Screen, frame: Frame) -> None:
    """Draw until the session is over."""
    tag, said_at, recorded = frame.session["tag"], -math.inf, -1
    if output.terminal():
        print("\x1b[2J", end="")
    while True:
        if output.terminal():
            _draw(lines(frame))
        elif frame.session["recorded"] != recorded or time.monotonic() - said_at > _LOG_SECONDS:
            said_at, recorded = time.monotonic(), frame.session["recorded"]
            print("\n".join(lines(frame)), end="\n\n", flush=True)
        time.sleep(_LOOK_SECONDS)
        now = live.session(watcher.settings.campaign_artifacts(tag))
        if now is None:
            break
        frame = watcher.frame(now)
    print(f"the session is over: `autoresearch results --tag {output.line(tag)}` lists its experiments")


def _draw(shown: Sequence[str]) -> None:
    """Replace the frame before; lines that do not fit are left out."""
    size = shutil.get_terminal_size()
    fitting = shown[: max(size.lines - 2, 1)]
    print("\x1b[H" + "".join(f"{one}\x1b[K\n" for one in fitting) + "\x1b[J", end="", flush=True)


class Screen:
    """Takes snapshots of a repository's sessions; records are read again only when there are new ones."""

    def __init__(self, repository: Repository) -> None:
        self.settings = repository.settings
        self._repository = repository
        self._known: tuple[object, list[Experiment], list[Experiment]] = (None, [], [])

    def frame(self, session: dict[str, Any]) -> Frame:
        """One snapshot."""
        ratchet = self._repository.ratchet
        ratchet.tag = session["tag"]
        key = (session["tag"], session["recorded"])
        if self._known[0] != key:
            records = ratchet.records()
            self._known = (key, records, untried(records, ratchet.waiting()))
        _, records, owed = self._known
        waiting = [candidate.proposal.description for candidate in owed]
        if session["proposer"] == queue.QueueProposer.name:
            done = {record.proposal.source for record in records}
            patches = queue.untried(self.settings.experiments_folder / queue.FOLDER, done)
            waiting += [one_line(queue.described(patch, path.stem)[0]) for path, patch, _ in patches]
        running = [one["description"] for one in session["running"]]
        return Frame(session, records, [one for one in waiting if not any(said.endswith(one) for said in running)])


def document(frame: Frame) -> dict[str, object]:
    """The snapshot for programs."""
    best = _best(frame.records)
    return {
        **{name: frame.session[name] for name in _SHOWN},
        "experiments": sum(record.number != BASELINE for record in frame.records),
        "best": _short(best) if best else None,
        "waiting": frame.waiting,
        "last": [_short(record) for record in frame.records[-_LAST:]],
    }


def lines(frame: Frame) -> list[str]:
    """The snapshot for people; on a terminal, lines are cut to its width."""
    session, records = frame.session, frame.records
    best = _best(records)
    tried = sum(record.number != BASELINE for record in records)
    shown = [
        output.colour(
            _fit(f"campaign {session['tag']}, running for {output.duration(time.time() - session['began'])}"), "bold"
        ),
        _fit(f"this session: {session['position']['text']}"),
        _fit(f"{summary.plural(tried, 'experiment')} in the campaign; best: {summary.best_line([*records])}")
        if best
        else _fit("no baseline yet: its runs show how much the metric varies by itself"),
        "",
    ]
    for one in session["running"]:
        shown += _running(one, several=len(session["lanes"]) > 1)
    if frame.waiting:
        more = f"; and {len(frame.waiting) - _LAST} more" if len(frame.waiting) > _LAST else ""
        shown += ["", _fit(f"waiting: {'; '.join(output.line(one) for one in frame.waiting[:_LAST])}{more}")]
    if records:
        shown += ["", output.colour(_fit(summary.column_line(records[-1].metric_name)), "dim")]
    for record in records[-_LAST:]:
        ruling = record.verdict
        colour = _COLOURS.get(ruling.status, "") if ruling else ""
        shown.append(output.colour(_fit(summary.experiment_line(record)), colour))
    return shown


def _running(one: dict[str, Any], *, several: bool) -> list[str]:
    """One running experiment, with its lane if there are several, and with its loss curve if it has one."""
    now = Progress(
        one["phase"],
        one["step"],
        one["loss"],
        one["seconds"],
        one["remaining_seconds"],
        one["memory_mb"],
        one["run"],
        on_gpu=bool(one.get("on_gpu")),
        runs=one.get("runs"),
    )
    shown = [_fit(summary.progress_line(one["number"], one["description"], now, one["lane"] if several else None))]
    losses = [float(loss) for _, loss in one["curve"]]
    if len(losses) > 1:
        shown.append(f"     {sparkline(losses, _bars())}  loss {losses[0]:.4g} -> {losses[-1]:.4g}")
    return shown


def sparkline(values: Sequence[float], bars: str = _BARS, width: int = _WIDE) -> str:
    """The curve in one line of bar characters, each the mean of an equal share of the values."""
    count = min(len(values), width)
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    means = [math.fsum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    span = high - low
    if not 0 < span < math.inf:
        return bars[0] * count
    return "".join(bars[min(int((mean - low) / span * len(bars)), len(bars) - 1)] for mean in means)


def _bars() -> str:
    try:
        _BARS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return _PLAIN_BARS
    return _BARS


def _fit(text: str) -> str:
    said = output.plain(text).replace("\n", " ")
    return output.cut(said, shutil.get_terminal_size().columns - 1) if output.terminal() else said


def _best(records: Sequence[Experiment]) -> Experiment | None:
    kept = chain(records)
    return kept[-1] if kept else None


def _short(record: Experiment) -> dict[str, object]:
    ruling = record.verdict
    return {
        "number": record.number,
        "status": ruling.status if ruling else None,
        "metric_name": record.metric_name,
        "metric": record.metric,
        "gain": ruling.gain if ruling else None,
        "message": ruling.message if ruling else None,
        "description": record.proposal.description,
    }
