"""One experiment's conversation with a model, as the messages that are sent. Pure; knows no service and no tools.

What is sent again must be the same to the byte, or the prompt cache is lost: blocks are added at the end and never
changed. At most four of them carry a breakpoint: the end of the system prompt, the blocks of the opening that seldom
change, and the last block of the last message of ours, which moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Block = dict[str, Any]

_BREAKPOINTS = 4


@dataclass(slots=True)
class Conversation:
    """What was said so far, and what is owed.

    Attributes:
        system: The texts of the system prompt; empty ones are left out, here and below.
        seldom: The first texts of the opening, which seldom change from one experiment to the next.
        recent: The others.
        long_cache: Whether the cache is to last an hour.
        texts: The files as the model has written them, by path.
        open_call: The call that awaits its answer; empty where there is none.
    """

    system: tuple[str, ...]
    seldom: tuple[str, ...]
    recent: tuple[str, ...]
    long_cache: bool = False
    texts: dict[str, str] = field(default_factory=dict)
    open_call: str = ""
    _messages: list[dict[str, Any]] = field(default_factory=list)
    _owed: list[Block] = field(default_factory=list)
    _opening: int = field(init=False)

    def __post_init__(self) -> None:
        self.say(*self.seldom, *self.recent)
        self._opening = len(self._messages[0]["content"])

    @property
    def answered(self) -> bool:
        """Whether the model has said anything."""
        return len(self._messages) > 1

    @property
    def grown(self) -> bool:
        """Whether more than the opening was said, by us or by the model."""
        return self.answered or len(self._messages[0]["content"]) > self._opening

    def say(self, *texts: str) -> None:
        """Add to our side, after the answers that are owed."""
        blocks = [*self._owed, *({"type": "text", "text": text} for text in texts if text.strip())]
        self._owed = []
        if not blocks:
            return
        if self._messages and self._messages[-1]["role"] == "user":
            self._messages[-1]["content"] += blocks
        else:
            self._messages.append({"role": "user", "content": blocks})

    def hear(self, content: Sequence[Block]) -> None:
        """Add the model's side; nothing where it said nothing, for an empty message may not be sent."""
        if self._messages[-1]["role"] == "assistant":  # it goes on where it paused
            self._messages[-1]["content"] += content
        elif content:
            self._messages.append({"role": "assistant", "content": list(content)})

    def owe(self, call: str, text: str, failed: bool = False) -> None:
        """The answer to a call; it is sent with what we say next."""
        self._owed.append({"type": "tool_result", "tool_use_id": call, "content": text, "is_error": failed})

    def answer(self, text: str) -> None:
        """Say what came of the call that is open, or just say it."""
        if self.open_call:
            self.owe(self.open_call, text, failed=True)
            self.open_call = ""
            self.say()
        else:
            self.say(text)

    def request(self) -> dict[str, Any]:
        """The arguments `system` and `messages` of a request."""
        system: list[Block] = [{"type": "text", "text": text} for text in self.system if text.strip()]
        messages = [{**message, "content": list(message["content"])} for message in self._messages]
        marked = [(system, len(system) - 1)]
        marked += [(messages[0]["content"], at) for at in range(sum(1 for text in self.seldom if text.strip()))]
        ours = next(message["content"] for message in reversed(messages) if message["role"] == "user")
        marked = [*marked[: _BREAKPOINTS - 1], (ours, len(ours) - 1)]
        mark: Block = {"type": "ephemeral", "ttl": "1h"} if self.long_cache else {"type": "ephemeral"}
        for blocks, at in marked:
            if blocks:
                blocks[at] = {**blocks[at], "cache_control": mark}
        return {"system": system, "messages": messages}
