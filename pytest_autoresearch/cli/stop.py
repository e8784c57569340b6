"""`autoresearch stop`: a running session ends after the experiments under way."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.repository import here, tag_argument
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.session import live
from pytest_autoresearch.settings import Settings

_EPILOG = """The session judges and records the experiments under way, writes its reports and ends as after its
last experiment, with the same exit status. A proposer that waits for a limit or makes a proposal is
asked no more. The same command as before goes on with the campaign.

This makes the file `experiments/runs/TAG/STOP`, which the session removes; `touch` does the same.
Ctrl-C, or `kill PID`, ends a session at once and loses the runs under way.

exit status: 0; 2 if no session runs in this checkout, or several run and none is named"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The campaign."""
    parser.description = "Ask the running session of this checkout to end after the experiments under way."
    parser.epilog = _EPILOG
    tag_argument(parser, unnamed="the one that runs")


def running(settings: Settings, tag: str | None, verb: str) -> Mapping[str, Any]:
    """The running session of this checkout, as its progress file has it.

    Args:
        tag: Its campaign; None for the only one that runs.
        verb: What the user wants to do with it.

    Raises:
        UserError: None runs, or several do and none is named.
    """
    found = live.sessions(settings.experiments_folder)
    meant = [one for one in found if tag in (None, one["tag"])]
    if not meant:
        others = f"; {', '.join(one['tag'] for one in found)} runs" if found else ""
        raise UserError(f"no session of {tag or 'any campaign'} runs in this checkout{others}: nothing to {verb}")
    if len(meant) > 1:
        raise UserError(f"several sessions run here: name one, {' or '.join(one['tag'] for one in meant)}")
    return meant[0]


def command(given: argparse.Namespace) -> int:
    """Ask for the end."""
    settings = here(given).settings
    session = running(settings, given.tag, "stop")
    settings.campaign_artifacts(session["tag"]).stop.touch()
    numbers = [now["number"] for now in session["running"]]
    if given.json:
        output.dump({"tag": session["tag"], "pid": session["pid"], "running": numbers})
    else:
        after = ", ".join(f"{number:04d}" for number in numbers)
        print(f"the session of {session['tag']} (process {session['pid']}) ends after {after or 'this moment'}")
    return 0
