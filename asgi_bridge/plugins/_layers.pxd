"""What other compiled modules take from ``_layers.pyx``."""

cdef bint is_usual_layer(object layer) except -1
cdef object state_of(object call, object scope)
cdef object begin_layer(
    object layer, object call, object state, dict inner, object extensions, list headers, object receive, object send,
    object entered,
)

ctypedef object (*Innermost)(object call, object scope, object receive, object send)

cdef void goes_on_with(object kind, Innermost function)
