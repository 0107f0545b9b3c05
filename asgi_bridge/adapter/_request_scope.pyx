"""The scope of a request call in C: the compiled twin of ``request_scope.py``.

Both give the same scopes, and raise the same errors. Addresses come out of the cache of the pure twin.
Values of headers and arguments may be of a subclass of bytes, as in a replay, which watches who reads them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_SetItem
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeLatin1, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp

from ..wire._unread cimport Unread
from ..wire.entries cimport Entry
from ..wire.items cimport (
    AT_EXTENSIONS, AT_HEADERS, AT_METHOD, AT_PATH, AT_QUERY_STRING, AT_RAW_PATH, AT_STATE, AT_TYPE,
)
from ..wire.slots cimport set_slot

from ..errors import RemoteProtocolError
from ..wire.messages import METHODS
from . import request_scope as pure

__all__ = ["build_scope", "checked_fields", "encode_query", "forwarded_origin"]

cdef extern from *:
    const char *ASGI_BRIDGE_SOURCES

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef enum:
    SHORT_QUERY = 1024

cdef object CACHED_ADDRESS = pure._cached_address
cdef object FORWARDED_ORIGIN = pure.forwarded_origin
cdef bytes HTTP = b"http", HTTPS = b"https"
cdef bytes PROTO = b"x-forwarded-proto", HOST = b"x-forwarded-host", PORT = b"x-forwarded-port"
cdef bytes TRANSFER_ENCODING = b"transfer-encoding"

cdef bytes SLASH = b"/"

cdef str GET = METHODS[0]
# What all scopes begin with, as it is for a GET over http without a query: a copy of a dict costs less than a new one.
cdef bytes NO_QUERY = b""
cdef dict ASGI = {"version": "3.0", "spec_version": "2.4"}
cdef dict SCOPE = {
    "type": "http", "asgi": ASGI, "http_version": "1.1", "method": GET, "scheme": "http", "path": "", "raw_path": b"",
    "query_string": b"", "root_path": "", "headers": (), "client": None, "server": None, "extensions": None, "app": None,
}
# The same for a scope to which a layer adds the rest, with the host application that came last.
cdef dict scope_of_layer = {**SCOPE, "state": None}
cdef object last_app = None
cdef dict PLACES = {
    "type": AT_TYPE, "method": AT_METHOD, "path": AT_PATH, "raw_path": AT_RAW_PATH, "query_string": AT_QUERY_STRING,
    "headers": AT_HEADERS, "extensions": AT_EXTENSIONS, "state": AT_STATE,
}
for number, each in enumerate(scope_of_layer):
    if PLACES.get(each, number) != number:
        raise ImportError(f"{each} is at another place in the scope")
# Whether a byte stays as it is, in a path and in a query.
cdef uint8_t[256] IN_PATH
cdef uint8_t[256] IN_QUERY


cdef int _fill_tables() except -1:
    cdef int byte
    for byte in range(256):
        IN_PATH[byte] = byte in pure._IN_PATH
        IN_QUERY[byte] = byte in pure._IN_QUERY
    return 0


_fill_tables()


# percent-encoding: the length is counted first, or a buffer has room for the longest, so that none has to grow


cdef Py_ssize_t _escaped_length(object text, const uint8_t *safe):
    """Return the length of `text`, which is bytes, once it is percent-encoded."""
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(text)
    cdef Py_ssize_t index, size = PyBytes_GET_SIZE(text), length = size
    for index in range(size):
        if not safe[at[index]]:
            length += 2
    return length


cdef inline uint8_t *_escaped(uint8_t *to, const uint8_t *at, Py_ssize_t size, const uint8_t *safe) noexcept:
    """Write `size` bytes, percent-encoded. Returns the position behind them."""
    cdef const char *digits = "0123456789ABCDEF"
    cdef Py_ssize_t index
    cdef uint8_t byte
    for index in range(size):
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


cdef uint8_t *_write_escaped(uint8_t *to, object text, const uint8_t *safe) noexcept:
    """Write `text`, which is bytes, percent-encoded. Returns the position behind it."""
    return _escaped(to, <const uint8_t *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), safe)


def encode_query(list args not None):
    """Return decoded arguments as a query string. See `request_scope.encode_query`."""
    return _query(args)


cdef bytes _query(list args):
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


cdef bytes _unread_query(Unread args):
    """Return arguments that nobody has read as a query string."""
    cdef uint8_t[SHORT_QUERY] text
    cdef uint8_t *to = text
    cdef Py_ssize_t index
    cdef Entry entry
    for index in range(args.count):
        args.find(index, &entry)
        if 3 * (entry.name_size + entry.value_size) + 2 > SHORT_QUERY - (to - text):
            return _query(args.read())
        if index:
            to[0] = c"&"
            to += 1
        to = _escaped(to, entry.name, entry.name_size, IN_QUERY)
        to[0] = c"="
        to = _escaped(to + 1, entry.value, entry.value_size, IN_QUERY)
    return PyBytes_FromStringAndSize(<char *>text, to - text)


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
    if PyBytes_CheckExact(proto) and PyBytes_CheckExact(host) and PyBytes_CheckExact(port):
        server = _usual_server(proto, host, port)
        if server is not None:
            return "https" if PyBytes_GET_SIZE(proto) == 5 else "http", server
    return FORWARDED_ORIGIN(index)


cdef object _client(bytes packed):
    """Return the client of a scope: its address, and no port."""
    cdef const uint8_t *octets
    cdef char[16] text
    cdef Py_ssize_t length = 0
    cdef int index
    cdef uint8_t octet
    if packed is None:
        return None
    if PyBytes_GET_SIZE(packed) != 4:
        return (CACHED_ADDRESS(packed), 0) if PyBytes_GET_SIZE(packed) == 16 else None
    octets = <const uint8_t *>PyBytes_AS_STRING(packed)
    for index in range(4):
        octet = octets[index]
        if octet >= 100:
            text[length] = c"0" + octet // 100
            length += 1
        if octet >= 10:
            text[length] = c"0" + octet // 10 % 10
            length += 1
        text[length] = c"0" + octet % 10
        text[length + 1] = c"."
        length += 2
    return PyUnicode_DecodeASCII(text, length - 1, NULL), 0


cdef inline bint _same(bytes one, bytes other) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(one)
    return size == PyBytes_GET_SIZE(other) and not memcmp(
        PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), <size_t>size
    )


cdef inline long _port_number(const uint8_t *at, Py_ssize_t size) noexcept:
    """Return the port that a text names; 0: it names none."""
    cdef long number = 0
    cdef Py_ssize_t index
    if not 0 < size <= 5:
        return 0
    for index in range(size):
        if not c"0" <= at[index] <= c"9":
            return 0
        number = number * 10 + at[index] - c"0"
    return number if number <= 65535 else 0


cdef tuple _usual_server(bytes proto, bytes host, bytes port):
    """Return the server that the client used: name and port. None: the pure twin has to look at the headers.

    A cache would gain nothing: where the hosts are many, what it keeps of each is not in the processor's cache.
    """
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(host)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(host), rest
    cdef const uint8_t *colon
    cdef long number, own = 0
    if not size or at[0] == c"[" or not _same(proto, HTTP) and not _same(proto, HTTPS):
        return None
    colon = <const uint8_t *>memchr(at, c":", <size_t>size)
    if colon is not NULL:
        rest = at + size - colon - 1
        if memchr(colon + 1, c":", <size_t>rest) is not NULL:
            return None
        own = _port_number(colon + 1, rest)
        if own:
            size = colon - at
    number = _port_number(<const uint8_t *>PyBytes_AS_STRING(port), PyBytes_GET_SIZE(port))
    if not number:
        number = own if own else 443 if PyBytes_GET_SIZE(proto) == 5 else 80
    return PyUnicode_DecodeLatin1(<const char *>at, size, NULL), number


cdef bytes _raw_path(bytes path):
    """Return a decoded path, percent-encoded."""
    cdef bytes raw_path
    cdef Py_ssize_t length = _escaped_length(path, IN_PATH)
    if length == PyBytes_GET_SIZE(path):
        return path
    raw_path = PyBytes_FromStringAndSize(NULL, length)
    _write_escaped(<uint8_t *>PyBytes_AS_STRING(raw_path), path, IN_PATH)
    return raw_path


cdef tuple _fill(dict scope, object method, bytes path, bytes packed, list headers, object args):
    """Fill in all but origin, app, headers and extensions. So far the scope is a copy of `SCOPE`.

    Returns the fields that are compared with those that a chain passes on.
    """
    cdef object text = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path), "replace")
    cdef bytes raw_path = _raw_path(path), query = NO_QUERY
    PyDict_SetItem(scope, "asgi", PyDict_Copy(ASGI))
    if method is not GET:
        PyDict_SetItem(scope, "method", method)
    PyDict_SetItem(scope, "path", text)
    PyDict_SetItem(scope, "raw_path", raw_path)
    if args:
        query = _unread_query(args) if type(args) is Unread else _query(args)
        PyDict_SetItem(scope, "query_string", query)
    PyDict_SetItem(scope, "client", _client(packed))
    return method, query, text, raw_path, headers


def build_scope(message, list headers, list args, tuple origin not None, app):
    """Return the scope of a request. See `request_scope.build_scope`."""
    if PyTuple_GET_SIZE(origin) != 2:
        raise ValueError("an origin is a scheme and a server")
    cdef dict scope = PyDict_Copy(SCOPE)
    PyDict_SetItem(scope, "scheme", origin[0])
    PyDict_SetItem(scope, "server", origin[1])
    PyDict_SetItem(scope, "app", app)
    _fill(scope, message.method, message.path or b"/", message.src_ip, headers, args)
    PyDict_SetItem(scope, "headers", headers)
    PyDict_SetItem(scope, "extensions", {})
    return scope


cdef dict usual_scope(
    object method, object path, object packed, list headers, object args, object app, object call, Py_ssize_t before
):
    """Make the scope of a request, all in one step, but for what a layer adds: headers, extensions and state.

    Returns None if something is unusual.

    Args:
        method, path, packed, headers, args: The fields of the message.
        app: The host application.
        call: The call.
        before: Its slot that gets the fields which are compared with those that the chain passes on.
    """
    global last_app, scope_of_layer
    cdef bytes proto = None, host = None, port = b""
    cdef Py_ssize_t index, length
    cdef PyObject *entry
    cdef PyObject *name
    cdef PyObject *value
    cdef tuple server
    cdef dict scope
    if path is None:
        path = SLASH
    elif not PyBytes_CheckExact(path):
        return None
    elif not PyBytes_GET_SIZE(path):
        path = SLASH
    if packed is not None and not PyBytes_CheckExact(packed):
        return None
    if args is not None and type(args) is not Unread:
        if not PyList_CheckExact(args):
            return None
        for index in range(PyList_GET_SIZE(args)):
            entry = PyList_GET_ITEM(args, index)
            if not _is_pair(entry) or PyTuple_GET_ITEM(<object>entry, 0) is <PyObject *>None:
                return None
    for index in range(PyList_GET_SIZE(headers)):
        entry = PyList_GET_ITEM(headers, index)
        if not _is_pair(entry):
            return None
        name = PyTuple_GET_ITEM(<object>entry, 0)
        value = PyTuple_GET_ITEM(<object>entry, 1)
        if not PyBytes_CheckExact(<object>name) or not PyBytes_CheckExact(<object>value):
            return None
        length = PyBytes_GET_SIZE(<object>name)
        if length == 17:
            if _is(<bytes>name, PROTO):
                proto = <bytes>value
        elif length == 16:
            if _is(<bytes>name, HOST):
                host = <bytes>value
            elif _is(<bytes>name, PORT):
                port = <bytes>value
    if proto is None or host is None:
        return None
    server = _usual_server(proto, host, port)
    if server is None:
        return None
    if app is not last_app:
        last_app = app
        scope_of_layer = {**SCOPE, "app": app, "state": None}
    scope = PyDict_Copy(scope_of_layer)
    if PyBytes_GET_SIZE(proto) == 5:
        PyDict_SetItem(scope, "scheme", "https")
    PyDict_SetItem(scope, "server", server)
    set_slot(call, before, _fill(scope, method, path, packed, headers, args))
    return scope


cdef inline bint _is_pair(PyObject *entry) noexcept:
    return PyTuple_CheckExact(<object>entry) and PyTuple_GET_SIZE(<object>entry) == 2
