"""Selects the best sandbox of this machine, and says what it guarantees.

Each guarantee was tested inside the sandbox. A sandbox is never silently weaker: the header, the records and the report
name every guarantee that failed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.sandboxes.base import Backend, Unconfined, View
from pytest_autoresearch.sandboxes.bubblewrap import Bubblewrap, installed
from pytest_autoresearch.sandboxes.selftest import Findings, try_out

_USER_NAMESPACES = "bubblewrap may not create user namespaces here"
_REFUSALS = (  # file, its content, reason: the first match explains why bubblewrap does not start
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor restricts them"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"),
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0"),
)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The sandbox for untrusted commands.

    Attributes:
        backend: Prepares the sandbox.
        why: Why there is no sandbox, or which guarantees failed; empty if all hold.
    """

    backend: Backend
    why: str = ""

    @property
    def confines(self) -> bool:
        """Whether it holds anything."""
        return not isinstance(self.backend, Unconfined)

    @property
    def words(self) -> str:
        """`bubblewrap` if all guarantees hold, `bubblewrap, but …` if some failed, or `none (REASON)`."""
        if not self.why:
            return self.backend.name
        return f"{self.backend.name}, but {self.why}" if self.confines else f"none ({self.why})"


def find(policy: str, view: View, hidden: Sequence[Path] = ()) -> Sandbox:
    """The best sandbox of this machine, tested.

    Args:
        policy: One of `SANDBOXES` in the settings.
        view: What a run will see.
        hidden: What a run must not see.

    Raises:
        UserError: A sandbox is required, and there is none, or a guarantee failed.
    """
    if policy == "off":
        return Sandbox(Unconfined(), "switched off")
    sandbox = _best(view, hidden)
    if policy == "require" and sandbox.why:
        raise UserError(
            f"--autoresearch-sandbox=require: {sandbox.why}: see docs/trust.md, or continue without it "
            "with --autoresearch-sandbox=auto"
        )
    return sandbox


def _best(view: View, hidden: Sequence[Path]) -> Sandbox:
    backend = installed()
    if backend is None and sys.platform != "linux":
        return Sandbox(Unconfined(), "only Linux has one")
    if backend is None:
        return Sandbox(Unconfined(), "bubblewrap is not installed: run `apt install bubblewrap` or similar")
    for tried in _from_the_strongest(backend):
        findings = try_out(tried, view, hidden)
        if not findings.failed:
            return Sandbox(tried, f"inside, {'; '.join(findings.broken)}" if findings.broken else "")
    return Sandbox(Unconfined(), _refusal(findings))


def _from_the_strongest(backend: Bubblewrap) -> Iterator[Bubblewrap]:
    """The backend as it is, then without the two features that need rights which most containers do not give."""
    for guards in sorted({backend.guards_devices, False}, reverse=True):
        for forbids in sorted({backend.forbids_user_namespaces, False}, reverse=True):
            yield replace(backend, guards_devices=guards, forbids_user_namespaces=forbids)


def _refusal(findings: Findings) -> str:
    for file, text, sentence in _REFUSALS:
        try:
            if Path(file).read_text().strip() == text:
                return f"{_USER_NAMESPACES}, because {sentence}"
        except OSError:
            continue
    return f"bubblewrap does not start: {findings.failed.removeprefix('bwrap: ')}"
