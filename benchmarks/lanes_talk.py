"""How fast two processes in two sandboxes can talk through the kernel, while both run: as in two lanes.

    python benchmarks/lanes_talk.py [--bits N]

The sender stands for a model server, which has seen validation text, the receiver for the training of another lane.
Both see the same read-only files: N small ones and a large one. Each way sends N random bits. Printed are the bits that
came out wrong, and the bits per second: N divided by the seconds of both processes.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_autoresearch.sandboxes.base import Prepared, View
from pytest_autoresearch.sandboxes.bubblewrap import installed

BLOCK = 2**21
"""Bytes of the large file for one bit. The kernel reads, drops and counts many pages at once."""
MOST_BLOCKS = 200
SLOT = 0.25
"""Seconds for half a bit: a bit is sent and then its opposite, so that what other programs do cancels out."""

HANDS = """
import ctypes, fcntl, mmap, os, select, struct, sys, time
folder, N, BLOCK, SLOT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
told = open(int(sys.argv[5]))
names = [f"{folder}/{number}" for number in range(N)]
large = os.open(folder + "/large", os.O_RDONLY)
kernel, kept = ctypes.CDLL(None), []
def opened(at):
    kept.append(os.open(names[at], os.O_RDONLY))
    return kept[-1]
def free(at):
    file = os.open(names[at], os.O_RDONLY)
    try:
        return attempt(file)
    except OSError:
        return False
    finally:
        os.close(file)
def said(bits):
    print("".join(map(str, map(int, bits))), flush=True)
def ready():
    print("ready", flush=True)
def halves(bits):
    return [half for bit in bits for half in (bit, not bit)]
def asked():
    return [letter == "1" for letter in told.readline().strip()]
"""

FLOCK = (
    """
for at, bit in enumerate(asked()):
    if bit: fcntl.flock(opened(at), fcntl.LOCK_EX)
""",
    """
asked()
attempt = lambda file: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB) is None
said(not free(at) for at in range(N))
""",
)
RANGES = (
    """
for at, bit in enumerate(asked()):
    if bit: fcntl.lockf(large, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 2 * at)
""",
    """
asked()
def held(at):
    question = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 2 * at, 1, 0)
    return struct.unpack("hhqqi4x", fcntl.fcntl(large, fcntl.F_GETLK, question))[0] != fcntl.F_UNLCK
said(held(at) for at in range(N))
""",
)
LEASES = (
    """
for at, bit in enumerate(asked()):
    if bit: opened(at)
""",
    """
asked()
attempt = lambda file: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK) == 0
said(not free(at) for at in range(N))
""",
)
WATCHES = (
    """
for at, bit in enumerate(asked()):
    if bit: os.close(os.open(names[at], os.O_RDONLY))
""",
    """
watch = kernel.inotify_init1(os.O_NONBLOCK)
numbers = {kernel.inotify_add_watch(watch, name.encode(), 0x20): at for at, name in enumerate(names)}
ready()
asked()
seen = set()
try:
    while True:
        seen |= {numbers[number] for number, *_ in struct.iter_unpack("iIII", os.read(watch, 2**16))}
except BlockingIOError:
    pass
said(at in seen for at in range(N))
""",
)
PAGES = (
    """
for at, bit in enumerate(asked()):
    if bit: os.posix_fadvise(large, at * BLOCK, BLOCK, os.POSIX_FADV_DONTNEED)
""",
    """
asked()
def gone(at):
    try:
        return not os.preadv(large, [bytearray(1)], at * BLOCK + BLOCK // 2, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
said(gone(at) for at in range(N))
""",
)
MAPPED = (
    """
memory = mmap.mmap(large, 0, prot=mmap.PROT_READ)
for at, bit in enumerate(asked()):
    if bit: memory[at * BLOCK + BLOCK // 2]
""",
    """
memory = mmap.mmap(large, 0, prot=mmap.PROT_READ)
asked()
places = [at * BLOCK + BLOCK // 2 for at in range(N)]
for place in places: memory[place]
line = next(line for line in open("/proc/self/maps") if line.rstrip().endswith("/large"))
start = int(line.partition("-")[0], 16)
with open("/proc/self/pagemap", "rb") as file:
    entries = [os.pread(file.fileno(), 8, (start + place) // 4096 * 8) for place in places]
said(not int.from_bytes(entry, "little") >> 56 & 1 for entry in entries)
""",
)
MEMORY = (
    """
asked()
begun = float(told.readline())
for at, half in enumerate(halves(asked())):
    while time.monotonic() < begun + at * SLOT: time.sleep(0.001)
    held = b"x" * 2**28 if half else b""
time.sleep(1)
""",
    """
begun = float(told.readline())
found = []
for at in range(2 * N):
    while time.monotonic() < begun + (at + 0.9) * SLOT: time.sleep(0.001)
    found.append(int(open("/proc/meminfo").read().partition("MemAvailable:")[2].split()[0]))
said(one < other for one, other in zip(found[::2], found[1::2]))
""",
)
CORES = (
    """
asked()
begun = float(told.readline())
sent = halves(asked())
children = [os.fork() for _ in range(os.cpu_count())]
for at, half in enumerate(sent):
    while time.monotonic() < begun + at * SLOT: time.sleep(0.001)
    while half and time.monotonic() < begun + (at + 1) * SLOT: pass
if not all(children): os._exit(0)
""",
    """
begun = float(told.readline())
found = []
for at in range(2 * N):
    while time.monotonic() < begun + at * SLOT: pass
    turns = 0
    while time.monotonic() < begun + (at + 1) * SLOT: turns += 1
    found.append(turns)
said(one < other for one, other in zip(found[::2], found[1::2]))
""",
)
WAYS = {
    "flock on files": FLOCK,
    "byte-range locks on a file": RANGES,
    "leases (for the owner of the files)": LEASES,
    "watches (inotify)": WATCHES,
    "pages in the page cache": PAGES,
    "pages that are mapped": MAPPED,
}
SLOW = {"memory of the machine": MEMORY, "processor time": CORES}
SLOW_BITS = 50


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="How fast two sandboxes can talk while both run.")
    parser.add_argument("--bits", type=int, default=1000, metavar="N", help="bits that are sent by each way (1000)")
    bits = parser.parse_args().bits
    blocks = min(bits, MOST_BLOCKS)
    print("| way | wrong bits | bits per second |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(bits):
            Path(folder, str(number)).write_text("x")
        for name, (tells, hears) in WAYS.items():
            with Path(folder, "large").open("wb") as file:
                for _ in range(blocks):
                    file.write(random.randbytes(BLOCK))
                os.fsync(file.fileno())
            report(name, *live(Path(folder), tells, hears, blocks if "large" in tells else bits))
        for name, (tells, hears) in SLOW.items():
            report(name, *in_slots(Path(folder), tells, hears))


def report(name: str, sent: str, heard: str, seconds: float) -> None:
    """Print one line."""
    wrong = sum(one != other for one, other in zip(sent, heard, strict=True))
    print(f"| {name} | {wrong} of {len(sent):,} | {len(sent) / seconds:,.0f} |", flush=True)


def live(folder: Path, tells: str, hears: str, bits: int) -> tuple[str, str, float]:
    """The bits that were sent and heard one after the other, and the seconds."""
    sent = "".join(random.choices("01", k=bits))
    hears = hears if "ready()" in hears else f"ready()\n{hears}"
    with (
        Sandboxed(folder, bits, f"ready()\n{tells}\nready()\ntold.readline()") as sender,
        Sandboxed(folder, bits, hears) as receiver,
    ):
        sender.hears()
        receiver.hears()
        begun = time.monotonic()
        sender.told(sent)
        sender.hears()
        receiver.told("")
        return sent, receiver.hears(), time.monotonic() - begun


def in_slots(folder: Path, tells: str, hears: str) -> tuple[str, str, float]:
    """The same for ways in which the receiver looks at the moment at which the sender does something."""
    sent = "".join(random.choices("01", k=SLOW_BITS))
    with Sandboxed(folder, SLOW_BITS, tells) as sender, Sandboxed(folder, SLOW_BITS, hears) as receiver:
        begun = time.monotonic() + 1.0
        sender.told("", str(begun), sent)
        receiver.told(str(begun))
        return sent, receiver.hears(), SLOW_BITS * 2 * SLOT


class Sandboxed:
    """A process in a sandbox that sees a folder."""

    def __init__(self, folder: Path, bits: int, program: str) -> None:
        backend = installed()
        if backend is None:
            sys.exit("bubblewrap is not installed: apt install bubblewrap")
        view = View(Path("/"), {"PATH": os.environ["PATH"]}, readable=(folder,))
        self._prepared: Prepared = backend.prepare(view)
        theirs, ours = os.pipe()
        self._ours = os.fdopen(ours, "w", encoding="ascii")
        command = [*self._prepared.argv_prefix, sys.executable, "-c", HANDS + program, str(folder), str(bits)]
        self._process = subprocess.Popen(
            [*command, str(BLOCK), str(SLOT), str(theirs)], env=dict(self._prepared.environment),
            pass_fds=(*self._prepared.pass_fds, theirs), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(theirs)

    def told(self, *lines: str) -> None:
        """Send lines to the process."""
        self._ours.write("".join(f"{line}\n" for line in lines))
        self._ours.flush()

    def hears(self) -> str:
        """The next line that the process prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> "Sandboxed":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._ours.close()
        self._prepared.close()


if __name__ == "__main__":
    main()
