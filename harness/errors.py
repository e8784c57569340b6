"""The only exception of the harness. Its message tells the user what happened and what to run next.

This module imports nothing else of the harness.
"""

import sys
from collections.abc import Callable
from types import TracebackType

_LIBRARIES = ("httpx2", "huggingface_hub", "numpy", "pyarrow", "tokenizers", "torch", "tqdm")


class HarnessError(Exception):
    """An error that the user can fix; the message says how."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command-line program; errors that the user can fix become one sentence on stderr and exit code 1."""
    try:
        main()
    except HarnessError as error:
        sys.exit(f"harness: {error}")
    except OSError as error:
        # For example a full disk or a read-only folder; the system's message names the file.
        sys.exit(f"harness: {error}. The data folder can be moved with AUTORESEARCH_CACHE=FOLDER.")
    except KeyboardInterrupt:
        sys.exit("harness: interrupted; rerun the same command to continue.")


def say_what_is_missing(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A `sys.excepthook`: a library that is not installed is one sentence, any other error is Python's traceback."""
    if isinstance(error, ModuleNotFoundError) and error.name in _LIBRARIES:
        print(f"harness: {error.name} is not installed: type `pip install -e '.[harness]'`", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
