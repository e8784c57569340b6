"""What a sandbox shows read-only of this machine, and which folders inside are covered.

`python -m pytest_autoresearch.sandboxes.shown HIDDEN...` prints both as JSON, for a harness that takes validation text
from this machine: text that a sandbox shows is no secret. Knows paths alone, no backend.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pytest_autoresearch.sandboxes import machine, system


def places(
    named: Iterable[Path], environment: Mapping[str, str], network: bool = False
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The paths to show and the folders to cover.

    Args:
        named: Paths to show beside what every Python program needs. What they contain is covered only if it is
            unneeded.
        environment: The variables of the program.
        network: Whether the program uses the network.
    """
    parts, beside = system.shown(network)
    asked = under_every_name((*machine.python(environment), *named), parts)
    # A link inside a folder that is shown whole cannot be mounted again.
    parts = [path for path in parts if system.found_in(path, asked) is None]
    readable = tuple(dict.fromkeys((*parts, *asked)))
    beside = [path for path in beside if system.found_in(path, asked) is None]
    environments = [path for path in machine.other_environments(asked) if path not in asked]
    return readable, (*beside, *inside(readable, (*machine.unneeded(asked), *environments)))


def as_json(readable: Iterable[Path], covered: Iterable[Path]) -> str:
    """Both as a JSON object with the lists `shown` and `covered`."""
    return json.dumps({"shown": [str(path) for path in readable], "covered": [str(path) for path in covered]})


def under_every_name(given: Iterable[Path], beside: Iterable[Path] = ()) -> tuple[Path, ...]:
    """Each place under its real path, and under the given path unless a shown folder already contains it as a link.

    Args:
        given: The places.
        beside: Other shown folders.
    """
    names = dict.fromkeys(path for place in given for path in (place.resolve(), place.absolute()))
    above = {*beside, *map(Path, machine.ROOT_LINKS), *names}
    return tuple(path for path in names if path == path.resolve() or above.isdisjoint(path.parents))


def inside(readable: Iterable[Path], covered: Iterable[Path]) -> Iterator[Path]:
    """Every path under which a covered place would be visible; a place may be shown under several names."""
    wanted = [path.resolve() for path in covered if path.exists()]
    for place in readable:
        real = place.resolve()
        for path in wanted:
            if path.is_relative_to(real):
                yield place / path.relative_to(real)


def main() -> None:
    """Print what a sandbox shows to this interpreter's programs, without the paths of any configuration."""
    hidden = machine.everywhere(map(Path, sys.argv[1:]))
    readable, covered = places((), os.environ)
    covered = (*covered, *inside(readable, hidden))
    print(as_json(readable, covered))


if __name__ == "__main__":
    main()
