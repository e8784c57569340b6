"""The known agents: the flags with which they work unattended, and the files and variables with which they sign in.

Flags, settings and variables are taken from the agents' documentation; the agents were not run here. A flag given by
the user is not added again. Pure: words in, words out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

PROMPT, FILES = "{prompt}", "{files}"
"""Placeholders in a command for the prompt's file and for the editable files."""

_READ_IT = f"Do what the file {PROMPT} says."


@dataclass(frozen=True, slots=True)
class Flag:
    """Words to add to a command.

    Attributes:
        words: The words to add.
        instead: If the command has one of these, alone or with `=VALUE`, nothing is added.
        unconfined: The words to add without a sandbox, where the agent has the user's rights; None for the same words.
    """

    words: tuple[str, ...]
    instead: tuple[str, ...] = ()
    unconfined: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """The facts about an agent.

    Attributes:
        name: The name of its program.
        verb: The subcommand that works unattended; empty if there is none.
        flags: Further flags.
        settings: Files and folders with its settings, relative to the home folder.
        moved: Variables that move one of `settings` elsewhere.
        variables: The user's environment variables that it gets, globs allowed.
        environment: Variables that it always gets.
    """

    name: str
    verb: str = ""
    flags: tuple[Flag, ...] = ()
    settings: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


# Agents have no common way to say that a failure is temporary, except their words. They decide only how long to wait.
_PASSING = re.compile(
    r"\b(408|409|429|5\d\d)\b|overload|rate.?limit|too many requests|timed? ?out|unavailable|connection|network|socket"
    r"|temporar|\bE(CONN\w+|NOTFOUND|AI_AGAIN|TIMEDOUT|HOSTUNREACH|NETUNREACH)\b",
    re.IGNORECASE,
)
_APPROVAL = ("--approval-mode", "--yolo", "-y")
_AGENTS = (
    Agent(
        "claude",
        flags=(
            Flag(("-p",), ("-p", "--print")),
            # Not bypassPermissions: root may not use it. Editing files needs no shell.
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
            # The agent's own sandbox does not work inside ours.
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
        "aider",  # does not read standard input
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
            # The prompt is outside the agent's start folder.
            Flag(
                ("--allow-all-tools", "--allow-all-paths"),
                ("--allow-all-tools", "--allow-all", "--yolo", "--allow-tool"),
                unconfined=("--allow-tool", "write", "--allow-all-paths"),
            ),
            Flag(("-p", _READ_IT), ("-p", "--prompt")),
        ),
        settings=(".copilot",),
        variables=("COPILOT_*",),  # not the other two that it accepts: they give access to the whole account
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
    """The agent of that program; for an unknown program, an agent without any facts."""
    name = PurePath(command[0]).name if command else ""
    return next((agent for agent in _AGENTS if agent.name == name), Agent(name))


def may_pass(said: str) -> bool:
    """Whether an agent's last words tell of trouble that passes: an overload, a rate limit, the network."""
    return _PASSING.search(said) is not None


def completed(command: Sequence[str], *, confined: bool) -> tuple[str, ...]:
    """The command, with the subcommand and flags that its agent needs to work unattended.

    Args:
        command: The user's command, in words.
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
    """The command with its placeholders filled in.

    Args:
        command: In words.
        prompt_file: The path of the prompt.
        files: The editable files, relative to the start folder.
    """
    filled: list[str] = []
    for word in command:
        filled += files if word == FILES else [word.replace(PROMPT, prompt_file)]
    return tuple(filled)
