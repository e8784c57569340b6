"""Whole campaigns with an agent that has a command line: a script here, which edits as a real one would."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from repo import Repo

from pytest_autoresearch.core.experiment import BASELINE, Usage

pytestmark = pytest.mark.timeout(120)
BOXED = pytest.mark.skipif(
    shutil.which("bwrap") is None and "CI" not in os.environ,
    reason="bubblewrap is not installed: type `apt install bubblewrap`",
)
POLICIES = ["off", pytest.param("require", marks=BOXED)]

# What every script begins with.
USUAL = """
import json, os, sys, time

NUMBER = int(os.environ["AUTORESEARCH_NUMBER"])
PROMPT = sys.stdin.read()


def act(action):
    lines = open("train.py").read().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("ACTION"))
    lines[at] = f"ACTION = {action!r}"
    open("train.py", "w").write("\\n".join(lines) + "\\n")


def describe(**answer):
    json.dump(answer, open("proposal.json", "w"))
"""
REACH = """
import socket
def tries(name, attempt):
    try: attempt()
    except BaseException: return
    reached.append(name)
reached = []
tries("history", lambda: open("{root}/.git/HEAD").read())
tries("results", lambda: open("{root}/results.tsv").read())
tries("rule", lambda: open("{root}/experiments/test_val_bpb.py").read())
tries("home", lambda: open("{home}/.ssh/id").read())
tries("key", lambda: os.environ["ANTHROPIC_API_KEY"])
tries("its key", lambda: os.environ["ACME_KEY"])
tries("its files", lambda: open(os.path.expanduser("~/.acme/token"), "a").write("refreshed"))
tries("network", lambda: socket.create_connection(("127.0.0.1", {port}), 2).close())
tries("writes", lambda: open("{root}/mine", "w").close() or open("{root}/program.md").close())
act("0.9")
print(", ".join(reached))
"""


def agent(repo: Repo, script: str) -> str:
    """An agent that is a script outside the repository, as an option's value."""
    path = repo.path.parent / f"{repo.path.name}-tools" / "agent"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable} -S\n{USUAL}\n{dedent(script)}")
    path.chmod(0o755)
    return f"command:{path}"


def proposing(repo: Repo, script: str, policy: str = "off") -> tuple[str, ...]:
    given = ("--autoresearch-proposer", agent(repo, script), "--autoresearch-sandbox", policy)
    return (*given, "--autoresearch-lanes", "1")  # what an agent does goes by the number


def agents_left(repo: Repo) -> list[str]:
    """Processes that work in a lane, and what was made for an agent."""
    left = [str(path) for path in (repo.path / ".git/autoresearch").glob("lane-*-agent")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd").startswith(str(repo.path / ".git/autoresearch")):
                left.append((process / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return left


@pytest.mark.parametrize("policy", POLICIES)
def test_what_an_agent_edits_is_tried_and_kept(repo: Repo, policy: str) -> None:
    before = repo.checkout_hash()
    script = """
        assert "Lower val_bpb." in PROMPT and "train.py" in PROMPT
        act(f"{1 - NUMBER / 10}")
        os.makedirs(".agent"); open(".agent/chat", "w").write(PROMPT)
        describe(description=f"step {NUMBER}", hypothesis="it goes down", cost_usd=0.5)
        """
    output = repo.run("--max", "2", *proposing(repo, script, policy)).stdout.str()
    assert repo.checkout_hash() == before
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}, output
    proposal = repo.records()[2].proposal
    assert (proposal.description, proposal.hypothesis) == ("step 2", "it goes down")
    assert (proposal.proposer, proposal.source) == ("command", "agent")
    assert repo.records()[2].usage == Usage("agent", requests=1, cost_usd=0.5)
    assert repo.git("diff", "--stat", "main", "autoresearch/t").splitlines()[0].split()[0] == "train.py"
    assert "tools/agent" in next(line for line in output.splitlines() if "proposer:" in line)
    assert agents_left(repo) == []
    repo.check_ledger()


@pytest.mark.parametrize(
    ("policy", "reach"),
    [
        ("off", "history, results, rule, home, its key, its files, network, writes"),
        pytest.param("require", "its key, its files, network", marks=BOXED),
    ],
)
def test_an_agent_reaches_what_it_needs_and_in_a_sandbox_nothing_else(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, reach: str
) -> None:
    home = tmp_path / "ada"
    for name in (".ssh/id", ".acme/token"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text("x")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-very-secret")
    monkeypatch.setenv("ACME_KEY", "sk-acme")
    ini = "autoresearch_agent_files = ~/.acme\nautoresearch_agent_environment = ACME_*\n"
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + ini)
    repo.commit("What the agent needs")
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = REACH.format(root=repo.path, home=home, port=server.getsockname()[1])
        result = repo.run("--max", "1", *proposing(repo, script, policy))
    assert repo.statuses() == {0: "keep", 1: "keep"}, result.stdout.str()
    assert repo.records()[1].proposal.description == reach
    assert (repo.path / "mine").exists() == (policy == "off")
    assert (home / ".acme/token").read_text() == "xrefreshed"


def test_a_crash_goes_back_to_the_agent_with_its_edit(repo: Repo) -> None:
    script = """
        if "Your proposal for experiment 0001 crashed" in PROMPT:
            assert "the tensor is sad" in PROMPT and "ACTION = 'crash'" in open("train.py").read()
            act("0.9"); print("put right")
        else:
            act("crash"); print("brave")
        """
    result = repo.run("--max", "1", *proposing(repo, script))
    assert repo.statuses() == {0: "keep", 1: "keep"}, result.stdout.str()
    record = repo.records()[1]
    assert record.proposal.description == "put right"
    assert [repair.crash.reason for repair in record.repairs] == ["exit 1"]
    assert record.usage.requests == 2


def test_a_refused_edit_goes_back_and_what_it_leaves_is_given_up(repo: Repo) -> None:
    script = """
        if "Your proposal for experiment 0001" not in PROMPT:
            act("0.9"); open("program.md", "a").write("Let me win.")
        """
    result = repo.run("--max", "1", *proposing(repo, script))
    assert repo.statuses() == {0: "keep", 1: "keep"}, result.stdout.str()
    assert "Let me win" not in (repo.path / "program.md").read_text()
    script = """
        if "Your proposal for experiment 0002" not in PROMPT:
            open("train.py", "a").write("(")
        """
    repo.run("--max", "1", *proposing(repo, script))
    assert repo.reasons()[2] == "syntax"


def test_an_agent_that_does_nothing_any_more_ends_the_session_and_is_no_crash(repo: Repo) -> None:
    script = "act('0.9') if NUMBER == 1 else print('What now?')"
    result = repo.run("--max", "9", "--autoresearch-wait-hours", "0.0005", *proposing(repo, script))
    assert repo.reasons() == {0: "baseline", 1: "improved"}, result.stdout.str()
    result.stdout.fnmatch_lines(
        ["ended: `agent` changed nothing; last output: What now?; no edit for longer than --autoresearch-wait-hours *"]
    )
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    repo.check_ledger()


LIMITED = """
    if NUMBER == 2 and not os.path.exists({mark!r}):
        open({mark!r}, "w").write(str(int(time.time()) + 2))
    if NUMBER == 2 and time.time() < int(open({mark!r}).read()):
        print("Claude AI usage limit reached|" + open({mark!r}).read())
        sys.exit({status})
    act(f"{{1 - NUMBER / 10}}"); print("step", NUMBER)
    """


@pytest.mark.parametrize("status", [0, 1])
def test_a_limit_is_waited_for_and_leaves_no_trace_in_the_results(repo: Repo, status: int) -> None:
    script = LIMITED.format(mark=f"{repo.path}-limited", status=status)
    output = repo.run("--max", "3", *proposing(repo, script)).stdout.str()
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep", 3: "keep"}, output
    assert "0002: `agent` is at its limit: Claude AI usage limit reached|" in output
    assert "asking it again at " in output
    assert repo.records()[2].usage.requests == 2
    assert repo.records()[2].repairs == ()
    repo.check_ledger()


def test_a_second_agent_goes_on_while_the_first_is_at_its_limit(repo: Repo) -> None:
    first = agent(repo, "act('0.9') if NUMBER == 1 else print('limit reached, resets in 3 hours')")
    second = repo.path.parent / f"{repo.path.name}-tools" / "second"
    second.write_text(f"#!{sys.executable} -S\n{USUAL}\nact(f'{{1 - NUMBER / 10}}')\n")
    second.chmod(0o755)
    options = ("--autoresearch-sandbox", "off", "--autoresearch-lanes", "1")
    proposer = ("--autoresearch-proposer", f"{first} || command:{second}")
    output = repo.run("--max", "3", *proposer, *options).stdout.str()
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep", 3: "keep"}, output
    assert [record.proposal.source for record in repo.records()] == ["", "agent", "second", "second"]
    assert f"tools/agent || {second}" in next(line for line in output.splitlines() if "proposer:" in line)


def without_hooks(repo: Repo) -> Repo:
    """An agent makes its first proposal before the baseline only if no hook of the user proposes."""
    repo.write("conftest.py", "")
    repo.commit("No hooks")
    return repo


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "print('Please run /login')",
            "`agent` changed nothing, and has not changed a file in this session; *Please run",
        ),
        (
            "print('pyenv: agent: command not found'); sys.exit(127)",
            "`agent` could not be started; *pyenv: agent: comm",
        ),
    ],
)
def test_an_agent_that_does_not_work_is_found_before_the_baseline_is_trained(
    repo: Repo, script: str, said: str
) -> None:
    result = without_hooks(repo).run("--max", "9", *proposing(repo, script))
    assert repo.records() == []
    assert not list((repo.path / "experiments/runs").rglob("train.log"))
    result.stdout.fnmatch_lines([f"ended: {said}*: run it by hand in a terminal first*"])
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR


@pytest.mark.parametrize("policy", POLICIES)
def test_the_proposal_made_before_the_baseline_is_the_first_experiment(repo: Repo, policy: str) -> None:
    script = """
        act(f"{1 - NUMBER / 10}")
        describe(description=f"step {NUMBER}", cost_usd=0.4)
        """
    output = (
        without_hooks(repo).run("--max", "9", "--autoresearch-cost", "1", *proposing(repo, script, policy)).stdout.str()
    )
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "keep"}, output
    assert [record.usage.requests for record in repo.records()] == [0, 1, 1]
    assert [record.proposal.description for record in repo.records()] == ["baseline", "step 1", "step 2"]
    assert "ended: $0.80 of $1.00 is spent by the agent's own account" in output
    assert "at most $1.00 by its own account" in output
    runs = repo.path / "experiments/runs/t"
    assert [(runs / name / "agent.log").exists() for name in ("0000", "0001", "0002")] == [False, True, True]
    repo.check_ledger()


def test_an_agent_whose_service_fails_for_a_second_is_started_again(repo: Repo) -> None:
    failing = repo.path.parent / "failing"
    failing.touch()
    script = f"""
        if os.path.exists({str(failing)!r}):
            os.remove({str(failing)!r})
            print("API Error: 529 overloaded")
            sys.exit(1)
        act("0.9"); print("better")
        """
    result = repo.run("--max", "1", *proposing(repo, script))
    assert repo.statuses() == {0: "keep", 1: "keep"}, result.stdout.str()
    result.stdout.fnmatch_lines(
        ["*0001: `agent` ended with status 1 and changed nothing; last output: API Error: 529*"]
    )
    folder = repo.path / "experiments" / "runs" / "t" / "0001"
    assert "529" in (folder / "agent.log").read_text()
    assert (folder / "agent-2.log").read_text() == "better\n"


@pytest.mark.kill
def test_a_signal_ends_the_wait_for_an_agent(repo: Repo) -> None:
    starts = repo.path.parent / "starts"
    script = f"open({str(starts)!r}, 'a').write('.'); print('API Error: 529 overloaded'); sys.exit(1)"
    process = repo.start("--max", "1", *proposing(repo, script))
    repo.wait_for(lambda: starts.exists() and len(starts.read_text()) == 3)
    repo.wait_for(lambda: not agents_left(repo))
    output = repo.end(process, signal.SIGINT)
    assert process.returncode == 2, output
    assert starts.read_text() == "...", "nor is the agent started again"
    assert repo.statuses() == {0: "keep"}


@pytest.mark.kill
def test_a_wait_is_shown_and_a_signal_ends_it(repo: Repo) -> None:
    live = repo.path / "experiments/runs/t/progress.json"
    script = "act('0.9') if NUMBER == 1 else print('limit reached, resets in 3 hours')"
    process = repo.start("--max", "2", *proposing(repo, script))
    repo.wait_for(lambda: live.exists() and '"phase": "waiting until ' in live.read_text())
    assert "for the agent's limit" in live.read_text()
    output = repo.end(process, signal.SIGINT)
    assert process.returncode == 2, output
    assert repo.statuses() == {0: "keep", 1: "keep"}


@pytest.mark.parametrize("policy", POLICIES)
def test_an_agent_has_its_time_and_its_daemons_have_no_more(repo: Repo, policy: str) -> None:
    script = """
        act("0.9"); print("still thinking", flush=True)
        if os.fork() == 0:
            os.setsid()
        time.sleep(60)
        """
    result = repo.run("--max", "1", "--autoresearch-agent-seconds", "1", *proposing(repo, script, policy))
    assert repo.statuses() == {0: "keep", 1: "keep"}, result.stdout.str()
    assert repo.records()[1].proposal.description == "still thinking"
    assert repo.records()[1].timings["propose"] < 8.0
    assert agents_left(repo) == []


@pytest.mark.parametrize("policy", POLICIES)
def test_a_signal_ends_an_agent_and_the_next_session_goes_on(repo: Repo, policy: str) -> None:
    process = repo.start("--max", "2", *proposing(repo, "open('begun', 'w').close(); time.sleep(60)", policy))
    repo.wait_for(lambda: any((repo.path / ".git/autoresearch").glob("lane-*/begun")))
    output = repo.end(process, signal.SIGINT)
    assert process.returncode == 2, output
    assert agents_left(repo) == []
    repo.run("--max", "1", *proposing(repo, "act('0.9')", policy))
    assert repo.statuses() == {BASELINE: "keep", 1: "keep"}
    repo.check_ledger()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("command:", "*command: names no program*"),
        ("command:no-such-agent -p", "*there is no program no-such-agent on PATH*"),
        ("command:agent 'half", "*cannot be split into words*check its quotes*"),
        (f"command:{sys.executable} || true", '*`true` is no second agent: write "command:AGENT || command:AGENT"*'),
        (f"command:{sys.executable} || command:no-such-agent", "*there is no program no-such-agent on PATH*"),
    ],
)
def test_a_command_that_starts_nothing_is_told_before_anything_is_touched(
    repo: Repo, given: str, sentence: str
) -> None:
    result = repo.run("--max", "1", "--autoresearch-proposer", given)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([sentence])
    assert repo.records() == []
