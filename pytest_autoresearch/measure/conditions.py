"""Collects the conditions of this session's measurements: everything that a result depends on, except the candidate."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from pytest_autoresearch.core.artifacts import Artifacts
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure import rows_secret
from pytest_autoresearch.measure.setup import Equipment
from pytest_autoresearch.runners.environment import SECRET, named, passed
from pytest_autoresearch.settings import Settings

# Variables that say where something is and who runs it. Two machines may differ in them.
_WHERE = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "CC", "CXX", "HF_HOME", "HF_ENDPOINT", "RUNNER_TRACKING_ID"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "CUDA_VERSION", "NVIDIA_*"),
    *("UV_*", "PIXI_*"),  # how launchers use the environment that is there
    *("AUTORESEARCH_CACHE", "AUTORESEARCH_DATA", "AUTORESEARCH_PROFILE"),  # data and profile are conditions themselves
)
_PLACES = (*_WHERE, "PYTHONPATH")
_LONGEST = 200  # characters of a recorded value
_WHOLE_BYTES = 256 * 1024  # a larger file is sampled
_SAMPLES, _SAMPLE_BYTES = 16, 4096
_READ_FILES = 2000  # of a folder with more files, the content of so many is read, and the size of all
_FEW = 5  # packages in a sentence
_IGNORED = ("__pycache__", "*.pyc", "*.lock", "*.tmp", ".git")


def setting_of(settings: Settings, ratchet: Ratchet, equipment: Equipment) -> Setting:
    """The conditions of measurements in this session."""
    if equipment.elsewhere:
        return equipment.elsewhere.setting
    harness = equipment.harness
    return Setting(
        profile=harness.profile,
        hardware_key=harness.hardware_key,
        harness_hash=ratchet.tree_hash(settings.frozen) if settings.frozen else "",
        data_hash=harness.data_hash,
        rows=rows_secret.fingerprint(harness.secret),
        sandbox=equipment.sandbox.words,
        command=shlex.join(settings.command),
        environment=variables(equipment.variables, settings.root),
        readable={name: fingerprint(path) for name in settings.readable if (path := _at(settings, name)).exists()},
        python=platform.python_version(),
        packages=_digest(sorted(packages(sys.path))),
        driver=equipment.driver,
    )


def variables(training: Mapping[str, str], root: Path) -> dict[str, str]:
    """Those of training's variables that can change a result. A secret's value is not recorded.

    Args:
        root: The checkout. Its folders in PYTHONPATH do not count, because a run imports from its lane.
    """
    found = {name: value for name, value in training.items() if not _matches(name, _WHERE)}
    if "PYTHONPATH" in found:
        entries = [entry for entry in found["PYTHONPATH"].split(os.pathsep) if entry]
        others = [entry for entry in entries if not Path(entry).resolve().is_relative_to(root.resolve())]
        found["PYTHONPATH"] = os.pathsep.join(others)
    return {
        name: "set" if _matches(name.upper(), SECRET) or not value.isprintable() else value[:_LONGEST]
        for name, value in sorted(found.items())
        if value
    }


def portable(ours: Mapping[str, str], asked: Iterable[str]) -> dict[str, str]:
    """Those variables of this process that training gets on every node of a cluster, whatever the node has itself.

    Args:
        asked: The names that the user asks for, globs allowed.
    """
    chosen = ("AUTORESEARCH_PROFILE", "AUTORESEARCH_DATA")
    given = {**passed(ours), **named(ours, asked)}
    return {name: value for name, value in given.items() if name in chosen or not _matches(name, _PLACES)}


def packages(search_path: Iterable[str]) -> set[str]:
    """The installed packages on a search path, as `name-version`; from the names of their metadata folders."""
    found = set()
    for folder in search_path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        found |= {name.rpartition(".")[0].casefold() for name in names if name.endswith((".dist-info", ".egg-info"))}
    return found


def note_packages(artifacts: Artifacts, setting: Setting) -> None:
    """Write the list of installed packages, so that a later session can name the changed ones."""
    if (file := artifacts.packages(setting.packages)).exists():
        return
    with suppress(OSError):  # the list is only for a sentence of a later session
        artifacts.make()
        file.write_text("".join(f"{name}\n" for name in sorted(packages(sys.path))))


def package_changes(artifacts: Artifacts, then: Setting) -> str:
    """The packages that differ from those of an earlier session; empty if its list is gone."""
    try:
        before = set(artifacts.packages(then.packages).read_text().splitlines())
    except OSError:
        return ""
    now = packages(sys.path)
    gone, new = sorted(before - now), sorted(now - before)
    return f"{', '.join(gone[:_FEW]) or 'nothing'} -> {', '.join(new[:_FEW]) or 'nothing'}"


def fingerprint(path: Path) -> str:
    """A digest of a file's or a folder's content, the same on every machine.

    It takes the names and sizes of all files, the content of small files, and samples of large ones. So it costs little
    for any amount of data, and overlooks only a change of a large file that keeps the size and misses every sample.
    """
    files = sorted(_files(path))
    step = max(1, len(files) // _READ_FILES)
    whole = hashlib.sha256()
    for index, (name, size, file) in enumerate(files):
        whole.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        if index % step == 0:
            whole.update(_content(file, size))
    return whole.hexdigest()[:16]


def _files(path: Path) -> Iterator[tuple[str, int, Path]]:
    """The name inside `path`, the size and the place of each file. A link counts as what it leads to."""
    if path.is_file():
        yield "", path.stat().st_size, path
        return
    for folder, inside, names in os.walk(path):
        inside[:] = [name for name in inside if not _matches(name, _IGNORED)]
        for name in names:
            file = Path(folder, name)
            if _matches(name, _IGNORED):
                continue
            try:
                look = file.stat()
            except OSError:
                continue
            if stat.S_ISREG(look.st_mode):
                yield file.relative_to(path).as_posix(), look.st_size, file


def _content(file: Path, size: int) -> bytes:
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as opened:
            if size <= _WHOLE_BYTES:
                return hashlib.sha256(opened.read()).digest()
            for number in range(_SAMPLES):
                opened.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                digest.update(opened.read(_SAMPLE_BYTES))
    except OSError as error:
        return type(error).__name__.encode()
    return digest.digest()


def _at(settings: Settings, name: str) -> Path:
    return settings.root / Path(name).expanduser()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
