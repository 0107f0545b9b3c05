"""Decode payloads in pure Python.

The official ``flatbuffers`` package needs 300 µs to read a request with 12 headers. It also checks nothing: a wrong
offset makes it raise any error, or read past the end. So this module reads flatbuffers itself, with ``struct``.

How a flatbuffer is laid out
    The first word leads to the root table. A table begins with the signed distance back to its vtable. The vtable
    holds its own size, the table's size, and the place of each field in the table; 0 stands for an absent field.
    Strings and vectors are a length and their content. An unsigned distance in the field leads to them. All numbers
    are little endian.

Every offset is checked
    What lies outside of the buffer is a `RemoteProtocolError`. ``struct`` itself finds a position past the end
    (`struct.error`). Only the signed distance to a vtable can lead before the beginning, and `_slots` and `_entries`
    check it. The end of each string is compared with the buffer's. Offsets that are in range but not aligned are read,
    as the official package reads them.

Memory is bounded
    Offsets may lead to the same bytes again and again. A frame has room for 4 million entries, and each may name the
    same string of megabytes. So a decoded message is bounded by a constant times the buffer's length. Builders give
    each entry a place of its own, which needs no bound. For any other layout, `_careful_entries` charges each entry and
    each of its strings to a budget, as if nothing were shared. Strings outside of entries need no budget: no message
    has more than two of them, and no message has more than three vectors of entries.

A list of plugins is short
    The runner decodes a PrepareConf on its event loop. 16 MiB hold 300,000 entries, which would hold up all calls for a
    second. So the number of entries is checked before they are read.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import chain
from struct import Struct
from struct import error as StructError
from typing import TypeAlias

from ..errors import RemoteProtocolError
from .messages import (
    LAST_ACTION,
    LAST_INFO,
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
    Role,
    Stop,
    TextEntry,
    UnknownUnion,
    Var,
)

__all__ = ["decode"]

_u8 = Struct("<B").unpack_from
_u16 = Struct("<H").unpack_from
_u32 = Struct("<I").unpack_from
_i32 = Struct("<i").unpack_from
_u16x2 = Struct("<HH").unpack_from
_table_of_two = Struct("<iIII").unpack_from  # distance to the vtable, two fields, and the word after the table
_u32_iter = Struct("<I").iter_unpack

# unpack_from for the places of n fields in a vtable, and for n offsets of a vector.
_slots_of = tuple(Struct(f"<{n}H").unpack_from for n in range(8))
_offsets_of = tuple(Struct(f"<{n}I").unpack_from for n in range(65))

_ABSENT = (0,) * 7

# For values of 0 to 255 bytes: unpack_from for an entry whose name follows its value at once. It returns the value and
# the length of the name. And what leads to that name, from the name's field on. Longer values are read piece by piece.
_value_of = tuple(Struct(f"<16x{n}s{4 - n % 4}xI").unpack_from for n in range(256))
_NEXT_NAMES = tuple(8 + ((n + 4) & -4) for n in range(256))

# The known codes, at the index of their number.
_ERR_CODES = tuple(ErrCode)

# The vtable of an entry as builders write it: 8 bytes, for a table of 12 bytes with the name at 8 and the value at 4.
_USUAL_ENTRY = b"\x08\0\x0c\0\x08\0\x04\0"

# A position that no vtable has. A wrong distance may lead to any position in 33 bits, so -1 would not do.
_NOWHERE = -(1 << 40)

# Bytes charged to the budget for an entry (its offset in the vector, a table without fields), and for a string in
# addition to its content (field, length, NUL and padding).
_ENTRY_COST = 8
_STRING_COST = 12

# Maximum number of entries of a PrepareConf. The schema has no limit, but a real route lists a few plugins, and the
# runner refuses to nest more than 100. Within this number it says so in its own log line.
_MAX_PLUGINS = 1000


def _budget(size: int) -> int:
    """Return the bytes that may be charged for a buffer of `size` bytes.

    A buffer that shares nothing is charged less than 1.2 times its size. But builders may share equal strings, which
    matters most in small buffers. So the budget of a small buffer is 4 times its size, that of a big one little more
    than 1.5 times.
    """
    return size + (size >> 1) + min(2 * size + (size >> 1), 65536)


def _overdrawn(size: int) -> RemoteProtocolError:
    """Return the error for a buffer of `size` bytes that needs more than its budget."""
    return RemoteProtocolError(f"malformed flatbuffer: {size} bytes hold the same content over and over")


def _past_end(position: int, size: int) -> RemoteProtocolError:
    """Return the error for a position outside of a buffer of `size` bytes."""
    return RemoteProtocolError(f"malformed flatbuffer: position {position} is outside of its {size} bytes")


def _slots(buf: bytes, table: int, count: int) -> tuple[int, ...]:
    """Return the places of the first `count` fields of a table, in bytes from its beginning; 0: the field is absent."""
    vtable: int = table - _i32(buf, table)[0]
    if vtable < 0:
        raise _past_end(vtable, len(buf))
    slots, vtable_size, table_size = _layout(buf[vtable : vtable + 4 + 2 * count], count)
    if vtable + vtable_size > len(buf) or table + table_size > len(buf):
        raise RemoteProtocolError(f"malformed flatbuffer: impossible vtable at position {vtable}")
    return slots


@lru_cache(maxsize=256)
def _layout(vtable: bytes, count: int) -> tuple[tuple[int, ...], int, int]:
    """Parse a vtable. The results are cached, because each writer uses a few vtables only.

    Args:
        vtable: The bytes of the vtable, as far as they hold the first `count` fields. Bytes after its end may follow.
        count: Number of fields that the caller knows.

    Returns:
        The places of these fields (0: the field is absent), the size of the vtable, and that of the table, in bytes.
    """
    vtable_size, table_size = _u16x2(vtable)
    have = min((vtable_size - 4) >> 1, count)  # a later version of the protocol may have more fields
    if vtable_size < 4 or vtable_size & 1 or table_size < 4 or len(vtable) < 4 + 2 * have:
        raise RemoteProtocolError("malformed flatbuffer: impossible vtable")
    slots = _slots_of[have](vtable, 4) + _ABSENT[have:count]
    if max(slots) >= table_size:
        raise RemoteProtocolError("malformed flatbuffer: a field outside of the table")
    return slots, vtable_size, table_size


def _root(buf: bytes, count: int) -> tuple[int, tuple[int, ...]]:
    """Return the position of the root table, and the places of its first `count` fields."""
    table: int = _u32(buf, 0)[0]
    return table, _slots(buf, table, count)


def _octets(buf: bytes, field: int) -> bytes:
    """Return the string or vector of bytes that a field leads to."""
    start: int = field + _u32(buf, field)[0]
    end: int = start + 4 + _u32(buf, start)[0]
    if end > len(buf):
        raise _past_end(end, len(buf))
    return buf[start + 4 : end]


def _one_entry(buf: bytes, table: int) -> TextEntry:
    """Read the entry whose table is at that position."""
    name, value = _slots(buf, table, 2)
    return (
        _octets(buf, table + name) if name else None,
        _octets(buf, table + value) if value else None,
    )


def _entries(buf: bytes, field: int, charged: int = 0) -> tuple[list[TextEntry], int]:
    """Read the vector of entries that a field leads to.

    Nearly all the time of decoding is spent here, so the layout of APISIX's builder and of the official ones is read
    without a function call for each entry. These builders write backwards: each entry stands before the one that was
    written before it. It is its table, then the value, then the name. All share one vtable. Where entries stand so,
    no bytes are shared, and nothing is charged. `_careful_entries` reads any other layout.

    Args:
        buf: The payload.
        field: Position of the field.
        charged: Bytes charged so far for other entries of this message.

    Returns:
        The entries, and the bytes charged so far.
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
    table_of_two, value_of, next_names = _table_of_two, _value_of, _NEXT_NAMES
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
            if length < 256 and name == next_names[length]:
                text, name_end = value_of[length](buf, table)
                name += table + 12
                name_end += name
            else:
                value = table + 16
                value_end = value + length
                name += table + 12
                name_end = name + _u32(buf, name - 4)[0]
                if value_end > name:
                    break
                text = buf[value:value_end]
            if name_end > limit:
                break
            entries.append((buf[name:name_end], text))
            limit = table
            at += 4
        else:
            return entries, charged
    except StructError:
        pass  # An offset leads close to the end of the buffer, or past it. `_careful_entries` tells which.
    return _careful_entries(buf, slot, count, charged)


def _careful_entries(buf: bytes, slot: int, count: int, charged: int) -> tuple[list[TextEntry], int]:
    """Read entries of any layout, and charge each of them.

    Args:
        buf: The payload.
        slot: Position of the first offset.
        count: Number of offsets. The caller has checked that the buffer holds them.
        charged: Bytes charged so far for other entries of this message.

    Returns:
        The entries, and the bytes charged so far.

    Raises:
        RemoteProtocolError: An offset leads outside of the buffer, or the budget is used up.
    """
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
    return ErrResp(_ERR_CODES[number] if number < len(_ERR_CODES) else number)


def _decode_prepare_conf_req(buf: bytes) -> PrepareConfReq:
    table, (conf_at, key) = _root(buf, 2)
    conf: list[TextEntry] | None = None
    if conf_at:
        field: int = table + conf_at
        count: int = _u32(buf, field + _u32(buf, field)[0])[0]
        if count > _MAX_PLUGINS:
            raise RemoteProtocolError(f"a configuration lists {count} plugins; the maximum is {_MAX_PLUGINS}")
        conf, _ = _entries(buf, field)
    return PrepareConfReq(conf, _octets(buf, table + key) if key else None)


def _decode_prepare_conf_resp(buf: bytes) -> PrepareConfResp:
    table, (token,) = _root(buf, 1)
    return PrepareConfResp(_u32(buf, table + token)[0] if token else 0)


def _decode_http_req_call_req(buf: bytes) -> HTTPReqCallReq:
    size = len(buf)
    # This does what `_root` does, and the next two blocks what `_octets` does. Each call that is saved counts here.
    table: int = _u32(buf, 0)[0]
    id_at, src_ip_at, method_at, path_at, args_at, headers_at, token_at = _slots(buf, table, 7)
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
    if member > LAST_ACTION:
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
    if member > LAST_INFO:
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


# An answer as builders write it, up to its length: the root table at 12, its vtable at 6, the vector at 20.
_USUAL_INFO = b"\x0c\0\0\0\0\0\x06\0\x08\0\x04\0\x06\0\0\0\x04\0\0\0"


def _decode_extra_info_resp(buf: bytes) -> ExtraInfoResp:
    if buf.startswith(_USUAL_INFO):
        end: int = 24 + _u32(buf, 20)[0]
        if end <= len(buf):
            return ExtraInfoResp(buf[24:end])
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

# Indexed by role, then by frame type.
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
    """Decode the payload of a frame.

    Args:
        frame_type: Type of the frame, a `FrameType`.
        payload: The frame without its header. It must be `bytes`, because the message keeps slices of it.
        role: Our side. A frame of type 2 is a call for the runner, and an answer for the gateway.

    Returns:
        The message.

    Raises:
        RemoteProtocolError: The payload is no message of that type. The error is recoverable, unless the type is
            unknown.
    """
    decoders = _DECODERS[role]
    if not 0 <= frame_type < len(decoders):
        raise RemoteProtocolError(f"unknown frame type {frame_type}", recoverable=False)
    try:
        return decoders[frame_type](payload)
    except (StructError, IndexError):
        raise RemoteProtocolError(
            f"malformed flatbuffer: an offset leads outside of its {len(payload)} bytes"
        ) from None
