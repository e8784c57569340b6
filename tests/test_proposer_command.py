"""An agent with a command line as a proposer: real scripts in a real lane's tree, with what they leave there."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from places import Place, git, refusal

from pytest_autoresearch.campaign.session_clock import SessionClock
from pytest_autoresearch.core.agent_job import AgentJob, Finished
from pytest_autoresearch.core.errors import ProposerError, Refused, Spent, Stopped, UserError
from pytest_autoresearch.core.experiment import Proposal, Usage
from pytest_autoresearch.proposers import agents
from pytest_autoresearch.proposers.agent_command import check, shared
from pytest_autoresearch.proposers.agent_start import AgentCosts
from pytest_autoresearch.proposers.agent_turns import AgentTurns
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.proposers.command import CommandProposer
from pytest_autoresearch.runners.agent import AgentRunner
from pytest_autoresearch.sandboxes.base import View
from pytest_autoresearch.sandboxes.bubblewrap import installed
from pytest_autoresearch.sandboxes.selftest import try_out
from pytest_autoresearch.source import guard
from pytest_autoresearch.source.editable import Editable

START = datetime(2026, 12, 1, 22, 0, tzinfo=UTC)
EDIT = "open('train.py', 'a').write('RATE = 2\\n')\n"


class Heard:
    """A session that remembers."""

    def __init__(self) -> None:
        self.usage: list[Usage] = []
        self.said: list[str] = []
        self.waits: list[str] = []
        self.notes: list[str] = []
        self.kept: dict[str, str] = {}
        self.memory: Any = None

    def spent(self, usage: Usage) -> None:
        self.usage.append(usage)

    def say(self, text: str) -> None:
        self.said.append(text)

    def heard(self, messages: Sequence[str]) -> None: ...

    def wait_for(self, what: str) -> None:
        self.waits.append(what)

    def keep(self, name: str, text: str) -> None:
        self.kept[name] = text

    def note(self, text: str) -> None:
        self.notes.append(text)

    def look(self, number: int) -> str:
        return ""


class Lane:
    """A lane's tree and a proposer whose agent is a script that can be changed."""

    def __init__(self, path: Path) -> None:
        self.place = Place(path / "repo")
        (self.place.path / "harness.py").write_text("TRUTH = 1\n")
        git(self.place.path, "add", "-A")
        git(self.place.path, "commit", "-qm", "A harness")
        self.base = git(self.place.path, "rev-parse", "HEAD")
        self.tree = self.place.ratchet().worktree(0)
        self.tree.reset(self.base)
        self.agent = path / "agent"
        self.session = Heard()
        self.runner = AgentRunner()
        self.editable = Editable(("train.py", "layers/**"))
        self.prompts: list[str] = []
        self.came: list[Finished] = []
        self.pauses: list[float] = []
        self.others: list[Path] = []
        self.recover = ""  # what the agent is after the first pause
        self.proposer = self.made()

    def made(self, wait_hours: float = 1.0, **given: Any) -> AgentTurns:
        """A proposer of the lane's agent; its clock goes on only in pauses."""
        usual: dict[str, Any] = {
            "seconds": 20.0, "confined": self.runner.confined, "pause": self.pause, "now": self.now, **given,
        }  # fmt: skip
        agents = [CommandProposer((str(path),), self.run, **usual) for path in (self.agent, *self.others)]
        return AgentTurns(agents, wait_hours, usual["pause"], self.now)

    def now(self) -> datetime:
        return START + timedelta(seconds=sum(self.pauses))

    def run(self, job: AgentJob) -> Finished:
        self.prompts.append(job.prompt)
        ended = self.runner.run(job)
        self.came.append(replace(ended, why="after 900 s") if "STOPPED" in ended.output else ended)
        return self.came[-1]

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if self.recover:
            self.script(self.recover)

    def script(self, text: str) -> None:
        self.agent.write_text(f"#!{sys.executable} -S\nimport json, os, sys, time\n{dedent(text)}")
        self.agent.chmod(0o755)

    def context(self, number: int = 1) -> Context:
        return Context(
            number, self.tree.folder, self.editable, "Lower it.", (), (), self.place.path, self.place.path,
            session=self.session,
        )  # fmt: skip

    def propose(self, script: str, number: int = 1) -> Proposal | None:
        self.script(script)
        self.tree.reset(self.base)
        return self.proposer.propose(self.context(number))

    def repair(self, script: str, failure: str, number: int = 1, *, near_duplicate: bool = False) -> Proposal | None:
        self.script(script)
        self.tree.reset(self.base)
        why = replace(refusal(failure), near_duplicate=near_duplicate)
        return self.proposer.repair(self.context(number), Proposal("more of it"), why)

    def works(self) -> None:
        """Let the agent make its first edit in this session."""
        self.propose(EDIT, 0)
        for told in (self.prompts, self.came, self.session.usage):
            told.clear()  # type: ignore[attr-defined]
        self.session.kept.clear()

    def useless(self, script: str, number: int = 1) -> str:
        with pytest.raises(ProposerError) as caught:
            self.propose(script, number)
        return str(caught.value)

    def refused(self, script: str, number: int = 1) -> Refused:
        with pytest.raises(Refused) as caught:
            self.propose(script, number)
        return caught.value

    def changed(self) -> dict[str, str]:
        return {change.path: change.kind for change in self.tree.changes(self.base)}

    def guarded(self) -> str:
        """What the guard says of the tree; empty where it takes it."""
        try:
            guard.check_changes(Proposal("x"), self.tree.changes(self.base), self.editable)
        except Refused as error:
            return str(error)
        return ""

    def text(self) -> str:
        return (self.tree.folder / "train.py").read_text()


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    return Lane(tmp_path)


@pytest.fixture(params=["none", "bubblewrap"])
def either(lane: Lane, request: pytest.FixtureRequest) -> Lane:
    """The lane, without a sandbox and with one."""
    if request.param == "bubblewrap":
        backend = installed()
        if backend is None or try_out(backend, View(Path("/"), {"PATH": os.environ["PATH"]})).failed:
            pytest.skip("bubblewrap does not work here: type `apt install bubblewrap`")
        lane.runner = AgentRunner(backend)
    return lane


# What becomes of its work


def test_an_edit_in_the_tree_is_the_proposal_and_the_file_describes_it(either: Lane) -> None:
    proposal = either.propose(f"""
        assert "Lower it." in sys.stdin.read()
        {EDIT.strip()}
        answer = {{"description": "twice\\nthe rate", "hypothesis": "it learns faster", "expected": "-0.1",
                   "area": "optimizer", "notes": "rate was low", "cost_usd": 0.25, "more": [1]}}
        json.dump(answer, open("proposal.json", "w"))
        print("done")
        """)
    assert proposal == Proposal(
        "twice the rate", "it learns faster", "command", "agent", expected="-0.1", area="optimizer"
    )  # fmt: skip
    assert either.changed() == {"train.py": "M"}
    assert either.session.usage == [Usage("agent", requests=1, cost_usd=0.25)]
    assert either.session.notes == ["rate was low"]
    assert either.session.said == []


@pytest.mark.parametrize(
    ("printed", "description"),
    [
        ("print('Thinking'); print('I doubled the rate.'); print('```'); print()", "I doubled the rate."),
        ("print('\\x1b[1mbold\\x1b[0m\\u200b')", "bold"),
        ("print('x' * 9000)", "x" * 197 + "…"),
        ("pass", "experiment 0007"),
    ],
    ids=["last-line", "escapes", "long", "silent"],
)
def test_without_a_file_the_last_line_describes_the_edit(lane: Lane, printed: str, description: str) -> None:
    proposal = lane.propose(EDIT + printed, number=7)
    assert proposal is not None
    assert proposal.description == description
    assert lane.session.usage == [Usage("agent", requests=1, cost_usd=None)]


@pytest.mark.parametrize(
    "answer",
    [
        "open('proposal.json', 'w').write('{')",
        "open('proposal.json', 'w').write('[' * 60000)",
        "open('proposal.json', 'w').write('[1]')",
        "open('proposal.json', 'w').write('\"description\"')",
        "json.dump({'description': 7, 'cost_usd': 'much', 'notes': None}, open('proposal.json', 'w'))",
        "json.dump({'description': '', 'cost_usd': -1}, open('proposal.json', 'w'))",
        "open('proposal.json', 'w').write('{\"cost_usd\": NaN}')",
        "json.dump({'description': 'y' * 70000}, open('proposal.json', 'w'))",
        "json.dump({'description': 'stolen'}, open('kept', 'w')); os.symlink('kept', 'proposal.json')",
        "os.mkfifo('proposal.json')",
        "os.mkdir('proposal.json')",
        "open('proposal.json', 'wb').write(b'\\xff\\xfe')",
    ],
)
def test_a_description_that_is_none_is_passed_over(lane: Lane, answer: str) -> None:
    proposal = lane.propose(f"{EDIT}{answer}\nprint('said so')")
    assert proposal == Proposal("said so", "", "command", "agent")
    assert lane.changed() == {"train.py": "M"}
    assert lane.session.usage[0].cost_usd is None
    assert not os.path.lexists(lane.tree.folder / "proposal.json")


def test_a_description_is_bounded_and_on_one_line(lane: Lane) -> None:
    proposal = lane.propose(EDIT + "json.dump({'description': 'a\\x1b[31m\\n' * 3000, 'hypothesis': 'b' * 9000},"
                                   "open('proposal.json', 'w'))")  # fmt: skip
    assert proposal is not None
    assert proposal.description == " ".join("a" * 1000)
    assert proposal.hypothesis == "b" * 2000


def test_what_an_agent_leaves_behind_beside_its_edit_goes(either: Lane) -> None:
    either.propose(f"""
        {EDIT.strip()}
        os.makedirs("layers/attention"); open("layers/attention/new.py", "w").write("x = 1")
        os.makedirs(".agent/cache/deep"); open(".agent/cache/deep/chat", "w").write("hello")
        os.makedirs("locked"); open("locked/log", "w").close(); os.chmod("locked", 0)
        os.makedirs("sub/.git"); open("sub/.git/config", "w").close()
        os.symlink("/etc/passwd", "link"); os.mkfifo("fifo")
        import socket; socket.socket(socket.AF_UNIX).bind("socket")
        """)
    assert either.changed() == {"train.py": "M", "layers/attention/new.py": "A"}
    assert sorted(path.name for path in either.tree.folder.iterdir()) == [
        ".git", ".gitignore", "harness.py", "layers", "train.py",
    ]  # fmt: skip
    assert either.guarded() == ""


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("open('harness.py', 'a').write('TRUTH = 2')", "it changes harness.py"),
        ("os.remove('harness.py')", "it changes harness.py"),
        ("os.remove('train.py'); os.symlink('/etc/passwd', 'train.py')", "it changes the kind or the mode of train.py"),
        ("os.remove('train.py'); os.mkfifo('train.py')", "it changes the kind or the mode of train.py"),
        ("os.remove('train.py'); os.mkdir('train.py'); open('train.py/x', 'w').close()", "train.py"),
        ("os.makedirs('layers'); open('layers/big', 'wb').truncate(2**30)", "layers/big has 1,073,741,824 bytes"),
    ],
    ids=["other-file", "other-file-gone", "link", "fifo", "folder", "large"],
)
def test_an_edit_that_strays_is_left_for_the_guard_to_refuse(either: Lane, script: str, why: str) -> None:
    assert either.propose(script + "\nprint('it is better so')") is not None
    assert why in either.guarded()
    either.tree.reset(either.base)
    assert either.changed() == {}


@pytest.mark.parametrize(
    "script",
    [
        "os.remove('.git')",
        "os.remove('.git'); os.mkdir('.git'); open('.git/config', 'w').write('[core]\\nfsmonitor = touch pwned\\n')",
        "os.remove('.git'); os.symlink('/nowhere', '.git')",
        "import subprocess; subprocess.run('git commit -qam mine; git checkout -q -b theirs', shell=True)",
        "import subprocess; subprocess.run('git add -A; git stash -q; git stash apply -q', shell=True)",
        "import subprocess; subprocess.run('git update-index --skip-worktree train.py', shell=True)",
    ],
    ids=["no-git", "own-git", "link", "commits", "stash", "skips"],
)
def test_whatever_an_agent_does_to_git_its_edit_is_what_stands_in_the_tree(either: Lane, script: str) -> None:
    either.propose(EDIT + script)
    assert either.changed() == {"train.py": "M"}
    commit, _ = either.tree.commit(either.base, "an edit")
    assert git(either.place.path, "rev-parse", f"{commit}^") == either.base
    assert git(either.place.path, "show", f"{commit}:train.py").endswith("RATE = 2")
    assert not (either.tree.folder / "pwned").exists()


def test_in_a_subfolder_of_a_repository_the_tree_outside_it_counts_as_well(lane: Lane) -> None:
    top = lane.place.path
    (top / "inner").mkdir()
    (top / "inner" / "train.py").write_text("RATE = 1\n")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "An inner one")
    lane.base = git(top, "rev-parse", "HEAD")
    lane.tree.folder = lane.tree.top / "inner"
    lane.editable = Editable(("**",))
    lane.propose(EDIT + "open('../new', 'w').close(); open('layer.py', 'w').close()")
    assert lane.changed() == {"inner/train.py": "M", "inner/layer.py": "A"}
    lane.propose("open('../train.py', 'w').close()")
    assert lane.changed() == {"train.py": "M"}


# How it ends


def test_an_edit_counts_however_the_agent_ended(lane: Lane) -> None:
    assert lane.propose(EDIT + "print('ran out of tokens'); sys.exit(3)") is not None
    assert lane.session.said == ["`agent` ended with status 3; its edits until then are the proposal"]
    lane.proposer = lane.made(seconds=0.4)
    assert lane.propose(EDIT + "time.sleep(60)") is not None
    assert lane.session.said[1] == "`agent` was stopped after 0.4 s; its edits until then are the proposal"


def test_an_agent_that_uses_all_its_time_without_an_edit_is_a_crash(lane: Lane) -> None:
    lane.works()
    refused = lane.refused("print('STOPPED')")
    assert str(refused) == "`agent` was stopped after 900 s and changed nothing; last output: STOPPED"
    assert refused.crash.reason == "no-proposal"
    assert lane.repair(EDIT, str(refused)) is None, "it is not started again for the same experiment"
    assert (len(lane.prompts), lane.pauses) == (1, [])


def test_three_experiments_in_a_row_without_an_edit_end_the_session(lane: Lane) -> None:
    lane.works()
    idle = "print('STOPPED')"
    for number in (1, 2):
        lane.refused(idle, number)
    lane.propose(EDIT, 3)
    for number in (4, 5):
        lane.refused(idle, number)
    assert lane.useless(idle, 6) == (
        "`agent` changed nothing in 3 experiments in a row; last output: STOPPED: run it by hand in a terminal "
        "first; then rerun the same command"
    )


@pytest.mark.parametrize(
    ("script", "last"),
    [
        ("print('What shall I do?')", "What shall I do?"),
        ("open('train.py', 'a').write('')", "nothing"),
        ("open('chat.log', 'w').write('x')", "nothing"),
    ],
    ids=["asks", "touches", "logs"],
)
def test_an_agent_that_ends_well_without_an_edit_is_started_again_and_nothing_counts(
    lane: Lane, script: str, last: str
) -> None:
    lane.works()
    lane.recover = EDIT + "print('better')"
    assert lane.propose(script) is not None
    assert lane.pauses == [60]
    assert lane.session.said == [f"`agent` changed nothing; last output: {last}; asking it again at 22:01"]
    assert lane.session.waits == ["waiting until 22:01 for the agent", ""]


def test_an_agent_that_never_edits_again_ends_the_session_when_the_wait_does(lane: Lane) -> None:
    lane.proposer = lane.made(wait_hours=0.5)
    lane.works()
    assert lane.useless("print('What now?')") == (
        "`agent` changed nothing; last output: What now?; no edit for longer than --autoresearch-wait-hours 0.5: run "
        "it by hand first; then rerun the same command"
    )
    assert lane.pauses == [60, 120, 240, 480, 900]
    assert len(lane.prompts) == 6


def test_an_agent_that_cannot_be_started_ends_the_session_at_once(lane: Lane) -> None:
    with pytest.raises(ProposerError, match=r"^`agent` could not be started; last output: .*not found: run "):
        lane.proposer.propose(lane.context())


def test_an_edit_that_strays_shows_that_the_agent_works(lane: Lane) -> None:
    lane.proposer = lane.made()
    lane.propose("open('harness.py', 'a').write('x'); sys.exit(1)")
    assert len(lane.prompts) == 1
    lane.recover = EDIT
    assert lane.propose("print('And now?')", 2) is not None


# An agent that has not worked yet


@pytest.mark.parametrize(
    ("script", "starts", "said"),
    [
        (
            "print('Invalid API key · Please run /login'); sys.exit(1)",
            6,
            "ended with status 1 and changed nothing, 6 times",
        ),
        ("print('a\\n\\nb'); sys.exit(2)", 6, "last output: a / b: run it by hand"),
        (
            "raise SystemExit('Raw mode is not supported: needs a TTY')",
            6,
            "last output: Raw mode is not supported: needs",
        ),
        ("import nothing_of_this_name", 6, "No module named 'nothing_of_this_name': run it by hand"),
        ("print('API Error: 529 overloaded'); sys.exit(1)", 6, "last output: API Error: 529 overloaded"),
        (
            "os.kill(os.getpid(), 9)",
            6,
            "ended with status -9 and changed nothing, 6 times in a row; last output: nothing",
        ),
        (
            "print('pyenv: agent: command not found'); sys.exit(127)",
            1,
            "could not be started; last output: pyenv: agent:",
        ),
        (
            "print('Please log in')",
            2,
            "changed nothing, and has not changed a file in this session; last output: Please",
        ),
        ("time.sleep(60)", 1, "was stopped after 2 s and changed nothing, and has not changed a file in this session"),
    ],
    ids=["login", "fails", "tty", "traceback", "overload", "dies", "shim", "asks", "slow"],
)
def test_an_agent_that_never_worked_ends_the_session_within_a_minute_with_its_own_words(
    lane: Lane, script: str, starts: int, said: str
) -> None:
    lane.proposer = lane.made(seconds=2.0)
    assert said in lane.useless(script)
    assert len(lane.prompts) == starts
    assert sum(lane.pauses) <= 60


def test_a_rehearsal_makes_the_first_proposal_and_is_told_to_its_experiment(lane: Lane) -> None:
    lane.script(EDIT + "json.dump({'description': 'early', 'notes': 'n', 'cost_usd': 0.5}, open('proposal.json', 'w'))")
    lane.proposer.rehearse(lane.context())
    assert (lane.session.usage, lane.session.kept, lane.session.notes) == ([], {}, [])
    proposal = lane.propose("sys.exit(1)")
    assert proposal is not None
    assert proposal.description == "early"
    assert lane.changed() == {"train.py": "M"}
    assert (lane.session.usage, lane.session.notes) == ([Usage("agent", requests=1, cost_usd=0.5)], ["n"])
    assert list(lane.session.kept) == ["agent.log"]
    assert lane.repair("open('train.py', 'a').write('X = 1\\n')", "crashed") is not None
    assert "RATE = 2\nX = 1" in lane.text()
    assert lane.propose(EDIT + "print('later')", 2) == Proposal("later", "", "command", "agent")


def test_a_rehearsal_on_other_files_than_those_of_the_head_is_started_again(lane: Lane) -> None:
    lane.script(EDIT)
    lane.proposer.rehearse(lane.context())
    (lane.place.path / "train.py").write_text("RATE = 7\n")
    git(lane.place.path, "commit", "-qam", "Another head")
    lane.base = git(lane.place.path, "rev-parse", "HEAD")
    assert lane.propose(EDIT + "print('again')") == Proposal("again", "", "command", "agent")
    assert lane.text() == "RATE = 7\nRATE = 2\n"


# A bad minute


OVERLOADED = "print('Hello'); print('API Error: 529 overloaded'); sys.exit(1)"


def test_an_agent_whose_service_is_away_is_started_again_after_longer_and_longer_pauses(lane: Lane) -> None:
    lane.proposer = lane.made(wait_hours=2.0)
    lane.works()
    said = lane.useless(OVERLOADED)
    assert lane.pauses[:9] == [1, 2, 4, 8, 16, 60, 120, 240, 480]
    assert lane.pauses[9:-1] == [960, 1800, 1800]
    assert sum(lane.pauses) == 2 * 3600
    assert set(lane.prompts) == {lane.prompts[0]}
    assert lane.session.said[1] == (
        "`agent` ended with status 1 and changed nothing; last output: API Error: 529 overloaded; starting it again "
        "in 2 s"
    )
    assert "no edit for longer than --autoresearch-wait-hours 2" in said
    assert list(lane.session.kept)[:3] == ["agent.log", "agent-2.log", "agent-3.log"]


def test_an_agent_that_recovers_has_lost_nothing(lane: Lane) -> None:
    lane.works()
    lane.recover = EDIT + "print('better')"
    for number in (1, 2, 3, 4):
        proposal = lane.propose("os.mkdir('chat'); " + OVERLOADED, number)
        assert proposal is not None
        assert proposal.description == "better"
        assert lane.changed() == {"train.py": "M"}
    assert lane.pauses == [1, 1, 1, 1], "patience is whole again"


@pytest.mark.parametrize("words", ["Invalid API key", "Traceback: KeyError: 'x'", "needs a TTY"])
def test_a_failure_that_lasts_is_not_waited_for_like_an_overload(lane: Lane, words: str) -> None:
    lane.works()
    assert words in lane.useless(f"print({words!r}); sys.exit(1)")
    assert lane.pauses == [1, 2, 4, 8, 16]


# A limit of its account


@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize("worked", [True, False], ids=["later", "first"])
def test_a_limit_is_waited_for_until_it_ends_and_counts_as_nothing(lane: Lane, status: int, worked: bool) -> None:
    lane.proposer = lane.made(wait_hours=6)
    if worked:
        lane.works()
    lane.recover = EDIT + "print('better')"
    limited = f"print('5-hour limit reached - resets 11pm (UTC)'); sys.exit({status})"
    proposal = lane.propose(limited)
    assert proposal is not None
    assert proposal.description == "better"
    assert lane.pauses == [3602]
    assert lane.session.said == [
        "`agent` is at its limit: 5-hour limit reached - resets 11pm (UTC); asking it again at 23:00"
    ]
    assert lane.session.waits == ["waiting until 23:00 for the agent's limit", ""]


def test_a_limit_without_a_time_is_asked_about_again_and_again(lane: Lane) -> None:
    lane.works()
    assert "no edit for longer than --autoresearch-wait-hours 1" in lane.useless("print('Weekly limit reached')")
    assert lane.pauses == [60, 120, 240, 480, 960, 1740]
    assert lane.session.waits[0] == "waiting until 22:01 for the agent's limit"


def test_a_limit_that_lasts_longer_than_the_user_would_wait_ends_the_session_at_once(lane: Lane) -> None:
    lane.works()
    assert lane.useless("print('limit reached, resets tomorrow at 9am'); sys.exit(1)") == (
        "`agent` is at its limit: limit reached, resets tomorrow at 9am (until Wed 02 Dec 09:00, longer than "
        "--autoresearch-wait-hours 1): rerun the same command then"
    )
    assert lane.pauses == []


def test_a_limit_during_a_repair_is_no_answer(lane: Lane) -> None:
    lane.propose(EDIT)
    lane.recover = "assert 'RATE = 2' in open('train.py').read(); open('train.py', 'a').write('X = 3\\n')"
    assert lane.repair("print('limit reached|1796164200')", "crashed") is not None
    assert lane.text().endswith("RATE = 2\nX = 3\n")
    assert lane.pauses == [1802]


def test_a_limit_before_the_baseline_does_not_keep_the_baseline_from_being_trained(lane: Lane) -> None:
    lane.proposer = lane.made(wait_hours=6)
    lane.script("print('limit reached, resets 11pm'); sys.exit(1)")
    lane.proposer.rehearse(lane.context())
    assert (lane.pauses, len(lane.prompts)) == ([], 1)
    lane.recover = EDIT
    assert lane.propose("raise SystemExit('it is not asked before eleven')") is not None
    assert lane.pauses == [3602]


def test_a_second_agent_proposes_until_the_limit_of_the_first_ends(lane: Lane) -> None:
    second = lane.agent.with_name("second")
    second.write_text(f"#!{sys.executable} -S\n{EDIT}print('from the second')")
    second.chmod(0o755)
    lane.others = [second]
    lane.proposer = lane.made()
    lane.works()
    limited = "print('limit reached, resets 10:30pm (UTC)')"
    for number in (1, 2):
        proposal = lane.propose(limited, number)
        assert proposal is not None
        assert (proposal.description, proposal.source) == ("from the second", "second")
    assert len(lane.prompts) == 3, "the first is asked once"
    assert list(lane.session.kept) == ["agent.log", "agent-2.log"]
    lane.pauses.append(1900.0)
    proposal = lane.propose(EDIT + "print('from the first')", 3)
    assert proposal is not None
    assert proposal.description == "from the first"
    second.write_text(f"#!{sys.executable} -S\nraise SystemExit('Please log in')")
    lane.recover = EDIT + "print('first again')"
    proposal = lane.propose("print('limit reached, resets in 5 minutes')", 4)
    assert proposal is not None
    assert proposal.description == "first again"
    assert any("Please log in" in said and "go on without it" in said for said in lane.session.said)


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        ("API Error: 529 overloaded_error", True), ("HTTP 429 Too Many Requests", True), ("rate_limit_exceeded", True),
        ("request timed out", True), ("connect ECONNREFUSED 127.0.0.1:443", True), ("getaddrinfo EAI_AGAIN api", True),
        ("503 Service Unavailable", True), ("Network error", True), ("5-hour limit reached ∙ resets 3pm", False),
        ("Not logged in", False), ("stdin is not a TTY", False), ("exceeded 5290 tokens", False), ("", False),
    ],
)  # fmt: skip
def test_words_that_tell_of_trouble_that_passes(words: str, passes: bool) -> None:
    assert agents.may_pass(words) is passes


def test_a_repair_waits_with_the_edit_that_failed_and_does_not_take_it_for_meant(lane: Lane) -> None:
    lane.proposer = lane.made(wait_hours=0.01)
    lane.propose(EDIT)
    nearly = 'it is nearly what was tried as 0001, "more of it" (discard)'
    with pytest.raises(ProposerError, match="no edit for longer than --autoresearch-wait-hours"):
        lane.repair(OVERLOADED, nearly, near_duplicate=True)
    assert lane.pauses == [1, 2, 4, 8, 16, 5]
    lane.proposer = lane.made()
    lane.recover = "assert 'RATE = 2' in open('train.py').read(); print('I mean it')"
    lane.propose(EDIT)
    assert lane.repair(OVERLOADED, nearly, near_duplicate=True) is not None
    assert lane.changed() == {"train.py": "M"}
    assert lane.pauses[6:] == [1]


def test_a_session_that_ends_does_not_wait_for_an_agent(lane: Lane) -> None:
    clock = SessionClock(None)

    def pause(seconds: float) -> None:
        lane.pause(seconds)
        threading.Timer(0.05, clock.close).start()
        clock.wait(60.0)

    lane.proposer = lane.made(pause=pause)
    with pytest.raises(Stopped):  # and not what comes after the minute
        lane.propose(OVERLOADED)
    assert lane.pauses == [1]


def test_the_hours_of_a_session_end_an_agent_that_has_made_no_edit(lane: Lane) -> None:
    clock = SessionClock(1.0 / 3600)
    lane.proposer = lane.made(pause=clock.wait, left=clock.left, check=clock.check)
    with pytest.raises(Spent, match="hours are over"):
        lane.propose("time.sleep(60)")


# What it costs


@pytest.mark.parametrize(
    ("script", "cost", "description"),
    [
        ("json.dump({'total_cost_usd': 0.25}, open('proposal.json', 'w')); print('done')", 0.25, "done"),
        ("print(json.dumps({'type': 'result', 'result': 'I\\ndid it', 'total_cost_usd': 0.5}))", 0.5, "did it"),
        ("print(json.dumps({'result': 'x' * 9000, 'total_cost_usd': 0.5}))", 0.5, "experiment 0001"),
        ("print('\"total_cost_usd\": 1e99'); print('so')", None, "so"),
    ],
)
def test_the_cost_that_an_agent_reports_is_counted(
    lane: Lane, script: str, cost: float | None, description: str
) -> None:
    proposal = lane.propose(EDIT + script)
    assert proposal is not None
    assert proposal.description == description
    assert lane.session.usage == [Usage("agent", requests=1, cost_usd=cost)]


def test_an_agent_is_not_started_where_another_start_could_exceed_the_limit(lane: Lane) -> None:
    lane.proposer = lane.made(costs=AgentCosts(1.0))
    for number, cost in ((1, 0.2), (2, 0.4)):
        lane.propose(EDIT + f"json.dump({{'cost_usd': {cost}}}, open('proposal.json', 'w'))", number)
    lane.propose(EDIT, 3)
    lane.propose(EDIT + "json.dump({'cost_usd': 0.1}, open('proposal.json', 'w'))", 4)
    with pytest.raises(Spent, match=r"^\$0\.70 of \$1\.00 is spent by the agent's own account"):
        lane.propose(EDIT, 5)


# Repairs


def test_the_log_of_every_start_is_kept(lane: Lane) -> None:
    lane.propose(EDIT + "print('first')")
    lane.repair(EDIT + "print('second')", "crashed")
    lane.repair(EDIT + "print('third')", "crashed")
    assert lane.session.kept == {"agent.log": "first\n", "agent-2.log": "second\n", "agent-3.log": "third\n"}
    lane.propose(EDIT + "print('fourth')", number=2)
    assert lane.session.kept["agent.log"] == "fourth\n"


def test_a_repair_begins_with_the_edit_that_failed_and_knows_why_it_did(lane: Lane) -> None:
    lane.propose(EDIT + "os.mkdir('layers'); open('layers/a.py', 'w').write('x = (')\nprint('two files')")
    proposal = lane.repair(
        "assert open('layers/a.py').read() == 'x = ('\n"
        "assert 'RATE = 2' in open('train.py').read()\n"
        "open('layers/a.py', 'w').write('x = ()'); print('closed it')",
        "layers/a.py does not parse, line 1: '(' was never closed",
    )
    assert proposal is not None
    assert proposal.description == "closed it"
    assert lane.changed() == {"layers/a.py": "A", "train.py": "M"}
    assert "Your proposal for experiment" not in lane.prompts[0]
    assert "Your proposal for experiment 0001" in lane.prompts[1]
    assert "was never closed" in lane.prompts[1]
    assert "more of it" in lane.prompts[1]
    assert lane.prompts[1].startswith(lane.prompts[0].partition("# The files")[0])


def test_leaving_what_failed_as_it_was_gives_it_up(lane: Lane) -> None:
    lane.propose(EDIT)
    assert lane.repair("print('it is right as it is')", "crashed") is None


def test_leaving_away_what_strayed_is_a_repair(lane: Lane) -> None:
    lane.propose(EDIT + "open('harness.py', 'a').write('TRUTH = 2')")
    assert "it changes harness.py" in lane.guarded()
    assert lane.repair("print('only my own file')", "it changes harness.py") is not None
    assert lane.changed() == {"train.py": "M"}
    assert lane.repair("print('only my own file')", "it fails all the same") is None


@pytest.mark.parametrize(
    "act",
    ["", "os.symlink('/etc/passwd', 'train.py')", "os.mkfifo('train.py')", "open('train.py', 'wb').truncate(2**20)"],
    ids=["deleted", "link", "pipe", "large"],
)
def test_a_file_that_cannot_be_restored_for_a_repair_is_as_the_head_has_it_and_that_is_said(
    lane: Lane, act: str
) -> None:
    """And what can be restored is."""
    lane.propose(f"os.remove('train.py')\n{act}\nos.mkdir('layers'); open('layers/a.py', 'w').write('x = 1')")
    look = "print(open('train.py').read()[:8], os.path.islink('train.py'), open('layers/a.py').read())\n"
    assert lane.repair(look, "it is needed") is None, "unchanged, it is given up"
    assert lane.came[-1].output == "RATE = 1 False x = 1"
    said = " ".join(lane.prompts[-1].split())
    assert "as you left it, except that train.py is as the branch has it, because your edit cannot be" in said
    assert lane.repair("open('train.py', 'w').write('RATE = 3')", "it is needed") is not None
    assert lane.changed() == {"train.py": "M", "layers/a.py": "A"}


def test_a_repair_of_what_somebody_else_proposed_starts_from_the_head(lane: Lane) -> None:
    look = "print('RATE = 2' in open('train.py').read())\n"
    assert lane.repair(look + EDIT, "it does not apply", number=5) is not None
    assert lane.repair(look, "and now?", number=5) is None
    lane.session.memory = None
    assert lane.repair(look, "later", number=5) is None
    assert [came.output for came in lane.came] == ["False", "True", "False"]


def test_a_long_failure_is_shown_with_its_beginning_and_its_end(lane: Lane) -> None:
    lane.propose(EDIT)
    lane.repair("pass", f"begins here {'x' * 100_000} ends here")
    assert "begins here" in lane.prompts[1]
    assert "ends here" in lane.prompts[1]
    assert len(lane.prompts[1]) < len(lane.prompts[0]) + 10_000


def test_large_files_are_not_shown_to_an_agent_that_can_read_them(lane: Lane) -> None:
    (lane.place.path / "train.py").write_text("".join(f"LINE_{n} = {n}\n" for n in range(10_000)))
    git(lane.place.path, "commit", "-qam", "Long")
    lane.base = git(lane.place.path, "rev-parse", "HEAD")
    lane.propose(EDIT)
    assert "LINE_77" not in lane.prompts[0]
    assert "The current versions are in the current folder" in lane.prompts[0]


# The command


def test_a_command_is_split_into_words_and_its_program_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, root = tmp_path / "ada", tmp_path / "repo"
    for path in (home / "bin/agent", root / "tools/agent.sh"):
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    (home / "current").symlink_to("bin")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{home}/current:{os.environ['PATH']}")
    assert check("agent --think 'very hard' ~/mcp.json", root) == (
        str(home / "bin/agent"), "--think", "very hard", str(home / "mcp.json"),
    )  # fmt: skip
    assert check("./tools/agent.sh", root) == (str(root / "tools/agent.sh"),)
    assert check("~/bin/agent", root) == (str(home / "bin/agent"),)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "names no program"),
        ("agent 'half", "check its quotes"),
        ("no-such-agent -p", "there is no program no-such-agent on PATH"),
        ("./missing.sh", "there is no program ./missing.sh on PATH"),
    ],
)
def test_a_command_that_starts_nothing_is_a_mistake_that_is_told(tmp_path: Path, given: str, words: str) -> None:
    with pytest.raises(UserError, match="--autoresearch-proposer command:") as caught:
        check(given, tmp_path)
    assert words in str(caught.value)


def test_what_an_agent_shares_is_there_and_does_not_hold_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, root = tmp_path / "ada", tmp_path / "work" / "repo"
    (home / ".acme").mkdir(parents=True)
    root.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    assert shared(["~/.acme"], root) == (home / ".acme",)
    for given, words in (("~/.other", "does not exist"), ("~", "home folder"), ("..", "contains"), (".", "contains")):
        with pytest.raises(UserError, match=words):
            shared([given], root)


NAMES = ("claude", "codex", "gemini", "qwen", "aider", "opencode", "copilot", "cursor-agent")


@pytest.mark.parametrize("name", NAMES)
def test_a_known_agent_is_told_to_work_without_a_person(name: str) -> None:
    words = agents.completed([f"/usr/bin/{name}"], confined=True)
    assert words[0] == f"/usr/bin/{name}"
    assert agents.completed(words, confined=True)[: len(words)] == words
    agent = agents.known(words)
    assert agent.name == name
    assert agent.settings
    assert agent.variables
    assert not any(variable in ("*", "*_KEY", "*_TOKEN") for variable in agent.variables)


@pytest.mark.parametrize(
    ("given", "confined", "whole"),
    [
        ("claude -p --model m", True,
         "claude -p --model m --permission-mode acceptEdits --allowedTools Read,Edit,Write,Grep,Glob"),
        ("claude --print --permission-mode=plan --allowed-tools Read", True,
         "claude --print --permission-mode=plan --allowed-tools Read"),
        ("codex", True, "codex exec --skip-git-repo-check --sandbox danger-full-access -"),
        ("codex exec -m m", False, "codex exec -m m --skip-git-repo-check --sandbox workspace-write -"),
        ("gemini", True, "gemini --approval-mode yolo"),
        ("gemini -y", True, "gemini -y"),
        ("gemini", False, "gemini --approval-mode auto_edit"),
        ("opencode", True, "opencode run"),
        ("mine --now", True, "mine --now"),
    ],
)  # fmt: skip
def test_flags_are_added_that_the_user_did_not_give(given: str, confined: bool, whole: str) -> None:
    assert " ".join(agents.completed(given.split(), confined=confined)) == whole


def test_placeholders_stand_for_the_prompt_and_the_files(lane: Lane) -> None:
    lane.script(EDIT + "print(*sys.argv[1:]); print(open(sys.argv[1][7:]).read() == sys.stdin.read())")
    proposer = CommandProposer(
        (str(lane.agent), "--file={prompt}", "{files}", "--last"), lane.run, confined=False, seconds=20.0
    )
    lane.tree.reset(lane.base)
    proposer.propose(lane.context())
    scratch = lane.tree.top.with_name("lane-0-agent")
    assert lane.came[0].output.splitlines() == [f"--file={scratch}/prompt.md train.py --last", "True"]


def test_aider_is_given_a_file_and_what_it_may_edit(lane: Lane) -> None:
    whole = agents.completed(["aider"], confined=True)
    assert agents.filled(whole, "/p.md", ["train.py", "b.py"])[-4:] == ("--message-file", "/p.md", "train.py", "b.py")
