"""`autoresearch prepare`: runs the harness's own `prepare` command.

Finds the harness by the command with which it is asked to describe itself.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.repository import here
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.settings import Settings, this_python

_DESCRIBE = ".describe"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Pass all arguments, even `--help`, to the harness's command."""
    parser.prefix_chars = ""
    parser.description = (
        "Make the harness's data: shards, tokenizer, packed rows. All arguments go to the harness's own command,\n"
        "`python -m harness.prepare`; `autoresearch prepare --help` shows its options."
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="options of the harness's command")


def command(given: argparse.Namespace) -> int:
    """Returns the harness's exit status."""
    words = [word for word in given.words if word != "--json"]
    try:
        settings = here(given).settings
        asked = [*_prepare(settings), *words]
    except UserError as error:
        if not {"-h", "--help"} & set(words):
            raise
        print(_help(str(error)))
        return 0
    sys.stdout.flush()
    as_json = len(words) < len(given.words)
    # With --json, standard output holds only the result; the harness's own output goes to standard error.
    done = subprocess.run(
        this_python(tuple(asked)), cwd=settings.root, stdout=sys.stderr if as_json else None, check=False
    )
    if as_json:
        output.dump({"command": shlex.join(asked), "exit_status": done.returncode})
    return done.returncode


def _help(why: str) -> str:
    """The help text in a repository without a harness."""
    parser = argparse.ArgumentParser(
        prog="autoresearch prepare", usage="%(prog)s [--json] ...", add_help=False,
        epilog=f"Not here: {output.line(why)}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    arguments(parser)
    return parser.format_help().rstrip()


def _prepare(settings: Settings) -> list[str]:
    """`python -m harness.prepare`, if the repository's harness is described by `python -m harness.describe`.

    Raises:
        UserError: The repository has no harness.
    """
    described = settings.describe or ()
    for place, word in enumerate(described):
        if word == "-m" and described[place + 1 :][:1] and described[place + 1].endswith(_DESCRIBE):
            package = described[place + 1].removesuffix(_DESCRIBE)
            folder = settings.root.joinpath(*package.split("."))
            if (folder / "prepare.py").is_file():
                return [*described[: place + 1], f"{package}.prepare"]
    raise UserError(
        "this repository has no harness with data to prepare (autoresearch_describe names none): "
        f"`{shlex.join(settings.command)}` finds its own data"
    )
