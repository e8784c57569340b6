"""The parts of /usr that any program needs: an allow-list.

Programs, shared libraries with their plug-ins, a C compiler with its headers, CUDA, time zones and terminals. The
packages, the documentation and the data of other programs are not on the list, because copies of validation text may be
among them. Knows paths alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from pathlib import Path

LIBRARIES = Path("/usr")
SHARED = (LIBRARIES, LIBRARIES / "local")
"""Folders in which many programs are installed together."""

SETTINGS = Path("/etc")

_FOLDERS = ("bin", "sbin", "include", "cuda*", "nvidia")
_SHARE = (
    *("zoneinfo", "terminfo", "i18n", "fonts", "fontconfig", "git-core", "libdrm", "drirc.d", "glvnd", "vulkan"),
    *("egl", "nvidia"),
)
_CERTIFICATES = ("ca-certificates", "pki", "publicsuffix")
_LIBRARY_NAMES = (  # what else is shown in a folder of libraries: compilers, plug-ins in several folders, settings
    *("gcc*", "bfd-plugins", "ldscripts", "compat-ld", "gold-ld", "git-core", "coreutils", "locale", "terminfo"),
    *("os-release", "ssl", "gconv", "openmpi*", "mpich*", "hdf5", "cuda*", "nvidia*", "wsl", "*-linux-*"),
)
_LIBRARY_NAME = re.compile("|".join(map(translate, _LIBRARY_NAMES)))
_MORE_LETTERS = r"(js|[^a-z].*)?"  # the packages of `node` are in `nodejs` and `node_modules`, not in `node-foo`'s


def shown(network: bool = False) -> tuple[list[Path], list[Path]]:
    """The paths to show, and the folders inside them to cover.

    Args:
        network: Whether programs use the network, and so need certificates.
    """
    share = (*_SHARE, *(_CERTIFICATES if network else ()))
    found = [path for root in SHARED for name in _FOLDERS for path in sorted(root.glob(name)) if path.is_dir()]
    found += [path for root in SHARED for name in share if (path := root / "share" / name).is_dir()]
    covered: list[Path] = []
    folders = [path for path in _library_folders() if found_in(path, found) is None]
    for folder in folders:
        names, subfolders = _content(folder)
        wanted, others = _split(folder, names, subfolders, folders)
        whole = any(map(_is_library, names))
        # Many libraries cannot be shown one by one, so the other folders beside them are covered.
        found += [folder] if whole else wanted
        covered += others if whole else []
    return list(dict.fromkeys(found)), covered


def of_program(file: Path) -> list[Path]:
    """The folders in /usr that belong to a program in /usr by their names: for `ruby3.1`, those of `ruby`."""
    if re.fullmatch(r"python3(\.\d+)?", file.name):
        return interpreter(file.name)
    stem = re.sub(r"(script|[-.\d]+)$", "", file.name)
    belongs = re.compile(re.escape(stem) + _MORE_LETTERS)
    return [place / name for place in _places() for name in _content(place)[1] if stem and belongs.fullmatch(name)]


def settings(place: Path) -> list[Path]:
    """The files and folders in /etc to which links in a program's own folder in /usr lead, if any user may read them.

    Distributions keep the settings of a program in /etc, such as those of Java and R.
    """
    if not any(place.is_relative_to(root) for root in SHARED):
        return []
    return [path for path in _led_to(place) if path.is_relative_to(SETTINGS) and path.stat().st_mode & 0o004]


def libraries(name: str) -> list[Path]:
    """The folders in /usr/lib that contain a shared library of this name."""
    return sorted({path.parent for root in SHARED for path in root.glob(f"lib*/**/{name}") if path.is_file()})


def found_in(path: Path, places: Iterable[Path]) -> Path | None:
    """The first of these places that contains a path or is the path; None if there is none."""
    return next((place for place in places if path.is_relative_to(place)), None)


def interpreter(name: str) -> list[Path]:
    """The standard library and the packages in /usr of a Python such as `python3.12`."""
    versions = (name,) if "." in name else ("python3.*",)
    wanted = [path for root in SHARED for each in (*versions, "python3") for path in sorted(root.glob(f"lib*/{each}"))]
    return [path for path in wanted if path.is_dir()]


def _library_folders() -> tuple[Path, ...]:
    """The folders in which the dynamic linker looks for libraries, under their real paths."""
    usual = [path for root in SHARED for name in ("lib", "lib64", "lib32", "libexec") for path in [root / name]]
    usual += [path for root in SHARED for path in sorted(root.glob("lib/*-linux-*"))]
    try:
        cache = Path("/etc/ld.so.cache").read_bytes()
    except OSError:
        cache = b""
    usual += map(Path, sorted({os.path.dirname(os.fsdecode(path)) for path in re.findall(rb"/[^\0]+(?=\0)", cache)}))
    home = Path(os.path.expanduser("~")).resolve()
    real = dict.fromkeys(path.resolve() for path in usual if path.is_dir())
    # With separate /lib and /usr/lib, all of /lib is shown.
    return tuple(path for path in real if len(path.parts) > 2 and not home.is_relative_to(path))


def _split(
    folder: Path, names: Iterable[str], subfolders: Iterable[str], folders: Iterable[Path]
) -> tuple[list[Path], list[Path]]:
    """What to show in a folder of libraries, apart from libraries, and its other subfolders."""
    wanted = [folder / name for name in (*names, *subfolders) if _LIBRARY_NAME.fullmatch(name)]
    inside = [path for name in subfolders if (path := folder / name) not in wanted and path not in folders]
    plugins = [path for path in inside if _has_only_libraries(path)]
    return [*wanted, *plugins], [path for path in inside if path not in plugins]


def _has_only_libraries(folder: Path) -> bool:
    """Whether a folder contains shared libraries and no folders, like the plug-ins of a library."""
    names, subfolders = _content(folder)
    return not subfolders and any(map(_is_library, names))


def _led_to(place: Path) -> Iterator[Path]:
    """The ends of the links below a folder."""
    for folder, subfolders, names in os.walk(place):
        found = [Path(folder, name) for name in (*subfolders, *names)]
        yield from (path.resolve() for path in found if path.is_symlink() and path.exists())


def _is_library(name: str) -> bool:
    return name.endswith(".so") or ".so." in name


def _content(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the files and links in a folder, and of its subfolders."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError:
        return [], []
    return [name for name, is_folder in found if not is_folder], [name for name, is_folder in found if is_folder]


def _places() -> Iterator[Path]:
    """Where programs in /usr have their own folders."""
    for root in SHARED:
        yield from (root / name for name in ("lib", "lib64", "libexec", "share"))
        yield from sorted(root.glob("lib/*-linux-*"))
