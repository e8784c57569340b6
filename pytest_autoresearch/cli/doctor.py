"""`autoresearch doctor`: whether this machine is ready, and how to fix it. The checks are in `doctor_checks`."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_autoresearch.cli import doctor_checks, output
from pytest_autoresearch.cli.doctor_checks import Check
from pytest_autoresearch.cli.repository import Repository, enter, here
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.hardware.gpu import variables, visible
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.setup import Equipment, equip
from pytest_autoresearch.runners.environment import passed
from pytest_autoresearch.sandboxes.base import View
from pytest_autoresearch.sandboxes.select import Sandbox, find
from pytest_autoresearch.session.checks import check_editable

_COLOURS = {"ok": "green", "note": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """The current repository and its harness.

    Attributes:
        check: The check of the repository.
        repository: None outside a repository.
        harness: The check of the harness; None if the repository has none.
        described: The harness's description of itself; None if it gave none.
        sandbox: Tried with the files that training will see.
    """

    check: Check
    repository: Repository | None
    harness: Check | None
    described: Harness | None
    sandbox: Sandbox

    @property
    def has_harness(self) -> bool:
        return self.repository is not None and self.repository.settings.describe is not None


def arguments(parser: argparse.ArgumentParser) -> None:
    """The epilog; there are no own arguments."""
    parser.epilog = (
        "Checks Python, git, GPU, PyTorch, disk, sandbox, key and Ray, and the current repository if there is one. A\n"
        "`note` marks an optional thing: a GPU, a key, Ray, a sandbox (read docs/trust.md before you go without).\n"
        "exit status: 0 if ready; 1 if not: the line below a failed check says how to fix it."
    )


def command(given: argparse.Namespace) -> int:
    """1 if a session cannot run here."""
    enter(given)
    given.folder = Path()
    git, git_version = doctor_checks.git()
    seen = visible(os.environ)
    card = next(iter(seen.gpus), None)
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(doctor_checks.ask_torch, variables(seen.gpus[:1]))
        around = _surroundings(given, bool(git_version))
        found = [around.check, *([around.harness] if around.harness else [])]
        ready = bool(git_version) and around.repository is not None and not any(check.failed for check in found)
        session = doctor_checks.session(around.repository.settings.root) if ready and around.repository else None
        said = asked.result()
    disk, free_mb = doctor_checks.disk(Path.cwd())
    settings = around.repository.settings if around.repository else None
    checks = [
        doctor_checks.python(),
        git,
        around.check,
        doctor_checks.gpu(seen),
        doctor_checks.torch(said, card, around.has_harness),
        *([around.harness] if around.harness else []),
        *([session] if session else []),
        disk,
        doctor_checks.sandbox(around.sandbox, settings.sandbox if settings else "auto"),
        doctor_checks.key(settings.proposer if settings else "auto"),
        doctor_checks.ray(),
    ]
    ready = not any(check.failed for check in checks)
    profile = (around.described.profile if around.described else "") or doctor_checks.profile(card)
    if given.json:
        output.dump(
            {
                "ready": ready,
                "gpu_name": card.name if card else None,
                "vram_mb": card.memory_mb if card else None,
                "gpus": len(seen.gpus),
                "driver": card.driver if card else None,
                "cuda_version": said.get("cuda") if said.get("usable") else None,
                "torch_version": said.get("version"),
                "python_ok": not checks[0].failed,
                "python_version": sys.version.split()[0],
                "git_version": git_version or None,
                "disk_free_mb": round(free_mb),
                "sandbox": around.sandbox.words,
                "key": checks[-2].failed is False,
                "ray": checks[-1].failed is False,
                "profile": profile,
                "checks": [
                    {"name": one.name, "status": one.status, "said": one.said, "remedy": one.remedy or None}
                    for one in checks
                ],
            }
        )
    else:
        _print(checks, ready, profile, around)
    return 0 if ready else 1


def _surroundings(given: argparse.Namespace, has_git: bool) -> _Surroundings:
    """The repository here, and the sandbox, tried with the files that training would see."""
    try:
        repository = here(given)
    except UserError as error:
        inside = has_git and any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents))
        failed = True if inside else None  # outside a repository, only the machine is checked
        return _Surroundings(doctor_checks.told("repository", failed, str(error)), None, None, None, _bare_sandbox())
    settings = repository.settings
    missing = [path for path in settings.editable if not any(settings.root.glob(path))]
    check = Check("repository", False, str(repository.root))
    if missing:
        said = f"{repository.root} has no {missing[0]}, the file that experiments change"
        check = Check("repository", True, said, "autoresearch init --command 'python YOURS.py' --metric NAME")
    else:
        try:
            check_editable(settings, repository.ratchet.committed())
        except UserError as error:
            check = doctor_checks.told("repository", True, str(error))
    try:
        equipment: Equipment = equip(replace(settings, sandbox="auto"), repository.ratchet)
    except UserError as error:
        remedy = "autoresearch prepare, if data are missing"
        return _Surroundings(
            check, repository, doctor_checks.told("harness", True, str(error), remedy), None, _bare_sandbox()
        )
    equipment.taken.release()  # the session that doctor tries next takes them
    described = equipment.harness
    harness = None
    if settings.describe:
        name = f"profile {described.profile}" if described.profile else described.device
        harness = Check("harness", False, f"{name}, {described.budget_seconds:g} s of training per run")
    return _Surroundings(check, repository, harness, described, equipment.sandbox)


def _bare_sandbox() -> Sandbox:
    return find("auto", View(folder=Path.cwd(), environment=passed(os.environ)))


def _print(checks: list[Check], ready: bool, profile: str, around: _Surroundings) -> None:
    wide = max(len(check.name) for check in checks)
    for check in checks:
        mark = output.colour(f"{check.status:<6}", _COLOURS[check.status])
        print(f"{mark}  {check.name:<{wide}}  {output.line(check.said)}")
        if check.remedy and check.failed is not False:
            print(f"{'':<{wide + 10}}{output.colour('-> ', 'bold')}{check.remedy}")
    print()
    if ready:
        begin = (
            "pytest --autoresearch --max 3" if around.repository else "cd to a repository and type `autoresearch init`"
        )
        print(f"{output.colour('ready', 'green')}, profile {profile}: {begin}")
    else:
        failed = [check.name for check in checks if check.failed]
        print(f"{output.colour('not ready', 'red')}: {', '.join(failed)}")
