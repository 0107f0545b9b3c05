"""What other compiled modules take from ``_request_scope.pyx``."""

cdef tuple usual_scope(object method, object path, object packed, list headers, object args, object app)
