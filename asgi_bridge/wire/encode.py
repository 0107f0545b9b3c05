"""Encode messages in pure Python: what the runner sends, and the gateway's answers to ExtraInfo.

All other messages are rare and built with the official package, by `rare`. `decode` explains the layout of a
flatbuffer.

A buffer is written forwards. The fixed part stands first: root, vtables and tables. Bodies and strings follow, then
vectors of entries, each directly followed by what it leads to. All are pieces of one join. The fixed part is packed
last, when all places are known. Every table and every length stands on a multiple of four.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from struct import error as StructError
from typing import Any

from ..errors import LocalProtocolError
from .frames import MAX_PAYLOAD, FrameType, too_long
from .messages import (
    LAST_INFO,
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Message,
    PrepareConfReq,
    PrepareConfResp,
    ReqBody,
    RespBody,
    Rewrite,
    Stop,
    TextEntry,
    Var,
)
from .rare import (
    encode_err_resp,
    encode_http_req_call_req,
    encode_http_resp_call_req,
    encode_prepare_conf_req,
    encode_unknown_action,
)

__all__ = ["encode"]

# The type of a frame where its header has it; the length is added with ``|``.
_PREPARE_CONF_TYPE = FrameType.PREPARE_CONF << 24
_HTTP_REQ_CALL_TYPE = FrameType.HTTP_REQ_CALL << 24
_EXTRA_INFO_TYPE = FrameType.EXTRA_INFO << 24
_HTTP_RESP_CALL_TYPE = FrameType.HTTP_RESP_CALL << 24

_pack_header = Struct(">I").pack
_pack_u32 = Struct("<I").pack
_pack_one_text = Struct("<iII").pack  # distances to the vtable and to the string, length of the string

# Bytes after a string (its NUL and padding) and after a vector of bytes (padding), by length modulo 4.
_NUL = (b"\0\0\0\0", b"\0\0\0", b"\0\0", b"\0")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")

_ENTRY_VTABLE = b"\x08\0\x0c\0\x04\0\x08\0"  # vtable of 8 bytes, table of 12; name at 4, value at 8


class _EntryPacks(dict[tuple[int, int], Callable[..., bytes]]):
    """Functions that pack an entry, made at first use.

    A key is the numbers of whole words in the name and in the value. The word that holds a string's NUL is not counted.
    A function packs the distance to the vtable, the fields of name and value, and both strings. ``struct`` pads them
    with zeros, as flatbuffers does.
    """

    def __missing__(self, words: tuple[int, int]) -> Callable[..., bytes]:
        n, m = words
        pack = Struct(f"<iIII{4 * n + 4}sI{4 * m + 4}s").pack
        if n < 64 and m < 64:  # bounds the memory: 4096 functions
            self[words] = pack
        return pack


_pack_entry = _EntryPacks()

# An entry without a name or value has a vtable of its own in front of it.
NAME_ONLY_VTABLE = b"\x06\0\x08\0\x04\0\0\0"
VALUE_ONLY_VTABLE = b"\x08\0\x08\0\0\0\x04\0"
EMPTY_ENTRY = b"\x04\0\x04\0\x04\0\0\0"  # vtable and table


def _put_entries(parts: list[bytes], at: int, vtable: int, entries: Sequence[TextEntry]) -> int:
    """Append a vector of entries with their tables and strings.

    Args:
        parts: Pieces of the buffer. The vector is appended to them.
        at: Position of the vector in the buffer, in bytes.
        vtable: Position of `_ENTRY_VTABLE` in the buffer, in bytes.
        entries: Names and values.

    Returns:
        The position after all that was appended.
    """
    count = len(entries)
    if count == 1:  # the usual change: its offset is known
        ((name, value),) = entries
        if name is not None and value is not None:
            n = len(name)
            m = len(value)
            entry = _pack_entry[n >> 2, m >> 2](at + 8 - vtable, 8, (n & -4) + 12, n, name, m, value)
            parts += (_ONE_ENTRY, entry)
            return at + 8 + len(entry)
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
                entry = EMPTY_ENTRY
            else:
                offsets.append(at + 8 - slot)
                n = len(text)
                own = VALUE_ONLY_VTABLE if name is None else NAME_ONLY_VTABLE
                entry = own + _pack_one_text(8, 4, n) + text + _NUL[n & 3]
        parts.append(entry)
        at += len(entry)
        slot += 4
    if count < len(_pack_vector):
        parts[place] = _pack_vector[count](count, *offsets)
    else:
        parts[place] = Struct(f"<{count + 1}I").pack(count, *offsets)
    return at


_ONE_ENTRY = Struct("<2I").pack(1, 4)  # the vector of an entry that follows it
_pack_vector = tuple(Struct(f"<{n + 1}I").pack for n in range(64))


def _put_octets(parts: list[bytes], at: int, octets: bytes) -> int:
    """Append a vector of bytes, which begins at position `at`. Returns the position after it."""
    n = len(octets)
    parts += (_pack_u32(n), octets, _PAD[n & 3])
    return at + 4 + ((n + 3) & -4)


def _put_string(parts: list[bytes], at: int, string: bytes) -> int:
    """Append a string, which begins at position `at`. Returns the position after it."""
    n = len(string)
    parts += (_pack_u32(n), string, _NUL[n & 3])
    return at + 4 + ((n + 4) & -4)


# The fixed parts. A number before a colon is a position in the buffer; a number before a field is its place in the
# table.
#
# A message of one field: HTTPReqCall.Resp without an action, PrepareConf.Resp, ExtraInfo.Resp.
# 4: vtable, 6 bytes; 12: table, 8 bytes: 4 the field
_ONE_FIELD = b"\x0c\0\0\0" + b"\x06\0\x08\0\x04\0\0\0" + b"\x08\0\0\0"
_pack_one_field = Struct(">I16s").pack
# A message without fields. 4: vtable, 4 bytes; 8: table
_NO_FIELD = b"\x08\0\0\0" + b"\x04\0\x04\0" + b"\x04\0\0\0"

# HTTPReqCall.Resp with an action. 0: root; 4: vtable of entries; 12: vtable; 24: table: 4 id, 8 action, 12 its type
ACTION_VTABLES = b"\x18\0\0\0" + _ENTRY_VTABLE + b"\x0a\0\x10\0\x04\0\x0c\0\x08\0\0\0" + b"\x0c\0\0\0"
# 40: vtable of Stop, one for each set of fields that are present (1 headers, 2 body); 52: table: 4 headers, 8 body,
# 12 status
STOP_VTABLES = tuple(
    Struct("<IB3x5H2xI").pack(20, 1, 10, 16, 12, 4 if has & 1 else 0, 8 if has & 2 else 0, 12) for has in range(4)
)
_pack_stop = Struct("<4s28sI24sIIH2x").pack
_STOP_SIZE = 68
# 40: vtable of Rewrite (1 path, 2 headers, 4 args, 8 resp_headers, 16 body are present); 56: table, 24 bytes
REWRITE_VTABLES = tuple(
    Struct("<IB3x7H2xI").pack(24, 2, 14, 24, *(4 * n + 4 if has >> n & 1 else 0 for n in range(5)), 16)
    for has in range(32)
)
_pack_rewrite = Struct("<4s28sI28s5I").pack
_REWRITE_SIZE = 80
# HTTPRespCall.Resp. 0: root; 4: vtable of entries; 12: vtable (1 headers, 2 body are present); 24: table: 4 id,
# 8 headers, 12 body, 16 status
RESP_VTABLES = tuple(
    b"\x18\0\0\0" + _ENTRY_VTABLE + Struct("<6HI").pack(12, 20, 4, 16, 8 if has & 1 else 0, 12 if has & 2 else 0, 12)
    for has in range(4)
)
_pack_resp = Struct("<4s28sIIIH2x").pack
_RESP_SIZE = 44


def _encode_http_req_call_resp(message: HTTPReqCallResp) -> bytes:
    action = message.action
    if action is None:
        return REQ_CALL_NO_ACTION + _pack_u32(message.id)
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
            raise too_long(at)
        parts[0] = _pack_stop(
            _pack_header(_HTTP_REQ_CALL_TYPE | at),
            ACTION_VTABLES,
            message.id,
            STOP_VTABLES[has],
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
            raise too_long(at)
        parts[0] = _pack_rewrite(
            _pack_header(_HTTP_REQ_CALL_TYPE | at),
            ACTION_VTABLES,
            message.id,
            REWRITE_VTABLES[has],
            path_at,
            headers_at,
            args_at,
            resp_headers_at,
            body_at,
        )
    else:
        return encode_unknown_action(message.id, action)
    return b"".join(parts)


REQ_CALL_NO_ACTION = _pack_one_field(_HTTP_REQ_CALL_TYPE | 20, _ONE_FIELD)


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
        raise too_long(at)
    parts[0] = _pack_resp(
        _pack_header(_HTTP_RESP_CALL_TYPE | at), RESP_VTABLES[has], message.id, headers_at, body_at, message.status
    )
    return b"".join(parts)


def _encode_prepare_conf_resp(message: PrepareConfResp) -> bytes:
    return _PREPARE_CONF_RESP + _pack_u32(message.conf_token)


_PREPARE_CONF_RESP = _pack_one_field(_PREPARE_CONF_TYPE | 20, _ONE_FIELD)

# ExtraInfo.Req. 0: root; 4: vtable; 12: table: 4 info, 8 its type
_EXTRA_INFO = b"\x0c\0\0\0" + b"\x08\0\x0c\0\x08\0\x04\0" + b"\x08\0\0\0"
# 24: vtable of the member; its table is at 32 with a name, at 28 without fields
_EXTRA_INFO_VAR = _EXTRA_INFO + Struct("<IB3x").pack(16, 1) + b"\x06\0\x08\0\x04\0\0\0" + b"\x08\0\0\0" + b"\x04\0\0\0"
_EXTRA_INFO_EMPTY = tuple(
    _pack_header(_EXTRA_INFO_TYPE | 32) + _EXTRA_INFO + Struct("<IB3x").pack(12, n) + b"\x04\0\x04\0\x04\0\0\0"
    for n in range(256)
)
_EXTRA_INFO_NONE = _pack_header(_EXTRA_INFO_TYPE | 12) + _NO_FIELD
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
            raise too_long(at)
        return b"".join((_pack_header(_EXTRA_INFO_TYPE | at), _EXTRA_INFO_VAR, _pack_u32(n), name, _NUL[n & 3]))
    if isinstance(info, ReqBody):
        return _EXTRA_INFO_EMPTY[2]
    if isinstance(info, RespBody):
        return _EXTRA_INFO_EMPTY[3]
    if not LAST_INFO < info.type <= 255:
        raise LocalProtocolError(f"{info.type} is not the type of an unknown info ({LAST_INFO + 1} to 255)")
    return _EXTRA_INFO_EMPTY[info.type]


def _encode_extra_info_resp(message: ExtraInfoResp) -> bytes:
    result = message.result
    if result is None:
        return _EXTRA_INFO_NONE
    n = len(result)
    at = 24 + ((n + 3) & -4)
    if at > MAX_PAYLOAD:
        raise too_long(at)
    return b"".join((_pack_header(_EXTRA_INFO_TYPE | at), _EXTRA_INFO_RESULT, _pack_u32(n), result, _PAD[n & 3]))


_ENCODERS: dict[type[Any], Callable[[Any], bytes]] = {
    ErrResp: encode_err_resp,
    PrepareConfReq: encode_prepare_conf_req,
    PrepareConfResp: _encode_prepare_conf_resp,
    HTTPReqCallReq: encode_http_req_call_req,
    HTTPReqCallResp: _encode_http_req_call_resp,
    ExtraInfoReq: _encode_extra_info_req,
    ExtraInfoResp: _encode_extra_info_resp,
    HTTPRespCallReq: encode_http_resp_call_req,
    HTTPRespCallResp: _encode_http_resp_call_resp,
}


def encode(message: Message) -> bytes:
    """Encode a message as a complete frame, header included.

    Args:
        message: The message. Bodies and results may be any bytes-like object.

    Returns:
        The frame. Those of the known errors are constants.

    Raises:
        LocalProtocolError: A number is out of its range, the payload would be longer than `MAX_PAYLOAD` bytes, or the
            object is no message.
    """
    try:
        return _ENCODERS[type(message)](message)
    except KeyError:
        raise LocalProtocolError(f"{type(message).__name__} is no message") from None
    except StructError as exc:
        raise LocalProtocolError(f"{type(message).__name__} holds a number that is out of range: {exc}") from None
