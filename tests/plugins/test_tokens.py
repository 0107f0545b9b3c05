"""Claims: two configurations never have the same token, whoever writes them, and whatever becomes of the file."""

import asyncio
import errno
import fcntl
import itertools
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.plugins import ConfigurationStore, token_file, tokens
from asgi_bridge.plugins.token_file import FILE
from asgi_bridge.plugins.tokens import Claims, Text, token_of

from .calls import KEY, Clock
from .test_store import CORS, Conf, Lines, cors, refused

KEEP = 4320.0
CLAIMS = int(os.environ.get("CLAIMS", "10"))
"""Number of times that two processes claim each of eight tokens."""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def open_claims(folder: str, clock: Clock) -> Iterator["Opener"]:
    opener = Opener(folder, clock)
    yield opener
    opener.close()


class Opener:
    """Opens claims on one folder, as several processes do."""

    def __init__(self, folder: str, clock: Clock) -> None:
        self.folder = folder
        self.clock = clock
        self.opened: list[Claims] = []

    def __call__(self) -> Claims:
        self.opened.append(Claims(self.folder, KEEP, self.clock))
        return self.opened[-1]

    def close(self) -> None:
        for each in self.opened:
            each.close()


def text(number: int = 1, key: bytes | None = KEY) -> Text:
    return Text(key, ((b"say", b"%d" % number),))


def secret_in(folder: str) -> bytes:
    with sqlite3.connect(os.path.join(folder, FILE)) as database:
        (secret,) = database.execute("SELECT value FROM secret").fetchone()
    database.close()
    assert isinstance(secret, bytes)
    return secret


def collision(secret: bytes) -> tuple[Text, Text]:
    """Find two configurations that want the same token, which only works with the secret."""
    return next(collisions(secret))


def collisions(secret: bytes) -> Iterator[tuple[Text, Text]]:
    seen: dict[int, Text] = {}
    for number in itertools.count():
        one = text(number)
        token = token_of(secret, one.digest, 0)
        other = seen.setdefault(token, one)
        if other is not one:
            yield other, one


# digests


@pytest.mark.parametrize(
    ("key", "other", "same"),
    [
        (b"route#1#ext-plugin-pre-req#1", b"route#1#ext-plugin-pre-req#2", True),
        (b"route#1#ext-plugin-pre-req#1#1", b"route#1#ext-plugin-pre-req#2#3", True),  # with a plugin_config
        (b"route#1#ext-plugin-pre-req#1", b"route#2#ext-plugin-pre-req#1", False),
        (b"route#1#ext-plugin-pre-req#1", b"route#1#ext-plugin-post-req#1", False),
        (b"route&consumer#1&jack#ext-plugin-pre-req#1&1", b"route&consumer#1&jill#ext-plugin-pre-req#1&1", False),
        (None, b"", False),
        (b"", b"#1", False),
    ],
)
def test_only_the_version_of_a_key_does_not_count(key: bytes | None, other: bytes | None, same: bool) -> None:
    assert (text(key=key).digest == text(key=other).digest) is same


parts = st.none() | st.binary(max_size=3) | st.text("-:012", max_size=3).map(str.encode)
confs = st.lists(st.tuples(parts, parts), max_size=3)


@settings(deadline=None)  # a busy machine is no failure
@given(confs, confs, parts, parts)
def test_every_other_content_has_another_digest(one: Conf, other: Conf, key: bytes | None, rival: bytes | None) -> None:
    first, second = Text(key, tuple(one)), Text(rival, tuple(other))
    keys = [None if each is None else each.split(b"#")[:3] for each in (key, rival)]
    assert (first.digest == second.digest) == ((keys[0], one) == (keys[1], other))


@settings(deadline=None)
@given(confs, parts)
def test_a_text_survives_the_file(conf: Conf, key: bytes | None) -> None:
    kept = Text(key, tuple(conf))
    assert Text.load(kept.dump()) == kept


# claiming


def test_processes_agree_and_a_restart_changes_nothing(open_claims: Opener) -> None:
    one, other = open_claims(), open_claims()
    token = one.claim(text(1))
    assert 0 < token < 2**32
    assert other.claim(text(1)) == token
    assert other.find(token) == text(1)
    open_claims.close()
    again = open_claims()
    assert again.find(token) == text(1)
    assert again.claim(text(1)) == token
    assert again.find(token ^ 1) is None


def test_without_a_folder_tokens_are_kept_for_this_process() -> None:
    one, other = Claims(None, KEEP), Claims(None, KEEP)
    token = one.claim(text())
    assert (one.find(token), other.find(token)) == (text(), None)
    one.close()
    other.close()


def test_the_file_never_waits_for_the_disk(folder: str) -> None:
    claims = Claims(folder, KEEP)
    claims.claim(text())
    database = claims._file.database
    assert database is not None
    modes = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
    assert modes == [0, "wal"]
    claims.close()


def test_nobody_can_tell_a_token_without_the_secret(tmp_path: Path) -> None:
    tokens = set()
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        each = Claims(str(tmp_path / name), KEEP)
        tokens.add(each.claim(text()))
        each.close()
    assert len(tokens) == 3


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("evicted", [False, True])
def test_two_configurations_that_want_one_token_each_get_their_own(
    open_claims: Opener, turned: bool, restarted: bool, evicted: bool
) -> None:
    opened = open_claims()
    opened.claim(text())
    one, other = collision(secret_in(open_claims.folder))
    first, second = (other, one) if turned else (one, other)
    token = opened.claim(first)
    if evicted:
        drop_texts(open_claims.folder)
        assert opened.find(token) is None
    if restarted:
        opened.close()
        opened = open_claims()
    rival = opened.claim(second)
    assert rival != token
    assert opened.claim(first) == token
    assert opened.claim(second) == rival
    assert (opened.find(token), opened.find(rival)) == (first, second)


def drop_texts(folder: str) -> None:
    with sqlite3.connect(os.path.join(folder, FILE)) as database:
        database.execute("UPDATE claims SET text = NULL")
    database.close()


def test_a_store_runs_each_of_the_two_as_its_own(folder: str) -> None:
    """The same through the store: the chain of a token is that of its own configuration."""
    bridge = Bridge()
    bridge.mount("say", upstream)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, folder=folder)
        await store.prepare(KEY, [(b"say", b"0")])
        pair = collision(secret_in(folder))
        tokens = [await store.prepare(each.key, each.conf) for each in pair]
        for each, token in zip(pair, tokens, strict=True):
            chain = store.find(token)
            assert chain is not None
            assert chain.layers[0].conf == int(each.conf[0][1] or b"")
        assert tokens[0] != tokens[1]
        await store.close()

    asyncio.run(main())


RIVAL = """
import sys, time
from asgi_bridge.plugins.tokens import Claims, Text
folder, which = sys.argv[1], int(sys.argv[2])
claims = Claims(folder, 4320.0)
for line in sys.stdin:
    values = line.split()
    print(claims.claim(Text(b"route#1#ext-plugin-pre-req#7", ((b"say", values[which].encode()),))), flush=True)
"""


def test_two_processes_that_claim_one_token_at_the_same_moment(folder: str, open_claims: Opener) -> None:
    opened = open_claims()
    opened.claim(text())
    pairs = list(itertools.islice(collisions(secret_in(folder)), 8))
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, folder, str(which)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for which in range(2)
    ]
    for number, (one, other) in enumerate(pairs * CLAIMS):
        if number % len(pairs) == 0:
            forget(folder)
        line = b" ".join(each.conf[0][1] or b"" for each in (one, other)).decode() + "\n"
        for rival in rivals:
            assert rival.stdin is not None
            rival.stdin.write(line)
            rival.stdin.flush()
        claimed = [int(rival.stdout.readline()) for rival in rivals if rival.stdout is not None]
        assert claimed[0] != claimed[1]
        assert [opened.find(token) for token in claimed] == [one, other]
    for rival in rivals:
        rival.communicate()


def forget(folder: str) -> None:
    with sqlite3.connect(os.path.join(folder, FILE)) as database:
        database.execute("DELETE FROM claims")
    database.close()


# time


def test_a_claim_ends_after_its_time_and_use_extends_it(open_claims: Opener) -> None:
    opened, clock = open_claims(), open_claims.clock
    opened.claim(text())
    one, other = collision(secret_in(open_claims.folder))
    token = opened.claim(one)
    clock.now += KEEP - 1
    assert opened.find(token) == one
    clock.now += KEEP - 1
    assert opened.claim(other) != token
    clock.now += 2
    assert opened.find(token) is None
    third = Text(other.key, other.conf)
    open_claims.close()
    with sqlite3.connect(os.path.join(open_claims.folder, FILE)) as database:
        database.execute("DELETE FROM claims WHERE token != ?", (token,))
    database.close()
    assert open_claims().claim(third) == token  # its claim is over


def test_a_clock_that_goes_back_keeps_claims(open_claims: Opener) -> None:
    opened, clock = open_claims(), open_claims.clock
    token = opened.claim(text())
    clock.now -= 10 * KEEP
    assert opened.find(token) == text()
    assert opened.claim(text()) == token


# size


def size_of(folder: str) -> int:
    return sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))


def test_the_oldest_texts_go_first_and_their_claims_stay(open_claims: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_BYTES", 2**20)
    monkeypatch.setattr(tokens, "UNCHECKED_BYTES", 2**17)
    opened = open_claims()
    made = []
    for number in range(300):
        open_claims.clock.now += 1
        each = Text(KEY, ((b"say", b"%d" % number + b"x" * 20_000),))
        made.append((opened.claim(each), each))
        assert size_of(open_claims.folder) < 8 * 2**20
    kept = [opened.find(token) == each for token, each in made]
    assert kept == sorted(kept)
    assert 20 < sum(kept) < 60
    # the claims that have no text
    for token, each in made:
        assert opened.claim(each) == token


def test_in_the_end_the_oldest_claims_go(open_claims: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_BYTES", 2**18)
    monkeypatch.setattr(tokens, "UNCHECKED_BYTES", 2**12)
    opened = open_claims()
    found = []
    for number in range(6000):
        open_claims.clock.now += 0.01
        found.append(opened.claim(text(number)))
    assert size_of(open_claims.folder) < 8 * 2**20
    with sqlite3.connect(os.path.join(open_claims.folder, FILE)) as database:
        left = {token for (token,) in database.execute("SELECT token FROM claims")}
    database.close()
    assert 500 < len(left) < 5000
    assert found[-1] in left and found[0] not in left


# a file that was lost or damaged


def test_a_file_that_was_removed_makes_old_tokens_unknown(open_claims: Opener, lines: Lines) -> None:
    one, other = open_claims(), open_claims()
    token = one.claim(text())
    assert other.find(token) == text()
    for name in os.listdir(open_claims.folder):
        os.unlink(os.path.join(open_claims.folder, name))
    assert (one.find(token), one.generation) == (None, 1)
    new = one.claim(text())
    assert new != token
    assert (other.claim(text()), other.generation) == (new, 1)
    assert (
        lines() == [f"The file {open_claims.folder}/{FILE} was removed: the gateway will prepare its routes again"] * 2
    )


DAMAGES = ["truncated", "garbage", "half", "version", "no secret", "short secret", "no table", "wrong row", "no text"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew_and_said(open_claims: Opener, lines: Lines, damage: str) -> None:
    one = open_claims()
    tokens = [one.claim(text(number)) for number in range(200)]
    one.close()
    path = Path(open_claims.folder, FILE)
    if damage in ("truncated", "garbage", "half"):
        data = path.read_bytes()
        path.write_bytes({"truncated": data[:5000], "garbage": b"x" * 8192, "half": data[: len(data) // 2]}[damage])
    else:
        with sqlite3.connect(path) as database:
            database.execute(
                {
                    "version": "PRAGMA user_version = 99",
                    "no secret": "DELETE FROM secret",
                    "short secret": "UPDATE secret SET value = x'00'",
                    "no table": "DROP TABLE claims",
                    "wrong row": f"UPDATE claims SET text = (SELECT text FROM claims WHERE token = {tokens[1]})",
                    "no text": "UPDATE claims SET text = 'x'",
                }[damage]
            )
        database.close()
    again = open_claims()
    found = again.find(tokens[0])
    assert found in (None, text(0))
    assert [again.find(again.claim(text(number))) for number in range(200)] == [text(number) for number in range(200)]
    (line,) = lines()
    assert line.startswith(f"The file {path} is broken (")
    assert line.endswith(") and is made anew: the gateway will prepare its routes again")


@pytest.mark.parametrize("what", ["open to others", "link", "hard link", "folder"])
def test_a_file_that_is_not_ours_alone_is_replaced(open_claims: Opener, tmp_path: Path, what: str) -> None:
    path = Path(open_claims.folder, FILE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    if what == "link":
        path.symlink_to(elsewhere)
    elif what == "hard link":
        os.link(elsewhere, path)
    elif what == "open to others":
        one = open_claims()
        one.claim(text())
        secret = secret_in(open_claims.folder)
        one.close()
        path.chmod(0o644)
    else:
        path.mkdir()
    opened = open_claims()
    token = opened.claim(text())
    assert opened.find(token) == text()
    if what != "folder":
        found = path.lstat()
        assert (found.st_mode & 0o170777, found.st_nlink) == (0o100600, 1)
    assert elsewhere.read_bytes() == b"precious"
    if what == "open to others":
        assert secret_in(open_claims.folder) != secret


def test_where_nothing_can_be_written_tokens_are_kept_for_this_process(
    open_claims: Opener,
    tmp_path: Path,
    lines: Lines,
) -> None:
    missing = tmp_path / "missing"
    opened = Claims(str(missing), KEEP)
    token = opened.claim(text())
    assert opened.find(token) == text()
    opened.close()
    (line,) = lines()
    assert line.startswith(f"The file {missing}/{FILE} cannot be used (No such file or directory): tokens are kept in")


def test_a_full_disk(open_claims: Opener, lines: Lines) -> None:
    opened = open_claims()
    token = opened.claim(text())
    assert opened._file.database is not None
    opened._file.database.execute("PRAGMA max_page_count = 1")  # SQLite has the same error for a full disk
    big = Text(KEY, ((b"say", b"x" * 100_000),))
    claimed = opened.claim(big)
    assert (opened.find(claimed), opened.find(token), opened.generation) == (big, None, 1)
    (line,) = lines()
    assert "cannot be used (database or disk is full): tokens are kept in a temporary file" in line


def test_a_file_that_another_process_holds_refuses_the_route(
    folder: str,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_file, "BUSY_SECONDS", 0.01)
    Claims(folder, KEEP).claim(text())
    holder = sqlite3.connect(os.path.join(folder, FILE), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    reason = refused(ConfigurationStore(cors().plugins, folder=folder).prepare(KEY, CORS))
    holder.close()
    assert reason == "tokens cannot be kept: database is locked"
    assert lines() == ["Tokens cannot be kept, so a route is refused: database is locked"]


@pytest.mark.parametrize("first", [True, False])
def test_a_file_that_could_not_be_opened_at_first_gives_no_tokens_without_its_secret(
    open_claims: Opener, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    monkeypatch.setattr(token_file, "BUSY_SECONDS", 0.01)
    token = open_claims().claim(text())
    opened = open_claims()
    if not first:
        opened.claim(text())
        for each in open_claims.opened:
            each.close()
    holder = sqlite3.connect(os.path.join(open_claims.folder, FILE), isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    for each in open_claims.opened[:1]:
        each.close()
    holder.execute("BEGIN EXCLUSIVE")
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="^database is locked$"):
            opened.claim(text())
    holder.close()
    assert (opened.claim(text()), opened.generation) == (token, 0)


@pytest.mark.parametrize("what", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("how", ["link", "open to others"])
def test_files_beside_it_that_others_put_there_are_not_read(
    open_claims: Opener, tmp_path: Path, lines: Lines, what: str, how: str
) -> None:
    one = open_claims()
    one.claim(text())
    secret = secret_in(open_claims.folder)
    one.close()
    path = Path(open_claims.folder, FILE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    planted = Path(f"{path}{what}")
    if how == "link":
        planted.symlink_to(elsewhere)
    else:
        planted.write_bytes(b"x")
        planted.chmod(0o666)
    opened = open_claims()
    assert opened.find(opened.claim(text())) == text()
    assert secret_in(open_claims.folder) != secret
    assert elsewhere.read_bytes() == b"precious"
    assert lines() == [
        f"The file {path} could be used by others and is made anew: the gateway will prepare its routes again"
    ]


def test_a_folder_that_was_opened_up_is_not_used_any_more(open_claims: Opener, tmp_path: Path, lines: Lines) -> None:
    one = open_claims()
    one.claim(text())
    for name in os.listdir(open_claims.folder):
        os.unlink(os.path.join(open_claims.folder, name))
    tmp_path.chmod(0o777)
    token = one.claim(text())
    assert one.find(token) == text()
    assert os.listdir(tmp_path) == []
    assert lines()[1:] == [
        f"The file {tmp_path}/{FILE} cannot be used (others may use its folder): tokens are kept in a temporary file "
        "until the next start. Make room, or give the runner's user the right to write there"
    ]


def test_a_damaged_file_that_cannot_be_removed_either(
    open_claims: Opener, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_claims()
    one.claim(text())
    one.close()
    path = Path(open_claims.folder, FILE)
    path.write_bytes(b"x" * 8192)

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "unlink", refuse)
    opened = open_claims()
    assert opened.find(opened.claim(text())) == text()
    monkeypatch.undo()
    assert [line.partition(":")[0] for line in lines()] == [
        f"The file {path} is broken (file is not a database) and is made anew",
        f"The file {path} cannot be used (Permission denied)",
    ]


def test_a_file_that_another_process_has_made_anew_stays(open_claims: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = open_claims(), open_claims()
    one.claim(text())
    other.claim(text())
    repaired = []

    def find(database: sqlite3.Connection, token: int) -> None:
        """The second process finds the damage, and the first repairs it before the second does."""
        monkeypatch.undo()
        database.execute("DROP TABLE claims")
        repaired.append(one.claim(text()))
        raise sqlite3.DatabaseError("it is damaged")

    monkeypatch.setattr(other, "_find", find)
    assert other.find(1) is None
    (token,) = repaired
    assert one.find(token) == other.find(token) == text()
    assert (one.generation, other.generation) == (1, 1)


def test_a_write_that_fails_half_way_leaves_nothing_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Claims(None, KEEP)
    opened.claim(text())
    monkeypatch.setattr(tokens, "MAX_BYTES", 1)
    monkeypatch.setattr(tokens, "UNCHECKED_BYTES", 0)
    monkeypatch.setattr(tokens, "CLAIM_BYTES", 1)
    assert opened._file.database is not None
    opened._file.database.execute(
        "CREATE TRIGGER full BEFORE UPDATE OF text ON claims BEGIN SELECT raise(FAIL, 'full'); END"
    )
    for _ in range(2):
        with pytest.raises(sqlite3.IntegrityError, match="^full$"):
            opened.claim(text(2))
    opened._file.database.execute("DROP TRIGGER full")
    assert opened.find(opened.claim(text(2))) == text(2)
    opened.close()


def test_a_claim_from_a_clock_that_was_ahead_ends_after_its_time(open_claims: Opener, clock: Clock) -> None:
    one = open_claims()
    clock.now += 1e6
    token = one.claim(text())
    clock.now -= 1e6
    one.claim(text(2))
    clock.now += KEEP + 1
    assert one.find(token) is None


def test_a_folder_that_another_process_holds_is_not_waited_for_for_ever(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_file, "BUSY_SECONDS", 0.01)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    opened = Claims(folder, KEEP)
    token = opened.claim(text())
    assert opened.find(token) == text()  # in a temporary file
    os.close(descriptor)
    opened.close()
    assert os.listdir(folder) == []


def test_a_stopped_store_refuses(clock: Clock) -> None:
    async def main() -> None:
        store = ConfigurationStore(cors().plugins, clock=clock)
        await store.close()
        await store.close()
        with pytest.raises(ConfigurationError, match="^the runner is stopping$"):
            await store.prepare(KEY, CORS)

    asyncio.run(main())
