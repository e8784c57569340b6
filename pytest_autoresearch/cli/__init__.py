"""The `autoresearch` command: one module a subcommand, imported when it is the one that was typed.

A subcommand's module has `arguments(parser)`, which adds its own and may set the parser's description and epilog, and
`command(given)`, which does it and returns the exit status. May know everything that a session is made of; nothing of
it knows the command line.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pytest_autoresearch.core.errors import AutoresearchError

# Name, and what it does: `--help` shows all without importing any.
COMMANDS = {
    "doctor": "check this machine: GPU, memory, CUDA, PyTorch, disk, git, sandbox, key",
    "init": "add what a campaign needs to this repository, never overwriting",
    "prepare": "make the harness's data: shards, tokenizer, packed rows",
    "run": "measure the present train.py once: no commit, no record",
    "results": "list the experiments of a campaign, or of any results.tsv",
    "show": "everything about one experiment",
    "compare": "two campaigns side by side",
    "best": "the best program of a campaign, and how to take it",
    "audit": "measure first and last again on rows that no verdict used",
    "report": "write report.html and progress.png of a campaign",
    "watch": "follow a running session from another terminal",
    "push": "send a campaign to a remote: its branch and its records",
    "pull": "fetch a campaign from a remote",
    "completion": "print what makes your shell complete this command",
}

_EXIT = """exit status:
  0  done; the answer is yes
  1  the answer is no (`doctor`: not ready, `results`: nothing like it; see each command's help)
  2  typed wrongly, or it cannot be done here; one sentence on standard error says why
  130  ended with Ctrl-C
"""

_EPILOG = f"""examples:
  autoresearch doctor                     is this machine ready?
  pytest --autoresearch --max 100         run a night of experiments
  autoresearch watch                      look at it from another terminal
  autoresearch results --kept-only        what helped
  autoresearch show 17 --diff             one experiment, with its change
  autoresearch best --checkout            take the best program

{_EXIT}
`autoresearch COMMAND --help` says more about each. Tables are for people: with --json behind the
command there is JSON instead. Colours are used on a terminal only, and not with NO_COLOR set."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions and examples as they are written; what stands beside the longest command is on its line."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._action_max_length = max(map(len, COMMANDS)) + 4  # argparse forgets that commands are indented


class _Command(argparse.ArgumentParser):
    """The command line of one subcommand, which its module fills in when it is needed."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._filled = False

    def fill(self) -> None:
        """Have the arguments of the subcommand's module."""
        if not self._filled:
            self._filled = True
            module(self.prog.split()[-1]).arguments(self)

    def parse_known_args(self, *given: Any, **more: Any) -> Any:  # argparse parses a chosen subcommand through this
        self.fill()
        return super().parse_known_args(*given, **more)


def parser(whole: bool = False) -> argparse.ArgumentParser:
    """The command line. `whole`: with the arguments of every subcommand, which costs importing them all."""
    top = argparse.ArgumentParser(
        prog="autoresearch",
        description="Set up, read and move campaigns of pytest-autoresearch. Experiments themselves are run\n"
        "by `pytest --autoresearch`.",
        epilog=_EPILOG,
        formatter_class=_Help,
    )
    top.add_argument("--version", action="version", version=f"pytest-autoresearch {version('pytest-autoresearch')}")
    top.add_argument("-C", dest="folder", type=Path, default=Path(), metavar="FOLDER", help="work in this folder (.)")
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND", parser_class=_Command)
    for name, summary in COMMANDS.items():
        one = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=_Help,
        )
        one.add_argument("--json", action="store_true", help="print JSON, for programs")
        if whole:
            one.fill()
    return top


def module(name: str) -> Any:
    """The module of a subcommand."""
    return importlib.import_module(f"pytest_autoresearch.cli.{name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status. 1: the answer is no; 2: it was typed wrongly or cannot be done."""
    top = parser()
    given = top.parse_args(arguments)
    if given.command is None:
        top.print_help(sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no such letter
    try:
        status: int = module(given.command).command(given)
        sys.stdout.flush()
    except AutoresearchError as error:
        print(f"autoresearch {given.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a program that is missing
        what = f"{error.filename}: " if error.filename else ""
        print(f"autoresearch {given.command}: {what}{error.strerror or error}", file=sys.stderr)
        _abandon_output()
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _abandon_output() -> None:
    """What standard output does not take is tried no more: Python would complain of it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
