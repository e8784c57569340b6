"""Any agent with a command line: it is started in the lane's tree, and its edits there are the proposal.

The prompt is on its standard input and in a file. `proposal.json` in the tree, or the last line that it prints,
describes the edit. The agent keeps nothing between two starts: everything that it needs is in the prompt. Knows nothing
of processes and sandboxes. How a start without an edit is handled:

    start                                                 action
    ---------------------------------------------------   --------------------------------------------------------
    the program cannot be started (status 126, 127)       ProposerError
    its output tells of a limit of its account            Unavailable until the limit ends: see `agent_turns`
    it fails, and its last words tell of an overload,     started again after 1, 2, 4 … s, for one minute; then
    a rate limit or the network                           Unavailable
    it fails within five minutes otherwise                started again in the same way; then ProposerError
    any failure before its first edit in this session     the same
    status 0 before its first edit in this session        started once more; then ProposerError
    status 0 later                                        Unavailable: it may be a limit that it tells of in other words
    it uses all its time, or fails after five minutes     the experiment is a crash, `no-proposal`; after three in a
                                                          row, ProposerError
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pytest_autoresearch.core.agent_job import PROMPT_FILE, AgentJob, Finished
from pytest_autoresearch.core.errors import ProposerError, Refused
from pytest_autoresearch.core.experiment import Proposal, Usage
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.core.run import CrashClass
from pytest_autoresearch.proposers import agent_answer, agents, prompt, usage_limits
from pytest_autoresearch.proposers.agent_answer import FILE as ANSWER
from pytest_autoresearch.proposers.agent_start import AgentCosts, Came, Memory, Rehearsal, Unavailable
from pytest_autoresearch.proposers.base import Asked, Context
from pytest_autoresearch.proposers.workspace import Workspace

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
_AGAIN = "Your edit is in the files again, as you left it{but}. Leave {it} unchanged {to}."

_MOST_FILES_BYTES = 100_000  # of the editable files in a prompt; larger ones the agent reads itself
_LAST_LINES = 5
_MOST_IDLE = 3  # experiments in a row without an edit
_NOT_STARTED = (126, 127)
_PATIENCE_SECONDS = 60.0  # with an agent that fails


class CommandProposer:
    """See `Proposer`.

    Args:
        command: The agent's command, as `check` returns it.
        run: Runs the agent.
        confined: Whether it runs in a sandbox.
        seconds: Time limit of one start.
        shared: Files and folders of the user that the agent may read and write, as returned by `shared`.
        variables: Further environment variables that it gets, globs allowed.
        costs: Counts what the agent reports; shared by the agents of a session.
        pause: Waits for the given seconds; raises if the session ends meanwhile.
        left: Seconds until the session's end.
        check: Raises if the session ends.
        now: The time, with its zone.
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
        costs: AgentCosts | None = None,
        pause: Callable[[float], None] = time.sleep,
        left: Callable[[], float] = lambda: math.inf,
        check: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._command = agents.completed(command, confined=confined)
        self._confined = confined
        self._agent = agents.known(command)
        self._run = run
        self._seconds = seconds
        self._shared = tuple(shared)
        self._variables = (*self._agent.variables, *variables)
        self._costs = costs or AgentCosts(None)
        self._dearest_usd = 0.0
        self._pause = pause
        self._left = left
        self._check = check
        self._now = now
        self._idle = 0
        self._worked = self._away = False
        self._rehearsed: Rehearsal | None = None

    def rehearse(self, context: Context) -> None:
        """Let the agent make its first proposal before the baseline is trained; `propose` then returns it.

        An agent that is not logged in, or lacks a flag, so ends the session before anything is paid for.
        """
        tree = Workspace(context.folder, context.editable)
        session = Rehearsal(tree.texts(), context.session, Memory())
        session.came = self._first(replace(context, session=session), tree)
        self._rehearsed = session

    def asked(self, context: Context) -> Asked:
        """The prompt. What the agent costs is its own affair."""
        return Asked(_words(context))

    def propose(self, context: Context) -> Proposal | None:
        """Let the agent edit the tree.

        Raises:
            Unavailable: The agent can do nothing for a while; the tree is as it was.
            Refused: The agent ended without an edit.
            ProposerError: The agent cannot be started, fails again and again, or does nothing.
            Spent: The costs that the agent reports have reached the limit, or the session's time is over.
            Stopped: The session ended meanwhile.
        """
        tree = Workspace(context.folder, context.editable)
        context.session.memory = context.session.memory or Memory()
        came = self._repeat(context, tree) or self._first(context, tree)
        memory: Memory = context.session.memory
        memory.edits, memory.proposed = came.edits, True
        if came.edits is not None:
            self._idle = 0
            return _taken(context, came)
        said = f"`{came.agent}` {came.ending}; last output: {came.last(_LAST_LINES)}"
        if not came.fault:
            raise Unavailable(said)
        self._idle += 1
        if self._idle >= _MOST_IDLE:
            raise self._useless(came, f"changed nothing in {self._idle} experiments in a row")
        raise Refused(said, came.proposal, CrashClass.NO_PROPOSAL)

    def _repeat(self, context: Context, tree: Workspace) -> Came | None:
        """Make the rehearsed edit in the tree; None if there is none, or if it was made from other files."""
        early, self._rehearsed = self._rehearsed, None
        if early is None or early.came is None or early.came.edits is None or early.before != tree.texts():
            return None
        if early.came.edits.strayed or tree.write(early.came.edits.texts):
            return None
        early.tell(context.session)
        return early.came

    def _first(self, context: Context, tree: Workspace) -> Came:
        """The result of an agent that is asked for a proposal; one that has never worked must show that it does."""
        came = self._send(context, tree, _words(context))
        if came.edits is None and not self._worked:
            if not came.fault:
                came = self._send(context, tree, _words(context))
            if came.edits is None:
                raise self._useless(came, f"{came.ending}, and has not changed a file in this session")
        return came

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """Let the agent edit again, with its last edit in the tree; None if it changes nothing.

        An agent that made no edit is not started again for the same experiment. Raises as `propose` does.
        """
        tree = Workspace(context.folder, context.editable)
        context.session.memory = memory = context.session.memory or Memory()
        failing, meant = memory.edits, failure.near_duplicate
        if failing is None and memory.proposed:
            return None
        lost = tree.write(failing.texts) if failing is not None else []  # else the proposal was not this agent's
        before = tree.edits()
        reply = _again(lost, meant) if failing else ""
        why = prompt.failed(context, proposal, failure, reply)
        came = self._send(context, tree, f"{_words(context)}\n{why}\n")
        # An unchanged edit is a decision only if the agent did not fail.
        same = came.edits == failing or (bool(lost) and came.edits == before)
        if came.edits is None or (same and (came.fault or not meant)):
            return None
        memory.edits, memory.proposed = came.edits, True
        return _taken(context, came)

    def _send(self, context: Context, tree: Workspace, text: str) -> Came:
        """Start the agent, and again while its failures may be temporary and the patience lasts."""
        before, seconds, waited, starts = tree.edits(), 1.0, 0.0, 0
        while True:
            came = self._start(context, tree, text)
            starts += 1
            if came.edits != before:
                self._worked, self._away = True, False
                return came
            if limit := usage_limits.read(came.agent, came.finished.output, self._now()):
                raise Unavailable(f"`{came.agent}` is at its limit: {limit.said}", limit.ends, limited=True)
            passing = self._worked and came.failed and agents.may_pass(came.last(_LAST_LINES))
            if not passing and not came.failed_soon:
                return came
            if came.finished.exit_status in _NOT_STARTED:
                raise self._useless(came, "could not be started")
            said = f"`{came.agent}` {came.ending}; last output: {came.last(1)}"
            waited += came.finished.seconds + seconds
            if passing and (self._away or waited > _PATIENCE_SECONDS):
                self._away = True
                raise Unavailable(said)
            if waited > _PATIENCE_SECONDS:
                raise self._useless(came, f"{came.ending}, {starts} times in a row")
            context.session.say(f"{said}; starting it again in {seconds:.0f} s")
            self._pause(seconds)
            seconds *= 2

    def _start(self, context: Context, tree: Workspace, text: str) -> Came:
        """Start the agent once."""
        self._check()
        self._costs.check(self._dearest_usd)
        scratch = tree.top.with_name(f"{tree.top.name}-agent")
        finished = self._run(
            AgentJob(
                agents.filled(self._command, str(scratch / PROMPT_FILE), tree.files),
                folder=context.folder, prompt=text, scratch=scratch,
                seconds=min(self._seconds, self._left()),
                readable=(tree.top,), shared=self._shared,
                settings=self._agent.settings, moved=self._agent.moved, variables=self._variables,
                environment={**self._agent.environment, "AUTORESEARCH_NUMBER": str(context.number)},
            )
        )  # fmt: skip
        memory: Memory = context.session.memory
        start = memory.starts = memory.starts + 1
        context.session.keep(f"agent-{start}.log" if start > 1 else "agent.log", f"{finished.output}\n")
        answer = agent_answer.read(tree.take(ANSWER, agent_answer.MOST_BYTES + 1), finished.output)
        tree.tidy()
        proposal = Proposal(
            answer.description or f"experiment {context.number:04d}", answer.hypothesis, self.name, self._agent.name,
            expected=answer.expected, area=answer.area,
        )  # fmt: skip
        came = Came(self._agent.name, finished, proposal, tree.edits())
        context.session.spent(Usage(self._agent.name, requests=1, cost_usd=answer.cost_usd))
        self._costs.spent_usd += answer.cost_usd or 0.0
        self._dearest_usd = max(self._dearest_usd, answer.cost_usd or 0.0)
        if came.edits is None:
            self._check()
        if answer.notes:
            context.session.note(answer.notes)
        return came

    def _useless(self, came: Came, what: str) -> ProposerError:
        """The error about an agent that another start does not help."""
        said = f"`{came.agent}` {what}; last output: {came.last(_LAST_LINES)}: run it by hand in a terminal first"
        if self._confined:
            said += ", and list the files of yours that it needs in autoresearch_agent_files"
        return ProposerError(f"{said}; then rerun the same command")


def _taken(context: Context, came: Came) -> Proposal:
    """The proposal; if the agent failed, the user is told."""
    if came.fault:
        context.session.say(f"`{came.agent}` {came.fault}; its edits until then are the proposal")
    return came.proposal


def _again(lost: Sequence[str], meant: bool) -> str:
    """What a repair begins with.

    Args:
        lost: The files that could not be restored.
        meant: Whether the edit may also be meant as it is.
    """
    are = "is" if len(lost) == 1 else "are"
    but = f", except that {', '.join(lost)} {are} as the branch has it, because your edit cannot be restored there"
    to = "if you mean it" if meant else "to give the idea up"
    return _AGAIN.format(but=but if lost else "", it="the files" if lost else "it", to=to)


def _words(context: Context) -> str:
    """The prompt, with the current files of the tree."""
    files = ", ".join(context.editable)
    context.session.heard(context.messages)
    said = prompt.build(context, _REPLY.format(files=files))
    return (replace(said, files=_LONG.format(files=files)) if len(said.files) > _MOST_FILES_BYTES else said).text()
