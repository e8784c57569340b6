"""A script, the first program inside a sandbox: sets the resource limits and becomes the command.

The limits are set here, so that they do not apply to the sandbox program itself. The script is started for every run,
so it imports only modules of the standard library that load fast.
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
        sign: A file descriptor; one byte is written to it just before the command starts.
        limits: `NAME=VALUE`; the names are those of RLIMIT_* in lower case.
        command: The command with its arguments.
    """
    for name, value in (limit.split("=") for limit in limits):
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(kind)[1]
        most = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(kind, (most, most))
    # A new kernel keyring: in an inherited one, a run could leave keys for the next run.
    ctypes.CDLL(None).syscall(_KEYCTL.get(os.uname().machine, -1), _JOIN_SESSION_KEYRING, None)
    # The sandbox was started with TERM ignored; Python ignores the other two.
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    # Not os.environ: in the C locale, this interpreter adds a variable.
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
