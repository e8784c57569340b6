"""`autoresearch run`: one measurement of the current checkout, made by `measure.adhoc`."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.repository import Repository, configuration, here
from pytest_autoresearch.cli.signals import noted
from pytest_autoresearch.core.errors import Stopped
from pytest_autoresearch.core.run import Limits, Progress, Run
from pytest_autoresearch.measure import adhoc
from pytest_autoresearch.measure.advice import advice
from pytest_autoresearch.measure.limits import limits_of
from pytest_autoresearch.measure.setup import Equipment, equip
from pytest_autoresearch.reports import summary
from pytest_autoresearch.session import live
from pytest_autoresearch.session.timeouts import timeout_of

_INTERRUPTED = 130
_TAIL_LINES = 20
_FEW = 5
_TICK_SECONDS = 0.2

SEED = 42


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `run`."""
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help=f"AUTORESEARCH_SEED of the run ({SEED})")
    parser.add_argument(
        "--budget", type=_seconds, metavar="SECONDS", help="training seconds (autoresearch_budget, or the profile's)"
    )
    parser.epilog = (
        "Runs the training command on the current checkout, including uncommitted edits, with the sandbox, the limits\n"
        "and the scorer of an experiment. Type `git add` to include other new files; new editable files are always\n"
        "included. Nothing is committed, recorded or written to the checkout.\n"
        "exit status: 0; 1 if it crashed; 2 if it could not start."
    )


def command(given: argparse.Namespace) -> int:
    """1 if it crashed."""
    repository = here(given)
    settings, ratchet = repository.settings, repository.ratchet
    settings = replace(settings, budget_seconds=given.budget or settings.budget_seconds)
    equipment = equip(settings, ratchet)
    if live.sessions(settings.experiments_folder):
        print("note: a session is running here: two runs at a time distort each other's numbers", file=sys.stderr)
    limits = limits_of(settings, equipment.harness, timeout_of(configuration("timeout")))
    commit = adhoc.present(ratchet, settings.editable)
    edited = adhoc.changed(ratchet, commit)
    place, line = equipment.place(settings, ratchet), _Line()
    with noted() as signals, ThreadPoolExecutor(1, "run") as pool:
        future = pool.submit(
            adhoc.measure, ratchet, equipment.harness, place, commit, given.seed, limits, line.show, line.say
        )
        while not future.done():
            wait([future], timeout=_TICK_SECONDS)
            if signals:
                place.close()
                wait([future])
        line.clear()
        try:
            runs, log = future.result()
        except Stopped:
            return _INTERRUPTED
    if given.json:
        output.dump(_document(repository, equipment, limits, runs, log, edited))
    else:
        print(_said(repository, equipment, limits, runs, log, edited))
        if runs[-1].crash:
            for said in advice(runs[-1], settings, ratchet, equipment.sandbox.confines, of_commit=False):
                print(output.line(said))
    return 0 if runs[-1].crash is None else 1


class _Line:
    """The run's progress on one line of a terminal; nothing without a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def show(self, now: Progress) -> None:
        if self._shown:
            text = summary.progress_text(now)
            print(
                f"\r{output.cut(text, shutil.get_terminal_size().columns - 1)}\x1b[K",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def say(self, text: str) -> None:
        self.clear()
        print(output.line(text), file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _document(
    repository: Repository, equipment: Equipment, limits: Limits, runs: tuple[Run, ...], log: Path, edited: list[str]
) -> dict[str, object]:
    """The measurement for programs."""
    last, settings = runs[-1], repository.settings
    return {
        "metric_name": settings.metric,
        "direction": settings.direction,
        "metric": last.metric,
        "crash": {"reason": last.crash.reason, "message": last.crash.message} if last.crash else None,
        "seed": last.seed,
        "budget_seconds": limits.budget_seconds,
        "training_seconds": last.training_seconds,
        "startup_seconds": last.startup_seconds,
        "score_seconds": last.score_seconds,
        "total_seconds": last.total_seconds,
        "peak_memory_mb": last.peak_memory_mb,
        "memory_from": last.memory_from,
        "metrics": last.metrics,
        "scored": last.scored or {},
        "variables": last.variables,
        "uncommitted": edited,
        "sandbox": equipment.sandbox.words,
        "log": str(log),
        "log_tail": _tail(last) if last.crash else None,
    }


def _said(
    repository: Repository, equipment: Equipment, limits: Limits, runs: tuple[Run, ...], log: Path, edited: list[str]
) -> str:
    """The measurement for people."""
    last, settings = runs[-1], repository.settings
    limit = "" if math.isinf(limits.memory_limit_mb) else f" of {output.memory(limits.memory_limit_mb)}"
    about = [
        ("seed", last.seed),
        ("training", f"{last.training_seconds:.1f} s of {limits.budget_seconds:g} s"),
        ("startup", output.duration(last.startup_seconds) if last.startup_seconds else None),
        ("scoring", output.duration(last.score_seconds) if last.score_seconds else None),
        ("memory", f"{output.memory(last.peak_memory_mb)}{limit}"),
        ("needed", " ".join(f"{name}={value}" for name, value in last.variables.items()) or None),
        ("sandbox", equipment.sandbox.words),
        ("uncommitted", _few(edited) or None),
        ("log", os.path.relpath(log)),
    ]
    if last.crash:
        crash = output.colour(f"crash  {output.line(last.crash)}", "red")
        return "\n".join([crash, *[f"  | {line}" for line in _tail(last).splitlines()], output.pairs(about)])
    others = [
        (f"{whose}{name}", f"{value:g}")
        for whose, numbers in (("scorer: ", last.scored or {}), ("", last.metrics))
        for name, value in numbers.items()
        if name not in (settings.metric, "training_seconds", "total_seconds")
    ]
    return output.pairs([(settings.metric, f"{last.metric:.6f}"), *about, *others])


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return f"{', '.join(names[:_FEW])}{more}"


def _tail(run: Run) -> str:
    return "\n".join(output.plain(run.log).splitlines()[-_TAIL_LINES:])


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("give a number of seconds, more than 0")
    return value
