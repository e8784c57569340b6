"""`autoresearch best`: the best program of a campaign, the keeps that led to it, and a branch to check it out.

Sessions move the campaign's own branch, so a checkout gets a branch beside it.
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
from pytest_autoresearch.core.text import shortened
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.keeprule.audit import Audit
from pytest_autoresearch.keeprule.replicates import levels
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.reports.summary import plural

_SHOWN_FILES = 3
_SAID = 200  # characters of a description

_EPILOG = """examples:
  autoresearch best                       the best, and every keep that led to it
  autoresearch best --checkout            switch this checkout to it
  git checkout $(autoresearch best --json | jq -r .commit) -- train.py
                                          take only the file, on your current branch

--checkout switches to the branch best/TAG, created at the best commit. If best/TAG exists and has
only commits of the campaign, it is moved there; if it has commits of your own, best/TAG-2 is
created, and so on. The campaign's branch, autoresearch/TAG, is not checked out: sessions move it.
Nothing is changed if a tracked file has uncommitted changes that the best does not have, if an
untracked or ignored file would be overwritten, or while a session runs here. The command to go back
is printed.

exit status: 0, also if the baseline is the best so far; 2 if it cannot be done."""


@dataclass(frozen=True, slots=True)
class Switched:
    """A checkout that was switched.

    Attributes:
        branch: Its branch now.
        back: The command to go back.
    """

    branch: str
    back: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `best`."""
    parser.epilog = _EPILOG
    tag_argument(parser)
    parser.add_argument("--checkout", action="store_true", help="switch this checkout to it, on a branch best/TAG")


def command(given: argparse.Namespace) -> int:
    """Print the best; with --checkout, switch to it first."""
    repository = here(given)
    records = repository.records(given.tag)
    line = chain(records)
    if not line:
        raise UserError(
            f"the campaign {repository.ratchet.tag} has no baseline yet: type `pytest --autoresearch "
            f"--autoresearch-tag {repository.ratchet.tag}` to continue it"
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
        _print(repository.ratchet.tag, line, levels(records), audited, switched)
    return 0


def _print(
    tag: str, line: Sequence[Experiment], levels: Sequence[float], audited: Audit | None, switched: Switched | None
) -> None:  # fmt: skip
    last = line[-1]
    change = f", {levels[-1] - levels[0]:+.6f} since the baseline" if len(line) > 1 else ", the baseline"
    print(f"{output.colour('best of ' + tag, 'bold')}: {output.line(last.metric_name)} {last.metric:.6f}{change}")
    if len(line) > 1:
        advice = "" if audited else f": `autoresearch audit {tag}` measures a gain that may be quoted"
        print(output.line(audit.claim(audited) + advice))
    print(f"commit {last.commit} ({last.number:04d})\n")
    changes = ["" if one.decision.best is None else f"{one.metric - one.decision.best:+.6f}" for one in line]
    asked = ["" if one.decision.probability is None else f"{one.decision.probability:.2f}" for one in line]
    columns = [
        (Column("no.", right=True), [f"{one.number:04d}" for one in line]),
        (Column(last.metric_name[:16], right=True), [f"{one.metric:.6f}" for one in line]),
        (Column("change", right=True), changes),
        (Column("P(better)", right=True), asked),
        (Column("commit"), [one.commit[:7] for one in line]),
        (Column("description"), [shortened(output.line(one.proposal.description), _SAID) for one in line]),
    ]
    print(f"{output.told(columns)}\n")
    if switched is None:
        print(
            output.pairs(
                [
                    ("full diff", f"git diff {line[0].commit[:7]} {last.commit[:7]}"),
                    ("check out", f"autoresearch best --tag {tag} --checkout"),
                ]
            )
        )
    else:
        print(f"this checkout is now on the branch {switched.branch}")
        print(f"to go back: {switched.back}")


# ------------------------------------------------------------------------------------------------ the checkout


def switch(repository: Repository, best: Experiment) -> Switched:
    """Switch the user's checkout to a commit, on its own branch.

    Raises:
        UserError: Work would be lost or a session disturbed; nothing was changed.
    """
    ratchet = repository.ratchet
    git = ratchet.git.at(ratchet.top)
    same = _check_clean(git, best.commit)
    with contextlib.ExitStack() as held:
        for tag in ratchet.campaigns():  # a session reads its harness and rules from this checkout
            ratchet.tag = tag
            held.enter_context(ratchet.alone())
        ratchet.tag = best.tag
        here, head = ratchet.here().removeprefix("refs/heads/"), git("rev-parse", "HEAD")
        branch = _branch(git, best)
        back = f"git switch {shlex.quote(here)}" if here else f"git switch --detach {head}"
        if here != branch or head != best.commit:
            if same:  # git switches only if its index knows that these files are as they should be
                git("--literal-pathspecs", "add", "--", *same)
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
        raise UserError(f"git did not change this checkout: {said}") from None


def _check_clean(git: Git, commit: str) -> list[str]:
    """Check that no tracked file has uncommitted changes, except those that are as in the commit, which are returned.

    The kept edits of a checkout that is not on the campaign's branch are such files.
    """
    said = git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no")
    dirty = [entry[3:] for entry in said.split("\0") if entry]
    same = [
        path for path in dirty if _blob(git, path) == git.ask("rev-parse", "--verify", "--quiet", f"{commit}:{path}")
    ]
    if dirty := [path for path in dirty if path not in same]:
        more = f" and {plural(len(dirty) - _SHOWN_FILES, 'other')}" if len(dirty) > _SHOWN_FILES else ""
        raise UserError(
            f"{', '.join(dirty[:_SHOWN_FILES])}{more} ha{'s' if len(dirty) == 1 else 've'} uncommitted changes: type "
            "`git stash` or commit them first"
        )
    return same


def _blob(git: Git, path: str) -> str:
    """The blob that git would store for a plain file; empty for anything else."""
    file = git.folder / path
    return git("hash-object", "--", path) if file.is_file() and not file.is_symlink() else ""


def _branch(git: Git, best: Experiment) -> str:
    """The first branch name that is free, or whose branch is contained in the best commit."""
    taken = git.ask("rev-parse", "--verify", "--quiet", "refs/heads/best") is not None
    first = f"best{'-' if taken else '/'}{best.tag}"
    name, n = first, 1
    while (head := git.ask("rev-parse", "--verify", "--quiet", f"refs/heads/{name}")) is not None:
        if git.ask("merge-base", "--is-ancestor", head, best.commit) is not None:
            break
        n += 1
        name = f"{first}-{n}"
    return name
