"""One experiment's conversation with a model, as the messages to send. Pure; knows no service and no tools.

Blocks are only added at the end and never changed, because the prompt cache needs the same bytes again. At most four
blocks carry a cache breakpoint: the end of the system prompt, the blocks of the opening that seldom change, and the
last block of our last message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Block = dict[str, Any]

_BREAKPOINTS = 4
_SHOWN = 20_000  # characters of a block in a transcript


@dataclass(slots=True)
class Conversation:
    """The messages so far, and the answers still to send.

    Attributes:
        system: The texts of the system prompt; empty texts are left out, here and below.
        seldom: The first texts of the opening, which seldom change between experiments.
        recent: The other texts of the opening.
        long_cache: Whether the cache lasts an hour.
        texts: The model's versions of the files, by path.
        open_call: The id of the unanswered call; empty if there is none.
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
        """Whether the model has replied."""
        return len(self._messages) > 1

    @property
    def grown(self) -> bool:
        """Whether there is more than the opening."""
        return self.answered or len(self._messages[0]["content"]) > self._opening

    @property
    def size(self) -> int:
        """The bytes that were added to the opening; each request sends them again."""
        blocks = [block for message in self._messages for block in message["content"]]
        return sum(
            len(json.dumps(block, ensure_ascii=False).encode("utf-8", "replace")) for block in blocks[self._opening :]
        )

    def transcript(self) -> str:
        """The conversation for people, as Markdown, without the parts of the opening that seldom change."""
        said = []
        for at, message in enumerate(self._messages):
            skipped = sum(1 for text in self.seldom if text.strip()) if at == 0 else 0
            who = "The model" if message["role"] == "assistant" else "The session"
            said += [f"## {who}", *(_shown(block) for block in message["content"][skipped:])]
        return "\n\n".join(said)

    def say(self, *texts: str) -> None:
        """Add our texts, after the answers still to send."""
        blocks = [*self._owed, *({"type": "text", "text": text} for text in texts if text.strip())]
        self._owed = []
        if not blocks:
            return
        if self._messages and self._messages[-1]["role"] == "user":
            self._messages[-1]["content"] += blocks
        else:
            self._messages.append({"role": "user", "content": blocks})

    def hear(self, content: Sequence[Block]) -> None:
        """Add the model's reply; an empty reply is skipped, because the API rejects empty messages."""
        if self._messages[-1]["role"] == "assistant":  # it continues after a pause
            self._messages[-1]["content"] += content
        elif content:
            self._messages.append({"role": "assistant", "content": list(content)})

    def owe(self, call: str, text: str, failed: bool = False) -> None:
        """Answer a call; the answer is sent with our next message."""
        self._owed.append({"type": "tool_result", "tool_use_id": call, "content": text, "is_error": failed})

    def answer(self, text: str) -> None:
        """Answer the open call, or add the text if no call is open."""
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


def _shown(block: Block) -> str:
    match block["type"]:
        case "text" | "thinking" as kind:
            text = str(block[kind])
        case "tool_use":
            arguments = json.dumps(block["input"], ensure_ascii=False, indent=2)
            text = f"`{block['name']}`\n\n```json\n{arguments}\n```"
        case "tool_result":
            text = str(block["content"])
        case kind:
            text = f"({kind})"
    more = len(text) - _SHOWN
    return f"{text[:_SHOWN]}\n\n[{more:,} more characters]" if more > 0 else text
