"""The agents whose command lines are known: what makes them work without a person, and what they need to sign in.

Flags, settings and variables are as the agents' documentation has them; none of them was run here. A flag that the
user gave is not given again. Pure: words in, words out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

PROMPT, FILES = "{prompt}", "{files}"
"""Stand in a command for the file that the prompt is in, and for the editable files."""

_READ_IT = f"Do what the file {PROMPT} says."


@dataclass(frozen=True, slots=True)
class Flag:
    """Words that are added to a command.

    Attributes:
        words: What is added.
        instead: Not where the command has one of these, or one of them with `=` and a value.
        unconfined: What is added where there is no sandbox and the agent has the user's own rights; None for the same.
    """

    words: tuple[str, ...]
    instead: tuple[str, ...] = ()
    unconfined: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """What is known of an agent.

    Attributes:
        name: Its program's.
        verb: The subcommand that works without a person; empty where it has none.
        flags: What it is told beside.
        settings: Files and folders with its settings, relative to the home folder.
        moved: Variables that put one of these elsewhere.
        variables: What it may be given of the user's variables, globs allowed.
        environment: What it is given in any case.
    """

    name: str
    verb: str = ""
    flags: tuple[Flag, ...] = ()
    settings: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


_APPROVAL = ("--approval-mode", "--yolo", "-y")
_AGENTS = (
    Agent(
        "claude",
        flags=(
            Flag(("-p",), ("-p", "--print")),
            # Not bypassPermissions, which root may not choose. A shell is not needed to edit files.
            Flag(("--permission-mode", "acceptEdits"), ("--permission-mode", "--dangerously-skip-permissions")),
            Flag(("--allowedTools", "Read,Edit,Write,Grep,Glob"), ("--allowedTools", "--allowed-tools", "--tools")),
        ),
        settings=(".claude", ".claude.json"),
        moved={"CLAUDE_CONFIG_DIR": ".claude"},
        variables=("ANTHROPIC_*", "CLAUDE_CODE_*", "API_TIMEOUT_MS"),
        environment={"DISABLE_AUTOUPDATER": "1"},
    ),
    Agent(
        "codex",
        verb="exec",
        flags=(
            Flag(("--skip-git-repo-check",), ("--skip-git-repo-check",)),
            # Its own sandbox does not work inside another one.
            Flag(
                ("--sandbox", "danger-full-access"),
                ("--sandbox", "-s", "--full-auto", "--dangerously-bypass-approvals-and-sandbox", "--yolo"),
                unconfined=("--sandbox", "workspace-write"),
            ),
            Flag(("-",), ("-",)),
        ),
        settings=(".codex",),
        moved={"CODEX_HOME": ".codex"},
        variables=("OPENAI_*", "CODEX_*", "AZURE_OPENAI_*"),
    ),
    Agent(
        "gemini",
        flags=(Flag(("--approval-mode", "yolo"), _APPROVAL, unconfined=("--approval-mode", "auto_edit")),),
        settings=(".gemini", ".config/gcloud/application_default_credentials.json"),
        variables=("GEMINI_*", "GOOGLE_*"),
        environment={"GEMINI_CLI_TRUST_WORKSPACE": "true"},
    ),
    Agent(
        "qwen",
        flags=(Flag(("--approval-mode", "yolo"), _APPROVAL, unconfined=("--approval-mode", "auto-edit")),),
        settings=(".qwen",),
        variables=("QWEN_*", "DASHSCOPE_*", "OPENAI_*"),
    ),
    Agent(
        "aider",  # it does not read its standard input
        flags=(
            Flag(("--yes-always",), ("--yes-always", "--yes")),
            Flag(("--no-git",), ("--git", "--no-git")),
            Flag(("--no-check-update", "--no-show-release-notes")),
            Flag(("--message-file", PROMPT), ("--message-file", "-f", "--message", "--msg", "-m")),
            Flag((FILES,), (FILES,)),
        ),
        settings=(".aider.conf.yml", ".aider.model.settings.yml", ".aider.model.metadata.json", ".aider"),
        variables=(
            *("AIDER_*", "OPENAI_*", "ANTHROPIC_*", "GEMINI_*", "AZURE_API_*", "OLLAMA_*"),
            *("OPENROUTER_*", "DEEPSEEK_*", "GROQ_*", "MISTRAL_*", "XAI_*", "COHERE_*"),
        ),
    ),
    Agent(
        "opencode",
        verb="run",
        settings=(".config/opencode", ".local/share/opencode/auth.json"),
        variables=("OPENCODE_*", "ANTHROPIC_*", "OPENAI_*", "GEMINI_*", "OPENROUTER_*", "GROQ_*", "XAI_*"),
        environment={"OPENCODE_PERMISSION": '{"*":"allow"}', "OPENCODE_DISABLE_AUTOUPDATE": "1"},
    ),
    Agent(
        "copilot",
        flags=(
            # The prompt lies outside the folder that it starts in.
            Flag(
                ("--allow-all-tools", "--allow-all-paths"),
                ("--allow-all-tools", "--allow-all", "--yolo", "--allow-tool"),
                unconfined=("--allow-tool", "write", "--allow-all-paths"),
            ),
            Flag(("-p", _READ_IT), ("-p", "--prompt")),
        ),
        settings=(".copilot",),
        variables=("COPILOT_*",),  # not the other two that it takes, which open the whole account
    ),
    Agent(
        "cursor-agent",
        flags=(
            Flag(("-p",), ("-p", "--print")),
            Flag(("--force",), ("--force", "-f", "--yolo", "--auto-review")),
            Flag(("--trust",), ("--trust",)),
            Flag((_READ_IT,)),
        ),
        settings=(".cursor/cli-config.json", ".config/cursor"),
        variables=("CURSOR_*",),
    ),
)


def known(command: Sequence[str]) -> Agent:
    """The agent of that program; one of which nothing is known where it is none of these."""
    name = PurePath(command[0]).name if command else ""
    return next((agent for agent in _AGENTS if agent.name == name), Agent(name))


def completed(command: Sequence[str], *, confined: bool) -> tuple[str, ...]:
    """The command with what makes its agent work without a person.

    Args:
        command: As the user wrote it, in words.
        confined: Whether it is started in a sandbox.
    """
    agent = known(command)
    words = list(command)
    if agent.verb and agent.verb not in words:
        words.insert(1, agent.verb)
    for flag in agent.flags:
        if not any(word == name or word.startswith(f"{name}=") for name in flag.instead for word in command):
            words += flag.words if confined or flag.unconfined is None else flag.unconfined
    return tuple(words)


def filled(command: Sequence[str], prompt_file: str, files: Sequence[str]) -> tuple[str, ...]:
    """The command with what its placeholders stand for.

    Args:
        command: In words.
        prompt_file: Where the prompt is.
        files: The editable files, relative to the folder that it starts in.
    """
    filled: list[str] = []
    for word in command:
        filled += files if word == FILES else [word.replace(PROMPT, prompt_file)]
    return tuple(filled)
