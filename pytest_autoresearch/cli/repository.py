"""The current repository: its settings as pytest reads them, its campaigns and records."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_autoresearch.core.errors import NoRepository, UserError
from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.ledger.current import current
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.remotes import not_pulled
from pytest_autoresearch.session import live
from pytest_autoresearch.settings import Settings, read


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository with campaigns.

    Attributes:
        settings: From ini keys and the defaults of options.
        ratchet: Its git.
    """

    settings: Settings
    ratchet: Ratchet

    @property
    def root(self) -> Path:
        return self.settings.root

    def choose(self, tag: str | None) -> str:
        """Open a campaign: the given one, else the `current` one.

        Raises:
            UserError: There is no such campaign, or none at all.
        """
        wanted = current(self.ratchet, tag or self.settings.tag)
        known = self.ratchet.campaigns()
        if wanted not in known and (under_way := live.baseline_under_way(self.settings.experiments_folder, wanted)):
            raise UserError(under_way)
        self.ratchet.tag = chosen(self.ratchet, wanted)
        return self.ratchet.tag

    def records(self, tag: str | None = None) -> list[Experiment]:
        """Every record of the chosen campaign, by number.

        Raises:
            UserError: There is no such campaign, or a record was not written by a session.
        """
        return self.ratchet.records(self.choose(tag))


def chosen(ratchet: Ratchet, named: str | None) -> str:
    """The tag of the named campaign, else of the `current` one.

    Raises:
        UserError: There is no such campaign, or none at all.
    """
    known = ratchet.campaigns()
    found = current(ratchet, named)
    if found not in known:
        elsewhere = not_pulled(ratchet.git, known, found)
        said = f"there is no campaign{f' {found!r}' if found else ''} in this repository"
        if elsewhere:
            raise UserError(f"{said}, but {elsewhere}")
        if not found:
            raise UserError(f"{said} yet: type `pytest --autoresearch` to begin one")
        raise UserError(f"{said}; it has {', '.join(sorted(known)) or 'none'}")
    return found


def enter(given: argparse.Namespace) -> None:
    """Change into the given folder.

    Raises:
        UserError: It is not a folder.
    """
    try:
        os.chdir(given.folder)
    except OSError as error:
        raise UserError(f"-C {given.folder}: {error.strerror}") from None


def here(given: argparse.Namespace) -> Repository:
    """The repository of the given folder, with its pytest configuration; no conftest is imported.

    Raises:
        UserError: There is no git repository, or its configuration is invalid.
    """
    enter(given)
    config = configuration()
    settings = read(config.rootpath, config.inipath, config.getoption, config.getini)
    try:
        return Repository(settings, Ratchet(settings.root))
    except NoRepository:  # a command that only reads one is in the wrong folder
        said = f"{settings.root} is not a git repository: cd to your repository, or give it with -C FOLDER"
        raise UserError(said) from None


def configuration(*plugins: str) -> pytest.Config:
    """Pytest's configuration here, without other plugins if possible, because loading them is slow."""
    named = [word for name in ("pytest_autoresearch.plugin", *plugins) for word in ("-p", name)]
    alone = ["--noconftest", "--capture=no", "--disable-plugin-autoload", *named]
    try:
        return pytest.Config.fromdictargs({}, alone)
    except (pytest.UsageError, Warning):  # a strict configuration rejects the keys of missing plugins
        pass
    try:
        return pytest.Config.fromdictargs({}, ["--noconftest", "--capture=no"])
    except pytest.UsageError as error:
        raise UserError(str(error)) from None


class _OneTag(argparse.Action):
    """Accepts a campaign as --tag or as TAG, but not two different ones."""

    def __call__(self, parser: argparse.ArgumentParser, given: argparse.Namespace, value: Any, *_: Any) -> None:
        if getattr(given, "tag", None) not in (None, value):
            parser.error(f"two campaigns, {given.tag} and {value}: name one")
        given.tag = value


_THE_ONE = "the one of the current branch, else the one worked on last"


def tag_argument(parser: argparse.ArgumentParser, plain: bool = True, unnamed: str = _THE_ONE) -> None:
    """`--tag`, for commands about one campaign.

    Args:
        plain: Whether a positional TAG is allowed, too.
        unnamed: The campaign used without TAG, for the help text.
    """
    told = f"the campaign ({unnamed})"
    parser.add_argument("--tag", action=_OneTag, metavar="TAG", help=told)
    if plain:  # without a default, which would override the option
        parser.add_argument("tag", nargs="?", action=_OneTag, default=argparse.SUPPRESS, metavar="TAG", help="the same")
