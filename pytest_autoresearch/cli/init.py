"""`autoresearch init`: adds the files that a campaign needs to an existing repository.

Existing files are not changed, except for lines at the end of `.gitignore`. A second call changes nothing.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_autoresearch.cli import output, scaffold
from pytest_autoresearch.cli.repository import configuration, enter
from pytest_autoresearch.cli.scaffold import Value
from pytest_autoresearch.core.artifacts import rule_files
from pytest_autoresearch.core.errors import GitError, UserError
from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.settings import Settings, read

_WORKFLOW = Path(".github", "workflows", "autoresearch.yml")
_RULE = re.compile(r"def test\w*\s*\([^)]*\bexperiment\b")
_DEFAULTS: Mapping[str, Value] = {
    "autoresearch_command": "python train.py",
    "autoresearch_editable": ("train.py",),
    "autoresearch_frozen": (),
    "autoresearch_metric": "val_bpb",
    "autoresearch_direction": "minimize",
    "autoresearch_experiments": "experiments",
}
_OTHER_FOLDERS = ("research", "acceptance", "autoresearch")
_SECTIONS = {"setup.cfg": "[tool:pytest]", "pyproject.toml": "[tool.pytest.ini_options]"}

_EPILOG = """examples:
  autoresearch init                                       train.py, which lowers val_bpb
  autoresearch init --command 'python sort.py' --metric score --direction maximize
  autoresearch init --command 'python measure.py' --editable sort.py --metric cpu_seconds

Adds program.md, experiments/test_METRIC.py, pytest.ini, lines in .gitignore and a workflow for GitHub Actions. Existing
files are not changed: if pytest is configured in another file, the lines to add are printed instead. If experiments/
holds other tests, the acceptance rule goes to research/."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One file that a campaign needs.

    Attributes:
        path: Relative to the repository's top folder.
        done: `wrote`, `added` (lines), or `kept` unchanged.
        said: Its purpose.
    """

    path: str
    done: str
    said: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `init`."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "--command", dest="training", metavar="COMMAND", help="the command to run and measure (python train.py)"
    )
    parser.add_argument("--metric", metavar="NAME", help="the name of the metric that it prints (val_bpb)")
    parser.add_argument(
        "--direction", choices=tuple(map(str, Direction)), help="which way the metric improves (minimize)"
    )
    parser.add_argument(
        "--editable", nargs="+", action="extend", metavar="FILE",
        help="files that experiments may change, globs allowed (the script of the command)",
    )  # fmt: skip
    parser.add_argument("--no-workflow", action="store_true", help="add no workflow for GitHub Actions")


def command(given: argparse.Namespace) -> int:
    """0 if everything is there."""
    enter(given)
    config = configuration()
    root = config.rootpath.resolve()
    git = Git(root)
    try:
        top = Path(git("rev-parse", "--show-toplevel")).resolve()
    except GitError:
        raise UserError(f"{root} is not a git repository: type `git init` first") from None
    now = read(root, config.inipath, config.getoption, config.getini)
    wanted = _wanted(given, now, config.getini("python_files"))
    settings = read(root, config.inipath, config.getoption, lambda key: wanted.get(key, config.getini(key)))
    _check(settings, named=bool(given.training))
    lines = _missing_lines(config, wanted)
    parts = [
        _write(top, root / "program.md", scaffold.charter(settings), "the charter: write your research goals there"),
        _rule(top, settings),
        *_configuration(top, config, lines),
        _ignore(git, top, settings),
        *([] if given.no_workflow or root != top else [_write(top, top / _WORKFLOW, scaffold.workflow(), _FOR_CI)]),
    ]
    to_add = lines if _is_configured(config) else []
    following = _following(git, to_add)
    if given.json:
        output.dump(_document(parts, config, to_add, following))
    else:
        _print(parts, config, to_add, following)
    return 0


_FOR_CI = "a night on a GPU runner of your own"


# ------------------------------------------------------------------------------------------------------ settings


def _wanted(given: argparse.Namespace, now: Settings, patterns: Sequence[str]) -> dict[str, Value]:
    """The ini keys to configure: from the arguments, what follows from them, and the existing configuration.

    Args:
        patterns: Name patterns of test files.
    """
    editable = tuple(given.editable or ())
    training = given.training
    if not training and len(editable) == 1 and editable[0].endswith(".py") and now.command == ("python", "train.py"):
        training = f"python {shlex.quote(editable[0])}"
    training = training or shlex.join(now.command)
    named = _named(training, now.root)
    scripts = tuple(name for name in named if (now.root / name).is_file())[:1]
    if not editable:
        editable = (scripts or named[:1] or tuple(now.editable)) if given.training else tuple(now.editable)
    # A script that measures and is not editable decides what is kept, so it is frozen.
    frozen = tuple(path for path in scripts if path not in editable and path not in now.frozen)
    return {
        "autoresearch_command": training,
        "autoresearch_editable": editable,
        "autoresearch_frozen": (*now.frozen, *frozen),
        "autoresearch_metric": given.metric or now.metric,
        "autoresearch_direction": given.direction or str(now.direction),
        "autoresearch_experiments": _folder(now.root, now.experiments, patterns),
    }


def _named(training: str, root: Path) -> tuple[str, ...]:
    """The repository files that the command names, existing or not."""
    try:
        words = shlex.split(training)
    except ValueError:
        return ()  # `read` reports the error
    found = []
    for before, word in itertools.pairwise(words):
        if before == "-m":
            found.append(_module(word, root))
        elif not Path(word).is_absolute() and (word.endswith(".py") or (root / word).is_file()):
            found.append(word)
    return tuple(dict.fromkeys(found))


def _module(name: str, root: Path) -> str:
    """The file that `python -m` runs; if it does not exist, the most likely path."""
    path = name.replace(".", "/")
    places = (f"{path}.py", f"{path}/__main__.py", f"src/{path}.py", f"src/{path}/__main__.py")
    return next((place for place in places if (root / place).is_file()), places[0])


def _folder(root: Path, configured: str, patterns: Sequence[str]) -> str:
    """The folder of acceptance rules; not `experiments` if that folder holds other tests.

    A session would import those tests, and many repositories have a folder `experiments`.
    """
    if configured != _DEFAULTS["autoresearch_experiments"]:
        return configured
    return next((name for name in (configured, *_OTHER_FOLDERS) if not _is_taken(root / name, patterns)), configured)


def _is_taken(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether the folder has tests but none with the fixture `experiment`."""
    tests = [path for path in rule_files(folder) if any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)]
    return bool(tests) and not any(map(_is_rule, tests))


def _is_rule(path: Path) -> bool:
    return _RULE.search(path.read_text("utf-8", "replace")) is not None


def _check(settings: Settings, named: bool) -> None:
    """Check that there are files to experiment on.

    Args:
        named: Whether the user gave the command.
    """
    for pattern in settings.editable:
        if (settings.root / pattern).exists() or any(settings.root.glob(pattern)):
            continue
        scripts = sorted(
            path.name for path in settings.root.glob("*.py") if not path.name.startswith(("test_", "conftest"))
        )
        if named and pattern in _named(shlex.join(settings.command), settings.root):
            raise UserError(
                f"`{shlex.join(settings.command)}` runs {pattern}, which does not exist here: name an existing file or "
                "name the files that experiments may change with --editable FILE"
            )
        if named and pattern == "train.py":
            raise UserError(
                f"`{shlex.join(settings.command)}` names no file of this repository: name the files that experiments "
                "may change with --editable FILE"
            )
        which = scripts[0] if scripts else "train.py"
        raise UserError(
            f"there is no {pattern} here: name the script to run and measure, such as "
            f"`autoresearch init --command 'python {which}' --metric score`"
        )


def _missing_lines(config: pytest.Config, wanted: Mapping[str, Value]) -> list[str]:
    """The lines that the configuration lacks."""
    have: dict[str, Value] = {}
    for key, default in _DEFAULTS.items():
        value = config.getini(key)
        have[key] = (tuple(value) if isinstance(value, list) else value) or default
    toml = _is_configured(config) and config.inipath is not None and config.inipath.suffix == ".toml"
    return scaffold.configuration({key: value for key, value in wanted.items() if have[key] != value}, toml)


# -------------------------------------------------------------------------------------------------------- files


def _write(top: Path, path: Path, text: str, said: str) -> _Part:
    name = path.relative_to(top).as_posix() if path.is_relative_to(top) else str(path)
    if path.exists() or path.is_symlink():
        return _Part(name, "kept", said)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    return _Part(name, "wrote", said)


def _rule(top: Path, settings: Settings) -> _Part:
    said = "the acceptance rule, a test"
    folder = settings.experiments_folder
    if settings.experiments in _OTHER_FOLDERS:
        said += f"; {_DEFAULTS['autoresearch_experiments']}/ holds other tests and is not changed"
    for path in filter(_is_rule, sorted(rule_files(folder))):
        return _Part(path.relative_to(top).as_posix(), "kept", said)
    text = scaffold.rule(settings.metric, settings.direction)
    return _write(top, folder / scaffold.rule_name(settings.metric), text, said)


def _is_configured(config: pytest.Config) -> bool:
    """Whether a file configures pytest; a pyproject.toml without a pytest table does not."""
    if config.inipath is None or config.inipath.name != "pyproject.toml":
        return config.inipath is not None
    with config.inipath.open("rb") as file:
        return "pytest" in tomllib.load(file).get("tool", {})


def _configuration(top: Path, config: pytest.Config, lines: list[str]) -> Iterator[_Part]:
    said = "the configuration"
    if _is_configured(config):
        assert config.inipath is not None
        path = config.inipath
        yield _Part(path.relative_to(top).as_posix() if path.is_relative_to(top) else str(path), "kept", said)
    elif lines:
        yield _write(top, config.rootpath.resolve() / "pytest.ini", "\n".join(["[pytest]", *lines, ""]), said)


def _ignore(git: Git, top: Path, settings: Settings) -> _Part:
    """Add lines to `.gitignore` for files that git does not ignore yet."""
    path = settings.root / ".gitignore"
    name = path.relative_to(top).as_posix()
    wanted = scaffold.ignored(settings.experiments)
    missing = [one for one in wanted if git.ask("check-ignore", "--quiet", "--no-index", one) is None]
    if not missing:
        return _Part(name, "kept", "files for git to ignore")
    existed = path.exists()
    before = path.read_bytes() if existed else b""
    gap = "" if not before or before.endswith(b"\n") else "\n"
    with path.open("ab") as file:
        file.write((gap + "".join(f"{one}\n" for one in missing)).encode())
    return _Part(name, "added" if existed else "wrote", f"files for git to ignore: {', '.join(missing)}")


# -------------------------------------------------------------------------------------------------------- output


def _following(git: Git, to_add: list[str]) -> list[str]:
    """The commands to type next."""
    dirty = git("status", "--porcelain", "--untracked-files=all", "--", ".")
    commit = ["git add -A && git commit -m 'Set up autoresearch'"] if dirty or to_add else []
    return [*commit, "pytest --autoresearch --max 1"]


def _section(path: Path) -> str:
    if path.name == "pyproject.toml":
        with path.open("rb") as file:
            own = tomllib.load(file)["tool"]["pytest"]
        return _SECTIONS[path.name] if "ini_options" in own else "[tool.pytest]"
    return _SECTIONS.get(path.name, "[pytest]")


def _print(parts: list[_Part], config: pytest.Config, to_add: list[str], following: list[str]) -> None:
    wide = max(len(part.path) for part in parts)
    for part in parts:
        mark = output.colour(f"{part.done:<5}", "" if part.done == "kept" else "green")
        print(f"{mark}  {output.line(part.path):<{wide}}  {part.said}".rstrip())
    if to_add and config.inipath is not None:
        print(f"\nadd to {output.line(config.inipath.name)}, under {_section(config.inipath)}:")
        print("\n".join(f"  {line}" for line in to_add))
    elif all(part.done == "kept" for part in parts):
        print("\neverything is already there; nothing was changed")
    print("\nedit program.md, then type:")
    print("\n".join(f"  {one}" for one in following))


def _document(parts: list[_Part], config: pytest.Config, to_add: list[str], following: list[str]) -> dict[str, object]:
    add = None
    if to_add and config.inipath is not None:
        add = {"file": config.inipath.name, "section": _section(config.inipath), "lines": to_add}
    return {
        "wrote": [part.path for part in parts if part.done != "kept"],
        "kept": [part.path for part in parts if part.done == "kept"],
        "add": add,
        "next": following,
    }
