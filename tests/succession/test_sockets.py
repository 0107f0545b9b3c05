"""The socket: stale ones, live owners, and paths that no socket can have."""

import contextlib
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge import ConfigurationError
from asgi_bridge.succession.sockets import bind, has_owner, socket_path

from ..doubles.connection import Connection, body_of
from ..doubles.runner_process import RunnerProcess
from ..doubles.waiting import until

Start = Callable[..., RunnerProcess]


@contextmanager
def listening(path: str, kind: int = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(path)
        if kind == socket.SOCK_STREAM:
            sock.listen(1)
        yield sock


def refused(runner: RunnerProcess) -> str:
    """Return the last line that a refused start prints."""
    assert runner.wait() == 2
    line = runner.log.splitlines()[-1]
    assert line.startswith("asgi-bridge: ")
    return line.removeprefix("asgi-bridge: ")


def test_a_stale_socket_is_replaced(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with listening(path):
        pass
    made = bind(path)
    with made.sock:
        assert "stale" in caplog.text
        Connection(path).close()
        made.unlink()
    assert not os.path.exists(path)


def test_a_live_owner_is_taken_over(start: Start, path: str, folder: Path) -> None:
    first = start()
    with first.connect() as old:
        token = old.token("pid")
        assert body_of(old.call(token)) == b"%d" % first.pid
        second = start()
        second.logged("Application startup complete")
        assert second.log.count("Another runner listens on") == 1
        with second.connect() as new:
            new.token("pid")
            assert body_of(new.call(token)) == b"%d" % second.pid
            # the old runner hands over its connections and ends, and does not remove the socket
            assert body_of(old.call(token)) == b"%d" % second.pid
            assert first.wait() == 0
        assert os.path.exists(path)
        with second.connect() as new:
            assert body_of(new.call(token)) == b"%d" % second.pid
    second.stop(signal.SIGINT)
    assert os.listdir(folder) == ["r.sock.d"]


def test_a_successor_that_cannot_start_leaves_the_owner_alone(start: Start, folder: Path) -> None:
    first = start()
    with first.connect() as connection:
        token = connection.token("pid")
    second = start(target="sample:nobody")
    assert "has no attribute 'nobody'" in refused(second)
    with first.connect() as connection:
        assert body_of(connection.call(token)) == b"%d" % first.pid


def test_there_is_no_moment_without_a_socket(start: Start, path: str) -> None:
    first = start()
    first.connect().close()
    failures: list[BaseException] = []
    connects = 0
    done = threading.Event()

    def hammer() -> None:
        nonlocal connects
        while not done.is_set():
            try:
                Connection(path).close()
                connects += 1
            except BlockingIOError:
                pass  # nobody accepts, and the backlog is full
            except OSError as exc:
                failures.append(exc)
            time.sleep(0.001)

    thread = threading.Thread(target=hammer)
    thread.start()
    second = start()
    second.logged("Application startup complete")
    at = connects
    until(lambda: connects > at + 100)
    done.set()
    thread.join()
    assert failures == []


def test_a_full_backlog_is_a_live_owner(path: str) -> None:
    with listening(path) as sock:
        sock.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(path)
        assert has_owner(path)
        for each in waiting:
            each.close()


def test_a_path_that_vanishes_while_it_is_looked_at(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(path):
        pass
    found = os.lstat(path)
    os.unlink(path)
    monkeypatch.setattr(os, "lstat", lambda path: found)
    assert not has_owner(path)


def test_the_longest_path(start: Start, folder: Path) -> None:
    path = str(folder) + "/" + "x" * (106 - len(str(folder)))
    assert len(path) == 107
    runner = start(path=path)
    with runner.connect() as connection:
        assert body_of(connection.call(connection.token("hello"))) == b"hello"
    runner.stop()
    assert os.listdir(folder) == ["x" * (106 - len(str(folder))) + ".d"]


def test_a_path_that_is_too_long(start: Start, folder: Path) -> None:
    path = str(folder) + "/" + "x" * (107 - len(str(folder)))
    assert refused(start(path=path)) == f"the socket's path has 108 bytes, a unix socket's may have 107: {path}"


def test_a_missing_folder(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="missing: No such file or directory; create it first"):
        bind(f"{folder}/missing/r.sock")


def test_a_folder_that_is_not_ours_to_write(folder: Path) -> None:
    folder.chmod(0o555)
    path = f"{folder}/r.sock"
    pid = os.fork()
    if pid == 0:
        said = "nothing"
        try:
            if os.geteuid() == 0:
                os.setuid(65534)  # root may write to every folder
            bind(path)
        except ConfigurationError as exc:
            said = str(exc)
        finally:
            os._exit(said != f"cannot listen on {path}: Permission denied")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert os.listdir(folder) == []


def test_what_is_no_socket_stays(folder: Path, path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(ConfigurationError, match="exists and is no socket; remove it, or give another path"):
        bind(path)
    assert Path(path).read_text() == "precious"


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_stays(folder: Path, path: str, dangling: bool) -> None:
    target = folder / "other"
    if not dangling:
        with listening(str(target)):
            pass
    os.symlink(target, path)
    with pytest.raises(ConfigurationError, match="exists and is no socket"):
        bind(path)
    assert os.readlink(path) == str(target)


def test_a_folder_reached_through_a_symbolic_link(folder: Path) -> None:
    (folder / "real").mkdir()
    os.symlink(folder / "real", folder / "link")
    made = bind(f"{folder}/link/r.sock")
    with made.sock:
        assert os.listdir(folder / "real") == ["r.sock"]


def test_another_programs_datagram_socket_stays(path: str) -> None:
    with listening(path, socket.SOCK_DGRAM), pytest.raises(ConfigurationError, match="datagram socket"):
        bind(path)


def test_a_bind_that_fails_half_way_leaves_nothing(folder: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no renaming today")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(ConfigurationError, match="no renaming today"):
        bind(path)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
@pytest.mark.parametrize("permissions", [0o666, 0o600, 0o620, 0])
def test_the_mode_is_the_one_asked_for_and_the_umask_stays(path: str, umask: int, permissions: int) -> None:
    before = os.umask(umask)
    try:
        with bind(path, permissions).sock:
            assert stat.S_IMODE(os.stat(path).st_mode) == permissions
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


# other users may write to the socket's folder


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """Make a file that no other user may read, and check after the test that this is still so."""
    victim = tmp_path / "victim"
    victim.write_text("secret")
    victim.chmod(0o600)
    yield victim
    assert (stat.S_IMODE(victim.stat().st_mode), victim.read_text()) == (0o600, "secret")


def exchange(folder: Path, victim: Path) -> None:
    """Replace each hidden file or folder in `folder` with a link to `victim`."""
    for name in os.listdir(folder):
        if name.startswith(".") and not os.path.islink(folder / name):
            with contextlib.suppress(OSError):
                os.rename(folder / name, folder / f"moved{name}")
                os.symlink(victim, folder / name)


@pytest.mark.parametrize("moment", ["bind", "listen"])
def test_links_put_into_the_folder_half_way_are_not_followed(
    folder: Path, path: str, victim: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Socket(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            if moment == "bind":
                exchange(folder, victim)

        def listen(self, backlog: int = 0) -> None:
            super().listen(backlog)
            if moment == "listen":
                exchange(folder, victim)

    monkeypatch.setattr(socket, "socket", Socket)
    made = bind(path)
    monkeypatch.undo()
    with made.sock:
        Connection(path).close()
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o666
        made.unlink()
    assert not os.path.lexists(path)


@pytest.mark.parametrize("put", ["link", "folder"])
def test_a_private_folder_that_is_exchanged_is_not_used(
    folder: Path, path: str, victim: Path, monkeypatch: pytest.MonkeyPatch, put: str
) -> None:
    make = os.mkdir

    def mkdir(name: str, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        (folder / name).rename(folder / "moved")
        if put == "link":
            os.symlink(victim.parent, folder / name)
        else:
            make(folder / name)
            os.chmod(folder / name, 0o777)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(ConfigurationError, match=f"^cannot listen on {path}: "):
        bind(path)
    assert not os.path.lexists(path)
    assert os.listdir(victim.parent) == ["victim"]


def test_a_race_with_somebody_who_puts_links(folder: Path, path: str, victim: Path) -> None:
    done = threading.Event()

    def attack() -> None:
        while not done.is_set():
            exchange(folder, victim)

    attacker = threading.Thread(target=attack)
    attacker.start()
    modes = []
    try:
        for _ in range(300):
            with contextlib.suppress(ConfigurationError), bind(path).sock:
                modes.append(stat.S_IMODE(os.lstat(path).st_mode))
    finally:
        done.set()
        attacker.join()
    assert set(modes) <= {0o666}


def test_a_link_that_takes_the_sockets_place_is_left_alone(folder: Path, path: str) -> None:
    made = bind(path)
    with made.sock:
        os.rename(path, folder / "moved")
        os.symlink(folder / "moved", path)
        made.unlink()
        assert os.path.islink(path)


# another user's sockets


def as_nobody(deed: Callable[[], object]) -> str:
    """Call `deed` in a process of another user, and return its result or the error's text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65534)
            said = str(deed())
        except ConfigurationError as exc:
            said = str(exc)
        except BaseException as exc:
            said = repr(exc)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@needs_root
@pytest.mark.parametrize("alive", [False, True])
def test_nobody_is_called_a_runner_who_may_not_be_asked(
    folder: Path, path: str, caplog: pytest.LogCaptureFixture, alive: bool
) -> None:
    folder.chmod(0o777)
    with listening(path) as sock:
        os.chmod(path, 0o600)
        if not alive:
            sock.close()

        def deed() -> str:
            caplog.clear()
            with bind(path).sock:
                return caplog.text

        said = as_nobody(deed)
    assert "Another runner" not in said
    assert f"The socket of user root at {path} is replaced. It is unknown whether a runner still listens there" in said


@needs_root
def test_another_users_socket_that_cannot_be_replaced(folder: Path, path: str) -> None:
    folder.chmod(0o1777)
    with listening(path):
        pass
    assert as_nobody(lambda: bind(path)) == (
        f"cannot listen on {path}: Operation not permitted; the file there belongs to user root: remove it, or give "
        "another path"
    )
    assert os.listdir(folder) == ["r.sock"]


@needs_root
def test_a_dead_socket_that_everybody_may_connect_to_is_stale(
    folder: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder.chmod(0o777)
    with listening(path):
        os.chmod(path, 0o666)

    def deed() -> str:
        with bind(path).sock:
            return caplog.text

    assert f"A stale socket at {path} is replaced" in as_nobody(deed)


def test_a_closed_socket_does_not_unlink_a_successor_with_the_same_inode(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bind(path)
    found = os.stat(path)
    first.unlink()
    first.sock.close()
    second = bind(path)
    # as if the file system had reused the inode, which it may do at any time
    monkeypatch.setattr("asgi_bridge.succession.sockets.os.lstat", lambda path: found)
    first.unlink()
    monkeypatch.undo()
    assert os.path.exists(path)
    second.sock.close()


def test_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APISIX_LISTEN_ADDRESS", raising=False)
    with pytest.raises(ConfigurationError, match="no socket to listen on: give --uds PATH"):
        socket_path(None)


@pytest.mark.parametrize(
    ("uds", "environment", "path"),
    [
        ("/a/b", "unix:/c", "/a/b"),
        ("unix:/a/b", "", "/a/b"),
        (None, "unix:/c", "/c"),
        (None, "/c", "/c"),
        ("", "/c/../d", "/d"),
    ],
)
def test_addresses(uds: str | None, environment: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APISIX_LISTEN_ADDRESS", environment)
    assert socket_path(uds) == path
