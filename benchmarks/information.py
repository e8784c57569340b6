"""How much information real edits of a program add, by the measure that the guard uses.

    python benchmarks/information.py [--files GLOB ...]

For every commit of this repository and every file that it edits, it measures what the new text adds to the old one; for
every file, what its last text adds to its first one; and what each file has alone. Percentiles, in bytes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pytest_autoresearch.source.information import added

PERCENTILES = (50, 90, 99, 100)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The information that real edits add.")
    parser.add_argument("--files", nargs="+", default=["*.py"], metavar="GLOB", help="the files (*.py)")
    given = parser.parse_args()
    texts: dict[str, list[bytes]] = {}
    edits = []
    for commit in reversed(git("rev-list", "--no-merges", "HEAD").decode().split()):
        options = ("-r", "--no-commit-id", "--no-renames", "--name-only", "-z", "--diff-filter=AM", "--root")
        said = git("diff-tree", *options, commit, "--", *given.files).decode()
        for path in filter(None, said.split("\0")):
            text = git("show", f"{commit}:{path}")
            versions = texts.setdefault(path, [])
            if versions:
                edits.append(added({path: versions[-1]}, {path: text}))
            versions.append(text)
    show("an edit of a file", edits)
    whole = [added({path: old[0]}, {path: old[-1]}) for path, old in texts.items() if len(old) > 1]
    show("the last text of a file, beside its first", whole)
    show("a whole file", [added({}, {path: old[-1]}) for path, old in texts.items()])


def git(*arguments: str) -> bytes:
    """What git prints."""
    return subprocess.run(["git", *arguments], check=True, capture_output=True).stdout


def show(what: str, sizes: list[int]) -> None:
    """One line of percentiles."""
    sizes = sorted(sizes)
    if sizes:
        said = ", ".join(
            f"{share}%: {sizes[min(len(sizes) - 1, len(sizes) * share // 100)]:,}" for share in PERCENTILES
        )
        print(f"{what} ({len(sizes)}): {said}")


if __name__ == "__main__":
    main()
