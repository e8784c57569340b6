"""The `autoresearch` command: one module for each subcommand, imported only when it is used.

A subcommand's module has `arguments(parser)`, which adds its arguments and may set description and epilog, and
`command(given)`, which runs it and returns the exit status. May import every part of a session; no part of a session
imports the command line.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO, cast

from pytest_autoresearch.core.errors import AutoresearchError
from pytest_autoresearch.core.text import nearest
from pytest_autoresearch.reports.harmless import HarmlessOutput, harmless

# Name and summary: `--help` shows all of them without importing any.
COMMANDS = {
    "demo": "a whole campaign in half a minute, in a folder of its own",
    "doctor": "check this machine: GPU, memory, CUDA, PyTorch, disk, git, sandbox, key",
    "init": "add the files that a campaign needs to this repository, never overwriting",
    "prepare": "make the harness's data: shards, tokenizer, packed rows",
    "run": "measure the current train.py once: no commit, no record",
    "results": "list the experiments of a campaign, or of any results.tsv",
    "show": "everything about one experiment",
    "compare": "two campaigns side by side",
    "best": "the best program of a campaign, and how to get it",
    "audit": "measure the first and last program again on rows that no verdict used",
    "finalize": "what each kept change is worth now, as branches and the text of a pull request",
    "report": "write report.html and progress.png of a campaign",
    "watch": "follow a running session from another terminal",
    "stop": "ask a running session to end after its current experiments",
    "say": "tell the proposer of a campaign something",
    "pause": "let a running session begin no experiment",
    "resume": "let a paused session go on",
    "campaigns": "list the campaigns of this repository, or delete one",
    "clean": "list or delete what sessions left on the disk and no session uses",
    "push": "send a campaign to a remote: its branch and its records",
    "pull": "fetch a campaign from a remote",
    "completion": "print the shell completion script of this command",
}

_IN_CI = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION")
_LIKENESS = 0.7  # of a misspelt name to the one that is meant

_EXIT = """exit status:
  0  done; the answer is yes
  1  the answer is no (`doctor`: not ready, `results`: no match; see each command's help)
  2  wrong arguments, or not possible here; one sentence on standard error says why
  130  stopped with Ctrl-C
"""

_EPILOG = f"""examples:
  autoresearch doctor                     is this machine ready?
  pytest --autoresearch --max 100         run a night of experiments
  autoresearch watch                      follow it from another terminal
  autoresearch results --kept-only        what helped
  autoresearch show 17 --diff             one experiment, with its change
  autoresearch best --checkout            check out the best program

{_EXIT}
`autoresearch COMMAND --help` says more. Tables are for people: add --json after the command to get
JSON. Colours are used only on a terminal, and not if NO_COLOR is set."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks of descriptions and examples, and puts each command's summary on the command's line."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._action_max_length = max(map(len, COMMANDS)) + 4  # argparse ignores that commands are indented


class _Command(argparse.ArgumentParser):
    """The parser of one subcommand; its module adds the arguments on demand."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._filled = False

    def fill(self) -> None:
        """Add the arguments of the subcommand's module."""
        if not self._filled:
            self._filled = True
            module(self.prog.split()[-1]).arguments(self)

    def parse_known_args(self, *given: Any, **more: Any) -> Any:  # argparse parses a chosen subcommand through this
        self.fill()
        namespace, unknown = super().parse_known_args(*given, **more)
        for word in unknown:
            flag = word.partition("=")[0]
            if meant := nearest(flag, re.findall(r"--[a-z-]+", self.format_usage()), _LIKENESS):
                self.error(f"there is no option {flag}: did you mean {meant}?")
        return namespace, unknown


def parser(whole: bool = False) -> argparse.ArgumentParser:
    """The command line. `whole`: with the arguments of every subcommand, which imports all of them."""
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
    """Run the command line and return the exit status. 1: the answer is no; 2: wrong arguments, or not possible."""
    top = parser()
    if unknown := _unknown_command(arguments):
        top.error(unknown)
    given = top.parse_args(arguments)
    if given.command is None:
        top.print_help(sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack a character
    try:
        with _without_commands():
            status: int = module(given.command).command(given)
            sys.stdout.flush()
    except AutoresearchError as error:
        print(harmless(f"autoresearch {given.command}: {error}"), file=sys.stderr)
        return 2
    except BrokenPipeError:  # as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # such as a full disk or a missing program
        what = f"{error.filename}: " if error.filename else ""
        print(f"autoresearch {given.command}: {what}{error.strerror or error}", file=sys.stderr)
        _abandon_output()
        return 2
    except KeyboardInterrupt:
        return 130
    return status


@contextmanager
def _without_commands() -> Iterator[None]:
    """In CI, also patches are printed without commands for the runner; elsewhere they are printed as they are."""
    if not any(os.environ.get(name) for name in _IN_CI):
        yield
        return
    out, err = (cast(TextIO, HarmlessOutput(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        yield


def _unknown_command(arguments: Sequence[str] | None) -> str:
    """The sentence about a word that is no command; empty if the command is known, or missing."""
    front = argparse.ArgumentParser(prog="autoresearch", add_help=False)
    front.add_argument("-C")
    front.add_argument("command", nargs="?")
    name = front.parse_known_args(arguments)[0].command
    if name is None or name in COMMANDS:
        return ""
    meant = nearest(name, COMMANDS, _LIKENESS)
    return f"there is no command {name}: " + (
        f"did you mean {meant}?" if meant else "type `autoresearch --help` for all"
    )


def _abandon_output() -> None:
    """Drop output that cannot be written: Python would report it again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
