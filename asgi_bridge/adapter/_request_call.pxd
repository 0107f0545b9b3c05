"""What other compiled modules take from ``_request_call.pyx``."""

cdef object new_call(object message, object chain, object connection, object host)
cdef object usual_chain(object call)
cdef bint is_usual(object call, object chain) noexcept
cdef object begin_run(object call, object chain)
cdef bint end_run(object call, object chain, object owner) except -1
cdef long messages_of(object call) noexcept

ctypedef object (*Answering)(object connection, object message, object outcome)

cdef void answers_with(object kind, Answering function)
