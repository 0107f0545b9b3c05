"""What other compiled modules take from ``_headers.pyx``."""

cdef list checked_list(list headers, Py_ssize_t start=*)
cdef object usual_differences(tuple before, dict after, object body)
cdef object usual_stop(object method, object status, list headers, bytes body, bint cures)
cdef list usual_response_headers(object headers)
