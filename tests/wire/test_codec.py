"""The codec: compared with the official package, at its limits, and with arbitrary bytes."""

import random
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from asgi_bridge.errors import LocalProtocolError, RemoteProtocolError
from asgi_bridge.wire import (
    HEADER_SIZE,
    MAX_PAYLOAD,
    METHODS,
    ErrCode,
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    FrameType,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    PrepareConfReq,
    PrepareConfResp,
    Rewrite,
    Role,
    Stop,
    TextEntry,
    UnknownUnion,
    Var,
    decode,
    encode,
    rare,
)
from tests.fuzzing import examples
from tests.wire import oracle
from tests.wire.damage import RECORDED, damaged
from tests.wire.generate import MESSAGES, Source

many = settings(
    max_examples=examples(),
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

# For each message: the role that reads it, and the type of its frame.
READ_BY: dict[type, tuple[Role, FrameType]] = {
    ErrResp: (Role.GATEWAY, FrameType.ERROR),
    PrepareConfReq: (Role.RUNNER, FrameType.PREPARE_CONF),
    PrepareConfResp: (Role.GATEWAY, FrameType.PREPARE_CONF),
    HTTPReqCallReq: (Role.RUNNER, FrameType.HTTP_REQ_CALL),
    HTTPReqCallResp: (Role.GATEWAY, FrameType.HTTP_REQ_CALL),
    ExtraInfoReq: (Role.GATEWAY, FrameType.EXTRA_INFO),
    ExtraInfoResp: (Role.RUNNER, FrameType.EXTRA_INFO),
    HTTPRespCallReq: (Role.RUNNER, FrameType.HTTP_RESP_CALL),
    HTTPRespCallResp: (Role.GATEWAY, FrameType.HTTP_RESP_CALL),
}


# --- the official package agrees ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_official_package_agrees_in_both_directions(kind: type) -> None:
    role, frame_type = READ_BY[kind]

    @many
    @given(st.binary(max_size=96))
    def agree(data: bytes) -> None:
        source = Source(data)
        message = MESSAGES[kind](source)
        frame = encode(message)
        head, payload = frame[:HEADER_SIZE], frame[HEADER_SIZE:]
        assert head == struct.pack(">I", frame_type << 24 | len(payload))
        oracle.verify(kind, payload)
        assert oracle.decode(kind, payload) == message
        assert decode(frame_type, payload, role) == message
        theirs = oracle.encode(message, source.below)
        assert oracle.decode(kind, theirs) == message
        assert decode(frame_type, theirs, role) == message

    agree()


def test_the_frames_of_the_known_errors_are_what_the_official_package_makes() -> None:
    assert [encode(ErrResp(code)) for code in ErrCode] == [rare._build_err_resp(code) for code in ErrCode]


def test_errors_are_read_by_both_roles() -> None:
    frame = encode(ErrResp(2))
    for role in Role:
        assert decode(0, frame[4:], role) == ErrResp(2)


@pytest.mark.parametrize("count", [0, 1, 62, 63, 64, 65, 66, 100, 1000])
def test_vectors_around_the_prepared_lengths(count: int) -> None:
    entries: list[TextEntry] = [(b"n%d" % n, b"v" * n) for n in range(count)]
    for message in (
        HTTPReqCallReq(headers=entries),
        HTTPReqCallResp(1, Stop(200, entries)),
        HTTPReqCallResp(1, Rewrite(headers=entries, args=entries, resp_headers=entries)),
    ):
        role, frame_type = READ_BY[type(message)]
        payload = encode(message)[HEADER_SIZE:]
        oracle.verify(type(message), payload)
        assert oracle.decode(type(message), payload) == message
        assert decode(frame_type, payload, role) == message


@pytest.mark.parametrize("size", [*range(10), 254, 255, 256, 257, 65535, 65536])
def test_strings_of_every_length_and_padding(size: int) -> None:
    octets = bytes(n & 255 for n in range(size))
    for message in (
        HTTPReqCallResp(1, Stop(200, [(octets, octets), (octets, None), (None, octets), (b"", octets)], octets)),
        HTTPReqCallResp(1, Rewrite(octets, [(octets, b"")], None, [(b"", octets)], octets)),
        HTTPRespCallResp(1, 2, [(octets, octets)], octets),
        ExtraInfoReq(Var(octets)),
        ExtraInfoResp(octets),
    ):
        role, frame_type = READ_BY[type(message)]
        payload = encode(message)[HEADER_SIZE:]
        oracle.verify(type(message), payload)
        assert oracle.decode(type(message), payload) == message
        assert decode(frame_type, payload, role) == message


def test_bytes_like_bodies_are_written_as_they_are() -> None:
    for body in (bytearray(b"hello"), memoryview(b"hello")):
        frame = encode(HTTPReqCallResp(1, Stop(200, None, body)))  # type: ignore[arg-type]
        assert frame == encode(HTTPReqCallResp(1, Stop(200, None, b"hello")))


def test_fields_of_a_later_version_are_passed_over() -> None:
    # vtable with three slots where PrepareConf.Resp has one
    payload = struct.pack("<I5H2xiIII", 16, 10, 16, 4, 8, 12, 12, 7, 8, 9)
    assert decode(1, payload, Role.GATEWAY) == PrepareConfResp(7)


def test_offsets_need_not_be_aligned() -> None:
    payload = struct.pack("<I3HiI", 10, 6, 8, 4, 6, 7)
    assert decode(1, payload, Role.GATEWAY) == oracle.decode(PrepareConfResp, payload) == PrepareConfResp(7)
    # an entry at any position, whose strings follow each other without padding
    entry = struct.pack("<4HiII", 8, 12, 4, 8, 8, 8, 9) + b"\1\0\0\0n\3\0\0\0val"
    for padding in range(4):
        payload = struct.pack("<I3H2xiIII", 12, 6, 8, 4, 8, 4, 1, 12 + padding) + b"\xff" * padding + entry
        expected = PrepareConfReq([(b"n", b"val")])
        assert decode(1, payload, Role.RUNNER) == oracle.decode(PrepareConfReq, payload) == expected


def test_tables_at_the_very_end_of_the_buffer() -> None:
    # the second entry's vtable and table without fields are the last 8 bytes
    entries = [(b"a", b"b"), (None, None)]
    payload = encode(HTTPRespCallResp(1, 2, entries))[HEADER_SIZE:]
    assert decode(4, payload, Role.GATEWAY) == HTTPRespCallResp(1, 2, entries)
    # a table that names nothing, or only a name without bytes, four bytes before the end
    payload = encode(HTTPRespCallResp(1, 2, [(None, b"")]))[HEADER_SIZE:]
    assert decode(4, payload, Role.GATEWAY) == HTTPRespCallResp(1, 2, [(None, b"")])


# --- what cannot be written -----------------------------------------------------------------------------------------

BIG = b"x" * (MAX_PAYLOAD + 1)


@pytest.mark.parametrize(
    "message",
    [
        ErrResp(-1),
        ErrResp(256),
        PrepareConfResp(-1),
        PrepareConfResp(2**32),
        HTTPReqCallReq(id=2**32),
        HTTPReqCallReq(conf_token=-1),
        HTTPReqCallReq(method="PURGE"),
        HTTPReqCallResp(-1),
        HTTPReqCallResp(2**32, Stop()),
        HTTPReqCallResp(1, Stop(-1)),
        HTTPReqCallResp(1, Stop(65536)),
        HTTPReqCallResp(-1, Rewrite()),
        HTTPReqCallResp(1, UnknownUnion(2)),
        HTTPReqCallResp(1, UnknownUnion(256)),
        HTTPReqCallResp(-1, UnknownUnion(3)),
        ExtraInfoReq(UnknownUnion(3)),
        ExtraInfoReq(UnknownUnion(256)),
        HTTPRespCallReq(status=65536),
        HTTPRespCallResp(status=65536),
        HTTPRespCallResp(id=-1),
    ],
    ids=repr,
)
def test_numbers_out_of_range_are_refused(message: Any) -> None:
    with pytest.raises(LocalProtocolError):
        encode(message)


@pytest.mark.parametrize(
    "message",
    [
        PrepareConfReq([(b"a", BIG)]),
        PrepareConfReq(None, BIG),
        PrepareConfReq([(b"a", BIG[:-100])], b"x" * 100),
        HTTPReqCallReq(src_ip=BIG),
        HTTPReqCallReq(headers=[(b"a", BIG[: 2**23]), (b"b", BIG[: 2**23])]),
        HTTPReqCallResp(1, Stop(200, None, BIG)),
        HTTPReqCallResp(1, Stop(200, [(BIG, b"")])),
        HTTPReqCallResp(1, Rewrite(BIG)),
        HTTPReqCallResp(1, Rewrite(None, [(b"a", None)], [(BIG, None)])),
        ExtraInfoReq(Var(BIG)),
        ExtraInfoResp(BIG),
        HTTPRespCallReq(headers=[(BIG, None)]),
        HTTPRespCallResp(body=BIG),
    ],
    ids=lambda message: type(message).__name__,
)
def test_more_than_a_frame_holds_is_refused(message: Any) -> None:
    with pytest.raises(LocalProtocolError, match="too long for a frame"):
        encode(message)


def test_the_longest_body_that_fits() -> None:
    # 68 bytes of tables and the length; the payload ends on a multiple of four
    body = BIG[: MAX_PAYLOAD - 3 - 68 - 4]
    frame = encode(HTTPReqCallResp(1, Stop(200, None, body)))
    assert len(frame) == HEADER_SIZE + MAX_PAYLOAD - 3
    assert decode(2, frame[HEADER_SIZE:], Role.GATEWAY) == HTTPReqCallResp(1, Stop(200, None, body))
    with pytest.raises(LocalProtocolError, match="too long for a frame"):
        encode(HTTPReqCallResp(1, Stop(200, None, body + b"x")))


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="Stop is no message"):
        encode(Stop())  # type: ignore[arg-type]


# --- what cannot be read --------------------------------------------------------------------------------------------


def decoded_bytes(message: Any) -> int:
    """Return how many bytes a message holds, with some for each entry."""
    if isinstance(message, bytes):
        return len(message)
    if isinstance(message, list | tuple):
        return 4 * len(message) + sum(map(decoded_bytes, message))
    fields = getattr(message, "__slots__", ())
    return sum(decoded_bytes(getattr(message, field)) for field in fields)


def message_or_error(frame_type: int, payload: bytes, role: Role) -> Any:
    """Decode. If that gives a message, check that the official package reads the same, and that its size is bounded."""
    try:
        message = decode(frame_type, payload, role)
    except RemoteProtocolError as exc:
        assert exc.recoverable is (frame_type <= 4)
        return None
    assert decoded_bytes(message) <= 6 * len(payload)
    assert oracle.decode(type(message), payload) == message
    return message


@many
@given(st.integers(0, 5), st.sampled_from(Role), st.binary(max_size=4096))
def test_any_bytes_are_a_message_or_an_error(frame_type: int, role: Role, payload: bytes) -> None:
    message_or_error(frame_type, payload, role)


WORDS = [0, 1, 2, 4, 6, 8, 12, 16, 0xFFFFFFFC, 0x00080004, 0x000C0008, 0x0008000A, 0x00040008, 0x00080008, 24, 32]


@many
@given(st.integers(0, 4), st.sampled_from(Role), st.binary(max_size=100))
def test_any_small_offsets_are_a_message_or_an_error(frame_type: int, role: Role, choices: bytes) -> None:
    """Random bytes seldom get past the root. Small words do, because they may be offsets and vtables."""
    words = [WORDS[choice % len(WORDS)] for choice in choices]
    message_or_error(frame_type, struct.pack(f"<{len(words)}I", *words), role)


@many
@given(st.integers(0, len(RECORDED) - 1), st.integers(0, 2**32))
def test_damaged_frames_are_a_message_or_an_error(number: int, seed: int) -> None:
    frame_type, payload, role = RECORDED[number]
    payload = damaged(payload, random.Random(seed))
    message = message_or_error(frame_type, payload, role)
    if message is not None:
        encode(message)


@pytest.mark.parametrize(("frame_type", "payload", "role"), RECORDED, ids=lambda value: "")
def test_every_cut_of_a_frame_is_a_message_or_an_error(frame_type: int, payload: bytes, role: Role) -> None:
    for size in range(0, len(payload), 1 + len(payload) // 500):
        message_or_error(frame_type, payload[:size], role)


def offset_table(payload: bytes) -> Iterator[bytes]:
    """Yield the payload with each of its words replaced by an offset that leads out of it."""
    for at in range(0, len(payload) - 3, 4):
        for word in (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(payload), len(payload) - at, len(payload) - at - 1):
            yield payload[:at] + struct.pack("<I", word) + payload[at + 4 :]


def test_every_offset_is_checked() -> None:
    for message in (
        PrepareConfReq([(b"a", b"{}"), (b"b", None)], b"key"),
        HTTPReqCallReq(1, b"\x7f\0\0\1", "POST", b"/x", [(b"a", b"1")], [(b"b", b"2"), (None, b"c")], 5),
        HTTPReqCallResp(1, Stop(200, [(b"a", b"1")], b"body")),
        HTTPReqCallResp(1, Rewrite(b"/x", [(b"a", b"1")], [(b"a", None)], [(b"b", b"2")], b"body")),
        ExtraInfoReq(Var(b"name")),
        ExtraInfoResp(b"result"),
        HTTPRespCallReq(1, 200, [(b"a", b"1")], 5),
        HTTPRespCallResp(1, 200, [(b"a", b"1")], b"body"),
    ):
        role, frame_type = READ_BY[type(message)]
        for payload in (encode(message)[HEADER_SIZE:], oracle.encode(message)):
            for wrong in offset_table(payload):
                message_or_error(frame_type, wrong, role)


@pytest.mark.parametrize("name_last", [0, 1])
def test_what_is_made_of_a_builders_frame_is_read_as_the_official_package_reads_it_or_refused(name_last: int) -> None:
    """The changes make entries overlap, share a vtable of another shape, or come in another order."""
    entries: list[TextEntry] = [(b"a", b"1"), (b"longer-name", b"value"), (b"e", b""), (b"bcd", b"x" * 9)]
    request = HTTPReqCallReq(1, b"\x7f\0\0\1", "POST", b"/x", entries[:2], entries, 5)
    payload = oracle.encode(request, lambda n: name_last)
    read = 0
    for at in range(0, len(payload) - 3, 2):
        (word,) = struct.unpack_from("<I", payload, at)
        for changed in (*range(0, 128, 4), *(word + step for step in (*range(-64, 68, 4), -1, 1, 2, 1 << 16, 1 << 31))):
            other = payload[:at] + struct.pack("<I", changed & 0xFFFFFFFF) + payload[at + 4 :]
            try:
                message = decode(2, other, Role.RUNNER)
            except RemoteProtocolError:
                continue
            # the official package cuts off strings that reach beyond the end, unless more bytes follow
            assert oracle.decode(HTTPReqCallReq, other + bytes(100_000)) == message
            read += 1
    assert read > 1000


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "leads outside"),
        (b"\0", "leads outside"),
        (struct.pack("<I", 4), "leads outside"),
        (struct.pack("<Ii", 4, 5), "outside of its 8 bytes"),  # vtable before the beginning
        (struct.pack("<Ii", 4, -4), "leads outside"),
        (struct.pack("<IHHi", 8, 2, 4, 4), "impossible vtable"),
        (struct.pack("<IHHi", 8, 5, 4, 4), "impossible vtable"),
        (struct.pack("<IHHi", 8, 10, 4, 4), "a field outside of the table"),
        (struct.pack("<I3HxxiI", 12, 40, 8, 4, 8, 0), "impossible vtable"),  # longer than the buffer
        (struct.pack("<IHHi", 8, 4, 3, 4), "impossible vtable"),
        (struct.pack("<IHHi", 8, 4, 8, 4), "impossible vtable"),
        (struct.pack("<I3Hxxi", 12, 6, 4, 4, 8), "a field outside of the table"),
    ],
)
def test_malformed_tables(payload: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as caught:
        decode(1, payload, Role.GATEWAY)
    assert caught.value.recoverable


def test_a_vtable_before_the_beginning_is_refused_in_entries_too() -> None:
    payload = bytearray(encode(HTTPReqCallResp(1, Stop(200, [(b"name", b"value")])))[HEADER_SIZE:])
    table = 76
    assert payload[table + 4 : table + 12] == struct.pack("<II", 8, 16)
    for distance in range(1, 1000):
        struct.pack_into("<i", payload, table, table + distance)
        with pytest.raises(RemoteProtocolError, match=f"position -{distance} is outside"):
            decode(2, bytes(payload), Role.GATEWAY)


def test_unions_without_their_table() -> None:
    # vtable of 8 bytes, no offset in the second slot
    payload = struct.pack("<I4HiB3x", 12, 8, 8, 4, 0, 8, 1)
    with pytest.raises(RemoteProtocolError, match="an info without its table"):
        decode(3, payload, Role.GATEWAY)
    payload = struct.pack("<I5H2xiB3x", 16, 10, 8, 0, 4, 0, 12, 2)
    with pytest.raises(RemoteProtocolError, match="an action without its table"):
        decode(2, payload, Role.GATEWAY)


def test_unknown_members_are_kept_by_their_number() -> None:
    payload = struct.pack("<I5H2xiB3x", 16, 10, 8, 0, 4, 0, 12, 3)
    assert decode(2, payload, Role.GATEWAY) == HTTPReqCallResp(0, UnknownUnion(3))


def test_unknown_methods_are_refused() -> None:
    payload = bytearray(oracle.encode(HTTPReqCallReq(method="TRACE")))
    at = payload.rindex(len(METHODS) - 1)
    payload[at] += 1
    with pytest.raises(RemoteProtocolError, match="unknown method number 15"):
        decode(2, bytes(payload), Role.RUNNER)


@pytest.mark.parametrize("frame_type", [5, 255, -1])
def test_unknown_frame_types_lose_the_connection(frame_type: int) -> None:
    with pytest.raises(RemoteProtocolError, match="unknown frame type") as caught:
        decode(frame_type, b"", Role.RUNNER)
    assert not caught.value.recoverable


# --- what is bounded ------------------------------------------------------------------------------------------------


def _head(count: int) -> bytes:
    """The beginning of an HTTPRespCall.Req with headers, up to the number of headers."""
    return struct.pack("<I6HiII", 16, 10, 8, 0, 0, 4, 0, 12, 4, count)


def shared(count: int, size: int, *, tables: int, fields: int = 2, value_first: bool = False) -> bytes:
    """Make an HTTPRespCall.Req of `count` headers in `tables` tables, which all lead to one string of `size` bytes."""
    start = 28 + 4 * count  # of the tables
    width = 4 + 4 * fields
    string = start + 8 + width * tables
    slots = [4, 8 if fields == 2 else 0]
    if value_first:
        slots.reverse()
    head = _head(count)
    at = [start + 8 + width * (n % tables) for n in range(count)]
    vector = struct.pack(f"<{count}I", *(place - 28 - 4 * n for n, place in enumerate(at)))
    words: list[int] = []
    for n in range(tables):
        table = start + 8 + width * n
        words.append(table - start)
        words += [string - table - 4 * f for f in range(1, fields + 1)]
    body = struct.pack(f"<{len(words)}I", *words)
    return b"".join((head, vector, struct.pack("<4H", 8, width, *slots), body, struct.pack("<I", size), b"x" * size))


def test_shared_strings_are_read_as_the_official_package_reads_them() -> None:
    for value_first in (False, True):
        payload = shared(5, 4, tables=5, value_first=value_first)
        expected = HTTPRespCallReq(headers=[(b"xxxx", b"xxxx")] * 5)
        assert decode(4, payload, Role.RUNNER) == oracle.decode(HTTPRespCallReq, payload) == expected
    payload = shared(5, 4, tables=5, fields=1)
    assert decode(4, payload, Role.RUNNER) == oracle.decode(HTTPRespCallReq, payload)


@pytest.mark.parametrize(
    ("count", "size", "tables", "fields"),
    [
        (1_000_000, 2**20, 1, 2),  # a million times a mebibyte
        (4_000_000, 1, 1, 2),  # one table over and over
        (4_000_000, 1, 1, 1),
        (1_000_000, 1, 1_000_000, 2),  # each its own table, all the same byte
        (1_000_000, 0, 1_000_000, 2),
        (1_300_000, 1, 1_300_000, 1),
        (1_000, 1_000, 1_000, 2),
        (1_000, 1_000, 1, 1),
    ],
)
def test_frames_of_entries_that_share_one_string_are_refused(count: int, size: int, tables: int, fields: int) -> None:
    payload = shared(count, size, tables=tables, fields=fields)
    assert len(payload) <= MAX_PAYLOAD
    with pytest.raises(RemoteProtocolError, match="over and over"):
        decode(4, payload, Role.RUNNER)


def overlapping(count: int, size: int, *, tables: int) -> bytes:
    """Do as `shared`, in the layout of builders: each table has its own value behind it, and all share the name."""
    start = 28 + 4 * count + 8  # of the tables
    name = start + 20 * tables
    vector = struct.pack(f"<{count}I", *(start + 20 * (n % tables) - 28 - 4 * n for n in range(count)))
    words: list[int] = []
    for table in range(start, name, 20):
        words += (table - (start - 8), 8, name - table - 8, 1, ord("v"))
    head = _head(count)
    body = struct.pack(f"<{len(words)}I", *words)
    return b"".join((head, vector, struct.pack("<4H", 8, 12, 8, 4), body, struct.pack("<I", size), b"n" * size))


@pytest.mark.parametrize(
    ("count", "size", "tables"), [(1_000_000, 2**20, 1), (1000, 100_000, 1000), (1000, 1000, 1000)]
)
def test_entries_of_builders_that_share_a_name_are_refused(count: int, size: int, tables: int) -> None:
    payload = overlapping(3, 9, tables=3)
    expected = HTTPRespCallReq(headers=[(b"n" * 9, b"v")] * 3)
    assert decode(4, payload, Role.RUNNER) == oracle.decode(HTTPRespCallReq, payload) == expected
    with pytest.raises(RemoteProtocolError, match="over and over"):
        decode(4, overlapping(count, size, tables=tables), Role.RUNNER)


def test_a_vtable_before_the_beginning_is_not_looked_for_at_the_end() -> None:
    payload = bytearray(overlapping(1, 20, tables=1))
    payload[-20:-12] = struct.pack("<4H", 8, 12, 8, 4)
    struct.pack_into("<i", payload, 40, 40 + 20)
    with pytest.raises(RemoteProtocolError, match="position -20"):
        decode(4, bytes(payload), Role.RUNNER)


def test_vectors_that_share_one_vector_are_bounded_together() -> None:
    headers: list[TextEntry] = [(b"n" * 100, b"v" * 100) for _ in range(1000)]
    payload = bytearray(encode(HTTPReqCallResp(1, Rewrite(None, headers, [], [])))[HEADER_SIZE:])
    headers_at = 64 + struct.unpack_from("<I", payload, 64)[0]
    for field in (68, 72):
        struct.pack_into("<I", payload, field, headers_at - field)
    with pytest.raises(RemoteProtocolError, match="over and over"):
        decode(2, bytes(payload), Role.GATEWAY)


def test_a_frame_full_of_entries_is_read() -> None:
    entries: list[TextEntry] = [(b"%06d" % n, b"v") for n in range(400_000)]
    frame = encode(HTTPReqCallResp(1, Stop(200, entries)))
    assert len(frame) > 12_000_000
    assert decode(2, frame[HEADER_SIZE:], Role.GATEWAY) == HTTPReqCallResp(1, Stop(200, entries))


@pytest.mark.parametrize("count", [0, 1, 100, 1000])
def test_a_list_of_up_to_a_thousand_plugins_is_read(count: int) -> None:
    message = PrepareConfReq([(b"say", b"{}")] * count, b"key")
    assert decode(1, encode(message)[HEADER_SIZE:], Role.RUNNER) == message


@pytest.mark.parametrize("entry", [(b"say", b"{}"), (b"", b""), (b"say", None), (None, None)])
@pytest.mark.parametrize("count", [1001, 30_000])
def test_a_longer_list_is_refused_before_its_entries_are_read(entry: TextEntry, count: int) -> None:
    payload = bytearray(encode(PrepareConfReq([entry] * count, b"key"))[HEADER_SIZE:])
    vector = payload.index(struct.pack("<I", count))
    struct.pack_into("<I", payload, vector + 4, 0xFFFFFFFF)  # whoever reads the first entry fails at it
    with pytest.raises(RemoteProtocolError, match=f"lists {count} plugins; the maximum is 1000") as caught:
        decode(1, bytes(payload), Role.RUNNER)
    assert caught.value.recoverable


def test_a_vector_longer_than_the_buffer_is_refused_at_once() -> None:
    payload = _head(0xFFFFFFFF)
    with pytest.raises(RemoteProtocolError, match="outside of its 28 bytes"):
        decode(4, payload, Role.RUNNER)


def test_decoding_takes_linear_time() -> None:
    """Sixteen times the entries may take about 16 times as long. Quadratic time would be 256 times as long."""

    def seconds(count: int) -> float:  # the time of this thread alone, which does not count while other processes run
        payload = encode(HTTPReqCallResp(1, Stop(200, [(b"name", b"value")] * count)))[HEADER_SIZE:]
        best = 1e9
        for _ in range(5):
            start = time.thread_time()
            decode(2, payload, Role.GATEWAY)
            best = min(best, time.thread_time() - start)
        return best

    assert seconds(16_000) < 80 * seconds(1_000)


@pytest.mark.parametrize("code", ErrCode)
def test_an_error_is_encoded_once(code: ErrCode) -> None:
    assert encode(ErrResp(code)) is encode(ErrResp(int(code)))
    assert encode(ErrResp(code))[HEADER_SIZE:] == oracle.encode(ErrResp(code))
