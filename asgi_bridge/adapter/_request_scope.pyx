"""The scope of a request call in C: the compiled twin of ``request_scope.py``.

Both give the same scopes, and raise the same errors. Origins and addresses come out of the caches of the pure twin.
Values of headers and arguments may be of a subclass of bytes, as in a replay, which watches who reads them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from ..errors import RemoteProtocolError
from . import request_scope as pure

__all__ = ["build_scope", "checked_fields", "encode_query", "forwarded_origin"]

cdef extern from *:
    const char *ASGI_BRIDGE_SOURCES

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef enum:
    CACHED_LENGTH = 256

cdef object CACHED_ADDRESS = pure._cached_address
cdef object CACHED_ORIGIN = pure._cached_origin
cdef object ORIGIN = pure._origin
cdef bytes PROTO = b"x-forwarded-proto", HOST = b"x-forwarded-host", PORT = b"x-forwarded-port"
cdef bytes TRANSFER_ENCODING = b"transfer-encoding"

# Whether a byte stays as it is, in a path and in a query.
cdef bint[256] IN_PATH
cdef bint[256] IN_QUERY


cdef int _fill_tables() except -1:
    cdef int byte
    for byte in range(256):
        IN_PATH[byte] = byte in pure._IN_PATH
        IN_QUERY[byte] = byte in pure._IN_QUERY
    return 0


assert pure._CACHED_LENGTH == CACHED_LENGTH
_fill_tables()


# percent-encoding: the length is counted first, so that a buffer never has to grow


cdef Py_ssize_t _escaped_length(object text, const bint *safe):
    """Return the length of `text`, which is bytes, once it is percent-encoded."""
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(text)
    cdef Py_ssize_t index, size = PyBytes_GET_SIZE(text), length = size
    for index in range(size):
        if not safe[at[index]]:
            length += 2
    return length


cdef uint8_t *_write_escaped(uint8_t *to, object text, const bint *safe):
    """Write `text`, percent-encoded. Returns the position behind it."""
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(text)
    cdef const char *digits = "0123456789ABCDEF"
    cdef Py_ssize_t index
    cdef uint8_t byte
    for index in range(PyBytes_GET_SIZE(text)):
        byte = at[index]
        if safe[byte]:
            to[0] = byte
            to += 1
        else:
            to[0] = c"%"
            to[1] = digits[byte >> 4]
            to[2] = digits[byte & 15]
            to += 3
    return to


def encode_query(list args not None):
    """Return decoded arguments as a query string. See `request_scope.encode_query`."""
    cdef Py_ssize_t length = 0
    cdef bytes query
    cdef tuple pair  # nobody can change one between the two loops
    cdef object name, value
    cdef uint8_t *to
    cdef bint first = True
    if not args:
        return b""
    for pair in args:
        name, value = pair
        length += _escaped_length(_checked(name), IN_QUERY) + 1
        if value is not None:
            length += _escaped_length(_checked(value), IN_QUERY) + 1
    query = PyBytes_FromStringAndSize(NULL, length - 1)
    to = <uint8_t *>PyBytes_AS_STRING(query)
    for pair in args:
        name, value = pair
        if not first:
            to[0] = c"&"
            to += 1
        first = False
        to = _write_escaped(to, name, IN_QUERY)
        if value is not None:
            to[0] = c"="
            to = _write_escaped(to + 1, value, IN_QUERY)
    return query


cdef inline object _checked(object text):
    if not isinstance(text, bytes):
        raise TypeError(f"an argument has {type(text).__name__} in place of bytes")
    return text


# the message


cdef inline bint _is(bytes name, bytes other):
    """Whether two names of the same length are equal."""
    return name is other or not memcmp(PyBytes_AS_STRING(name), PyBytes_AS_STRING(other), <size_t>PyBytes_GET_SIZE(other))


def checked_fields(message):
    """Return the headers and arguments of a request, and the headers looked at. See `request_scope.checked_fields`."""
    cdef list headers = message.headers, args = message.args
    cdef dict index = {}
    cdef bytes name
    cdef object value
    cdef Py_ssize_t length
    if args is None:
        args = []
    if headers is None:
        headers = []
    for name, value in args:
        if name is None:
            raise RemoteProtocolError("an argument without a name")
    for name, value in headers:
        if name is None or value is None:
            raise RemoteProtocolError("a header without a name or value")
        length = PyBytes_GET_SIZE(name)
        if length == 17:
            if _is(name, PROTO) or _is(name, TRANSFER_ENCODING):
                index[name] = value
        elif length == 16:
            if _is(name, HOST) or _is(name, PORT):
                index[name] = value
    return headers, args, index


def forwarded_origin(dict index not None):
    """Return scheme and server that the client used. See `request_scope.forwarded_origin`."""
    cdef object proto = index.get(PROTO), host = index.get(HOST), port = index.get(PORT, b"")
    if proto is None or host is None:
        return None
    if not (isinstance(proto, bytes) and isinstance(host, bytes) and isinstance(port, bytes)):
        return ORIGIN(proto, host, port)
    if PyBytes_GET_SIZE(proto) + PyBytes_GET_SIZE(host) + PyBytes_GET_SIZE(port) > CACHED_LENGTH:
        return ORIGIN(proto, host, port)
    return CACHED_ORIGIN(proto, host, port)


def build_scope(message, list headers, list args, tuple origin not None, app):
    """Return the scope of a request. See `request_scope.build_scope`."""
    cdef bytes path = message.path, packed = message.src_ip, raw_path
    cdef Py_ssize_t size, length
    cdef object host = None
    if not path:
        path = b"/"
    raw_path = path
    size = PyBytes_GET_SIZE(path)
    length = _escaped_length(path, IN_PATH)
    if length != size:
        raw_path = PyBytes_FromStringAndSize(NULL, length)
        _write_escaped(<uint8_t *>PyBytes_AS_STRING(raw_path), path, IN_PATH)
    if packed is not None and (PyBytes_GET_SIZE(packed) == 4 or PyBytes_GET_SIZE(packed) == 16):
        host = CACHED_ADDRESS(packed)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": message.method,
        "scheme": origin[0],
        "path": PyUnicode_DecodeUTF8(PyBytes_AS_STRING(path), size, "replace"),
        "raw_path": raw_path,
        "query_string": encode_query(args) if args else b"",
        "root_path": "",
        "headers": headers,
        "client": (host, 0) if host else None,
        "server": origin[1],
        "extensions": {},
        "app": app,
    }
