"""Reads the names of the keys in pytest's configuration file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from iniconfig import IniConfig


def keys(config_file: Path) -> set[str]:
    """The ini keys in pytest's part of a configuration file."""
    if config_file.suffix != ".toml":
        sections = IniConfig(str(config_file)).sections
        return {key for name in ("pytest", "tool:pytest") for key in sections.get(name, ())}
    document = tomllib.loads(config_file.read_text("utf-8"))
    table = document.get("tool", {}).get("pytest", {})
    return {*document.get("pytest", ()), *table, *table.get("ini_options", ())}
