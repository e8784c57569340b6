"""Reads pytest's configuration file: the names of its keys, and TOML values as text; and the tables of our own."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Any

from iniconfig import IniConfig


def keys(config_file: Path) -> set[str]:
    """The ini keys in pytest's part of a configuration file."""
    if config_file.suffix != ".toml":
        sections = IniConfig(str(config_file)).sections
        return {key for name in ("pytest", "tool:pytest") for key in sections.get(name, ())}
    return {key for table in _tables(config_file) for key in table}


def text(config_file: Path, key: str) -> str:
    """A value of a TOML file as it would be written in an ini file: a number, a switch, or words as a list."""
    value = next((table[key] for table in _tables(config_file) if key in table), "")
    if isinstance(value, bool):
        return str(value).lower()
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)


def own_tables(root: Path) -> dict[str, Any]:
    """What is below `[tool.autoresearch]` in a folder's pyproject.toml.

    Raises:
        ValueError: The file is no TOML.
    """
    file = root / "pyproject.toml"
    document = tomllib.loads(file.read_text("utf-8")) if file.is_file() else {}
    found = document.get("tool", {}).get("autoresearch", {})
    return found if isinstance(found, dict) else {"": found}


def _tables(config_file: Path) -> list[dict[str, Any]]:
    """The tables of a TOML file that pytest reads."""
    document = tomllib.loads(config_file.read_text("utf-8"))
    table = document.get("tool", {}).get("pytest", {})
    return [document.get("pytest", {}), table, table.get("ini_options", {})]
