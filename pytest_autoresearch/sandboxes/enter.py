"""The first thing that runs inside a sandbox: it takes on the limits and becomes the command. A script of its own.

Limits are set here and not around the sandbox, which starts with them only what they are meant for. It may import the
standard library alone, and is started for every run, so only what costs no time there.
"""

import ctypes
import os
import resource
import signal
import sys

_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1


def _main(sign: int, limits: list[str], command: list[str]) -> None:
    """Become the command.

    Args:
        sign: A file descriptor that gets one byte when everything is in place.
        limits: `NAME=VALUE`, the names those of RLIMIT_* in small letters.
        command: What to run, with its arguments.
    """
    for name, value in (limit.split("=") for limit in limits):
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(kind)[1]
        most = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(kind, (most, most))
    # What one run leaves among the kernel's keys, the next would find in the keyring that both inherit.
    ctypes.CDLL(None).syscall(_KEYCTL.get(os.uname().machine, -1), _JOIN_SESSION_KEYRING, None)
    # TERM was ignored on the way here, so that the sandbox outlives it; the other two this interpreter ignores.
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    # Not os.environ: in the C locale this interpreter has added to that.
    with open("/proc/self/environ", "rb") as file:
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
        environment = {name: value for name, _, value in pairs}
    os.write(sign, b"1")
    os.close(sign)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        os.write(2, f"{command[0]} could not be started: {error.strerror}\n".encode())
        os._exit(127)


if __name__ == "__main__":
    at = sys.argv.index("--")
    _main(int(sys.argv[1]), sys.argv[2:at], sys.argv[at + 1 :])
