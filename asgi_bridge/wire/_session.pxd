"""What other compiled modules take from ``_session.pyx``."""

cdef enum:
    HEADER = 4
    # the type of a frame, `FrameType.EXTRA_INFO`
    EXTRA_INFO = 3

cdef object receive_usual(object session, object data, Py_ssize_t start, Py_ssize_t end)
cdef bytes send_usual(object session, object message)
cdef bytes ask_usual(object session, tuple infos)
