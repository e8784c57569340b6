"""`autoresearch best`: the best program of a campaign and what led to it, and a branch of the user's own to take it on.

The campaign's branch belongs to its sessions, which move it, so a checkout gets one beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.output import Column
from pytest_autoresearch.cli.repository import Repository, here, tag_argument
from pytest_autoresearch.cli.rows import document_of
from pytest_autoresearch.core.errors import GitError, UserError
from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.keeprule.audit import Audit
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.reports.summary import plural

_SHOWN_FILES = 3

_EPILOG = """examples:
  autoresearch best                       the best, and every keep that led to it
  autoresearch best --checkout            switch this checkout to it
  git checkout $(autoresearch best --json | jq -r .commit) -- train.py
                                          take the file alone, on the branch that you are on

--checkout switches to the branch best/TAG, which is made at that commit, or moved there where
nothing but commits of the campaign are on it; with commits of your own on it, best/TAG-2 is made,
and so on. The campaign's own branch, autoresearch/TAG, is left to its sessions. Nothing is done
while a file that git knows has uncommitted changes, where an untracked or ignored file would be
overwritten, or while a session runs here. The command that goes back is printed.

exit status: 0, also where the baseline is the best so far; 2 when it cannot be done."""


@dataclass(frozen=True, slots=True)
class Switched:
    """What became of the checkout.

    Attributes:
        branch: On which it is now.
        back: The command that goes back.
    """

    branch: str
    back: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind `best`."""
    parser.epilog = _EPILOG
    tag_argument(parser)
    parser.add_argument("--checkout", action="store_true", help="switch this checkout to it, on a branch best/TAG")


def command(given: argparse.Namespace) -> int:
    """Print the best, after switching to it where that was asked for."""
    repository = here(given)
    line = chain(repository.records(given.tag))
    if not line:
        raise UserError(
            f"the campaign {repository.ratchet.tag} has no baseline yet: type `pytest --autoresearch "
            f"--autoresearch-tag {repository.ratchet.tag}` to go on with it"
        )
    audited = audit.of(repository.ratchet.audits(), line)
    switched = switch(repository, line[-1]) if given.checkout else None
    if given.json:
        document = document_of(line[-1]) | {
            "audit": audit.sentence(audited) if audited else None,
            "line": [document_of(one) for one in line],
        }
        if switched:
            document |= {"branch": switched.branch, "back": switched.back}
        output.dump(document)
    else:
        _print(repository.ratchet.tag, line, audited, switched)
    return 0


def _print(tag: str, line: Sequence[Experiment], audited: Audit | None, switched: Switched | None) -> None:
    first, last = line[0], line[-1]
    change = f", {last.metric - first.metric:+.6f} since the baseline" if len(line) > 1 else ", the baseline"
    print(f"{output.colour('best of ' + tag, 'bold')}: {output.line(last.metric_name)} {last.metric:.6f}{change}")
    if len(line) > 1:
        advice = "" if audited else f": `autoresearch audit {tag}` says what may be quoted"
        print(output.line(audit.claim(audited) + advice))
    print(f"commit {last.commit} ({last.number:04d})\n")
    changes = ["" if one.decision.best is None else f"{one.metric - one.decision.best:+.6f}" for one in line]
    asked = ["" if one.decision.probability is None else f"{one.decision.probability:.2f}" for one in line]
    columns = [
        (Column("no.", right=True), [f"{one.number:04d}" for one in line]),
        (Column(last.metric_name[:16], right=True), [f"{one.metric:.6f}" for one in line]),
        (Column("change", right=True), changes),
        (Column("p", right=True), asked),
        (Column("commit"), [one.commit[:7] for one in line]),
        (Column("description"), [one.proposal.description for one in line]),
    ]
    print(f"{output.told(columns)}\n")
    if switched is None:
        print(
            output.pairs(
                [
                    ("all of it", f"git diff {first.commit[:7]} {last.commit[:7]}"),
                    ("take it", f"autoresearch best --tag {tag} --checkout"),
                ]
            )
        )
    else:
        print(f"this checkout is on the branch {switched.branch} now")
        print(f"back: {switched.back}")


# ------------------------------------------------------------------------------------------------ the checkout


def switch(repository: Repository, best: Experiment) -> Switched:
    """Bring the user's checkout to a commit, on a branch for it.

    Raises:
        UserError: Something would be lost or disturbed; nothing was done.
    """
    ratchet = repository.ratchet
    git = ratchet.git.at(ratchet.top)
    _check_clean(git)
    with contextlib.ExitStack() as held:
        for tag in ratchet.campaigns():  # a session reads the harness and its rules from this checkout
            ratchet.tag = tag
            held.enter_context(ratchet.alone())
        ratchet.tag = best.tag
        here, head = ratchet.here().removeprefix("refs/heads/"), git("rev-parse", "HEAD")
        branch = _branch(git, best)
        back = f"git switch {shlex.quote(here)}" if here else f"git switch --detach {head}"
        if here != branch or head != best.commit:
            _move(git, branch, best.commit, on_it=here == branch)
        return Switched(branch, f"git reset --keep {head}" if here == branch and head != best.commit else back)


def _move(git: Git, branch: str, commit: str, on_it: bool) -> None:
    try:
        if on_it:
            git("merge", "--ff-only", "--no-overwrite-ignore", "-q", commit)
        else:
            git("switch", "-q", "--no-overwrite-ignore", "--no-track", "-C", branch, commit)
    except GitError as error:
        said = " ".join(str(error).split()).removeprefix("git switch: ").removeprefix("error: ")
        raise UserError(f"git left this checkout as it was: {said}") from None


def _check_clean(git: Git) -> None:
    said = git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no")
    dirty = [entry[3:] for entry in said.split("\0") if entry]
    if dirty:
        more = f" and {plural(len(dirty) - _SHOWN_FILES, 'other')}" if len(dirty) > _SHOWN_FILES else ""
        raise UserError(
            f"{', '.join(dirty[:_SHOWN_FILES])}{more} ha{'s' if len(dirty) == 1 else 've'} uncommitted changes: type "
            "`git stash` or commit them first"
        )


def _branch(git: Git, best: Experiment) -> str:
    """The first name that is free, or whose branch holds nothing that the best commit has not."""
    taken = git.ask("rev-parse", "--verify", "--quiet", "refs/heads/best") is not None
    first = f"best{'-' if taken else '/'}{best.tag}"
    name, n = first, 1
    while (head := git.ask("rev-parse", "--verify", "--quiet", f"refs/heads/{name}")) is not None:
        if git.ask("merge-base", "--is-ancestor", head, best.commit) is not None:
            break
        n += 1
        name = f"{first}-{n}"
    return name
