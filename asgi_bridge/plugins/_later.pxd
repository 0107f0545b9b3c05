"""What other compiled modules take from ``_later.pyx``."""

from cpython.object cimport PyObject

cdef extern from *:
    """
    #ifndef ASGI_BRIDGE_RUN_WITH
    #define ASGI_BRIDGE_RUN_WITH
    static inline void run_with(PyObject *cls, void *function) {
        ((PyTypeObject *)cls)->tp_as_async->am_send = (sendfunc)function;
    }
    #endif
    """
    # let Python run the objects of a class, and of its subclasses, with this function of `PySendResult am_send(...)`:
    # `__next__` would have to raise StopIteration
    void run_with(object cls, void *function)

cdef enum:
    # what `run_on` returns, of PySendResult
    RETURNED = 0
    YIELDED = 1

cdef bint is_own(object running) noexcept
cdef int run_on(object running, object value, PyObject **found) except -1
cdef object sent(int how, PyObject *found)

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
