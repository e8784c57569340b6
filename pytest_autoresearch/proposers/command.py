"""Any agent with a command line: it is started in the lane's tree, and its edits there are the proposal.

The prompt is on its standard input and in a file. `proposal.json` in the tree, or the last line that it prints,
describes the edit. The agent keeps nothing between two starts: everything that it needs is in the prompt. An agent that
fails soon without an edit is started again, because mostly its service has failed. Knows nothing of processes and
sandboxes.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_autoresearch.core.agent_job import PROMPT_FILE, AgentJob, Finished
from pytest_autoresearch.core.errors import ProposerError, Refused, UserError
from pytest_autoresearch.core.experiment import Proposal, Usage
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.core.run import CrashClass
from pytest_autoresearch.proposers import agents, prompt
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.proposers.quoting import line, plain
from pytest_autoresearch.proposers.workspace import Edits, Workspace

ANSWER = "proposal.json"
_REPLY = f"""\
Edit the files in place, in the current folder: {{files}}. Change nothing else and leave no other files. Do not run
training: the session runs and measures it after you exit. Do not use git.

When the edit is complete, write a file {ANSWER} into the current folder, a JSON object with these strings:
"description" (one line: what you changed), "hypothesis" (why it should help), "expected" (its expected effect on the
metric) and "area" (its direction of research). Add "notes" only to rewrite the notes that are shown with every later
proposal. Without that file, the last line that you print is the description. Then exit: nobody reads or answers
questions."""
_LONG = """\
# The files that you may edit

The current versions are in the current folder: {files}. Read the parts that you need."""
_AGAIN = "Your edit is in the files again, as you left it. Leave it unchanged {to}."

_MOST_FILES_BYTES = 100_000  # of the editable files in a prompt; larger ones the agent reads itself
_MOST_ANSWER_BYTES = 64 * 1024
_MOST_CHARACTERS, _MOST_NOTES = 2000, 4000
_LAST_LINE_BYTES, _LAST_LINES = 200, 5
_MOST_USD = 10_000.0  # for one start; more is a mistake
_MOST_IDLE = 3  # experiments in a row without an edit
_NOT_STARTED = (126, 127)
_SOON_SECONDS = 300.0  # a failure within this time may be temporary: agents retry an overloaded service for minutes
_LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class _Came:
    """The result of one start: how the agent ended, its description, and its edits.

    Attributes:
        agent: Its name.
        finished: How it ended.
        proposal: Its description of the edit.
        edits: Its edits; None if it changed nothing.
    """

    agent: str
    finished: Finished
    proposal: Proposal
    edits: Edits | None

    @property
    def fault(self) -> str:
        """Why it failed; empty if it did not."""
        if self.finished.why:
            return f"was stopped {self.finished.why}"
        if self.finished.exit_status is None:
            return "ended without an exit status"
        return f"ended with status {self.finished.exit_status}" if self.finished.exit_status else ""

    @property
    def may_pass(self) -> bool:
        """Whether its failure may be temporary, such as an overloaded service or a lost connection."""
        ended = self.finished
        failed = not ended.why and ended.exit_status not in (0, *_NOT_STARTED)
        return failed and ended.seconds <= _SOON_SECONDS

    def last(self, lines: int) -> str:
        """The last lines of its output, on one line."""
        said = _lines(self.finished.output)[-lines:]
        return " / ".join(line(each, _LAST_LINE_BYTES) for each in said) or "nothing"


@dataclass(slots=True)
class _Memory:
    """What the session keeps of one experiment.

    Attributes:
        proposed: Whether the agent was asked for a proposal, or has repaired one.
        edits: Its last edit; None if it made none.
        starts: How often the agent was started.
    """

    proposed: bool = False
    edits: Edits | None = None
    starts: int = 0


class CommandProposer:
    """See `Proposer`.

    Args:
        command: The agent's command, as `check` returns it.
        run: Runs the agent.
        confined: Whether it runs in a sandbox.
        seconds: Time limit of one start.
        shared: Files and folders of the user that the agent may read and write, as returned by `shared`.
        variables: Further environment variables that it gets, globs allowed.
        patience_seconds: How long a failing agent is started again, over all experiments in a row.
        pause: Waits for the given seconds; raises Stopped if the session ends meanwhile.
    """

    name = "command"
    listens = True

    def __init__(
        self,
        command: Sequence[str],
        run: Callable[[AgentJob], Finished],
        *,
        confined: bool,
        seconds: float,
        shared: Sequence[Path] = (),
        variables: Sequence[str] = (),
        patience_seconds: float = 1800.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._command = agents.completed(command, confined=confined)
        self._confined = confined
        self._agent = agents.known(command)
        self._run = run
        self._seconds = seconds
        self._shared = tuple(shared)
        self._variables = (*self._agent.variables, *variables)
        self._patience = self._left = patience_seconds
        self._pause = pause
        self._idle = 0

    def propose(self, context: Context) -> Proposal | None:
        """Let the agent edit the tree.

        Raises:
            Refused: The agent ended without an edit.
            ProposerError: The agent cannot be started, or changed nothing in several experiments.
            Stopped: The session ended meanwhile.
        """
        tree = Workspace(context.folder, context.editable)
        context.session.memory = memory = _Memory()
        came = self._send(context, tree, _words(context))
        memory.edits, memory.proposed = came.edits, True
        if came.edits is not None:
            self._idle = 0
            return _taken(context, came)
        self._idle += 1
        self._check_alive(came)
        ending = f"{came.fault} and changed nothing" if came.fault else "changed nothing"
        raise Refused(
            f"`{came.agent}` {ending}; last output: {came.last(_LAST_LINES)}", came.proposal, CrashClass.NO_PROPOSAL
        )

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """Let the agent edit again, with its last edit in the tree; None if it changes nothing.

        An agent that made no edit is not started again for the same experiment.
        """
        tree = Workspace(context.folder, context.editable)
        context.session.memory = memory = context.session.memory or _Memory()
        failing, meant = memory.edits, failure.near_duplicate
        if failing is None and memory.proposed:
            return None
        if failing is not None:  # else the proposal was not this agent's
            tree.write(failing.texts)
        reply = _AGAIN.format(to="if you mean it" if meant else "to give the idea up") if failing else ""
        why = prompt.failed(context, proposal, failure, reply)
        came = self._send(context, tree, f"{_words(context)}\n{why}\n")
        # An unchanged edit is a decision only if the agent did not fail.
        if came.edits is None or (came.edits == failing and (came.fault or not meant)):
            return None
        memory.edits, memory.proposed = came.edits, True
        return _taken(context, came)

    def _send(self, context: Context, tree: Workspace, text: str) -> _Came:
        """Start the agent, and again while its failures may be temporary and the patience lasts."""
        before, seconds = tree.edits(), 1.0
        while True:
            came = self._start(context, tree, text)
            if came.edits != before or not came.may_pass:
                self._left = self._patience
                return came
            self._left -= came.finished.seconds + seconds
            if self._left < 0:
                return came
            said = f"`{came.agent}` {came.fault} and changed nothing; last output: {came.last(1)}"
            context.session.say(f"{said}; starting it again in {seconds:.0f} s")
            self._pause(seconds)
            seconds = min(_LONGEST_WAIT, 2 * seconds)

    def _start(self, context: Context, tree: Workspace, text: str) -> _Came:
        """Start the agent once."""
        scratch = tree.top.with_name(f"{tree.top.name}-agent")
        finished = self._run(
            AgentJob(
                agents.filled(self._command, str(scratch / PROMPT_FILE), tree.files),
                folder=context.folder, prompt=text, scratch=scratch, seconds=self._seconds,
                readable=(tree.top,), shared=self._shared,
                settings=self._agent.settings, moved=self._agent.moved, variables=self._variables,
                environment={**self._agent.environment, "AUTORESEARCH_NUMBER": str(context.number)},
            )
        )  # fmt: skip
        memory: _Memory = context.session.memory
        start = memory.starts = memory.starts + 1
        context.session.keep(f"agent-{start}.log" if start > 1 else "agent.log", f"{finished.output}\n")
        answer = _Answer.read(tree.take(ANSWER, _MOST_ANSWER_BYTES + 1))
        tree.tidy()
        lines = _lines(finished.output)
        description = answer.description or (line(lines[-1], _LAST_LINE_BYTES) if lines else "")
        proposal = Proposal(
            description or f"experiment {context.number:04d}", answer.hypothesis, self.name, self._agent.name,
            expected=answer.expected, area=answer.area,
        )  # fmt: skip
        came = _Came(self._agent.name, finished, proposal, tree.edits())
        context.session.spent(Usage(self._agent.name, requests=1, cost_usd=answer.cost_usd))
        if answer.notes:
            context.session.note(answer.notes)
        return came

    def _check_alive(self, came: _Came) -> None:
        """Check after a start without an edit whether another start may help.

        Raises:
            ProposerError: It will not.
        """
        said = f"last output: {came.last(1)}: run it by hand in a terminal first"
        if self._confined:
            said += ", and list the files of yours that it needs in autoresearch_agent_files"
        if came.finished.exit_status in _NOT_STARTED:
            raise ProposerError(f"`{came.agent}` could not be started; {said}")
        if self._idle >= _MOST_IDLE:
            raise ProposerError(f"`{came.agent}` changed nothing in {self._idle} experiments in a row; {said}")


@dataclass(frozen=True, slots=True)
class _Answer:
    """The agent's answer about its edit; every field may be missing."""

    description: str = ""
    hypothesis: str = ""
    expected: str = ""
    area: str = ""
    notes: str = ""
    cost_usd: float | None = None

    @classmethod
    def read(cls, text: bytes) -> _Answer:
        """Read the file, which may contain anything."""
        try:
            given = json.loads(text) if len(text) <= _MOST_ANSWER_BYTES else None
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            return cls()

        def said(name: str, most: int = _MOST_CHARACTERS) -> str:
            value = given.get(name)
            return plain(value).strip()[:most] if isinstance(value, str) else ""

        cost = given.get("cost_usd")
        known = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost <= _MOST_USD
        return cls(
            " ".join(said("description").split()), said("hypothesis"), said("expected"), said("area"),
            said("notes", _MOST_NOTES), float(cost or 0) if known else None,
        )  # fmt: skip


def check(command: str, root: Path) -> tuple[str, ...]:
    """The words of an agent's command, with the absolute path of its program.

    Args:
        command: As the user typed it.
        root: The folder to which a relative program path refers.

    Raises:
        UserError: There is no such program.
    """
    try:
        words = [str(Path(word).expanduser()) if word.startswith("~/") else word for word in shlex.split(command)]
    except ValueError as error:
        raise UserError(
            f"--autoresearch-proposer command:{command} cannot be split into words ({error}): check its quotes"
        ) from None
    if not words:
        raise UserError('--autoresearch-proposer command: names no program: type, for example, "command:claude -p"')
    found = shutil.which(str(root / words[0]) if "/" in words[0] else words[0])
    if found is None:
        raise UserError(
            f"--autoresearch-proposer command:{command}: there is no program {words[0]} on PATH: install it, or give "
            "its path"
        )
    # Resolve links of the folder only: the sandbox follows the links of the program itself.
    program = Path(found).absolute()
    return (str(program.parent.resolve() / program.name), *words[1:])


def shared(given: Sequence[str], root: Path) -> tuple[Path, ...]:
    """The files and folders of the ini key autoresearch_agent_files.

    Raises:
        UserError: One does not exist, or contains the repository or the home folder.
    """
    paths = [(name, root / Path(name).expanduser()) for name in given]
    for name, path in paths:
        if not path.exists():
            raise UserError(f"autoresearch_agent_files names {name}, which does not exist: correct it")
        if any(one.resolve().is_relative_to(path.resolve()) for one in (root, Path.home())):
            raise UserError(
                f"autoresearch_agent_files names {name}, which contains the repository or your home folder: name only "
                "the files that the agent needs"
            )
    return tuple(path for _, path in paths)


def _taken(context: Context, came: _Came) -> Proposal:
    """The proposal; if the agent failed, the user is told."""
    if came.fault:
        context.session.say(f"`{came.agent}` {came.fault}; its edits until then are the proposal")
    return came.proposal


def _words(context: Context) -> str:
    """The prompt, with the current files of the tree."""
    files = ", ".join(context.editable)
    said = prompt.build(context, _REPLY.format(files=files))
    return (replace(said, files=_LONG.format(files=files)) if len(said.files) > _MOST_FILES_BYTES else said).text()


def _lines(output: str) -> list[str]:
    """The lines with a letter or a digit."""
    return [each for each in output.splitlines() if any(letter.isalnum() for letter in each)]
