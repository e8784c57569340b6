"""What an acceptance rule reads: an experiment, with every number that its training printed as an attribute."""

from __future__ import annotations

import unicodedata
from typing import Any

from pytest_autoresearch.core.experiment import Experiment


class Measured:
    """An experiment as a test asks for it: `experiment.val_bpb` and `experiment.mfu_percent` read as they are printed.

    What the experiment itself has comes first: fields, and properties such as `best` and `margin`. A name that is no
    Python name is read as `experiment["recall@1"]`. The scorer's numbers are only in the mapping `experiment.scored`,
    so that training cannot print one of them.
    """

    __slots__ = ("_experiment",)

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    def __repr__(self) -> str:
        return repr(self._experiment)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # Python asking what kind of object this is
            raise AttributeError(name)
        experiment = self._experiment
        if hasattr(experiment, name):
            return getattr(experiment, name)
        printed = {**experiment.metrics, experiment.metric_name: experiment.metric}
        # Python normalizes the names of attributes: the micro sign of `total_µs` becomes a Greek letter.
        known = {unicodedata.normalize("NFKC", one): value for one, value in printed.items()} | printed
        if name not in known:
            if name in experiment.scored:
                raise AttributeError(f"{name!r} is a number of the scorer: write experiment.scored[{name!r}]")
            have = ", ".join(sorted(printed))
            raise AttributeError(
                f"the run printed no {name!r}; it has {have}, beside best, gain, margin and the limits"
            )
        return known[name]

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise KeyError(str(error)) from None
