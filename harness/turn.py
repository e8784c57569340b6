"""The scorer's turn: a session starts the scorer while training starts, and tells it when training has ended.

Until then the scorer has read no data, no model and no GPU, and does nothing. Knows only the socket.
"""

import os
import socket

from harness.errors import HarnessError

VARIABLE = "AUTORESEARCH_TURN_FD"
READY, GO = b"ready\n", b"go\n"


def turn_of_environment() -> socket.socket | None:
    """The socket in AUTORESEARCH_TURN_FD; None if the scorer need not wait."""
    number = os.environ.get(VARIABLE)
    if not number:
        return None
    try:
        return socket.socket(fileno=int(number))
    except (ValueError, OSError):
        raise HarnessError(f"{VARIABLE}={number!r} is not an open socket; unset it to score by hand.") from None


def await_turn(session: socket.socket) -> None:
    """Say that nothing is left to prepare, and wait for the word.

    Raises:
        HarnessError: The session ended, or training left nothing to score.
    """
    with session:
        heard = b""
        try:
            session.sendall(READY)
            while heard != GO and (received := session.recv(len(GO) - len(heard))):
                heard += received
        except OSError:
            heard = b""
    if heard != GO:
        raise HarnessError("the session that started this scorer has no model for it.")
