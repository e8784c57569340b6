"""`progress.png`: a campaign as one picture, for READMEs and summaries.

Drawn by matplotlib, from the extra `report`. Its import takes a second, so it is imported only when drawing.
"""

from __future__ import annotations

import importlib.util
import os
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import BASELINE, Direction, Experiment, Status
from pytest_autoresearch.keeprule.replicates import levels
from pytest_autoresearch.reports.plain import line as plain_line
from pytest_autoresearch.reports.points import Point, kept, limits, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "progress.png needs matplotlib: type `pip install 'pytest-autoresearch[report]'`"
_INK, _MUTED, _KEEP, _DISCARD, _CRASH = "#191b1f", "#5b616b", "#0069ac", "#b4b8bf", "#b54708"
_SIZE, _DPI = (11.0, 5.5), 160
_NAMED = 9  # gains labelled with their description, largest first
_MANY = 400


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(records: Sequence[Experiment], path: Path) -> None:
    """Draw the campaign into the file.

    Args:
        records: Its experiments, by number; those without a verdict are skipped.
        path: Replaced when the picture is complete.

    Raises:
        UserError: matplotlib is not installed.
        OSError: The file cannot be written.
    """
    if not available():
        raise UserError(MISSING)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    if (engine := figure.get_layout_engine()) is not None:
        engine.set(w_pad=0.15, h_pad=0.15)  # type: ignore[call-arg]
    axes = figure.add_subplot()
    shown = points(records)
    _points(axes, shown, records[0].direction if records else Direction.MINIMIZE)
    _frame(axes, shown, records)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # matplotlib warns of characters that the font lacks
            figure.savefig(part, format="png", metadata={"Software": "pytest-autoresearch"})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _points(axes: Axes, shown: Sequence[Point], direction: Direction) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = limits(shown, direction)
    crashes = [point.number for point in shown if point.status is Status.CRASH]
    strip = 0.09 * (high - low) if crashes else 0.0
    axes.set_ylim(low - strip, high)
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    numbers = [point.number for point in shown]
    axes.set_xlim(-0.015 * max(numbers, default=1) - 0.5, max(numbers, default=1) * 1.015 + 0.5)
    if strip:
        axes.axhspan(low - strip, low, color="#f8f3ef", zorder=0, lw=0)
        axes.plot(
            crashes, [low - strip / 2] * len(crashes), "x", color=_CRASH, ms=5.5, mew=1.4, label="crashed", zorder=3
        )
    line = [(point.number, point.best) for point in shown if point.best is not None]
    if line:
        axes.step(*zip(*line, strict=True), where="post", color=_KEEP, lw=1.8, label="best so far", zorder=4)
    many = len(shown) > _MANY
    for status, colour, size, name in ((Status.DISCARD, _DISCARD, 4, "discarded"), (Status.KEEP, _KEEP, 7, "kept")):
        some = [point for point in shown if point.status is status and point.metric is not None]
        if not some:
            continue
        xs, ys = [point.number for point in some], [min(max(point.metric or 0.0, low), high) for point in some]
        barred = [point for point in some if point.error is not None and low <= (point.metric or 0.0) <= high]
        if barred:
            axes.errorbar(
                [point.number for point in barred], [point.metric or 0.0 for point in barred],
                yerr=[point.error or 0.0 for point in barred], fmt="none", ecolor=colour, elinewidth=0.9,
                capsize=0 if many else 2, alpha=0.6, zorder=2,
            )  # fmt: skip
        axes.plot(
            xs, ys, "o", color=colour, ms=size / 2 if many else size, mec="white", mew=0.4 if many else 0.9,
            label=name, zorder=5 if status is Status.KEEP else 1, clip_on=status is not Status.KEEP,
        )  # fmt: skip
    _names(axes, shown, direction)


def _names(axes: Axes, shown: Sequence[Point], direction: Direction) -> None:
    """Label the largest gains with their descriptions, slanted into the empty side of the line."""
    from matplotlib.patheffects import withStroke

    up = 1 if direction is Direction.MINIMIZE else -1
    width = max(shown[-1].number, 1) if shown else 1
    gains = [point for point in shown if point.status is Status.KEEP and point.metric is not None and point.gain]
    taken: list[int] = []
    for point in sorted(gains, key=lambda one: one.gain or 0.0, reverse=True):
        if (point.gain or 0.0) <= 0 or len(taken) == _NAMED:
            break
        if any(abs(point.number - other) < 0.04 * width for other in taken):
            continue
        taken.append(point.number)
        axes.annotate(
            textwrap.shorten(plain_line(point.text), 38, placeholder="…").replace("$", r"\$"),
            (point.number, point.metric or 0.0), xytext=(5, 8 * up), textcoords="offset points", rotation=28 * up,
            rotation_mode="anchor", fontsize=8, color=_INK, ha="left", va="bottom" if up > 0 else "top", zorder=6,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _frame(axes: Axes, shown: Sequence[Point], records: Sequence[Experiment]) -> None:
    line = levels(records)
    name = plain_line(records[0].metric_name) if records else ""
    better = "lower" if records and records[0].direction is Direction.MINIMIZE else "higher"
    tried = sum(point.number != BASELINE for point in shown)
    bare = sum(point.status is Status.DISCARD and point.metric is None for point in shown)
    left_out = f" (not drawn: {bare:,} without a metric, stopped early)" if bare else ""
    bars = "; bars are one standard error" if any(point.error is not None for point in shown) else ""
    tag = plain_line(records[0].tag) if records else ""
    change = f": {line[0]:.6g} → {line[-1]:.6g}" if len(line) > 1 else ""
    axes.set_title(
        f"{tag} · {name}{change}".replace("$", r"\$"), loc="left", fontsize=14,
        color=_INK, pad=22, fontweight="bold",
    )  # fmt: skip
    axes.text(
        0, 1.025, f"{tried:,} experiment{'s' * (tried != 1)}, {kept(shown):,} kept; {better} is better{bars}",
        transform=axes.transAxes, fontsize=9.5, color=_MUTED,
    )  # fmt: skip
    axes.set_xlabel(f"experiment{left_out}", color=_MUTED)
    axes.set_ylabel(name.replace("$", r"\$"), color=_MUTED)
    axes.tick_params(colors=_MUTED, length=3)
    axes.grid(axis="y", color="#ececE8", zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#d5d5d0")
    if shown:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, frameon=False, fontsize=9.5, labelcolor=_MUTED,
            handletextpad=0.5, columnspacing=1.4,
        )  # fmt: skip
