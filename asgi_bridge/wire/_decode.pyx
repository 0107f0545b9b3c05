"""Decode payloads in C: the compiled twin of ``decode.py``, which explains the format and what is checked.

Both accept the same payloads, give the same messages, and raise the same errors.

How memory stays safe
    A position is a signed number of 64 bits. Offsets have at most 32 bits, and a position is the sum of a few of them,
    so it cannot overflow. Each read compares its position with both ends of the buffer, in `_u16_at`, `_u32_at` and
    `_octets`, or in the lines before it in `usual_entry`. Numbers are put together from bytes, so alignment and the
    machine's byte order do not matter. The buffer is a bytes object, which nobody changes.

Names are kept
    A few names come with every request. Each bytes object of a header's name is kept in a table of fixed size, and used
    again where the whole name is equal. Values are never kept: they are the clients' own.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from ._unread cimport unread
from .entries cimport UNUSUAL, Buffer, Entry, i32, u16, u32, usual_entry
from .names cimport LONGEST_NAME, NAMES, is_name, place_of
from .slots cimport new_empty, set_slot, slot_of

from ..errors import RemoteProtocolError
from .messages import (
    METHODS,
    ErrCode,
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    PrepareConfReq,
    PrepareConfResp,
    ReqBody,
    RespBody,
    Rewrite,
    Stop,
    UnknownUnion,
    Var,
)

__all__ = ["SOURCES", "decode"]

cdef extern from *:
    const char *ASGI_BRIDGE_SOURCES
    Py_ssize_t PyNumber_AsSsize_t(object number, void *overflow) except? -1

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

# As in decode.py, which says why.
cdef enum:
    LAST_ACTION = 2
    LAST_INFO = 3
    ENTRY_COST = 8
    STRING_COST = 12
    MAX_PLUGINS = 1000
    LONGEST_UNREAD = 16384

# A position that no vtable has. A wrong distance may lead to any position in 33 bits, so -1 would not do.
cdef int64_t NOWHERE = -(<int64_t>1 << 40)

cdef tuple METHOD_NAMES = METHODS
cdef tuple ERR_CODES = tuple(ErrCode)
cdef object CALL = HTTPReqCallReq, INFO = ExtraInfoResp

# The slots of the two messages of which there are many.
cdef Py_ssize_t ID = slot_of(CALL, "id"), SRC_IP = slot_of(CALL, "src_ip"), METHOD = slot_of(CALL, "method")
cdef Py_ssize_t PATH = slot_of(CALL, "path"), ARGS = slot_of(CALL, "args"), HEADERS = slot_of(CALL, "headers")
cdef Py_ssize_t TOKEN = slot_of(CALL, "conf_token"), RESULT = slot_of(INFO, "result")

# The names of headers that came before.
cdef list KEPT = [None] * NAMES


# errors


cdef object _outside(Buffer buf):
    return RemoteProtocolError(f"malformed flatbuffer: an offset leads outside of its {buf.size} bytes")


cdef object _past_end(int64_t position, Buffer buf):
    return RemoteProtocolError(f"malformed flatbuffer: position {position} is outside of its {buf.size} bytes")


cdef object _overdrawn(Buffer buf):
    return RemoteProtocolError(f"malformed flatbuffer: {buf.size} bytes hold the same content over and over")


# numbers


cdef inline int _u8_at(Buffer buf, int64_t at) except -1:
    if at < 0 or at >= buf.size:
        raise _outside(buf)
    return buf.bytes[at]


cdef inline int _u16_at(Buffer buf, int64_t at) except -1:
    if at < 0 or at + 2 > buf.size:
        raise _outside(buf)
    return u16(buf.bytes + at)


cdef inline int64_t _u32_at(Buffer buf, int64_t at) except -1:
    if at < 0 or at + 4 > buf.size:
        raise _outside(buf)
    return u32(buf.bytes + at)


# tables, strings, entries


cdef int _slots(Buffer buf, int64_t table, int count, uint16_t *slots) except -1:
    """Write the places of the first `count` fields of a table into `slots`; 0: the field is absent."""
    cdef int64_t vtable
    cdef int index, have, vtable_size, table_size
    if table < 0 or table + 4 > buf.size:
        raise _outside(buf)
    vtable = table - i32(buf.bytes + table)
    if vtable < 0:
        raise _past_end(vtable, buf)
    if vtable + 4 > buf.size:
        raise _outside(buf)
    vtable_size = u16(buf.bytes + vtable)
    table_size = u16(buf.bytes + vtable + 2)
    have = min((vtable_size - 4) >> 1, count)  # a later version of the protocol may have more fields
    if vtable_size < 4 or vtable_size & 1 or table_size < 4 or vtable + 4 + 2 * have > buf.size:
        raise RemoteProtocolError("malformed flatbuffer: impossible vtable")
    for index in range(have):
        slots[index] = u16(buf.bytes + vtable + 4 + 2 * index)
        if slots[index] >= table_size:
            raise RemoteProtocolError("malformed flatbuffer: a field outside of the table")
    for index in range(have, count):
        slots[index] = 0
    if vtable + vtable_size > buf.size or table + table_size > buf.size:
        raise RemoteProtocolError(f"malformed flatbuffer: impossible vtable at position {vtable}")
    return 0


cdef bytes _octets(Buffer buf, int64_t field):
    """Return the string or vector of bytes that a field leads to."""
    cdef int64_t start = field + _u32_at(buf, field)
    cdef int64_t length = _u32_at(buf, start)
    start += 4
    if start + length > buf.size:
        raise _past_end(start + length, buf)
    return PyBytes_FromStringAndSize(<const char *>buf.bytes + start, <Py_ssize_t>length)


cdef inline bytes _kept_name(const uint8_t *text, Py_ssize_t length):
    """Return the name of a header, an earlier object of equal bytes where there is one."""
    cdef uint32_t place
    cdef object kept
    if not 0 < length <= LONGEST_NAME:
        return PyBytes_FromStringAndSize(<const char *>text, length)
    place = place_of(text, length)
    kept = KEPT[place]
    if is_name(kept, text, length):
        return <bytes>kept
    kept = PyBytes_FromStringAndSize(<const char *>text, length)
    KEPT[place] = kept
    return <bytes>kept


cdef list _entries(Buffer buf, int64_t field, bint headers, int64_t *charged):
    """Read the vector of entries that a field leads to. `decode.py` explains the usual layout, and the budget.

    Args:
        buf: The payload.
        field: Position of the field.
        headers: The names are those of headers.
        charged: Bytes charged so far for other entries of this message. Those charged here are added.
    """
    cdef int64_t slot = field + _u32_at(buf, field)
    cdef int64_t count = _u32_at(buf, slot)
    cdef int64_t known = NOWHERE, limit = buf.size
    cdef Py_ssize_t index
    cdef list entries
    cdef tuple pair
    cdef Entry entry
    slot += 4
    if slot + 4 * count > buf.size:
        raise _past_end(slot + 4 * count, buf)
    if not count:
        return []
    # in the usual layout no two entries share any of their bytes, and each has 16 or more
    if 16 * count <= buf.size:
        entries = PyList_New(<Py_ssize_t>count)
        for index in range(<Py_ssize_t>count):
            limit = usual_entry(buf, slot + 4 * index, limit, &known, &entry)
            if limit == UNUSUAL:
                break
            pair = (
                _kept_name(entry.name, <Py_ssize_t>entry.name_size) if headers
                else PyBytes_FromStringAndSize(<const char *>entry.name, <Py_ssize_t>entry.name_size),
                PyBytes_FromStringAndSize(<const char *>entry.value, <Py_ssize_t>entry.value_size),
            )
            Py_INCREF(pair)
            PyList_SET_ITEM(entries, index, pair)
        else:
            return entries
    return _careful_entries(buf, slot, count, charged)


cdef object _arguments(Buffer buf, bytes data, int64_t field, int64_t *charged):
    """Return the arguments of a query that a field leads to: an `Unread` where their layout is the usual one.

    Args:
        buf, field, charged: As above.
        data: It holds the payload.
    """
    cdef int64_t slot = field + _u32_at(buf, field)
    cdef int64_t count = _u32_at(buf, slot)
    cdef int64_t known = NOWHERE, limit = buf.size, index
    cdef Entry entry
    slot += 4
    if 0 < 16 * count <= buf.size <= LONGEST_UNREAD and slot + 4 * count <= buf.size:
        for index in range(count):
            limit = usual_entry(buf, slot + 4 * index, limit, &known, &entry)
            if limit == UNUSUAL:
                break
        else:
            return unread(data, buf, slot, count)
    return _entries(buf, field, False, charged)


cdef list _careful_entries(Buffer buf, int64_t slot, int64_t count, int64_t *charged):
    """Read entries of any layout, and charge each of them. The caller has checked that the buffer holds their offsets."""
    cdef int64_t budget = buf.size + (buf.size >> 1) + min(2 * buf.size + (buf.size >> 1), 65536)
    cdef int64_t index, table
    cdef uint16_t[2] slots
    cdef bytes name, value
    cdef list entries = []
    if charged[0] + ENTRY_COST * count > budget:
        raise _overdrawn(buf)
    for index in range(count):
        table = slot + u32(buf.bytes + slot)
        slot += 4
        _slots(buf, table, 2, slots)
        name = _octets(buf, table + slots[0]) if slots[0] else None
        value = _octets(buf, table + slots[1]) if slots[1] else None
        charged[0] += ENTRY_COST
        if name is not None:
            charged[0] += PyBytes_GET_SIZE(name) + STRING_COST
        if value is not None:
            charged[0] += PyBytes_GET_SIZE(value) + STRING_COST
        if charged[0] > budget:
            raise _overdrawn(buf)
        entries.append((name, value))
    return entries


# messages


cdef object _err_resp(Buffer buf):
    cdef int64_t table = _u32_at(buf, 0)
    cdef uint16_t[1] slots
    cdef int number
    _slots(buf, table, 1, slots)
    number = _u8_at(buf, table + slots[0]) if slots[0] else 0
    return ErrResp(ERR_CODES[number] if number < len(ERR_CODES) else number)


cdef object _prepare_conf_req(Buffer buf):
    cdef int64_t table = _u32_at(buf, 0)
    cdef int64_t field, count, charged = 0
    cdef uint16_t[2] slots
    cdef list conf = None
    _slots(buf, table, 2, slots)
    if slots[0]:
        field = table + slots[0]
        count = _u32_at(buf, field + _u32_at(buf, field))
        if count > MAX_PLUGINS:
            raise RemoteProtocolError(f"a configuration lists {count} plugins; the maximum is {MAX_PLUGINS}")
        conf = _entries(buf, field, False, &charged)
    return PrepareConfReq(conf, _octets(buf, table + slots[1]) if slots[1] else None)


cdef object _prepare_conf_resp(Buffer buf):
    cdef int64_t table = _u32_at(buf, 0)
    cdef uint16_t[1] slots
    _slots(buf, table, 1, slots)
    return PrepareConfResp(_u32_at(buf, table + slots[0]) if slots[0] else 0)


cdef object _http_req_call_req(Buffer buf, bytes data):
    cdef int64_t table = _u32_at(buf, 0)
    cdef int64_t charged = 0
    cdef uint16_t[7] slots
    cdef int method
    cdef bytes src_ip = None, path = None
    cdef list headers = None
    cdef object args = None, number, token, message
    _slots(buf, table, 7, slots)
    if slots[1]:
        src_ip = _octets(buf, table + slots[1])
    if slots[3]:
        path = _octets(buf, table + slots[3])
    if slots[4]:
        args = _arguments(buf, data, table + slots[4], &charged)
    if slots[5]:
        headers = _entries(buf, table + slots[5], True, &charged)
    method = _u8_at(buf, table + slots[2]) if slots[2] else 0
    if method >= len(METHOD_NAMES):
        raise RemoteProtocolError(f"unknown method number {method}")
    number = _u32_at(buf, table + slots[0]) if slots[0] else 0
    token = _u32_at(buf, table + slots[6]) if slots[6] else 0
    message = new_empty(CALL)
    set_slot(message, ID, number)
    set_slot(message, SRC_IP, src_ip)
    set_slot(message, METHOD, METHOD_NAMES[method])
    set_slot(message, PATH, path)
    set_slot(message, ARGS, args)
    set_slot(message, HEADERS, headers)
    set_slot(message, TOKEN, token)
    return message


cdef object _http_req_call_resp(Buffer buf):
    cdef int64_t table = _u32_at(buf, 0)
    cdef int64_t number, charged = 0
    cdef uint16_t[5] slots
    cdef int member, status
    cdef list headers = None, args = None, resp_headers = None
    _slots(buf, table, 3, slots)
    number = _u32_at(buf, table + slots[0]) if slots[0] else 0
    member = _u8_at(buf, table + slots[1]) if slots[1] else 0
    if not member:
        return HTTPReqCallResp(number, None)
    if member > LAST_ACTION:
        return HTTPReqCallResp(number, UnknownUnion(member))
    if not slots[2]:
        raise RemoteProtocolError("malformed flatbuffer: an action without its table")
    table += slots[2]
    table += _u32_at(buf, table)
    if member == 1:
        _slots(buf, table, 3, slots)
        if slots[1]:
            headers = _entries(buf, table + slots[1], True, &charged)
        status = _u16_at(buf, table + slots[0]) if slots[0] else 0
        return HTTPReqCallResp(number, Stop(status, headers, _octets(buf, table + slots[2]) if slots[2] else None))
    _slots(buf, table, 5, slots)
    if slots[1]:
        headers = _entries(buf, table + slots[1], True, &charged)
    if slots[2]:
        args = _entries(buf, table + slots[2], False, &charged)
    if slots[3]:
        resp_headers = _entries(buf, table + slots[3], True, &charged)
    return HTTPReqCallResp(
        number,
        Rewrite(
            _octets(buf, table + slots[0]) if slots[0] else None,
            headers,
            args,
            resp_headers,
            _octets(buf, table + slots[4]) if slots[4] else None,
        ),
    )


cdef object _extra_info_req(Buffer buf):
    cdef int64_t table = _u32_at(buf, 0)
    cdef uint16_t[2] slots
    cdef int member
    _slots(buf, table, 2, slots)
    member = _u8_at(buf, table + slots[0]) if slots[0] else 0
    if not member:
        return ExtraInfoReq(None)
    if member > LAST_INFO:
        return ExtraInfoReq(UnknownUnion(member))
    if not slots[1]:
        raise RemoteProtocolError("malformed flatbuffer: an info without its table")
    table += slots[1]
    table += _u32_at(buf, table)
    _slots(buf, table, 1, slots)
    if member == 1:
        return ExtraInfoReq(Var(_octets(buf, table + slots[0]) if slots[0] else None))
    return ExtraInfoReq(ReqBody() if member == 2 else RespBody())


cdef object _extra_info_resp(Buffer buf):
    cdef int64_t table = _u32_at(buf, 0)
    cdef uint16_t[1] slots
    cdef object result = None, message
    _slots(buf, table, 1, slots)
    if slots[0]:
        result = _octets(buf, table + slots[0])
    message = new_empty(INFO)
    set_slot(message, RESULT, result)
    return message


cdef object _http_resp_call(Buffer buf, bint answer):
    """Read a response call, or the answer to one. They differ in the last field: the token, or the body."""
    cdef int64_t table = _u32_at(buf, 0)
    cdef int64_t charged = 0
    cdef uint16_t[4] slots
    cdef list headers = None
    cdef object number, status
    _slots(buf, table, 4, slots)
    if slots[2]:
        headers = _entries(buf, table + slots[2], True, &charged)
    number = _u32_at(buf, table + slots[0]) if slots[0] else 0
    status = _u16_at(buf, table + slots[1]) if slots[1] else 0
    if answer:
        return HTTPRespCallResp(number, status, headers, _octets(buf, table + slots[3]) if slots[3] else None)
    return HTTPRespCallReq(number, status, headers, _u32_at(buf, table + slots[3]) if slots[3] else 0)


cdef object decode_from(int kind, bytes data, Py_ssize_t start, Py_ssize_t end, bint gateway):
    """Decode the payload that is a part of `data`.

    Args:
        kind: Type of the frame, 0 to 4.
        data: The bytes.
        start, end: Positions in them, of the payload and behind it.
        gateway: Whether the receiver is the gateway.
    """
    cdef Buffer buf
    buf.bytes = <const uint8_t *>PyBytes_AS_STRING(data) + start
    buf.size = end - start
    if kind == 2:
        return _http_req_call_resp(buf) if gateway else _http_req_call_req(buf, data)
    if kind == 3:
        return _extra_info_req(buf) if gateway else _extra_info_resp(buf)
    if kind == 4:
        return _http_resp_call(buf, gateway)
    if kind == 1:
        return _prepare_conf_resp(buf) if gateway else _prepare_conf_req(buf)
    return _err_resp(buf)


def decode(frame_type, bytes payload not None, role):
    """Decode the payload of a frame. See `asgi_bridge.wire.decode.decode`."""
    # clipped where it is too big for C: no number that is clipped is a type
    cdef Py_ssize_t kind = PyNumber_AsSsize_t(frame_type, NULL)
    if not 0 <= kind <= 4:
        raise RemoteProtocolError(f"unknown frame type {frame_type}", recoverable=False)
    return decode_from(<int>kind, payload, 0, PyBytes_GET_SIZE(payload), bool(role))
