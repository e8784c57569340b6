"""The paths of this machine that a program in a sandbox needs, and those among them that contain validation text.

Knows paths alone, no backend. A sandbox shows only the paths that are named, nothing else of the machine.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pytest_autoresearch.hardware.gpu import Gpu
from pytest_autoresearch.sandboxes import system

ROOT_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # links into /usr on current systems
SETTINGS = (
    *("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/timezone", "/etc/os-release"),
    *("/etc/services", "/etc/protocols", "/etc/mime.types", "/etc/fonts"),
)
NETWORK_SETTINGS = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates"),
)
PROCESSORS = ("/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage")
"""What numeric libraries read about processors and memory. They do not name the machine."""

UNNEEDED = ("test", "idlelib", "turtledemo", "pydoc_data")
"""Folders of the standard library that training does not need. The embedded corpus takes validation text from them."""

_INTERPRETERS = ("python3*", "pypy3*")
_SITES = ("site-packages", "dist-packages")
_SHARED = frozenset({"lib", "libexec", "opt", "share"})  # each program has its own folder inside these
_MOST_INTERPRETERS = 4  # a script's interpreter may be a script with its own interpreter
_CONDA = ("envs", "pkgs")  # conda keeps environments and packages in its own folder
_ENVIRONMENTS = ("", *(f"{name}/*/" for name in _CONDA))


def python(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """The folders of this interpreter, its packages, and the libraries and compilers that the variables name.

    An interpreter in /usr shares its folders with other programs, so that only its libraries are included.
    pyenv and uv keep interpreters in the home folder; virtual environments link to them. A folder in PYTHONPATH is
    included only if it is a `site-packages` folder: the user has to name source code in `autoresearch_readable`.
    """
    found = [Path(prefix) for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)]
    found += [program.parent.parent for program in _links(Path(sys.executable))]
    if any(path.resolve() in system.SHARED for path in found):
        found += system.interpreter(f"python{sys.version_info.major}.{sys.version_info.minor}")
    if site.ENABLE_USER_SITE:
        found.append(Path(site.getusersitepackages()))
    found += [path for path in _folders(environment, "PYTHONPATH") if path.name in _SITES]
    found += _folders(environment, "LD_LIBRARY_PATH")
    found += _tools(environment)
    return tuple(path for path in dict.fromkeys(found) if path.is_dir() and not _too_wide(path) and not _many(path))


def installation(program: Path, environment: Mapping[str, str], private: Path) -> tuple[list[Path], list[Path]]:
    """The places where any kind of program and its interpreter are installed, and the links on the way to them.

    If the program does not look like part of an installation, only its file is shown. The user has to name anything
    else that it needs.

    Args:
        program: Its absolute path.
        environment: The interpreter is looked for in this PATH.
        private: No folder that contains this path is shown.
    """
    places: dict[Path, None] = {}
    links: dict[Path, None] = {}
    waiting = [program]
    for _ in range(_MOST_INTERPRETERS):
        if waiting:
            first = waiting.pop()
            steps = [first, *_links(first)]
            links |= dict.fromkeys(step for step in steps if step.is_symlink())
            files = [step for step in steps if step.is_file() and not step.is_symlink()]
            for file in files:
                found = _installed(file, private, linked=first.is_symlink())
                own = [*system.of_program(file), file] if _many(found) else [found]
                places |= dict.fromkeys((*own, *(path for place in own for path in system.settings(place))))
            waiting += _interpreter(steps[-1], environment.get("PATH", ""))
    return list(places), list(links)


def unneeded(places: Iterable[Path]) -> tuple[Path, ...]:
    """The folders of UNNEEDED in every standard library under these places."""
    patterns = [f"{inside}lib*/{name}" for inside in _ENVIRONMENTS for name in _INTERPRETERS]
    patterns += ["lib-python/3", "local/lib*/python3*"]
    found: dict[Path, None] = {}
    for place in places:
        libraries = [path for pattern in patterns for path in place.glob(pattern) if not path.parent.is_symlink()]
        for library in (place, *libraries) if _is_standard_library(place) else libraries:
            found |= dict.fromkeys(path for name in UNNEEDED if (path := library / name).is_dir())
    return tuple(found)


def other_environments(prefixes: Iterable[Path]) -> tuple[Path, ...]:
    """The environments and the package cache that conda keeps inside its own environment."""
    return tuple(
        path
        for prefix in prefixes
        if (prefix / "conda-meta").is_dir()
        for name in _CONDA
        if (path := prefix / name).is_dir()
    )


def everywhere(hidden: Iterable[Path], installed: Iterable[Path] = ()) -> tuple[Path, ...]:
    """These paths, and their copies: the same path under `site-packages` of every visible interpreter.

    Args:
        hidden: The paths.
        installed: More places of interpreters that are visible.
    """
    places = (*system.SHARED, *python(os.environ), *installed)
    patterns = [f"{inside}lib*/python3*/{name}" for inside in _ENVIRONMENTS for name in _SITES]
    sites = [site for place in places for pattern in patterns for site in place.glob(pattern)]
    found = dict.fromkeys(hidden)
    for path in tuple(found):
        names = [number for number, part in enumerate(path.parts) if part in _SITES]
        if names:
            found |= dict.fromkeys(
                copy for site in sites if (copy := site.joinpath(*path.parts[names[-1] + 1 :])).exists()
            )
    return tuple(found)


def kernel_settings(root: Path = Path("/")) -> tuple[Path, ...]:
    """The paths in /proc that belong to the machine, not to a process, and that may be writable."""
    found = [path for path in sorted((root / "proc").iterdir()) if not path.name.isdecimal() and not path.is_symlink()]
    return tuple(path for path in found if path.is_dir() or path.stat().st_mode & 0o222)


def gpu_devices(gpus: Sequence[Gpu], root: Path = Path("/")) -> tuple[Path, ...]:
    """The device files that CUDA opens for these GPUs; none if there are none.

    If the driver does not say which files belong to one of them, those of every GPU and MIG instance.

    Args:
        gpus: GPUs or MIG instances.
        root: The root of the file system.
    """
    if not gpus:
        return ()
    own = [_own_devices(gpu, root) for gpu in gpus]
    cards = [name for names in own for name in names] if all(own) else ["nvidia[0-9]*", "nvidia-caps/*"]
    shared = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"]
    return tuple(path for name in dict.fromkeys((*shared, *cards)) for path in sorted((root / "dev").glob(name)))


def _own_devices(gpu: Gpu, root: Path) -> tuple[str, ...]:
    """The names in /dev that belong to one GPU alone; empty if the driver does not say."""
    minor = _minor(gpu.card or gpu.uuid, root)
    if minor is None or not gpu.card:
        return () if minor is None else (f"nvidia{minor}",)
    if gpu.instances is None:
        return ()
    of_gpu = f"proc/driver/nvidia/capabilities/gpu{minor}/mig/gi{gpu.instances[0]}"
    files = [root / of_gpu / "access", root / of_gpu / f"ci{gpu.instances[1]}" / "access"]
    caps = [number for file in files if (number := _facts(file).get("DeviceFileMinor", "")).isdecimal()]
    return (f"nvidia{minor}", *(f"nvidia-caps/nvidia-cap{cap}" for cap in caps)) if len(caps) == len(files) else ()


def _minor(uuid: str, root: Path) -> int | None:
    """The number in the name of a GPU's device file."""
    for file in (root / "proc/driver/nvidia/gpus").glob("*/information"):
        facts = _facts(file)
        if facts.get("GPU UUID") == uuid and facts.get("Device Minor", "").isdecimal():
            return int(facts["Device Minor"])
    return None


def _facts(file: Path) -> dict[str, str]:
    """The lines `NAME: VALUE` of a file of the driver; none if it does not exist."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _tools(environment: Mapping[str, str]) -> Iterator[Path]:
    """The installations of the compilers and of CUDA that variables name; a compiler is in the `bin` of its own."""
    for name in ("CC", "CXX", "CUDAHOSTCXX"):
        word = environment.get(name, "").split(" ")[0]
        program = Path(shutil.which(word, path=environment.get("PATH")) or word)
        if program.is_absolute() and program.is_file():
            yield from (link.parent.parent for link in (program, *_links(program)) if link.parent.name == "bin")
    for name in ("CUDA_HOME", "CUDA_PATH"):
        yield from _folders(environment, name)


def _installed(file: Path, private: Path, *, linked: bool) -> Path:
    """The folder that a program was installed in, or the file itself if it does not look like an installation."""
    found = file
    folder, prefix = file.parent, file.parent.parent
    if "node_modules" in file.parts:
        found = Path(*file.parts[: file.parts.index("node_modules") + 1])
    elif folder.name == "bin" and any((prefix / name).exists() for name in ("pyvenv.cfg", *_SHARED)):
        found = prefix
    elif linked and folder.name not in _SHARED and not _SHARED.isdisjoint(folder.parts):
        found = folder
    local = Path(os.path.expanduser("~/.local"))  # contains data and key rings of many programs
    too_wide = _too_wide(found) or found in (local, local.resolve()) or private.is_relative_to(found.resolve())
    return file if too_wide else found


def _interpreter(script: Path, path: str) -> list[Path]:
    """The interpreter that a script's first line names, or an empty list."""
    try:
        with open(script, "rb") as file:
            line = os.fsdecode(file.read(512)).partition("\n")[0]
    except OSError:
        return []
    words = line.removeprefix("#!").split()
    if not line.startswith("#!") or not words:
        return []
    if words[0].endswith("/env"):
        named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        found = shutil.which(named[0], path=path) if named else None
        return [Path(found).absolute()] if found else []
    return [Path(words[0])] if words[0].startswith("/") else []


def _links(path: Path) -> Iterator[Path]:
    """Each step of a chain of symbolic links, and its end."""
    while path.is_symlink():
        path = Path(os.path.normpath(path.parent / os.readlink(path)))
        yield path
    yield path.resolve()


def _folders(environment: Mapping[str, str], name: str) -> list[Path]:
    return [Path(entry) for entry in environment.get(name, "").split(":") if entry.startswith("/")]


def _many(path: Path) -> bool:
    """Whether many programs are installed in a folder together, so that it cannot be shown for one of them."""
    return path.resolve() in system.SHARED


def _is_standard_library(place: Path) -> bool:
    return any(fnmatchcase(place.name, pattern) for pattern in _INTERPRETERS)


def _too_wide(path: Path) -> bool:
    """Whether a folder is the root, the home folder, or contains the home folder."""
    home = Path(os.path.expanduser("~"))
    return path.resolve() == Path("/") or any(wide.is_relative_to(path.resolve()) for wide in (home, home.resolve()))
