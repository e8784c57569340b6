"""`autoresearch resume`: a paused session goes on."""

from __future__ import annotations

import argparse

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.repository import here, tag_argument
from pytest_autoresearch.cli.stop import running
from pytest_autoresearch.core.errors import UserError

_EPILOG = "exit status: 0; 2 if no session runs in this checkout, several run and none is named, or it is not paused"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The campaign."""
    parser.description = "Let the session of this checkout go on that `autoresearch pause` has paused."
    parser.epilog = _EPILOG
    tag_argument(parser, unnamed="the one that runs")


def command(given: argparse.Namespace) -> int:
    """End the pause."""
    settings = here(given).settings
    session = running(settings, given.tag, "resume")
    try:
        settings.campaign_artifacts(session["tag"]).pause.unlink()
    except FileNotFoundError:
        raise UserError(f"the session of {session['tag']} is not paused: nothing to resume") from None
    if given.json:
        output.dump({"tag": session["tag"], "pid": session["pid"]})
    else:
        print(f"the session of {session['tag']} (process {session['pid']}) goes on")
    return 0
