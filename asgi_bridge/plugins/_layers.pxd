"""What other compiled modules take from ``_layers.pyx``."""

from cpython.object cimport PyObject

cdef enum:
    # what `run_on` returns, of PySendResult
    RETURNED = 0
    YIELDED = 1

cdef bint is_usual_layer(object layer) except -1
cdef object state_of(object call, object scope)
cdef object begin_layer(
    object layer, object call, object state, dict inner, list headers, object receive, object send, object entered
)
cdef bint is_own(object running) noexcept
cdef int run_on(object running, object value, PyObject **found) except -1
