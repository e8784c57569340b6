"""What a sandbox is made from: the paths of this machine, control groups, and the look at what a run has written."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.corpus import VALIDATION_FOLDERS
from pytest_autoresearch.hardware.gpu import Gpu
from pytest_autoresearch.sandboxes import machine, shown, system
from pytest_autoresearch.sandboxes.base import Allowance
from pytest_autoresearch.sandboxes.cgroup import Group
from pytest_autoresearch.sandboxes.disk import Written

# Paths


def test_what_the_embedded_corpus_validates_on_is_what_a_sandbox_covers() -> None:
    assert set(machine.UNNEEDED) == set(VALIDATION_FOLDERS)


def test_every_standard_library_in_sight_is_found(tmp_path: Path) -> None:
    libraries = [
        tmp_path / place / "python3.12" for place in ("lib", "lib64", "envs/other/lib", "pkgs/python-3.12/lib")
    ]
    for library in libraries:
        (library / "test").mkdir(parents=True)
        (library / "json").mkdir()
    assert set(machine.unneeded([tmp_path])) == {library / "test" for library in libraries}


@pytest.fixture
def usr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /usr, with an interpreter, a plug-in, a compiler and what nobody needs."""
    for name in (
        "bin/python3.12", "bin/node", "lib/python3.12/json/decoder.py", "lib/python3.12/test/test_json.py",
        "lib/python3/dist-packages/apt.py", "lib/pypy3.9/lib-python/3/test/test_json.py", "lib/gcc/cc1",
        "lib/x86_64-linux-gnu/libm.so.6", "lib/x86_64-linux-gnu/gconv/UTF-16.so", "lib/x86_64-linux-gnu/perl/Test.pm",
        "lib/x86_64-linux-gnu/sasl2/libplain.so", "lib/x86_64-linux-gnu/pypy/lib/libpypy.so", "share/doc/readme",
        "share/zoneinfo/UTC", "share/nodejs/fs.js", "share/node-red/flow.js", "share/nodemon/test.js", "local/bin/x",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(system, "SHARED", (tmp_path, tmp_path / "local"))
    monkeypatch.setenv("HOME", "/nowhere")
    return tmp_path


def test_of_usr_a_sandbox_shows_programs_libraries_plugins_and_compilers(usr: Path) -> None:
    shown, covered = system.shown()
    libraries = usr / "lib" / "x86_64-linux-gnu"
    assert {usr / "bin", usr / "local/bin", usr / "share/zoneinfo", usr / "lib/gcc", libraries} <= set(shown)
    inside = [path for path in shown if path.is_relative_to(usr)]
    assert not [path for path in inside if "python" in str(path) or "pypy" in str(path) or "doc" in str(path)]
    assert set(covered) >= {libraries / "perl", libraries / "pypy"}
    assert not set(covered) & {libraries / "gconv", libraries / "sasl2"}


def test_a_program_in_usr_comes_with_the_folders_of_its_name(usr: Path) -> None:
    assert set(system.of_program(usr / "bin/python3.12")) == {usr / "lib/python3.12", usr / "lib/python3"}
    assert set(system.of_program(usr / "bin/node")) == {usr / "share/nodejs", usr / "share/node-red"}
    places, _ = machine.installation(usr / "bin/node", {}, Path("/private"))
    assert set(places) == {usr / "share/nodejs", usr / "share/node-red", usr / "bin/node"}
    assert set(machine.unneeded([usr / "lib/python3.12"])) == {usr / "lib/python3.12/test"}


def test_a_program_in_usr_comes_with_its_settings_in_etc(
    usr: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    etc = tmp_path_factory.mktemp("etc")
    monkeypatch.setattr(system, "SETTINGS", etc)
    for name in ("java/jvm.cfg", "java/password", "java/security/policy", "shadow"):
        (etc / name).parent.mkdir(exist_ok=True)
        (etc / name).touch()
    (etc / "java" / "password").chmod(0o600)
    jvm = usr / "lib" / "jvm" / "java-17"
    for name in ("bin", "lib", "conf"):
        (jvm / name).mkdir(parents=True)
    (jvm / "bin" / "java").touch()
    (jvm / "lib" / "jvm.cfg").symlink_to(etc / "java" / "jvm.cfg")
    (jvm / "conf" / "password").symlink_to(etc / "java" / "password")
    (jvm / "conf" / "security").symlink_to(etc / "java" / "security")
    (jvm / "conf" / "gone").symlink_to(etc / "java" / "gone")
    (usr / "bin" / "java").symlink_to(jvm / "bin" / "java")
    places, _ = machine.installation(usr / "bin" / "java", {}, Path("/private"))
    assert set(places) == {jvm, etc / "java" / "jvm.cfg", etc / "java" / "security"}


def test_what_the_user_names_is_not_covered(usr: Path) -> None:
    libraries = usr / "lib" / "x86_64-linux-gnu"
    for named in (usr, libraries, libraries / "perl"):
        readable, covered = shown.places([named], {})
        assert named in readable
        assert libraries / "perl" not in covered


def test_conda_shows_its_own_environment_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("conda-meta", "envs/one", "envs/two", "pkgs/python-3.12"):
        (tmp_path / "conda" / name).mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "conda"))
    conda = tmp_path / "conda"
    assert {conda / "envs", conda / "pkgs"} <= set(shown.places([], {})[1])
    readable, covered = shown.places([conda / "envs/one"], {})
    assert conda / "envs/one" in readable
    assert conda / "envs" in covered
    assert conda / "envs" not in shown.places([conda / "envs"], {})[1]


def test_the_interpreter_comes_with_its_packages_but_never_with_a_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages, source = tmp_path / "site-packages", tmp_path / "source"
    packages.mkdir()
    source.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    found = machine.python({"PYTHONPATH": f"{packages}:{source}:", "LD_LIBRARY_PATH": f"{tmp_path}:{source}:/"})
    assert {Path(sys.prefix), Path(sys.base_prefix), packages} <= set(found)
    assert found.count(source) == 1, "for its libraries"
    assert not {tmp_path, Path("/")} & set(found)


def test_validation_text_is_hidden_among_the_packages_of_every_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (tmp_path / f"{name}/lib/python3.12/site-packages" for name in ("one", "other"))
    for site in (one, other):
        (site / "numbers" / "tests").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "one"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "other"))
    shard = tmp_path / "shard_7.parquet"
    found = machine.everywhere([shard, one / "numbers" / "tests"])
    assert set(found) == {shard, one / "numbers" / "tests", other / "numbers" / "tests"}


def test_a_compiler_that_a_variable_names_comes_with_its_installation(tmp_path: Path) -> None:
    real, named = tmp_path / "gcc-14", tmp_path / "gcc"
    for place in (real, named, tmp_path / "cuda"):
        (place / "bin").mkdir(parents=True)
    (real / "bin" / "gcc").touch()
    (named / "bin" / "cc").symlink_to(real / "bin" / "gcc")
    found = machine.python({"CC": f"{named}/bin/cc -O2", "CXX": "g++", "CUDA_HOME": str(tmp_path / "cuda")})
    assert {named, real, tmp_path / "cuda"} <= set(found)
    assert Path() not in found


def test_a_gpu_has_its_own_device_file_and_a_mig_instance_all(tmp_path: Path) -> None:
    devices = tmp_path / "dev"
    (devices / "nvidia-caps").mkdir(parents=True)
    names = (
        "nvidiactl",
        "nvidia-uvm",
        "nvidia-uvm-tools",
        "nvidia-modeset",
        "nvidia0",
        "nvidia1",
        *(f"nvidia-caps/nvidia-cap{number}" for number in (1, 2, 12, 13, 21, 22)),
    )
    for name in names:
        (devices / name).touch()
    for minor in (0, 1):
        card = tmp_path / f"proc/driver/nvidia/gpus/0000:0{minor}:00.0"
        card.mkdir(parents=True)
        (card / "information").write_text(
            f"Model: \t\t NVIDIA H200\nGPU UUID: \t GPU-{minor}\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
        )
    for instance, (whole, part) in {3: (12, 13), 5: (21, 22)}.items():
        folder = tmp_path / f"proc/driver/nvidia/capabilities/gpu1/mig/gi{instance}"
        (folder / "ci0").mkdir(parents=True)
        (folder / "access").write_text(f"DeviceFileMinor: {whole}\nDeviceFileMode: 444\nDeviceFileModify: 1\n")
        (folder / "ci0" / "access").write_text(f"DeviceFileMinor: {part}\nDeviceFileMode: 444\n")
    shared = {"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"}

    def seen(*gpus: Gpu) -> set[str]:
        return {str(path.relative_to(devices)) for path in machine.gpu_devices(gpus, tmp_path)}

    first, second = (Gpu("NVIDIA H200", f"GPU-{number}", "580", 1000.0) for number in (0, 1))
    assert seen() == set()
    assert seen(second) == {*shared, "nvidia1"}
    assert seen(first, second) == {*shared, "nvidia0", "nvidia1"}
    part_of = replace(second, uuid="MIG-1", card="GPU-1", instances=(3, 0))
    assert seen(part_of) == {*shared, "nvidia1", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"}
    everything = {*names} - {"nvidia-modeset"}
    for unknown in (
        replace(part_of, instances=None),
        replace(part_of, instances=(4, 0)),
        replace(second, uuid="GPU-9"),
    ):
        assert seen(first, unknown) == everything


# Control groups


def test_a_group_holds_what_joins_it_and_is_gone_afterwards() -> None:
    group = Group(Allowance(processes=5))
    if not group.join_files:
        pytest.skip("this user cannot make control groups here")
    (entrance,) = group.join_files
    forks = "import os\nfor _ in range(9): os.fork() or os._exit(os.system('sleep 0.2'))"
    join = 'echo 0 >"$0" && exec "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", join, entrance, sys.executable, "-c", forks], capture_output=True, text=True, check=False
    )
    assert "BlockingIOError" in done.stderr
    group.close()
    assert not Path(entrance).parent.exists()


# What a run has written


def written(folder: Path, limit_mb: float = 1.0) -> Written:
    folder.mkdir()
    return Written(folder, limit_mb)


def test_files_in_subfolders_count_and_what_links_point_at_does_not(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(4 * 1024 * 1024))
    out = tmp_path / "out"
    look = written(out)
    (out / "link").symlink_to(tmp_path / "large")
    (out / "a" / "b").mkdir(parents=True)
    (out / "a" / "b" / "model.pt").write_bytes(os.urandom(512 * 1024))
    assert look.over([]) == ""
    (out / "a" / "more").write_bytes(os.urandom(1024 * 1024))
    assert look.over([]) == "wrote 2 MiB into its folder; the limit is 1 MiB"


def test_a_deleted_file_that_is_held_open_counts(tmp_path: Path) -> None:
    out = tmp_path / "out"
    look = written(out, 16.0)
    script = "import os, sys; file = open('x', 'wb'); os.unlink('x'); file.write(bytes(64 << 20)); file.flush()"
    script += "; print('.', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=out, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        os.sync()  # some file systems take the space late
        assert look.over([process.pid]) == "wrote 64 MiB into its folder; the limit is 16 MiB"
        process.communicate()


def test_a_look_at_very_many_files_stays_short(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    look = Written(tmp_path / "out", 16, most_files=20)
    for number in range(30):
        (tmp_path / "out" / str(number)).touch()
    assert look.over([]) == "left more than 20 files in its folder"


def test_a_dear_look_is_good_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    look = Written(tmp_path / "out", 16, most_files=20, every_seconds=60)
    assert look.over([]) == ""
    for number in range(30):
        (tmp_path / "out" / str(number)).touch()
    assert look.over([]) == ""


def test_no_part_of_a_folder_that_is_shown_whole_is_shown_again() -> None:
    readable, _ = shown.places([system.LIBRARIES], {})
    assert [path for path in readable if path.is_relative_to(system.LIBRARIES)] == [system.LIBRARIES]
