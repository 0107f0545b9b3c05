"""Tokens that nobody has claimed: the file is asked once for each, until somebody writes to it."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_bridge.plugins import ConfigurationStore, unknown_tokens
from asgi_bridge.plugins.token_file import FILE, Version
from asgi_bridge.plugins.tokens import Claims
from asgi_bridge.plugins.unknown_tokens import UnknownTokens

from .calls import KEY, Clock
from .test_store import CORS, cors
from .test_tokens import text

OTHER = 4_000_000_001
"""A token that nobody has claimed."""


class Looks:
    """Counts how often the file of claims is read for a token."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens: list[int] = []
        find = Claims._find

        def counting(claims: Claims, database: object, token: int) -> object:
            self.tokens.append(token)
            return find(claims, database, token)  # type: ignore[arg-type]

        monkeypatch.setattr(Claims, "_find", counting)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


@pytest.fixture
def claims(tmp_path: Path, clock: Clock) -> Iterator[Claims]:
    """Claims that were written to long ago."""
    claims = Claims(str(tmp_path), 100.0, clock)
    claims.claim(text())
    settle(tmp_path)
    yield claims
    claims.close()


def settle(folder: Path, at: float = 1e9) -> None:
    """Let the last write have been at a time, in seconds since the epoch."""
    os.utime(folder / f"{FILE}-wal", (at, at))


def test_the_file_is_asked_once_for_an_unknown_token(tmp_path: Path, clock: Clock, looks: Looks) -> None:
    async def main() -> None:
        store = ConfigurationStore(cors().plugins, clock=clock, folder=str(tmp_path))
        token = await store.prepare(KEY, CORS)
        settle(tmp_path)
        assert not store.is_unknown(OTHER)
        assert [await store.restore(OTHER) for _ in range(3)] == [None] * 3
        assert [await store.restore(OTHER + 1) for _ in range(2)] == [None] * 2
        assert looks.tokens == [OTHER, OTHER + 1]
        assert store.is_unknown(OTHER)
        assert not store.is_unknown(token)
        assert await store.restore(token) is store.find(token) is not None
        await store.close()
        assert not store.is_unknown(OTHER)

    asyncio.run(main())


@pytest.mark.parametrize("own", [True, False], ids=["this process", "another one"])
def test_a_token_that_is_claimed_afterwards_is_found(tmp_path: Path, clock: Clock, own: bool, claims: Claims) -> None:
    others = Claims(str(tmp_path), 100.0, clock)
    token = others.claim(text(2))
    with_token = others.find(token)
    others._file.use(others._prepare, lambda database: database.execute("DELETE FROM claims WHERE token = ?", (token,)))
    settle(tmp_path)
    assert claims.find(token) is None
    assert token in claims.unknown
    assert (claims if own else others).claim(text(2)) == token
    assert token not in claims.unknown
    assert claims.find(token) == with_token == text(2)
    others.close()


def test_what_is_claimed_in_the_same_moment_as_the_look_is_found(tmp_path: Path, claims: Claims, clock: Clock) -> None:
    """The time of change may stay the same, and so may the size."""
    others = Claims(str(tmp_path), 100.0, clock)
    for number in range(2, 30):
        token = others.claim(text(number))
        assert claims.find(OTHER) is None
        assert OTHER not in claims.unknown
        assert claims.find(token) == text(number)
    others.close()


@pytest.mark.parametrize(
    ("seconds", "is_kept"),
    [
        (0.001, False),
        (0.5, True),
        (-5.0, False),  # the clock was ahead, and another write may have the same time
        (3600.25, True),
    ],
)
def test_only_a_look_some_time_after_a_write_counts(
    monkeypatch: pytest.MonkeyPatch, seconds: float, is_kept: bool
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9 + 0.25 + seconds)
    version = 1, 4096, 10**18 + 250_000_000
    unknown = UnknownTokens(lambda: version)
    unknown.add(OTHER, version)
    assert (OTHER in unknown) is is_kept


@pytest.mark.parametrize(("seconds", "is_kept"), [(0.5, False), (2.5, False), (3.5, True)])
def test_where_the_time_of_change_is_in_whole_seconds_that_takes_longer(
    monkeypatch: pytest.MonkeyPatch, seconds: float, is_kept: bool
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9 + seconds)
    version = 1, 4096, 10**18
    unknown = UnknownTokens(lambda: version)
    unknown.add(OTHER, version)
    assert (OTHER in unknown) is is_kept


def test_a_write_between_the_look_and_its_note_is_noticed() -> None:
    now: list[Version] = [(1, 4096, 7)]
    unknown = UnknownTokens(lambda: now[0])
    version = now[0]
    now[0] = 1, 8192, 9
    unknown.add(OTHER, version)
    assert OTHER not in unknown
    unknown.add(OTHER + 1, now[0])
    assert OTHER not in unknown  # the look was at the file before
    assert OTHER + 1 in unknown


@pytest.mark.parametrize("version", [(2, 4096, 7), (1, 4097, 7), (1, 4096, 8), None])
def test_another_log_is_another_version(version: Version | None) -> None:
    found: list[Version | None] = [(1, 4096, 7)]
    unknown = UnknownTokens(lambda: found[0])
    unknown.add(OTHER, found[0])
    assert OTHER in unknown
    found[0] = version
    assert OTHER not in unknown


def test_so_many_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unknown_tokens, "MAX_UNKNOWN", 10)
    version = 1, 4096, 7
    unknown = UnknownTokens(lambda: version)
    for token in range(35):
        unknown.add(token, version)
        assert token in unknown
        assert len(unknown) <= 10


def test_where_the_file_is_this_process_s_alone_nothing_is_remembered(clock: Clock) -> None:
    claims = Claims(None, 100.0, clock)
    claims.claim(text())
    assert claims.find(OTHER) is None
    assert OTHER not in claims.unknown
    claims.close()


def test_a_file_that_was_removed_is_forgotten_with_what_it_did_not_know(tmp_path: Path, claims: Claims) -> None:
    assert claims.find(OTHER) is None
    assert OTHER in claims.unknown
    for path in tmp_path.iterdir():
        path.unlink()
    assert OTHER not in claims.unknown
    assert claims.find(OTHER) is None
