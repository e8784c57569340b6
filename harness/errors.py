"""The only exception of the harness. Its message tells the user what happened and what to run next.

This module imports nothing else of the harness.
"""

import sys
from collections.abc import Callable


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
