"""The one error of the harness. Its message is a sentence for the person who typed the command: what happened and
what to type next. This module may not know anything else of the harness."""

import sys
from collections.abc import Callable
from types import TracebackType

_LIBRARIES = ("httpx2", "huggingface_hub", "numpy", "pyarrow", "tokenizers", "torch", "tqdm")


class HarnessError(Exception):
    """Something that the user can put right; the message says how."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command-line program, turning what a user can put right into one sentence on stderr and exit code 1."""
    try:
        main()
    except HarnessError as error:
        sys.exit(f"harness: {error}")
    except OSError as error:
        # A full disk or a folder that may not be written: the system's own words name the file.
        sys.exit(f"harness: {error}. The data folder can be moved with AUTORESEARCH_CACHE=FOLDER.")
    except KeyboardInterrupt:
        sys.exit("harness: interrupted; type the same command again to continue.")


def say_what_is_missing(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A `sys.excepthook`: a library that is not installed is one sentence, any other error is Python's traceback."""
    if isinstance(error, ModuleNotFoundError) and error.name in _LIBRARIES:
        print(f"harness: {error.name} is not installed: type `pip install -e '.[harness]'`", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
