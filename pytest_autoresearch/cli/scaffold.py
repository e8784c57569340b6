"""The texts that `autoresearch init` writes: the charter, the acceptance rule, the configuration, ignored files.

Pure, except that the workflow is read from a file of this package.
"""

from __future__ import annotations

import json
import keyword
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from textwrap import dedent

from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.settings import Settings

Value = str | tuple[str, ...]


def charter(settings: Settings) -> str:
    """`program.md`."""
    way = "low" if settings.direction is Direction.MINIMIZE else "high"
    command, metric = shlex.join(settings.command), settings.metric
    where = f"`{command}` prints it at its end, as `METRIC {metric}=17.5`"
    if settings.describe:
        where = f"the harness measures it after `{command}`"
    files = ", ".join(f"`{path}`" for path in settings.editable)
    return dedent(
        f"""\
        # The research program

        Every proposer reads this page first. Edit it at any time, also while a campaign runs.

        ## The goal

        Make `{metric}` as {way} as possible: {where}.

        ## What you may edit

        {files}. Nothing else changes.

        ## What counts

        - A gain must be larger than the noise between two runs of the same program. Look for large effects.
        - Of two programs with the same `{metric}`, the simpler one is better.
        - One idea at a time, with a one-line description and the reason why it should help.

        ## Where to look

        Write here what you would try first, one idea per line.

        ## What not to do

        - Do not change the meaning of `{metric}` or how it is measured.
        - Do not skip work that the current program does.
        """
    )


def rule_name(metric: str) -> str:
    """The file of the acceptance rule."""
    return f"test_{re.sub(r'[^A-Za-z0-9_]', '_', metric)}.py"


def rule(metric: str, direction: Direction) -> str:
    """The acceptance rule."""
    function = re.sub(r"[^A-Za-z0-9_]", "_", metric)
    attribute = metric if metric.isidentifier() and not keyword.iskeyword(metric) else "metric"
    better = "< experiment.best -" if direction is Direction.MINIMIZE else "> experiment.best +"
    return dedent(
        f'''\
        """The acceptance rule: an experiment is kept if this test passes. Add asserts to demand more."""


        def test_{function}_improves(experiment):
            assert experiment.training_seconds <= experiment.budget_seconds
            assert experiment.peak_memory_mb <= experiment.memory_limit_mb
            assert experiment.{attribute} {better} experiment.margin
        '''
    )


def configuration(values: Mapping[str, Value], toml: bool) -> list[str]:
    """A line for each ini key, in TOML or ini syntax."""
    if toml:
        return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return [f"{key} = {value if isinstance(value, str) else _words(value)}" for key, value in values.items()]


def ignored(experiments: str) -> tuple[str, ...]:
    """Files and folders that sessions and Python write into the repository.

    Args:
        experiments: The folder of acceptance rules.
    """
    return "__pycache__/", "results.tsv", "results.xml", "report.html", "progress.png", f"{experiments}/runs/"


def workflow() -> str:
    """`autoresearch.yml`, for GitHub Actions."""
    return (resources.files("pytest_autoresearch") / "templates" / "autoresearch.yml").read_text("utf-8")


def _words(values: Sequence[str]) -> str:
    return shlex.join(values) if any(re.search(r"[\s'\"\\]", value) for value in values) else " ".join(values)
