"""Libraries that an extra installs, such as `pytest-autoresearch[search]`."""

from __future__ import annotations

from importlib.util import find_spec

from pytest_autoresearch.core.errors import UserError


def need(extra: str, library: str, what: str, otherwise: str = "") -> None:
    """Check that a library is installed, before anything is touched.

    Args:
        extra: The extra that installs it.
        library: The module to look for; it is not imported.
        what: The feature that needs it.
        otherwise: What else the user can do.

    Raises:
        UserError: The library is not installed.
    """
    if find_spec(library) is None:
        raise UserError(
            f"{what} needs {library}, which is not installed: type `pip install 'pytest-autoresearch[{extra}]'`"
            + otherwise
        )
