"""The checks of the user's files before a campaign begins. A mistake is one sentence that says what to type."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.settings import Settings, this_python
from pytest_autoresearch.source.guard import is_editable, is_trusted


def check_files(settings: Settings, ratchet: Ratchet) -> None:
    """Check that everything that a campaign needs is there, committed and clean.

    Raises:
        UserError: Something is not.
    """
    committed = ratchet.committed()
    _check_editable(settings, committed)
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
    program = this_python(settings.command)[:1]
    if not program or not (shutil.which(program[0]) or (settings.root / program[0]).is_file()):
        raise UserError(
            f"the training command {' '.join(settings.command)!r} starts no program on PATH: "
            "correct the ini key autoresearch_command"
        )
    _check_deciding(settings, ratchet)


def _check_editable(settings: Settings, committed: list[str]) -> None:
    for pattern in settings.editable:
        frozen = any(Path(pattern).is_relative_to(one) for one in settings.frozen)
        if frozen or any(map(is_trusted, Path(pattern).parts)):
            raise UserError(
                f"autoresearch_editable names {pattern}, but the verdict depends on that file and no proposal may "
                "change it: remove it from the list"
            )
        if any(is_editable(path, (pattern,)) for path in committed):
            continue
        if (settings.root / pattern).exists():
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
