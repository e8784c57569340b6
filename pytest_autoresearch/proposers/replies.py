"""Carries out the calls in one reply of a model, and answers each. Knows no service."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.records import from_json, to_json
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.proposers.conversation import Block, Conversation
from pytest_autoresearch.proposers.edits import EditError, read_text, rewritten
from pytest_autoresearch.proposers.messages import Reply
from pytest_autoresearch.proposers.quoting import fenced, line
from pytest_autoresearch.proposers.tools import CallError, GiveUp, Look, Propose, WriteNotes, read_call

MOST_LOOKS = 8  # in one reply: each may be long
_SAID_BYTES = 300  # of a reply in words, for people


@dataclass(frozen=True, slots=True)
class Idea:
    """A further proposal of a reply, for another experiment.

    Attributes:
        number: The experiment whose conversation has it.
        asked: The proposal.
        seen: The texts of the files that it writes as a whole, as the model has seen them; None for a new file.
    """

    number: int
    asked: Propose
    seen: Mapping[str, str | None]

    def texts(self, context: Context) -> dict[str, str]:
        """The new texts of the files, in the tree as it is now.

        Raises:
            EditError: An edit is not possible there, or would undo what was kept since.
        """
        now = {path: read_text(context.folder, path) for path in self.seen}
        if changed := [path for path in now if now[path] != self.seen[path]]:
            raise EditError(f"{changed[0]} has changed")
        return rewritten(
            self.asked.edits, self.asked.files, context.editable, lambda path: read_text(context.folder, path)
        )


def written(ideas: Sequence[Idea]) -> str:
    """The ideas as text; empty without ideas."""
    return json.dumps(to_json(ideas)) if ideas else ""


def ideas_of(text: str) -> list[Idea]:
    """The ideas of a text that `written` made; none if it is another text."""
    try:
        return from_json(json.loads(text), list[Idea])
    except ValueError:
        return []


@dataclass(slots=True)
class Outcome:
    """The result of a reply.

    Attributes:
        meant: The first proposal in it, even if its edits are impossible. If several are asked for, the first that is
            possible, else the last.
        made: Whether its edits are possible; the conversation then holds the new texts and the open call.
        others: The further proposals, if several are asked for; their edits are possible.
        given_up: Whether the idea is dropped.
        looks: The number of looks.
        fault: What was wrong with the reply, for the model and for people; empty if nothing was.
    """

    meant: Proposal | None = None
    made: bool = False
    others: list[Idea] = field(default_factory=list)
    given_up: bool = False
    looks: int = 0
    fault: str = ""


def carry_out(
    context: Context, talk: Conversation, reply: Reply, proposer: str, repairing: bool, enough: bool
) -> Outcome:
    """Answer all calls in a reply.

    Args:
        proposer: The proposer's name in a proposal.
        repairing: Whether a failed proposal is being repaired; only then may the idea be given up.
        enough: Whether looks and pauses are used up.
    """
    outcome = Outcome()
    if reply.broken:
        outcome.fault = f"the arguments of its call were not JSON ({reply.broken})"
        talk.say(f"Your last reply is lost: the arguments of its call were not JSON ({reply.broken}). Call again.")
    elif reply.stop == "max_tokens":
        outcome.fault = f"its reply was cut off at {reply.limit:,} tokens"
        talk.say(
            f"Your last reply is lost: it was cut off at {reply.limit:,} tokens, including your thinking. Be brief, "
            "and send edits instead of whole files."
        )
    else:
        talk.hear(reply.content)
        calls = [block for block in reply.content if block["type"] == "tool_use"]
        for call in calls:
            _answer(context, talk, call, outcome, proposer, repairing, enough)
        if not outcome.made and not outcome.given_up:
            if not calls and reply.stop != "pause_turn":
                words = " ".join(block["text"] for block in reply.content if block["type"] == "text")
                outcome.fault = (
                    f'it called no tool and said "{line(words, _SAID_BYTES)}"' if words else "it called no tool"
                )
                talk.say("You called no tool, and nobody reads other text. Call `propose`.")
            elif not calls and enough:
                outcome.fault = "it paused too often"
                talk.say("Do not pause again. Call `propose` now.")
            talk.say()
    return outcome


def _answer(
    context: Context, talk: Conversation, call: Block, outcome: Outcome, proposer: str, repairing: bool, enough: bool
) -> None:  # fmt: skip
    """Carry out one call. The answer to a possible proposal stays open until its result is known."""
    try:
        match read_call(call["name"], call["input"]):
            case Propose() as asked:
                several = context.terms.lanes > 1 and not repairing
                if outcome.meant is not None and not several:
                    raise CallError("only the first proposal of a reply counts")
                if outcome.made:
                    seen = {file.path: read_text(context.folder, file.path) for file in asked.files}
                    idea = Idea(context.number, asked, seen)
                    idea.texts(context)
                    outcome.others.append(idea)
                    talk.owe(call["id"], "it is tried as another experiment")
                    return
                outcome.meant = proposal_of(asked, proposer)
                if asked.edits or asked.files or not talk.texts:  # else the same edit is proposed again
                    talk.texts |= rewritten(
                        asked.edits, asked.files, context.editable, lambda path: _text(context, talk, path)
                    )
                talk.open_call = call["id"]
                outcome.made = True
            case GiveUp() if outcome.meant is not None:
                raise CallError("the proposal in the same reply counts")
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
                talk.owe(call["id"], "the notes are saved")
    except (CallError, EditError) as error:
        talk.owe(call["id"], str(error), failed=True)
        outcome.fault = outcome.fault or str(error)


def proposal_of(asked: Propose, proposer: str) -> Proposal:
    """What the model proposes, in the words of a record."""
    return Proposal(asked.description, asked.hypothesis, proposer, expected=asked.expected, area=asked.area)


def _text(context: Context, talk: Conversation, path: str) -> str | None:
    """The file's text after the edits of this conversation."""
    return talk.texts[path] if path in talk.texts else read_text(context.folder, path)
