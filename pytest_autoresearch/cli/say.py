"""`autoresearch say`: a message to the proposer of a session."""

from __future__ import annotations

import argparse

from pytest_autoresearch.campaign.inbox import Inbox
from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.repository import here, tag_argument
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.session import live

_DEAF = ("search", "queue", "checkout", "commits")  # these read no prompt

_EPILOG = """example: autoresearch say "stop trying schedules, look at the tokenizer boundary"

The next proposal sees the message as your own words, beside program.md; its record keeps it (`autoresearch
show`). Without a running session, the next one begins with it. What holds for the whole campaign belongs into
program.md, which is read again for each proposal.

exit status: 0; 2 if there is no such campaign, or its proposer reads no messages"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The message and the campaign."""
    parser.description = "Tell the proposer of a campaign something; the next proposal sees it."
    parser.epilog = _EPILOG
    parser.add_argument("text", metavar="TEXT", help="the message, in quotes")
    tag_argument(parser, plain=False)


def command(given: argparse.Namespace) -> int:
    """Add the message."""
    repository = here(given)
    sessions = [one for one in live.sessions(repository.settings.experiments_folder) if given.tag in (None, one["tag"])]
    if len(sessions) > 1:
        raise UserError(f"several sessions run here: name one, --tag {' or --tag '.join(s['tag'] for s in sessions)}")
    tag = sessions[0]["tag"] if sessions else repository.choose(given.tag)
    if sessions and sessions[0]["proposer"].partition(":")[0] in _DEAF:
        raise UserError(
            f"the proposer {sessions[0]['proposer']} reads no messages: only anthropic and command:COMMAND do"
        )
    message = Inbox(repository.settings.campaign_artifacts(tag).inbox).add(given.text)
    if given.json:
        output.dump({"tag": tag, "message": message, "running": bool(sessions)})
    else:
        print(f"the next proposal of {tag} sees it" if sessions else f"the next session of {tag} begins with it")
    return 0
