"""Makes sure that a run imports the lane's modules and no other copy of them.

An editable installation, PYTHONPATH or an installed copy of the package can lead Python to the user's checkout, or to a
folder of packages. Then each experiment would measure the unchanged program. This module finds such copies, puts the
lane's folders before them, and refuses the session if that does not help. Nothing of the repository is run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.measure import import_probe
from pytest_autoresearch.runners.environment import with_module_folders
from pytest_autoresearch.settings import Settings

_SITES = ("site-packages", "dist-packages")
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")  # interpreter options that take the next word


@dataclass(frozen=True, slots=True)
class _Start:
    """How the training command starts Python.

    Attributes:
        python: The interpreter and its options.
        script: The script, relative to the working directory; empty if the command starts a module or a launcher.
    """

    python: tuple[str, ...]
    script: str = ""


@dataclass(frozen=True, slots=True)
class _Module:
    """A module name by which an editable file may be imported.

    Attributes:
        name: Such as `toyp.model`.
        path: The file, relative to the root.
        folder: The folder on the search path that the name begins in, relative to the root.
    """

    name: str
    path: PurePosixPath
    folder: str


def module_folders(
    settings: Settings, command: Sequence[str], committed: Iterable[str], environment: Mapping[str, str]
) -> tuple[str, ...]:
    """The folders of a lane that must come first on Python's search path, relative to the root.

    Args:
        command: The training command as it is started.
        committed: Every file of the commit, relative to the root.
        environment: The variables of training.

    Raises:
        UserError: Python imports another copy of an editable module, even with these folders.
    """
    python_files = [PurePosixPath(path) for path in committed if path.endswith(".py") and not path.startswith("..")]
    start = _start(command, settings.root, environment)
    modules = [
        module
        for path in python_files
        if str(path) in settings.editable and str(path) != os.path.normpath(start.script)
        for module in _modules(path)
    ]
    folders = tuple(_inside(environment.get("PYTHONPATH", ""), settings.root))
    if not modules:
        return folders
    with tempfile.TemporaryDirectory() as lane:
        for path in python_files:
            Path(lane, path).parent.mkdir(parents=True, exist_ok=True)
            Path(lane, path).touch()
        copies = _copies(settings, start, modules, Path(lane), folders, environment)
        if not copies:
            return folders
        folders = tuple(dict.fromkeys([*(module.folder for module in copies), *folders]))
        if copies := _copies(settings, start, modules, Path(lane), folders, environment):
            module, place = next(iter(copies.items()))
            raise UserError(
                f"`import {module.name}` runs {place} and not the experiment's {module.path}, so no edit would be "
                f"measured: uninstall that copy, set PYTHONPATH={module.folder}, and leave -I and -E out of the command"
            )
    return folders


def _start(words: Sequence[str], root: Path, environment: Mapping[str, str]) -> _Start:
    program = shutil.which(words[0], path=environment.get("PATH"))
    script = next((word for word in words[1:] if word.endswith(".py")), "")
    if program is None:
        return _Start((sys.executable,), script)
    if not os.path.basename(program).startswith("python"):
        return _Start(_interpreter(Path(program)) or _of_checkout(root), script)
    options: list[str] = []
    rest = list(words[1:])
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c", "-"):
        options.append(rest.pop(0))
        if options[-1] in _WITH_VALUE and rest:
            options.append(rest.pop(0))
    return _Start((program, *options), rest[0] if rest and not rest[0].startswith("-") else "")


def _interpreter(program: Path) -> tuple[str, ...]:
    """The interpreter that the first line of a Python script names; empty for any other program."""
    with open(program, "rb") as file:
        line = os.fsdecode(file.read(512)).partition("\n")[0]
    words = line.removeprefix("#!").split()
    named = bool(words) and line.startswith("#!") and os.path.basename(words[0]).startswith("python")
    return tuple(words) if named else ()


def _of_checkout(root: Path) -> tuple[str, ...]:
    """The interpreter that a launcher such as `uv run` or `make` is likely to use."""
    own = root / ".venv" / "bin" / "python"
    return (str(own),) if own.exists() else (sys.executable,)


def _modules(path: PurePosixPath) -> Iterator[_Module]:
    """Every name by which the file may be imported, depending on the folder that is on the search path."""
    parts = path.with_suffix("").parts
    names = parts[:-1] if parts[-1] == "__init__" else parts
    for at in range(len(names)):
        if all(part.isidentifier() for part in names[at:]):
            yield _Module(".".join(names[at:]), path, "/".join(names[:at]) or ".")


def _inside(python_path: str, root: Path) -> Iterator[str]:
    """The entries of PYTHONPATH that lead into the checkout, relative to it."""
    for entry in python_path.split(os.pathsep):
        place = Path(entry).resolve()
        if os.path.isabs(entry) and place.is_relative_to(root.resolve()) and set(_SITES).isdisjoint(place.parts):
            yield place.relative_to(root.resolve()).as_posix()


def _copies(
    settings: Settings, start: _Start, modules: list[_Module], lane: Path, folders: Iterable[str],
    environment: Mapping[str, str],
) -> dict[_Module, Path]:  # fmt: skip
    """The modules that Python finds outside of the lane, in a copy of the repository, and where."""
    asked = {"first": str(lane / os.path.dirname(start.script)), "names": [module.name for module in modules]}
    done = subprocess.run(
        [*start.python, "-c", Path(import_probe.__file__).read_text("utf-8")],
        cwd=lane, input=json.dumps(asked), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
        env=with_module_folders(environment, [lane / folder for folder in folders]),
    )  # fmt: skip
    if done.returncode:
        return {}  # an interpreter that does not start is a failure of the baseline, with its own words
    found: dict[str, str] = json.loads(done.stdout)
    places = ((module, Path(found[module.name]).resolve()) for module in modules if module.name in found)
    return {
        module: place
        for module, place in places
        if not place.is_relative_to(lane.resolve()) and _is_copy(module, place, settings.root.resolve())
    }


def _is_copy(module: _Module, place: Path, root: Path) -> bool:
    """Whether a found file is a copy of the editable one, and not an unrelated module of the same name."""
    if place == root / module.path:
        return True
    inside = module.path.relative_to(module.folder)
    if PurePosixPath(place).parts[-len(inside.parts) :] != inside.parts:
        return False
    top = Path(*place.parts[: -len(inside.parts)])
    if top.name not in _SITES:
        # Another clone, or a folder that a build has made: the package is laid out as here.
        return len(module.name.split(".")) > 1 or place.name == "__init__.py"
    return any(
        _installed_from(one, root) and any(PurePosixPath(file) == inside for file in one.files or ())
        for one in metadata.distributions(path=[str(top)])
    )


def _installed_from(distribution: metadata.Distribution, root: Path) -> bool:
    """Whether a package was installed from this checkout, or is a release of the same project."""
    try:
        url = json.loads(distribution.read_text("direct_url.json") or "{}").get("url", "")
    except ValueError:
        url = ""
    if urlsplit(url).scheme == "file" and Path(unquote(urlsplit(url).path)).resolve() == root:
        return True
    return bool(name := _project(root)) and _plain(distribution.name or "") == _plain(name)


def _project(root: Path) -> str:
    """The name of the project in the checkout; empty if it has none."""
    try:
        return str(tomllib.loads((root / "pyproject.toml").read_text("utf-8")).get("project", {}).get("name", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").replace(".", "-")
