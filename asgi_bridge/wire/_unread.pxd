"""What other compiled modules take from ``_unread.pyx``."""

from .entries cimport Buffer, Entry

from libc.stdint cimport int64_t


cdef class Unread:
    cdef bytes data
    cdef Buffer buf
    cdef int64_t slot
    cdef Py_ssize_t count

    cdef void find(self, Py_ssize_t index, Entry *entry) noexcept
    cdef list read(self)


cdef Unread unread(bytes data, Buffer buf, int64_t slot, int64_t count)
cdef object arguments_of(object message)
