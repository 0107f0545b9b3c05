"""The arguments of a query, which nobody has read yet.

Most plugins never look at them: the scope has the query string, and that is made of the frame itself. So decoding only
checks where they are. Whoever reads the message's `args` gets the list, which is made then.
"""

from cython cimport final
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from .entries cimport UNUSUAL, Buffer, Entry, usual_entry
from .slots cimport held, is_kind, set_slot, slot_of

from .messages import HTTPReqCallReq

__all__ = ["SOURCES", "delete_args", "get_args", "set_args"]

cdef extern from *:
    """
    static void empty_slot(PyObject *self, Py_ssize_t at) {
        PyObject *before = *(PyObject **)((char *)self + at);
        *(PyObject **)((char *)self + at) = NULL;
        Py_XDECREF(before);
    }
    """
    void empty_slot(object self, Py_ssize_t at) noexcept
    const char *ASGI_BRIDGE_SOURCES

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object CALL = HTTPReqCallReq
cdef Py_ssize_t ARGS = slot_of(CALL, "args")


@final
cdef class Unread:
    """Entries in the usual layout, which `usual_entry` has found all: that it finds them again is certain.

    Attributes:
        data: Bytes that hold the payload.
        buf: The payload.
        slot: Position of the distance to the first entry.
        count: Number of entries.
    """

    cdef void find(self, Py_ssize_t index, Entry *entry) noexcept:
        """Find an entry."""
        cdef int64_t known = UNUSUAL
        if usual_entry(self.buf, self.slot + 4 * index, self.buf.size, &known, entry) == UNUSUAL:
            entry.name = entry.value = self.buf.bytes  # never: it was usual before
            entry.name_size = entry.value_size = 0

    cdef list read(self):
        """Return the entries."""
        cdef Py_ssize_t index
        cdef Entry entry
        cdef list entries = []
        for index in range(self.count):
            self.find(index, &entry)
            entries.append((
                PyBytes_FromStringAndSize(<const char *>entry.name, <Py_ssize_t>entry.name_size),
                PyBytes_FromStringAndSize(<const char *>entry.value, <Py_ssize_t>entry.value_size),
            ))
        return entries


cdef Unread unread(bytes data, Buffer buf, int64_t slot, int64_t count):
    """Return entries to be read later."""
    cdef Unread made = Unread.__new__(Unread)
    made.data = data
    made.buf = buf
    made.slot = slot
    made.count = <Py_ssize_t>count
    return made


cdef object arguments_of(object message):
    """Return what a request call has as its arguments: a list, None, or an `Unread`."""
    return held(message, ARGS)


cdef object _checked(object message):
    if not is_kind(message, CALL):
        raise TypeError(f"{type(message).__name__} is no {CALL.__name__}")
    return message


# The attribute `args` of request calls is a property of these three, so nobody gets to see an `Unread`.


def get_args(message):
    """Return the arguments. They are read now, if nobody has read them before."""
    cdef object found = held(_checked(message), ARGS)
    if type(found) is Unread:
        found = (<Unread>found).read()
        set_slot(message, ARGS, found)
    return found


def set_args(message, value):
    """Set the arguments."""
    set_slot(_checked(message), ARGS, value)


def delete_args(message):
    """Delete the attribute."""
    held(_checked(message), ARGS)
    empty_slot(message, ARGS)
