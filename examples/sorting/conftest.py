"""Refuses a proposal that leaves the work to Python's own sort, before anything is run."""

import ast

import pytest


@pytest.hookimpl
def pytest_autoresearch_guard(context):
    tree = ast.parse((context.folder / "sort.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            return "it imports something"
        if (isinstance(node, ast.Name) and node.id == "sorted") or (
            isinstance(node, ast.Attribute) and node.attr == "sort"
        ):
            return "it calls Python's own sort"
    return None
