"""The command of an agent and the files that it shares, as the user gave them: checked before anything is touched."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from pytest_autoresearch.core.errors import UserError

_PREFIX = "command:"


def alternatives(given: str) -> tuple[str, ...]:
    """The commands of `A || command:B`: the second is asked while the first cannot propose.

    Raises:
        UserError: What stands behind `||` is no command.
    """
    first, *others = (part.strip() for part in given.split("||"))
    for other in others:
        if not other.startswith(_PREFIX):
            raise UserError(
                f"--autoresearch-proposer command:{given}: `{other}` is no second agent: write "
                '"command:AGENT || command:AGENT", or put what the shell should do into a script'
            )
    return (first, *(other.removeprefix(_PREFIX) for other in others))


def check(command: str, root: Path) -> tuple[str, ...]:
    """The words of an agent's command, with the absolute path of its program.

    Args:
        command: As the user typed it.
        root: The folder to which a relative program path refers.

    Raises:
        UserError: There is no such program.
    """
    try:
        words = [str(Path(word).expanduser()) if word.startswith("~/") else word for word in shlex.split(command)]
    except ValueError as error:
        raise UserError(
            f"--autoresearch-proposer command:{command} cannot be split into words ({error}): check its quotes"
        ) from None
    if not words:
        raise UserError('--autoresearch-proposer command: names no program: type, for example, "command:claude -p"')
    found = shutil.which(str(root / words[0]) if "/" in words[0] else words[0])
    if found is None:
        raise UserError(
            f"--autoresearch-proposer command:{command}: there is no program {words[0]} on PATH: install it, or give "
            "its path"
        )
    # Resolve links of the folder only: the sandbox follows the links of the program itself.
    program = Path(found).absolute()
    return (str(program.parent.resolve() / program.name), *words[1:])


def shared(given: Sequence[str], root: Path) -> tuple[Path, ...]:
    """The files and folders of the ini key autoresearch_agent_files.

    Raises:
        UserError: One does not exist, or contains the repository or the home folder.
    """
    paths = [(name, root / Path(name).expanduser()) for name in given]
    for name, path in paths:
        if not path.exists():
            raise UserError(f"autoresearch_agent_files names {name}, which does not exist: correct it")
        if any(one.resolve().is_relative_to(path.resolve()) for one in (root, Path.home())):
            raise UserError(
                f"autoresearch_agent_files names {name}, which contains the repository or your home folder: name only "
                "the files that the agent needs"
            )
    return tuple(path for _, path in paths)
