"""What other compiled modules take from ``_answers.pyx``."""

from cpython.object cimport PyObject

cdef class Answers:
    cdef object loop, error
    # of whoever waits without a spare, or looks at them; None: nobody does
    cdef object future
    # the one that they wake; None: there is none, or not any more
    cdef object spare
    cdef list results
    cdef bint come
    # somebody has awaited them; they have yielded what that waits for; they are not run on any more
    cdef bint begun, waits, over
    cdef bint wakes(self, object spare, object loop) except -1
    cdef int arrive(self, list results, object error) except -1
    cdef object as_future(self)
    cdef int step(self, PyObject **found) except -1

ctypedef int (*Wake)(object spare, Answers answers) except -1

cdef void runs(object spare) noexcept
cdef void wakes_with(Wake function) noexcept
cdef Answers new_answers(object loop)
