"""The flatbuffers of the protocol: payload to message, message to frame.

Written by hand over ``struct``, because the official package needs 300 µs to read a request with 12 headers, and
because it checks nothing: a wrong offset makes it raise whatever comes, or read what is not there. Here

* every offset is checked against the buffer: what does not fit is a `RemoteProtocolError`. A position past the end is
  found by ``struct`` itself (`struct.error`), one before the beginning can only come from the signed offset of a table
  to its vtable, and the end of each string is compared. Offsets that are in range but not aligned are taken, as the
  official package takes them.
* what is decoded is bounded by a constant times the buffer's length. Offsets may lead to the same bytes again and
  again: 4 million entries fit into a frame, and each may name the same string of megabytes. Where entries do not each
  have a place of their own, as builders give them, every one and each of its strings is charged to a budget with about
  what it would occupy if nothing were shared. (The strings outside of entries need none: no message has more than two
  of them, and none more than three vectors of entries.)

The messages that only the gateway writes, and errors, are built with the official package: they are rare here.

The layout of a flatbuffer in a few words: the first word leads to the root table. A table begins with the (signed)
distance back to its vtable, which holds its own size, the table's size, and for each field the place in the table, 0
for an absent one. Strings and vectors are a length and the content, reached by an unsigned distance from the field.
All numbers are little endian.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import lru_cache
from itertools import chain
from struct import Struct
from struct import error as StructError
from typing import Any, TypeAlias, cast

from flatbuffers import Builder  # type: ignore[import-untyped]

from asgi_bridge.errors import LocalProtocolError, RemoteProtocolError
from asgi_bridge.wire.frames import MAX_PAYLOAD, FrameType, frame
from asgi_bridge.wire.messages import (
    METHODS,
    ErrCode,
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Info,
    Message,
    PrepareConfReq,
    PrepareConfResp,
    ReqBody,
    RespBody,
    Rewrite,
    Stop,
    TextEntry,
    UnknownUnion,
    Var,
)

__all__ = ["Role", "decode", "encode"]


class Role(IntEnum):
    """Which side we are. A frame's type alone does not tell a request from its answer."""

    RUNNER = 0
    GATEWAY = 1


# --- reading --------------------------------------------------------------------------------------------------------

_u8 = Struct("<B").unpack_from
_u16 = Struct("<H").unpack_from
_u32 = Struct("<I").unpack_from
_i32 = Struct("<i").unpack_from
_u16x2 = Struct("<HH").unpack_from
_table_of_two = Struct("<iIII").unpack_from  # distance to the vtable, two fields, and the word behind the table
_u32_iter = Struct("<I").iter_unpack

# unpack_from for a row of n fields of a vtable, and for a vector of n offsets.
_slots_of = tuple(Struct(f"<{n}H").unpack_from for n in range(8))
_offsets_of = tuple(Struct(f"<{n}I").unpack_from for n in range(65))

_ABSENT = (0,) * 7

# The vtable of an entry as builders write it: 8 bytes, of a table of 12; the name at 8, the value at 4.
_USUAL_ENTRY = b"\x08\0\x0c\0\x08\0\x04\0"

# Where no vtable can be, not even one whose distance is rubbish (-1 would be possible).
_NOWHERE = -(1 << 40)

# What is charged for an entry (its offset in the vector and a table without fields), and for a string besides its
# bytes (the field, the length, the NUL and padding).
_ENTRY_COST = 8
_STRING_COST = 12


def _budget(size: int) -> int:
    """How much may be charged for a buffer of that many bytes.

    Buffers that share nothing are charged with less than 1.2 times their size. Builders may share equal strings, which
    matters most in small buffers, so these may be charged 4 times their size, big ones little more than 1.5 times.
    """
    return size + (size >> 1) + min(2 * size + (size >> 1), 65536)


def _overdrawn(size: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"malformed flatbuffer: {size} bytes hold the same content over and over")


def _past_end(position: int, size: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"malformed flatbuffer: position {position} is outside of its {size} bytes")


def _slots(buf: bytes, table: int, count: int) -> tuple[int, ...]:
    """Places of the first `count` fields of a table, counted from the table, 0 for an absent field."""
    vtable: int = table - _i32(buf, table)[0]
    if vtable < 0:
        raise _past_end(vtable, len(buf))
    slots, vtable_size, table_size = _layout(buf[vtable : vtable + 4 + 2 * count], count)
    if vtable + vtable_size > len(buf) or table + table_size > len(buf):
        raise RemoteProtocolError(f"malformed flatbuffer: impossible vtable at position {vtable}")
    return slots


@lru_cache(maxsize=256)
def _layout(vtable: bytes, count: int) -> tuple[tuple[int, ...], int, int]:
    """What a vtable says: the places of the first `count` fields, its own size, and the table's. Writers have few.

    Args:
        vtable: its beginning, and maybe what stands behind it.
    """
    vtable_size, table_size = _u16x2(vtable)
    have = min((vtable_size - 4) >> 1, count)  # it may have more: fields of a later version of the protocol
    if vtable_size < 4 or vtable_size & 1 or table_size < 4 or len(vtable) < 4 + 2 * have:
        raise RemoteProtocolError("malformed flatbuffer: impossible vtable")
    slots = _slots_of[have](vtable, 4) + _ABSENT[have:count]
    if max(slots) >= table_size:
        raise RemoteProtocolError("malformed flatbuffer: a field outside of the table")
    return slots, vtable_size, table_size


def _root(buf: bytes, count: int) -> tuple[int, tuple[int, ...]]:
    table: int = _u32(buf, 0)[0]
    return table, _slots(buf, table, count)


def _octets(buf: bytes, field: int) -> bytes:
    """The string or vector of bytes that a field leads to."""
    start: int = field + _u32(buf, field)[0]
    end: int = start + 4 + _u32(buf, start)[0]
    if end > len(buf):
        raise _past_end(end, len(buf))
    return buf[start + 4 : end]


def _one_entry(buf: bytes, table: int) -> TextEntry:
    name, value = _slots(buf, table, 2)
    return (
        _octets(buf, table + name) if name else None,
        _octets(buf, table + value) if value else None,
    )


def _entries(buf: bytes, field: int, charged: int = 0) -> tuple[list[TextEntry], int]:
    """The entries of the vector that a field leads to, and what has been charged for the message's entries so far.

    Nearly all the time of decoding is spent here. So what APISIX's builder writes, and the official ones, is read
    without a call for each entry: builders write backwards, so each entry has its own place before the one that was
    written before it, first its table, then the value, then the name, and one vtable serves all. That shares nothing,
    which is all that has to be checked. Anything else is read by `_careful_entries`.
    """
    size = len(buf)
    slot: int = field + _u32(buf, field)[0]
    count: int = _u32(buf, slot)[0]
    slot += 4
    if slot + 4 * count > size:
        raise _past_end(slot + 4 * count, size)
    if not count:
        return [], charged
    offsets: Iterable[int]
    if count <= 64:
        offsets = _offsets_of[count](buf, slot)
    else:
        offsets = chain.from_iterable(_u32_iter(memoryview(buf)[slot : slot + 4 * count]))
    entries: list[TextEntry] = []
    append, table_of_two, u32 = entries.append, _table_of_two, _u32
    known = _NOWHERE
    limit = size
    at = slot
    try:
        for offset in offsets:
            table = at + offset
            back, value, name, length = table_of_two(buf, table)
            if value != 8 or table - back != known:
                known = table - back
                if value != 8 or known < 0 or buf[known : known + 8] != _USUAL_ENTRY:
                    break
            value = table + 16
            value_end = value + length
            name += table + 12
            name_end = name + u32(buf, name - 4)[0]
            if value_end > name or name_end > limit:
                break
            append((buf[name:name_end], buf[value:value_end]))
            limit = table
            at += 4
        else:
            return entries, charged
    except StructError:
        pass  # a table near the end of the buffer
    return _careful_entries(buf, slot, count, charged)


def _careful_entries(buf: bytes, slot: int, count: int, charged: int) -> tuple[list[TextEntry], int]:
    """As `_entries`: those of the `count` offsets that begin at `slot`, whatever they lead to."""
    budget = _budget(len(buf))
    if charged + _ENTRY_COST * count > budget:
        raise _overdrawn(len(buf))
    entries: list[TextEntry] = []
    for (offset,) in _u32_iter(memoryview(buf)[slot : slot + 4 * count]):
        name, value = entry = _one_entry(buf, slot + offset)
        slot += 4
        charged += _ENTRY_COST
        if name is not None:
            charged += len(name) + _STRING_COST
        if value is not None:
            charged += len(value) + _STRING_COST
        if charged > budget:
            raise _overdrawn(len(buf))
        entries.append(entry)
    return entries, charged


def _decode_err_resp(buf: bytes) -> ErrResp:
    table, (code,) = _root(buf, 1)
    number: int = _u8(buf, table + code)[0] if code else 0
    return ErrResp(ErrCode(number) if number <= 2 else number)


def _decode_prepare_conf_req(buf: bytes) -> PrepareConfReq:
    table, (conf_at, key) = _root(buf, 2)
    conf: list[TextEntry] | None = None
    if conf_at:
        conf, _ = _entries(buf, table + conf_at)
    return PrepareConfReq(conf, _octets(buf, table + key) if key else None)


def _decode_prepare_conf_resp(buf: bytes) -> PrepareConfResp:
    table, (token,) = _root(buf, 1)
    return PrepareConfResp(_u32(buf, table + token)[0] if token else 0)


def _decode_http_req_call_req(buf: bytes) -> HTTPReqCallReq:
    size = len(buf)
    table, (id_at, src_ip_at, method_at, path_at, args_at, headers_at, token_at) = _root(buf, 7)
    src_ip: bytes | None = None
    if src_ip_at:
        start = table + src_ip_at
        start += _u32(buf, start)[0] + 4
        end = start + _u32(buf, start - 4)[0]
        if end > size:
            raise _past_end(end, size)
        src_ip = buf[start:end]
    path: bytes | None = None
    if path_at:
        start = table + path_at
        start += _u32(buf, start)[0] + 4
        end = start + _u32(buf, start - 4)[0]
        if end > size:
            raise _past_end(end, size)
        path = buf[start:end]
    charged = 0
    args: list[TextEntry] | None = None
    if args_at:
        args, charged = _entries(buf, table + args_at)
    headers: list[TextEntry] | None = None
    if headers_at:
        headers, _ = _entries(buf, table + headers_at, charged)
    method = buf[table + method_at] if method_at else 0
    if method >= len(METHODS):
        raise RemoteProtocolError(f"unknown method number {method}")
    return HTTPReqCallReq(
        _u32(buf, table + id_at)[0] if id_at else 0,
        src_ip,
        METHODS[method],
        path,
        args,
        headers,
        _u32(buf, table + token_at)[0] if token_at else 0,
    )


def _decode_http_req_call_resp(buf: bytes) -> HTTPReqCallResp:
    table, (id_at, type_at, action_at) = _root(buf, 3)
    number: int = _u32(buf, table + id_at)[0] if id_at else 0
    member: int = _u8(buf, table + type_at)[0] if type_at else 0
    if not member:
        return HTTPReqCallResp(number, None)
    if member > 2:
        return HTTPReqCallResp(number, UnknownUnion(member))
    if not action_at:
        raise RemoteProtocolError("malformed flatbuffer: an action without its table")
    table += action_at
    table += _u32(buf, table)[0]
    headers: list[TextEntry] | None = None
    if member == 1:
        status_at, headers_at, body_at = _slots(buf, table, 3)
        if headers_at:
            headers, _ = _entries(buf, table + headers_at)
        stop = Stop(
            _u16(buf, table + status_at)[0] if status_at else 0,
            headers,
            _octets(buf, table + body_at) if body_at else None,
        )
        return HTTPReqCallResp(number, stop)
    path_at, headers_at, args_at, resp_headers_at, body_at = _slots(buf, table, 5)
    args: list[TextEntry] | None = None
    resp_headers: list[TextEntry] | None = None
    charged = 0
    if headers_at:
        headers, charged = _entries(buf, table + headers_at)
    if args_at:
        args, charged = _entries(buf, table + args_at, charged)
    if resp_headers_at:
        resp_headers, _ = _entries(buf, table + resp_headers_at, charged)
    rewrite = Rewrite(
        _octets(buf, table + path_at) if path_at else None,
        headers,
        args,
        resp_headers,
        _octets(buf, table + body_at) if body_at else None,
    )
    return HTTPReqCallResp(number, rewrite)


def _decode_extra_info_req(buf: bytes) -> ExtraInfoReq:
    table, (type_at, info_at) = _root(buf, 2)
    member: int = _u8(buf, table + type_at)[0] if type_at else 0
    if not member:
        return ExtraInfoReq(None)
    if member > 3:
        return ExtraInfoReq(UnknownUnion(member))
    if not info_at:
        raise RemoteProtocolError("malformed flatbuffer: an info without its table")
    table += info_at
    table += _u32(buf, table)[0]
    (name,) = _slots(buf, table, 1)
    info: Info
    if member == 1:
        info = Var(_octets(buf, table + name) if name else None)
    else:
        info = ReqBody() if member == 2 else RespBody()
    return ExtraInfoReq(info)


def _decode_extra_info_resp(buf: bytes) -> ExtraInfoResp:
    table, (result,) = _root(buf, 1)
    return ExtraInfoResp(_octets(buf, table + result) if result else None)


def _decode_http_resp_call_req(buf: bytes) -> HTTPRespCallReq:
    table, (id_at, status_at, headers_at, token_at) = _root(buf, 4)
    headers: list[TextEntry] | None = None
    if headers_at:
        headers, _ = _entries(buf, table + headers_at)
    return HTTPRespCallReq(
        _u32(buf, table + id_at)[0] if id_at else 0,
        _u16(buf, table + status_at)[0] if status_at else 0,
        headers,
        _u32(buf, table + token_at)[0] if token_at else 0,
    )


def _decode_http_resp_call_resp(buf: bytes) -> HTTPRespCallResp:
    table, (id_at, status_at, headers_at, body_at) = _root(buf, 4)
    headers: list[TextEntry] | None = None
    if headers_at:
        headers, _ = _entries(buf, table + headers_at)
    return HTTPRespCallResp(
        _u32(buf, table + id_at)[0] if id_at else 0,
        _u16(buf, table + status_at)[0] if status_at else 0,
        headers,
        _octets(buf, table + body_at) if body_at else None,
    )


_Decoder: TypeAlias = Callable[[bytes], Message]

# By role and frame type.
_DECODERS: tuple[tuple[_Decoder, ...], tuple[_Decoder, ...]] = (
    (
        _decode_err_resp,
        _decode_prepare_conf_req,
        _decode_http_req_call_req,
        _decode_extra_info_resp,
        _decode_http_resp_call_req,
    ),
    (
        _decode_err_resp,
        _decode_prepare_conf_resp,
        _decode_http_req_call_resp,
        _decode_extra_info_req,
        _decode_http_resp_call_resp,
    ),
)


def decode(frame_type: int, payload: bytes, role: Role) -> Message:
    """Read the payload of a frame that has arrived.

    Args:
        frame_type: The frame's type; see `FrameType`.
        payload: What followed the header. It must be `bytes`: what is cut out of it is kept.
        role: Which side we are: type 2 is a call for the runner, and an answer for the gateway.

    Raises:
        RemoteProtocolError: The payload is no such message; not recoverable when the type is unknown.
    """
    if not 0 <= frame_type <= 4:
        raise RemoteProtocolError(f"unknown frame type {frame_type}", recoverable=False)
    try:
        return _DECODERS[role][frame_type](payload)
    except (StructError, IndexError):
        raise RemoteProtocolError(
            f"malformed flatbuffer: an offset leads outside of its {len(payload)} bytes"
        ) from None


# --- writing --------------------------------------------------------------------------------------------------------
#
# Buffers are written forwards: the fixed part (root, vtables, tables) first, then bodies and strings, then vectors of
# entries, each directly followed by what it leads to. All are pieces of one join. The fixed part is packed last, when
# the places are known; every table and every length is on a multiple of four.

_pack_header = Struct(">I").pack
_pack_u32 = Struct("<I").pack
_pack_one_text = Struct("<iII").pack  # distance to the vtable, the text, its length

# What follows a string: its NUL and the padding. What follows a vector of bytes: the padding.
_NUL = (b"\0\0\0\0", b"\0\0\0", b"\0\0", b"\0")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")

_ENTRY_VTABLE = b"\x08\0\x0c\0\x04\0\x08\0"  # 8 bytes, of a table of 12; name at 4, value at 8


class _EntryPacks(dict[tuple[int, int], Callable[..., bytes]]):
    """What packs an entry (distance to the vtable, name, value, then both strings), by the words that its strings fill
    besides the last one, which has the NUL. ``struct`` pads with zeros, as flatbuffers does."""

    def __missing__(self, words: tuple[int, int]) -> Callable[..., bytes]:
        n, m = words
        pack = Struct(f"<iIII{4 * n + 4}sI{4 * m + 4}s").pack
        if n < 64 and m < 64:
            self[words] = pack
        return pack


_pack_entry = _EntryPacks()

# Entries that lack something carry their own vtable in front of them.
_NAME_ONLY_VTABLE = b"\x06\0\x08\0\x04\0\0\0"
_VALUE_ONLY_VTABLE = b"\x08\0\x08\0\0\0\x04\0"
_EMPTY_ENTRY = b"\x04\0\x04\0\x04\0\0\0"  # vtable and table


def _put_entries(parts: list[bytes], at: int, vtable: int, entries: Sequence[TextEntry]) -> int:
    """Append a vector of entries and all that belongs to it; give the position behind it.

    Args:
        parts: The pieces of the buffer.
        at: Where in the buffer the vector will stand.
        vtable: Where in the buffer `_ENTRY_VTABLE` stands.
        entries: The entries.
    """
    count = len(entries)
    place = len(parts)
    parts.append(b"")
    offsets: list[int] = []
    slot = at + 4
    at = slot + 4 * count
    for name, value in entries:
        if name is not None and value is not None:
            n = len(name)
            m = len(value)
            offsets.append(at - slot)
            entry = _pack_entry[n >> 2, m >> 2](at - vtable, 8, (n & -4) + 12, n, name, m, value)
        else:
            text = name if name is not None else value
            if text is None:
                offsets.append(at + 4 - slot)
                entry = _EMPTY_ENTRY
            else:
                offsets.append(at + 8 - slot)
                n = len(text)
                own = _VALUE_ONLY_VTABLE if name is None else _NAME_ONLY_VTABLE
                entry = own + _pack_one_text(8, 4, n) + text + _NUL[n & 3]
        parts.append(entry)
        at += len(entry)
        slot += 4
    if count < len(_pack_vector):
        parts[place] = _pack_vector[count](count, *offsets)
    else:
        parts[place] = Struct(f"<{count + 1}I").pack(count, *offsets)
    return at


_pack_vector = tuple(Struct(f"<{n + 1}I").pack for n in range(64))


def _put_octets(parts: list[bytes], at: int, octets: bytes) -> int:
    """Append a vector of bytes; give the position behind it."""
    n = len(octets)
    parts += (_pack_u32(n), octets, _PAD[n & 3])
    return at + 4 + ((n + 3) & -4)


def _put_string(parts: list[bytes], at: int, string: bytes) -> int:
    """Append a string; give the position behind it."""
    n = len(string)
    parts += (_pack_u32(n), string, _NUL[n & 3])
    return at + 4 + ((n + 4) & -4)


def _too_long(size: int) -> LocalProtocolError:
    return LocalProtocolError(f"a message of {size} bytes is too long for a frame ({MAX_PAYLOAD} at most)")


# HTTPReqCall.Resp without an action, and ExtraInfo.Resp and others of one or no field:
# root at 12; vtable of 6 bytes at 4, table of 8 with its field at 4.
_ONE_FIELD = b"\x0c\0\0\0" + b"\x06\0\x08\0\x04\0\0\0" + b"\x08\0\0\0"
_pack_one_field = Struct(">I16s").pack
# root at 8; vtable of 4 bytes at 4, table without fields
_NO_FIELD = b"\x08\0\0\0" + b"\x04\0\x04\0" + b"\x04\0\0\0"

# HTTPReqCall.Resp with an action. 0: root; 4: vtable of the entries; 12: vtable; 24: table: 4 id, 8 action, 12 its type
_ACTION_VTABLES = b"\x18\0\0\0" + _ENTRY_VTABLE + b"\x0a\0\x10\0\x04\0\x0c\0\x08\0\0\0" + b"\x0c\0\0\0"
# 40: vtable of Stop (by what is present: 1 headers, 2 body); 52: table: 4 headers, 8 body, 12 status
_STOP_VTABLES = tuple(
    Struct("<IB3x5H2xI").pack(20, 1, 10, 16, 12, 4 if has & 1 else 0, 8 if has & 2 else 0, 12) for has in range(4)
)
_pack_stop = Struct("<4s28sI24sIIH2x").pack
_STOP_SIZE = 68
# 40: vtable of Rewrite (1 path, 2 headers, 4 args, 8 resp_headers, 16 body); 56: table, 24 bytes
_REWRITE_VTABLES = tuple(
    Struct("<IB3x7H2xI").pack(24, 2, 14, 24, *(4 * n + 4 if has >> n & 1 else 0 for n in range(5)), 16)
    for has in range(32)
)
_pack_rewrite = Struct("<4s28sI28s5I").pack
_REWRITE_SIZE = 80
# HTTPRespCall.Resp. 0: root; 4: vtable of the entries; 12: vtable (1 headers, 2 body); 24: table: 4 id, 8 headers,
# 12 body, 16 status
_RESP_VTABLES = tuple(
    b"\x18\0\0\0" + _ENTRY_VTABLE + Struct("<6HI").pack(12, 20, 4, 16, 8 if has & 1 else 0, 12 if has & 2 else 0, 12)
    for has in range(4)
)
_pack_resp = Struct("<4s28sIIIH2x").pack
_RESP_SIZE = 44


def _encode_http_req_call_resp(message: HTTPReqCallResp) -> bytes:
    action = message.action
    if action is None:
        return _REQ_CALL_NO_ACTION + _pack_u32(message.id)
    parts = [b""]
    if isinstance(action, Stop):
        at = _STOP_SIZE
        has = headers_at = body_at = 0
        body = action.body
        headers = action.headers
        if body is not None:
            body_at = at - 60
            at = _put_octets(parts, at, body)
            has = 2
        if headers is not None:
            headers_at = at - 56
            at = _put_entries(parts, at, 4, headers)
            has += 1
        if at > MAX_PAYLOAD:
            raise _too_long(at)
        parts[0] = _pack_stop(
            _pack_header(0x02000000 | at),
            _ACTION_VTABLES,
            message.id,
            _STOP_VTABLES[has],
            headers_at,
            body_at,
            action.status,
        )
    elif isinstance(action, Rewrite):
        at = _REWRITE_SIZE
        has = path_at = headers_at = args_at = resp_headers_at = body_at = 0
        if action.path is not None:
            path_at = at - 60
            at = _put_string(parts, at, action.path)
            has = 1
        if action.body is not None:
            body_at = at - 76
            at = _put_octets(parts, at, action.body)
            has += 16
        if action.headers is not None:
            headers_at = at - 64
            at = _put_entries(parts, at, 4, action.headers)
            has += 2
        if action.args is not None:
            args_at = at - 68
            at = _put_entries(parts, at, 4, action.args)
            has += 4
        if action.resp_headers is not None:
            resp_headers_at = at - 72
            at = _put_entries(parts, at, 4, action.resp_headers)
            has += 8
        if at > MAX_PAYLOAD:
            raise _too_long(at)
        parts[0] = _pack_rewrite(
            _pack_header(0x02000000 | at),
            _ACTION_VTABLES,
            message.id,
            _REWRITE_VTABLES[has],
            path_at,
            headers_at,
            args_at,
            resp_headers_at,
            body_at,
        )
    else:
        return _encode_unknown_action(message.id, action)
    return b"".join(parts)


_REQ_CALL_NO_ACTION = _pack_one_field(0x02000000 | 20, _ONE_FIELD)


def _encode_http_resp_call_resp(message: HTTPRespCallResp) -> bytes:
    parts = [b""]
    at = _RESP_SIZE
    has = headers_at = body_at = 0
    body = message.body
    headers = message.headers
    if body is not None:
        body_at = at - 36
        at = _put_octets(parts, at, body)
        has = 2
    if headers is not None:
        headers_at = at - 32
        at = _put_entries(parts, at, 4, headers)
        has += 1
    if at > MAX_PAYLOAD:
        raise _too_long(at)
    parts[0] = _pack_resp(
        _pack_header(0x04000000 | at), _RESP_VTABLES[has], message.id, headers_at, body_at, message.status
    )
    return b"".join(parts)


def _encode_prepare_conf_resp(message: PrepareConfResp) -> bytes:
    return _PREPARE_CONF_RESP + _pack_u32(message.conf_token)


_PREPARE_CONF_RESP = _pack_one_field(0x01000000 | 20, _ONE_FIELD)

# ExtraInfo.Req. 0: root; 4: vtable; 12: table: 4 info, 8 its type
_EXTRA_INFO = b"\x0c\0\0\0" + b"\x08\0\x0c\0\x08\0\x04\0" + b"\x08\0\0\0"
# 24: vtable and table of the member: with a name (table at 32), or without fields (table at 28)
_EXTRA_INFO_VAR = _EXTRA_INFO + Struct("<IB3x").pack(16, 1) + b"\x06\0\x08\0\x04\0\0\0" + b"\x08\0\0\0" + b"\x04\0\0\0"
_EXTRA_INFO_EMPTY = tuple(
    _pack_header(0x03000000 | 32) + _EXTRA_INFO + Struct("<IB3x").pack(12, n) + b"\x04\0\x04\0\x04\0\0\0"
    for n in range(256)
)
_EXTRA_INFO_NONE = _pack_header(0x03000000 | 12) + _NO_FIELD
_EXTRA_INFO_RESULT = _ONE_FIELD + b"\x04\0\0\0"


def _encode_extra_info_req(message: ExtraInfoReq) -> bytes:
    info = message.info
    if info is None:
        return _EXTRA_INFO_NONE
    if isinstance(info, Var):
        name = info.name
        if name is None:
            return _EXTRA_INFO_EMPTY[1]
        n = len(name)
        at = 44 + ((n + 4) & -4)
        if at > MAX_PAYLOAD:
            raise _too_long(at)
        return b"".join((_pack_header(0x03000000 | at), _EXTRA_INFO_VAR, _pack_u32(n), name, _NUL[n & 3]))
    if isinstance(info, ReqBody):
        return _EXTRA_INFO_EMPTY[2]
    if isinstance(info, RespBody):
        return _EXTRA_INFO_EMPTY[3]
    if not 3 < info.type <= 255:
        raise LocalProtocolError(f"{info.type} is not the type of an unknown info (4 to 255)")
    return _EXTRA_INFO_EMPTY[info.type]


def _encode_extra_info_resp(message: ExtraInfoResp) -> bytes:
    result = message.result
    if result is None:
        return _EXTRA_INFO_NONE
    n = len(result)
    at = 24 + ((n + 3) & -4)
    if at > MAX_PAYLOAD:
        raise _too_long(at)
    return b"".join((_pack_header(0x03000000 | at), _EXTRA_INFO_RESULT, _pack_u32(n), result, _PAD[n & 3]))


# What follows is written with the official package.


def _finish(builder: Builder, frame_type: FrameType, root: int) -> bytes:
    builder.Finish(root)
    payload = cast("bytearray", builder.Output())
    if len(payload) > MAX_PAYLOAD:
        raise _too_long(len(payload))
    return frame(frame_type, bytes(payload))


def _check(value: int, bits: int) -> int:
    """Builders pack a number out of range as an assertion or a TypeError, by version."""
    if not 0 <= value < 1 << bits:
        raise LocalProtocolError(f"{value} does not fit into {bits} bits")
    return value


def _build_string(builder: Builder, string: bytes | None) -> int | None:
    if string is None:
        return None
    if len(string) > MAX_PAYLOAD:  # before it is copied
        raise _too_long(len(string))
    return cast("int", builder.CreateString(string))


def _build_octets(builder: Builder, octets: bytes | None) -> int | None:
    if octets is None:
        return None
    if len(octets) > MAX_PAYLOAD:
        raise _too_long(len(octets))
    return cast("int", builder.CreateByteVector(octets))


def _build_entries(builder: Builder, entries: Sequence[TextEntry] | None) -> int | None:
    if entries is None:
        return None
    # The builder grows by doubling and does not mind megabytes; stop it before it works for nothing.
    size = sum(len(name or b"") + len(value or b"") for name, value in entries)
    if size > MAX_PAYLOAD:
        raise _too_long(size)
    tables = []
    for name, value in entries:
        strings = (_build_string(builder, name), _build_string(builder, value))
        tables.append(_build_table(builder, strings))
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return cast("int", builder.EndVector())


def _build_table(builder: Builder, references: Sequence[int | None]) -> int:
    """A table all of whose fields are references."""
    builder.StartObject(len(references))
    for number, reference in enumerate(references):
        if reference is not None:
            builder.PrependUOffsetTRelativeSlot(number, reference, 0)
    return cast("int", builder.EndObject())


def _encode_unknown_action(number: int, action: UnknownUnion) -> bytes:
    if not 2 < action.type <= 255:
        raise LocalProtocolError(f"{action.type} is not the type of an unknown action (3 to 255)")
    builder = Builder(64)
    table = _build_table(builder, ())
    builder.StartObject(3)
    builder.PrependUint32Slot(0, _check(number, 32), 0)
    builder.PrependUint8Slot(1, action.type, 0)
    builder.PrependUOffsetTRelativeSlot(2, table, 0)
    return _finish(builder, FrameType.HTTP_REQ_CALL, builder.EndObject())


def _encode_err_resp(message: ErrResp) -> bytes:
    found = _ERRORS.get(message.code)
    return _build_err_resp(message.code) if found is None else found


def _build_err_resp(code: int) -> bytes:
    builder = Builder(32)
    builder.StartObject(1)
    builder.PrependUint8Slot(0, _check(code, 8), 0)
    return _finish(builder, FrameType.ERROR, builder.EndObject())


_ERRORS = {code.value: _build_err_resp(code) for code in ErrCode}
"""The frames of all errors, made once: whoever is refused must not cost much."""


def _encode_prepare_conf_req(message: PrepareConfReq) -> bytes:
    builder = Builder(1024)
    references = (_build_entries(builder, message.conf), _build_string(builder, message.key))
    return _finish(builder, FrameType.PREPARE_CONF, _build_table(builder, references))


def _encode_http_req_call_req(message: HTTPReqCallReq) -> bytes:
    if message.method not in METHODS:
        raise LocalProtocolError(f"the protocol has no method {message.method!r}")
    builder = Builder(1024)
    src_ip = _build_octets(builder, message.src_ip)
    path = _build_string(builder, message.path)
    args = _build_entries(builder, message.args)
    headers = _build_entries(builder, message.headers)
    builder.StartObject(7)
    builder.PrependUint32Slot(0, _check(message.id, 32), 0)
    for number, reference in (1, src_ip), (3, path), (4, args), (5, headers):
        if reference is not None:
            builder.PrependUOffsetTRelativeSlot(number, reference, 0)
    builder.PrependUint8Slot(2, METHODS.index(message.method), 0)
    builder.PrependUint32Slot(6, _check(message.conf_token, 32), 0)
    return _finish(builder, FrameType.HTTP_REQ_CALL, builder.EndObject())


def _encode_http_resp_call_req(message: HTTPRespCallReq) -> bytes:
    builder = Builder(1024)
    headers = _build_entries(builder, message.headers)
    builder.StartObject(4)
    builder.PrependUint32Slot(0, _check(message.id, 32), 0)
    builder.PrependUint16Slot(1, _check(message.status, 16), 0)
    if headers is not None:
        builder.PrependUOffsetTRelativeSlot(2, headers, 0)
    builder.PrependUint32Slot(3, _check(message.conf_token, 32), 0)
    return _finish(builder, FrameType.HTTP_RESP_CALL, builder.EndObject())


_ENCODERS: dict[type[Any], Callable[[Any], bytes]] = {
    ErrResp: _encode_err_resp,
    PrepareConfReq: _encode_prepare_conf_req,
    PrepareConfResp: _encode_prepare_conf_resp,
    HTTPReqCallReq: _encode_http_req_call_req,
    HTTPReqCallResp: _encode_http_req_call_resp,
    ExtraInfoReq: _encode_extra_info_req,
    ExtraInfoResp: _encode_extra_info_resp,
    HTTPRespCallReq: _encode_http_resp_call_req,
    HTTPRespCallResp: _encode_http_resp_call_resp,
}


def encode(message: Message) -> bytes:
    """Write a message as a complete frame, header included.

    Raises:
        LocalProtocolError: A number is out of its range, the payload would be too long for a frame, or this is no
            message.
    """
    try:
        return _ENCODERS[type(message)](message)
    except KeyError:
        raise LocalProtocolError(f"{type(message).__name__} is no message") from None
    except StructError as exc:
        raise LocalProtocolError(f"{type(message).__name__} holds a number that is out of range: {exc}") from None
