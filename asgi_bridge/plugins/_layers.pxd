"""What other compiled modules take from ``_layers.pyx``."""

cdef bint is_usual_layer(object layer) except -1
cdef object state_of(object call, object scope, bint *has_state)
cdef object begin_layer(
    object layer, object call, object state, bint has_state, dict inner, object extensions, list headers, object receive,
    object send, object passing,
)

ctypedef object (*Innermost)(object call, object scope, object receive, object send)

cdef int goes_on_with(object kind, Innermost function) except -1
