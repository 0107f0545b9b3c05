"""The socket: stale ones, live owners, and paths that cannot be one."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asgi_bridge import ConfigurationError
from asgi_bridge.server import sockets
from asgi_bridge.server.sockets import bind, has_owner, socket_path

from .client import Connection, body_of, until
from .processes import Runner

Start = Callable[..., Runner]


@contextmanager
def listening(path: str, kind: int = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(path)
        if kind == socket.SOCK_STREAM:
            sock.listen(1)
        yield sock


def refused(runner: Runner) -> str:
    """The one line that a refused start leaves."""
    assert runner.wait() == 2
    (line,) = runner.log.splitlines()
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
            # the old one goes on where it was, and leaves its successor's socket alone
            assert body_of(old.call(token)) == b"%d" % first.pid
            first.stop()
            assert old.receive() is None
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
                pass  # nobody accepts yet, and the backlog is full
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
    monkeypatch.setattr(sockets.os, "lstat", lambda path: found)
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
                os.setuid(65534)  # root may write everywhere
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

    monkeypatch.setattr(sockets.os, "rename", fail)
    with pytest.raises(ConfigurationError, match="no renaming today"):
        bind(path)
    assert os.listdir(folder) == []


def test_a_closed_socket_does_not_unlink_a_successor_with_the_same_inode(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bind(path)
    found = os.stat(path)
    first.unlink()
    first.sock.close()
    second = bind(path)
    # as if the file system had used the inode again, which it does when it likes
    monkeypatch.setattr("asgi_bridge.server.sockets.os.stat", lambda path: found)
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
