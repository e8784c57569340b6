"""A small git repository in which a whole campaign takes a second: real git, real processes, real pytest.

Its `train.py` has one line that matters, `ACTION`; a hook in its conftest proposes the actions of a plan, one for each
number. So `repo.plan(0.9, "crash")` makes experiment 0001 print `val_bpb: 0.9` and 0002 raise.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.history import chain, taken_back
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure import runs

# Plugins that no campaign uses; without them a session starts in three quarters of the time.
UNUSED = [word for name in ("xdist", "xdist.looponfail", "rerunfailures", "anyio") for word in ("-p", f"no:{name}")]

TRAIN = """
import os, sys, time

ACTION = "1.0"
PEAK_VRAM_MB = 2048.0


def block(val_bpb):
    print("---")
    print(f"val_bpb:          {val_bpb}")
    print("training_seconds: 0.1")
    print(f"peak_vram_mb:     {PEAK_VRAM_MB}")


word, _, rest = ACTION.partition(":")
if word == "slow":
    seconds, _, word = rest.partition(":")
    time.sleep(float(seconds))
if word == "hang":
    print("step 1 loss: 3.0", flush=True)
    open(os.environ["AUTORESEARCH_OUT"] + "/hanging", "w").close()
    time.sleep(1000)
elif word == "crash":
    raise RuntimeError("the tensor is sad")
elif word == "do":
    exec(rest)
else:
    print("step 1 loss: 2.5")
    block(word)
"""

PROPOSE = """
import json, pathlib
from pytest_autoresearch import Proposal

def pytest_autoresearch_propose(context, failure):
    plan = json.loads((context.root / ".git" / "plan.json").read_text())
    if context.number > len(plan):
        return None
    action = plan[context.number - 1]
    train = context.folder / "train.py"
    lines = train.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("ACTION"))
    lines[at] = f"ACTION = {action!r}  # {context.number}"
    train.write_text("\\n".join(lines) + "\\n")
    return Proposal(f"action {context.number}: {action}", proposer="plan")
"""

RULE = """
def test_val_bpb_improves(experiment):
    assert experiment.training_seconds <= experiment.budget_seconds
    assert experiment.peak_memory_mb <= experiment.memory_limit_mb
    assert experiment.val_bpb < experiment.best - experiment.margin
"""

CONFIG = """
[pytest]
testpaths = tests
autoresearch_command = python -S train.py
"""


FILES = {
    "train.py": TRAIN,
    "program.md": "Lower val_bpb.\n",
    "conftest.py": PROPOSE,
    "experiments/test_val_bpb.py": RULE,
    "pytest.ini": CONFIG,
    ".gitignore": "__pycache__/\n.pytest_cache/\nresults.*\nreport.html\nprogress.png\n",
    "tests/test_ordinary.py": "raise RuntimeError('an ordinary test was imported')\n",
    "tests/conftest.py": "raise RuntimeError('the conftest of ordinary tests was imported')\n",
}


class Repo:
    """A repository to run campaigns in.

    Args:
        pytester: Its folder becomes the repository.
        lanes: How many lanes a campaign has, where a test does not say.
    """

    def __init__(self, pytester: pytest.Pytester, lanes: int = 1) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.lanes = lanes
        self._seeds = itertools.count(42)
        shutil.copytree(_template(), self.path, symlinks=True, dirs_exist_ok=True)
        self.git("update-index", "-q", "--refresh")  # git compares inode numbers too, and the copies have others
        self.plan()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the checkout."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def git(self, *command: str) -> str:
        """What a git command in the checkout prints; it must succeed."""
        done = subprocess.run(["git", *command], cwd=self.path, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, subject: str = "Change") -> str:
        """Commit everything."""
        self.git("add", "-A")
        self.git("commit", "-qm", subject)
        return self.git("rev-parse", "HEAD")

    def rule(self, text: str) -> None:
        """Replace the acceptance rule, committed."""
        self.write("experiments/test_val_bpb.py", text)
        self.commit("A rule")

    def hooks(self, text: str) -> None:
        """Add to the conftest, committed."""
        self.write("conftest.py", PROPOSE + dedent(text))
        self.commit("Hooks")

    def scored_by(self, score: str, train: str, /, **described: object) -> None:
        """Let a scorer measure what training leaves, committed.

        Args:
            score: The scorer, in place of `score.py`.
            train: In place of `train.py`.
            described: What else the harness says of itself.
        """
        says = json.dumps({"score": ["python", "-S", "score.py"], **described})
        self.write("train.py", train)
        self.write("score.py", score)
        self.write("describe.py", f"print({says!r})\n")
        scorer = "autoresearch_describe = python -S describe.py\nautoresearch_frozen = score.py describe.py\n"
        self.write("pytest.ini", CONFIG + scorer)
        self.commit("A scorer")

    def plan(self, *actions: object) -> None:
        """What experiments 1, 2, … do."""
        (self.path / ".git" / "plan.json").write_text(json.dumps([str(action) for action in actions]))

    def arguments(self, *arguments: str) -> list[str]:
        """The command line of a campaign called t, after `pytest`."""
        given = ["--autoresearch", *arguments]
        defaults = (
            ("--autoresearch-confirm", "off"),
            ("--autoresearch-tag", "t"),
            ("--autoresearch-lanes", str(self.lanes)),
            ("--autoresearch-ahead", "0"),
            ("--autoresearch-sandbox", "off"),
        )
        for flag, value in defaults:
            if flag not in arguments:
                given += [flag, value]
        strangers = [word for name in ("randomly", "hypothesispytest", "benchmark") for word in ("-p", f"no:{name}")]
        return [*given, *strangers, "-W", "error"]

    def run(self, *arguments: str) -> pytest.RunResult:
        """`pytest --autoresearch …` to its end, in this process. New seeds are 42, 43, … instead of random ones."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "dont_write_bytecode", True)
            patch.setattr(runs, "new_seed", lambda: next(self._seeds))
            return self.pytester.runpytest_inprocess(*self.arguments(*arguments), *UNUSED)

    def spawn(self, *arguments: str) -> pytest.RunResult:
        """The same in a process of its own: for what ends it, replaces a part of the plugin, or looks at it."""
        return self.pytester.runpytest_subprocess(*self.arguments(*arguments), *UNUSED)

    def start(self, *arguments: str, folder: Path | None = None) -> subprocess.Popen[str]:
        """`pytest --autoresearch …` in the background, for signals; in another checkout, if a folder is given."""
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *self.arguments(*arguments), *UNUSED],
            cwd=folder or self.path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------ what is there

    def rows(self) -> list[list[str]]:
        """The rows of results.tsv as lists of fields."""
        path = self.path / "results.tsv"
        return [line.split("\t") for line in path.read_text().splitlines()[1:]] if path.exists() else []

    def records(self, tag: str = "t") -> list[Experiment]:
        """Every record of the campaign, read as the plugin reads them."""
        return Ratchet(self.path).records(tag)

    def statuses(self) -> dict[int, str]:
        """The verdicts by number."""
        return {record.number: str(record.verdict.status) for record in self.records() if record.verdict}

    def reasons(self) -> dict[int, str]:
        """The reasons by number."""
        return {record.number: record.verdict.reason for record in self.records() if record.verdict}

    def head(self) -> str:
        """The commit of the campaign's branch."""
        return self.git("rev-parse", "refs/heads/autoresearch/t")

    def cases(self, name: str = "results.xml") -> dict[str, ElementTree.Element]:
        """JUnit's test cases by name; each name once."""
        found = ElementTree.parse(self.path / name).getroot().findall(".//testcase")
        cases = {str(case.get("name")): case for case in found}
        assert len(cases) == len(found)
        assert all(cases)
        return cases

    def reports(self) -> Counter[str]:
        """How many test cases of the JUnit file have which result: `passed`, `failure`, `error` or `skipped`."""
        return Counter(
            next((one.tag for one in case if one.tag in ("failure", "error", "skipped")), "passed")
            for case in self.cases().values()
        )

    def case(self, number: int) -> ElementTree.Element:
        """The test case of one experiment."""
        return next(case for name, case in self.cases().items() if f"[{number:04d}]" in name)

    def check_ledger(self) -> None:
        """What must hold after any sequence of outcomes and any kill: the records, the branch and the rows agree."""
        records = self.records()
        numbers = [record.number for record in records]
        assert numbers == sorted(set(numbers))
        line = chain(records)
        gone = taken_back(records)
        kept = [one for one in records if one.verdict and one.verdict.status == "keep" and one.commit not in gone]
        assert sorted(kept, key=lambda r: r.number) == sorted(line, key=lambda r: r.number)
        if line:
            assert self.head() == line[-1].commit
            assert all(self.git("rev-parse", f"{r.commit}^") == r.base for r in line[1:])
        rows = self.rows()
        assert len(rows) == len(records)
        assert sorted(row[0] for row in rows) == sorted(record.commit[:7] for record in records)
        for record in records:
            assert self.git("cat-file", "-t", f"refs/autoresearch/t/{record.number:04d}") == "tag"
            assert self.git("cat-file", "-t", record.commit) == "commit"

    def checkout_hash(self) -> str:
        """Of everything in the checkout that is the user's: working files, index, HEAD and branches of their own."""
        digest = hashlib.sha256()
        ours = ("results.tsv", "results.xml", "report.html", "progress.png", ".pytest_cache", "__pycache__", "runs")
        for path in sorted(self.path.rglob("*")):
            inside = path.relative_to(self.path)
            if path.is_file() and ".git" not in inside.parts and not any(part in ours for part in inside.parts):
                digest.update(str(inside).encode() + path.read_bytes())
        for name in ("index", "HEAD", "refs/heads/main"):
            path = self.path / ".git" / name
            digest.update(path.read_bytes() if path.exists() else b"-")
        return digest.hexdigest()

    def training(self) -> list[int]:
        """Processes that were started in a lane of this repository and still live."""
        lanes = str(self.path / ".git" / "autoresearch")
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "cwd").startswith(lanes) and b"train.py" in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def wait_for(self, what: object, seconds: float = 100.0) -> None:
        """Wait until the callable says yes."""
        end = time.monotonic() + seconds
        while not what():  # type: ignore[operator]
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)

    def end(self, process: subprocess.Popen[str], number: signal.Signals) -> str:
        """Send a signal and wait for the end; the output."""
        process.send_signal(number)
        return process.communicate(timeout=100)[0]


with_one_and_two_lanes = pytest.mark.parametrize(
    "repo", [1, pytest.param(2, marks=pytest.mark.lanes)], indirect=True, ids=["one lane", "two lanes"]
)


@functools.cache
def _template() -> Path:
    """A repository with `FILES` in one commit, made once for each process that runs tests."""
    home = Path(tempfile.mkdtemp(prefix="autoresearch-template-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name, text in FILES.items():
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(text))
    for command in (
        ("init", "-q", "--template=", "-b", "main"), ("config", "user.name", "Ada"),
        ("config", "user.email", "ada@example.org"), ("add", "-A"), ("commit", "-qm", "A baseline"),
    ):  # fmt: skip
        subprocess.run(["git", *command], cwd=home, check=True)
    (home / ".git/info").mkdir()
    return home
