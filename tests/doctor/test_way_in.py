"""What the doctor finds on the way to a socket. Each finding is brought about here, with real files and sockets."""

import contextlib
import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_bridge import ConfigurationError
from asgi_bridge.doctor import Finding
from asgi_bridge.doctor.findings import error, warning
from asgi_bridge.doctor.users import ENTER, WRITE, User, find_user, group_name, user_name

from .conftest import Look

SOCKET = "HOME/r.sock"
START = f"start it with asgi-bridge run --uds {SOCKET}, or let APISIX start it (ext-plugin.cmd)"
AS_ROOT = "run the doctor as root, or as the runner's user"
ME = pwd.getpwuid(os.geteuid()).pw_name
GROUP = group_name(os.getegid())


@pytest.fixture
def path(home: Path) -> Path:
    return home / "r.sock"


@contextlib.contextmanager
def listening(path: Path, mode: int = 0o666, backlog: int = 8, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    """Have a socket at `path`. Nobody answers there, so a handshake fails."""
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(path))
        path.chmod(mode)
        if kind == socket.SOCK_STREAM:
            listener.listen(backlog)
        yield


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user who is not root. Whoever is not root now stays who they are."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def seen(look: Look, path: Path, **questions: object) -> list[Finding]:
    """All findings but those of the handshake."""
    found = look(socket=str(path), **{"seconds": 0.05, **questions})
    return [each for each in found if "handshake" not in each.what]


def test_nothing_is_there(look: Look, path: Path) -> None:
    assert look(socket=str(path)) == [error(SOCKET, "there is nothing: no runner listens", START)]


def test_the_folder_is_not_there(look: Look, home: Path) -> None:
    what = "the folder HOME/run is not there"
    assert look(socket=str(home / "run" / "r.sock")) == [
        error("HOME/run/r.sock", what, "create it; the runner does not")
    ]


def test_a_path_that_is_too_long(look: Look) -> None:
    path = "/" + 107 * "x"
    assert look(socket=path) == [
        error(path, "the path is longer than 107 bytes, so nothing can listen there", "give a shorter one")
    ]


def test_something_else_is_there(look: Look, path: Path, home: Path) -> None:
    path.touch()
    found = [error(SOCKET, "what is there is no socket", "remove it, or give another path")]
    assert look(socket=str(path)) == found
    path.unlink()
    path.mkdir()
    assert look(socket=str(path)) == found


def test_a_datagram_socket_is_there(look: Look, path: Path) -> None:
    with listening(path, kind=socket.SOCK_DGRAM):
        what = f"it is a socket of user {ME} and group {GROUP}, mode 666, and no connection is possible: "
        what += "protocol wrong type for socket"
        assert look(socket=str(path)) == [error(SOCKET, what, "give another path")]


def test_the_runner_has_ended(look: Look, path: Path) -> None:
    with listening(path):
        pass
    what = f"it is a socket of user {ME} and group {GROUP}, mode 666, but nobody listens: the runner has ended"
    assert look(socket=str(path)) == [error(SOCKET, what, START)]


def test_a_runner_that_accepts_nothing(look: Look, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_bridge.doctor.way_in.CONNECT_SECONDS", 0.05)
    with listening(path, backlog=0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        what = "the runner accepts no connection within 0.05 s, as long as APISIX waits"
        remedy = "look into the runner's log: a plugin blocks its event loop, or it is overloaded"
        assert look(socket=str(path)) == [error(SOCKET, what, remedy)]


def test_who_listens(look: Look, path: Path, home: Path) -> None:
    with listening(path):
        (found,) = seen(look, path)
    assert (found.severity, found.where) == ("ok", SOCKET)
    listener = f"process {os.getpid()} of user {ME}"
    assert found.what.startswith(f"a socket of user {ME} and group {GROUP}, mode 666; {listener} (")
    # a link leads APISIX to the same place
    (home / "link").symlink_to(path)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with listening(path):
        (found,) = seen(look, home / "link")
    assert (found.severity, found.where) == ("ok", "HOME/link")


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o664, 0o444])
def test_the_mode_keeps_the_workers_out(look: Look, path: Path, mode: int) -> None:
    with listening(path, mode):
        found = seen(look, path)
    what = f"it is a socket of user {ME} and group {GROUP}, mode {mode:o}: nginx's workers, which run as nobody, may "
    remedy = "start the runner with --uds-permissions 666, or with a mode and group that let nobody write"
    assert found[0] == error(SOCKET, f"{what}not connect", remedy)


def test_workers_of_the_same_user_may_connect(look: Look, path: Path) -> None:
    with listening(path, 0o600):
        assert [each.severity for each in seen(look, path, worker_user=ME)] == ["ok"]
    path.unlink()
    with listening(path, 0o600):
        found = look(f"nginx_config: {{user: {ME}}}", socket=str(path), seconds=0.05)
    assert [each for each in found if "nobody" in each.what] == []


def test_a_folder_keeps_the_workers_out(look: Look, home: Path) -> None:
    folder = home / "private"
    folder.mkdir(mode=0o700)
    (folder / "run").mkdir(mode=0o755)
    with listening(folder / "run" / "r.sock"):
        found = seen(look, folder / "run" / "r.sock")
    what = (
        f"it belongs to user {ME} and group {GROUP}, mode 700: nginx's workers, which run as nobody, may not enter it, "
        "and so reach no socket there"
    )
    remedy = "chmod o+x HOME/private, or put the socket into another folder"
    assert found[0] == error("HOME/private", what, remedy)
    assert [each.severity for each in found] == ["error", "ok"]


def test_everybody_may_exchange_the_socket(look: Look, home: Path, path: Path) -> None:
    expected = warning(
        "HOME",
        "its mode is 777: every user may put a socket of their own in place of the runner's",
        "chmod o-w HOME; only the runner has to write there",
    )
    home.chmod(0o777)
    with listening(path):
        assert seen(look, path)[0] == expected
    path.unlink()
    home.chmod(0o1777)  # as /tmp: only the owner may exchange it
    with listening(path):
        assert [each.severity for each in seen(look, path)] == ["ok"]


def test_this_user_may_not_connect(look: Look, path: Path) -> None:
    with listening(path, 0o000), as_nobody():
        found = look(socket=str(path))
    what = f"it is a socket of user {ME} and group {GROUP}, mode 0: this user may not connect"
    assert found[-1] == error(SOCKET, what, AS_ROOT)


def test_this_user_may_not_look(look: Look, home: Path) -> None:
    folder = home / "private"
    folder.mkdir(mode=0o000)
    with as_nobody():
        assert look(socket=str(folder / "r.sock")) == [
            error("HOME/private/r.sock", "this user may not look there", AS_ROOT)
        ]


@pytest.mark.parametrize(
    ("owner", "group", "mode", "allowed"),
    [
        (7, 7, 0o700, True),
        (7, 7, 0o077, False),  # the owner's own bits count alone
        (1, 8, 0o070, True),
        (1, 8, 0o707, False),
        (1, 1, 0o007, True),
        (1, 1, 0o770, False),
    ],
)
def test_the_bits_that_count(owner: int, group: int, mode: int, allowed: bool) -> None:
    user = User("u", 7, frozenset((7, 8)))
    found = os.stat_result((mode, 0, 0, 0, owner, group, 0, 0, 0, 0))
    assert [user.may(found, ENTER), user.may(found, WRITE)] == [allowed, allowed]
    assert User("root", 0, frozenset()).may(found, WRITE)


def test_users() -> None:
    nobody = pwd.getpwnam("nobody")
    assert find_user("nobody") == find_user(str(nobody.pw_uid))
    assert find_user("nobody").uid == nobody.pw_uid and nobody.pw_gid in find_user("nobody").groups
    assert (user_name(nobody.pw_uid), user_name(4_000_000_000), group_name(4_000_000_000)) == (
        "nobody", "4000000000", "4000000000",
    )  # fmt: skip
    for name in ("no-such-user", "4000000000"):
        with pytest.raises(ConfigurationError, match=f"this machine has no user {name}; --worker-user names"):
            find_user(name)
