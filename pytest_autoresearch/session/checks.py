"""The checks of the user's files before a campaign begins. A mistake is one sentence that says what to type."""

from __future__ import annotations

import errno
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from pytest_autoresearch.core.errors import GitError, UserError
from pytest_autoresearch.core.extras import need
from pytest_autoresearch.ledger.git import reason
from pytest_autoresearch.ledger.objects import Entry
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.settings import Settings, this_python

_VARIABLE = re.compile(r"[A-Za-z_]\w*=")

_LEAST_FREE_BYTES = 2**20


def check_files(settings: Settings, ratchet: Ratchet) -> None:
    """Check that everything that a campaign needs is there, committed and clean.

    Raises:
        UserError: Something is not.
    """
    _check_batch(settings)
    check_writable(settings, ratchet)
    committed = ratchet.committed()
    check_editable(settings, committed)
    _check_complete(ratchet)
    for frozen in settings.frozen:
        if not any(Path(path).is_relative_to(frozen) for path in committed):
            raise UserError(
                f"autoresearch_frozen names {frozen}, which is not in the last commit: commit it or correct the ini key"
            )
    if not (settings.root / "program.md").is_file():
        raise UserError(
            "there is no program.md, the charter of the research: one line will do, such as "
            f"`echo 'Lower {settings.metric}.' > program.md`"
        )
    _check_variables(settings.command)
    program = this_python(settings.command)[:1]
    if not program or not (shutil.which(program[0]) or (settings.root / program[0]).is_file()):
        raise UserError(
            f"the training command {' '.join(settings.command)!r} starts no program on PATH: "
            "correct the ini key autoresearch_command"
        )
    _check_deciding(settings, ratchet)


def _check_batch(settings: Settings) -> None:
    """Check that proposals can be measured together."""
    if not settings.batch:
        return
    need("batch", "pydoe", "measuring several proposals together")
    if settings.proposer == "checkout":
        raise UserError("checkout makes one proposal, so there is no batch: leave out --autoresearch-batch")
    if not settings.rule.looks:
        raise UserError(
            "--autoresearch-batch needs to know the noise, and with --autoresearch-confirm off one run decides: leave "
            "one of them out"
        )


def check_writable(settings: Settings, ratchet: Ratchet) -> None:
    """Check that records, lanes and reports can be written, by writing a file without a name there.

    Raises:
        UserError: A folder is read-only, or its disk is full.
    """
    git, reports = ratchet.home.parent, settings.experiments_folder
    refs = git / "refs" / "autoresearch"
    inside = (ratchet.home, git / "objects", git / "worktrees", git / "refs", refs, refs / ratchet.tag)
    runs = settings.campaign_artifacts(ratchet.tag).folder
    later = (*inside, reports, runs.parent, runs)  # a session makes those that are not there
    for folder in dict.fromkeys((git, settings.root, *filter(Path.is_dir, later))):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(_LEAST_FREE_BYTES))
        except OSError as error:
            error.filename = str(folder)
            raise UserError(unusable(error)) from None


def unusable(error: OSError) -> str:
    """A sentence on a file that a session needs and that the system denies."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "make it writable, or clone the repository to another place"
    else:
        remedy = "correct this, then type the same command again"
    what = error.filename or "a file"
    return (
        f"{what} cannot be written ({error.strerror or error}), and a session keeps its records and reports there: "
        f"{remedy}"
    )


def _check_complete(ratchet: Ratchet) -> None:
    """Check that every file of the commit is here, or comes from the remote of a partial clone."""
    try:
        ratchet.complete()
    except GitError as error:
        raise UserError(
            f"this partial clone lacks files of the last commit, and git cannot fetch them ({reason(error)}): "
            "type `git remote -v` and make that repository reachable, or commit without these files"
        ) from None


def _check_variables(command: tuple[str, ...]) -> None:
    """Check that the command does not begin with variables: it is started without a shell, which would set them."""
    variables = list(takewhile(_VARIABLE.match, command))
    if variables:
        raise UserError(
            f"the training command begins with {variables[0]}, which only a shell understands: set "
            f"autoresearch_command = env {shlex.join(command)}"
        )


def check_editable(settings: Settings, committed: Mapping[str, Entry]) -> None:
    """Check that each pattern of `autoresearch_editable` names a committed plain file that a proposal may change.

    Raises:
        UserError: One does not.
    """
    for pattern in settings.editable:
        rule = replace(settings.editable, patterns=(pattern,))
        named = [path for path in committed if rule.names(path)]
        if any(path in rule and committed[path].regular for path in named):
            continue
        if (named and not any(path in rule for path in named)) or pattern not in rule:
            raise UserError(
                f"autoresearch_editable names {pattern}, but the verdict depends on that file and no proposal may "
                "change it: remove it from the list"
            )
        place, root = (settings.root / pattern).resolve(), settings.root.resolve()
        if place != root / pattern and place.exists():
            inside = place.is_relative_to(root)
            said = place.relative_to(root).as_posix() if inside else f"{place}, outside of {root}"
            todo = f"name {said} there instead" if inside else "commit the file itself in its place"
            raise UserError(
                f"autoresearch_editable names {pattern}, which is a link to {said}, and a proposal changes only plain "
                f"files: {todo}"
            )
        if named:
            raise UserError(
                f"autoresearch_editable names {pattern}, which is a submodule or a broken link, and a proposal changes "
                "only plain files of this repository: name one of those"
            )
        if place.exists():
            file = shlex.quote(pattern)
            raise UserError(f"{pattern} is not committed yet: type `git add {file} && git commit -m baseline` first")
        raise UserError(
            f"there is no {pattern}: write and commit one, or name the file that experiments may change in the ini key "
            "autoresearch_editable"
        )


def _check_deciding(settings: Settings, ratchet: Ratchet) -> None:
    """Check that the frozen paths, the acceptance rules and the configuration are committed and clean."""
    deciding = [*settings.frozen, f":(glob){settings.experiments}/**/*.py", "conftest.py"]
    if settings.config_file is not None and settings.config_file.is_relative_to(settings.root):
        deciding.append(str(settings.config_file.relative_to(settings.root)))
    dirty = ratchet.dirty(deciding)
    # A file that git ignores is in no commit either.
    hidden = [path for path in ratchet.dirty(deciding, ignored=True) if path not in dirty and path.endswith(".py")]
    if named := [*dirty, *hidden][:3]:
        files = " ".join(shlex.quote(path) for path in named)
        raise UserError(
            f"{', '.join(named)} decide{'s' if len(named) == 1 else ''} what is kept and must be committed: type "
            f"`git add {'-f ' if hidden else ''}{files} && git commit -m 'Before the campaign'` first"
        )
