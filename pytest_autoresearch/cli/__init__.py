"""The `autoresearch` command: one module a subcommand, imported when it is the one that was typed.

A subcommand's module has `arguments(parser)`, which adds its own, and `command(given)`, which does it and returns the
exit status. May know everything that a session is made of; nothing of it knows the command line.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from pytest_autoresearch.errors import AutoresearchError

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


def parser(name: str = "") -> argparse.ArgumentParser:
    """The command line; of one subcommand in full where it is named, of the others the summary alone."""
    whole = argparse.ArgumentParser(
        prog="autoresearch",
        description="Set up, read and move campaigns of pytest-autoresearch. Experiments themselves are run by "
        "`pytest --autoresearch`.",
        epilog="`autoresearch COMMAND --help` says more about each.",
    )
    whole.add_argument("--version", action="version", version=f"pytest-autoresearch {version('pytest-autoresearch')}")
    whole.add_argument("-C", dest="folder", type=Path, default=Path(), metavar="FOLDER", help="work in this folder (.)")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for known, summary in COMMANDS.items():
        one = commands.add_parser(known, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        one.add_argument("--json", action="store_true", help="print JSON, for programs")
        if known == name or name == "*":
            module(known).arguments(one)
    return whole


def module(name: str):  # type: ignore[no-untyped-def]  # a module, by the protocol above
    """The module of a subcommand."""
    return importlib.import_module(f"pytest_autoresearch.cli.{name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status. 1: the answer is no; 2: it was typed wrongly or cannot be done."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    name = next((word for word in typed if word in COMMANDS), "")
    given = parser(name).parse_args(typed)
    try:
        status: int = module(given.command).command(given)
        sys.stdout.flush()
    except AutoresearchError as error:
        print(f"autoresearch {given.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return status
