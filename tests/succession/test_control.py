"""The control socket: what goes from one process to another, and what comes back when a process dies."""

import contextlib
import fcntl
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_bridge.succession import control
from asgi_bridge.succession.control import (
    MAX_DATA,
    MAX_DESCRIPTORS,
    MAX_UNREAD,
    Control,
    ControlError,
    Handed,
    Packet,
    accept,
    connect,
    identity,
    listen,
    open_private,
)

KIND = 7


@pytest.fixture
def ends() -> Iterator[tuple[Control, Control]]:
    left, right = (Control(each) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield left, right
    for each in (left, right):
        for handed in each.close():
            os.close(handed.descriptor)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    tmp_path.chmod(0o700)
    found = open_private(str(tmp_path))
    assert found is not None
    yield found
    os.close(found)


def same(left: int, right: int) -> bool:
    """Whether two descriptors belong to the same file."""
    return os.path.sameopenfile(left, right)


def pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC)


def test_a_socket_arrives_with_its_unread_bytes_and_is_closed_on_exec(ends: tuple[Control, Control]) -> None:
    left, right = ends
    ours, theirs = socket.socketpair()
    with ours:
        left.send(KIND, b"data", [Handed(theirs.detach(), b"\x02\x00")])
        packet = right.receive()
        assert packet is not None
        ((descriptor, unread),) = packet.handed
        assert (packet.kind, packet.data, unread) == (KIND, b"data", b"\x02\x00")
        assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        with socket.socket(fileno=descriptor) as there:
            there.sendall(b"hello")
            assert ours.recv(10) == b"hello"
            assert not left.settled
            assert left.receive() is None  # reads the acknowledgement
            assert left.settled
        assert ours.recv(10) == b""  # the sender has kept none


@pytest.mark.parametrize(
    ("number", "unread", "packets"),
    [(0, 0, 1), (1, MAX_UNREAD, 1), (253, 0, 1), (254, 0, 2), (600, 10, 3), (10, MAX_UNREAD, 5)],
)
def test_any_number_of_sockets_arrives_in_order(
    ends: tuple[Control, Control], number: int, unread: int, packets: int
) -> None:
    left, right = ends
    read, write = pipe()
    sent = [Handed(os.dup(read), os.urandom(unread)) for _ in range(number)]
    texts = [each.unread for each in sent]
    left.send(KIND, b"x", sent)
    got: list[Packet] = []
    while (packet := right.receive()) is not None:
        assert (packet.kind, packet.data) == (KIND, b"x")
        assert len(packet.handed) <= MAX_DESCRIPTORS
        got.append(packet)
        left.receive()
    handed = [each for packet in got for each in packet.handed]
    assert [each.unread for each in handed] == texts
    assert all(same(each.descriptor, read) for each in handed)
    assert len(got) == packets
    assert left.settled
    for descriptor in (read, write, *(each.descriptor for each in handed)):
        os.close(descriptor)


@pytest.mark.parametrize("number", [1, 300])
def test_what_a_dead_receiver_has_not_acknowledged_comes_back(ends: tuple[Control, Control], number: int) -> None:
    left, right = ends
    read, write = pipe()
    left.send(KIND, handed=[Handed(os.dup(read), b"%d" % each) for each in range(number)])
    if number > MAX_DESCRIPTORS:
        packet = right.receive()
        assert packet is not None
        for each in packet.handed:
            os.close(each.descriptor)
    right.close()
    while left.receive() is None and not left.ended:
        pass
    back = left.close()
    assert [each.unread for each in back] == [b"%d" % each for each in range(number)][-(number % MAX_DESCRIPTORS) :]
    assert all(same(each.descriptor, read) for each in back)
    for descriptor in (read, write, *(each.descriptor for each in back)):
        os.close(descriptor)


def test_what_a_full_queue_does_not_take_is_sent_later(ends: tuple[Control, Control]) -> None:
    left, right = ends
    total = 5000
    for number in range(total):
        left.send(KIND, b"%d" % number)
    assert left.wants_write
    got: list[bytes] = []
    while len(got) < total:
        while (packet := right.receive()) is not None:
            got.append(packet.data)
        left.flush()
    assert got == [b"%d" % number for number in range(total)]
    assert not left.wants_write


IN_FLIGHT = """
import os, resource, socket
from asgi_bridge.succession.control import Control, Handed
if os.geteuid() == 0:
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
left, right = map(Control, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
# sockets in flight count for the user until they are received; closing our own descriptor does not take them out
got = 0
for number in range(400):
    left.send(1, b"", [Handed(os.dup(0), b"%d" % number)])
    while (packet := right.receive()) is not None if left.wants_write or number % 20 == 19 or left._crowded else False:
        assert packet.handed[0].unread == b"%d" % got, packet
        os.close(packet.handed[0].descriptor)
        got += 1
        left.receive()
left.flush()
assert got == 400 and left.settled, (got, left.settled)
"""


def test_a_low_limit_of_open_files_holds_descriptors_back_and_loses_none() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", IN_FLIGHT], check=True, stdin=subprocess.DEVNULL)


def test_descriptors_that_the_system_drops_end_the_connection(ends: tuple[Control, Control]) -> None:
    left, right = ends
    read, write = pipe()
    left.send(KIND, handed=[Handed(os.dup(read)) for _ in range(20)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(read)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 5, hard))
    try:
        with pytest.raises(ControlError, match="ulimit -n"):
            right.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert right.ended
    right.close()
    back = left.close()
    assert len(back) == 20
    for descriptor in (read, write, *(each.descriptor for each in back)):
        os.close(descriptor)


@pytest.mark.parametrize("data", [b"x", b"\1\0\0\0\1\0\5four", b"\1\0\0\0\1\0\0rest", b"x" * (MAX_DATA + 10)])
def test_what_is_no_packet_ends_the_connection(data: bytes) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, contextlib.closing(Control(right)) as ours:
        read, write = pipe()
        socket.send_fds(left, [data], [read] if data.endswith(b"four") else [])
        with pytest.raises(ControlError):
            ours.receive()
        assert ours.ended
        os.close(read)
        assert select.select([], [write], [], 0)[1]
        with pytest.raises(BrokenPipeError):
            os.write(write, b"x")  # no descriptor of the other end is left
        os.close(write)


def test_one_process_finds_the_other_in_the_private_folder(folder: int, tmp_path: Path) -> None:
    assert connect(folder) is None
    listening, name = listen(folder)
    with listening:
        assert name == identity(folder)
        assert accept(listening) is None
        ours = connect(folder)
        theirs = accept(listening)
        assert ours is not None and theirs is not None
        ours.send(KIND, b"hello")
        assert theirs.receive() == Packet(KIND, b"hello", [])
        ours.close()
        assert theirs.receive() is None and theirs.ended
        theirs.close()
        # another one takes the name, and nothing else is left in the folder
        second, other = listen(folder)
        with second:
            assert identity(folder) == other != name
            assert os.listdir(tmp_path) == ["control"]
    assert connect(folder) is None  # nobody listens any more


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_may_use_is_not_private(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    assert open_private(str(tmp_path)) is None


def test_a_link_or_a_file_or_nothing_is_no_private_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch(mode=0o600)
    assert [open_private(str(tmp_path / name)) for name in ("link", "file", "none")] == [None, None, None]


AS_NOBODY = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(sys.argv[1])
print(repr(sock.recv(10)))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_who_reaches_the_socket_is_sent_away() -> None:
    with tempfile.TemporaryDirectory() as path:  # pytest's own folder lets no other user in
        folder = open_private(path)
        assert folder is not None
        listening, _ = listen(folder)
        with listening:
            os.chmod(path, 0o755)
            os.chmod(f"{path}/control", 0o777)
            command = [sys.executable, "-c", AS_NOBODY, f"{path}/control"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
                select.select([listening], [], [])
                assert accept(listening) is None
                assert other.communicate()[0] == "b''\n"
        os.close(folder)


def test_the_module_imports_little() -> None:
    code = "import sys, asgi_bridge.succession.control; "
    code += "print(sorted({'asyncio', 'starlette', 'uvicorn'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "[]\n"
    assert control.MAX_UNREAD * 2 < control.MAX_DATA
