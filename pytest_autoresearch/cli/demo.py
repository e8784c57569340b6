"""`autoresearch demo`: a whole campaign in half a minute, in a folder of its own.

The program to improve is a small compressor in plain Python. Its proposals are patches that this module writes, so it
needs neither a key nor a network, nor any library beyond the plugin's own.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from pytest_autoresearch.cli import output, scaffold
from pytest_autoresearch.cli.repository import enter
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.ledger.git import PATCH, Git
from pytest_autoresearch.proposers.queue import FOLDER
from pytest_autoresearch.reports.page.writer import PAGE

_PROGRAM = "compress.py"
_METRIC = "bits_per_byte"
_TAG = "demo"
_TEXT_BYTES = 60_000
_INI: Mapping[str, scaffold.Value] = {
    "autoresearch_command": f"python {_PROGRAM}",
    "autoresearch_editable": (_PROGRAM,),
    "autoresearch_frozen": ("text.txt",),
    "autoresearch_metric": _METRIC,
    "autoresearch_direction": "minimize",
    "autoresearch_budget": "10",
}


@dataclass(frozen=True, slots=True)
class _Idea:
    """A proposal.

    Attributes:
        description: In one line.
        why: The hypothesis.
        values: The constants that it sets.
        helps: Whether later ideas are written on top of it.
    """

    description: str
    why: str
    values: dict[str, str]
    helps: bool


_IDEAS = (
    _Idea("a model of what follows one byte", "letters go in pairs", {"ORDER_1": "True"}, True),
    _Idea("unseen bytes count a fiftieth", "most bytes never occur in a place", {"UNSEEN": "0.02"}, True),
    _Idea("forget after 40 bytes", "text changes its subject", {"MOST": "40.0"}, False),
    _Idea("a model of what follows two bytes", "words repeat", {"ORDER_2": "True"}, True),
    _Idea("nothing for unseen bytes", "what never came will not come", {"UNSEEN": "0.0"}, False),
    _Idea(
        "trust the model that was right of late",
        "each order is good in some places",
        {"TRUST": "0.5", "FORGET": "0.8"},
        True,
    ),
    _Idea("a model of what follows three bytes", "names repeat", {"ORDER_3": "True"}, True),
    _Idea("trust it fully", "the best model is the best", {"TRUST": "1.0"}, False),
    _Idea("a seen byte counts double", "what came once comes again", {"SEEN": "2.0"}, True),
    _Idea("a model of what follows five bytes", "phrases repeat", {"ORDER_5": "True"}, False),
    _Idea("unseen bytes count a five-hundredth", "it helped before", {"UNSEEN": "0.002"}, True),
    _Idea("no model without a context", "it predicts worst", {"ORDER_0": "False"}, False),
    _Idea("forget by half a byte", "only the last bytes tell which model is right", {"FORGET": "0.5"}, True),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and whether to open the page."""
    parser.description = (
        f"Run {len(_IDEAS)} experiments on a small compressor, in about half a minute and in a folder of its own:\n"
        "a program to improve, a test that decides, patches to try. It needs no key, no GPU and no network."
    )
    parser.add_argument(
        "new", type=Path, nargs="?", default=Path("autoresearch-demo"), metavar="FOLDER",
        help="a new folder for it (autoresearch-demo)",
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", help=f"open {PAGE} in a browser at the end")


def command(given: argparse.Namespace) -> int:
    """The session's exit status."""
    enter(given)
    folder = given.new.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        where = shlex.quote(str(given.new))
        raise UserError(f"{given.new} exists already: type `autoresearch demo {where}-2`, or remove it first")
    try:
        _write(folder)
    except OSError as error:
        raise UserError(f"{given.new} cannot be written ({error.strerror}): name another folder") from None
    session = ("--autoresearch", "--max", "0", "--autoresearch-proposer", "queue", "--autoresearch-tag", _TAG)
    where = shlex.quote(str(given.new))
    say = print if not given.json else lambda *_, **__: None
    say(f"{where}/{_PROGRAM} is the program, {where}/experiments holds the test that decides and the patches to try.")
    say(f"$ cd {where} && pytest {' '.join(session)}\n", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *session],
        cwd=folder, check=False, stdout=sys.stderr if given.json else None,
    )  # fmt: skip
    if done.returncode == 0:
        page = folder / PAGE
        say(f"\nThe page of this campaign: {page}\nNext:")
        say(
            output.pairs(
                [
                    (f"cd {where}", ""),
                    ("autoresearch results", "every experiment; then what the session says"),
                    ("autoresearch init", "the same for a repository of yours, typed there"),
                ]
            )
        )
        if given.open:
            webbrowser.open(page.as_uri())
    if given.json:
        output.dump({"folder": str(folder), "tag": _TAG, "page": str(folder / PAGE), "exit_status": done.returncode})
    return done.returncode


def _write(folder: Path) -> None:
    """The repository, with everything committed."""
    queue = folder / "experiments" / FOLDER
    queue.mkdir(parents=True)
    program = folder / _PROGRAM
    program.write_text(_template(_PROGRAM).read_text("utf-8"), "utf-8")
    (folder / "program.md").write_text(_template("program.md").read_text("utf-8"), "utf-8")
    (folder / "text.txt").write_bytes(_text())
    (folder / ".gitignore").write_text("".join(f"{name}\n" for name in scaffold.ignored("experiments")), "utf-8")
    ini = "\n".join(["[pytest]", *scaffold.configuration(_INI, toml=False), ""])
    (folder / "pytest.ini").write_text(ini, "utf-8")
    rule = scaffold.rule(_METRIC, Direction.MINIMIZE)
    (folder / "experiments" / scaffold.rule_name(_METRIC)).write_text(rule, "utf-8")
    git = Git(folder)
    git("init", "--quiet", "--initial-branch=main")
    git.identify("autoresearch demo", "autoresearch@localhost")
    git("add", "--all")
    git("commit", "--quiet", "-m", "A small compressor, and the text that it is measured on")
    start = program.read_text("utf-8")
    head = start
    for number, idea in enumerate(_IDEAS, 1):
        (queue / f"{number:02d}.patch").write_text(_patch(git, program, head, idea), "utf-8")
        head = _with(head, idea) if idea.helps else head
    program.write_text(start, "utf-8")
    git("add", "--all")
    git("commit", "--quiet", "-m", "Ideas to try")


def _patch(git: Git, program: Path, head: str, idea: _Idea) -> str:
    """The idea as a patch to what is the best program by then."""
    program.write_text(head, "utf-8")
    git("add", _PROGRAM)
    program.write_text(_with(head, idea), "utf-8")
    return f"Subject: {idea.description}\n\n{idea.why}\n---\n{git('diff', *PATCH, '--', _PROGRAM)}\n"


def _with(source: str, idea: _Idea) -> str:
    for name, value in idea.values.items():
        source, count = re.subn(rf"^{name} = \S+", f"{name} = {value}", source, flags=re.MULTILINE)
        assert count == 1, f"{_PROGRAM} has no single constant {name}"
    return source


def _template(name: str) -> Traversable:
    return resources.files("pytest_autoresearch") / "templates" / "demo" / name


def _text() -> bytes:
    """Text that every machine has: the plugin's own source."""
    folder = Path(str(resources.files("pytest_autoresearch"))) / "core"
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))[:_TEXT_BYTES]
