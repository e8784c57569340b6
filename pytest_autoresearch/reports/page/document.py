"""One self-contained HTML file from records and artifacts: markup, style, program and data. It fetches nothing.

Untrusted text is data: JSON without any `<`, or packed. The page's program inserts it as text, never as markup. The
content security policy allows only the page's own program, by its hash, and no connection. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.reports.page.artifacts import Artifact
from pytest_autoresearch.reports.page.contents import About, contents
from pytest_autoresearch.reports.page.details import PACK, Packs

_SCRIPTS = ("data", "text", "chart", "progress", "curves", "lanes", "table", "experiment", "overview", "main")
MOST_BYTES, BYTES_EACH = 2_950_000, 600  # for up to 1,000 experiments, and for each further one
_PACK = '<script type="text/plain" class="pack">'
_MARKUP_BYTES = 20_000
_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def page(
    records: Sequence[Experiment],
    artifacts: Mapping[int, Artifact],
    about: About | None = None,
    packs: Packs | None = None,
) -> str:
    """The page of a campaign as one text. See `pieces`."""
    return "".join(pieces(records, artifacts, about, packs))


def pieces(
    records: Sequence[Experiment],
    artifacts: Mapping[int, Artifact],
    about: About | None = None,
    packs: Packs | None = None,
) -> list[str]:
    """The page of a campaign in pieces: under 3 MB for 1,000 experiments, whatever they printed.

    Args:
        records: All of its experiments, by number.
        artifacts: Their diffs, logs and curves, by number.
        about: Facts that the records do not have.
        packs: From earlier pages of the same campaign, to make this one faster.

    Raises:
        ValueError: No record is judged.
    """
    judged = [record for record in records if record.verdict is not None]
    if not judged:
        raise ValueError("a page needs at least one judged experiment")
    about = about or About()
    known = contents(judged, about) | {"pack": PACK, "with": [n for n in _numbers(judged) if n in artifacts]}
    program, style, campaign = _program(), _style(), _json(known)
    others = len(program) + len(style) + len(campaign.encode()) + _MARKUP_BYTES
    most = MOST_BYTES + BYTES_EACH * max(0, len(judged) - 1000)
    packed = (packs or Packs()).of(judged, artifacts, known["decimals"], most - others)
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(program)}'"
    parts = {
        "TITLE": [html.escape(f"{known['tag']} · autoresearch")],
        "POLICY": [policy],
        "STYLE": [style],
        "CAMPAIGN": [campaign],
        "PACKS": [text for pack in packed for text in (_PACK, pack, "</script>\n")],
        "PROGRAM": [program],
    }
    # Split before filling, so that inserted text is never searched for placeholders.
    frame = _asset("page.html").split("%%")
    return [text for place, piece in enumerate(frame) for text in ([piece] if place % 2 == 0 else parts[piece])]


def _numbers(records: Sequence[Experiment]) -> list[int]:
    return [record.number for record in records]


def _json(document: Mapping[str, Any]) -> str:
    """JSON that is safe inside markup."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace").decode().translate(_ESCAPES)


@cache
def _program() -> str:
    own = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    return f"{_asset('vendor/uPlot.iife.min.js')}\n(() => {{\n'use strict';\n{own}\n}})();\n"


@cache
def _style() -> str:
    return f"{_asset('vendor/uPlot.min.css')}\n{_asset('page.css')}"


@cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", *name.split("/")).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
