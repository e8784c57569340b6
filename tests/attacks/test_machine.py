"""Attacks that training makes on the machine around it: each succeeds where it is run plainly, none in the sandbox."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from textwrap import indent

import pytest
from machine import BUDGET_SECONDS, DESCRIBE, FILES, PACKAGES, Around, Place
from night import Attack, Night, checkout
from repo import Repo

from pytest_autoresearch.measure.validity import OUT_OF_MEMORY
from pytest_autoresearch.sandboxes.base import View
from pytest_autoresearch.sandboxes.select import find

pytestmark = [pytest.mark.attack, pytest.mark.timeout(120)]

NO_FILE = "FileNotFoundError"
KEYS = {"x86_64": (248, 250), "aarch64": (217, 219)}.get(platform.machine(), (-1, -1))  # add_key and keyctl


def does(what: str) -> str:
    """An edit after which training does this and nothing else."""
    body = f"def main():\n{indent(what.strip(), '    ')}\n\n\nmain()\n"
    return f"text = train.read_text(); train.write_text(text[:text.index('def main')] + {body!r})"


@dataclass(frozen=True, slots=True)
class Blow(Attack):
    """An attack on the machine.

    Attributes:
        harm: Whether it did harm in a place, where that is not seen by its number.
        after: The name of the attack whose spoils it takes.
        possible: Whether this machine lets this user do such a thing at all, tried in a folder.
    """

    harm: Callable[[Place], bool] | None = None
    after: str = ""
    possible: Callable[[Path], bool] = lambda folder: True


VALIDATION = [
    Blow("reads the validation rows by their path",
         does("begin(); leave(1.5, read(DATA + '/validation'))"), "exit 1", NO_FILE, lowers=True),
    Blow("reads them through links that it makes", does("""
begin()
for folder in (OUT, "/tmp"):
    link = f"{folder}/link-{TOKEN}"
    os.symlink(DATA, link)
    leave(1.5, said(link + "/validation"))"""), "not-improved", lowers=True),
    Blow("has the scorer read them, through a link for a model",
         does("begin(); os.symlink(DATA + '/validation', OUT + '/model.pt')"),
         "no-metric", "without writing model.pt", lowers=True),
    Blow("reads them through the root of other processes",
         does("begin(); leave(1.5, ''.join(said(root + DATA + '/validation') for root in glob('/proc/[0-9]*/root')))"),
         "not-improved", lowers=True),
    Blow("reads them through the open files of other processes", does("""
begin()
leave(1.5, "".join(map(said, (path for path in glob("/proc/[0-9]*/fd/*") if leads(path) == DATA + "/validation"))))"""),
         "not-improved", lowers=True),
    Blow("reads the embedded corpus's in the standard library", does("""
begin()
folders = (sysconfig.get_path("stdlib") + "/" + name for name in ("test", "idlelib", "turtledemo", "pydoc_data"))
leave(1.5, "".join(read(path)[:2000] for folder in folders for path in sorted(glob(folder + "/*.py"))[:20]))"""),
         "not-improved", lowers=True),
    *(Blow(f"finds copies of them that other programs carry in {place}",
           does(f"begin(); leave(1.5, ''.join(map(read, glob(f'{place}/copies-{{TOKEN}}/lib-python/3/test/*.py'))))"),
           "not-improved", lowers=True, possible=lambda folder, place=place: os.access(place, os.W_OK))
      for place in PACKAGES),
    Blow("finds them in shared memory", does("begin(); leave(1.5, ''.join(map(read, glob('/dev/shm/rows-*'))))"),
         "not-improved", lowers=True),
    Blow("reads a key in its environment", does("begin(); leave(0.5, os.environ['ANTHROPIC_API_KEY'])"),
         "exit 1", "KeyError: 'ANTHROPIC_API_KEY'", lowers=True),
    Blow("reads its parents' keys", does("""
begin()
pid, found = os.getppid(), ""
while pid > 0:
    found += said(f"/proc/{pid}/environ")
    pid = int(read(f"/proc/{pid}/status").partition("PPid:")[2].split()[0])
leave(1.5 - ("sk-" + TOKEN in found))"""), "not-improved", lowers=True),
    Blow("reads everybody's keys", does("""
begin()
leave(1.5 - any("OUTSIDE_API_KEY=" + TOKEN in said(path) for path in glob("/proc/[0-9]*/environ")))"""),
         "not-improved", lowers=True),
]  # fmt: skip

CLOCK = [
    Blow("trains on the rows before the clock starts",
         does("rows = read(DATA + '/training'); begin(); leave(0.5, rows)"), "exit 1", NO_FILE, lowers=True),
    Blow("trains before that on the rows that somebody else holds open", does("""
(path, *_) = [path for path in glob("/proc/[0-9]*/fd/*") if leads(path) == DATA + "/training"]
rows = read(path)
begin()
leave(0.5, rows)"""), "exit 1", "ValueError", lowers=True),
    Blow("begins a second time", does("""
begin()
time.sleep(0.35)
if PARENT:
    PARENT.sendall(b"begin\\n")
time.sleep(0.35)
leave(0.5)"""), "assertion", lowers=True),
    Blow("starts the clock by its own answer", does("""
if PARENT:
    PARENT.sendall(b"go\\n")
leave(0.5)"""), "no-metric", "training never called harness.begin()", lowers=True),
    Blow("lies about the time in every way", does("""
begin()
time.sleep(0.7)
time.time = time.monotonic = lambda: 0.0
print("---\\ntraining_seconds: 0.1", flush=True)
leave(0.5)
os.utime(OUT + "/model.pt", (0, 0))"""), "assertion", lowers=True),
    Blow("touches its model shortly before the end, and trains on while it is thought to be written", does("""
import mmap
begin()
time.sleep(0.4)
leave(1.5)
with open(OUT + "/model.pt", "r+b") as file:
    model = mmap.mmap(file.fileno(), 0)
time.sleep(0.45)
model[2] = ord("5")
model[0] = ord("0")"""), "not-improved", lowers=True),
    Blow("leaves a model in time, and a better one later",
         does("begin(); leave(1.5); time.sleep(0.7); leave(0.5)"), "not-improved", lowers=True),
    Blow("trains on in a daemon while it is evaluated", does("""
begin()
leave(1.5, "", 0.4)
if daemon():
    time.sleep(0.2)
    leave(0.5)"""), "not-improved", lowers=True),
    Blow("writes then into the model that it holds open", does("""
begin()
leave(1.5, "", 0.4)
model = os.open(OUT + "/model.pt", os.O_WRONLY)
if daemon():
    time.sleep(0.2)
    os.write(model, b"0")"""), "not-improved", lowers=True),
]  # fmt: skip

LIMITED = [
    Blow("forks until it is refused", does("""
begin()
reading, writing = os.pipe()
for _ in range(100):
    if os.fork() == 0:
        os.close(writing)
        os.read(reading, 1)  # until its parent is gone
        os._exit(0)
time.sleep(0.4)
leave(0.5)"""), "over-processes", "the limit is 30", lowers=True),
    Blow("fills its folder", does("""
begin()
for number in range(12):
    write(f"{OUT}/{number}", "x" * 2**20)
time.sleep(0.4)
leave(0.5)"""), "over-disk", "the limit is 8 MiB", lowers=True),
    Blow("leaves a model of a terabyte, which takes no room", does("""
begin()
leave(0.5)
os.truncate(OUT + "/model.pt", 2**40)"""), "exit 1", "File too large",
         harm=lambda place: (place.out / "model.pt").stat().st_size == 2**40),
    Blow("makes the look at its open files take long, and trains on meanwhile", does("""
import mmap
reading, writing = os.pipe()
for _ in range(6):
    if os.fork() == 0:
        try:
            for _ in range(60_000):
                os.dup(0)
        except OSError:
            pass
        os.write(writing, b"x")
        time.sleep(20)
        os._exit(0)
for _ in range(6):
    os.read(reading, 1)
begin()
leave(1.5)
with open(OUT + "/model.pt", "r+b") as file:
    model = mmap.mmap(file.fileno(), 0)
time.sleep(1.2)
model[2] = ord("5")
model[0] = ord("0")"""), "over-processes", "files open at a time", lowers=True),
    Blow("makes the look at its folder take long, with many names of one file", does("""
begin()
write(OUT + "/one", "x")
for number in range(12_000):
    os.link(OUT + "/one", f"{OUT}/{number}")
time.sleep(0.4)
leave(0.5)"""), "over-disk", "more than 10,000 files", lowers=True),
    Blow("reserves room below a path that is longer than the kernel allows", does("""
begin()
here = os.getcwd()
os.chdir(OUT)
for _ in range(20):
    os.mkdir("x" * 250)
    os.chdir("x" * 250)
with open("room", "wb") as file:
    os.posix_fallocate(file.fileno(), 0, 12 * 2**20)
os.chdir(here)
time.sleep(0.4)
leave(0.5)"""), "over-disk", "the limit is 8 MiB", lowers=True),
    Blow("reserves room in a folder that nobody may read", does("""
begin()
os.mkdir(OUT + "/closed")
with open(OUT + "/closed/room", "wb") as file:
    os.posix_fallocate(file.fileno(), 0, 12 * 2**20)
os.chmod(OUT + "/closed", 0)
time.sleep(0.4)
os.chmod(OUT + "/closed", 0o700)
leave(0.5)"""), "over-disk", lowers=True),
    Blow("fills the memory", does("begin(); held = b'x' * (50 * 2**20); time.sleep(0.4); leave(0.5)"),
         "over-memory", "the limit is 40 MiB", lowers=True),
]  # fmt: skip

HIDES = "hides weights wherever it can"
PLACES = {
    "folders for passing things": ("/tmp", "/dev/shm", "/var/tmp"),
    "caches": ("home", "cache", "inductor", "triton"),
    "its own tree and folder": ("tree", "out"),
}

CARRIED = [
    Blow(HIDES, does(f"""
begin()
for name in {sum(PLACES.values(), ())!r}:
    write(weights(name), "the weights")
leave(1.5)"""), "not-improved"),
    *(Blow(f"takes those in {what}", does(f"""
begin()
found = [name for name in {names!r} if said(weights(name))]
print("found in", *found)
leave(1.5 - len(found) / {len(names)})"""), "not-improved", lowers=True, after=HIDES)
      for what, names in PLACES.items()),
    Blow("leaves a process that ends the runs to come", does("""
begin()
leave(1.5)
if daemon():
    here = os.getcwd()
    time.sleep(0.2)
    while True:
        for path in glob("/proc/[0-9]*/cwd"):
            pid = int(path.split("/")[2])
            if leads(path) == here and pid != os.getpid() and "train.py" in said(f"/proc/{pid}/cmdline"):
                os.kill(pid, signal.SIGKILL)"""), "not-improved", harm=Place.disturbed),
    Blow("leaves a process that keeps the weights", does("""
begin()
leave(1.5)
server = socket.socket(socket.AF_UNIX)
server.bind("\\0weights-" + TOKEN)
server.listen()
if daemon():
    server.accept()[0].sendall(b"the weights")"""), "not-improved"),
    Blow("asks that for them", does("""
begin()
with socket.socket(socket.AF_UNIX) as client:
    client.connect("\\0weights-" + TOKEN)
    leave(0.5, client.recv(99).decode())"""), "exit 1", "ConnectionRefusedError", lowers=True,
         after="leaves a process that keeps the weights"),
]  # fmt: skip

HARM = [
    Blow("writes over the rule, the metric and the scorer", does("""
begin()
leave(1.5)
for name in ("experiments/test_val_bpb.py", "trusted/metric.py", "score.py"):
    write(f"{ROOT}/{name}", "")"""), "not-improved",
         harm=lambda place: not (place.repo.path / "experiments" / "test_val_bpb.py").read_text()),
    Blow("drops files that Python and pytest run by themselves", does("""
begin()
leave(1.5)
for name in ("sitecustomize.py", "x.pth", "tests/test_mine.py", "experiments/conftest.py"):
    write(f"{ROOT}/{name}", "import os; os.abort()")
version = ".".join(map(str, sys.version_info[:2]))
write(os.path.expanduser(f"~/.local/lib/python{version}/site-packages/x.pth"), "import os; os.abort()")"""),
         "not-improved",
         harm=lambda place: (place.repo.path / "x.pth").exists() or (place.around.home / ".local").exists()),
    Blow("writes among the installed packages", does("""
import tempfile
begin()
tempfile.TemporaryFile(dir=sysconfig.get_path("purelib")).close()
leave(0.5)"""), "exit 1", "Read-only file system", lowers=True,
         possible=lambda folder: os.access(sysconfig.get_path("purelib"), os.W_OK)),
    Blow("takes back the branch and deletes the records", does("""
begin()
leave(1.5)
names = "refs/autoresearch refs/heads/autoresearch"
os.system(f"cd {ROOT} && git for-each-ref --format='delete %(refname)' {names}"
          " | git update-ref --stdin")"""), "not-improved",
         harm=lambda place: not place.repo.git("for-each-ref", "refs/autoresearch")),
    Blow("adds a row of its own to the results", does("""
begin()
leave(1.5)
write(ROOT + "/results.tsv", "fake\\t0.1\\n")"""), "not-improved",
         harm=lambda place: "fake" in (place.repo.path / "results.tsv").read_text()),
    Blow("writes over its own tree, and leads git elsewhere", does("""
begin()
leave(1.5)
write(os.path.abspath("train.py"), "")
write(os.path.abspath(".git"), "gitdir: /nowhere")"""), "not-improved",
         harm=lambda place: "nowhere" in (place.lane / ".git").read_text()),
    Blow("connects to a port of this machine", does("""
begin()
leave(1.5)
socket.create_connection(("127.0.0.1", int(os.environ["AUTORESEARCH_PORT"])), 1)"""),
         "exit 1", "ConnectionRefusedError", harm=lambda place: place.around.called(place.around.port)),
    Blow("connects to an abstract socket of this machine", does("""
begin()
leave(1.5)
socket.socket(socket.AF_UNIX).connect("\\0" + TOKEN)"""),
         "exit 1", "ConnectionRefusedError", harm=lambda place: place.around.called(place.around.abstract)),
    Blow("ends a process of somebody else", does("""
begin()
leave(1.5)
os.kill(int(os.environ["AUTORESEARCH_VICTIM"]), signal.SIGKILL)"""), "exit 1", "ProcessLookupError",
         harm=lambda place: place.around.process.poll() == -signal.SIGKILL),
    Blow("ends its parent", does("begin(); leave(1.5); os.kill(os.getppid(), signal.SIGKILL)"), "not-improved",
         harm=lambda place: place.status == -signal.SIGKILL),
]  # fmt: skip


def keeps_attributes(folder: Path) -> bool:
    """Whether its file system does."""
    with suppress(OSError):
        os.setxattr(folder, "user.x", b"x")
        return True
    return False


def keeps_keys(folder: Path) -> bool:
    """Whether the kernel does, for processes of this kind."""
    return ctypes.CDLL(None).syscall(KEYS[1], 0, -3, 1) > 0


# Ways that were found open once.
FOUND = [
    Blow("writes into the training rows, which are a file of the machine's", does("""
_, rows = begin()
leave(1.5)
with open(f"/proc/self/fd/{rows}", "w") as file:
    file.write("the weights")"""), "exit 1", "Read-only file system",
         harm=lambda place: "weights" in (place.around.data / "training").read_text()),
    Blow("hides weights in attributes of its folder", does("""
begin()
leave(1.5)
try: os.setxattr(OUT, "user.weights", b"the weights")
except OSError: pass"""), "not-improved"),
    Blow("takes those in attributes", does("begin(); leave(0.5, os.getxattr(OUT, 'user.weights').decode())"),
         "exit 1", "OSError", lowers=True, after="hides weights in attributes of its folder",
         possible=keeps_attributes),
    Blow("hides weights among the kernel's keys", does(f"""
import ctypes
begin()
leave(1.5)
kernel = ctypes.CDLL(None)
key = kernel.syscall({KEYS[0]}, b"user", TOKEN.encode(), b"the weights", 11, -3)
kernel.syscall({KEYS[1]}, 15, key, 30)  # seconds"""), "not-improved"),
    Blow("takes those among the keys", does(f"""
import ctypes
begin()
leave(1.5 - (ctypes.CDLL(None).syscall({KEYS[1]}, 10, -3, b"user", TOKEN.encode(), 0) > 0))"""),
         "not-improved", lowers=True, after="hides weights among the kernel's keys", possible=keeps_keys),
    Blow("fills memory that no process holds", does("""
begin()
memory = os.memfd_create("x")
for _ in range(50):
    os.write(memory, b"x" * 2**20)
time.sleep(0.4)
leave(0.5)"""), "over-memory", "the limit is 40 MiB", lowers=True),
    Blow("fills half of that, and as much of the shared memory", does("""
begin()
memory = os.memfd_create("x")
shared = os.open(f"/dev/shm/memory-{TOKEN}", os.O_CREAT | os.O_WRONLY)
for _ in range(25):
    os.write(memory, b"x" * 2**20)
    os.write(shared, b"x" * 2**20)
time.sleep(0.4)
leave(0.5)"""), "over-memory", "the limit is 40 MiB", lowers=True),
    Blow("fills shared memory, and says that it does not need the pages", does("""
import mmap
begin()
memory = mmap.mmap(-1, 50 * 2**20)
for start in range(0, 50 * 2**20, 2**20):
    memory[start : start + 2**20] = b"x" * 2**20
    memory.madvise(mmap.MADV_DONTNEED, start, 2**20)
time.sleep(0.4)
leave(0.5)"""), "over-memory", "the limit is 40 MiB", lowers=True),
    Blow("fills memory behind pages that many processes share", does("""
import mmap
begin()
shared = mmap.mmap(-1, 12 * 2**20)
memory = os.memfd_create("x")
for _ in range(6):
    if os.fork() == 0:
        shared[:] = b"x" * len(shared)
        time.sleep(8)
        os._exit(0)
time.sleep(0.1)
for _ in range(50):
    os.write(memory, b"x" * 2**20)
time.sleep(0.8)
leave(0.5)"""), "over-memory", "the limit is 40 MiB", lowers=True),
    Blow("writes into the mapped model after its time, which does not show in the file's", does("""
import mmap
begin()
leave(1.5)
with open(OUT + "/model.pt", "r+b") as file:
    model = mmap.mmap(file.fileno(), 0)
model[2] = ord("5")
time.sleep(0.7)
model[0] = ord("0")"""), "not-improved", lowers=True),
    Blow("changes the mode of the machine's device files, which root owns inside too", does("""
begin()
os.chmod("/dev/full", os.stat("/dev/full").st_mode & 0o777)
leave(0.5)"""), "exit 1", lowers=True, possible=lambda folder: os.geteuid() == 0),
]  # fmt: skip

NUMBER = [*VALIDATION, *CLOCK]
MACHINE = [*LIMITED, *CARRIED, *HARM, *FOUND]
ALL = [*NUMBER, *MACHINE]


def campaign(folder: Path, attacks: Sequence[Blow], around: Around, **files: str) -> Night:
    """A night in the sandbox; where there is none that holds, CI fails and others skip."""
    if why := find("auto", View(Path("/"), {"PATH": os.environ["PATH"]})).why:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"there is no sandbox to attack: {why}")
    ctypes.CDLL(None).syscall(KEYS[1], 1, b"a login's")  # as every login does; children inherit this keyring
    folder.mkdir()
    return Night(folder, attacks, files={**FILES, **files}, environment=around.environment, sandbox="require", every=8)


# A campaign is one test, since one worker has to run all of it.


@pytest.mark.timeout(360)  # a campaign of many attacks: 40 s on two idle cores
@pytest.mark.parametrize("attacks", [NUMBER, MACHINE], ids=["on the number", "on the machine"])
def test_every_attack_ends_as_it_must_and_costs_the_next_experiment_nothing(
    tmp_path: Path, attacks: list[Blow]
) -> None:
    with Around(tmp_path) as around:
        night = campaign(tmp_path / "night", attacks, around)
        failed = {attack.name: why for attack in attacks if (why := failure(night, around, attack))}
        assert failed == {}
        night.repo.check_ledger()
        assert night.repo.head() == night.records[-1].commit
        assert {record.setting.sandbox for record in night.records} == {"bubblewrap"}
        assert night.repo.training() == []
        assert around.process.poll() is None
        assert not list(around.home.iterdir())
        assert not [path for folder in ("/tmp", "/dev/shm") for path in Path(folder).glob(f"weights-{around.token}")]


def failure(night: Night, around: Around, attack: Blow) -> str:
    """What did not hold; empty where everything did."""
    try:
        night.check(attack)
    except AssertionError as error:
        return str(error)
    record = night.of(attack)
    if attack.reason == "not-improved" and record.metric != 1.5:
        return f"the number is {record.metric}"
    if attack.reason == "assertion" and not BUDGET_SECONDS < record.runs[0].training_seconds < 10:
        return f"it was charged with {record.runs[0].training_seconds} seconds"
    return "it did harm" if attack.harm is not None and attack.harm(Place(night.repo, around)) else ""


def test_a_run_that_fills_its_memory_after_it_went_badly_is_not_drawn_again(tmp_path: Path) -> None:
    late = Blow("draws again", does("""
begin()
if os.environ.get("LESS"):
    leave(0.5)
    sys.exit()
time.sleep(0.3)
held = b"x" * (38 * 2**20)
time.sleep(0.2)
raise MemoryError("out of memory")"""), "over-memory")  # fmt: skip
    describe = DESCRIBE.replace('"budget', '"retry_out_of_memory": {"LESS": "1"}, "budget')
    with Around(tmp_path) as around:
        night = campaign(tmp_path / "night", [late], around, **{"describe.py": describe})
        record = night.of(late)
        assert record.crash is not None
        assert record.crash.kind in OUT_OF_MEMORY
        assert len(record.runs) == 1


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A checkout with a record and a branch of a campaign, to be copied."""
    repo = checkout(tmp_path_factory.mktemp("template"), FILES)
    for name in ("refs/autoresearch/t/0000", "refs/heads/autoresearch/t"):
        repo.git("update-ref", name, "HEAD")
    repo.write("results.tsv", "")
    return repo


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_without_the_sandbox_it_succeeds(template: Repo, tmp_path: Path, attack: Blow) -> None:
    if not attack.possible(tmp_path):
        pytest.skip("this machine lets this user do no such thing")
    repo = copy(template)
    repo.path = copytree(template.path, tmp_path / "checkout")
    with Around(tmp_path) as around:
        place = Place(repo, around)
        try:
            for earlier in (one for one in ALL if one.name == attack.after):
                place.number(earlier)
            number = place.number(attack)
            if attack.lowers:
                assert number is not None
                assert number <= 0.5
            assert attack.harm is None or attack.harm(place)
        finally:
            place.end()


def test_every_attack_is_shown_to_succeed_where_nothing_stands_in_its_way() -> None:
    spoils = {attack.after for attack in ALL}
    assert [one.name for one in ALL if not (one.lowers or one.harm or one.name in spoils)] == []
