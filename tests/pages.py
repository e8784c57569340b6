"""The documents as they are read and typed: their fenced blocks, and a small repository in which commands are typed.

`python tests/pages.py docs/tutorial.md` prints the commands of a page as they stand, for CI to type them for real.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

# What a test cannot type: it needs a GPU, a key or a network. Where it is typed instead stands behind it.
ELSEWHERE = {
    "pip install -c constraints.txt -e . && autoresearch demo": "CI, beside the wheel; test_cli_demo.py",
    "pip install -c constraints.txt -e '.[all]' && pytest --autoresearch --max 3": "CI, in an environment of its own",
    "pip install -c constraints.txt -e '.[dev]' && pytest": "CI, in a virtual environment of its own",
    "python3 -m venv .venv && . .venv/bin/activate": "CI, in a virtual environment of its own",
    "pip install -c constraints.txt -e '.[all]'": "CI, in a virtual environment of its own",
    "python -m harness.prepare": "test_harness_download.py, from a server of its own",
    "python -m harness.prepare                         # upstream's dataset, climbmix": "test_harness_download.py",
    "python -m harness.prepare --source fineweb-edu": "test_harness_download.py",
    "python -m harness.prepare --source embedded       # no network": "test_harness_prepare.py",
    "autoresearch prepare": "test_harness_download.py, from a server of its own",
    "export ANTHROPIC_API_KEY=...": "a key; test_anthropic_sessions.py has a server that wants none",
    "pytest --autoresearch --max 100 --autoresearch-cost 20": "a key; test_anthropic_sessions.py",
    "nohup pytest --autoresearch --max 0 --autoresearch-hours 8 --autoresearch-cost 20 > night.log 2>&1 &": "a key",
    "pytest --autoresearch --max 100 --autoresearch-proposer mix:anthropic=0.7,search=0.3 --autoresearch-cost 20": (
        "a key; test_proposer_mix.py"
    ),
    "nvidia-smi": "a GPU",
    "pip install 'pytest-autoresearch[ray]'": "the package index; CI installs it from the checkout",
    "pytest --autoresearch --autoresearch-runner ray --autoresearch-ray-address auto --autoresearch-lanes auto": (
        "a cluster; test_ray.py"
    ),
    "ray start --head --port=6379": "a cluster; test_ray.py has one of its own",
    "ray start --address=HEAD:6379": "a cluster; test_ray.py has one of its own",
    "sbatch examples/ray/slurm.sbatch": "Slurm",
    "cd left && CUDA_VISIBLE_DEVICES=0 pytest --autoresearch": "two GPUs; docs/scale.md has the same for one",
    "cd right && CUDA_VISIBLE_DEVICES=1 pytest --autoresearch": "two GPUs; docs/scale.md has the same for one",
}

TRAIN = """
LOGIT_CAP = 15.0
MLP_RATIO = 4.0

print("step 1 loss: 2.5")
print("---")
print(f"val_bpb:          {1 + abs(LOGIT_CAP - 1000) / 1000 + abs(MLP_RATIO - 3) / 1000:.6f}")
print("training_seconds: 0.1")
print("peak_vram_mb:     2048.0")
"""

FILES = {
    "train.py": TRAIN,
    "program.md": "Lower val_bpb.\n",
    "pytest.ini": "[pytest]\nautoresearch_command = python -S train.py\nautoresearch_max = 1\n",
    ".gitignore": "__pycache__/\n.pytest_cache/\nresults.*\nreport.html\nprogress.png\nnight.log\nexperiments/runs/\n",
    "experiments/test_val_bpb.py": (ROOT / "experiments" / "test_val_bpb.py").read_text(),
}

EDIT = "perl -pi -e 's/^LOGIT_CAP = .*/LOGIT_CAP = 500.0/' train.py"
AGENT = f"#!/bin/sh\ncat > /dev/null\n{EDIT.replace('500', '400')}\necho a higher cap\n"  # it needs no key


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        language: As it is named behind the fence; empty where it is not.
        text: What stands in it, without the indentation of a list.
    """

    language: str
    text: str


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The blocks of a page, of one language or all."""
    found = [Block(kind, dedent(text)) for _, kind, text in _FENCE.findall(page.read_text())]
    return [block for block in found if language is None or block.language == language]


def commands(page: Path) -> list[str]:
    """The lines of a page's commands, but for those that are typed elsewhere."""
    lines = [line.rstrip() for block in blocks(page, "bash") for line in block.text.splitlines()]
    return [line for line in lines if line.strip() and line not in ELSEWHERE]


def script(page: Path) -> str:
    """What a test types for a page: its commands, with one experiment where there would be more."""
    lines = ["set -euo pipefail"]
    for line in commands(page):
        if "--autoresearch-proposer checkout" in line:  # whoever types it has edited something
            lines.append(f"if git diff --quiet -- train.py; then autoresearch best --checkout; {EDIT}; fi")
        lines.append(re.sub(r"--max \d+", "--max 1", line).replace("-sandbox require", "-sandbox off"))
    return "\n".join([*lines, "wait", ""])


class Clone:
    """A clone of a small repository, as a reader has one, with a campaign of two experiments and an agent on PATH.

    Args:
        folder: An empty one.
        like: A clone to copy, which takes less time than to make one.
    """

    def __init__(self, folder: Path, like: Clone | None = None) -> None:
        self.path = folder / "clone"
        self.environment: dict[str, str]
        if like is not None:
            shutil.copytree(like.path, self.path, symlinks=True)
            self.environment = like.environment
            return
        for name, text in FILES.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text)
        for name in ("examples", "skills"):
            shutil.copytree(ROOT / name, self.path / name, ignore=shutil.ignore_patterns("__pycache__"))
        home, programs = folder / "home", folder / "bin"
        home.mkdir()
        programs.mkdir()
        (programs / "claude").write_text(AGENT)
        (programs / "claude").chmod(0o755)
        strange = ("PYTEST_", "ANTHROPIC_", "AUTORESEARCH_", "GIT_", "GITHUB_", "CI", "WANDB_", "MLFLOW_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(strange)} | {
            "HOME": str(home),
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTEST_ADDOPTS": "--autoresearch-confirm off --autoresearch-sandbox off "
            "-p no:xdist -p no:rerunfailures -p no:hypothesispytest -p no:anyio",
            **{f"GIT_{role}_{part}": text for role in ("AUTHOR", "COMMITTER")
               for part, text in (("NAME", "Ada"), ("EMAIL", "ada@example.org"))},
        }  # fmt: skip
        self.type("git init -q -b main && git add -A && git commit -qm 'A baseline'")
        self.type("pytest --autoresearch --max 2 --autoresearch-tag nov27")

    def type(self, text: str, seconds: float = 120) -> str:
        """What bash says to it; its exit status must be 0."""
        done = subprocess.run(
            ["bash", "-c", text], cwd=self.path, env=self.environment, timeout=seconds, check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\nended with {done.returncode}:\n{done.stdout}"
        return done.stdout


if __name__ == "__main__":
    print("\n".join(line for block in blocks(Path(sys.argv[1]), "bash") for line in block.text.splitlines()))
