"""Whole campaigns with and without a sandbox: what a candidate can reach, and that nothing is lost when it tries."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from repo import Repo
from runner_bench import SCORER, Bench

from pytest_autoresearch.runners.local import LocalRunner
from pytest_autoresearch.sandboxes.base import Backend, View
from pytest_autoresearch.sandboxes.select import find

pytestmark = [
    pytest.mark.attack,
    pytest.mark.skipif(
        shutil.which("bwrap") is None and "CI" not in os.environ,
        reason="bubblewrap is not installed: type `apt install bubblewrap`",
    ),
]

ATTACK = """do:
import socket
def tries(name, attempt):
    try: attempt()
    except BaseException: return
    print(f"METRIC {{name}}=1")
def key():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try: text = open(f"/proc/{{pid}}/environ", errors="replace").read()
        except OSError: continue
        if "sk-very" + "-secret" in text: return
    raise KeyError
tries("reads_key", key)
tries("reads_history", lambda: open("{root}/.git/HEAD").read())
tries("writes_results", lambda: open("{root}/results.tsv", "a").write("fake\\t0.1\\n"))
tries("writes_rule", lambda: open("{root}/experiments/test_val_bpb.py", "a").write("# mine\\n"))
tries("writes_home", lambda: open(os.path.join("{home}", "left-behind"), "w").write("x"))
tries("connects", lambda: socket.create_connection(("127.0.0.1", {port}), 2).close())
tries("kills_outside", lambda: os.kill({victim}, 0))
tries("writes_out", lambda: open(os.environ["AUTORESEARCH_OUT"] + "/x", "w").write("x"))
block(0.9)
"""
HARMLESS = {"writes_out"}
HARMFUL = {"reads_key", "reads_history", "writes_results", "writes_rule", "writes_home", "connects", "kills_outside"}


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def reached(repo: Repo, home: Path) -> set[str]:
    """What it did; inside, a write may seem to succeed and go nowhere."""
    said = {name for name in repo.records()[1].runs[0].metrics if name in HARMFUL | HARMLESS}
    written = {
        "writes_results": any(row[0] == "fake" for row in repo.rows()),
        "writes_rule": "# mine" in (repo.path / "experiments" / "test_val_bpb.py").read_text(),
        "writes_home": (home / "left-behind").exists(),
    }
    return (said - written.keys()) | {name for name, done in written.items() if done}


@pytest.mark.parametrize(("policy", "reach"), [("off", HARMFUL | HARMLESS), ("require", HARMLESS)])
def test_a_sandboxed_candidate_reaches_nothing_but_its_out_folder(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, port: int, policy: str, reach: set[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-very-secret")
    attack = ATTACK.format(root=repo.path, home=tmp_path, port=port, victim=os.getpid())
    repo.plan(attack, 0.8)
    result = repo.spawn("--max", "1", "--autoresearch-sandbox", policy)  # whose environment has the key
    assert reached(repo, tmp_path) == reach, result.stdout.str()
    said = repo.records()[1].setting.sandbox
    assert said == ("bubblewrap" if policy == "require" else "none (switched off)")
    result.stdout.fnmatch_lines([f"  sandbox:  {said}*"])
    if policy == "require":
        repo.run("--max", "1", "--autoresearch-sandbox", policy)
        assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}
        repo.check_ledger()


def test_a_baseline_that_needs_what_the_sandbox_hides_is_told_where_to_name_it(repo: Repo, tmp_path: Path) -> None:
    corpus = tmp_path.parent / f"{tmp_path.name}-corpus"
    corpus.write_text("text")
    action = f"do:open({str(corpus)!r}); print('val_bpb: 1.0')"
    repo.write("train.py", (repo.path / "train.py").read_text().replace('"1.0"', repr(action)))
    repo.commit("It reads a file that lies elsewhere")
    result = repo.run("--max", "1", "--autoresearch-sandbox", "require")
    hint = f"the sandbox does not show {corpus}: write `autoresearch_readable = {corpus}` in pytest.ini"
    result.stdout.fnmatch_lines([f"crash: exit 1: FileNotFoundError*{corpus}*", hint])
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + f"autoresearch_readable = {corpus}\n")
    repo.commit("It is named")
    result = repo.run("--max", "1", "--autoresearch-sandbox", "require")
    assert repo.statuses()[0] == "keep"
    result.stdout.no_fnmatch_line("*the sandbox does not show*")


def test_a_run_may_write_beside_its_script_and_the_next_run_sees_none_of_it(repo: Repo) -> None:
    action = "do:import pathlib; here = pathlib.Path('.'); seen = len(list(here.rglob('*')));" + (
        "(here / 'runs').mkdir(); (here / 'runs/model.ckpt').write_text('weights'); (here / 'train.py').write_text('');"
    )
    for code in ("os.setxattr('.', 'user.left', b'weights')", "open('.git', 'w').write('gitdir: /tmp/mine')"):
        action += f"\ntry: {code}\nexcept OSError: pass\n"
    action += "\nprint('METRIC left=%d' % ('user.left' in os.listxattr('.')))\n"
    action = action.replace("seen = ", "before = 'user.left' in os.listxattr('.'); seen = ")
    action += "print('METRIC before=%d' % before); print('METRIC git=%d' % ('mine' in open('.git').read()))\n"
    action += "print('METRIC seen=%d' % seen); print('val_bpb: 1.0')"
    repo.write("train.py", (repo.path / "train.py").read_text().replace('"1.0"', repr(action)))
    repo.commit("It leaves files beside itself")
    result = repo.run("--max", "0", "--autoresearch-sandbox", "require", "--autoresearch-confirm", "standard")
    runs = repo.records()[0].runs
    assert len(runs) > 1, result.stdout.str()
    assert len({run.metrics["seen"] for run in runs}) == 1
    assert {run.metrics["git"] for run in runs} == {0}
    assert {run.metrics["before"] for run in runs} == {0}
    assert "runs" not in repo.git("status", "--short")


@pytest.fixture(scope="module")
def bubblewrap(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return find("require", View(tmp_path_factory.mktemp("view"), {"PATH": os.environ["PATH"]})).backend


def test_a_sandboxed_run_keeps_its_clock_its_rows_and_its_exit_status(tmp_path: Path, bubblewrap: Backend) -> None:
    bench = Bench(tmp_path, LocalRunner(sandbox=bubblewrap))
    (tmp_path / "rows").write_bytes(b"rows")
    begin = """
        import os, socket, sys
        from contract import leave
        parent = socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"]))
        parent.sendall(b"begin\\n")
        _, (rows,), _, _ = socket.recv_fds(parent, 16, 4)
        assert os.read(rows, 9) == b"rows"
        leave("1.5")
        """
    try:
        run = bench.runner.run(replace(bench.job(begin, scorer=SCORER), rows=tmp_path / "rows"), lambda progress: None)
        assert (run.metric, run.exit_status) == (1.5, 0), run
        run = bench.run("import os; os.kill(os.getpid(), 9)")
        assert (run.exit_status, run.crash and run.crash.reason) == (-9, "signal 9")
        run = bench.run("raise ValueError('no')")
        assert (run.exit_status, run.crash and run.crash.reason) == (1, "exit 1")
    finally:
        bench.runner.close()


def test_the_scorer_can_start_its_own_process_in_a_sandbox(tmp_path: Path, bubblewrap: Backend) -> None:
    bench = Bench(tmp_path, LocalRunner(sandbox=bubblewrap))
    secret = tmp_path / "validation"
    secret.write_text("text")
    scorer = f"""
        import json, os, subprocess, sys
        prefix, fds = (json.loads(os.environ["AUTORESEARCH_SERVER_" + name]) for name in ("PREFIX", "FDS"))
        look = "import sys; from os.path import exists; print('seen', *map(exists, sys.argv[1:]))"
        for _ in range(2):
            for fd in fds:
                os.lseek(fd, 0, 0)
            model = os.environ["AUTORESEARCH_OUT"] + "/model.pt"
            command = [*prefix, sys.executable, "-c", look, {str(secret)!r}, model]
            print(subprocess.run(command, pass_fds=fds, capture_output=True, text=True, check=True).stdout)
        variables = dict(one.split("=", 1) for one in json.loads(os.environ["AUTORESEARCH_SERVER_VARIABLES"]))
        assert variables["HOME"] == "/tmp/home", variables
        print("val_bpb: 1.5")
        """
    try:
        job = bench.job("from contract import *; begin(); leave('1.5')", scorer=scorer)
        run = bench.runner.run(job, lambda progress: None)
        assert run.metric == 1.5, job.log.read_text()
        assert job.log.read_text().count("seen False True") == 2
    finally:
        bench.runner.close()
