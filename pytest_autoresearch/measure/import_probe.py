"""Finds the files that an interpreter would import for some module names, without running any of them.

The interpreter of the training command runs this text, with the working directory and the variables of training. So it
uses only the standard library, of any version of Python 3. Standard input holds a JSON document: `first`, the folder
that comes first on the search path, and `names`. Standard output is a JSON object: the file of each name that is found.
"""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from typing import Any


def main() -> None:
    asked = json.load(sys.stdin)
    if not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
        sys.path[0] = asked["first"]
    found = {}
    for name in asked["names"]:
        origin = find(name)
        if origin:
            found[name] = origin
    json.dump(found, sys.stdout)


def find(name: str) -> str | None:
    """The file of a module, or None. A parent package is not run, so its `__path__` is the one of its spec."""
    path: Any = None
    spec: ModuleSpec | None = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        spec = first_spec(".".join(parts[:count]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        # A namespace package's path asks its parent in sys.modules, which is not there.
        path = getattr(path, "_path", path)
        if path is None and count < len(parts):
            return None
    return spec.origin if spec is not None and spec.has_location else None


def first_spec(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except Exception:  # a finder of somebody else that fails finds nothing
            spec = None
        if spec is not None:
            return spec
    return None


if __name__ == "__main__":
    main()
