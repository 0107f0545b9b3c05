"""One owner of a socket path and one successor: what is handed over, and what happens if one of them fails."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asgi_bridge.plugins.build import SHUTDOWN_SECONDS
from asgi_bridge.server.handover import GRACEFUL_AFTER_WAIT
from asgi_bridge.succession.control import MAX_UNREAD, connect, open_private
from asgi_bridge.succession.packets import HELLO, LISTENER, READY, VERSION
from asgi_bridge.succession.times import END_SECONDS, HANDOVER_SECONDS, SUCCESSOR_SECONDS
from asgi_bridge.wire import ExtraInfoReq, ExtraInfoResp, HTTPReqCallResp

from ..doubles.connection import HEADERS, Connection, body_of, request
from ..doubles.reloading_gateway import KILL_SECONDS
from ..doubles.runner_process import RunnerProcess, serving_alone
from ..doubles.waiting import until
from ..server import HERE

Start = Callable[..., RunnerProcess]


def test_the_times_end_before_the_gateway_kills() -> None:
    # uvicorn's shutdown takes 0.1 s beside the grace period
    after_wait = SUCCESSOR_SECONDS + 0.1 + GRACEFUL_AFTER_WAIT + SHUTDOWN_SECONDS
    assert HANDOVER_SECONDS + 0.1 < END_SECONDS < KILL_SECONDS
    assert after_wait <= END_SECONDS + 1e-9


def test_a_busy_connection_goes_over_right_behind_its_answer(start: Start) -> None:
    owner = start()
    with owner.connect() as busy, owner.connect() as idle:
        token = idle.token("pid")
        busy.begin(busy.token("asking", ["a"]))
        assert isinstance(busy.receive(), ExtraInfoReq)
        successor = start()
        until(lambda: body_of(idle.call(token)) == b"%d" % successor.pid)
        assert owner.process.poll() is None
        busy.send(ExtraInfoResp(b"x"))
        assert body_of(busy.receive()) == b'{"a": "x"}'
        assert body_of(busy.call(token)) == b"%d" % successor.pid
        assert owner.wait() == 0


def test_a_connection_with_an_ask_that_nobody_needs_goes_over_behind_the_answer_to_it(start: Start) -> None:
    owner = start()
    with owner.connect() as connection, owner.connect() as idle:
        token = idle.token("pid")
        connection.begin(connection.token("asking_behind"))
        assert isinstance(connection.receive(), ExtraInfoReq)
        # a gateway reads the answer to the call only after it has answered the ask
        successor = start()
        until(lambda: body_of(idle.call(token)) == b"%d" % successor.pid)
        assert owner.process.poll() is None
        connection.send(ExtraInfoResp(b"x"))
        assert isinstance(connection.receive(), HTTPReqCallResp)
        # the owner may read the answer to the ask and the next call at once: then it answers that too
        assert body_of(connection.call(token)) in (b"%d" % owner.pid, b"%d" % successor.pid)
        assert body_of(connection.call(token)) == b"%d" % successor.pid
        assert owner.wait() == 0


@pytest.mark.parametrize(("size", "by_owner"), [(10, False), (MAX_UNREAD, False), (MAX_UNREAD + 1, True)])
def test_an_unfinished_frame_goes_along_unless_it_is_long(start: Start, size: int, by_owner: bool) -> None:
    owner = start()
    with owner.connect() as connection, owner.connect() as idle:
        token = idle.token("pid")
        data = connection.session.send(request(token, headers=[*HEADERS, (b"x-long", b"x" * 2 * MAX_UNREAD)]))
        connection.sock.sendall(data[:size])
        successor = start()
        until(lambda: body_of(idle.call(token)) == b"%d" % successor.pid)
        connection.sock.sendall(data[size:])
        assert body_of(connection.receive()) == b"%d" % (owner if by_owner else successor).pid
        assert body_of(connection.call(token)) == b"%d" % successor.pid
        assert owner.wait() == 0


def test_the_mode_is_the_successors(start: Start, path: str) -> None:
    owner = start()
    owner.connect().close()
    inode = os.stat(path).st_ino
    start("--uds-permissions", "600")
    assert owner.wait() == 0
    found = os.stat(path)
    assert (found.st_ino, stat.S_IMODE(found.st_mode)) == (inode, 0o600)


@pytest.mark.parametrize("receives", [False, True])
def test_a_successor_that_dies_with_what_it_was_sent_costs_the_owner_nothing(
    start: Start, path: str, receives: bool
) -> None:
    owner = start()
    with owner.connect() as idle, owner.connect() as busy:
        token = idle.token("pid")
        busy.begin(busy.token("sleeping", 1))
        folder = open_private(f"{path}.d")
        assert folder is not None
        successor = connect(folder)
        os.close(folder)
        assert successor is not None
        successor.send(HELLO, VERSION)
        successor.send(READY)
        owner.logged("The successor takes over")
        if receives:
            until(lambda: os.stat(path))
            packet = None
            while packet is None:
                packet = successor.receive()
            assert (packet.kind, len(packet.handed)) == (LISTENER, 1)
            os.close(packet.handed[0].descriptor)
        successor.close()
        assert body_of(busy.receive()) == b"slept"
        for connection in (idle, busy):
            assert body_of(connection.call(token)) == b"%d" % owner.pid
        with Connection(path) as fresh:
            assert body_of(fresh.call(token)) == b"%d" % owner.pid
        # and the next one takes over as if nothing had been
        successor_process = start()
        assert owner.wait() == 0
        assert body_of(idle.call(token)) == b"%d" % successor_process.pid


DYING = """
import os, signal
import asgi_bridge.succession.succession as s
take = s.Succession._take
def die(self, packet):
    os.kill(os.getpid(), signal.SIGKILL)
    take(self, packet)
s.Succession._take = die
from asgi_bridge.__main__ import main
main()
"""


def test_a_successor_that_is_killed_when_it_has_just_got_the_socket_costs_the_owner_nothing(
    start: Start, path: str
) -> None:
    owner = start()
    with owner.connect() as idle:
        token = idle.token("pid")
        inode = os.stat(path).st_ino
        dying = start(command=[sys.executable, "-c", DYING, "run", "sample:bridge", "--app-dir", str(HERE),
                               "--uds", path])  # fmt: skip
        assert dying.wait() == -signal.SIGKILL
        owner.logged("This runner goes on")
        assert body_of(idle.call(token)) == b"%d" % owner.pid
        with Connection(path) as fresh:
            assert body_of(fresh.call(token)) == b"%d" % owner.pid
        assert os.stat(path).st_ino == inode
        successor = start()
        assert owner.wait() == 0
        assert body_of(idle.call(token)) == b"%d" % successor.pid


AS_NOBODY = """
import os, socket, sys
path = sys.argv[1]
os.setgid(65534); os.setuid(65534)
def refused(deed, *arguments):
    try:
        deed(*arguments)
    except PermissionError:
        return True
def call():
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(f"{path}.d/control")
print(refused(call), refused(os.listdir, f"{path}.d"), refused(os.rename, f"{path}.d/control", f"{path}.stolen"))
os.rename(path, f"{path}.stolen")
os.rename(f"{path}.d", f"{path}.away")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_who_takes_path_and_private_folder_away_changes_nothing(
    start: Start, path: str, folder: Path
) -> None:
    folder.chmod(0o777)
    owner = start()
    with owner.connect() as old:
        token = old.token("pid")
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, path], check=True, stdout=subprocess.PIPE, text=True)
        assert done.stdout == "True True True\n"
        owner.logged("It is bound anew")
        until(lambda: os.path.exists(f"{path}.d/control"))
        with Connection(path) as fresh:
            assert body_of(fresh.call(token)) == b"%d" % owner.pid
        start().logged("Another runner listens on")
        assert owner.wait() == 0


@pytest.mark.parametrize("what", ["removed", "renamed", *(f"replaced by a {it}" for it in ("socket", "file", "link"))])
def test_an_owner_whose_path_somebody_takes_binds_it_anew(start: Start, path: str, folder: Path, what: str) -> None:
    owner = start()
    with owner.connect() as old:
        token = old.token("pid")
        if what == "renamed":
            os.rename(path, f"{path}.else")
        elif what == "removed":
            os.unlink(path)
        elif what == "replaced by a socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(f"{folder}/other")
                sock.listen()
                os.rename(f"{folder}/other", path)
        else:
            if what == "replaced by a file":
                (folder / "other").write_text("precious")
            else:
                (folder / "other").symlink_to("precious")
            os.rename(f"{folder}/other", path)
        owner.logged("It is bound anew")
        with Connection(path) as fresh:
            assert body_of(fresh.call(token)) == b"%d" % owner.pid
        assert body_of(old.call(token)) == b"%d" % owner.pid
        # a successor gets the new one
        successor = start()
        assert owner.wait() == 0
        assert body_of(old.call(token)) == b"%d" % successor.pid
        moved = [each for each in folder.iterdir() if each.suffix == ".moved"]
        found = [os.readlink(each) if each.is_symlink() else each.read_text() for each in moved]
        assert found == (["precious"] if what in ("replaced by a file", "replaced by a link") else [])


def test_an_owner_that_cannot_hand_over_is_replaced(start: Start, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        runner = start()
        runner.line_with("Runner listens on")
        with Connection(path) as connection:
            assert body_of(connection.call(connection.token("pid"))) == b"%d" % runner.pid


IMPATIENT = """
import asgi_bridge.succession.times as times
times.OWNER_SECONDS = 0.2
from asgi_bridge.cli import main
main()
"""


def test_an_owner_that_hangs_is_replaced_and_hands_over_when_it_goes_on(start: Start, path: str, folder: Path) -> None:
    owner = start()
    with owner.connect() as old:
        token = old.token("pid")
        owner.process.send_signal(signal.SIGSTOP)
        with Connection(path) as waiting:
            waiting.begin(token)
            command = [
                sys.executable,
                "-c",
                serving_alone(IMPATIENT),
                "run",
                "sample:bridge",
                "--app-dir",
                str(HERE),
                "--uds",
                path,
            ]
            successor = start(command=command)
            successor.line_with("does not hand over")
            successor.line_with("Runner listens on")
            with Connection(path) as fresh:
                assert body_of(fresh.call(token)) == b"%d" % successor.pid
            owner.process.send_signal(signal.SIGCONT)
            assert body_of(waiting.receive()) in (b"%d" % successor.pid, b"%d" % owner.pid)
            assert body_of(old.call(token)) == b"%d" % successor.pid
        assert owner.wait() == 0
        with Connection(path) as fresh:
            assert body_of(fresh.call(token)) == b"%d" % successor.pid
    successor.stop()
    assert os.listdir(folder) == ["r.sock.d"]


def test_a_runner_with_reload_takes_over_too(start: Start, path: str) -> None:
    owner = start()
    with owner.connect() as connection:
        connection.token("pid")
    successor = start("--reload")
    assert owner.wait() == 0
    successor.line_with("Runner listens on")
    with Connection(path) as connection:
        pid = int(body_of(connection.call(connection.token("pid"))))
    assert os.getpgid(pid) == successor.pid
    successor.stop()
    assert not os.path.exists(path)


ENDED_AT_ONCE = """
import os, signal
import asgi_bridge.succession.times as times
times.SUCCESSOR_SECONDS = times.END_SECONDS = 60.0
import asgi_bridge.succession.succession as s
bind = s.Succession._bind
def bind_and_end(self):
    bind(self)
    os.kill(os.getpid(), signal.SIGTERM)
s.Succession._bind = bind_and_end
from asgi_bridge.cli import main
main()
"""


def test_a_runner_that_is_ended_when_it_has_just_bound_passes_its_backlog_on(start: Start, path: str) -> None:
    arguments = ["run", "sample:bridge", "--app-dir", str(HERE)]
    env = {**os.environ, "APISIX_LISTEN_ADDRESS": f"unix:{path}"}
    first = start(command=[sys.executable, "-c", serving_alone(ENDED_AT_ONCE), *arguments], env=env)
    with first.connect() as waiting:
        second = start()
        assert body_of(waiting.call(waiting.token("pid"))) == b"%d" % second.pid
    assert first.wait() == 128 + signal.SIGTERM


# SIGTERM without a successor


def test_a_runner_that_apisix_stops_answers_and_removes_its_path(start: Start, path: str) -> None:
    runner = start(watchdog=60.0, env={**os.environ, "APISIX_LISTEN_ADDRESS": f"unix:{path}"})
    with runner.connect() as connection, runner.connect() as other:
        token = other.token("pid")
        connection.begin(connection.token("sleeping", 0.1))
        other.call(token)
        runner.process.send_signal(signal.SIGTERM)
        assert body_of(connection.receive()) == b"slept"
        assert runner.wait() == -signal.SIGTERM
        assert other.receive() is None
    assert not os.path.exists(path)
    assert "control" not in os.listdir(f"{path}.d")
