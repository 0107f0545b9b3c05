"""What other compiled modules take from ``_later.pyx``."""

from cpython.object cimport PyObject

cdef enum:
    # what `run_on` returns, of PySendResult
    RETURNED = 0
    YIELDED = 1

cdef bint is_own(object running) noexcept
cdef int run_on(object running, object value, PyObject **found) except -1

cdef class Later:
    # what it runs on; None: it has not begun, it runs, or is over
    cdef object running
    cdef bint begun, over
    # it has yielded what it waits for
    cdef bint waits
    cdef object begin(self)
    cdef object ended(self, object value)
    cdef int failed(self, object exc) except -1
    cdef object taken(self)
    cdef int step(self, object value, PyObject **found) except -1
