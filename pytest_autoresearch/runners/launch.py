"""Finds the program that the training command really starts, and what the program needs to be shown.

A launcher such as `uv run` looks for an environment beside the script, and would make a new one in the lane's tree,
where there is none. So the launcher is asked once, in the checkout, for the Python of its environment, and training
starts that Python directly. Knows neither git nor settings.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.runners.environment import passes
from pytest_autoresearch.sandboxes.machine import installation

PYTHON = ("python", "python3")
_PROJECT = ("-C", "--directory", "-P", "--project")
_WITH_A_VALUE = {  # the options of each launcher's `run` that are followed by a value
    "uv": (
        *("--extra", "--no-extra", "--group", "--no-group", "--only-group", "--env-file", "-p", "--python"),
        *("--package", *_PROJECT),
    ),
    "poetry": _PROJECT,
    "pdm": ("-p", "--project"),
    "pixi": ("-e", "--environment", "--manifest-path"),
    "pipenv": (),
    "conda": ("-n", "--name", "-p", "--prefix", "--cwd"),
    "mamba": ("-n", "--name", "-p", "--prefix", "--cwd"),
    "micromamba": ("-n", "--name", "-p", "--prefix", "--cwd"),
}
_AS_IT_IS = {  # the launchers use the environment as it is, and change nothing
    **dict.fromkeys(("UV_NO_SYNC", "UV_OFFLINE", "UV_FROZEN", "PIXI_FROZEN", "PIXI_NO_INSTALL"), "1"),
    "UV_PYTHON_DOWNLOADS": "never",
}
_ASK = "import json, os, sys; print(json.dumps([sys.executable, dict(os.environ)]))"
_ASK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How the training command is started.

    Attributes:
        command: The program and its arguments.
        environment: Variables beside the allowed ones of this process.
        readable: Where the program and its interpreter are installed, and the links on the way to them.
        links: Links that must stay links.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    readable: tuple[Path, ...] = ()
    links: tuple[Path, ...] = ()


def find_launch(command: tuple[str, ...], root: Path, committed: Iterable[str] = ()) -> Launch:
    """How to start a training command.

    Args:
        command: The configured command.
        root: The folder in the user's checkout in which the command works.
        committed: The paths of the last commit, relative to `root`: these programs are started in the lane's tree.

    Raises:
        UserError: It cannot be started as it is; the text says what to write instead.
    """
    first, *rest = command
    if first in PYTHON:
        return Launch((sys.executable, *rest), _with_this_python())
    if Path(first).name in _WITH_A_VALUE and rest[:1] == ["run"]:
        return _launched(command, root)
    program = root / first if "/" in first else Path(shutil.which(first) or first)
    if os.path.normpath(first) in committed or not program.is_absolute():
        return _of_the_repository(Launch(command, _with_this_python()), root)
    launch = Launch((str(program), *rest), _with_this_python())
    return _of_the_repository(_shown(launch, (str(program),), root), root)


def _launched(command: tuple[str, ...], root: Path) -> Launch:
    said, words = shlex.join(command), _inner(command, root)
    launcher = command[: len(command) - len(words)]
    if launcher[-1] in ("-m", "--module"):
        launcher, words = launcher[:-1], ("python", "-m", *words)
    python, environment = _ask(launcher, root)
    instead = f"autoresearch_command = {_named(python, root)} train.py"
    if words[0] in PYTHON or words[0].endswith(".py"):
        words = (python, *words[words[0] in PYTHON :])
    elif "/" not in words[0]:
        program = shutil.which(words[0], path=environment.get("PATH"))
        if program is None:
            raise UserError(
                f"autoresearch_command = {said}: {words[0]} is no program of this environment: name the script that it "
                f"runs, for example `{instead}`"
            )
        words = (program, *words[1:])
    changed = {name: value for name, value in environment.items() if passes(name) and os.environ.get(name) != value}
    return _shown(Launch(words, changed), (python, words[0]), root)


def _inner(command: tuple[str, ...], root: Path) -> tuple[str, ...]:
    """The words after the launcher and its options."""
    name, words = Path(command[0]).name, list(command[2:])
    instead = f"autoresearch_command = {_named(str(root / '.venv/bin/python'), root)} train.py"
    while words and words[0].startswith("-") and words[0] not in ("-m", "--module"):
        option = words.pop(0)
        if option.startswith("--with"):
            raise UserError(
                f"autoresearch_command = {shlex.join(command)}: {option} installs packages at every start, and "
                f"training has no network: install them in the environment once, and write `{instead}`"
            )
        if option == "--":
            break
        if option in _WITH_A_VALUE[name] and words:
            words.pop(0)
    if words[:1] in (["-m"], ["--module"]):
        words = words[1:]
    if not words:
        raise UserError(f"autoresearch_command = {shlex.join(command)}: name the script that it runs, such as train.py")
    if name == "uv" and _lists_packages(root / words[0]):
        raise UserError(
            f"{words[0]} lists its packages itself (`# /// script`), and training has no network to install them: "
            f"install them in an environment once, and write `{instead}`"
        )
    return tuple(words)


def _lists_packages(script: Path) -> bool:
    try:
        return script.suffix == ".py" and "# /// script" in script.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False


def _ask(launcher: tuple[str, ...], root: Path) -> tuple[str, dict[str, str]]:
    """The Python that a launcher starts, and the variables that it sets for it."""
    command = [*launcher, "python", "-c", _ASK]
    try:
        done = subprocess.run(
            command, cwd=root, env={**os.environ, **_AS_IT_IS}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=_ASK_SECONDS, check=False,
        )  # fmt: skip
        python, environment = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    except (ValueError, IndexError):
        why = one_line(done.stderr.strip().rpartition("\n")[2]) or f"exit status {done.returncode}"
    else:
        return str(python), {name: value for name, value in environment.items() if name not in _AS_IT_IS}
    raise UserError(
        f"`{shlex.join(launcher)} python` starts no Python here ({why}): make the environment first, or name a Python "
        "itself, for example `autoresearch_command = .venv/bin/python train.py`"
    )


def _named(python: str, root: Path) -> str:
    """The path of a Python, relative to the repository where it lies there."""
    return os.path.relpath(python, root) if Path(python).is_relative_to(root) else python


def _with_this_python() -> dict[str, str]:
    """Variables with which scripts and makefiles find this interpreter, where it has an environment of its own."""
    found, here = shutil.which("python"), os.path.dirname(sys.executable)
    own = sys.prefix != sys.base_prefix or Path(sys.prefix, "conda-meta").is_dir()
    if not own or (found is not None and os.path.dirname(found) == here):
        return {}
    return {"PATH": os.pathsep.join(filter(None, (here, os.environ.get("PATH", ""))))}


def _of_the_repository(launch: Launch, root: Path) -> Launch:
    """The launch with the repository's environment, for launchers that a script or a makefile calls."""
    folder = next((path for name in (".venv", "venv") if (path := root / name).is_dir()), Path(sys.prefix))
    named = {"UV_PROJECT_ENVIRONMENT": str(folder), "VIRTUAL_ENV": str(folder)}
    with_names = replace(launch, environment={**_AS_IT_IS, **named, **launch.environment})
    return _shown(with_names, (str(folder / "bin" / "python"), shutil.which("uv") or ""), root)


def _shown(launch: Launch, programs: Iterable[str], root: Path) -> Launch:
    """The launch with the installations of these programs, where they are absolute paths."""
    places, links = dict.fromkeys(launch.readable), dict.fromkeys(launch.links)
    for program in (Path(name) for name in dict.fromkeys(programs) if name.startswith("/")):
        found, steps = installation(program, os.environ, root)
        # The Python of a virtual environment is a link to one elsewhere; its packages are beside the link.
        found += [step.parent.parent for step in (program, *steps) if (step.parent.parent / "pyvenv.cfg").is_file()]
        places |= dict.fromkeys(found)
        links |= dict.fromkeys(steps)
    return replace(launch, readable=tuple(places), links=tuple(links))
