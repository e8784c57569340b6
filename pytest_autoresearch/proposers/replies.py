"""One reply of a model: its calls carried out, each with the answer that it is owed. Knows no service."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.proposers.conversation import Block, Conversation
from pytest_autoresearch.proposers.edits import EditError, read_text, rewritten
from pytest_autoresearch.proposers.messages import Reply
from pytest_autoresearch.proposers.quoting import fenced
from pytest_autoresearch.proposers.tools import CallError, GiveUp, Look, Propose, WriteNotes, read_call

MOST_LOOKS = 8  # in one reply: each may be long


@dataclass(slots=True)
class Outcome:
    """What a reply came to.

    Attributes:
        meant: The first proposal in it, whether it could be made or not.
        made: Whether it could: the conversation holds the new texts, and its call is open.
        given_up: The idea is dropped.
        looks: How often it has looked at something.
        fault: What was wrong with the reply, for people too; empty where nothing was.
    """

    meant: Proposal | None = None
    made: bool = False
    given_up: bool = False
    looks: int = 0
    fault: str = ""


def carry_out(
    context: Context, talk: Conversation, reply: Reply, proposer: str, repairing: bool, enough: bool
) -> Outcome:
    """Answer everything in a reply.

    Args:
        proposer: The name that a proposal gets.
        repairing: Whether something has failed, which may be given up.
        enough: Whether it has looked at things, or paused, for long enough.
    """
    outcome = Outcome()
    if reply.broken:
        outcome.fault = f"the arguments of its call were no JSON ({reply.broken})"
        talk.say(f"Your last reply is lost: the arguments of its call were no JSON ({reply.broken}). Call again.")
    elif reply.stop == "max_tokens":
        outcome.fault = f"its reply was cut off at {reply.limit:,} tokens"
        talk.say(
            f"Your last reply is lost: it was cut off at {reply.limit:,} tokens, your thinking included. Be brief, and "
            "send edits rather than whole files."
        )
    else:
        talk.hear(reply.content)
        calls = [block for block in reply.content if block["type"] == "tool_use"]
        for call in calls:
            _answer(context, talk, call, outcome, proposer, repairing, enough)
        if not outcome.made and not outcome.given_up:
            if not calls and reply.stop != "pause_turn":
                outcome.fault = "it called no tool"
                talk.say("You called no tool, and nobody reads the text. Call `propose`.")
            elif not calls and enough:
                outcome.fault = "it paused again and again"
                talk.say("Do not pause any more. Call `propose` now.")
            talk.say()
    return outcome


def _answer(
    context: Context, talk: Conversation, call: Block, outcome: Outcome, proposer: str, repairing: bool, enough: bool
) -> None:  # fmt: skip
    """Carry out one call. The answer to a proposal that can be made is left open: it is what becomes of it."""
    try:
        match read_call(call["name"], call["input"]):
            case Propose() as asked:
                if outcome.meant is not None:
                    raise CallError("only the first proposal of a reply counts")
                outcome.meant = Proposal(
                    asked.description, asked.hypothesis, proposer, expected=asked.expected, area=asked.area
                )
                if asked.edits or asked.files or not talk.texts:  # else the same edit is proposed once more
                    talk.texts |= rewritten(
                        asked.edits, asked.files, context.editable, lambda path: _text(context, talk, path)
                    )
                talk.open_call = call["id"]
                outcome.made = True
            case GiveUp() if outcome.meant is not None:
                raise CallError("there is a proposal in the same reply, and it counts")
            case GiveUp() if not repairing:
                raise CallError("only an experiment that failed can be given up: propose something else")
            case GiveUp():
                outcome.given_up = True
            case Look() | WriteNotes() if enough:
                raise CallError("enough; propose now")
            case Look() if outcome.looks >= MOST_LOOKS:
                raise CallError(f"at most {MOST_LOOKS} looks at a time")
            case Look(number):
                outcome.looks += 1
                talk.owe(call["id"], fenced(f"experiment {number:04d}", context.session.look(number)))
            case WriteNotes(text):
                context.session.note(text)
                talk.owe(call["id"], "they are kept")
    except (CallError, EditError) as error:
        talk.owe(call["id"], str(error), failed=True)
        outcome.fault = outcome.fault or str(error)


def _text(context: Context, talk: Conversation, path: str) -> str | None:
    """What the file holds after the edits of this conversation."""
    return talk.texts[path] if path in talk.texts else read_text(context.folder, path)
