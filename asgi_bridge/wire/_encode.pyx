"""Encode answers and asks in C: the compiled twin of ``encode.py``, which explains the layout.

Both give the same bytes, and raise the same errors. What is written here is what a runner sends all the time, made of
the usual objects: ``bytes`` and ``None``, in lists of pairs. Whatever else comes is left to the pure encoder: other
messages, other classes, a number out of its range, more than a frame holds.

How memory stays safe
    A message is gone through twice. `_size` checks each object and adds up the bytes. Then the frame is made, and each
    part is written into it. Between the two no Python code runs, so nobody can change a list. At the end the number of
    bytes that were written is compared with the frame's.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from .slots cimport held, slot_of

from .encode import (
    ACTION_VTABLES,
    EMPTY_ENTRY,
    NAME_ONLY_VTABLE,
    REQ_CALL_NO_ACTION,
    RESP_VTABLES,
    REWRITE_VTABLES,
    STOP_VTABLES,
    VALUE_ONLY_VTABLE,
    encode as encode_in_python,
)
from .frames import FrameType
from .messages import HTTPReqCallResp, HTTPRespCallResp, Rewrite, Stop

__all__ = ["SOURCES", "encode"]

cdef extern from *:
    const char *ASGI_BRIDGE_SOURCES
    Py_ssize_t PyLong_AsSsize_t(object number) except? -1
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef enum:
    HEADER = 4
    MAX_PAYLOAD = 0xFFFFFF
    # sizes of the fixed parts, and the position of the vtable of entries
    STOP_SIZE = 68
    REWRITE_SIZE = 80
    RESP_SIZE = 44
    VTABLE = 4
    # `_size` of what the pure encoder has to look at
    UNUSUAL = -1

cdef object REQ_CALL_RESP = HTTPReqCallResp, RESP_CALL_RESP = HTTPRespCallResp, STOP = Stop, REWRITE = Rewrite
cdef Py_ssize_t ID = slot_of(REQ_CALL_RESP, "id"), ACTION = slot_of(REQ_CALL_RESP, "action")
cdef Py_ssize_t STOP_STATUS = slot_of(STOP, "status"), STOP_HEADERS = slot_of(STOP, "headers")
cdef Py_ssize_t STOP_BODY = slot_of(STOP, "body")
cdef Py_ssize_t PATH = slot_of(REWRITE, "path"), HEADERS = slot_of(REWRITE, "headers"), ARGS = slot_of(REWRITE, "args")
cdef Py_ssize_t RESP_HEADERS = slot_of(REWRITE, "resp_headers"), BODY = slot_of(REWRITE, "body")
cdef int REQ_CALL = FrameType.HTTP_REQ_CALL.value, RESP_CALL = FrameType.HTTP_RESP_CALL.value

cdef bytes VTABLES_OF_ACTION = ACTION_VTABLES
cdef tuple VTABLES_OF_STOP = STOP_VTABLES, VTABLES_OF_REWRITE = REWRITE_VTABLES, VTABLES_OF_RESP = RESP_VTABLES
cdef bytes NAME_ONLY = NAME_ONLY_VTABLE, VALUE_ONLY = VALUE_ONLY_VTABLE, NO_FIELDS = EMPTY_ENTRY
cdef bytes NO_ACTION = REQ_CALL_NO_ACTION


cdef struct Frame:
    # Positions count from the beginning of the payload, as in the pure encoder.
    uint8_t *payload
    int64_t at


# sizes


cdef inline int64_t _string_size(int64_t length) noexcept:
    """Return the bytes of a string: its length, the content, a NUL, and padding."""
    return 4 + ((length + 4) & ~<int64_t>3)


cdef inline int64_t _octets_size(object octets) noexcept:
    """Return the bytes of a vector of bytes."""
    return 4 + ((<int64_t>PyBytes_GET_SIZE(octets) + 3) & ~<int64_t>3)


cdef int64_t _entries_size(object entries) noexcept:
    """Return the bytes of a vector of entries with all that it leads to; `UNUSUAL`: it is not made of usual objects."""
    cdef Py_ssize_t index, count
    cdef PyObject *entry
    cdef PyObject *name
    cdef PyObject *value
    cdef int64_t size
    if not PyList_CheckExact(entries):
        return UNUSUAL
    count = PyList_GET_SIZE(entries)
    if count > MAX_PAYLOAD:
        return UNUSUAL
    size = 4 + 4 * <int64_t>count
    for index in range(count):
        entry = PyList_GET_ITEM(entries, index)
        if not PyTuple_CheckExact(<object>entry) or PyTuple_GET_SIZE(<object>entry) != 2:
            return UNUSUAL
        name = PyTuple_GET_ITEM(<object>entry, 0)
        value = PyTuple_GET_ITEM(<object>entry, 1)
        if name is not <PyObject *>None and not PyBytes_CheckExact(<object>name):
            return UNUSUAL
        if value is not <PyObject *>None and not PyBytes_CheckExact(<object>value):
            return UNUSUAL
        if name is not <PyObject *>None and value is not <PyObject *>None:
            size += 12 + _string_size(PyBytes_GET_SIZE(<object>name)) + _string_size(PyBytes_GET_SIZE(<object>value))
        elif name is not <PyObject *>None:
            size += 16 + _string_size(PyBytes_GET_SIZE(<object>name))
        elif value is not <PyObject *>None:
            size += 16 + _string_size(PyBytes_GET_SIZE(<object>value))
        else:
            size += 8
        if size > MAX_PAYLOAD:  # here, so that no sum can overflow
            return UNUSUAL
    return size


cdef int64_t _number(object number, int64_t most) except? -2:
    """Return a number of a message; -1: it is no int from 0 to `most`."""
    cdef int overflow = 0
    cdef long long found
    if not PyLong_CheckExact(number):
        return -1
    found = PyLong_AsLongLongAndOverflow(number, &overflow)
    return found if not overflow and 0 <= found <= most else -1


cdef inline bint _reserve_octets(object octets, int64_t field, int64_t *size, int64_t *offset) noexcept:
    """Make room for a vector of bytes at the end. Returns False if it is not made of usual objects.

    Args:
        octets: The bytes; None: there is no such vector.
        field: Position of the field that leads to it.
        size: Bytes of the payload. Those of the vector are added.
        offset: Gets what the field holds; 0: the field is absent.
    """
    offset[0] = 0
    if octets is None:
        return True
    if not PyBytes_CheckExact(octets) or PyBytes_GET_SIZE(octets) > MAX_PAYLOAD:
        return False
    offset[0] = size[0] - field
    size[0] += _octets_size(octets)
    return True


cdef inline bint _reserve_entries(object entries, int64_t field, int64_t *size, int64_t *offset) noexcept:
    """Do the same for a vector of entries."""
    cdef int64_t found
    offset[0] = 0
    if entries is None:
        return True
    found = _entries_size(entries)
    if found == UNUSUAL:
        return False
    offset[0] = size[0] - field
    size[0] += found
    return True


# writing


cdef inline void _put_u32(uint8_t *at, uint32_t number) noexcept:
    at[0] = number & 0xFF
    at[1] = number >> 8 & 0xFF
    at[2] = number >> 16 & 0xFF
    at[3] = number >> 24


cdef inline void _put_bytes(Frame *frame, object content) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(content)
    memcpy(frame.payload + frame.at, PyBytes_AS_STRING(content), size)
    frame.at += size


cdef inline void _put_number(Frame *frame, int64_t number) noexcept:
    _put_u32(frame.payload + frame.at, <uint32_t>number)
    frame.at += 4


cdef inline void _put_padded(Frame *frame, object content, int64_t size) noexcept:
    """Write a length, the content, and zeros up to `size` bytes in all."""
    cdef Py_ssize_t length = PyBytes_GET_SIZE(content)
    cdef uint8_t *at = frame.payload + frame.at
    _put_u32(at, <uint32_t>length)
    memcpy(at + 4, PyBytes_AS_STRING(content), length)
    memset(at + 4 + length, 0, size - 4 - length)
    frame.at += size


cdef void _put_entries(Frame *frame, object entries) noexcept:
    """Write what `_entries_size` has measured; None: nothing."""
    cdef Py_ssize_t index, count
    cdef PyObject *entry
    cdef PyObject *name
    cdef PyObject *value
    cdef int64_t slot, size
    if entries is None:
        return
    count = PyList_GET_SIZE(entries)
    _put_number(frame, count)
    slot = frame.at
    frame.at += 4 * count
    for index in range(count):
        entry = PyList_GET_ITEM(entries, index)
        name = PyTuple_GET_ITEM(<object>entry, 0)
        value = PyTuple_GET_ITEM(<object>entry, 1)
        if name is not <PyObject *>None and value is not <PyObject *>None:
            size = _string_size(PyBytes_GET_SIZE(<object>name))
            _put_u32(frame.payload + slot, <uint32_t>(frame.at - slot))
            _put_number(frame, frame.at - VTABLE)
            _put_number(frame, 8)
            _put_number(frame, 4 + size)
            _put_padded(frame, <object>name, size)
            _put_padded(frame, <object>value, _string_size(PyBytes_GET_SIZE(<object>value)))
        elif name is <PyObject *>None and value is <PyObject *>None:
            _put_u32(frame.payload + slot, <uint32_t>(frame.at + 4 - slot))
            _put_bytes(frame, NO_FIELDS)
        else:
            _put_u32(frame.payload + slot, <uint32_t>(frame.at + 8 - slot))
            _put_bytes(frame, VALUE_ONLY if name is <PyObject *>None else NAME_ONLY)
            _put_number(frame, 8)
            _put_number(frame, 4)
            if name is <PyObject *>None:
                name = value
            _put_padded(frame, <object>name, _string_size(PyBytes_GET_SIZE(<object>name)))
        slot += 4


cdef bytes _new_frame(Frame *frame, int kind, int64_t size):
    """Return a frame of `size` bytes, whose payload is not written yet."""
    cdef bytes made = PyBytes_FromStringAndSize(NULL, HEADER + size)
    cdef uint8_t *at = <uint8_t *>PyBytes_AS_STRING(made)
    at[0] = kind
    at[1] = size >> 16
    at[2] = size >> 8 & 0xFF
    at[3] = size & 0xFF
    frame.payload = at + HEADER
    frame.at = 0
    return made


# messages


cdef inline void _put_octets(Frame *frame, object octets) noexcept:
    if octets is not None:
        _put_padded(frame, octets, _octets_size(octets))


cdef bytes _stop(object number, object stop):
    cdef object headers = held(stop, STOP_HEADERS), body = held(stop, STOP_BODY)
    cdef int64_t id = _number(number, 0xFFFFFFFF), status = _number(held(stop, STOP_STATUS), 0xFFFF)
    cdef int64_t size = STOP_SIZE, headers_at, body_at
    cdef Frame frame
    if id < 0 or status < 0:
        return None
    if not _reserve_octets(body, 60, &size, &body_at) or not _reserve_entries(headers, 56, &size, &headers_at):
        return None
    if size > MAX_PAYLOAD:
        return None
    cdef bytes made = _new_frame(&frame, REQ_CALL, size)
    _put_bytes(&frame, VTABLES_OF_ACTION)
    _put_number(&frame, id)
    _put_bytes(&frame, VTABLES_OF_STOP[(headers is not None) + 2 * (body is not None)])
    _put_number(&frame, headers_at)
    _put_number(&frame, body_at)
    _put_number(&frame, status)
    _put_octets(&frame, body)
    _put_entries(&frame, headers)
    _check(&frame, size)
    return made


cdef bytes _rewrite(object number, object rewrite):
    cdef object path = held(rewrite, PATH), body = held(rewrite, BODY)
    cdef object headers = held(rewrite, HEADERS), args = held(rewrite, ARGS), resp_headers = held(rewrite, RESP_HEADERS)
    cdef int64_t id = _number(number, 0xFFFFFFFF), size = REWRITE_SIZE
    cdef int64_t path_at = 0, path_size = 0, headers_at, args_at, resp_headers_at, body_at
    cdef Frame frame
    if id < 0:
        return None
    if path is not None:
        if not PyBytes_CheckExact(path) or PyBytes_GET_SIZE(path) > MAX_PAYLOAD:
            return None
        path_at = size - 60
        path_size = _string_size(PyBytes_GET_SIZE(path))
        size += path_size
    if (
        not _reserve_octets(body, 76, &size, &body_at)
        or not _reserve_entries(headers, 64, &size, &headers_at)
        or not _reserve_entries(args, 68, &size, &args_at)
        or not _reserve_entries(resp_headers, 72, &size, &resp_headers_at)
        or size > MAX_PAYLOAD
    ):
        return None
    cdef int has = (path is not None) + 2 * (headers is not None) + 4 * (args is not None)
    has += 8 * (resp_headers is not None) + 16 * (body is not None)
    cdef bytes made = _new_frame(&frame, REQ_CALL, size)
    _put_bytes(&frame, VTABLES_OF_ACTION)
    _put_number(&frame, id)
    _put_bytes(&frame, VTABLES_OF_REWRITE[has])
    _put_number(&frame, path_at)
    _put_number(&frame, headers_at)
    _put_number(&frame, args_at)
    _put_number(&frame, resp_headers_at)
    _put_number(&frame, body_at)
    if path is not None:
        _put_padded(&frame, path, path_size)
    _put_octets(&frame, body)
    _put_entries(&frame, headers)
    _put_entries(&frame, args)
    _put_entries(&frame, resp_headers)
    _check(&frame, size)
    return made


cdef bytes _req_call_resp(object message):
    cdef object number = held(message, ID), action = held(message, ACTION)
    cdef int64_t id
    cdef bytes made
    cdef uint8_t *at
    if action is None:
        id = _number(number, 0xFFFFFFFF)
        if id < 0:
            return None
        made = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(NO_ACTION) + 4)
        at = <uint8_t *>PyBytes_AS_STRING(made)
        memcpy(at, PyBytes_AS_STRING(NO_ACTION), PyBytes_GET_SIZE(NO_ACTION))
        _put_u32(at + PyBytes_GET_SIZE(NO_ACTION), <uint32_t>id)
        return made
    if type(action) is STOP:
        return _stop(number, action)
    if type(action) is REWRITE:
        return _rewrite(number, action)
    return None


cdef bytes _resp_call_resp(object message):
    cdef object headers = message.headers, body = message.body
    cdef int64_t id = _number(message.id, 0xFFFFFFFF), status = _number(message.status, 0xFFFF)
    cdef int64_t size = RESP_SIZE, headers_at, body_at
    cdef Frame frame
    if id < 0 or status < 0:
        return None
    if not _reserve_octets(body, 36, &size, &body_at) or not _reserve_entries(headers, 32, &size, &headers_at):
        return None
    if size > MAX_PAYLOAD:
        return None
    cdef bytes made = _new_frame(&frame, RESP_CALL, size)
    _put_bytes(&frame, VTABLES_OF_RESP[(headers is not None) + 2 * (body is not None)])
    _put_number(&frame, id)
    _put_number(&frame, headers_at)
    _put_number(&frame, body_at)
    _put_number(&frame, status)
    _put_octets(&frame, body)
    _put_entries(&frame, headers)
    _check(&frame, size)
    return made


cdef inline bint _check(Frame *frame, int64_t size) except -1:
    if frame.at != size:
        raise AssertionError(f"{frame.at} bytes were written of {size}")
    return True


cdef bytes encode_answer(object message, bint to_request, bint to_response):
    """Encode the answer to a call; None: it is another message, or the pure encoder has to look at it.

    Args:
        message: The message.
        to_request: Whether it may answer a request call.
        to_response: Whether it may answer a response call.
    """
    cdef object kind = type(message)
    if kind is REQ_CALL_RESP:
        return _req_call_resp(message) if to_request else None
    return _resp_call_resp(message) if kind is RESP_CALL_RESP and to_response else None


def encode(message):
    """Encode a message as a complete frame, as the function of the same name in ``encode.py`` does."""
    cdef bytes made = encode_answer(message, True, True)
    return encode_in_python(message) if made is None else made
