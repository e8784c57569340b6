"""What the Anthropic API turns down: the form of a request, checked as the real one does, in its words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol


class Complaint(NamedTuple):
    """An error response."""

    status: int
    type: str
    message: str


class Remembered(Protocol):
    """What it has said itself, which must come back unchanged."""

    models: dict[str, str]
    thoughts: dict[str, str]
    paused: list[Any]


_FIELDS = {
    "max_tokens", "messages", "model", "system", "stream", "tools", "tool_choice", "thinking", "metadata",
    "stop_sequences", "cache_control", "output_config", "service_tier",
}  # fmt: skip
_NOT_STRICT = {"minLength", "maxLength", "minimum", "maximum", "maxItems", "pattern", "multipleOf"}
_MOST_OUTPUT = 128_000


def check_request(
    body: Mapping[str, Any], headers: Mapping[str, str], endpoint: str, said: Remembered
) -> Complaint | None:
    """Why the request is not taken, or None."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", _header(headers, "anthropic-version")):
        return _invalid("anthropic-version: header is required")
    if body.get("model") not in said.models:
        return Complaint(404, "not_found_error", f"model: {body.get('model')}")
    if endpoint == "messages" and not 0 < body.get("max_tokens", 0) <= _MOST_OUTPUT:
        return _invalid(f"max_tokens: must be between 1 and {_MOST_OUTPUT}")
    for words in (*_fields(body, endpoint), *_messages(body, said), *_breakpoints(body), *_tools(body)):
        return _invalid(words)
    return None


def _invalid(words: str) -> Complaint:
    return Complaint(400, "invalid_request_error", words)


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.casefold() == name), "")


def _fields(body: Mapping[str, Any], endpoint: str) -> Iterator[str]:
    allowed = _FIELDS - {"max_tokens", "stream"} if endpoint == "count_tokens" else _FIELDS
    for name in body:
        if name not in allowed:
            yield f"{name}: Extra inputs are not permitted"
    if "thinking" in body and body.get("tool_choice", {}).get("type") in ("any", "tool"):
        yield "Thinking may not be enabled when tool_choice forces tool use."


def _messages(body: Mapping[str, Any], said: Remembered) -> Iterator[str]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "messages: at least one message is required"
        return
    open_calls: list[str] = []
    for at, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role != ("user", "assistant")[at % 2]:
            yield f'messages.{at}: roles must alternate between "user" and "assistant"'
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(content, list) or not content:
            yield f"messages.{at}: all messages must have non-empty content"
            return
        answered = [block["tool_use_id"] for block in content if block.get("type") == "tool_result"]
        if strange := [call for call in answered if call not in open_calls]:
            yield f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {strange[0]}"
        if left := [call for call in open_calls if call not in answered]:
            yield f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks: {left[0]}"
        kinds = [block.get("type") for block in content]
        if "tool_result" in kinds[kinds.index("text") if "text" in kinds else len(kinds) :]:
            yield f"messages.{at}: `tool_result` blocks must come first"
        open_calls = [block["id"] for block in content if block.get("type") == "tool_use"]
        for where, block in enumerate(content):
            yield from (f"messages.{at}.content.{where}{words}" for words in _block(block, role, said))
    if open_calls:
        yield f"messages.{len(messages) - 1}: `tool_use` ids were found without `tool_result` blocks: {open_calls[0]}"
    if messages[-1]["role"] == "assistant" and messages[-1]["content"][-len(_last(said)) :] != _last(said):
        yield "This model does not support assistant message prefill."


def _last(said: Remembered) -> list[Any]:
    return said.paused[-1] if said.paused else ["nothing was paused"]


def _block(block: Mapping[str, Any], role: str, said: Remembered) -> Iterator[str]:
    fields = {
        "text": {"text"},
        "thinking": {"thinking", "signature"},
        "tool_use": {"id", "name", "input"},
        "tool_result": {"tool_use_id", "content", "is_error"},
    }.get(block.get("type", ""))
    if fields is None:
        yield f": unknown type {block.get('type')}"
        return
    for name in set(block) - fields - {"type", "cache_control"}:
        yield f".{name}: Extra inputs are not permitted"
    for name in fields - {"is_error", "content"} - set(block):
        yield f".{name}: Field required"
    if block["type"] == "text" and not block.get("text", "").strip():
        yield ": text content blocks must contain non-whitespace text"
    if block["type"] == "thinking" and said.thoughts.get(block.get("signature", "")) != block.get("thinking"):
        yield ": `thinking` blocks in the latest assistant message cannot be modified"
    if block["type"] in ("thinking", "tool_use") and role == "user":
        yield f": {block['type']} blocks can only be in `assistant` messages"
    if block["type"] == "tool_use" and not isinstance(block.get("input"), dict):
        yield ".input: Input should be a valid dictionary"


def _breakpoints(body: Mapping[str, Any]) -> Iterator[str]:
    blocks = [*body.get("tools", ()), *(body["system"] if isinstance(body.get("system"), list) else ())]
    for message in body["messages"]:
        blocks += message["content"] if isinstance(message["content"], list) else []
    marked = [block for block in blocks if "cache_control" in block]
    if len(marked) > 4:
        yield f"A maximum of 4 blocks with cache_control may be provided. Found {len(marked)}."
    if any(block.get("type") == "thinking" for block in marked):
        yield "cache_control cannot be set for thinking blocks"
    for block in marked:
        if block["cache_control"] not in (
            {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "5m"}, {"type": "ephemeral", "ttl": "1h"},
        ):  # fmt: skip
            yield f"cache_control: {block['cache_control']} is none"
    lives = [block["cache_control"].get("ttl", "5m") for block in marked]
    if lives != sorted(lives):  # 1h sorts before 5m
        yield "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block"


def _tools(body: Mapping[str, Any]) -> Iterator[str]:
    tools = body.get("tools", [])
    names = [tool.get("name", "") for tool in tools]
    if len(set(names)) != len(names):
        yield "tools: Tool names must be unique."
    for at, tool in enumerate(tools):
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool.get("name", "")):
            yield f"tools.{at}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        if tool.get("input_schema", {}).get("type") != "object":
            yield f"tools.{at}.input_schema.type: Field required"
        if tool.get("strict"):
            yield from (f"tools.{at}.input_schema: {words}" for words in _strict(tool["input_schema"]))


def _strict(schema: Mapping[str, Any]) -> Iterator[str]:
    for word in _NOT_STRICT & set(schema):
        yield f"For '{schema.get('type')}' type, property '{word}' is not supported"
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            yield "For 'object' type, 'additionalProperties' must be explicitly set to false"
        if not set(schema.get("required", ())) <= set(schema.get("properties", {})):
            yield "required names a property that is not there"
        for one in schema.get("properties", {}).values():
            yield from _strict(one)
    if schema.get("type") == "array":
        yield from _strict(schema.get("items", {}))
