"""Agents on jobs: what they are given and can reach, and that nothing of them is left; in a sandbox and without."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest
from places import Place

from pytest_autoresearch.core.agent_job import AgentJob, Finished
from pytest_autoresearch.core.errors import Stopped
from pytest_autoresearch.runners import agent as agent_module
from pytest_autoresearch.runners import private_home
from pytest_autoresearch.runners.agent import AgentRunner
from pytest_autoresearch.sandboxes.base import Backend, Unconfined, View
from pytest_autoresearch.sandboxes.bubblewrap import installed
from pytest_autoresearch.sandboxes.machine import installation
from pytest_autoresearch.sandboxes.selftest import try_out

KINDS = ("none", "bubblewrap")


@pytest.fixture(scope="module")
def bubblewrap() -> Backend:
    backend = installed()
    if backend is None or try_out(backend, View(Path("/"), {"PATH": os.environ["PATH"]})).failed:
        pytest.skip("bubblewrap does not work here: type `apt install bubblewrap`")
    return backend


@pytest.fixture(params=KINDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return Unconfined() if request.param == "none" else request.getfixturevalue("bubblewrap")


class Desk:
    """A lane's tree, a user with a home folder, and an agent that is a script."""

    def __init__(self, path: Path, backend: Backend, home: Path) -> None:
        self.path = path
        self.home = home
        self.backend = backend
        self.runner = AgentRunner(backend)
        self.tree = path / "repo" / ".git" / "autoresearch" / "lane-0"
        self.tree.mkdir(parents=True)
        (self.tree / "train.py").write_text("RATE = 1\n")
        (self.tree / ".git").write_text("gitdir: ../../worktrees/lane-0\n")
        (path / "repo" / "results.tsv").write_text("commit\n")

    def job(self, script: str, **given: Any) -> AgentJob:
        """A Python script as the agent."""
        program = self.path / "tools" / "agent"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{sys.executable} -S\n{dedent(script)}")
        program.chmod(0o755)
        usual: dict[str, Any] = {"seconds": 30.0, "readable": (self.tree,), **given}
        scratch = self.tree.with_name("lane-0-agent")
        return AgentJob((str(program),), self.tree, "Lower the loss.\n", scratch, **usual)

    def run(self, script: str, **given: Any) -> Finished:
        return self.runner.run(self.job(script, **given))


@pytest.fixture
def desk(tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    home = tmp_path / "home" / "ada"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    desk = Desk(tmp_path, backend, home)
    yield desk
    desk.runner.close()
    assert not (desk.tree.with_name("lane-0-agent")).exists(), "what was made for a job ends with it"


# What it is given


def test_an_agent_has_its_prompt_on_its_input_and_in_a_file_and_its_edit_stays(desk: Desk) -> None:
    came = desk.run("""
        import os, sys
        prompt = sys.stdin.read()
        assert prompt == open(os.environ["AUTORESEARCH_PROMPT"]).read()
        assert os.environ["AUTORESEARCH_NUMBER"] == "7"
        open("train.py", "a").write("# " + prompt)
        print("\\x1b[31mlowered it\\x1b[0m", flush=True)
        print("to stderr", file=sys.stderr)
        """, environment={"AUTORESEARCH_NUMBER": "7"})  # fmt: skip
    assert (came.exit_status, came.why) == (0, ""), came
    assert came.output == "lowered it\nto stderr"
    assert 0.0 < came.seconds < 30.0
    assert (desk.tree / "train.py").read_text() == "RATE = 1\n# Lower the loss.\n"


def test_an_agent_gets_the_keys_that_are_named_for_it_and_no_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACME_API_KEY", "OTHER_API_KEY", "AWS_SECRET_ACCESS_KEY", "AUTORESEARCH_THING", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "some-value")
    came = desk.run("import os; print(*sorted(k for k, v in os.environ.items() if v == 'some-value'))",
                    variables=("ACME_*",))  # fmt: skip
    assert came.output == "ACME_API_KEY HTTPS_PROXY"


@pytest.mark.parametrize(
    ("script", "status"),
    [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)],
    ids=["status", "signal"],
)
def test_how_an_agent_ended_is_told(desk: Desk, script: str, status: int) -> None:
    assert desk.run(script).exit_status == status


def test_a_program_that_is_gone_ends_as_a_shell_says_it(desk: Desk) -> None:
    came = desk.runner.run(replace(desk.job(""), command=(str(desk.path / "nothing"),)))
    assert came.exit_status == 127
    assert "not found" in came.output


# What it can reach


REACH = """
import os, socket, subprocess
def tries(name, attempt):
    try: attempt()
    except BaseException as error: return
    print(name)
def key():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try: text = open(f"/proc/{{pid}}/environ", errors="replace").read()
        except OSError: continue
        if "sk-very" + "-secret" in text: return
    raise KeyError
tries("ssh", lambda: open("{home}/.ssh/id").read())
tries("ssh", lambda: open(os.path.expanduser("~/.ssh/id")).read())
tries("key", key)
tries("history", lambda: open("{repo}/.git/HEAD").read())
tries("results", lambda: open("{repo}/results.tsv").read())
tries("beside the program", lambda: open("{tools}/notes").read())
tries("the program", lambda: open("{tools}/agent").read())
tries("settings", lambda: open(os.path.expanduser("~/.acme/settings.json")).read())
tries("network", lambda: socket.create_connection(("127.0.0.1", {port}), 2).close())
tries("validation", lambda: open("{covered}/text").read())
"""


def test_an_agent_in_a_sandbox_reaches_the_network_and_its_settings_and_nothing_else_of_the_users(desk: Desk) -> None:
    (desk.path / "repo" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    covered = desk.path / "shared" / "validation"
    for path in (desk.home / ".ssh/id", desk.home / ".acme/settings.json", desk.path / "tools/notes", covered / "text"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    desk.runner = AgentRunner(desk.backend, covered=[covered])
    other = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], "VERY_SECRET": "sk-very-secret"})
    with socket.create_server(("127.0.0.1", 0)) as server, other:
        places = {"home": desk.home, "repo": desk.path / "repo", "tools": desk.path / "tools", "covered": covered}
        script = REACH.format(**places, port=server.getsockname()[1])
        came = desk.run(script, settings=(".acme",), shared=(covered.parent,))
        other.kill()
    reached = set(came.output.splitlines())
    everything = {"ssh", "key", "history", "results", "beside the program", "the program", "settings", "network"}
    inside = {"the program", "settings", "network"}
    assert reached == (inside if desk.runner.confined else everything | {"validation"}), came.output


def test_git_does_not_work_in_the_tree_of_a_sandboxed_agent(tmp_path: Path, bubblewrap: Backend) -> None:
    place = Place(tmp_path / "repo")
    tree = place.ratchet().worktree(0)
    tree.reset(place.start)
    runner = AgentRunner(bubblewrap)
    script = tmp_path / "agent"
    script.write_text("#!/bin/sh\necho 'RATE = 2' >train.py; git add -A; git commit -qm mine; git log; exit 0\n")
    script.chmod(0o755)
    came = runner.run(AgentJob((str(script),), tree.folder, "", tree.top.with_name("lane-0-agent"), 30.0))
    assert "not a git repository" in came.output
    assert [change.path for change in tree.changes(place.start)] == ["train.py"]
    tree.release()


def test_settings_are_a_copy_and_what_is_shared_is_the_real_thing(desk: Desk) -> None:
    if not desk.runner.confined:
        pytest.skip("without a sandbox the home folder is the user's")
    for name in (".acme/settings.json", ".acme/sessions/one.jsonl", ".acme.json", ".real/token"):
        path = desk.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    came = desk.run("""
        import os
        home = os.path.expanduser("~")
        for folder, _, files in os.walk(home):
            for file in files:
                print(os.path.relpath(os.path.join(folder, file), home))
        for name in (".acme/settings.json", ".acme.json", ".real/token", ".acme/hook"):
            open(os.path.join(home, name), "w").write("after")
        """, settings=(".acme", ".acme.json", ".missing"), shared=(desk.home / ".real",))  # fmt: skip
    assert sorted(came.output.splitlines()) == [".acme.json", ".acme/settings.json"]
    assert came.exit_status == 0
    texts = {name: (desk.home / name).read_text() for name in (".acme/settings.json", ".acme.json", ".real/token")}
    assert texts == {".acme/settings.json": "before", ".acme.json": "before", ".real/token": "after"}
    assert not (desk.home / ".acme/hook").exists()


def test_settings_that_a_variable_puts_elsewhere_are_found_there(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = desk.path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "token").write_text("mine")
    monkeypatch.setenv("ACME_DIR", str(elsewhere))
    script = "import os; print(open(os.environ['ACME_DIR'] + '/token').read())"
    assert desk.run(script, settings=(".acme",), moved={"ACME_DIR": ".acme"}).output == "mine"


def test_a_copy_of_settings_is_private_and_in_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, home = tmp_path / "source", tmp_path / "home"
    (source / "cache").mkdir(parents=True)
    (source / "deep").mkdir()
    (source / "deep" / "around").symlink_to(source)
    sizes = {"a": 600, "b": 600, "c": 300, "large": 2000, "cache/d": 1, "deep/e": 90, "x.log": 1}
    for name, size in sizes.items():
        (source / name).write_bytes(b"x" * size)
    os.mkfifo(source / "fifo")
    monkeypatch.setattr(private_home, "MOST_FILE_BYTES", 1000)
    monkeypatch.setattr(private_home, "MOST_BYTES", 1000)
    private_home.make(home, {".acme": source}, (), tmp_path)
    copied = sorted(str(path.relative_to(home / ".acme")) for path in home.rglob("*") if path.is_file())
    assert copied == ["a", "c", "deep/e"]
    assert home.stat().st_mode & 0o777 == 0o700


class Home:
    """A user's home folder, and which of its settings are copied."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *names: str) -> None:
        for name in names:
            (self.path / "ada" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / "ada" / name).write_text(name)

    def link(self, name: str, to: str | Path) -> None:
        (self.path / "ada" / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / "ada" / name).symlink_to(self.path / "ada" / to)

    def copied(self, *names: str) -> set[str]:
        private = self.path / "private"
        private_home.remove(private)
        private_home.make(private, {name: self.path / "ada" / name for name in names}, (), self.path / "ada")
        return {str(path.relative_to(private)) for path in private.rglob("*") if path.is_file()}


def test_settings_that_are_linked_to_are_copied_where_they_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_home, "MOST_LINKED", 4)
    home = Home(tmp_path)
    home.write("dots/acme/settings.json", "dots/skills/plot/SKILL.md", "dots/skills/.git/config", "dots/one.md")
    home.write(*(f"project/{n}/code.py" for n in range(5)))
    home.link(".acme", "dots/acme")
    home.link("dots/acme/skills", "dots/skills")
    home.link("dots/acme/rules.md", "dots/one.md")
    home.link("dots/acme/project", "project")
    home.link("dots/acme/all", "dots")
    home.link("dots/skills/others", "project/0")
    assert home.copied(".acme") == {".acme/settings.json", ".acme/rules.md", ".acme/skills/plot/SKILL.md"}


def test_a_link_to_a_whole_installation_costs_next_to_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write(".acme/settings.json")
    home.link(".acme/skills/x", "/usr")
    began = time.thread_time()
    assert home.copied(".acme") == {".acme/settings.json"}
    assert time.thread_time() - began < 1.0


def test_settings_beyond_all_bounds_are_looked_at_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    home.write(*(f".acme/{letter}/{n}" for letter in "abc" for n in range(3)), ".acme.json")
    monkeypatch.setattr(private_home, "MOST_FILES", 3)
    assert home.copied(".acme", ".acme.json") == {".acme.json", ".acme/a/0", ".acme/a/1"}
    monkeypatch.undo()
    monkeypatch.setattr(private_home, "MOST_LOOKS", 6)  # at .acme, .acme.json, a, b, c and one more
    assert home.copied(".acme", ".acme.json") == {".acme.json", ".acme/a/0"}


# Where its program lies


def test_a_program_is_shown_with_its_installation_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "ada"
    monkeypatch.setenv("HOME", str(home))
    repo = home / "repo"

    def program(name: str, text: str = "#!/bin/sh\n") -> Path:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def link(name: str, to: str) -> Path:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(to)
        return path

    def shown(path: Path) -> tuple[list[str], list[str]]:
        places, links = installation(path, {"PATH": f"{home}/node/bin:/usr/bin"}, repo / ".git/autoresearch/lane-0")
        names = [str(one.relative_to(home)) for one in places if one.is_relative_to(home)]
        return names, [str(one.relative_to(home)) for one in links if one.is_relative_to(home)]

    program("node/bin/node")
    (home / "node/lib").mkdir()
    program("npm/lib/node_modules/@acme/code/cli.js", "#!/usr/bin/env node\n")
    program(".local/share/acme/versions/2.1")
    program("repo/agent.sh")
    program("repo/bin/tool")
    (home / "repo/lib").mkdir()
    program("tools/venv/bin/aider", f"#!{home}/tools/venv/bin/python\n")
    (home / "tools/venv/pyvenv.cfg").touch()
    link("tools/venv/bin/python", "/usr/bin/python3")
    code = "../lib/node_modules/@acme/code/cli.js"
    cases = {
        link("npm/bin/acme", code): (["npm/lib/node_modules", "node"], ["npm/bin/acme"]),
        link(".local/bin/acme", "../share/acme/versions/2.1"): ([".local/share/acme/versions"], [".local/bin/acme"]),
        program("bin/agent"): (["bin/agent"], []),
        program(".local/bin/mine"): ([".local/bin/mine"], []),
        home / "repo/agent.sh": (["repo/agent.sh"], []),
        link("bin/linked", "../repo/agent.sh"): (["repo/agent.sh"], ["bin/linked"]),
        home / "repo/bin/tool": (["repo/bin/tool"], []),
        home / "tools/venv/bin/aider": (["tools/venv"], ["tools/venv/bin/python"]),
    }  # fmt: skip
    assert {path: shown(path) for path in cases} == cases


def test_a_program_that_links_lead_to_starts_in_a_sandbox(
    tmp_path: Path, bubblewrap: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    home = tmp_path / "ada"
    package = home / ".npm-global/lib/node_modules/acme"
    package.mkdir(parents=True)
    (package / "word.js").write_text("module.exports = 'found beside it'\n")
    (package / "cli.js").write_text("#!/usr/bin/env node\nconsole.log(require('./word.js'))\n")
    (package / "cli.js").chmod(0o755)
    link = home / ".npm-global/bin/acme"
    link.parent.mkdir()
    link.symlink_to("../lib/node_modules/acme/cli.js")
    monkeypatch.setenv("HOME", str(home))
    folder = tmp_path / "tree"
    folder.mkdir()
    came = AgentRunner(bubblewrap).run(AgentJob((str(link),), folder, "", tmp_path / "scratch", 60.0))
    assert came.output == "found beside it", came


# Its end


def test_an_agent_that_never_ends_is_ended_and_its_edit_stays(desk: Desk) -> None:
    came = desk.run("""
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open("train.py", "w").write("RATE = 2\\n")
        print("thinking", flush=True)
        time.sleep(60)
        """, seconds=0.5)  # fmt: skip
    assert (came.why, came.output) == ("after 0.5 s", "thinking")
    assert came.seconds < 10.0
    assert (desk.tree / "train.py").read_text() == "RATE = 2\n"


def test_an_agent_that_prints_without_end_is_ended_in_bounded_memory(desk: Desk) -> None:
    came = desk.run("while True: print('yes ' * 5000)", output_limit_mb=8)
    assert came.why == "because it printed more than 8 MiB"
    assert len(came.output) <= 4000


def test_daemons_of_an_agent_end_with_it(desk: Desk) -> None:
    seconds = f"47.{secrets.randbelow(10**9)}"  # its number is another outside than inside
    came = desk.run(f"""
        import os
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 3)
                os.execve("/bin/sleep", ["sleep", "{seconds}"], {{}})
            os._exit(0)
        os.wait()
        print("on its way")
        """)  # fmt: skip
    assert (came.exit_status, came.output) == (0, "on its way")
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert seconds not in listed


def test_a_storm_of_processes_is_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "PROCESS_LIMIT", 30)
    came = desk.run("""
        import os, time
        for _ in range(60):
            if os.fork() == 0:
                time.sleep(60)
        time.sleep(60)
        """, seconds=20.0)  # fmt: skip
    assert re.fullmatch(r"because it ran \d+ processes at a time; the limit is 30", came.why)


def test_an_agent_that_takes_the_memory_of_training_is_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr(agent_module, "MEMORY_LEAST_MB", 100)
    came = desk.run("""
        import time
        held = []
        while len(held) < 100:
            held.append(b"x" * 2**22)
            time.sleep(0.02)
        """)  # fmt: skip
    assert re.fullmatch(r"because it used 1\d\d MiB of memory; the limit is 100 MiB", came.why)


def test_an_agent_may_hold_a_share_of_the_machine_and_enough_for_itself_on_a_small_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    total_mb = psutil.virtual_memory().total / 2**20
    assert agent_module.memory_limit_mb() == max(2048, total_mb / 4)
    monkeypatch.setattr(agent_module, "MEMORY_SHARE", 0.0)
    assert agent_module.memory_limit_mb() == 2048


def test_what_an_agent_keeps_in_memory_files_is_bounded_in_a_sandbox(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not desk.runner.confined:
        pytest.skip("without a sandbox they are the machine's")
    monkeypatch.setattr(agent_module, "TMP_LIMIT_MB", 8)
    monkeypatch.setattr(agent_module, "SHM_LIMIT_MB", 4)
    came = desk.run("""
        import os
        for place in ("/tmp", "/dev/shm"):
            said = os.statvfs(place)
            print(place, said.f_blocks * said.f_frsize // 2**20)
        """)  # fmt: skip
    assert came.output.splitlines() == ["/tmp 8", "/dev/shm 4"]


def test_a_file_without_end_is_cut_in_a_sandbox_and_what_fills_the_disk_ends_the_agent(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "FILE_LIMIT_MB", 16)
    monkeypatch.setattr(agent_module, "DISK_LIMIT_MB", 48)
    came = desk.run("""
        import time
        block = b"x" * 2**20
        for number in range(100):
            try:
                with open(f"fill-{number}", "wb") as file:
                    for _ in range(20):
                        file.write(block)
            except OSError as error:
                print(error.strerror, flush=True)
        time.sleep(60)
        """, seconds=20.0)  # fmt: skip
    assert came.why == "because it wrote more than 48 MiB"
    assert ("File too large" in came.output) == desk.runner.confined


def test_closing_ends_what_runs_and_nothing_starts_after_it(desk: Desk) -> None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            desk.run("import time; open('begun', 'w').close(); time.sleep(60)")
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until = time.monotonic() + 20
    while not (desk.tree / "begun").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    desk.runner.close()
    thread.join(10)
    assert isinstance(caught[0], Stopped)
    with pytest.raises(Stopped):
        desk.run("print('never')")


def test_a_home_folder_that_nobody_could_remove_is_removed(desk: Desk) -> None:
    if not desk.runner.confined:
        pytest.skip("without a sandbox there is no private home folder")
    came = desk.run("""
        import os
        os.chdir(os.path.expanduser("~"))
        for _ in range(1500):
            os.mkdir("d" * 100)
            os.chdir("d" * 100)
        os.chmod(os.path.expanduser("~"), 0)
        """)  # fmt: skip
    assert came.exit_status == 0, came
