"""What to type when the user's own program has no metric: the usual reasons why it runs in the checkout, but not here.

A run sees the last commit, in a sandbox, with few variables. Each sentence names the file or the variable that the
program asked for. Without such a reason there is no advice. Reads output and files; changes nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from pytest_autoresearch.core.run import Run
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.runners.environment import named, passed
from pytest_autoresearch.sandboxes.base import HOME
from pytest_autoresearch.sandboxes.shown import places
from pytest_autoresearch.sandboxes.system import LIBRARIES, found_in, libraries
from pytest_autoresearch.settings import Settings

# Python's own words for its errors; other programs' are like the C library's.
_MISSING = re.compile(r"\[Errno (?:2|13)\] [^:\n]+: '([^'\n]+)'|(/[^\s:'\"]+): (?:No such file|Permission denied)")
_READ_ONLY = re.compile(r"Read-only file system(?:: '([^'\n]+)')?")
_NO_MODULE = re.compile(r"No module named '([\w.]+)'|cannot import name '\w+' from '([\w.]+)'")
_OF_THE_SYSTEM = re.compile(r"(?<![\w./])/usr/[\w.+@/-]*[\w+]")
_NO_LIBRARY = re.compile(r"(\S+\.so[\d.]*): cannot open shared object file")
_NO_KEY = re.compile(r"^KeyError: '(\w+)'$", re.MULTILINE)
_NO_NETWORK = re.compile(r"Name or service not known|Temporary failure in name resolution|Network is unreachable")
_READS = re.compile(r"""(?:environ(?:\.get)?|getenv)\s*[\[(]\s*["'](\w+)["']""")
_PLAIN = re.compile(r"[\w~@%+=:,./*-]+")  # needs no quotes in an ini file
_TRACEBACK = "Traceback (most recent call last)"
_LAST_LINES = 10
_MOST_NAMED = 3


def advice(run: Run, settings: Settings, ratchet: Ratchet, confined: bool, of_commit: bool) -> list[str]:
    """Why a run of the user's own program may have failed, one sentence for each reason.

    Args:
        run: A run without a metric.
        confined: Whether it ran in a sandbox.
        of_commit: Whether it ran the last commit, without the edits of the checkout.
    """
    said = _last_words(run.log)
    found = [*_reasons(said, settings, ratchet, confined)]
    if of_commit:
        found += _uncommitted(said, settings, ratchet)
    if not found:
        missing = list(ratchet.elsewhere.missing.items())[:_MOST_NAMED]
        found = [f"the content of {path} is not in this checkout: type `{command}`" for path, command in missing]
    return list(dict.fromkeys(found))


def _last_words(log: str) -> str:
    """From the first traceback on, or the last lines: before, a program may print errors that it can bear.

    A launcher of several processes prints its own traceback after that of a process.
    """
    heading = log.find(_TRACEBACK)
    return log[heading:] if heading >= 0 else "\n".join(log.splitlines()[-_LAST_LINES:])


def _reasons(log: str, settings: Settings, ratchet: Ratchet, confined: bool) -> Iterator[str]:
    committed = set(ratchet.committed())
    for module in (name for found in _NO_MODULE.finditer(log) for name in found.groups() if name):
        yield from _module(module, settings, committed)
    for found in _MISSING.finditer(log):
        yield from _path(found[1] or found[2], settings, ratchet, committed, confined)
    for found in _READ_ONLY.finditer(log):
        yield _written(found[1] or "")
    yield from _variables(log, settings, ratchet)
    if confined:
        yield from _of_the_system(log, settings)
    if confined and _NO_NETWORK.search(log):
        yield (
            "training has no network: download what it needs once, in the checkout, and name the folder: "
            f"{_ini_line(settings, 'readable', settings.readable, '~/.cache/NAME')}"
        )


def _module(module: str, settings: Settings, committed: set[str]) -> Iterator[str]:
    """An imported module that lies in the checkout and in no commit."""
    inside = Path(*module.split("."))
    for place in dict.fromkeys(("", "src", *(os.path.dirname(path) for path in settings.editable))):
        for path in (Path(place, f"{inside}.py"), Path(place, inside, "__init__.py"), Path(place, inside)):
            if (settings.root / path).exists() and not _is_committed(path.as_posix(), committed):
                yield f"{path} is in no commit, and a run sees only the last commit: {_add(path)}"
                return


def _path(name: str, settings: Settings, ratchet: Ratchet, committed: set[str], confined: bool) -> Iterator[str]:
    """A file that training did not find."""
    inside = _in_checkout(name, settings, ratchet)
    if inside is not None:
        if (settings.root / inside).exists() and not _is_committed(inside, committed):
            yield (
                f"{inside} is in no commit, and a run sees only the last commit: {_add(Path(inside))}; or, if training "
                f"only reads it, {_ini_line(settings, 'readable', settings.readable, inside)}"
            )
        return
    shown = name.replace(f"{HOME}/", "~/", 1) if name.startswith(f"{HOME}/") else name
    path = Path(shown).expanduser()
    if (
        confined
        and path.is_absolute()
        and not path.is_relative_to(LIBRARIES)
        and path.exists()
        and path.resolve() not in map(Path.resolve, settings.readable_paths)
    ):
        yield f"the sandbox does not show {shown}: {_ini_line(settings, 'readable', settings.readable, shown)}"


def _of_the_system(log: str, settings: Settings) -> Iterator[str]:
    """Paths in /usr, and libraries, that the program's last words name and that the sandbox does not show."""
    readable, covered = places(settings.readable_paths, os.environ)
    names = [Path(name) for name in _OF_THE_SYSTEM.findall(log)]
    names += [path for name in _NO_LIBRARY.findall(log) for path in libraries(Path(name).name)]
    hidden = [
        path
        for path in dict.fromkeys(names)
        if path.exists() and (not found_in(path, readable) or found_in(path, covered))
    ]
    hidden = [path for path in hidden if not found_in(path, (other for other in hidden if other != path))]
    if hidden:
        words = (*settings.readable, *map(str, hidden[:-1]))
        yield f"the sandbox shows only a part of /usr: {_ini_line(settings, 'readable', words, str(hidden[-1]))}"


def _in_checkout(name: str, settings: Settings, ratchet: Ratchet) -> str | None:
    """The path relative to pytest's root, if it lies in the checkout or in a lane's tree."""
    path = Path(name)
    if not path.is_absolute():
        return os.path.normpath(name)
    if path.is_relative_to(ratchet.home):  # lane-0/PREFIX/PATH
        inside = Path(*path.relative_to(ratchet.home).parts[1:])
        return str(inside.relative_to(ratchet.prefix)) if inside.is_relative_to(ratchet.prefix) else None
    return str(path.relative_to(settings.root)) if path.is_relative_to(settings.root) else None


def _is_committed(path: str, committed: set[str]) -> bool:
    return path in committed or any(one.startswith(f"{path}/") for one in committed)


def _written(name: str) -> str:
    return (
        f"training may not write to {name or 'this place'}: write to the folder in the variable AUTORESEARCH_OUT, or "
        "to /tmp"
    )


def _variables(log: str, settings: Settings, ratchet: Ratchet) -> Iterator[str]:
    """Variables that are set, that the program reads, and that it does not get."""
    texts = [text.decode("utf-8", "replace") for text in ratchet.texts(settings.editable.__contains__).values()]
    asked = [*_NO_KEY.findall(log), *(name for text in texts for name in _READS.findall(text))]
    given = {*passed(os.environ), *named(os.environ, settings.environment)}
    for name in dict.fromkeys(asked):
        if name in os.environ and name not in given and not name.startswith("AUTORESEARCH_"):
            line = _ini_line(settings, "environment", settings.environment, name)
            yield f"the program reads the variable {name}, which training does not get: {line}"


def _uncommitted(log: str, settings: Settings, ratchet: Ratchet) -> Iterator[str]:
    """Edits of tracked files that are in no commit: Python's, and those that the program's last words name."""
    committed, candidate = set(ratchet.committed()), settings.editable if settings.proposer == "checkout" else ()
    names = [
        path
        for path in ratchet.dirty(["."])
        if path in committed and (path.endswith(".py") or Path(path).name in log) and path not in candidate
    ]
    if names:
        files = " ".join(shlex.quote(path) for path in names[:_MOST_NAMED])
        yield (
            f"uncommitted changes in {', '.join(names[:_MOST_NAMED])} are ignored, because a run sees only the last "
            f"commit: type `git add {files} && git commit -m 'Before the campaign'`, and rerun"
        )


def _add(path: Path) -> str:
    return f"type `git add {shlex.quote(str(path))} && git commit -m 'Before the campaign'`"


def _ini_line(settings: Settings, key: str, now: tuple[str, ...], more: str) -> str:
    """The line of the configuration with one more word."""
    file = settings.config_file
    words = (*now, more)
    if file is not None and file.suffix == ".toml":
        line = f"autoresearch_{key} = [{', '.join(repr(word) for word in words)}]".replace("'", '"')
    else:
        line = (
            f"autoresearch_{key} = {' '.join(word if _PLAIN.fullmatch(word) else shlex.quote(word) for word in words)}"
        )
    return f"write `{line}` in {file.name if file else 'pytest.ini, below [pytest]'}"
