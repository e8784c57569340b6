"""A night of attacks, and after every few of them an honest proposal that is a little better than all before.

So that it is seen at once whether an attack cost anything: the honest one must be kept, on the head that it was made
from, with its own number. The repository is scored: training leaves a number in `model.pt`, a scorer of
the user's checkout reads it, and what training prints decides nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

from repo import CONFIG, UNUSED, Repo

from pytest_autoresearch.core.experiment import Experiment

TRAIN = '''
"""Training in little: a better rate is a lower number, and so is a lucky seed."""
import os
import random
import socket

from trusted.metric import measure

SEED = 42
RATE = 1.0


def main():
    random.seed(SEED)
    luck = random.random()
    if clock := os.environ.get("AUTORESEARCH_CLOCK_FD"):
        with socket.socket(fileno=int(clock)) as parent:
            parent.sendall(b"begin\\n")
            parent.recv(8)
    number = measure(RATE) + luck / 10**6
    with open(os.path.join(os.environ["AUTORESEARCH_OUT"], "model.pt"), "w") as file:
        file.write(str(number))


main()
'''

METRIC = """
def measure(rate):
    return rate
"""

SCORER = """
import os
print("val_bpb:", open(os.environ["AUTORESEARCH_OUT"] + "/model.pt").read())
"""

DESCRIBE = """
print('{"score": ["python", "-S", "score.py"], "budget_seconds": 20, "memory_limit_mb": 4000}')
"""

# A proposal is a program that edits the tree it stands in: what an agent with a shell could do.
PROPOSE = """
import os, pathlib, subprocess, sys
from pytest_autoresearch import Proposal, Refused

def pytest_autoresearch_propose(context, failure):
    if failure:  # not to be repaired
        raise Refused(failure, Proposal(f"attack {context.number}", proposer="attacker"))
    path = context.root / ".git" / "plan" / f"{context.number:04d}.py"
    if not path.exists():
        return None
    subprocess.run([sys.executable, "-S", path], cwd=context.folder, check=True)
    return Proposal(f"attack {context.number}", proposer="attacker")
"""

# What every attack finds at hand.
HANDS = """
import os, subprocess
from pathlib import Path
train = Path("train.py")

def change(old, new, path=train):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))

def git(*command):
    return subprocess.run(["git", *command], check=True, capture_output=True, text=True).stdout.strip()
"""


@dataclass(frozen=True, slots=True)
class Attack:
    """Something that a proposal tries.

    Attributes:
        name: For people.
        edit: A program that edits the tree it stands in.
        reason: The class of the verdict that it must end in: `refused`, `not-improved`, or that of a crash.
        says: A part of the verdict's message.
        lowers: Whether it makes the number lower where nobody stands in its way.
    """

    name: str
    edit: str
    reason: str = "refused"
    says: str = ""
    lowers: bool = False

    def program(self) -> str:
        """The edit with what it uses."""
        return HANDS + dedent(self.edit)

    def undefended(self, folder: Path) -> float:
        """What the edit's own program comes to in a plain checkout, where git commits whatever there is."""
        subprocess.run([sys.executable, "-S", "-c", self.program()], cwd=folder, check=True)
        subprocess.run(["git", "add", "--all"], cwd=folder, check=True, capture_output=True)
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x", "--allow-empty"],
                       cwd=folder, check=True)  # fmt: skip
        subprocess.run([sys.executable, "-S", "train.py"], cwd=folder, check=True,
                       env={**os.environ, "AUTORESEARCH_OUT": str(folder)})  # fmt: skip
        return float((folder / "model.pt").read_text())


EVERY = 4


def honest(number: int) -> str:
    """The edit of the n-th honest proposal, better than all before it."""
    return (
        HANDS + f"\nimport re\ntrain.write_text(re.sub('RATE = .*', 'RATE = {1 - number / 1000}', train.read_text()))\n"
    )


def checkout(folder: Path, files: Mapping[str, str]) -> Repo:
    """A repository worth attacking, committed.

    Args:
        files: In place of its own, or beside them.
    """
    repo = Repo(SimpleNamespace(path=folder))  # type: ignore[arg-type]  # all that it asks of a pytester
    own = {
        "train.py": TRAIN, "trusted/metric.py": METRIC, "score.py": SCORER, "describe.py": DESCRIBE,
        "conftest.py": PROPOSE, "model/layers.py": "WIDTH = 8\n",
        "pytest.ini": CONFIG + "autoresearch_describe = python -S describe.py\n"
        "autoresearch_editable = train.py *.py model\nautoresearch_frozen = trusted score.py describe.py\n",
    }  # fmt: skip
    for name, text in {**own, **files}.items():
        repo.write(name, text)
    repo.commit("A place worth attacking")
    return repo


class Night:
    """A campaign of attacks, run to its end.

    Args:
        folder: An empty one.
        attacks: In their order.
        files: Of the repository, in place of its own or beside them.
        environment: Variables of the session, beside those of this process.
        sandbox: The policy.
        every: Attacks before an honest proposal.
        timeout: Seconds that it may take.
    """

    def __init__(
        self,
        folder: Path,
        attacks: Sequence[Attack],
        *,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        sandbox: str = "off",
        every: int = EVERY,
        timeout: float = 120,
    ) -> None:
        self.repo = checkout(folder, files or {})
        self.attacks = attacks
        self.start = self.repo.git("rev-parse", "HEAD")
        plan = folder / ".git" / "plan"
        plan.mkdir()
        self._numbers: dict[str, int] = {}
        programs = []
        for at, attack in enumerate(attacks, 1):
            programs.append(attack.program())
            self._numbers[attack.name] = len(programs)
            if at % every == 0 or at == len(attacks):
                programs.append(honest(at))
        for number, program in enumerate(programs, 1):
            (plan / f"{number:04d}.py").write_text(program)
        before = self.repo.checkout_hash()
        arguments = self.repo.arguments(
            "--max", str(len(programs)), "--autoresearch-lanes", "1", "--autoresearch-sandbox", sandbox
        )
        # The session's own picture leaves a cache of fonts: not in the home that must stay empty.
        with tempfile.TemporaryDirectory() as fonts:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *arguments, *UNUSED], cwd=folder, text=True, check=False,
                timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**os.environ, "MPLCONFIGDIR": fonts, **(environment or {})},
            )  # fmt: skip
        self.output = done.stdout
        assert done.returncode == 0, done.stdout
        assert self.repo.checkout_hash() == before
        self.records = self.repo.records()
        assert [record.number for record in self.records] == list(range(len(programs) + 1))

    def of(self, attack: Attack) -> Experiment:
        """The attack's record."""
        return self.records[self._numbers[attack.name]]

    def check(self, attack: Attack) -> None:
        """It ended as it must, and the next experiment was judged as if it had never been."""
        record = self.of(attack)
        honest = [one.number for one in self.records if one.number not in self._numbers.values()]
        place = bisect(honest, record.number)
        before, after = self.records[honest[place - 1]], self.records[honest[place]]
        assert record.verdict is not None
        assert (record.verdict.reason, attack.says in record.verdict.message) == (attack.reason, True), record.verdict
        assert record.base == before.commit
        assert after.verdict is not None
        assert (after.base, after.verdict.reason) == (before.commit, "improved")
        assert after.metric < before.metric < 1.1
        changed = self.repo.git("diff", "--name-only", before.commit, after.commit)
        assert changed == "train.py", "an honest commit carries nothing of an attack"
