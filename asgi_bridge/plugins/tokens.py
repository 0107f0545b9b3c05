"""Claims: which token stands for which configuration.

A token has 32 bits, so two configurations may want the same one. A token is therefore claimed: a file holds, for each
token, the digest of the one configuration that it stands for. The token of a configuration is the first of
``H(secret, digest, 0)``, ``H(secret, digest, 1)``, … that no other configuration has claimed. The secret is in the file
too, so nobody who writes a route can choose its token. The processes that share the file agree on all of this, now and
after a restart. Without the file, or with a new one, old tokens are unknown, and the gateway prepares its routes again.

All functions here block for as long as the disk does, so :class:`Claims` is used in a thread.
"""

import hashlib
import itertools
import json
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .key import stripped
from .token_file import TokenFile, transaction
from .unknown_tokens import UnknownTokens

__all__ = ["Claims", "Text", "token_of"]

SECRET_BYTES = 32
"""Length of the secret."""
MAX_BYTES = 256 * 2**20
"""Maximum size of the file. Beyond it, the texts that were unused for longest are dropped first, then the oldest
claims."""
CLAIM_BYTES = 100
"""Approximate size of a claim without its text."""
SWEEP_SECONDS = 60.0
"""Seconds between two removals of expired claims, at most."""
UNCHECKED_BYTES = 4 * 2**20
"""Bytes of new texts after which the size of the file is checked again."""
MAX_NUMBER = 64
"""An entry of the file is valid if its token is among this many first choices of its configuration."""
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
        key: The gateway's name for it.
        conf: Names and configurations of the plugins, outermost first.
        digest: 32 bytes that no other configuration has. They do not depend on the key's version, because a change of
            one route must not reset the state of the others.
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
        """Return the bytes for the file, which :meth:`load` reads."""

        def text(part: bytes | None) -> str | None:
            return None if part is None else part.decode("latin-1")

        return json.dumps([text(self.key), [[text(part) for part in entry] for entry in self.conf]]).encode()

    @classmethod
    def load(cls, data: bytes) -> "Text":
        """Read the bytes that :meth:`dump` made.

        Raises:
            ValueError: They are something else.
        """

        def part(text: str | None) -> bytes | None:
            return None if text is None else text.encode("latin-1")

        try:
            key, conf = json.loads(data)
            return cls(part(key), tuple((part(name), part(value)) for name, value in conf))
        except (TypeError, AttributeError) as exc:
            raise ValueError(str(exc)) from None


def token_of(secret: bytes, digest: bytes, number: int) -> int:
    """Return a token that a configuration may claim, a number of 32 bits. 0 is no token.

    Args:
        secret: The secret of the file.
        digest: The digest of the configuration.
        number: 0 for the first choice, 1 for the second, and so on.
    """
    return int.from_bytes(hashlib.blake2b(digest + b"%d" % number, key=secret, digest_size=4).digest())


class Claims:
    """The claims of one socket path.

    Args:
        folder: Path of the private folder that holds the file; None: a temporary file, for this object alone.
        keep: Seconds that a claim and its text live after their last use.
        clock: Returns the seconds since the epoch, which all processes share.

    Attributes:
        generation: A number that changes when the secret does. Tokens of an earlier generation mean nothing.
        unknown: The tokens that were not found of late. Any thread may look there.
    """

    def __init__(self, folder: str | None, keep: float, clock: Callable[[], float] = time.time) -> None:
        self.generation = 0
        self._file = TokenFile(folder)
        self.unknown = UnknownTokens(self._file.version)
        self._keep = keep
        self._clock = clock
        self._secret = b""
        self._swept = 0.0
        self._unchecked = 0

    def claim(self, text: Text) -> int:
        """Return the token that stands for `text` and for nothing else.

        Raises:
            sqlite3.Error: The claim cannot be written, neither to the file nor to a temporary one.
        """
        return self._file.use(self._prepare, lambda database: self._claim(database, text))

    def find(self, token: int) -> Text | None:
        """Return the configuration that `token` stands for; None if the token is unknown.

        Raises:
            sqlite3.Error: Neither the file nor a temporary one can be read.
        """
        version = self._file.version()
        text = self._file.use(self._prepare, lambda database: self._find(database, token))
        if text is None:
            self.unknown.add(token, version)
        return text

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Make the tables of a new file, and read the secret."""
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with transaction(database):
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
        """Return the time before which a claim must have been used last to be free now."""
        return now - self._keep

    def _sweep(self, database: sqlite3.Connection, now: float) -> None:
        """Remove expired claims. If the file is too large, drop the oldest texts too."""
        database.execute("DELETE FROM claims WHERE used < ?", (self._expired(now),))
        # the clock was ahead: a claim of that time would outlive all that are made now, and push them out
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
        with transaction(database):
            database.executemany("UPDATE claims SET text = NULL WHERE token = ?", dropped)
            if excess > 0:
                database.execute(
                    "DELETE FROM claims WHERE token IN (SELECT token FROM claims ORDER BY used LIMIT ?)",
                    (excess // CLAIM_BYTES,),
                )
