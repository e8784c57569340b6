"""The repository that the command line is typed in: its settings as pytest reads them, its campaigns and records."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_autoresearch.core.errors import NoRepository, UserError
from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.settings import Settings, read


@dataclass(frozen=True, slots=True)
class Repository:
    """Where campaigns are.

    Attributes:
        settings: The options' defaults and the ini keys.
        ratchet: Its git.
    """

    settings: Settings
    ratchet: Ratchet

    @property
    def root(self) -> Path:
        return self.settings.root

    def choose(self, tag: str | None) -> str:
        """The campaign of that name, which is open from then on; else the one of the branch here or the last.

        Raises:
            UserError: There is none of that name, or none at all.
        """
        known = self.ratchet.campaigns()
        kind, _, here = self.ratchet.here().removeprefix("refs/heads/").partition("/")
        chosen = tag or self.settings.tag or (here if kind == "autoresearch" and here in known else "")
        chosen = chosen or max(known, key=lambda one: known[one], default="")
        if not chosen:
            raise UserError("there is no campaign in this repository yet: type `pytest --autoresearch` to begin one")
        if chosen not in known:
            names = ", ".join(sorted(known)) or "none"
            raise UserError(f"there is no campaign {chosen!r} in this repository; it has {names}")
        self.ratchet.tag = chosen
        return chosen

    def records(self, tag: str | None = None) -> list[Experiment]:
        """Every record of the chosen campaign, by number.

        Raises:
            UserError: There is no such campaign, or a record says what no session writes: it may be a stranger's.
        """
        return self.ratchet.records(self.choose(tag))


def enter(given: argparse.Namespace) -> None:
    """Work in the folder that was given from now on.

    Raises:
        UserError: It is none.
    """
    try:
        os.chdir(given.folder)
    except OSError as error:
        raise UserError(f"-C {given.folder}: {error.strerror}") from None


def here(given: argparse.Namespace) -> Repository:
    """The repository of the folder that was given, by its own pytest configuration; no conftest is imported.

    Raises:
        UserError: There is no git repository, or its configuration makes no sense.
    """
    enter(given)
    config = configuration()
    settings = read(config.rootpath, config.inipath, config.getoption, config.getini)
    try:
        return Repository(settings, Ratchet(settings.root))
    except NoRepository:  # a session would begin one; what only reads one is in the wrong folder
        said = f"{settings.root} is not a git repository: cd to your repository, or give it with -C FOLDER"
        raise UserError(said) from None


def configuration(*plugins: str) -> pytest.Config:
    """Pytest's configuration here, with no other plugins where it can be read without: they take most of the time."""
    named = [word for name in ("pytest_autoresearch.plugin", *plugins) for word in ("-p", name)]
    alone = ["--noconftest", "--capture=no", "--disable-plugin-autoload", *named]
    try:
        return pytest.Config.fromdictargs({}, alone)
    except (pytest.UsageError, Warning):  # it may be strict about their keys
        pass
    try:
        return pytest.Config.fromdictargs({}, ["--noconftest", "--capture=no"])
    except pytest.UsageError as error:
        raise UserError(str(error)) from None


class _OneTag(argparse.Action):
    """A campaign, which may be named in two ways, but is one."""

    def __call__(self, parser: argparse.ArgumentParser, given: argparse.Namespace, value: Any, *_: Any) -> None:
        if getattr(given, "tag", None) not in (None, value):
            parser.error(f"the campaign is {given.tag} or {value}: name one")
        given.tag = value


_THE_ONE = "that of the branch checked out here, else the one worked on last"


def tag_argument(parser: argparse.ArgumentParser, plain: bool = True, unnamed: str = _THE_ONE) -> None:
    """`--tag`, for commands about one campaign.

    Args:
        plain: Whether TAG may stand there by itself, too: where nothing else does.
        unnamed: Which campaign it is when none is named.
    """
    told = f"the campaign ({unnamed})"
    parser.add_argument("--tag", action=_OneTag, metavar="TAG", help=told)
    if plain:  # a default of its own would take the option's place
        parser.add_argument("tag", nargs="?", action=_OneTag, default=argparse.SUPPRESS, metavar="TAG", help="the same")
