"""What the person who watches says to the proposer: a file with one message in a line, the oldest first."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Experiment

MOST_CHARACTERS = 4_000
_MOST_SHOWN = 10  # of messages that no proposal has seen, the latest ones


class Inbox:
    """The messages of one campaign."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, text: str) -> str:
        """Add a message, and return it as proposers see it: with its time.

        Raises:
            UserError: There is no text, or it is too long.
        """
        if not (text := text.strip()):
            raise UserError('there is nothing to say: type `autoresearch say "what the proposer should know"`')
        if len(text) > MOST_CHARACTERS:
            raise UserError(
                f"the message has {len(text):,} characters, and {MOST_CHARACTERS:,} are the most: shorten it, or write "
                "it into program.md"
            )
        message = f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(message) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())  # in one piece, beside another message
        finally:
            os.close(descriptor)
        return message

    def waiting(self, records: Iterable[Experiment]) -> tuple[str, ...]:
        """The messages that no recorded proposal has seen."""
        seen = {message for record in records for message in record.heard}
        try:
            lines = self._path.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ()
        found = []
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:  # a line that was cut by a full disk
                continue
            if isinstance(message, str) and message not in seen:
                found.append(message)
        return tuple(found[-_MOST_SHOWN:])
