"""The question of a health probe: does a runner answer on this socket?

The probe makes one call with token 0, which is no token. The runner answers that it does not know it. So the whole way
of a call is tried, and no plugin runs. This module imports nothing of the package: a probe starts every few seconds.
"""

import socket

__all__ = ["CALL", "probe"]

CALL = bytes.fromhex("0200000c 08000000 0400 0400 04000000")
"""A frame of type 2 whose payload is an HTTPReqCall.Req without any field: its token is 0."""
_ERROR, _HTTP_REQ_CALL = 0, 2
"""Types of the frames that may answer a call."""


def probe(path: str, seconds: float) -> str | None:
    """Ask the runner on a socket for an answer.

    Args:
        path: Path of the socket.
        seconds: Time for each step: to connect, to send, and to get the first bytes of the answer.

    Returns:
        What is wrong; None: the runner has answered.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(path)
        except TimeoutError:
            return f"the runner accepts no connection within {seconds:g} s"
        except BlockingIOError:
            return "too many connections wait to be accepted"
        except OSError as exc:
            return f"cannot connect: {(exc.strerror or str(exc)).lower()}; does a runner listen there?"
        try:
            connection.sendall(CALL)
            answer = connection.recv(1)
        except TimeoutError:
            return f"no answer within {seconds:g} s"
        except OSError as exc:
            return f"no answer: {(exc.strerror or str(exc)).lower()}"
    if not answer:
        return "the runner has closed the connection without an answer"
    if answer[0] not in (_ERROR, _HTTP_REQ_CALL):
        return "what listens there is no plugin runner"
    return None
