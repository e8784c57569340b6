"""The files in /etc of a sandbox that are made for it: the names of its user, its groups, its hosts.

Any program may ask for them: `localhost`, the machine's own name, `getpwuid`. The machine's own files are not shown,
because they name its other users, and the hosts of its network.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Iterable

from pytest_autoresearch.sandboxes.base import HOME

_UNNAMED = "user"  # many containers run as a number that has no name
_NOBODY = 65534  # inside, the owner of every file of another user
_SWITCH = "\n".join(f"{what}: files" for what in ("passwd", "group", "hosts", "networks", "protocols", "services"))


def user_name() -> str:
    """The name of the user that runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return _UNNAMED


def files(network: bool) -> dict[str, str]:
    """The content of each file by its path.

    Args:
        network: Whether the sandbox has the machine's network, and with it the machine's own files for host names.
    """
    user, group = (os.getuid(), user_name()), (os.getgid(), _group_name())
    users = _rows((user, (0, "root"), (_NOBODY, "nobody")))
    groups = _rows((group, (0, "root"), (_NOBODY, "nogroup")))
    made = {
        "/etc/passwd": "\n".join(f"{name}:x:{uid}:{_gid(uid)}::{_home(uid)}:/bin/sh" for uid, name in users),
        "/etc/group": "\n".join(f"{name}:x:{gid}:" for gid, name in groups),
    }
    if not network:
        made |= {
            "/etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {_host_names()}",
            "/etc/host.conf": "multi on",
            "/etc/nsswitch.conf": _SWITCH,
            "/etc/resolv.conf": "# There is no network here.",
        }
    return {path: f"{text}\n" for path, text in made.items()}


def _rows(named: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """The rows without those that repeat an earlier number or name."""
    found: dict[int, str] = {}
    for number, name in named:
        if number not in found and name not in found.values():
            found[number] = name
    return list(found.items())


def _gid(uid: int) -> int:
    return os.getgid() if uid == os.getuid() else uid


def _home(uid: int) -> str:
    return HOME if uid == os.getuid() else "/"


def _group_name() -> str:
    try:
        return grp.getgrgid(os.getgid()).gr_name
    except KeyError:
        return _UNNAMED


def _host_names() -> str:
    """The machine's name, and its first part where the name has a domain."""
    name = socket.gethostname()
    return " ".join(dict.fromkeys((name, name.partition(".")[0])))
