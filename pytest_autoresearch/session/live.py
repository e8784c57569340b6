"""The progress file of a running session, for `autoresearch watch` in another terminal.

The file is only a view: it may be missing or stale, and no error with it reaches the session. It holds the progress of
running experiments; verdicts are in the records.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pytest_autoresearch.core.artifacts import Artifacts, campaigns
from pytest_autoresearch.core.experiment import BASELINE
from pytest_autoresearch.core.run import Progress
from pytest_autoresearch.reports.summary import run_words

if TYPE_CHECKING:
    from pytest_autoresearch.campaign.campaign import Campaign
    from pytest_autoresearch.campaign.in_flight import InFlight
    from pytest_autoresearch.reports.position import Position

_EVERY_SECONDS = 0.5
_STALE_SECONDS = 15.0  # after which a session on another machine counts as ended
_MOST_POINTS = 240  # of a curve: more than a terminal has columns


class Live:
    """Writes the progress file of one session.

    Args:
        artifacts: The campaign's files. The first run creates the folder; nothing is written before.
    """

    def __init__(self, campaign: Campaign, artifacts: Artifacts) -> None:
        self._campaign = campaign
        self._file = artifacts.live
        self._curves: dict[tuple[int, str], list[tuple[int, float]]] = {}
        self._began = time.time()
        self._written = -math.inf
        self._wrote = False

    def show(self, where: Position) -> None:
        """Write the session's progress."""
        with contextlib.suppress(Exception):  # a view must not end the session
            under_way = [(flight, lane, now) for flight in self._campaign.flights for lane, now in flight.by_lane]
            self._listen([(flight.number, now) for flight, _, now in under_way])
            if time.monotonic() - self._written >= _EVERY_SECONDS and self._file.parent.is_dir():
                self._written = time.monotonic()
                self._write(self._document(under_way, where))

    def close(self) -> None:
        """Remove the file at the end of the session."""
        if self._wrote:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)

    def _listen(self, under_way: Sequence[tuple[int, Progress]]) -> None:
        """Extend the curves of active runs and forget those of ended ones."""
        runs = {(number, now.run) for number, now in under_way}
        self._curves = {run: points for run, points in self._curves.items() if run in runs}
        for number, now in under_way:
            points = self._curves.setdefault((number, now.run), [])
            if now.phase == "proposing":
                points.clear()
            if now.step is None or now.loss is None or not math.isfinite(now.loss):
                continue
            if points and now.step <= points[-1][0]:
                if now.step < points[-1][0]:  # another run under the same name
                    points.clear()
                else:
                    continue
            points.append((now.step, now.loss))
            if len(points) > _MOST_POINTS:
                del points[1:-1:2]

    def _document(
        self, under_way: Iterable[tuple[InFlight, int | None, Progress]], where: Position
    ) -> dict[str, Any]:  # fmt: skip
        campaign = self._campaign
        return {
            "tag": campaign.ratchet.tag,
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "machine": platform.node(),
            "began": self._began,
            "written": time.time(),
            "proposer": campaign.settings.proposer,
            "recorded": len(campaign.ledger.records),
            "left": where.waiting,
            "position": {
                "text": where.sentence,
                "begun": where.begun,
                "seconds_left": where.seconds_left,
                "cost_usd": where.cost_usd,
            },
            "lanes": [str(lane) for lane in campaign.lanes],
            "running": [
                {
                    "number": flight.number,
                    "lane": lane,
                    "description": flight.description,
                    "phase": now.phase,
                    "run": now.run,
                    "runs": now.runs,
                    "step": now.step,
                    "loss": now.loss if now.loss is not None and math.isfinite(now.loss) else None,
                    "seconds": now.seconds,
                    "remaining_seconds": now.remaining_seconds,
                    "memory_mb": now.memory_mb,
                    "on_gpu": now.on_gpu,
                    "curve": self._curves.get((flight.number, now.run), []),
                }
                for flight, lane, now in under_way
            ],
        }

    def _write(self, document: Mapping[str, Any]) -> None:
        """Write the whole file atomically, for concurrent readers."""
        part = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        part.write_text(json.dumps(document))
        part.replace(self._file)
        self._wrote = True


def session(artifacts: Artifacts) -> dict[str, Any] | None:
    """The progress file of a campaign; None if no session runs or it has not written yet."""
    try:
        document: dict[str, Any] = json.loads(artifacts.live.read_text())
        return document if _is_alive(document) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sessions(experiments: Path) -> list[dict[str, Any]]:
    """The progress files of all running sessions of a repository, the latest session first.

    Args:
        experiments: The folder of acceptance rules.
    """
    found = map(session, campaigns(experiments))
    return sorted((one for one in found if one is not None), key=lambda one: -float(one["began"]))


def baseline_under_way(experiments: Path, tag: str) -> str:
    """The sentence about a running session that has recorded nothing yet; empty if there is none.

    Args:
        experiments: The folder of acceptance rules.
        tag: Of the campaign; empty for any.
    """
    for one in sessions(experiments):
        if not one["recorded"] and tag in ("", one["tag"]):
            words = [run_words(now["run"], now["runs"]) for now in one["running"] if now["number"] == BASELINE]
            which = f" ({words[0]})" if words and words[0] else ""
            return (
                f"the campaign {one['tag']} has no result yet: its baseline is running in process {one['pid']}{which}; "
                "`autoresearch watch` follows it"
            )
    return ""


def _is_alive(document: Mapping[str, Any]) -> bool:
    """Whether the session still runs: checked by its process on this machine, by the file's age on another."""
    if document["machine"] != platform.node():
        return time.time() - float(document["written"]) < _STALE_SECONDS
    try:
        return abs(psutil.Process(int(document["pid"])).create_time() - float(document["started"])) < 1.0
    except psutil.Error:
        return False
