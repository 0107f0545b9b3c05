"""Claims: which token stands for which configuration, in one SQLite file for all processes of a socket path.

A token has 32 bits, so two configurations may want the same one. A token is therefore claimed: the file holds, for
each token, the digest of the one configuration that it stands for. The token of a configuration is the first of
``H(secret, digest, 0)``, ``H(secret, digest, 1)``, … that nobody else has claimed. The secret is in the file too, so
nobody who writes a route can choose its token; the processes that share the file agree on all of this, now and after a
restart. Without the file, or with a new one, old tokens are unknown, and the gateway prepares its routes again.

All functions here block for as long as the disk does: :class:`Claims` is used in a thread.
"""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from .key import stripped

__all__ = ["Claims", "Text", "files_of", "token_of"]

logger = logging.getLogger("asgi_bridge.plugins")

Result = TypeVar("Result")

FILE = "tokens.sqlite"
"""Name of the file in the runner's private folder."""
SECRET_BYTES = 32
MAX_BYTES = 256 * 2**20
"""Size of the file above which the texts that were unused for longest are dropped, and the oldest claims where there
are no texts left."""
CLAIM_BYTES = 100
"""Bytes that a claim without its text takes, roughly."""
SWEEP_SECONDS = 60.0
"""Expired claims are removed this often."""
UNCHECKED_BYTES = 4 * 2**20
"""Bytes of new texts after which the size of the file is checked again."""
MAX_NUMBER = 64
"""A token from the file must be among this many first choices of its configuration."""
BUSY_SECONDS = 3.0
"""Seconds to wait for another process that writes. Less than the 4 s that building a chain may take."""
VERSION = 1
"""Version of the tables below, kept as ``user_version``. A file with another version is made anew."""

_TABLES = (
    "CREATE TABLE secret (one INTEGER PRIMARY KEY CHECK (one = 1), value BLOB NOT NULL)",
    "CREATE TABLE claims (token INTEGER PRIMARY KEY, used REAL NOT NULL, digest BLOB NOT NULL, text BLOB)",
    "CREATE INDEX texts ON claims (used) WHERE text IS NOT NULL",
    f"PRAGMA user_version = {VERSION}",
)

_CLAIM = """
INSERT INTO claims (token, digest, text, used) VALUES (:token, :digest, :text, :now)
ON CONFLICT (token) DO UPDATE SET digest = excluded.digest, text = excluded.text, used = excluded.used
WHERE digest = excluded.digest OR used < :expired
"""


@dataclass(frozen=True, slots=True)
class Text:
    """A configuration as the gateway prepares it.

    Attributes:
        key: what the gateway calls it.
        conf: plugin names and their configurations, outermost first.
        digest: 32 bytes that no other configuration has. The key's version does not count: to edit one route must
            not reset the state of the others.
    """

    key: bytes | None
    conf: tuple[tuple[bytes | None, bytes | None], ...]
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.blake2b(digest_size=32)
        key = None if self.key is None else stripped(self.key)
        for part in (key, *(part for entry in self.conf for part in entry)):
            digest.update(b"-" if part is None else b"%d:" % len(part) + part)
        object.__setattr__(self, "digest", digest.digest())

    def dump(self) -> bytes:
        """As bytes for the file; :meth:`load` reads them."""

        def text(part: bytes | None) -> str | None:
            return None if part is None else part.decode("latin-1")

        return json.dumps([text(self.key), [[text(part) for part in entry] for entry in self.conf]]).encode()

    @classmethod
    def load(cls, data: bytes) -> "Text":
        """Raises ValueError: these are not the bytes of a text."""

        def part(text: str | None) -> bytes | None:
            return None if text is None else text.encode("latin-1")

        try:
            key, conf = json.loads(data)
            return cls(part(key), tuple((part(name), part(value)) for name, value in conf))
        except (TypeError, AttributeError) as exc:
            raise ValueError(str(exc)) from None


def token_of(secret: bytes, digest: bytes, number: int) -> int:
    """The token number `number` that a configuration may claim: 32 bits; 0 is none, which nobody may claim."""
    return int.from_bytes(hashlib.blake2b(digest + b"%d" % number, key=secret, digest_size=4).digest())


class Claims:
    """The claims of one socket path.

    Args:
        folder: the private folder that holds the file; None: a temporary file, for this object alone.
        keep: seconds that a claim and its text live after their last use.
        clock: seconds since the epoch, which all processes share.

    Attributes:
        generation: a number that changes when the secret does. Tokens of an earlier generation mean nothing.
    """

    def __init__(self, folder: str | None, keep: float, clock: Callable[[], float] = time.time) -> None:
        self.generation = 0
        self._folder = folder
        self._keep = keep
        self._clock = clock
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._secret = b""
        self._swept = 0.0
        self._unchecked = 0

    def claim(self, text: Text) -> int:
        """Return the token that stands for `text` and for nothing else.

        Raises:
            sqlite3.Error: The claim cannot be written, neither to the file nor to a temporary one.
        """
        return self._with_database(lambda database: self._claim(database, text))

    def find(self, token: int) -> Text | None:
        """Return the configuration that `token` stands for; None if the token is unknown.

        Raises:
            sqlite3.Error: Neither the file nor a temporary one can be read.
        """
        return self._with_database(lambda database: self._find(database, token))

    def close(self) -> None:
        """Closes the file."""
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()

    def __del__(self) -> None:
        self.close()  # Python 3.13 warns of a file that nobody has closed

    def _with_database(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """`work` with the open file. A file that was removed or is broken is made anew: nothing in it is needed."""
        if self._database is not None and self._folder is not None and _identity(self._path) != self._identity:
            logger.warning("The file %s was removed: the gateway will prepare its routes again", self._path)
            self.close()
        for last in (False, True):
            try:
                if self._database is None:
                    self._open()
                assert self._database is not None
                return work(self._database)
            except sqlite3.Error as exc:
                if last or self._folder is None or _code(exc) in _OCCUPIED:
                    raise
                self.close()
                self._give_up_file(exc)
        raise AssertionError("unreachable")

    def _give_up_file(self, exc: sqlite3.Error) -> None:
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

    def _open(self) -> None:
        if self._folder is None:
            with _connected("") as database:  # SQLite's own temporary file
                self._begin(database)
                self._database = database
            return
        try:
            with _locked(self._folder):  # two processes that find a foreign file must not both replace it
                self._make_private()
                self._identity = _identity(self._path)
                with _connected(self._path) as database:
                    database.execute("PRAGMA journal_mode = WAL")
                    database.execute("PRAGMA synchronous = NORMAL")
                    self._begin(database)
                    self._database = database  # not before: without the secret, anybody could tell its tokens
        except OSError as exc:
            raise _cannot_open(exc) from exc

    def _make_private(self) -> None:
        """Makes an empty file, unless there is one that nobody else can read or write."""
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

    def _begin(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with _transaction(database):
                for statement in _TABLES:
                    database.execute(statement)
                database.execute("INSERT INTO secret VALUES (1, ?)", (os.urandom(SECRET_BYTES),))
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"it has version {version}, and this is version {VERSION}")
        row = database.execute("SELECT value FROM secret").fetchone()
        if row is None or not isinstance(row[0], bytes) or len(row[0]) != SECRET_BYTES:
            raise sqlite3.DatabaseError("it holds no secret")
        if self._secret not in (b"", row[0]):
            self.generation += 1
        self._secret = row[0]

    def _claim(self, database: sqlite3.Connection, text: Text) -> int:
        now = self._clock()
        dumped = text.dump()
        self._unchecked += len(dumped)
        if now >= self._swept + SWEEP_SECONDS or now < self._swept or self._unchecked > UNCHECKED_BYTES:
            self._swept, self._unchecked = now, 0
            self._sweep(database, now)
        for number in itertools.count():
            token = token_of(self._secret, text.digest, number)
            values = {"token": token, "digest": text.digest, "text": dumped, "now": now, "expired": self._expired(now)}
            if token and database.execute(_CLAIM, values).rowcount:
                return token
        raise AssertionError("unreachable")

    def _find(self, database: sqlite3.Connection, token: int) -> Text | None:
        now = self._clock()
        row = database.execute(
            "SELECT text FROM claims WHERE token = ? AND text IS NOT NULL AND used >= ?", (token, self._expired(now))
        ).fetchone()
        if row is None:
            return None
        try:
            text = Text.load(row[0])
        except ValueError as exc:
            raise sqlite3.DatabaseError(f"a configuration in it cannot be read: {exc}") from None
        # a damaged file must not give one route the plugins of another
        if token not in (token_of(self._secret, text.digest, number) for number in range(MAX_NUMBER)):
            raise sqlite3.DatabaseError("a configuration in it does not belong to its token")
        touched = database.execute(
            "UPDATE claims SET used = max(used, ?) WHERE token = ? AND digest = ?", (now, token, text.digest)
        )
        return text if touched.rowcount else None

    def _expired(self, now: float) -> float:
        """A claim that was last used before this is free."""
        return now - self._keep

    def _sweep(self, database: sqlite3.Connection, now: float) -> None:
        """Removes expired claims, and the oldest texts where the file is too large."""
        database.execute("DELETE FROM claims WHERE used < ?", (self._expired(now),))
        # the clock was ahead: a claim of that time would outlive, and push out, all that are made now
        database.execute("UPDATE claims SET used = ? WHERE used > ?", (now, now))
        ((page,), (pages,), (free,)) = [
            database.execute(f"PRAGMA {name}").fetchone() for name in ("page_size", "page_count", "freelist_count")
        ]
        if page * (pages - free) <= MAX_BYTES:
            return
        excess = page * (pages - free) - MAX_BYTES * 9 // 10
        dropped: list[tuple[int]] = []
        for token, length in database.execute(
            "SELECT token, length(text) FROM claims WHERE text IS NOT NULL ORDER BY used"
        ):
            dropped.append((token,))
            excess -= length
            if excess <= 0:
                break
        with _transaction(database):
            database.executemany("UPDATE claims SET text = NULL WHERE token = ?", dropped)
            if excess > 0:
                database.execute(
                    "DELETE FROM claims WHERE token IN (SELECT token FROM claims ORDER BY used LIMIT ?)",
                    (excess // CLAIM_BYTES,),
                )


@contextlib.contextmanager
def _connected(path: str) -> Iterator[sqlite3.Connection]:
    """The open file, which is closed if an exception ends the block."""
    # always one thread at a time, but not always the same one
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        yield database
    except BaseException:
        database.close()
        raise


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All that is written in the block, or none of it if an exception ends the block."""
    database.execute("BEGIN IMMEDIATE")
    with database:  # commits, or rolls back
        yield


_OCCUPIED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
"""Errors that other processes cause by what they do with the file: it is whole."""

_UNUSABLE = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)
"""Errors that a new file in the same folder would not cure."""


def _code(exc: sqlite3.Error) -> int:
    return getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def files_of(folder: str) -> list[str]:
    """The paths of the file in `folder`, and of those that SQLite keeps beside it."""
    return [os.path.join(folder, FILE + suffix) for suffix in ("", "-wal", "-shm", "-journal")]


def _cannot_open(exc: OSError) -> sqlite3.Error:
    error = sqlite3.OperationalError(exc.strerror or str(exc))
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    return error


def _is_ours(path: str) -> bool:
    """Whether `path` is a file that nobody else can read or write."""
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


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Nobody else opens or replaces the file of `folder`. Raises OSError, also where others may use the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)  # it was private once, but may be opened up or exchanged since
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(errno.EACCES, "others may use its folder")
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # not for ever: its holder may be stopped
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
