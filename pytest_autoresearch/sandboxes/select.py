"""Which sandbox this machine has, and what may be said of it.

A sandbox is used when one starts; what is claimed of it was tried in it. Never silently weaker: whatever does not hold
is part of what the header, the records and the report say.
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

_USER_NAMESPACES = "bubblewrap may not make user namespaces here"
_REFUSALS = (  # the first file whose text is this says why, in its own words
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor's rule for them is on"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"),
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0"),
)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What untrusted commands are started in.

    Attributes:
        backend: Makes it ready.
        why: Where it is none, why; where it is one that does not hold in everything, what does not.
    """

    backend: Backend
    why: str = ""

    @property
    def confines(self) -> bool:
        """Whether it holds anything."""
        return not isinstance(self.backend, Unconfined)

    @property
    def words(self) -> str:
        """What may be claimed: `bubblewrap` when everything held, else with what did not; `none` with the reason."""
        if not self.why:
            return self.backend.name
        return f"{self.backend.name}, but {self.why}" if self.confines else f"none ({self.why})"


def find(policy: str, view: View, hidden: Sequence[Path] = ()) -> Sandbox:
    """The best sandbox of this machine, tried out; no process of it is left.

    Args:
        policy: One of the settings' SANDBOXES.
        view: What a run will see.
        hidden: What it must not see.

    Raises:
        UserError: One was required, and there is none, or it does not hold in everything.
    """
    if policy == "off":
        return Sandbox(Unconfined(), "switched off")
    sandbox = _best(view, hidden)
    if policy == "require" and sandbox.why:
        raise UserError(
            f"--autoresearch-sandbox=require: {sandbox.why}: docs/trust.md says what to do, and "
            "--autoresearch-sandbox=auto goes on without"
        )
    return sandbox


def _best(view: View, hidden: Sequence[Path]) -> Sandbox:
    backend = installed()
    if backend is None and sys.platform != "linux":
        return Sandbox(Unconfined(), "there is one for Linux alone")
    if backend is None:
        return Sandbox(Unconfined(), "bubblewrap is not installed: `apt install bubblewrap`, or your system's like")
    for tried in _from_the_strongest(backend):
        findings = try_out(tried, view, hidden)
        if not findings.failed:
            return Sandbox(tried, f"inside, {'; '.join(findings.broken)}" if findings.broken else "")
    return Sandbox(Unconfined(), _refusal(findings))


def _from_the_strongest(backend: Bubblewrap) -> Iterator[Bubblewrap]:
    """As it is, and without what most containers do not let it do: mount as root, and write to /proc/sys."""
    for guards in sorted({backend.guards_devices, False}, reverse=True):
        for forbids in sorted({backend.forbids_user_namespaces, False}, reverse=True):
            yield replace(backend, guards_devices=guards, forbids_user_namespaces=forbids)


def _refusal(findings: Findings) -> str:
    for file, text, sentence in _REFUSALS:
        try:
            if Path(file).read_text().strip() == text:
                return f"{_USER_NAMESPACES}, since {sentence}"
        except OSError:
            continue
    return f"bubblewrap does not start: {findings.failed.removeprefix('bwrap: ')}"
