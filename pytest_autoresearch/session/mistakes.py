"""A mistake of the user's, exit status 4, as a line of JSON for the program that asked for JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pytest_autoresearch.core.option_values import switch
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.reports.harmless import harmless, harmless_json


@contextmanager
def told(config: pytest.Config) -> Iterator[None]:
    """Print a usage error that is raised inside as JSON on standard output, too, if the user asked for JSON."""
    try:
        yield
    except pytest.UsageError as error:
        if _asked(config):
            print(harmless_json(json.dumps({"status": "error", "message": one_line(str(error))})), flush=True)
        raise pytest.UsageError(*(harmless(str(part)) for part in error.args)) from error


def _asked(config: pytest.Config) -> bool:
    given = getattr(config.known_args_namespace, "autoresearch_json", None)
    try:
        return bool(given) or switch(config.getini("autoresearch_json") or "false")
    except argparse.ArgumentTypeError:  # that may be the mistake
        return False
