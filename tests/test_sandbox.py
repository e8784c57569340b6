"""The sandbox, attacked from inside: as root and as an ordinary user, and without it, where every attack succeeds."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.runners.supervised import SupervisedTree
from pytest_autoresearch.sandboxes.base import Allowance, Prepared, View
from pytest_autoresearch.sandboxes.bubblewrap import Bubblewrap, installed
from pytest_autoresearch.sandboxes.select import find
from pytest_autoresearch.sandboxes.selftest import try_out

PACKAGE = Path(__file__).parent.parent / "pytest_autoresearch"
ORDINARY = 12345  # a user that has no name, as in many containers
SECRET = {"ANTHROPIC_API_KEY": "sk-something-long"}

TRIED = """
import dataclasses, json, os, sys
from pathlib import Path
from typing import Any
from pytest_autoresearch.sandboxes.select import find
from pytest_autoresearch.sandboxes.base import Unconfined, View
from pytest_autoresearch.sandboxes.selftest import try_out

names = ("PATH", "LD_LIBRARY_PATH")
view = View(Path("/"), {name: os.environ[name] for name in names if name in os.environ})
hidden = [Path(sys.argv[1])]
with_it = find("auto", view, hidden)
without = try_out(Unconfined(), view, hidden)
print(json.dumps([os.geteuid(), with_it.words, without.failed, without.broken]))
"""


@pytest.fixture(scope="module")
def bubblewrap() -> Bubblewrap:
    """The one that is installed and starts; where there is none, CI fails and others skip."""
    backend = installed()
    why = "bubblewrap is not installed (apt install bubblewrap)"
    if backend is not None:
        why = try_out(backend, view()).failed
    if backend is None or why:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"the sandbox cannot be tested: {why}")
    return backend


def view(**given: Any) -> View:
    return replace(View(Path("/"), {"PATH": os.environ["PATH"], "HOME": str(Path.home())}), **given)


def start(prepared: Prepared, *command: str, fds: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    prepared.rewind()
    return subprocess.run(
        [*prepared.argv_prefix, *command], env=dict(prepared.environment), pass_fds=(*prepared.pass_fds, *fds),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def shell(backend: Bubblewrap, seen: View, script: str) -> str:
    """What a shell script inside says on both streams."""
    with backend.prepare(seen) as prepared:
        done = start(prepared, "sh", "-c", script)
    return done.stdout + done.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can read, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_user(user: str, script: Path, folder: Path) -> list[str]:
    """The command that runs a Python script as root, or as an ordinary user who may not read root's interpreter."""
    if user == "root" or os.geteuid() != 0:
        return [sys.executable, str(script)]
    inside = folder / "python"
    inside.mkdir()
    program = inside / Path(os.path.realpath(sys.executable)).relative_to(os.path.realpath(sys.base_prefix))
    become = f"setpriv --reuid {ORDINARY} --regid {ORDINARY} --clear-groups {program} {script}"
    # A shared libpython is looked for where the interpreter was built to lie.
    moved = f"mount --bind {sys.base_prefix} {inside} && LD_LIBRARY_PATH={inside}/lib"
    return ["unshare", "--mount", "sh", "-c", f'{moved} exec {become} "$@"', "sh"]


# What holds


@pytest.mark.parametrize("user", ["root", "ordinary"])
def test_every_attack_succeeds_without_the_sandbox_and_fails_inside(
    bubblewrap: Bubblewrap, open_folder: Path, user: str
) -> None:
    if user == "root" and os.geteuid() != 0:
        pytest.skip("this is not root")
    shutil.copytree(PACKAGE, open_folder / "pytest_autoresearch", ignore=shutil.ignore_patterns("__pycache__"))
    (open_folder / "tried.py").write_text(TRIED)
    shard = open_folder / "shard"
    shard.write_text("validation")
    for path in (open_folder, *open_folder.rglob("*")):
        path.chmod(0o755)
    done = subprocess.run(
        [*as_user(user, open_folder / "tried.py", open_folder), str(shard)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(open_folder), "PYTHONDONTWRITEBYTECODE": "1", **SECRET},
        cwd="/", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    uid, words, failed, broken = json.loads(done.stdout)
    assert (uid == 0) == (user == "root")
    assert not failed
    expected = {
        "variables of other processes can be read",
        "a file outside can be read",
        f"{shard} can be read",
        "a port of this machine can be connected to",
        "an abstract socket of this machine can be connected to",
        "a hidden folder can be written to",
        "a read-only folder can be written to",
        "a process outside can be killed",
        "user namespaces can be created",
        "the number of processes has no limit",
        "/tmp and /dev/shm have no size limit",
    }
    if user == "root":
        expected |= {"settings of the whole machine can be changed", "device files of the machine can be changed"}
    assert expected <= set(broken)
    assert words == "bubblewrap"


def test_what_does_not_hold_is_said(bubblewrap: Bubblewrap) -> None:
    older = replace(bubblewrap, version=(0, 6, 1), forbids_user_namespaces=False)
    findings = try_out(older, view(allowance=Allowance(tmp_mb=64, shm_mb=64)))
    assert findings.broken == ("user namespaces can be created", "/tmp and /dev/shm have no size limit")


def test_a_broken_promise_of_the_view_is_said(bubblewrap: Bubblewrap, tmp_path: Path) -> None:
    shard = tmp_path / "data" / "shard"
    shard.parent.mkdir()
    shard.write_text("validation")
    findings = try_out(bubblewrap, view(readable=(shard.parent,)), [shard])
    assert findings.broken == (f"{shard} can be read",)
    assert try_out(bubblewrap, view(readable=(shard.parent,), covered=(shard,)), [shard]).held


# Finding one


def test_no_sandbox_says_why_and_is_refused_where_one_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find("auto", view()).words.startswith("none (bubblewrap is not installed: run `apt install bubblewrap`")
    with pytest.raises(UserError, match="--autoresearch-sandbox=require: bubblewrap is not installed"):
        find("require", view())
    assert find("off", view()).words == "none (switched off)"


def test_refused_user_namespaces_are_said(bubblewrap: Bubblewrap) -> None:
    ask = "from tests.test_sandbox import *; print(find('auto', view()).words)"
    none_more = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", none_more, "sh", sys.executable, "-c", ask],
        cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == (
        "none (bubblewrap may not create user namespaces here, because user.max_user_namespaces is 0)"
    ), done.stderr


# Commands inside


def test_the_end_of_a_command_is_told_from_that_of_the_sandbox(bubblewrap: Bubblewrap) -> None:
    ends = {"exit 3": 3, "kill -SEGV $$": -signal.SIGSEGV, "kill -KILL $$": -signal.SIGKILL, "exit 0": 0}
    with bubblewrap.prepare(view()) as prepared:
        for script, status in ends.items():
            assert prepared.exit_status(start(prepared, "sh", "-c", script).returncode) == status
        done = start(prepared, "no-such-program")
        assert (done.returncode, done.stderr) == (
            127, "no-such-program could not be started: No such file or directory\n",
        )  # fmt: skip
        assert prepared.entered
    with bubblewrap.prepare(view(folder=Path("/no/such/folder"))) as prepared:
        assert "/no/such/folder" in start(prepared, "true").stderr
        assert not prepared.entered


def test_a_command_inside_has_its_moment_after_term_and_nothing_is_left(bubblewrap: Bubblewrap) -> None:
    script = 'trap "echo asked; exit 0" TERM; setsid sleep 60 & echo ready; while :; do sleep 0.01; done'
    with bubblewrap.prepare(view()) as prepared:
        command = [*prepared.argv_prefix, "sh", "-c", script]
        tree = SupervisedTree(command, Path("/"), prepared.environment, prepared.pass_fds)
        assert tree.stdout.read(6) == b"ready\n"
        family = tree.look()
        assert len(family) >= 4  # bubblewrap twice, the shell and what has left its session
        tree.end(10.0, time.sleep)
        os.set_blocking(tree.stdout.fileno(), False)
        assert tree.stdout.read().endswith(b"asked\n")
        tree.stdout.close()
        tree.stderr.close()
        assert prepared.exit_status(tree.exit_status) == 0
    assert not any(Path("/proc", str(process.pid)).exists() for process in family)


def test_only_what_was_handed_over_is_open_inside(bubblewrap: Bubblewrap, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("rows")
    with (tmp_path / "rows").open() as rows, bubblewrap.prepare(view()) as prepared:
        number = rows.fileno()
        script = f"import os; print(os.read({number}, 9), *sorted(map(int, os.listdir('/proc/self/fd'))))"
        done = start(prepared, sys.executable, "-I", "-S", "-c", script, fds=[number])
    content, *numbers = done.stdout.split()
    assert content == "b'rows'"
    assert len(numbers) == 5, "stdin, stdout, stderr, the rows, and the listing itself"
    assert {"0", "1", "2", str(number)} < set(numbers)


def test_limits_hold_inside(bubblewrap: Bubblewrap) -> None:
    allowance = Allowance(file_mb=1, tmp_mb=4, open_files=64, cpu_seconds=7)
    said = shell(
        bubblewrap,
        view(allowance=allowance),
        "ulimit -n; ulimit -c; ulimit -t; cd /tmp; head -c 2000000 /dev/zero >a; stat -c %s a;"
        "for i in 1 2 3 4 5; do head -c 1000000 /dev/zero >$i; done; touch /x /dev/x; env | grep -c XDG",
    )
    lines = said.splitlines()
    assert lines[:4] == ["64", "0", "7", str(1024 * 1024)]
    assert "No space left on device" in said
    assert said.count("Read-only file system") == 2


def test_a_place_is_seen_under_its_names_and_what_is_covered_under_none(bubblewrap: Bubblewrap, tmp_path: Path) -> None:
    real, home = tmp_path / "real", tmp_path / "home"
    (real / "data" / "test").mkdir(parents=True)
    (real / "data" / "test" / "answers").write_text("answers")
    (real / "data" / "rows").write_text("rows\n")
    home.mkdir()
    (home / "cache").symlink_to(real)
    seen = view(
        environment={"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CACHE_HOME": str(home)},
        readable=(home / "cache" / "data",),
        covered=(home / "cache" / "data" / "test",),
    )
    places = f"~/cache/data {home}/cache/data {real}/data"
    said = shell(
        bubblewrap, seen, f"for place in {places}; do cat $place/rows; ls -A $place/test; done; echo ~ $TMPDIR"
    )
    assert said.splitlines() == ["rows", "rows", "rows", "/tmp/home /tmp"]


def test_a_place_inside_a_covered_one_is_seen_alone(
    bubblewrap: Bubblewrap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("conda-meta", "envs/one", "envs/two"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path))
    script = f"ls {tmp_path}/envs; touch {tmp_path}/envs/x {tmp_path}/envs/one/x"
    lines = shell(bubblewrap, view(readable=(tmp_path / "envs/one",)), script).splitlines()
    assert lines[0] == "one"
    assert [line.rpartition(": ")[2] for line in lines[1:]] == ["Read-only file system"] * 2


def test_the_kernel_s_counters_are_not_visible(bubblewrap: Bubblewrap) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do /bin/true; done; cat /proc/stat /proc/vmstat /proc/sys/fs/dentry-state"
    first, second = (shell(bubblewrap, view(), script) for _ in range(2))
    assert first == second
    assert f"cpu{(os.cpu_count() or 1) - 1} 0" in first
    assert "btime" in first
    assert "MemAvailable" in shell(bubblewrap, view(), "cat /proc/meminfo")


def test_a_link_within_a_place_that_is_shown_leads_on(bubblewrap: Bubblewrap, tmp_path: Path) -> None:
    toolkit, place = tmp_path / "cuda-13", tmp_path / "local"
    toolkit.mkdir()
    place.mkdir()
    (toolkit / "version").write_text("13\n")
    (place / "cuda").symlink_to(toolkit)
    seen = view(environment={"PATH": os.environ["PATH"], "CUDA_HOME": f"{place}/cuda"}, readable=(place,))
    assert shell(bubblewrap, seen, f"cat {place}/cuda/version") == "13\n"


def test_a_wider_view_reaches_the_network(bubblewrap: Bubblewrap) -> None:
    names = "cat /proc/net/dev | wc -l; ls /etc"
    wide, narrow = shell(bubblewrap, view(network=True), names), shell(bubblewrap, view(), names)
    assert "ssl" in wide
    assert "ssl" not in narrow
    assert not try_out(bubblewrap, view(network=True)).broken


NAMES = """
import getpass, grp, json, os, pwd, socket
user = pwd.getpwuid(os.getuid())
print(json.dumps([
    socket.gethostbyname("localhost"), socket.gethostbyname(socket.gethostname()), socket.gethostname(),
    [user.pw_name, user.pw_dir], grp.getgrgid(os.getgid()).gr_name, getpass.getuser(),
    os.path.exists("/sys/devices/system/cpu/possible"), os.path.exists("/sys/class/net"),
    open("/etc/hosts").read() + open("/etc/passwd").read() + open("/etc/resolv.conf").read(),
]))
try:
    with open("/etc/passwd", "a"):
        print("writable")
except OSError as error:
    print(error.strerror)
"""


def test_the_names_that_any_program_asks_for_are_known_and_no_others(bubblewrap: Bubblewrap) -> None:
    with bubblewrap.prepare(view()) as prepared:
        said = [start(prepared, sys.executable, "-I", "-S", "-c", NAMES) for _ in range(2)]
    assert said[0].stdout == said[1].stdout, "also when the sandbox is started again"
    names, refusal = said[0].stdout.splitlines()
    local, own, host, (user, home), group, asked, has_processors, has_network, text = json.loads(names)
    assert (local, own, host) == ("127.0.0.1", "127.0.1.1", socket.gethostname())
    assert user == asked
    assert home == "/tmp/home"
    assert group
    assert has_processors
    assert not has_network
    assert refusal in ("Permission denied", "Read-only file system")
    theirs = {f"{entry.pw_name}:" for entry in pwd.getpwall() if entry.pw_name not in (user, "root", "nobody")}
    assert not any(line.startswith((*theirs, "nameserver")) for line in text.splitlines())


def test_threads_can_be_named_as_cuda_does_and_what_is_the_machines_stays_as_it_is(bubblewrap: Bubblewrap) -> None:
    script = "echo named >/proc/$$/comm && cat /proc/$$/comm; find /proc -maxdepth 1 -writable"
    named, *writable = shell(bubblewrap, view(), script).splitlines()
    assert named == "named"
    assert all(path.removeprefix("/proc/").isdecimal() or Path(path).is_symlink() for path in filter(None, writable))


def test_devices_are_there_when_named(bubblewrap: Bubblewrap) -> None:
    listing = "ls /dev /sys/class 2>/dev/null"
    assert "mem" not in shell(bubblewrap, view(), listing).split()
    device = Path("/dev/kmsg")
    if not device.exists():
        pytest.skip("this machine has no device file to show")
    said = shell(bubblewrap, view(devices=(device,)), f"test -c {device} && echo there; ls /sys; touch /sys/x")
    assert said.startswith("there\n")
    assert "class" in said.split()
