"""The private folder beside the socket: which folders are used, which are not, and what remains at the end."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from asgi_bridge.plugins.token_file import FILE, files_of
from asgi_bridge.plugins.tokens import Claims, Text
from asgi_bridge.succession.private import TOKEN_FILES, PrivateFolder

from ..doubles.connection import Connection, body_of
from ..doubles.runner_process import RunnerProcess

Start = Callable[..., RunnerProcess]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [record.getMessage() for record in caplog.records]


def test_it_is_made_for_the_runners_user_alone(start: Start, path: str) -> None:
    runner = start(umask=0)
    with runner.connect() as connection:
        connection.token("hello")
        folder = Path(path + ".d")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in os.listdir(folder)}
        assert modes == {FILE: 0o600, f"{FILE}-wal": 0o600, f"{FILE}-shm": 0o600, "control": 0o600}
    runner.stop()
    assert os.listdir(folder) == [FILE]


def test_the_folder_knows_the_files_of_tokens() -> None:
    assert [*TOKEN_FILES] == files_of("")


UNUSABLE = {
    "open to others": "others may use it (its mode is 777, and 700 is wanted)",
    "readable to its group": "others may use it (its mode is 740, and 700 is wanted)",
    "read-only": "it cannot be written to",
    "a link": "it is a link",
    "a link to nothing": "it is a link",
    "a file": "it is no folder",
    "somebody else's": "it belongs to the user with id 65534",
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_one_that_is_not_private_is_not_used_and_not_touched(start: Start, folder: Path, path: str, what: str) -> None:
    place = Path(path + ".d")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(0o700)
    if what == "a link":
        place.symlink_to(elsewhere)
    elif what == "a link to nothing":
        place.symlink_to(folder / "nothing")
    elif what == "a file":
        place.write_text("precious")
    else:
        place.mkdir()
        place.chmod({"open to others": 0o777, "readable to its group": 0o740, "read-only": 0o500}.get(what, 0o700))
        if what == "somebody else's":
            if os.geteuid() != 0:
                pytest.skip("only root can give a folder away")
            os.chown(place, 65534, 65534)
    before = place.lstat()

    runner = start()
    with runner.connect() as connection:
        assert body_of(connection.call(connection.token("hello"))) == b"hello"
    log = runner.log
    assert f"The private folder {place} cannot be used: {UNUSABLE[what]}. Tokens are kept in " in log
    temporary = Path(log.partition("Tokens are kept in ")[2].partition(",")[0])
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    assert FILE in os.listdir(temporary)
    runner.stop()

    assert not temporary.exists()
    after = place.lstat()
    assert (after.st_mode, after.st_uid, after.st_ino) == (before.st_mode, before.st_uid, before.st_ino)
    assert list(elsewhere.iterdir()) == []
    if place.is_dir():
        assert os.listdir(place) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path, lines: Callable[[], list[str]]) -> None:
    made = PrivateFolder(str(tmp_path / "missing" / "r.sock"))
    try:
        assert made.temporary
        (line,) = lines()
        assert "cannot be used: No such file or directory. Tokens are kept in" in line
    finally:
        made.close()
    assert made.path is not None and not os.path.exists(made.path)


def test_folders_of_gateways_that_are_gone_are_removed(tmp_path: Path) -> None:
    """APISIX names the socket by its process id, so each start of APISIX brings another folder."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = tmp_path / f"apisix-{process.pid}.sock.d"
    alive = tmp_path / f"apisix-{os.getpid()}.sock.d"
    other, file = tmp_path / "other-1.sock.d", tmp_path / f"apisix-{process.pid}0.sock.d"
    linked = tmp_path / f"apisix-0{process.pid}.sock.d"
    for each in (dead, alive, other):
        each.mkdir(0o700)
        (each / FILE).write_text("")
    file.write_text("")
    linked.symlink_to(other)

    made = PrivateFolder(str(tmp_path / "r.sock"))
    assert dead.exists()  # not one of APISIX's
    made = PrivateFolder(str(tmp_path / f"apisix-{os.getppid()}.sock"))

    assert not made.temporary
    assert not dead.exists()
    assert [each.exists() for each in (alive, other, file, linked)] == [True] * 4


@pytest.mark.parametrize("name", ["apisix-9999999999.sock.d", "apisix-0.sock.d", "apisix-٣.sock.d", "apisix-.sock.d"])
def test_names_that_somebody_puts_beside_the_socket_do_not_matter(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert not PrivateFolder(str(tmp_path / "apisix-1.sock")).temporary
    assert (tmp_path / name).exists()


def test_a_folder_with_something_else_in_it_stays_and_the_others_go(tmp_path: Path) -> None:
    dead = []
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        dead.append(tmp_path / f"apisix-{process.pid}.sock.d")
    for each in dead:
        each.mkdir(0o700)
        (each / FILE).write_text("")
        (each / f"{FILE}-wal").write_text("")
    for each in dead[::2]:
        (each / "precious").write_text("")
    PrivateFolder(str(tmp_path / "apisix-1.sock"))
    assert {each: os.listdir(each) for each in dead if each.exists()} == {each: ["precious"] for each in dead[::2]}


@pytest.mark.parametrize("umask", [0o177, 0o277, 0o377, 0o777])
@pytest.mark.parametrize("temporary", [False, True])
def test_a_umask_takes_nothing_from_the_runners_user(tmp_path: Path, umask: int, temporary: bool) -> None:
    if temporary:
        (tmp_path / "r.sock.d").write_text("")
    before = os.umask(umask)
    try:
        made = PrivateFolder(str(tmp_path / "r.sock"))
        assert made.path is not None
        claims = Claims(made.path, 60.0)
        claims.claim(Text(None, ()))
    finally:
        os.umask(before)
    assert made.temporary is temporary
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o700
    assert {stat.S_IMODE((Path(made.path) / name).stat().st_mode) for name in os.listdir(made.path)} == {0o600}
    claims.close()
    made.close()


def test_without_a_place_for_a_folder_the_runner_starts_too(
    tmp_path: Path, lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.sock.d").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    made = PrivateFolder(str(tmp_path / "r.sock"))
    made.close()
    assert (made.path, made.temporary) == (None, True)
    (line,) = lines()
    assert "cannot be used: it is no folder. Tokens are kept in a temporary file, until this runner ends." in line


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_tokens_outlive_the_process(start: Start, path: str, how: str) -> None:
    first = start()
    with first.connect() as connection:
        tokens = [connection.token("hello", key=f"route#{number}#ext-plugin-pre-req#1") for number in range(5)]
    if how == "SIGTERM":
        first.stop()
    else:
        first.process.kill()
        first.wait()
    second = start()
    second.logged("Runner listens")
    with Connection(path, patient=True) as connection:
        # the gateway does not know that the runner has restarted
        assert [body_of(connection.call(token)) for token in tokens] == [b"hello"] * 5
        again = [connection.token("hello", key=f"route#{number}#ext-plugin-pre-req#2") for number in range(5)]
    assert again == tokens
