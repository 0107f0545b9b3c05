"""The way to a socket: whether it is there, whose it is, and who may connect."""

import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from .findings import Finding, error, good, warning
from .users import ENTER, WRITE, User, group_name, user_name

__all__ = ["check_way_in"]

MAX_PATH = 107
"""Bytes that the path of a unix socket may have (unix(7))."""
CONNECT_SECONDS = 1.0
"""Seconds that APISIX waits for a connection."""
_START = "start it with asgi-bridge run --uds {path}, or let APISIX start it (ext-plugin.cmd)"

_AS_ROOT = "run the doctor as root, or as the runner's user"


def check_way_in(path: str, worker: User) -> Iterator[Finding]:
    """Look at a socket and at the folders above it.

    Args:
        path: Path of the socket.
        worker: The user that nginx's workers run as.

    Returns:
        The findings. The last one is ``"ok"`` if a process listens, so that a call can be tried.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        yield error(
            path, f"the path is longer than {MAX_PATH} bytes, so nothing can listen there", "give a shorter one"
        )
        return
    try:
        found = os.stat(path)
    except OSError as exc:
        yield _not_there(path, exc)
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield error(path, "what is there is no socket", "remove it, or give another path")
        return
    # links in the path lead APISIX to the same place
    real = os.path.realpath(path)
    yield from _folders(real, worker)
    whose = f"a socket of user {user_name(found.st_uid)} and group {group_name(found.st_gid)}, "
    whose += f"mode {stat.S_IMODE(found.st_mode):o}"
    if not worker.may(found, WRITE):
        yield error(
            path,
            f"it is {whose}: nginx's workers, which run as {worker.name}, may not connect",
            f"start the runner with --uds-permissions 666, or with a mode and group that let {worker.name} write",
        )
    yield _listener(path, whose)


def _not_there(path: str, exc: OSError) -> Finding:
    if isinstance(exc, PermissionError):
        return error(path, "this user may not look there", _AS_ROOT)
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        return error(path, f"the folder {folder} is not there", "create it; the runner does not")
    return error(path, "there is nothing: no runner listens", _START.format(path=path))


def _folders(path: str, worker: User) -> Iterator[Finding]:
    for folder in reversed(Path(path).parents):
        try:
            found = os.stat(folder)
        except OSError:
            continue
        mode = stat.S_IMODE(found.st_mode)
        owner = f"it belongs to user {user_name(found.st_uid)} and group {group_name(found.st_gid)}, mode {mode:o}"
        if not worker.may(found, ENTER):
            yield error(
                str(folder),
                f"{owner}: nginx's workers, which run as {worker.name}, may not enter it, and so reach no socket there",
                f"chmod o+x {folder}, or put the socket into another folder",
            )
    last = os.path.dirname(path)
    mode = stat.S_IMODE(os.stat(last).st_mode)
    if mode & 0o002 and not mode & stat.S_ISVTX:
        yield warning(
            last,
            f"its mode is {mode:o}: every user may put a socket of their own in place of the runner's",
            f"chmod o-w {last}; only the runner has to write there",
        )


def _listener(path: str, whose: str) -> Finding:
    """Connect, and say who listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CONNECT_SECONDS)
        try:
            connection.connect(path)
        except ConnectionRefusedError:
            return error(path, f"it is {whose}, but nobody listens: the runner has ended", _START.format(path=path))
        except PermissionError:
            return error(path, f"it is {whose}: this user may not connect", _AS_ROOT)
        except (TimeoutError, BlockingIOError):
            return error(
                path,
                f"the runner accepts no connection within {CONNECT_SECONDS:g} s, as long as APISIX waits",
                "look into the runner's log: a plugin blocks its event loop, or it is overloaded",
            )
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            return error(path, f"it is {whose}, and no connection is possible: {reason}", "give another path")
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", peer)
    return good(path, f"{whose}; {_process(pid, uid)} listens")


def _process(pid: int, uid: int) -> str:
    text = f"process {pid} of user {user_name(uid)}" if pid else f"a process of user {user_name(uid)}"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return text
    command = " ".join(word.decode("utf-8", "backslashreplace") for word in words if word)
    return f"{text} ({command:.200})"
