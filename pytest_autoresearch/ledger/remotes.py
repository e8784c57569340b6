"""Pushes a campaign to a remote and pulls it from there, with plain git.

Records are immutable and never replaced: if both sides have different experiments under one number, nothing is
transferred. The branch only moves from the commit that was read before: forward, or back from a keep that the records
take back. Knows nothing of the command line.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pytest_autoresearch.core.errors import GitError, UserError
from pytest_autoresearch.core.history import chain, taken_back
from pytest_autoresearch.core.records import decode
from pytest_autoresearch.ledger.git import Git, reason
from pytest_autoresearch.ledger.ratchet import Ratchet

_RECORDS, _BRANCHES = "refs/autoresearch/", "refs/heads/autoresearch/"
_WAITING = "waiting/"  # candidates without a verdict; only these refs may differ, because no result depends on them


@dataclass(slots=True)
class CampaignCopy:
    """The refs of a campaign in one repository.

    Attributes:
        head: The commit of the branch; empty if there is no branch.
        refs: Tag objects by the names of their refs within the campaign, such as `0017`.
    """

    head: str = ""
    refs: dict[str, str] = field(default_factory=dict)

    @property
    def records(self) -> list[str]:
        """The numbers of the experiments, in order."""
        return sorted((name for name in self.refs if name.isdecimal()), key=int)


@dataclass(frozen=True, slots=True)
class Moved:
    """What was transferred.

    Attributes:
        records: The numbers of the transferred experiments.
        head: The commit of the branch on both sides now; empty if there is no branch.
        advanced: Whether the branch moved.
    """

    records: tuple[str, ...]
    head: str
    advanced: bool


def remote_of(git: Git, given: str | None) -> str:
    """The remote to use: the given one, by name or address, else `origin` or the only one.

    Raises:
        UserError: There is no such remote, or there are several.
    """
    known = git("remote").split()
    if given:
        if given.startswith("-") or not (given in known or re.search(r"[/:\\]|^\.", given)):
            raise UserError(f"there is no remote {given!r}; there is {', '.join(known) or 'none'}")
        return given
    if not known:
        raise UserError("this repository has no remote: type `git remote add origin URL` first")
    if "origin" not in known and len(known) > 1:
        raise UserError(f"there are several remotes: name one of {', '.join(known)}")
    return "origin" if "origin" in known else known[0]


def look(git: Git, remote: str) -> dict[str, CampaignCopy]:
    """Every campaign of a remote that has a record, by its tag.

    Raises:
        UserError: The remote cannot be reached.
    """
    with _told(f"{shown(remote)} cannot be reached"):
        said = git("ls-remote", "--refs", remote, f"{_RECORDS}*", f"{_BRANCHES}*")
    found = _sides(line.split("\t") for line in said.splitlines() if "\t" in line)
    return {tag: side for tag, side in found.items() if side.records}


def not_pulled(git: Git, known: Iterable[str], wanted: str = "") -> str:
    """What to type for a campaign whose branch a plain `git clone` or `git fetch` brought here, but not its records.

    Args:
        git: This repository's.
        known: The campaigns with records here.
        wanted: The one campaign of interest; empty for any.

    Returns:
        A part of a sentence; empty if there is no such branch.
    """
    found = re.findall(
        r"refs/remotes/([^/\n]+)/autoresearch/(.+)", git("for-each-ref", "--format=%(refname)", "refs/remotes")
    )
    missing = [(remote, tag) for remote, tag in found if tag not in known and wanted in ("", tag)]
    if not missing:
        return ""
    remotes = sorted({remote for remote, _ in missing}, key=lambda name: (name != "origin", name))
    tags = sorted(tag for remote, tag in missing if remote == remotes[0])
    more = [*(remotes[:1] if remotes[0] != "origin" else ()), *(("--tag", tags[0]) if wanted or len(tags) > 1 else ())]
    branches = ", ".join(f"autoresearch/{tag}" for tag in tags)
    return f"{remotes[0]} has {branches}: type `{shlex.join(['autoresearch', 'pull', *more])}` to fetch the records"


def push(ratchet: Ratchet, remote: str, theirs: CampaignCopy) -> Moved:
    """Send the records that the remote lacks, and the branch if it is ahead: all or nothing.

    Raises:
        UserError: The remote has different records, is ahead, or refuses the push; nothing was sent.
    """
    ours, tag = _here(ratchet), ratchet.tag
    _check_same(tag, remote, ours, theirs, "pushed")
    records = ratchet.records()
    keeps = chain(records)
    head = keeps[-1].commit if keeps else ""
    back = theirs.head in taken_back(records)
    if theirs.head and not back and not _leads_to(ratchet.git, theirs.head, head):
        raise UserError(
            f"{shown(remote)} has moved on, its branch autoresearch/{tag} is at {theirs.head[:7]}, and nothing was "
            f"pushed: type `{_command('pull', remote, tag)}` first"
        )
    missing = ours.refs.keys() - theirs.refs.keys()
    if not missing and head == theirs.head:
        return Moved((), head, False)
    folder, branch = f"{_RECORDS}{tag}", f"{_BRANCHES}{tag}"
    # No plus sign: if a different ref has appeared at the remote meanwhile, the whole push is refused.
    specs = [f"{folder}/*:{folder}/*", *(f"^{folder}/{name}" for name in _differ(ours, theirs))]
    lease = []
    if head:
        specs.append(f"{head}:{branch}")
        lease.append(f"--force-with-lease={branch}:{theirs.head}")
    try:
        ratchet.git("push", "--quiet", "--atomic", "--no-follow-tags", *lease, remote, *specs)
    except GitError as error:
        if look(ratchet.git, remote).get(tag, CampaignCopy()) != theirs:
            raise UserError(
                f"{shown(remote)} moved on in the meantime, and nothing was pushed: "
                f"type `{_command('pull', remote, tag)}` first"
            ) from None
        raise UserError(f"{shown(remote)} refused it, and nothing was pushed: {shown(reason(error))}") from None
    return Moved(_numbers(missing), head, head != theirs.head)


def pull(ratchet: Ratchet, remote: str, theirs: CampaignCopy) -> Moved:
    """Get the records that this repository lacks, and the branch if the remote is ahead: all or nothing.

    Raises:
        UserError: A session runs, this repository has different records, or a git command failed; nothing was changed.
    """
    folder, branch = f"{_RECORDS}{ratchet.tag}", f"{_BRANCHES}{ratchet.tag}"
    with ratchet.alone(), _told(f"nothing was pulled from {shown(remote)}"):
        ours = _here(ratchet)
        _check_same(ratchet.tag, remote, ours, theirs, "pulled")
        missing = theirs.refs.keys() - ours.refs.keys()
        wanted = [f"{folder}/{name}" for name in missing]
        wanted += [branch] if theirs.head not in ("", ours.head) else []
        if wanted:  # only objects: no ref moves except remote-tracking ones
            command = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--stdin")
            ratchet.git(*command, remote, stdin="".join(f"{name}\n" for name in wanted))
        ahead = _is_ahead(ratchet, remote, ours, theirs)
        if missing or ahead:
            records = {f"{folder}/{name}": theirs.refs[name] for name in missing}
            ratchet.adopt(records, theirs.head if ahead else "", ours.head)
    return Moved(_numbers(missing), theirs.head if ahead else ours.head, ahead)


def _is_ahead(ratchet: Ratchet, remote: str, ours: CampaignCopy, theirs: CampaignCopy) -> bool:
    """Whether the remote's branch is ahead, so that the branch here moves to it."""
    git, branch = ratchet.git, f"autoresearch/{ratchet.tag}"
    if theirs.head in ("", ours.head):
        return False
    back = bool(ours.head) and _takes_back(ratchet, ours, theirs)
    if not back and ours.head and _leads_to(git, theirs.head, ours.head):
        return False
    if not back and not _leads_to(git, ours.head, theirs.head):
        raise UserError(
            f"the branch {branch} is at {ours.head[:7]} here and at {theirs.head[:7]} at {shown(remote)}; they have "
            f"diverged, so nothing was pulled: `git log {ours.head[:7]}...{theirs.head[:7]}` shows both"
        )
    for where in ratchet.checked_out():
        raise UserError(
            f"the branch {branch} is checked out in {where} and would move, so nothing was pulled: "
            f"type `git -C {shlex.quote(str(where))} switch --detach` first"
        )
    return True


def _takes_back(ratchet: Ratchet, ours: CampaignCopy, theirs: CampaignCopy) -> bool:
    """Whether the remote's records, whose objects were fetched, take back the keep that the branch here is at."""
    more = [theirs.refs[name] for name in theirs.records if name not in ours.refs]
    texts = [ratchet.git("cat-file", "tag", tag).partition("\n\n")[2] for tag in more]
    records = [*ratchet.records(), *map(decode, texts)]
    return ours.head in taken_back(records) and chain(records)[-1].commit == theirs.head


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn a git error into one sentence."""
    try:
        yield
    except GitError as error:
        raise UserError(f"{what}: {shown(reason(error))}") from None


def _here(ratchet: Ratchet) -> CampaignCopy:
    said = ratchet.git("for-each-ref", "--format=%(objectname)%09%(refname)", f"{_RECORDS}{ratchet.tag}/")
    side = _sides(line.split("\t") for line in said.splitlines()).get(ratchet.tag, CampaignCopy())
    side.head = ratchet.head() or ""
    return side


def _sides(rows: Iterable[list[str]]) -> dict[str, CampaignCopy]:
    found: dict[str, CampaignCopy] = {}
    for object_name, ref in rows:
        if ref.startswith(_BRANCHES):
            found.setdefault(ref.removeprefix(_BRANCHES), CampaignCopy()).head = object_name
        elif ref.startswith(_RECORDS):
            tag, _, name = ref.removeprefix(_RECORDS).partition("/")
            found.setdefault(tag, CampaignCopy()).refs[name] = object_name
    return found


def _check_same(tag: str, remote: str, ours: CampaignCopy, theirs: CampaignCopy, verb: str) -> None:
    """Check that every record that both sides have is the same."""
    apart = sorted(name for name in _differ(ours, theirs) if not name.startswith(_WAITING))
    if not apart:
        return
    first = apart[0]
    more = f" (and {len(apart) - 1} more)" if len(apart) > 1 else ""
    raise UserError(
        f"experiment {first} of campaign {tag} is {ours.refs[first][:7]} here and {theirs.refs[first][:7]} at "
        f"{shown(remote)}{more}: both repositories continued the campaign, so nothing was {verb}; continue one of the "
        "two, and try the keeps of the other under a new --autoresearch-tag"
    )


def _differ(ours: CampaignCopy, theirs: CampaignCopy) -> list[str]:
    """The refs that both sides have, with different objects."""
    return [name for name, tag in ours.refs.items() if theirs.refs.get(name, tag) != tag]


def _leads_to(git: Git, old: str, new: str) -> bool:
    """Whether the branch may move from `old` to `new`: forward only; without a branch (empty `old`), to any commit."""
    return bool(new) and (not old or git.ask("merge-base", "--is-ancestor", old, new) is not None)


def _numbers(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(CampaignCopy(refs=dict.fromkeys(names, "")).records)


def _command(verb: str, remote: str, tag: str) -> str:
    return shlex.join(["autoresearch", verb, shown(remote), "--tag", tag])


def shown(text: str) -> str:
    """The text without user names and passwords in its URLs."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def span(numbers: Iterable[str]) -> str:
    """Numbers in words: `0004`, `0004 to 0006` if none between is missing, else `5 experiments`."""
    found = list(numbers)
    if len(found) > 2 and int(found[-1]) - int(found[0]) + 1 != len(found):
        return f"{len(found)} experiments"
    if len(found) > 2:
        return f"{found[0]} to {found[-1]}"
    return " and ".join(found)


def choose(sides: Mapping[str, CampaignCopy], remote: str, wanted: str | None) -> str:
    """The campaign of a remote to use: the wanted one, else the only one.

    Raises:
        UserError: There is no such campaign, or there are several.
    """
    names = ", ".join(sorted(sides))
    if not sides:
        raise UserError(f"{shown(remote)} has no campaign: `autoresearch push` sends one there")
    if wanted and wanted not in sides:
        raise UserError(f"{shown(remote)} has no campaign {wanted!r}; it has {names}")
    if not wanted and len(sides) > 1:
        raise UserError(f"{shown(remote)} has several campaigns: name one of {names} with --tag")
    return wanted or next(iter(sides))
