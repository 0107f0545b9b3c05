"""What other compiled modules take from ``_encode.pyx``."""

cdef bytes encode_answer(object message, bint to_request, bint to_response)
