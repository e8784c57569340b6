"""Runs git commands, through GitPython. All access to git goes through this module; it knows no command's purpose.

It does not use GitPython's own readers of refs and objects. They support neither SHA-256 nor reftable, the defaults of
Git 3, and their long-lived `git cat-file` would die of a Ctrl-C and mix up the answers of two lanes.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # the import must not fail without git; `run` reports that
import git

from pytest_autoresearch.core.errors import GitError, UserError

# No repository hooks, no passphrase prompts, no background jobs.
_QUIET = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "advice.graftFileDeprecated=false",
)

# The user's settings change neither what git prints nor how it applies a patch.
_FIXED = (
    "core.bigFileThreshold=512m",
    "core.quotePath=true",
    "color.ui=false",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "diff.context=3",
    "diff.interHunkContext=0",
    "diff.suppressBlankEmpty=false",
    "apply.ignoreWhitespace=no",
    "apply.whitespace=nowarn",
    "i18n.commitEncoding=UTF-8",
    "i18n.logOutputEncoding=UTF-8",
    "rerere.enabled=false",
)

# For every command that compares commits or indexes.
DIFF = (
    *("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-relative", "--ignore-submodules=none"),
    *("--diff-algorithm=default", "-O/dev/null", "--submodule=short"),
)
# For a patch that `git apply` takes, also where an attribute says that the file is binary.
PATCH = (*DIFF, "--patch", "--binary", "--full-index", "--src-prefix=a/", "--dst-prefix=b/")

# For untrusted trees: no user configuration may change bytes or run programs.
_RAW = ("core.attributesFile=/dev/null", "core.autocrlf=false")

# These redirect git to another repository or other paths, if a git hook has started pytest, or change its diffs.
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
    "GIT_EXTERNAL_DIFF",
    "GIT_DIFF_OPTS",
)


class Git:
    """Runs git commands in one folder.

    Every command runs in its own process session, so that a Ctrl-C at the terminal cannot kill git in a transaction.

    Args:
        folder: The working directory.
        raw: Whether files are read and written unchanged, without filters and line-end conversion.
    """

    def __init__(self, folder: Path, raw: bool = False) -> None:
        self.folder = folder
        self._git = git.Git(str(folder))
        self._settings: tuple[str, ...] = _QUIET + _FIXED
        self._git.update_environment(
            LANGUAGE="C",
            LC_ALL="C",  # `reason` and the ratchet read git's messages
            GIT_OPTIONAL_LOCKS="0",  # otherwise `git status` rewrites the user's index
            GIT_TERMINAL_PROMPT="0",
            GIT_NO_REPLACE_OBJECTS="1",  # a ref under refs/replace can replace the content of any record or commit
            GIT_GRAFT_FILE=os.devnull,
        )
        if raw:
            self._settings += _RAW

    def without_filters(self) -> None:
        """Switch off every filter of the configuration, because attributes in the tree may name filters."""
        said = (
            self.ask("config", "--null", "--name-only", "--get-regexp", r"^filter\..*\.(clean|smudge|process)$") or ""
        )
        keys = [key for key in said.split("\0") if key]
        names = {key.rpartition(".")[0] for key in keys}
        self._settings += tuple(f"{key}=" for key in keys) + tuple(f"{name}.required=false" for name in names)

    def at(self, folder: Path, raw: bool = False) -> Git:
        """The same git, with the same identity, in another folder."""
        other = Git(folder, raw)
        other._git.update_environment(**self._git.environment())
        return other

    def on_index(self, index: Path) -> Git:
        """The same git on another index, which leaves the user's index unchanged."""
        other = self.at(self.folder)
        other._git.update_environment(GIT_INDEX_FILE=str(index))
        return other

    def bind(self, git_folder: Path) -> None:
        """Always use this git folder and this working tree, and ignore `.git` in the tree."""
        self._git.update_environment(GIT_DIR=str(git_folder), GIT_WORK_TREE=str(self.folder))

    def identify(self, name: str, email: str) -> None:
        """Set the author and committer of commits."""
        who = {
            f"GIT_{role}_{part}": text
            for role in ("AUTHOR", "COMMITTER")
            for part, text in (("NAME", name), ("EMAIL", email))
        }
        self._git.update_environment(**who)

    def run(self, *command: str, stdin: bytes = b"") -> bytes:
        """The command's output, byte for byte.

        Raises:
            GitError: The command failed; the text is git's own message.
            UserError: Git is not installed.
        """
        if not self.folder.is_dir():  # GitPython would use the current folder instead, the user's checkout
            raise GitError(f"{self.folder} is no folder")
        for name in _REDIRECTIONS:  # GitPython passes all variables of this process to git
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
        """The command's output as text, without the last newline; see `run`."""
        said = self.run(*command, stdin=stdin.encode("utf-8", "surrogateescape"))
        return said.removesuffix(b"\n").decode("utf-8", "surrogateescape")

    def ask(self, *command: str, stdin: str = "") -> str | None:
        """The command's output, or None if it failed; for commands that fail to say no."""
        try:
            return self(*command, stdin=stdin)
        except GitError:
            return None


def version() -> tuple[int, ...]:
    """The version of git; empty if git is not installed."""
    try:
        return git.Git().version_info
    except git.GitCommandNotFound:
        return ()


def reason(error: GitError) -> str:
    """The line of git's message with the reason: the first refusal of a remote, else the first error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for start in (r"! \[", r"remote: (error|fatal)", r"(git \S+: )?(fatal|error)"):
        for line in lines:
            if re.match(start, line):
                return re.sub(r"^(git \S+: )?(! |fatal: |error: |remote: )?", "", line)
    return lines[0] if lines else "git gave no reason"
