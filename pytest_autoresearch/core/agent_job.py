"""One run of a command-line agent in a folder: its input and its result. Pure values.

A proposer makes jobs and a runner runs them; neither imports the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROMPT_FILE = "prompt.md"


@dataclass(frozen=True, slots=True)
class AgentJob:
    """One run of an agent, before it starts.

    Attributes:
        command: The program, as an absolute path, and its arguments.
        folder: The working directory, which the agent may write to.
        prompt: The task, on standard input and in `prompt_file`.
        scratch: A temporary folder beside `folder`, created for this job and removed after it.
        seconds: The time limit.
        readable: Files and folders that the agent may read, beside its own program.
        shared: Files and folders of the user that the agent may read and write.
        settings: Paths copied from the user's home folder into the agent's private one; relative to both.
        moved: The user's environment variables that move one of `settings` elsewhere, each with the path it moves.
        variables: Names of environment variables to pass on, beside those that every candidate gets; globs allowed.
        environment: More environment variables, with their values.
        output_limit_mb: The limit for its output, in MiB.
    """

    command: tuple[str, ...]
    folder: Path
    prompt: str
    scratch: Path
    seconds: float
    readable: tuple[Path, ...] = ()
    shared: tuple[Path, ...] = ()
    settings: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    output_limit_mb: float = 256

    @property
    def prompt_file(self) -> Path:
        """The file with the prompt."""
        return self.scratch / PROMPT_FILE

    @property
    def home(self) -> Path:
        """The agent's private home folder; used only with a sandbox."""
        return self.scratch / "home"


@dataclass(frozen=True, slots=True)
class Finished:
    """How an agent ended.

    Attributes:
        exit_status: Negative for a signal; None if unknown.
        output: The end of its output, plain text of at most 4,000 characters.
        why: Why it was stopped, such as `after 900 s`; empty if it ended by itself.
        seconds: From its start until all of its processes had ended.
    """

    exit_status: int | None
    output: str
    why: str = ""
    seconds: float = 0.0
