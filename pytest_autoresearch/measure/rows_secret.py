"""The secret that draws the rows that a campaign is measured on: made once, kept in the user's cache folder.

Records hold only its hash. The file is named after that hash, so that every clone of this user finds it. Knows no
process: `make_job` hands the secret to the scorer alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from pytest_autoresearch.core.errors import UserError

VARIABLE = "AUTORESEARCH_SECRET"

_FORM, _FINGERPRINT = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{32}")
_MAKE = "python -c 'import secrets; print(secrets.token_hex(32))'"


def folder() -> Path:
    """The folder of the secrets: nothing that a run or git can see."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "pytest-autoresearch" / "secrets"


def fingerprint(secret: str) -> str:
    """What a record holds of a secret; empty for none."""
    return hashlib.sha256(f"rows {secret}".encode()).hexdigest()[:32] if secret else ""


def of_campaign(tag: str, recorded: str) -> str:
    """The secret of a campaign that has begun; empty if it has none.

    Args:
        recorded: Its fingerprint in the record of the baseline.

    Raises:
        UserError: It is not here.
    """
    if not recorded:
        return ""
    given = of_environment()
    if given and fingerprint(given) == recorded:
        return given
    if given:
        raise UserError(
            f"the campaign {tag} was measured on other rows than {VARIABLE} draws: set it to that campaign's secret, "
            "or choose another --autoresearch-tag"
        )
    with suppress(OSError):
        found = (folder() / recorded).read_text().strip() if _FINGERPRINT.fullmatch(recorded) else ""
        if fingerprint(found) == recorded:
            return found
    raise UserError(
        f"the campaign {tag} was measured on rows that a secret draws, and this machine does not have it: set "
        f"{VARIABLE} to the content of ~/.cache/pytest-autoresearch/secrets/{recorded} on the machine where it began, "
        "or choose another --autoresearch-tag"
    )


def new(home: Path, tag: str) -> str:
    """The secret of a campaign that begins now. Sessions that begin it at the same moment get the same one.

    Args:
        home: A folder of this repository's own.
    """
    if given := of_environment():
        return given
    secret = secrets.token_hex(32)
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder() / fingerprint(secret)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(f"{secret}\n")
    try:
        os.link(file, _first(home, tag))
    except FileExistsError:
        file.unlink()
        return _first(home, tag).read_text().strip()
    return secret


def begun(home: Path, tag: str) -> None:
    """The campaign has a baseline, whose record names the secret: a later campaign of the same name gets another."""
    with suppress(OSError):  # the file is only in the way of such a campaign
        _first(home, tag).unlink()


def _first(home: Path, tag: str) -> Path:
    """The file with the secret of a campaign that has no record yet."""
    return folder() / f"new-{hashlib.sha256(f'{home} {tag}'.encode()).hexdigest()[:32]}"


def of_environment() -> str:
    """The secret that the user has set; empty for none.

    Raises:
        UserError: It is not a secret.
    """
    given = os.environ.get(VARIABLE, "").strip().lower()
    if given and not _FORM.fullmatch(given):
        raise UserError(f"{VARIABLE} is not 64 hexadecimal digits: set it to what `{_MAKE}` prints, or unset it")
    return given
