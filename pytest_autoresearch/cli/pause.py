"""`autoresearch pause`: a running session begins no experiment until `autoresearch resume`."""

from __future__ import annotations

import argparse

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.repository import here, tag_argument
from pytest_autoresearch.cli.stop import running

_EPILOG = """Experiments under way go on to their verdict, then the GPU is free. The session keeps its campaign, and the
pause does not count as its time. `autoresearch stop` and Ctrl-C end it as always.

This makes the file `experiments/runs/TAG/PAUSE`, which `autoresearch resume` removes.

exit status: 0; 2 if no session runs in this checkout, or several run and none is named"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The campaign."""
    parser.description = "Let the running session of this checkout begin no experiment until `autoresearch resume`."
    parser.epilog = _EPILOG
    tag_argument(parser, unnamed="the one that runs")


def command(given: argparse.Namespace) -> int:
    """Ask for the pause."""
    settings = here(given).settings
    session = running(settings, given.tag, "pause")
    settings.campaign_artifacts(session["tag"]).pause.touch()
    if given.json:
        output.dump({"tag": session["tag"], "pid": session["pid"]})
    else:
        who = f"the session of {session['tag']} (process {session['pid']})"
        print(f"{who} begins no experiment: go on with `autoresearch resume`")
    return 0
