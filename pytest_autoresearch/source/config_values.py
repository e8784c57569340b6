"""The values of YAML and TOML files, with their places in the text. Pure; YAML needs PyYAML, which Optuna brings."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_autoresearch.source.constants import Constant, Value

YAML, TOML = (".yaml", ".yml"), (".toml",)
_NUMBER = re.compile(r"[-+]?(?:0|[1-9][\d_]*)(\.[\d_]*)?([eE][-+]?\d+)?")
_SWITCHES = {"true": True, "True": True, "false": False, "False": False}
_TABLE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_ENTRY = re.compile(r"""\s*([\w.\- "']+?)\s*=\s*("[^"\\]*"|'[^']*'|[^\s#"'\[\]{},]+)\s*(?:#.*)?""")


def find(path: str, text: str) -> list[Constant]:
    """The numbers, switches and texts of a file, named by their keys: `optimizer.lr`.

    Lists, and what stands in a list, are left out. A file that cannot be parsed has none.
    """
    found = list(_yaml(text) if path.endswith(YAML) else _toml(text))
    count = Counter(one.name for one in found)
    return [one for one in found if count[one.name] == 1]


def yaml_text(text: str) -> str:
    """A number as all versions of YAML read it: one that has an exponent needs a point."""
    return text.replace("e", ".0e") if "e" in text and "." not in text and _NUMBER.fullmatch(text) else text


def _yaml(text: str) -> Iterator[Constant]:
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return
    waiting: list[tuple[str, Any]] = [("", root)]
    seen: set[int] = set()
    while waiting:
        prefix, node = waiting.pop()
        if not isinstance(node, yaml.MappingNode) or id(node) in seen:
            continue
        seen.add(id(node))  # an alias is the same node again
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            name = f"{prefix}{key.value}"
            waiting.append((f"{name}.", inner))
            if not isinstance(inner, yaml.ScalarNode) or id(inner) in seen or inner.style in ("|", ">"):
                continue
            seen.add(id(inner))
            begin, end = inner.start_mark.index, inner.end_mark.index
            as_written = text[begin:end]
            value = _value(as_written) if inner.style is None else inner.value
            if value is None and inner.tag.endswith(":str"):
                value = inner.value
            if value is not None and "\n" not in as_written:
                yield Constant(name, value, as_written, begin)


def _toml(text: str) -> Iterator[Constant]:
    """Lines that look like a key with a value, if the parser finds the same value under the same key."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    prefix, start = "", 0
    for line in text.splitlines(keepends=True):
        body = line.rstrip("\r\n")
        if table := _TABLE.fullmatch(body):
            prefix = f"{_plain(table[1])}."
        elif entry := _ENTRY.fullmatch(body):
            name, as_written = prefix + _plain(entry[1]), entry[2]
            value = as_written[1:-1] if as_written[0] in "\"'" else _value(as_written)
            if value is not None and _at(document, name) == value:
                yield Constant(name, value, as_written, start + entry.start(2))
        elif body.lstrip().startswith("[["):
            prefix = "\0."  # no key is below it
        start += len(line)


def _plain(key: str) -> str:
    """A dotted key without its spaces and quotes."""
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def _at(document: Mapping[str, Any], name: str) -> object:
    place: Any = document
    for part in name.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def _value(text: str) -> Value | None:
    if text in _SWITCHES:
        return _SWITCHES[text]
    if not (number := _NUMBER.fullmatch(text)):
        return None
    plain = text.replace("_", "")
    return float(plain) if number[1] or number[2] else int(plain)
