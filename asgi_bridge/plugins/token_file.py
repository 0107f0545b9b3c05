"""The file of tokens: an SQLite file that the processes of a socket path share, and that nobody else may use.

A file that is broken, foreign or gone is made anew: nothing in it is needed. Where that is impossible, a temporary file
takes its place until the process ends.

All functions here block for as long as the disk does.
"""

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

__all__ = ["FILE", "TokenFile", "Version", "files_of", "transaction"]

logger = logging.getLogger("asgi_bridge.plugins")

Result = TypeVar("Result")

FILE = "tokens.sqlite"
"""Name of the file in the runner's private folder."""
BUSY_SECONDS = 3.0
"""Seconds to wait for another process that writes. Less than the 4 s that building a chain may take."""

Version = tuple[int, int, int]
"""Number, size and time of change of the log, the time in nanoseconds since the epoch."""

_OCCUPIED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
"""Errors that other processes cause by their use of the file. The file is whole."""

_UNUSABLE = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)
"""Errors that a new file in the same folder would not cure."""


class TokenFile:
    """The file of one socket path, opened when it is first used.

    Args:
        folder: Path of the private folder that holds it; None: a temporary file, for this object alone.
    """

    def __init__(self, folder: str | None) -> None:
        self.database: sqlite3.Connection | None = None
        self._folder = folder
        self._identity: tuple[int, int] | None = None

    def use(
        self, prepare: Callable[[sqlite3.Connection], object], work: Callable[[sqlite3.Connection], Result]
    ) -> Result:
        """Return the result of `work` on the open file.

        Args:
            prepare: Called with a file that was just opened. It makes the tables of an empty one, and raises
                sqlite3.DatabaseError for a file that it does not know.
            work: Reads and writes. It is done again if the file had to be made anew.

        Raises:
            sqlite3.Error: Neither the file nor a temporary one can be used.
        """
        if self.database is not None and self._folder is not None and _identity(self._path) != self._identity:
            logger.warning("The file %s was removed: the gateway will prepare its routes again", self._path)
            self.close()
        for last in (False, True):
            try:
                if self.database is None:
                    self._open(prepare)
                assert self.database is not None
                return work(self.database)
            except sqlite3.Error as exc:
                if last or self._folder is None or _code(exc) in _OCCUPIED:
                    raise
                self.close()
                self._give_up(exc)
        raise AssertionError("unreachable")

    def version(self) -> Version | None:
        """Return what changes when any process writes; None: nothing says so.

        Whatever is written goes into SQLite's log beside the file first. This does not open or read anything.
        """
        if self._folder is None:
            return None
        try:
            found = os.stat(self._path + "-wal")
        except OSError:  # where the log is missing, SQLite writes to the file itself
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        database, self.database = self.database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()

    def __del__(self) -> None:
        self.close()  # Python 3.13 warns of a file that nobody has closed

    def _give_up(self, exc: sqlite3.Error) -> None:
        """Remove a broken file. Where a new one would not help, go on with a temporary one."""
        assert self._folder is not None
        if _code(exc) not in _UNUSABLE:
            logger.warning(
                "The file %s is broken (%s) and is made anew: the gateway will prepare its routes again",
                self._path,
                exc,
            )
            try:
                with _locked(self._folder):
                    if _identity(self._path) == self._identity:  # else another process has made it anew already
                        self._remove()
                return
            except OSError as failed:
                exc = _cannot_open(failed)
        logger.error(
            "The file %s cannot be used (%s): tokens are kept in a temporary file until the next start. Make room, "
            "or give the runner's user the right to write there",
            self._path,
            exc,
        )
        self._folder = None

    @property
    def _path(self) -> str:
        return os.path.join(self._folder or "", FILE)

    def _remove(self) -> None:
        for path in files_of(self._folder or ""):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _open(self, prepare: Callable[[sqlite3.Connection], object]) -> None:
        if self._folder is None:
            with _connected("") as database:  # SQLite's own temporary file
                prepare(database)
                self.database = database
            return
        try:
            with _locked(self._folder):  # two processes that find a foreign file must not both replace it
                self._make_private()
                self._identity = _identity(self._path)
                with _connected(self._path) as database:
                    # Never wait for the disk, which takes longer than a plugin's import. What is lost when the machine
                    # crashes is nothing to the gateway, which forgets its tokens then: it runs on the same machine.
                    database.execute("PRAGMA synchronous = OFF")
                    database.execute("PRAGMA journal_mode = WAL")
                    prepare(database)
                    self.database = database  # only now: without the secret in it, anybody could compute its tokens
        except OSError as exc:
            raise _cannot_open(exc) from exc

    def _make_private(self) -> None:
        """Make an empty file, unless there is one that nobody else can read or write."""
        found = [path for path in files_of(self._folder or "") if os.path.lexists(path)]
        foreign = not all(map(_is_ours, found))
        if foreign:
            logger.warning(
                "The file %s could be used by others and is made anew: the gateway will prepare its routes again",
                self._path,
            )
        if foreign or self._path not in found:
            self._remove()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(descriptor, 0o600)  # the process's umask may have left less
            os.close(descriptor)


def files_of(folder: str) -> list[str]:
    """Return the paths of the file in `folder`, and of the files that SQLite keeps beside it."""
    return [os.path.join(folder, FILE + suffix) for suffix in ("", "-wal", "-shm", "-journal")]


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Write all that the block writes, or none of it if an exception ends the block."""
    database.execute("BEGIN IMMEDIATE")
    with database:  # commits, or rolls back
        yield


@contextlib.contextmanager
def _connected(path: str) -> Iterator[sqlite3.Connection]:
    """Open the file. It is closed if an exception ends the block."""
    # always one thread at a time, but not always the same one
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        yield database
    except BaseException:
        database.close()
        raise


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Keep other processes from opening or replacing the file of `folder`.

    Raises:
        OSError: The folder cannot be used, or others may use it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)  # it was private once, but may have been opened up or exchanged since
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(errno.EACCES, "others may use its folder")
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # not for ever: the process that holds it may be stopped
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _code(exc: sqlite3.Error) -> int:
    return getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _cannot_open(exc: OSError) -> sqlite3.Error:
    error = sqlite3.OperationalError(exc.strerror or str(exc))
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    return error


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from all others; None: there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_ours(path: str) -> bool:
    """Return whether `path` is a file that nobody else can read or write."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:  # removed in this moment
        return True
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_uid == os.geteuid()
        and found.st_nlink == 1
        and not stat.S_IMODE(found.st_mode) & 0o077
    )
