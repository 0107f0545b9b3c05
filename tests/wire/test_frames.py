"""The frame reader: bytes cut anywhere, and no work or memory for bytes that have not arrived."""

import random
import time
import tracemalloc

import pytest

from asgi_bridge.errors import LocalProtocolError
from asgi_bridge.wire import HEADER_SIZE, MAX_PAYLOAD, FrameReader, FrameType, frame


def read_all(reader: FrameReader) -> list[tuple[int, bytes]]:
    frames = []
    while (found := reader.next_frame()) is not None:
        frames.append(found)
    return frames


FRAMES = [(1, b"prepare"), (2, b""), (0, b"x"), (255, b"unknown"), (3, b"y" * 300), (4, bytes(70000)), (2, b"end")]
STREAM = b"".join(frame(kind, payload) for kind, payload in FRAMES)


def test_header() -> None:
    assert frame(FrameType.HTTP_REQ_CALL, b"abc") == b"\x02\x00\x00\x03abc"
    assert frame(255, b"x" * 0x012345)[:HEADER_SIZE] == b"\xff\x01\x23\x45"
    assert list(FrameType) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("kind", "size"), [(0, MAX_PAYLOAD + 1), (-1, 0), (256, 0)])
def test_what_no_frame_holds_is_refused(kind: int, size: int) -> None:
    with pytest.raises(LocalProtocolError, match="no frame can hold"):
        frame(kind, bytes(size))


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_one_frame_in_one_read(make: type) -> None:
    reader = FrameReader()
    for kind, payload in FRAMES:
        reader.receive_data(make(frame(kind, payload)))
        assert reader.pending == HEADER_SIZE + len(payload)
        found = reader.next_frame()
        assert found == (kind, payload)
        assert type(found[1]) is bytes
        assert reader.next_frame() is None
        assert reader.pending == 0


def test_several_frames_in_one_read() -> None:
    reader = FrameReader()
    reader.receive_data(STREAM)
    assert reader.pending == len(STREAM)
    assert read_all(reader) == FRAMES
    assert reader.pending == 0


def test_byte_by_byte() -> None:
    reader = FrameReader()
    frames = []
    for n in range(len(STREAM)):
        reader.receive_data(STREAM[n : n + 1])
        frames += read_all(reader)
    assert frames == FRAMES
    assert reader.pending == 0


def test_a_whole_frame_that_is_not_taken_before_the_next_read() -> None:
    for size in range(1, 40):
        reader = FrameReader()
        reader.receive_data(frame(1, b"first"))
        rest = frame(2, b"second") + frame(3, b"third")
        for start in range(0, len(rest), size):
            reader.receive_data(rest[start : start + size])
        assert reader.pending == 9 + len(rest)
        assert read_all(reader) == [(1, b"first"), (2, b"second"), (3, b"third")]


def test_any_cuts_and_any_moments_of_taking() -> None:
    chance = random.Random(1)
    for _ in range(500):
        reader = FrameReader()
        frames = []
        data = STREAM
        while data:
            size = chance.choice((0, 1, 2, 3, 4, 5, 11, 300, 40000))
            reader.receive_data(memoryview(data)[:size])
            data = data[size:]
            for _ in range(chance.randrange(3)):
                if (found := reader.next_frame()) is not None:
                    frames.append(found)
        frames += read_all(reader)
        assert frames == FRAMES


def test_what_is_kept_is_copied() -> None:
    """A server reuses its read buffer."""
    buffer = bytearray(64)
    view = memoryview(buffer)
    reader = FrameReader()
    whole, first, second = frame(1, b"whole"), frame(2, b"in two")[:6], frame(2, b"in two")[6:]
    for part in (whole, first, second):
        buffer[: len(part)] = part
        reader.receive_data(view[: len(part)])
        buffer[:] = bytes(64)
    assert read_all(reader) == [(1, b"whole"), (2, b"in two")]


def test_the_longest_frame() -> None:
    payload = random.Random(1).randbytes(MAX_PAYLOAD)
    data = frame(2, payload)
    reader = FrameReader()
    reader.receive_data(data)
    assert reader.next_frame() == (2, payload)
    for start in range(0, len(data), 65536):
        assert reader.next_frame() is None
        reader.receive_data(memoryview(data)[start : start + 65536])
    assert reader.next_frame() == (2, payload)
    assert reader.next_frame() is None


def test_memory_follows_what_has_arrived() -> None:
    tracemalloc.start()
    try:
        readers = [FrameReader() for _ in range(64)]
        for reader in readers:
            reader.receive_data(b"\x02\xff\xff\xff")
            reader.receive_data(b"x" * 1000)
            assert reader.next_frame() is None
        _size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 4000


def test_memory_of_a_long_frame_is_given_back() -> None:
    reader = FrameReader()
    data = frame(2, bytes(2**22))
    tracemalloc.start()
    try:
        for start in range(0, len(data), 65536):
            reader.receive_data(data[start : start + 65536])
        assert reader.next_frame() == (2, bytes(2**22))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 10_000


def fastest(data: bytes, step: int) -> float:
    """Return the seconds of this thread alone, which do not count while other processes run."""
    best = 1e9
    for _ in range(5):
        reader = FrameReader()
        start = time.thread_time()
        for n in range(0, len(data), step):
            reader.receive_data(data[n : n + step])
            while reader.next_frame() is not None:
                pass
        best = min(best, time.thread_time() - start)
    return best


def test_reading_takes_linear_time() -> None:
    """Sixteen times the bytes may take about 16 times as long. Quadratic time would be 256 times as long."""
    small, big = frame(2, bytes(2**14)), frame(2, bytes(2**18))
    assert fastest(big, 7) < 80 * fastest(small, 7)
    many, more = frame(2, b"12345") * 2**10, frame(2, b"12345") * 2**14
    assert fastest(more, 2**20) < 80 * fastest(many, 2**20)
    assert fastest(more, 1001) < 80 * fastest(many, 1001)
