"""The standard streams of a runner process. This module imports nothing heavy, because the supervisor uses it."""

import contextlib
import os
import sys
from typing import TextIO

__all__ = ["flush", "open_streams", "prompt_output"]


def open_streams() -> None:
    """Open /dev/null in place of stdin, stdout and stderr, where the process was started without them.

    Otherwise the next file or socket would get the number of one of them, and no handler could write to it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        file: str | int = os.devnull  # if something else has the number already
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)
            file = number
        if getattr(sys, name) is None:
            setattr(sys, name, open(file, mode, closefd=file is not number))  # noqa: SIM115  # for the whole process


def prompt_output() -> None:
    """Make every printed line leave the process at once. Call it before plugins are imported."""
    for stream in _streams():
        reconfigure = getattr(stream, "reconfigure", None)  # not there on what replaces a stream in tests
        if reconfigure is not None:
            reconfigure(line_buffering=True)


def flush() -> None:
    """Write what the process still buffers for stdout and stderr."""
    for stream in _streams():
        with contextlib.suppress(OSError, ValueError):  # closed by the other side, or by a plugin
            stream.flush()


def _streams() -> list[TextIO]:
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
