"""What other compiled modules take from ``_decode.pyx``."""

cdef object decode_from(int kind, bytes data, Py_ssize_t start, Py_ssize_t end, bint gateway)
