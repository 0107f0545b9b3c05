"""What other compiled modules take from ``_request_scope.pyx``."""

cdef dict usual_scope(
    object method, object path, object packed, list headers, object args, object app, object call, Py_ssize_t before
)
