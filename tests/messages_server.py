"""An Anthropic API on the loopback: speaks the wire protocol of `/v1/messages` (streamed), `/v1/messages/count_tokens`
and `/v1/models/ID`, turns down what the real one turns down, keeps a prompt cache, and fails on demand.

What it says is a scenario: a list of steps, of which each request takes the next, and the last one for ever. A step is
an object with some of these words:

    propose {…}, look N or [N, …], notes TEXT, give_up TEXT, calls [[NAME, INPUT], …]     calls, all in one reply
    text TEXT, thinking TEXT                                                              other blocks
    refusal CATEGORY, max_tokens true, pause true, stop REASON                            how it ends
    broken_json true                                                                      the arguments are none
    hidden N                                                                              tokens of thought, not shown
    error STATUS, type, message, details {…}, headers {…}                                 no reply but an error
    bare STATUS                                                                           a gateway's, in its own form
    event_error TYPE, drop "before" | "mid-stream" | "silently", garbage true             no reply but a broken one
    raw BYTES as Latin-1, content_type TYPE                                               200, and whatever it is
    pings true                                                                            a stream of nothing else
    times N                                                                               the step is taken N times

In texts `{number}` is the experiment's number, `{word}` a word of its own, and `{line NAME}` the last line that begins
with NAME in what the model has been shown or has written.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from messages_rules import Complaint, check_request

SCENARIOS = Path(__file__).parent / "scenarios"
KEY = "sk-ant-test-0123456789"
MODELS = ("claude-fable-5-2", "claude-opus-5-5", "claude-sonnet-4-5", "claude-haiku-5-5")

_LEAST_CACHED = 1024  # tokens of a prefix that is worth keeping
_LOOK_BACK = 20  # blocks before a breakpoint in which an older one is found
_LIFETIME = {"5m": 300.0, "1h": 3600.0}


@dataclass
class Asked:
    """One request, as it came, and the usage that it was answered with."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    status: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    at: float = field(default_factory=time.monotonic)


@dataclass
class Server:
    """The server's state, for tests to set and read.

    Attributes:
        asked: Every request, in order.
        keys: The keys that it takes.
        models: The models that it knows; a lifecycle may be given.
        models_raw: What it answers to a question for a model instead, as Latin-1.
        endpoints: Which of `messages`, `count_tokens` and `models` it has.
    """

    url: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    keys: set[str] = field(default_factory=lambda: {KEY})
    models: dict[str, str] = field(default_factory=lambda: dict.fromkeys(MODELS, "active"))
    models_raw: str = ""
    endpoints: set[str] = field(default_factory=lambda: {"messages", "count_tokens", "models"})
    cache: dict[str, float] = field(default_factory=dict)
    thoughts: dict[str, str] = field(default_factory=dict)
    paused: list[Any] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def messages(self) -> list[Asked]:
        """The requests for a message."""
        return [asked for asked in self.asked if asked.path == "/v1/messages"]

    def billed(self, name: str) -> int:
        """The sum of one count over all usages."""
        return sum(asked.usage.get(name, 0) for asked in self.asked)

    def play(self, scenario: str | list[dict[str, Any]]) -> None:
        """Take a scenario: its name, or its steps."""
        steps = json.loads((SCENARIOS / f"{scenario}.json").read_text()) if isinstance(scenario, str) else scenario
        self.steps = [step for step in steps for _ in range(step.get("times", 1))]

    def next(self) -> dict[str, Any]:
        """The step of the next request."""
        with self.lock:
            return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]


@contextmanager
def serving(scenario: str | list[dict[str, Any]] = ()) -> Iterator[Server]:  # type: ignore[assignment]
    """A server that listens as long as the context lasts."""
    state = Server()
    state.play(scenario)

    class Handler(_Handler):
        server_state = state

    class HTTPServer(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of a client that hangs up: the session under test runs in this process and shows stderr."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)  # type: ignore[arg-type]

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state
    finally:
        state.closed.set()
        server.shutdown()
        thread.join()
        server.server_close()


# --------------------------------------------------------------------------------------------------- tokens, cache


def tokens(value: object) -> int:
    """A token for every four bytes, begun ones whole."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return math.ceil(len(text.encode("utf-8", "replace")) / 4)


def segments(body: Mapping[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Every block of a request in the order of the prompt, without its breakpoint, and that breakpoint's lifetime."""
    system = body.get("system", [])
    system = [{"type": "text", "text": system}] if isinstance(system, str) else system
    blocks = [*body.get("tools", []), *system]
    for message in body["messages"]:
        content = message["content"]
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        blocks += [{"role": message["role"], **block} for block in content]
    found = []
    for block in blocks:
        mark = block.get("cache_control")
        found.append(({k: v for k, v in block.items() if k != "cache_control"}, mark.get("ttl", "5m") if mark else ""))
    return found


def use_cache(state: Server, body: Mapping[str, Any]) -> dict[str, Any]:
    """The input's part of a usage; the prefixes are kept."""
    digest, total, read, marks = hashlib.sha256(body["model"].encode()), 0, 0, []
    prefixes: list[tuple[str, int]] = []
    parts = segments(body)
    for at, (block, lifetime) in enumerate(parts):
        digest.update(json.dumps(block, sort_keys=True).encode())
        total += tokens(block)
        prefixes.append((digest.hexdigest(), total))
        if lifetime and total >= _LEAST_CACHED:
            marks.append((at, lifetime))
    now = time.monotonic()
    with state.lock:
        for at, _ in reversed(marks):
            for before in range(at, max(-1, at - _LOOK_BACK), -1):
                if state.cache.get(prefixes[before][0], 0.0) > now:
                    read = max(read, prefixes[before][1])
                    break
        written = {"5m": 0, "1h": 0}
        reached = read
        for at, lifetime in marks:
            name, size = prefixes[at]
            written[lifetime] += max(0, size - reached)
            reached = max(reached, size)
            state.cache[name] = now + _LIFETIME[lifetime]
    return {
        "input_tokens": total - reached,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written["5m"] + written["1h"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": written["5m"],
            "ephemeral_1h_input_tokens": written["1h"],
        },
    }


# ------------------------------------------------------------------------------------------------- what it answers


def content(step: Mapping[str, Any], body: Mapping[str, Any], seed: str) -> list[dict[str, Any]]:
    """The blocks of a reply."""
    blocks: list[dict[str, Any]] = []
    if "thinking" in step:
        signature = hashlib.sha256(f"{seed}{step['thinking']}".encode()).hexdigest()
        blocks.append({"type": "thinking", "thinking": step["thinking"], "signature": signature})
    if "text" in step:
        blocks.append({"type": "text", "text": step["text"]})
    calls: list[tuple[str, Any]] = [("look", {"number": number}) for number in _each(step.get("look", []))]
    calls += [("write_notes", {"text": text}) for text in _each(step.get("notes", []))]
    calls += [("propose", _proposal(one)) for one in _each(step.get("propose", []))]
    calls += [("give_up", {"reason": text}) for text in _each(step.get("give_up", []))]
    calls += [tuple(call) for call in step.get("calls", [])]
    for at, (name, given) in enumerate(calls):
        blocks.append({"type": "tool_use", "id": f"toolu_{seed}{at}", "name": name, "input": given})
    return [_filled(block, body) for block in blocks]


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _proposal(given: Mapping[str, Any]) -> dict[str, Any]:
    plain = {"edits": [], "files": [], "description": "a change", "hypothesis": "it helps", "expected": "", "area": ""}
    return plain | dict(given)


def _filled(value: Any, body: Mapping[str, Any]) -> Any:
    match value:
        case dict():
            return {name: _filled(one, body) for name, one in value.items()}
        case list():
            return [_filled(one, body) for one in value]
        case str() if "{" in value:
            said = re.findall(r"experiment (\d{4})\b", json.dumps(body["messages"][0]))
            number = str(int(said[-1])) if said else "0"
            value = value.replace("{number}", number).replace("{word}", "".join("qwertyuiop"[int(n)] for n in number))
            return re.sub(r"\{line (\w+)\}", lambda match: _line(match[1], body), value)
        case _:
            return value


def _line(name: str, body: Mapping[str, Any]) -> str:
    """As a model would: from the last edit that was taken, else from the files in the prompt."""
    turned_down: set[str] = set()
    for message in reversed(body["messages"]):
        blocks = [{"type": "text", "text": message["content"]}] if isinstance(message["content"], str) else (
            message["content"]
        )  # fmt: skip
        for block in reversed(blocks):
            texts = []
            if block["type"] == "tool_result" and str(block["content"]).startswith(("edit ", "file ")):
                turned_down.add(block["tool_use_id"])
            elif block["type"] == "tool_use" and block["name"] == "propose" and block["id"] not in turned_down:
                given = block["input"]
                texts = [edit["new"] for edit in given["edits"]] + [file["text"] for file in given["files"]]
            elif block["type"] == "text" and message["role"] == "user":
                texts = [block["text"]]
            for text in texts:
                if found := re.findall(rf"^{name}.*$", text, re.MULTILINE):
                    return str(found[-1])
    raise AssertionError(f"there is no line {name} in what the model was shown")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement
    server_state: Server

    def do_GET(self) -> None:
        asked = self._asked({})
        model = re.fullmatch(r"/v1/models/([^/]+)", asked.path)
        if self.server_state.models_raw:
            return self._raw(asked, self.server_state.models_raw.encode("latin-1"), "application/json")
        if not model or "models" not in self.server_state.endpoints:
            return self._nowhere(asked)
        if complaint := self._unknown_key():
            return self._refuse(asked, complaint)
        if model[1] not in self.server_state.models:
            return self._refuse(asked, Complaint(404, "not_found_error", f"model: {model[1]}"))
        told = {
            "type": "model", "id": model[1], "display_name": model[1], "created_at": "2026-01-01T00:00:00Z",
            "lifecycle": self.server_state.models[model[1]], "retires_at": "2027-01-22T00:00:00Z",
        }  # fmt: skip
        return self._send(asked, 200, told)

    def do_POST(self) -> None:
        asked = self._asked(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        name = {"/v1/messages": "messages", "/v1/messages/count_tokens": "count_tokens"}.get(asked.path, "")
        if name not in self.server_state.endpoints:
            return self._nowhere(asked)
        complaint = self._unknown_key() or check_request(asked.body, asked.headers, name, self.server_state)
        if complaint:
            return self._refuse(asked, complaint)
        if name == "count_tokens":
            return self._send(asked, 200, {"input_tokens": sum(tokens(block) for block, _ in segments(asked.body))})
        return self._message(asked, self.server_state.next())

    def _asked(self, body: dict[str, Any]) -> Asked:
        asked = Asked(self.path.partition("?")[0], dict(self.headers.items()), body)
        self.server_state.asked.append(asked)
        return asked

    def _unknown_key(self) -> Complaint | None:
        key = self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")
        return None if key in self.server_state.keys else Complaint(401, "authentication_error", "invalid x-api-key")

    def _nowhere(self, asked: Asked) -> None:
        """As a gateway that has no such endpoint."""
        self._send(asked, 404, {"detail": "Not Found"})

    def _refuse(self, asked: Asked, complaint: Complaint, headers: Mapping[str, str] = {}, **more: object) -> None:
        error = {"type": complaint.type, "message": complaint.message, **more}
        body = {"type": "error", "error": error, "request_id": f"req_{len(self.server_state.asked)}"}
        self._send(asked, complaint.status, body, headers)

    def _send(self, asked: Asked, status: int, body: object, headers: Mapping[str, str] = {}) -> None:
        asked.status = status
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(raw))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    # ------------------------------------------------------------------------------------------------- a message

    def _message(self, asked: Asked, step: Mapping[str, Any]) -> None:
        if "error" in step:
            status = step["error"]
            kind = {
                400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
                403: "permission_error", 404: "not_found_error", 409: "conflict_error", 413: "request_too_large",
                429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error",
            }.get(status, "api_error")  # fmt: skip
            said = Complaint(status, step.get("type", kind), step.get("message", "Overloaded"))
            more = {"details": step["details"]} if "details" in step else {}
            return self._refuse(asked, said, step.get("headers", {}), **more)
        if "bare" in step:
            return self._send(asked, step["bare"], {"detail": "No route"})
        if step.get("drop") == "before":
            return self._hang_up()
        if "raw" in step:
            return self._raw(asked, step["raw"].encode("latin-1"), step.get("content_type", "text/event-stream"))
        if "pings" in step:
            return self._ping(asked)
        if "garbage" in step:
            return self._send(asked, 200, "<html>")
        seed = hashlib.sha256(json.dumps(asked.body["messages"]).encode()).hexdigest()[:16]
        self._stream(asked, step, content(step, asked.body, seed))
        return None

    def _raw(self, asked: Asked, body: bytes, content_type: str) -> None:
        asked.status = 200
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _ping(self, asked: Asked) -> None:
        """Until the client hangs up, or the server ends."""
        asked.status = 200
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while not self.server_state.closed.wait(0.02):
            self._event("ping", {"type": "ping"})

    def _stream(self, asked: Asked, step: Mapping[str, Any], blocks: list[dict[str, Any]]) -> None:
        asked.status = 200
        most = asked.body["max_tokens"]
        output = sum(tokens(block.get("text") or block.get("thinking") or block.get("input")) for block in blocks)
        output += step.get("hidden", 0)
        stop = _stop_reason(step, blocks)
        if output > most or stop == "max_tokens":
            output, stop = most, "max_tokens"
        asked.usage = {**use_cache(self.server_state, asked.body), "output_tokens": output}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding" if step.get("drop") != "silently" else "Connection",
                         "chunked" if step.get("drop") != "silently" else "close")  # fmt: skip
        self.send_header("request-id", f"req_{len(self.server_state.asked)}")
        self.end_headers()
        self.close_connection = step.get("drop") == "silently"
        events = list(_events(asked, step, blocks, stop, output))
        if "drop" in step or "event_error" in step:
            events = events[: len(events) // 2]
        for name, event in events:
            self._event(name, event)
        if "event_error" in step:
            error = {"type": step["event_error"], "message": step.get("message", "Overloaded")}
            self._event("error", {"type": "error", "error": error, "request_id": "req_0"})
        if step.get("drop") == "mid-stream":
            return self._hang_up()
        for block in blocks:
            if block["type"] == "thinking":
                self.server_state.thoughts[block["signature"]] = block["thinking"]
        if stop == "pause_turn":
            self.server_state.paused.append(blocks)
        if step.get("drop") != "silently":
            self.wfile.write(b"0\r\n\r\n")
        return None

    def _event(self, name: str, event: object) -> None:
        raw = f"event: {name}\ndata: {json.dumps(event)}\n\n".encode()
        self.wfile.write(raw if self.close_connection else b"%x\r\n%s\r\n" % (len(raw), raw))

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Nothing: a test says what it needs to."""


def _stop_reason(step: Mapping[str, Any], blocks: list[dict[str, Any]]) -> str:
    for word, reason in (("refusal", "refusal"), ("max_tokens", "max_tokens"), ("pause", "pause_turn")):
        if word in step:
            return reason
    called = any(block["type"] == "tool_use" for block in blocks)
    return str(step.get("stop", "tool_use" if called else "end_turn"))


def _events(
    asked: Asked, step: Mapping[str, Any], blocks: list[dict[str, Any]], stop: str, output: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a stream, as the real one sends them; a reply that is cut off ends in mid-word."""
    usage = {**asked.usage, "output_tokens": 1, "service_tier": "standard"}
    message = {
        "id": f"msg_{id(asked)}", "type": "message", "role": "assistant", "model": asked.body["model"], "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    yield "message_start", {"type": "message_start", "message": message}
    yield "ping", {"type": "ping"}
    for index, block in enumerate(blocks):
        last = index == len(blocks) - 1
        empty = {**block, **{name: "" for name in ("text", "thinking", "signature") if name in block}}
        if block["type"] == "tool_use":
            empty["input"] = {}
        yield "content_block_start", {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in _deltas(block, cut=last and stop == "max_tokens", broken=last and "broken_json" in step):
            yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", "index": index}
    details = None
    if stop == "refusal":
        details = {"type": "refusal", "category": step["refusal"], "explanation": step.get("explanation")}
    delta = {"stop_reason": stop, "stop_sequence": None, "stop_details": details}
    final = {name: asked.usage[name] for name in ("input_tokens", "cache_read_input_tokens")}
    final["cache_creation_input_tokens"] = asked.usage["cache_creation_input_tokens"]
    yield "message_delta", {"type": "message_delta", "delta": delta, "usage": {**final, "output_tokens": output}}
    yield "message_stop", {"type": "message_stop"}


def _deltas(block: Mapping[str, Any], cut: bool, broken: bool) -> Iterator[dict[str, Any]]:
    match block["type"]:
        case "tool_use":
            text = json.dumps(block["input"], ensure_ascii=False)
            text = text[: len(text) // 2] if cut else text.replace(":", " =", 1) if broken else text
            kind, name = "input_json_delta", "partial_json"
            yield {"type": kind, name: ""}
        case "thinking":
            text, kind, name = block["thinking"], "thinking_delta", "thinking"
        case _:
            text, kind, name = block["text"][: len(block["text"]) // 2 if cut else None], "text_delta", "text"
    size = max(1, min(2000, len(text) // 3))
    for at in range(0, len(text), size):
        yield {"type": kind, name: text[at : at + size]}
    if "signature" in block:
        yield {"type": "signature_delta", "signature": block["signature"]}
