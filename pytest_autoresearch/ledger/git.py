"""The one door to git, through GitPython: how a command is run, and nothing of what the commands are for.

GitPython's own readers of refs and objects are not used: they know neither SHA-256 nor reftable, which Git 3 makes the
default, and their long-lived `git cat-file` would die of a Ctrl-C and mix up the answers of two lanes.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # a missing git is for us to report, not for the import
import git

from pytest_autoresearch.core.errors import GitError, UserError

# No hook of the repository runs, nothing asks for a passphrase, nothing goes on in the background.
_QUIET = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "commit.gpgSign=false",
    "gc.auto=0",
    "advice.detachedHead=false",
)

# Where an untrusted tree is checked out, nothing that the user configured changes a byte or runs a program.
_RAW = ("core.attributesFile=/dev/null", "core.autocrlf=false")

# These lead git to another repository or to other paths than asked for. A git hook that starts pytest leaves them set.
_REDIRECTIONS = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_REPLACE_REF_BASE",
    "GIT_LITERAL_PATHSPECS",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
)


class Git:
    """Runs git commands in one folder.

    Every command starts in a session of its own: a Ctrl-C at the terminal must not kill git in mid-transaction.

    Args:
        folder: Where.
        raw: Whether files are taken as they are: without filters and line-end conversion.
    """

    def __init__(self, folder: Path, raw: bool = False) -> None:
        self.folder = folder
        self._git = git.Git(str(folder))
        self._settings: tuple[str, ...] = _QUIET
        # `git status` would otherwise refresh, and so rewrite, the user's index.
        self._git.update_environment(
            LANGUAGE="C",
            LC_ALL="C",  # `reason` and the ratchet read git's messages
            GIT_OPTIONAL_LOCKS="0",
            GIT_TERMINAL_PROMPT="0",
            GIT_NO_REPLACE_OBJECTS="1",  # a ref under refs/replace can make any record or commit say something else
            GIT_GRAFT_FILE=os.devnull,
        )
        if raw:
            self._settings += _RAW

    def without_filters(self) -> None:
        """Switch off every filter that the configuration defines; attributes in the tree may still name them."""
        said = (
            self.ask("config", "--null", "--name-only", "--get-regexp", r"^filter\..*\.(clean|smudge|process)$") or ""
        )
        keys = [key for key in said.split("\0") if key]
        names = {key.rpartition(".")[0] for key in keys}
        self._settings += tuple(f"{key}=" for key in keys) + tuple(f"{name}.required=false" for name in names)

    def at(self, folder: Path, raw: bool = False) -> Git:
        """The same in another folder, under the same name."""
        other = Git(folder, raw)
        other._git.update_environment(**self._git.environment())
        return other

    def on_index(self, index: Path) -> Git:
        """The same on an index of its own: the user's stays as it is."""
        other = self.at(self.folder)
        other._git.update_environment(GIT_INDEX_FILE=str(index))
        return other

    def bind(self, git_folder: Path) -> None:
        """From now on this git folder and this working tree, whatever a `.git` in the tree says."""
        self._git.update_environment(GIT_DIR=str(git_folder), GIT_WORK_TREE=str(self.folder))

    def identify(self, name: str, email: str) -> None:
        """Commit under this name from now on."""
        who = {
            f"GIT_{role}_{part}": text
            for role in ("AUTHOR", "COMMITTER")
            for part, text in (("NAME", name), ("EMAIL", email))
        }
        self._git.update_environment(**who)

    def run(self, *command: str, stdin: bytes = b"") -> bytes:
        """What the command printed, byte for byte.

        Raises:
            GitError: The command failed; the text is git's own.
            UserError: There is no git.
        """
        if not self.folder.is_dir():  # GitPython would take the current folder instead: the user's checkout
            raise GitError(f"{self.folder} is no folder")
        for name in _REDIRECTIONS:  # GitPython hands all of this process's variables down
            os.environ.pop(name, None)
        settings = [word for setting in self._settings for word in ("-c", setting)]
        with tempfile.TemporaryFile() if stdin else contextlib.nullcontext() as given:
            if given is not None:
                given.write(stdin)
                given.seek(0)
            try:
                status, said, complaint = self._git.execute(
                    ["git", *settings, *command],
                    istream=given,
                    start_new_session=True,
                    with_extended_output=True,
                    with_exceptions=False,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                )
            except git.GitCommandNotFound:
                raise UserError("git is not installed or not on PATH: install it first") from None
        if status:
            verb = next(word for word in command if not word.startswith("-") and "=" not in word)
            raise GitError(f"git {verb}: {complaint.strip() or f'exit status {status}'}")
        return said

    def __call__(self, *command: str, stdin: str = "") -> str:
        """What the command printed, less its last newline; see `run`."""
        said = self.run(*command, stdin=stdin.encode("utf-8", "surrogateescape"))
        return said.removesuffix(b"\n").decode("utf-8", "surrogateescape")

    def ask(self, *command: str, stdin: str = "") -> str | None:
        """What the command printed, or None where it failed: for questions whose answer may be no."""
        try:
            return self(*command, stdin=stdin)
        except GitError:
            return None


def version() -> tuple[int, ...]:
    """The version of git; empty where there is none."""
    try:
        return git.Git().version_info
    except git.GitCommandNotFound:
        return ()


def reason(error: GitError) -> str:
    """The line in which git says why: of a remote's refusals the first, else its first complaint."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for start in (r"! \[", r"remote: (error|fatal)", r"(git \S+: )?(fatal|error)"):
        for line in lines:
            if re.match(start, line):
                return re.sub(r"^(git \S+: )?(! |fatal: |error: |remote: )?", "", line)
    return lines[0] if lines else "git gave no reason"
