"""An agent with a command line sent to work in a folder: what it is given, and how it came back. Pure values.

A proposer writes errands and a runner runs them; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROMPT_FILE = "prompt.md"


@dataclass(frozen=True, slots=True)
class Errand:
    """One start of an agent.

    Attributes:
        command: The program and its arguments; the program by an absolute path.
        folder: Where it starts, and what it may write to.
        prompt: Its task, on its standard input and in `prompt_file`.
        scratch: A folder beside that one, made for this errand and removed after it.
        seconds: How long it may take.
        readable: What it may read beside its own program.
        shared: Files and folders of the user's that it may read and write.
        settings: Copied from the user's home folder into its private one; relative to both.
        moved: Variables of the user's that put one of these elsewhere, and which.
        variables: Variables of this process that it is given beside those that every candidate may see, globs allowed.
        environment: Variables that it is given beside those.
        output_limit_mb: How much it may print, in MiB.
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
        """Where the prompt lies while the agent works."""
        return self.scratch / PROMPT_FILE

    @property
    def home(self) -> Path:
        """The agent's own home folder, where there is a sandbox."""
        return self.scratch / "home"


@dataclass(frozen=True, slots=True)
class Finished:
    """How an agent came back.

    Attributes:
        exit_status: Negative for a signal; None when nobody saw its end.
        output: The end of what it printed, plain text of at most 4,000 characters.
        why: Why it was ended, such as `after 900 s`; empty where it ended by itself.
        seconds: From its start until nothing of it was left.
    """

    exit_status: int | None
    output: str
    why: str = ""
    seconds: float = 0.0
