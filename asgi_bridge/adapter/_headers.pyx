"""The way back in C: compiled twins of functions in ``headers.py``, ``changes.py`` and ``answer.py``.

Each function here does what is usual: lists of pairs of ``bytes``, with nothing to warn of and nothing to refuse. Where
something else comes, it calls its pure twin with the same arguments. So all warnings, all errors, and all rules about
single headers that have a reason of their own stand there alone.

How memory stays safe
    Nothing is called but functions on exact ``bytes``, ``tuple`` and ``list``. Still, to make a tuple or a list may run
    the garbage collector, and that a finalizer, which is Python code and may change a plugin's list. So what is read
    after such a step is a list of our own, or its size and its pairs are checked again.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from ..wire.items cimport AT_HEADERS, AT_METHOD, AT_PATH, AT_QUERY_STRING, AT_RAW_PATH, value_at
from ..wire.lists cimport copy_from
from ..wire.names cimport LONGEST_NAME, NAMES, is_name, place_of
from ..wire.slots cimport new_empty, number_of, set_slot, slot_of

from ..apisix_constants import BODYLESS_STATUSES, TOKEN_BYTES
from ..wire import Rewrite, Stop
from ..wire.messages import METHODS
from .answer import BEFORE_THE_UPSTREAM, OF_CONNECTION, response_headers as response_headers_in_python
from .answer import stop as stop_in_python
from .changes import GATEWAYS_OWN, differences as differences_in_python
from .headers import BLANKS, CONTROLS, checked_headers as checked_headers_in_python

__all__ = ["SOURCES", "checked_headers", "differences", "response_headers", "stop"]

cdef extern from *:
    """
    /* Whether one of the 8 bytes at a position is below 32, or 127. Those of a word are looked at all at once. */
    static inline int may_have_control(const char *at) {
        const uint64_t each = 0x0101010101010101u;
        uint64_t word, without;
        memcpy(&word, at, 8);
        without = word ^ each * 127;
        return (((word - each * 32) & ~word) | ((without - each) & ~without)) & each * 128 ? 1 : 0;
    }
    """
    const char *ASGI_BRIDGE_SOURCES
    long PyLong_AsLong(object number) except? -1
    bint may_have_control(const char *at) noexcept

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef enum:
    # The time of a comparison grows with the square of these numbers. Beyond them the pure twin is quicker.
    MAX_COMPARED = 256
    MAX_CHANGED = 32

cdef object STOP = Stop, REWRITE = Rewrite
cdef str GET = METHODS[0]
cdef Py_ssize_t STOP_STATUS = slot_of(STOP, "status"), STOP_HEADERS = slot_of(STOP, "headers")
cdef Py_ssize_t STOP_BODY = slot_of(STOP, "body")
cdef Py_ssize_t PATH = slot_of(REWRITE, "path"), HEADERS = slot_of(REWRITE, "headers"), ARGS = slot_of(REWRITE, "args")
cdef Py_ssize_t RESP_HEADERS = slot_of(REWRITE, "resp_headers"), BODY = slot_of(REWRITE, "body")
cdef frozenset OWN = GATEWAYS_OWN | {b"host"}, CONNECTION = OF_CONNECTION
cdef frozenset LOST = BEFORE_THE_UPSTREAM
# A bit for each length of a name in these two, up to 63.
cdef uint64_t LENGTHS_OF_CONNECTION = sum({1 << len(name) for name in OF_CONNECTION if len(name) < 64})
cdef uint64_t LENGTHS_OF_LOST = sum({1 << len(name) for name in BEFORE_THE_UPSTREAM if len(name) < 64})
cdef bytes CONTENT_TYPE = b"content-type", CONTENT_LENGTH = b"content-length", SERVER = b"server", COOKIE = b"cookie"
cdef bytes CONTENT = b"content-", FILLER = b" "
cdef bytes COMMA = b", ", SEMICOLON = b"; "
cdef tuple NO_CONTENT_TYPE = (CONTENT_TYPE, b"")
cdef object MISSING = object()

# A status → whether its response has no body.
cdef bint[1000] IS_BODYLESS
# A byte → the byte in lower case; 0: it cannot stand in the name of a header.
cdef uint8_t[256] LOWER
# Names of headers that were found to be right, and in lower case.
cdef list RIGHT = [None] * NAMES


def _fill_tables():
    for byte in range(256):
        octet = bytes((byte,))
        LOWER[byte] = octet.lower()[0] if TOKEN_BYTES.fullmatch(octet) else 0
    for status in range(1000):
        IS_BODYLESS[status] = status in BODYLESS_STATUSES


_fill_tables()
if CONTENT_LENGTH not in OF_CONNECTION:
    raise ImportError("_stop_headers leaves content-length out")
if BLANKS != b" \t":
    raise ImportError("_stripped strips blanks and tabs")


cdef inline bint _is_pair(PyObject *entry) noexcept:
    """Return whether this is a pair of bytes, exactly."""
    return (
        PyTuple_CheckExact(<object>entry)
        and PyTuple_GET_SIZE(<object>entry) == 2
        and PyBytes_CheckExact(<object>PyTuple_GET_ITEM(<object>entry, 0))
        and PyBytes_CheckExact(<object>PyTuple_GET_ITEM(<object>entry, 1))
    )


cdef inline bint _equal(PyObject *one, PyObject *other) noexcept:
    """Return whether two bytes objects are equal."""
    if one is other:
        return True
    cdef Py_ssize_t size = PyBytes_GET_SIZE(<object>one)
    return size == PyBytes_GET_SIZE(<object>other) and not memcmp(
        PyBytes_AS_STRING(<object>one), PyBytes_AS_STRING(<object>other), size
    )


cdef inline object _lower(object name):
    """Return a header's name in lower case; None: it is none."""
    cdef Py_ssize_t index, size = PyBytes_GET_SIZE(name)
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(name)
    cdef bint same = True
    cdef uint8_t lower
    cdef uint32_t place = 0
    cdef object right
    if not size:
        return None
    if size <= LONGEST_NAME:
        place = place_of(at, size)
        right = RIGHT[place]
        if right is name or is_name(right, at, size):
            return name
    for index in range(size):
        lower = LOWER[at[index]]
        if not lower:
            return None
        if lower != at[index]:
            same = False
    if not same:
        return name.lower()
    if size <= LONGEST_NAME:
        RIGHT[place] = name
    return name


cdef inline object _stripped(object value):
    """Return a value without the blanks around it."""
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(value)
    cdef Py_ssize_t start = 0, end = PyBytes_GET_SIZE(value)
    while start < end and (at[start] == c" " or at[start] == c"\t"):
        start += 1
    while start < end and (at[end - 1] == c" " or at[end - 1] == c"\t"):
        end -= 1
    if not start and end == PyBytes_GET_SIZE(value):
        return value
    return PyBytes_FromStringAndSize(<const char *>at + start, end - start)


cdef inline bint _is_control(uint8_t byte) noexcept:
    """Return whether a byte cannot stand in a header's value."""
    return (byte < 32) & (byte != c"\t") | (byte == 127)


cdef inline bint _has_control(object value) noexcept:
    """Return whether a value has a byte that cannot stand in one."""
    cdef Py_ssize_t index, size = PyBytes_GET_SIZE(value)
    cdef const char *at = PyBytes_AS_STRING(value)
    cdef bint found = size < 8
    if not found:
        for index in range(0, size - 7, 8):
            found |= may_have_control(at + index)
        found |= may_have_control(at + size - 8)  # the rest, and some bytes once more
        if not found:
            return False
    found = False
    for index in range(size):
        found |= _is_control(<uint8_t>at[index])
    return found


for each in range(256):
    if _is_control(each) != (bytes((each,)) in CONTROLS):
        raise ImportError(f"_is_control: {each}")


cdef inline tuple _checked(PyObject *entry):
    """Return a header that a plugin has set as a checked pair; None: something is unusual about it."""
    if not _is_pair(entry):
        return None
    cdef object given = <object>entry
    cdef object name = <object>PyTuple_GET_ITEM(given, 0), value = <object>PyTuple_GET_ITEM(given, 1)
    cdef object lower = _lower(name), stripped = _stripped(value)
    if lower is None or _has_control(stripped):
        return None
    return given if lower is name and stripped is value else (lower, stripped)


cdef list checked_list(list headers, Py_ssize_t start=0):
    """Return a list of the headers from an index on, checked; None: something is unusual."""
    cdef list checked = copy_from(headers, start)
    cdef Py_ssize_t index
    cdef PyObject *entry
    cdef tuple pair
    for index in range(PyList_GET_SIZE(checked)):
        entry = PyList_GET_ITEM(checked, index)
        pair = _checked(entry)
        if pair is None:
            return None
        if <PyObject *>pair is not entry:
            checked[index] = pair
    return checked


def checked_headers(headers, before=()):
    """Check the headers that a plugin has set, as the function of the same name in ``headers.py`` does."""
    cdef list checked = checked_list(headers) if PyList_CheckExact(headers) else None
    return checked_headers_in_python(headers, before) if checked is None else checked


cdef inline PyObject *_name(list pairs, Py_ssize_t index) noexcept:
    return PyTuple_GET_ITEM(<object>PyList_GET_ITEM(pairs, index), 0)


cdef inline object _value(list pairs, Py_ssize_t index):
    return <object>PyTuple_GET_ITEM(<object>PyList_GET_ITEM(pairs, index), 1)


cdef inline Py_ssize_t _find(list pairs, PyObject *name, Py_ssize_t start, Py_ssize_t end) noexcept:
    """Return the index of the first pair from `start` on that has this name; `end`: there is none."""
    while start < end and not _equal(_name(pairs, start), name):
        start += 1
    return start


cdef Py_ssize_t _first_difference(list before, list after) noexcept:
    """Return how many headers at the beginning are the same in both lists; -1: not all headers are usual."""
    cdef Py_ssize_t index, count = PyList_GET_SIZE(before), most = PyList_GET_SIZE(after), same = 0
    cdef PyObject *old
    cdef PyObject *new
    for index in range(count):
        if not _is_pair(PyList_GET_ITEM(before, index)):
            return -1
    for index in range(most):
        if not _is_pair(PyList_GET_ITEM(after, index)):
            return -1
    most = min(most, count)
    while same < most and PyList_GET_ITEM(before, same) is PyList_GET_ITEM(after, same):
        same += 1
    if most < count:
        return same
    for index in range(same, count):
        old = PyList_GET_ITEM(before, index)
        new = PyList_GET_ITEM(after, index)
        if not _equal(PyTuple_GET_ITEM(<object>old, 0), PyTuple_GET_ITEM(<object>new, 0)):
            return same
        if not _equal(PyTuple_GET_ITEM(<object>old, 1), PyTuple_GET_ITEM(<object>new, 1)):
            return same
    return count


cdef bint _is_unchanged(list before, list after) noexcept:
    """Return whether these are the same headers, the very same objects, and all of them are usual."""
    cdef Py_ssize_t index, count = PyList_GET_SIZE(before)
    cdef PyObject *entry
    if count != PyList_GET_SIZE(after):
        return False
    for index in range(count):
        entry = PyList_GET_ITEM(before, index)
        if entry is not PyList_GET_ITEM(after, index) or not _is_pair(entry):
            return False
    return True


cdef list _changed_headers(list before, list after):
    """Return the headers to set and delete; None: something is unusual."""
    before = copy_from(before, 0)
    cdef Py_ssize_t old_count = PyList_GET_SIZE(before), new_count = PyList_GET_SIZE(after)
    cdef Py_ssize_t same, index, other, olds
    cdef list entries = [], new, values
    cdef object value
    cdef PyObject *name
    cdef bint equal
    if old_count > MAX_COMPARED or new_count > MAX_COMPARED:
        return None
    same = _first_difference(before, after)
    if same < 0 or new_count - same > MAX_CHANGED or old_count - same > MAX_CHANGED:
        return None
    new = checked_list(after, same)
    if new is None:
        return None
    new_count = PyList_GET_SIZE(new)
    # `new` holds only what differs. The first `same` headers of `before` are in both lists; behind them is what differs.
    for index in range(new_count):
        name = _name(new, index)
        if _find(new, name, 0, index) < index:
            continue  # it was dealt with where the name came first
        values = []
        equal = True
        olds = same
        other = index
        while other < new_count:
            value = _value(new, other)
            values.append(value)
            if equal:
                olds = _find(before, name, olds, old_count)
                equal = olds < old_count and _stripped(_value(before, olds)) == value
                olds += 1
            other = _find(new, name, other + 1, new_count)
        if equal and _find(before, name, olds, old_count) == old_count:
            continue
        if <object>name in OWN:
            return None
        olds = _find(before, name, 0, old_count)
        if olds < same:
            # the values that both have come first
            other = 0
            while olds < same:
                values.insert(other, _stripped(_value(before, olds)))
                other += 1
                olds = _find(before, name, olds + 1, same)
            olds = _find(before, name, 0, old_count)
        if PyList_GET_SIZE(values) == 1:
            value = <object>PyList_GET_ITEM(values, 0)
        else:
            value = (SEMICOLON if <object>name == COOKIE else COMMA).join(values)
        if not value:
            return None
        if olds < old_count and _find(before, name, olds + 1, old_count) < old_count:
            entries.append((<object>name, None))
        entries.append((<object>name, value))
    for index in range(same, old_count):
        name = _name(before, index)
        if _find(new, name, 0, new_count) < new_count or _find(before, name, same, index) < index:
            continue
        if <object>name in OWN or _find(before, name, 0, same) < same:
            return None
        entries.append((<object>name, None))
    return entries


cdef inline bint _same_text(object one, object other) except -1:
    """Return whether these are equal strings, or equal bytes. False too where they are anything else."""
    if one is other:
        return True
    if type(one) is bytes and type(other) is bytes:
        return _equal(<PyObject *>one, <PyObject *>other)
    return type(one) is str and type(other) is str and one == other


cdef object usual_differences(tuple before, dict after, object body):
    """Return a Rewrite; None: nothing was changed; NotImplemented: something is unusual.

    Args:
        before: Of the scope of the request: method, query string, path, raw path, headers. These five, no fewer.
        after: The scope that the chain passed on.
        body: The request body, if the chain changed it.
    """
    cdef object path = None, old, found, new = value_at(after, AT_PATH, "path", MISSING)
    cdef object raw_path = value_at(after, AT_RAW_PATH, "raw_path", None)
    cdef object method = value_at(after, AT_METHOD, "method", MISSING)
    cdef object query = value_at(after, AT_QUERY_STRING, "query_string", MISSING)
    cdef object headers = value_at(after, AT_HEADERS, "headers", MISSING)
    cdef list entries = None
    if not _same_text(before[0], method) or not _same_text(before[1], query):
        return NotImplemented
    if not _same_text(before[2], new):
        if type(new) is not str or not new or new[0] != "/" or "\ufffd" in new:
            return NotImplemented
        try:
            path = (<str>new).encode()
        except UnicodeEncodeError:
            return NotImplemented
    elif raw_path is not None and not _same_text(before[3], raw_path):
        return NotImplemented
    old = before[4]
    if old is not headers:
        if not PyList_CheckExact(old) or not PyList_CheckExact(headers):
            return NotImplemented
        if not _is_unchanged(old, headers):
            entries = _changed_headers(old, headers)
            if entries is None:
                return NotImplemented
            if not entries:
                entries = None
    if path is None and entries is None and body is None:
        return None
    found = new_empty(REWRITE)  # quicker than to call the class
    set_slot(found, PATH, path)
    set_slot(found, HEADERS, entries)
    set_slot(found, ARGS, None)
    set_slot(found, RESP_HEADERS, None)
    set_slot(found, BODY, body)
    return found


def differences(before, after, args, body, warn):
    """Return what was changed in a request as a Rewrite, as the function of the same name in ``changes.py`` does."""
    cdef object found = NotImplemented
    if type(before) is dict and type(after) is dict:
        try:
            each = (before["method"], before["query_string"], before["path"], before["raw_path"], before["headers"])
            found = usual_differences(each, after, body)
        except KeyError:  # the pure twin says which
            pass
    return differences_in_python(before, after, args, body, warn) if found is NotImplemented else found


cdef bint _says(object value, Py_ssize_t length) noexcept:
    """Return whether the value of a content-length is this length."""
    cdef Py_ssize_t index = PyBytes_GET_SIZE(value)
    cdef const char *at = PyBytes_AS_STRING(value)
    if not index:
        return False
    while index > 0:
        index -= 1
        if at[index] != c"0" + length % 10:
            return False
        length //= 10
        if not length:
            return not index
    return False


cdef inline bint _is_among(PyObject *name, frozenset names, uint64_t lengths) except -1:
    """Return whether a name is one of some: most have another length than these."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(<object>name)
    return (size > 63 or lengths >> size & 1) and <object>name in names


cdef list _stop_headers(list headers, Py_ssize_t length, bint cures):
    """Return the headers of a response with a body; None: something is unusual."""
    cdef list entries = []
    cdef Py_ssize_t index
    cdef PyObject *entry
    cdef PyObject *name
    cdef bint typed = False
    for index in range(PyList_GET_SIZE(headers)):
        entry = PyList_GET_ITEM(headers, index)
        if not _is_pair(entry):
            return None
        name = PyTuple_GET_ITEM(<object>entry, 0)
        if _equal(name, <PyObject *>CONTENT_LENGTH):
            if not _says(_value(headers, index), length):
                return None
            continue
        if _is_among(name, CONNECTION, LENGTHS_OF_CONNECTION):
            continue
        if not PyBytes_GET_SIZE(_value(headers, index)) or _equal(name, <PyObject *>SERVER):
            return None
        if _equal(name, <PyObject *>CONTENT_TYPE):
            typed = True
        entries.append(<object>entry)
    if cures and not typed:
        entries.append(NO_CONTENT_TYPE)
    return entries


cdef object usual_stop(object method, object status, list headers, bytes body, bint cures):
    """Return a response as a Stop; None: something is unusual."""
    cdef list entries
    cdef object content = body, found
    cdef long number = number_of(<PyObject *>status)
    if type(method) is not str or method is not GET and method == "HEAD" or not 0 <= number < 1000 or IS_BODYLESS[number]:
        return None
    entries = _stop_headers(headers, PyBytes_GET_SIZE(body), cures)
    if entries is None:
        return None
    if not PyBytes_GET_SIZE(body):
        content = FILLER if cures and status >= 300 else None
    found = new_empty(STOP)
    set_slot(found, STOP_STATUS, status)
    set_slot(found, STOP_HEADERS, entries)
    set_slot(found, STOP_BODY, content)
    return found


def stop(method, status, headers, body, cures, warn):
    """Return a response as a Stop, as the function of the same name in ``answer.py`` does."""
    cdef object found = None
    if PyList_CheckExact(headers) and PyBytes_CheckExact(body) and type(cures) is bool:
        found = usual_stop(method, status, headers, body, cures)
    return stop_in_python(method, status, headers, body, cures, warn) if found is None else found


cdef list usual_response_headers(object headers):
    """Return the headers on the empty response; None: something is unusual."""
    cdef Py_ssize_t index
    cdef PyObject *entry
    cdef PyObject *name
    cdef list given
    if not PyList_CheckExact(headers):
        return None
    given = headers
    for index in range(PyList_GET_SIZE(given)):
        entry = PyList_GET_ITEM(given, index)
        if not _is_pair(entry):
            return None
        name = PyTuple_GET_ITEM(<object>entry, 0)
        if not PyBytes_GET_SIZE(_value(given, index)) or _begins(name, CONTENT):
            return None
        if _is_among(name, LOST, LENGTHS_OF_LOST):
            return None
    return copy_from(given, 0)


def response_headers(headers, warn):
    """Return the headers on the empty response, as the function of the same name in ``answer.py`` does."""
    cdef list found = usual_response_headers(headers)
    return response_headers_in_python(headers, warn) if found is None else found


cdef inline bint _begins(PyObject *name, bytes start) noexcept:
    return PyBytes_GET_SIZE(<object>name) >= PyBytes_GET_SIZE(start) and not memcmp(
        PyBytes_AS_STRING(<object>name), PyBytes_AS_STRING(start), PyBytes_GET_SIZE(start)
    )
